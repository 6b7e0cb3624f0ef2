//! Who is a member: whoever has the network's secret, and nobody else.
//!
//! An agent says its name in the agent version of libp2p's identify, as `peernet-node/VERSION (NAME)`. Anybody may
//! say any name; the noise handshake has proven the peer's id, and only the holder of the secret has the key of the
//! id that belongs to that name.

use libp2p::PeerId;
use peernet_api::identity::NetworkSecret;

/// Longest name that is looked at: that of a Kubernetes object.
const MAX_NAME: usize = 253;
const PROGRAM: &str = "peernet-node";

/// What we announce as identify's agent version.
#[must_use]
pub fn announcement(name: &str) -> String {
    format!("{PROGRAM}/{} ({name})", peernet_api::VERSION)
}

/// The name in an announcement, if it is one.
#[must_use]
pub fn announced_name(agent_version: &str) -> Option<&str> {
    let rest = agent_version.strip_prefix(PROGRAM)?.strip_prefix('/')?;
    let (_, name) = rest.split_once(" (")?;
    let name = name.strip_suffix(')')?;
    is_name(name).then_some(name)
}

/// Whether this can be the name of an agent: that of a pod or a node.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed)
}

/// The name of the member that a peer is, by its proven id and its announcement. `None` for strangers.
#[must_use]
pub fn member_name<'a>(secret: &NetworkSecret, peer: &PeerId, agent_version: &'a str) -> Option<&'a str> {
    announced_name(agent_version).filter(|name| secret.peer_id(name) == *peer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(byte: u8) -> NetworkSecret {
        NetworkSecret::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn only_holders_of_the_secret_are_members() {
        let ours = secret(1);
        let peer = ours.peer_id("mesh-0");
        assert_eq!(member_name(&ours, &peer, &announcement("mesh-0")), Some("mesh-0"));
        assert_eq!(member_name(&ours, &peer, &announcement("mesh-1")), None);
        assert_eq!(
            member_name(&ours, &secret(2).peer_id("mesh-0"), &announcement("mesh-0")),
            None
        );
        assert_eq!(member_name(&ours, &peer, "rust-libp2p/0.48.0"), None);
    }

    #[test]
    fn other_versions_are_understood() {
        assert_eq!(
            announced_name("peernet-node/9.1.0-rc.1+x (node-a.example.com)"),
            Some("node-a.example.com")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("peernet-node/1 ({})", "a".repeat(254));
        for text in [
            "",
            "peernet-node/1",
            "peernet-node/1 ()",
            "peernet-node (a)",
            "peernet-node/1 (a",
            "peernet-node/1 (A)",
            &long,
        ] {
            assert_eq!(announced_name(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_its_announcement(name in "[a-z0-9][a-z0-9.-]{0,60}") {
            let announced = announcement(&name);
            prop_assert_eq!(announced_name(&announced), Some(name.as_str()));
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = announced_name(&text);
        }
    }
}
