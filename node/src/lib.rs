//! PeerNet's agent: one member of a network, which measures the round trips to all others.
//!
//! Two threads, each with a single-threaded runtime, and one bounded channel between them:
//!
//! ```text
//! swarm thread                                   reporting thread
//!   swarm (event loop) ── events, never waited for ──►  reporting (ledger) ──►  http: report, metrics, health
//!     ├ transport: TCP, Noise, Yamux
//!     ├ behaviour: admission, ping, identify, kad, mdns
//!     ├ membership: who is a member
//!     └ discovery: planner (whom to dial) ◄── dns, mdns, kad, bootstrap peers
//! ```
//!
//! * [`agent`] puts it together; [`config`] is the only reader of flags, environment and files.
//! * [`swarm`] owns the swarm; [`ping`] is the measuring instrument; [`admission`] limits connections.
//! * [`ledger`] is what was measured; [`reporting`] turns it into reports; [`metrics`] into Prometheus' text.
//! * [`host`] asks the kernel what the agent's host does to it.
//!
//! Invariants:
//!
//! * The event loop never waits: not for HTTP, not for the resolver, not for the other thread. What doesn't fit into
//!   the channel is dropped and counted.
//! * [`ledger`], [`membership`] and [`discovery::planner`] are pure: time and connections are arguments.
//! * Only members are measured and reported, fed to Kademlia, and kept connected. A member is who can prove that it
//!   holds the network's secret; what anybody says about others only leads to a dial.
//! * Time is monotonic. The agent never reads a wall clock.
//! * Every collection that others can make grow has a bound.
//! * No Kubernetes client, no credentials, no state on disk.

pub mod admission;
pub mod agent;
mod behaviour;
pub mod config;
pub mod discovery;
pub mod host;
pub mod http;
pub mod ledger;
pub mod membership;
pub mod metrics;
pub mod ping;
pub mod reporting;
pub mod stamp;
pub mod swarm;
pub mod telemetry;
pub mod transport;
