//! PeerNet's operator: turns each `PeerNetwork` into agents, and what they measured into its status.
//!
//! One round for one network ([`reconcile`]): *observe → decide → build → apply → measure → status*.
//!
//! | does I/O | pure: no client, no clock, no environment |
//! |---|---|
//! | [`controller`]: watches and queue | [`network`]: a spec that was checked |
//! | [`reconcile`]: the order of the steps | [`decide`]: build, make a secret, or stall |
//! | [`observe`]: what is there | [`resources`]: the desired objects |
//! | [`apply`]: server-side apply, prune, the Secret | [`roster`]: who should be there |
//! | [`pull`]: reports over HTTP | [`reports`]: which report is believed |
//! | [`transitions`]: events | [`measure`]: from reports to numbers |
//! | [`clock`]: the API server's time | [`metrics`]: what is counted, and the newest numbers |
//! | [`http`]: probes and metrics | [`conditions`], [`status`]: what the resource shows |
//! | | [`private_network`], [`strangers`]: who has the key, and who was turned away |
//! | | [`host_ports`]: which ports a network has on its nodes |
//!
//! Invariants:
//! * Only [`apply`] and the status write of [`reconcile`] change anything in the cluster, under one field manager.
//! * Builders read a [`network::Network`], never a raw spec.
//! * The network's Secret is created once and never written again.
//! * A report counts only with the signature of the peer that its pod must be, for the nonce that was asked with.
//! * Nothing is kept in memory that a restart may not lose.
//! * No libp2p swarm: agents are asked over HTTP.

pub mod api_call;
pub mod apply;
pub mod backoff;
pub mod clock;
pub mod conditions;
pub mod config;
pub mod controller;
pub mod decide;
pub mod host_ports;
pub mod http;
pub mod measure;
pub mod metrics;
pub mod network;
pub mod observe;
pub mod private_network;
pub mod pull;
pub mod reconcile;
pub mod reports;
pub mod resources;
pub mod roster;
pub mod status;
pub mod strangers;
pub mod transitions;
