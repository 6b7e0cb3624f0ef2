//! Types and reasons of a network's conditions.
//!
//! All four types are present from the operator's first visit, `Unknown` until known. They follow
//! [kstatus](https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md), so that
//! `kubectl wait`, `helm --wait` and Flux tell "not yet" from "never like this".

/// The network does its work: every wanted node is ready, reports, and is connected to the peers that it should have.
/// `Unknown` if this is so, and no round trip was measured of late.
pub const READY: &str = "Ready";
/// Every node that reports is connected to the peers that it should have. `Unknown` if no node's report is at hand.
pub const CONNECTED: &str = "Connected";
/// The operator is changing the cluster to what the resource asks for, and expects to get there by itself.
pub const RECONCILING: &str = "Reconciling";
/// The operator can't get there by itself: somebody has to change something. The last good state keeps running.
pub const STALLED: &str = "Stalled";

/// Reasons that the conditions give. They are stable: alerts may match them.
pub mod reason {
    /// All wanted nodes are ready, report and are connected.
    pub const ALL_NODES_CONNECTED: &str = "AllNodesConnected";
    /// The network is scaled to zero nodes.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// Some wanted nodes are not ready, or a DaemonSet fits no node of the cluster.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// Agents with `hostNetwork` can't run since something else has their ports.
    pub const PORTS_TAKEN: &str = "PortsTaken";
    /// Some nodes' reports could not be had or were not accepted.
    pub const REPORTS_MISSING: &str = "ReportsMissing";
    /// Nodes are connected, but no round trip was measured of late.
    pub const AWAITING_SAMPLES: &str = "AwaitingSamples";
    /// Some nodes are not connected to all the peers that they should have.
    pub const PEERS_MISSING: &str = "PeersMissing";
    /// No node's report is at hand.
    pub const NO_REPORTS: &str = "NoReports";
    /// Every node that reports is connected to its peers.
    pub const FULLY_CONNECTED: &str = "FullyConnected";
    /// Objects are being created or changed, or pods are being replaced.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// What the resource asks for is there.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// Nothing hinders the operator.
    pub const NOT_STALLED: &str = "NotStalled";
    /// A field of the spec is wrong in a way that only the operator can judge.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The API server refused an object that the spec asks for.
    pub const OBJECT_REFUSED: &str = "ObjectRefused";
    /// An object of a name that the network needs exists and belongs to somebody else.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// The network runs, but its Secret is gone. A new one would give every node another identity.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// The network's Secret does not hold what it should.
    pub const SECRET_DAMAGED: &str = "SecretDamaged";
    /// The network's Secret is another than the one that its running nodes have.
    pub const SECRET_CHANGED: &str = "SecretChanged";
    /// The Secret that `spec.privateNetwork.secretRef` names does not exist.
    pub const KEY_SECRET_MISSING: &str = "KeySecretMissing";
    /// The Secret that `spec.privateNetwork.secretRef` names does not hold the key of a private network.
    pub const KEY_SECRET_DAMAGED: &str = "KeySecretDamaged";
    /// Of an Event: somebody tried to connect to a private network without its key.
    pub const STRANGERS_TURNED_AWAY: &str = "StrangersTurnedAway";
}
