//! Programs and libraries that are not ours, against real agents. `testbed/interop` installs them and says how; without
//! them these tests are not run.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod foreign;
mod js;
mod stamp;
#[path = "../support/mod.rs"]
mod support;
