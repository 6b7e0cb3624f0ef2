//! Which key a side would connect by, told to those who have it and to nobody else. Pure.
//!
//! Both sides of a connection begin with a nonce of 24 bytes that libp2p's specification wants to be random. Ours is 16
//! random bytes and 8 that are an HMAC of them: who holds the key can tell that it is meant, to all others it is as random
//! as the rest. So the dialer learns which key the listener would use before it has to choose one, and a network whose
//! members don't all have the newest key yet has one all the same. Other implementations send nonces that mean nothing.

use hmac::{Hmac, KeyInit, Mac};
use peernet_api::private_key::PreSharedKey;
use sha2::Sha256;

/// Length of a nonce, in bytes.
pub(super) const NONCE: usize = 24;
const RANDOM: usize = 16;
const HINT: usize = NONCE - RANDOM;
/// Keeps the HMAC apart from any other use of the key.
const PURPOSE: &[u8] = b"/peernet/pnet/hint/1";

/// A new nonce of one who would connect by this key.
pub(super) fn nonce(key: &PreSharedKey) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    let (random, hint) = nonce.split_at_mut(RANDOM);
    rand::fill(random);
    hint.copy_from_slice(&meaning(key, random));
    nonce
}

/// Whether the sender of this nonce would connect by this key.
pub(super) fn means(nonce: &[u8; NONCE], key: &PreSharedKey) -> bool {
    let (random, hint) = nonce.split_at(RANDOM);
    hint == meaning(key, random)
}

fn meaning(key: &PreSharedKey, random: &[u8]) -> [u8; HINT] {
    let mut hint = [0; HINT];
    // HMAC takes keys of any length.
    if let Ok(mac) = Hmac::<Sha256>::new_from_slice(key.bytes()) {
        let full = mac
            .chain_update(PURPOSE)
            .chain_update(random)
            .finalize()
            .into_bytes();
        for (to, from) in hint.iter_mut().zip(full) {
            *to = from;
        }
    }
    hint
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(byte: u8) -> PreSharedKey {
        PreSharedKey::new([byte; 32])
    }

    #[test]
    fn only_the_holder_of_the_key_knows_what_a_nonce_means() {
        for _ in 0..1_000 {
            let nonce = nonce(&key(1));
            assert!(means(&nonce, &key(1)) && !means(&nonce, &key(2)));
        }
        assert!(!means(&[0; NONCE], &key(1)));
    }

    #[test]
    fn no_nonce_comes_twice() {
        let nonces: HashSet<_> = (0..10_000).map(|_| nonce(&key(1))).collect();
        assert_eq!(nonces.len(), 10_000);
    }
}
