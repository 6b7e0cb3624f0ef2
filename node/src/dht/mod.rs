//! The network's distributed hash table: records, providers, peer routing.
//!
//! * [`Store`]: what this agent keeps for the network, within bounds. Pure but for the clock of kad's trait.
//! * [`Behaviour`]: libp2p's Kademlia, for members only. What comes is checked before it is stored or acknowledged.
//! * [`queries`]: commands to Kademlia's queries, and its events to answers.
//! * [`upkeep`]: which records go to whom as members come and go. Pure.
//!
//! How long things live, and why. Agents have no disk, so that a record lives on other agents or not at all:
//!
//! * A record lives [`RECORD_TTL`] from the moment it was put. Replication passes on what is left of that time and never
//!   prolongs it. So of two values of a key the one that expires later is the one that was put later: an agent never
//!   replaces a value by an older one, whoever brings it. There is nothing else in Kademlia's messages to tell the order by.
//! * Records go to an agent as soon as it joins, to others when one leaves that had them, and every
//!   [`REPLICATION_INTERVAL`] in any case. An agent that is told to stop hands its records over first.
//! * A provider is announced every [`ANNOUNCEMENT_INTERVAL`] and forgotten [`PROVIDER_TTL`] after its last announcement.

mod behaviour;
pub mod command;
pub mod queries;
pub mod store;
pub mod upkeep;

use std::time::Duration;

pub use self::{
    behaviour::{Behaviour, Counts},
    command::{Command, Failure, Handle, Quorum},
    store::{Limits, Refusal, Store},
};

/// How long a record lives after it was put.
pub const RECORD_TTL: Duration = Duration::from_secs(24 * 3600);
/// A record that nobody brought anew for this long is brought to those who should have it.
pub const REPLICATION_INTERVAL: Duration = Duration::from_secs(600);
/// How often an agent says that it provides what it provides.
pub const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(30);
/// A provider that was not heard of for this long is forgotten.
pub const PROVIDER_TTL: Duration = Duration::from_secs(120);
/// Agents that a record is stored on: those closest to its key. Kademlia's k.
pub const REPLICATION: usize = 20;
/// Longest message of Kademlia: the largest record fits, and twenty peers with all their addresses.
pub const MAX_PACKET: usize = 128 << 10;
