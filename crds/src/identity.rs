//! Identities that follow from the network's secret.
//!
//! An agent's Ed25519 seed is HKDF-SHA256 (RFC 5869) of the network's secret with the info `identity/NAME`, where NAME
//! is its pod's name in a StatefulSet and its node's name in a DaemonSet. So a restarted pod keeps its peer id without
//! storage, and whoever holds the secret knows which peer id each member must have.

use hkdf::Hkdf;
use libp2p_identity::{Keypair, PeerId};
use sha2::Sha256;

/// Length of a network's secret in bytes.
pub const SECRET_LEN: usize = 32;

/// Key under which the secret lies in its Kubernetes Secret, and the name of the file that agents read.
pub const SECRET_KEY: &str = "network-secret";

/// The secret that makes its holders members of one network. Never printed.
#[derive(Clone)]
pub struct NetworkSecret([u8; SECRET_LEN]);

/// The secret has the wrong length.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the network's secret must have {SECRET_LEN} bytes, this one has {0}")]
pub struct WrongLength(pub usize);

impl NetworkSecret {
    /// Takes a secret of [`SECRET_LEN`] bytes.
    ///
    /// # Errors
    /// [`WrongLength`] if it is shorter or longer.
    pub fn new(bytes: &[u8]) -> Result<Self, WrongLength> {
        bytes.try_into().map(Self).map_err(|_| WrongLength(bytes.len()))
    }

    /// The key pair of the member called `name`.
    #[must_use]
    pub fn keypair(&self, name: &str) -> Keypair {
        let seed: [u8; 32] = derive(&self.0, &["identity/", name]);
        match Keypair::ed25519_from_bytes(seed) {
            Ok(keypair) => keypair,
            // RFC 8032: every 32-byte string is an Ed25519 seed.
            Err(_) => unreachable!("an Ed25519 seed has 32 bytes"),
        }
    }

    /// The peer id that the member called `name` must have.
    #[must_use]
    pub fn peer_id(&self, name: &str) -> PeerId {
        self.keypair(name).public().to_peer_id()
    }

    /// A short public name for this secret (16 hex digits): two secrets that show the same one are the same. It tells
    /// nothing about the secret itself.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let bytes: [u8; 8] = derive(&self.0, &["fingerprint"]);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }
}

/// HKDF-SHA256 of a secret, for one purpose.
pub(crate) fn derive<const N: usize>(secret: &[u8; SECRET_LEN], info: &[&str]) -> [u8; N] {
    let info: Vec<&[u8]> = info.iter().map(|part| part.as_bytes()).collect();
    let mut out = [0; N];
    match Hkdf::<Sha256>::new(None, secret).expand_multi_info(&info, &mut out) {
        Ok(()) => out,
        // RFC 5869 limits the output to 255 hashes (8160 bytes); N is at most 32 here.
        Err(_) => unreachable!("HKDF gives up to 8160 bytes"),
    }
}

impl std::fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetworkSecret({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_never_change() {
        // Pinned: a release that derives other ids would give every running network a new identity. The derivation was
        // checked with an independent implementation of RFC 5869 and RFC 8032.
        let secret = NetworkSecret::new(&[7; 32]).unwrap();
        assert_eq!(
            secret.peer_id("demo-0").to_string(),
            "12D3KooWNxBz9mwtft5FrW9i5YBacGP1RHnrndmQiZh4fjBRJLGK"
        );
        assert_eq!(secret.fingerprint(), "0a5c879d231e55e3");
    }

    #[test]
    fn names_and_secrets_give_different_peers() {
        let (a, b) = (
            NetworkSecret::new(&[1; 32]).unwrap(),
            NetworkSecret::new(&[2; 32]).unwrap(),
        );
        assert_ne!(a.peer_id("demo-0"), a.peer_id("demo-1"));
        assert_ne!(a.peer_id("demo-0"), b.peer_id("demo-0"));
    }

    #[test]
    fn a_damaged_secret_is_refused_and_none_is_printed() {
        assert_eq!(NetworkSecret::new(&[0; 31]).unwrap_err(), WrongLength(31));
        let shown = format!(
            "{:?}",
            NetworkSecret::new(b"0123456789abcdef0123456789abcdef").unwrap()
        );
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }
}
