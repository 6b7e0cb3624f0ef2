//! What follows from a pair of agents by hashing: who comes first, and the jitter of repeated dials.

use std::time::Duration;

use libp2p::PeerId;
use sha2::{Digest, Sha256};

use super::Target;
use crate::discovery::Address;

const SEED_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
const PEER_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Where a transport is blocked, it stays so for long, and each dial takes as long as a handshake may.
const FURTHER_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// Lower comes first.
pub(crate) type Weight = [u8; 32];

/// Rendezvous hash of the unordered pair of us and a target: both ends of a pair compute the same.
pub(super) fn weight(own_id: PeerId, own_address: Option<Address>, target: &Target) -> Weight {
    match target {
        Target::Peer(peer) | Target::Member(peer, _) => hash(&own_id.to_bytes(), &peer.to_bytes()),
        Target::Seed(address) => {
            let text = |address: Address| address.socket().to_string();
            hash(
                own_address.map(text).unwrap_or_default().as_bytes(),
                text(*address).as_bytes(),
            )
        }
    }
}

/// The same whichever of the two comes first.
pub(crate) fn hash(a: &[u8], b: &[u8]) -> Weight {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    Sha256::new()
        .chain_update((low.len() as u64).to_be_bytes())
        .chain_update(low)
        .chain_update(high)
        .finalize()
        .into()
}

/// Doubles with every failure up to a bound. The jitter (80 % to 120 %) is a hash, so that the plan stays reproducible.
pub(super) fn backoff(own_id: PeerId, target: Target, failures: u32) -> Duration {
    let (first, last) = match target {
        Target::Seed(_) => SEED_BACKOFF,
        Target::Peer(_) => PEER_BACKOFF,
        Target::Member(..) => FURTHER_BACKOFF,
    };
    let base = first.saturating_mul(1_u32 << failures.min(10)).min(last);
    let jitter = hash(&own_id.to_bytes(), format!("{target:?} {failures}").as_bytes());
    base.mul_f64(0.8 + f64::from(jitter.first().copied().unwrap_or_default()) / 255.0 * 0.4)
}
