//! Where the programs are.

use std::path::PathBuf;

use peernet_e2e::{Outcome, settings::SETTINGS, waiting::ensure};

/// The agents' program, as released.
pub(crate) fn agent() -> Outcome<PathBuf> {
    let program = SETTINGS.checkout.join("dist/peernet-node");
    ensure(program.exists(), || {
        format!("{} is missing: make dist", program.display())
    })?;
    Ok(program)
}

/// `yardstick` (`PEERNET_YARDSTICK`).
pub(crate) fn yardstick() -> Outcome<PathBuf> {
    named("PEERNET_YARDSTICK")
}

/// The delaying program (`PEERNET_DELAY`).
pub(crate) fn delay() -> Outcome<PathBuf> {
    named("PEERNET_DELAY")
}

/// The system calls of a probe, and nothing else (`PEERNET_BARE_PROBE`).
pub(crate) fn bare_probe() -> Outcome<PathBuf> {
    named("PEERNET_BARE_PROBE")
}

fn named(variable: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os(variable).ok_or_else(|| format!("{variable} is not set: run make truth"))?;
    Ok(path.into())
}
