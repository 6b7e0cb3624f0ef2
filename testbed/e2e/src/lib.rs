//! What the end-to-end tests are made of. They run against a real cluster, with the operator installed by Helm and real agents.
//!
//! | module | what it gives a test |
//! |---|---|
//! | [`settings`] | what the environment says: cluster, images, programs |
//! | [`scenario`] | a namespace of its own, cleared away at the end, and a diagnosis when the test fails |
//! | [`waiting`] | waiting for something to become true, with a deadline and the last thing that was seen |
//! | [`network`] | a `PeerNetwork`: apply, change, wait for its status, ask its agents |
//! | [`history`] | every status that a network had |
//! | [`operator`] | the operator's installation: Helm, its pod, its log |
//! | [`faults`] | partitions, lost packets, power cuts, stopped components; each ends when its value is dropped |
//! | [`busy`] | pods that keep the machine busy |
//! | [`processes`] | the agents' processes on this machine: to stop one, or to look at it |
//! | [`program`] | the agents' program, called in their pods |
//! | [`round_trip`] | raw TCP round trips between two pods, as a yardstick |
//! | [`truth`] | packet captures, exact percentiles, what the delaying program did: for the truth bench |
//! | [`command`] | programs, with a deadline each |
//!
//! `make e2e` sets everything up and runs the tests. One process of tests uses a cluster at a time.

use std::io::Write;

pub mod busy;
pub mod command;
pub mod faults;
pub mod history;
pub mod network;
pub mod operator;
pub mod processes;
pub mod program;
pub mod round_trip;
pub mod scenario;
pub mod settings;
pub mod truth;
pub mod waiting;

/// Why a test can't go on, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What a step of a test comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Tells what is worth to be seen although all went well. Test harnesses keep back what a test prints that passes, but not
/// this. `make test` shows such lines.
pub fn note(text: &str) {
    // On a line of its own, whatever the harness has begun to write.
    let _ = writeln!(std::io::stderr(), "\nnote: {text}");
}
