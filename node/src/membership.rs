//! Who is a member: whoever has the network's secret, and nobody else.
//!
//! An agent says its name in the agent version of libp2p's identify, as `peernet/VERSION (NAME; INSTANCE)`. Anybody may
//! say any name; the noise handshake has proven the peer's id, and only the holder of the secret has the key of the id
//! that belongs to that name. The instance tells a restarted agent from the one before it, which had the same id.

use std::fmt;

use libp2p::PeerId;
use peernet_api::identity::NetworkSecret;

/// Longest name that is looked at: that of a Kubernetes object.
const MAX_NAME: usize = 253;
/// What agents call themselves.
const PRODUCT: &str = "peernet";
/// What older agents do: during a rollout both are there.
const OLDER_PRODUCT: &str = "peernet-node";

/// One start of an agent, drawn at random. Announced as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(u64);

impl Instance {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    fn parse(text: &str) -> Option<Self> {
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What an agent says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced<'a> {
    /// Its name.
    pub name: &'a str,
    /// Which start of it this is. Older agents don't say.
    pub instance: Option<Instance>,
}

/// What we announce as identify's agent version.
#[must_use]
pub fn announcement(name: &str, instance: Instance) -> String {
    format!("{PRODUCT}/{} ({name}; {instance})", peernet_api::VERSION)
}

/// What an announcement says, if it is one.
#[must_use]
pub fn announced(agent_version: &str) -> Option<Announced<'_>> {
    let (product, rest) = agent_version.split_once('/')?;
    if product != PRODUCT && product != OLDER_PRODUCT {
        return None;
    }
    let (_, said) = rest.split_once(" (")?;
    let mut parts = said.strip_suffix(')')?.split("; ");
    let name = parts.next().filter(|name| is_name(name))?;
    let instance = match parts.next() {
        Some(text) => Some(Instance::parse(text)?),
        None => None,
    };
    Some(Announced { name, instance })
}

/// Whether this can be the name of an agent: that of a pod or a node.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed)
}

/// The member that a peer is, by its proven id and its announcement. `None` for strangers.
#[must_use]
pub fn member<'a>(secret: &NetworkSecret, peer: &PeerId, agent_version: &'a str) -> Option<Announced<'a>> {
    announced(agent_version).filter(|said| secret.peer_id(said.name) == *peer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(byte: u8) -> NetworkSecret {
        NetworkSecret::new(&[byte; 32]).unwrap()
    }

    fn announced_name(agent_version: &str) -> Option<&str> {
        announced(agent_version).map(|said| said.name)
    }

    #[test]
    fn only_holders_of_the_secret_are_members() {
        let ours = secret(1);
        let peer = ours.peer_id("mesh-0");
        let says = |name| announcement(name, Instance(7));
        let said = Announced {
            name: "mesh-0",
            instance: Some(Instance(7)),
        };
        assert_eq!(member(&ours, &peer, &says("mesh-0")), Some(said));
        assert_eq!(member(&ours, &peer, &says("mesh-1")), None);
        assert_eq!(member(&ours, &secret(2).peer_id("mesh-0"), &says("mesh-0")), None);
        assert_eq!(member(&ours, &peer, "rust-libp2p/0.48.0"), None);
    }

    #[test]
    fn it_reads_as_libp2p_s_agent_versions_do() {
        let said = announcement("mesh-0", Instance(7));
        let expected = format!("peernet/{} (mesh-0; 0000000000000007)", peernet_api::VERSION);
        assert_eq!(said, expected);
    }

    #[test]
    fn other_versions_are_understood() {
        let before = Announced {
            name: "node-a.example.com",
            instance: None,
        };
        for product in ["peernet", "peernet-node"] {
            let text = format!("{product}/9.1.0-rc.1+x (node-a.example.com)");
            assert_eq!(announced(&text), Some(before));
        }
        let later = Announced {
            name: "a",
            instance: Some(Instance(255)),
        };
        assert_eq!(announced("peernet/9 (a; 00000000000000ff; more)"), Some(later));
    }

    #[test]
    fn what_is_no_announcement_is_refused() {
        let long = format!("peernet/1 ({})", "a".repeat(254));
        for text in [
            "",
            "peernet/1",
            "peernet/1 ()",
            "peernet (a)",
            "peernet-nodes/1 (a)",
            "peernet/1 (a",
            "peernet/1 (A)",
            "peernet/1 (a; )",
            "peernet/1 (a; 00000000000000f)",
            "peernet/1 (a; +00000000000000f)",
            "peernet/1 (a; 00000000000000FF)",
            &long,
        ] {
            assert_eq!(announced(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_announcement_is_understood(name in "[a-z0-9][a-z0-9.-]{0,60}", number in any::<u64>()) {
            let said = announcement(&name, Instance(number));
            prop_assert_eq!(announced_name(&said), Some(name.as_str()));
            prop_assert_eq!(announced(&said).and_then(|said| said.instance), Some(Instance(number)));
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = announced(&text);
        }
    }
}
