//! Which ports the agents of a network have: always the same, or, on their nodes' own network, a block for each network. Pure.
//!
//! A block that was chosen is kept as an annotation of the workload, which outlives the operator and shows it to people. Two
//! networks that were made at the same moment may choose the same one: the younger one makes way as soon as it sees the other.

use std::collections::BTreeMap;

use jiff::Timestamp;
use peernet_api::{
    ports::{self, Block, CHOSEN, CHOSEN_STEP, PORTS_PER_AGENT},
    report::{API_PORT, HTTP_PORT, P2P_PORT, STAMP_PORT, WEBSOCKET_PORT},
    v1alpha1::{PeerNetworkSpec, Workload},
};

use crate::network::InvalidField;

/// Annotation of a workload with the block of ports that its pods have on their nodes.
pub const BLOCK_ANNOTATION: &str = "peernet.dev/host-ports";
/// The variable that tells an agent its HTTP port, if its ordinal is 0.
pub const HTTP_PORT_VARIABLE: &str = "PEERNET_HTTP_PORT";
/// The variable that tells how many ports further on those of the next ordinal are.
pub const PORT_STEP_VARIABLE: &str = "PEERNET_PORT_STEP";
/// The label with a pod's ordinal in its StatefulSet, which Kubernetes sets.
pub const ORDINAL_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ports of the first agent, and how far those of the next one are from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// TCP and UDP port of libp2p.
    pub p2p: u16,
    /// TCP port of libp2p over WebSocket.
    pub websocket: u16,
    /// TCP port of HTTP.
    pub http: u16,
    /// UDP port of STAMP.
    pub stamp: u16,
    /// TCP port of the API.
    pub api: u16,
    /// Distance to the ports of the next ordinal. 0: all agents have the same.
    pub step: u16,
}

impl Ports {
    /// Those of pods that have an address of their own.
    pub const OF_PODS: Self = Self {
        p2p: P2P_PORT,
        websocket: WEBSOCKET_PORT,
        http: HTTP_PORT,
        stamp: STAMP_PORT,
        api: API_PORT,
        step: 0,
    };

    /// Those of pods on their nodes' network.
    #[must_use]
    pub fn of_block(block: Block, kind: Workload) -> Self {
        Self {
            p2p: block.first + ports::P2P,
            websocket: block.first + ports::WEBSOCKET,
            http: block.first + ports::HTTP,
            stamp: block.first + ports::STAMP,
            api: block.first + ports::API,
            step: match kind {
                Workload::StatefulSet => PORTS_PER_AGENT,
                Workload::DaemonSet => 0,
            },
        }
    }
}

/// Who came first: the creation of its workload, and the workload's uid if two were made in the same second.
pub type Age = (Option<Timestamp>, String);

/// A block that a network's workload has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The block.
    pub block: Block,
    /// Since when.
    pub age: Age,
}

/// The blocks that the workloads have.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The network's own.
    pub own: Option<Claim>,
    /// Those of the other networks.
    pub others: Vec<Claim>,
}

/// The block for a network of this spec; `None` if it needs none.
///
/// # Errors
/// If there is none: the field with which to choose another.
pub fn block(spec: &PeerNetworkSpec, claims: &Claims) -> Result<Option<Block>, InvalidField> {
    if !spec.host_network {
        return Ok(None);
    }
    let invalid = |problem: String| InvalidField {
        field: "spec.hostPortBase".to_owned(),
        problem,
    };
    let agents = match spec.workload {
        Workload::StatefulSet => u32::try_from(spec.replicas).unwrap_or(0).max(1),
        Workload::DaemonSet => 1,
    };
    let length = agents * u32::from(PORTS_PER_AGENT);
    if let Some(first) = spec.host_port_base {
        let block = u16::try_from(first)
            .ok()
            .and_then(|first| Block::new(first, length));
        return block
            .map(Some)
            .ok_or_else(|| invalid(format!("{length} ports from {first} on go beyond 65535")));
    }
    // Room to grow: scaling up then moves nobody.
    let length = length.next_multiple_of(u32::from(CHOSEN_STEP));
    let fits = |first: u16| Block::new(first, length).filter(|block| block.last <= *CHOSEN.end());
    let kept = claims.own.as_ref().and_then(|own| {
        let is_chosen = CHOSEN.contains(&own.block.first);
        let block = fits(own.block.first).filter(|_| is_chosen)?;
        let mut elders = claims.others.iter().filter(|other| other.age < own.age);
        (!elders.any(|elder| elder.block.overlaps(&block))).then_some(block)
    });
    let mut free = CHOSEN
        .step_by(usize::from(CHOSEN_STEP))
        .filter_map(fits)
        .filter(|block| !claims.others.iter().any(|other| other.block.overlaps(block)));
    kept.or_else(|| free.next()).map(Some).ok_or_else(|| {
        invalid(format!(
            "no {length} ports between {} and {} are left by the other networks: choose the first of your own",
            CHOSEN.start(),
            CHOSEN.end()
        ))
    })
}

/// The block that a workload has by its annotations.
#[must_use]
pub fn claimed(annotations: &BTreeMap<String, String>) -> Option<Block> {
    annotations.get(BLOCK_ANNOTATION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(spec: serde_json::Value) -> PeerNetworkSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn claim(block: &str, second: i64, uid: &str) -> Claim {
        Claim {
            block: block.parse().unwrap(),
            age: (Some(Timestamp::from_second(second).unwrap()), uid.to_owned()),
        }
    }

    fn chosen(of: serde_json::Value, own: Option<Claim>, others: &[Claim]) -> String {
        let claims = Claims {
            own,
            others: others.to_vec(),
        };
        match block(&spec(of), &claims) {
            Ok(Some(block)) => block.to_string(),
            Ok(None) => "none".to_owned(),
            Err(invalid) => invalid.to_string(),
        }
    }

    #[test]
    fn only_nodes_networks_have_blocks() {
        assert_eq!(chosen(json!({}), None, &[]), "none");
        assert_eq!(chosen(json!({"hostNetwork": true}), None, &[]), "20000-20255");
        let four = json!({"hostNetwork": true, "hostPortBase": 4000, "replicas": 4});
        assert_eq!(chosen(four, None, &[]), "4000-4031");
        let every = json!({"hostNetwork": true, "hostPortBase": 4000, "workload": "DaemonSet"});
        assert_eq!(chosen(every, None, &[]), "4000-4007");
    }

    #[test]
    fn a_second_network_gets_another_block_and_both_keep_theirs() {
        let host = || json!({"hostNetwork": true});
        let (first, second) = (claim("20000-20255", 1, "a"), claim("20256-20511", 2, "b"));
        assert_eq!(chosen(host(), None, std::slice::from_ref(&first)), "20256-20511");
        let others = std::slice::from_ref(&second);
        assert_eq!(chosen(host(), Some(first.clone()), others), "20000-20255");
        assert_eq!(chosen(host(), Some(second), &[first]), "20256-20511");
    }

    #[test]
    fn of_two_that_chose_the_same_the_younger_makes_way() {
        let host = || json!({"hostNetwork": true});
        let (elder, younger) = (claim("20000-20255", 1, "a"), claim("20000-20255", 1, "b"));
        let other = std::slice::from_ref;
        assert_eq!(
            chosen(host(), Some(elder.clone()), other(&younger)),
            "20000-20255"
        );
        assert_eq!(chosen(host(), Some(younger), other(&elder)), "20256-20511");
    }

    #[test]
    fn a_network_that_grows_keeps_its_first_port() {
        let own = claim("20000-20255", 1, "a");
        let other = claim("20256-20511", 2, "b");
        let grown = json!({"hostNetwork": true, "replicas": 40});
        assert_eq!(chosen(grown, Some(own), &[other]), "20000-20511");
    }

    #[test]
    fn a_block_that_the_user_gave_up_is_left() {
        let own = claim("4000-4031", 1, "a");
        assert_eq!(
            chosen(json!({"hostNetwork": true}), Some(own), &[]),
            "20000-20255"
        );
    }

    #[test]
    fn when_nothing_is_left_the_field_is_named() {
        let all = claim("20000-29999", 1, "a");
        let said = chosen(json!({"hostNetwork": true}), None, &[all]);
        assert!(
            said.starts_with("spec.hostPortBase: no 256 ports between 20000 and 29999"),
            "{said}"
        );
        let last = json!({"hostNetwork": true, "hostPortBase": 65_528, "replicas": 2});
        let said = chosen(last, None, &[]);
        assert!(
            said.starts_with("spec.hostPortBase: 16 ports from 65528 on"),
            "{said}"
        );
    }
}
