//! PeerNet's agent: one member of a network, which measures the round trips to all others.
//!
//! Three threads with bounded channels between them. Two have a single-threaded runtime each; the third waits for its
//! sockets by itself:
//!
//! ```text
//! swarm thread                                   reporting thread
//!   swarm (event loop) ── events, never waited for ──►  reporting (ledger) ──►  http: report, metrics, health
//!     ├ transport: TCP, private, Noise, Yamux            ▲
//!     ├ behaviour: admission, ping, stamp::agreement,    │
//!     │            identify, dht, mdns, relay            │
//!     ├ membership: who is a member                      │
//!     ├ discovery: planner (whom to dial) ◄── dns, mdns, kad, bootstrap peers
//!     └ sessions ──►  STAMP thread (stamp::run): UDP ────┘
//! ```
//!
//! * [`agent`] puts it together; [`config`] is the only reader of flags, environment and files.
//! * [`swarm`] owns the swarm; [`ping`] and [`stamp`] are the measuring instruments; [`admission`] limits
//!   connections, and [`probation`] what unknown peers may send.
//! * [`external`] is what was measured to hosts outside the network.
//! * [`private`] lets in only who has the private network's key; [`strangers`] remembers who was turned away.
//! * [`relay`] reaches members through others that no connection of their own leads to.
//! * [`dht`] keeps the network's records and finds services and peers; [`api`] offers it over HTTP, and [`cli`] on the command line.
//! * [`ledger`] is what was measured; [`reporting`] turns it into reports; [`metrics`] into Prometheus' text.
//! * [`check`] asks a running agent for its health.
//! * [`host`] asks the kernel what the agent's host does to it.
//!
//! Invariants:
//!
//! * The event loop never waits: not for HTTP, not for the resolver, not for another thread. What doesn't fit into a
//!   channel is dropped and counted.
//! * [`ledger`], [`membership`], [`strangers`], [`discovery::planner`], [`relay::book`] and all of [`stamp`] but its sockets
//!   are pure: time, packets and connections are arguments.
//! * Only members are measured and reported, fed to Kademlia, and kept connected; guests, where there are any, only come and
//!   ask. A member is who can prove that it holds the network's secret; what anybody says about others only leads to a dial.
//! * Time is monotonic. The wall clock is read in [`stamp`] alone, since the kernel stamps packets with it: stamps are only
//!   ever subtracted from each other within one probe, at one host, and only if that host's clock was not stepped meanwhile.
//! * Every collection that others can make grow has a bound.
//! * No Kubernetes client, no credentials, no state on disk.

pub mod admission;
pub mod agent;
pub mod api;
mod behaviour;
mod bucket;
pub mod check;
pub mod cli;
pub mod config;
pub mod dht;
pub mod discovery;
pub mod external;
pub mod host;
pub mod http;
pub mod ledger;
pub mod membership;
pub mod metrics;
mod pace;
pub mod ping;
pub mod private;
pub mod probation;
pub mod relay;
pub mod reporting;
pub mod stamp;
pub mod strangers;
pub mod swarm;
pub mod telemetry;
pub mod transport;
