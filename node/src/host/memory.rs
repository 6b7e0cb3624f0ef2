//! How much memory the agent may have, and how much it has.
//!
//! The limit is that of the agent's own control group, and not the host's memory: beyond it the kernel ends the agent, however
//! much the host has left.

use std::{fs, path::PathBuf};

use super::cgroup;

/// Memory is short above this share of the limit, in percent...
const SHORT: u64 = 70;
/// ...until it is below this share again.
const ENOUGH: u64 = 60;
/// The unit of `/proc/self/statm`.
const PAGE: u64 = 4096;

/// Looks at the agent's memory every now and then.
#[derive(Debug, Default)]
pub struct Memory {
    limit: Option<PathBuf>,
    short: bool,
}

impl Memory {
    /// Finds the limit of this process, if there is one.
    #[must_use]
    pub fn of_this_process() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}"));
        let limit = match (read("cgroup"), read("mountinfo")) {
            (Ok(groups), Ok(mounts)) => cgroup::memory_limit(&groups, &mounts),
            _ => None,
        };
        Self { limit, short: false }
    }

    /// Whether memory is short now. Without a limit, it never is.
    pub fn is_short(&mut self) -> bool {
        let limit = self
            .limit
            .as_ref()
            .and_then(|path| cgroup::bytes(&fs::read_to_string(path).ok()?));
        let resident = fs::read_to_string("/proc/self/statm")
            .ok()
            .and_then(|text| resident(&text));
        self.short = match (limit, resident) {
            (Some(limit), Some(resident)) => is_short(resident, limit, self.short),
            _ => false,
        };
        self.short
    }
}

/// Whether so much of a limit is short, given whether it was before.
fn is_short(resident: u64, limit: u64, before: bool) -> bool {
    let share = if before { ENOUGH } else { SHORT };
    resident.saturating_mul(100) > limit.saturating_mul(share)
}

/// Bytes in memory, of what `/proc/self/statm` says.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_short_must_be_well_below_to_be_enough() {
        assert!(!is_short(70, 100, false) && is_short(71, 100, false));
        assert!(is_short(61, 100, true) && !is_short(60, 100, true));
    }

    #[test]
    fn the_kernel_tells_what_is_resident() {
        assert_eq!(resident("1290 520 410 300 0 200 0\n"), Some(520 * 4096));
        assert_eq!(resident("garbage"), None);
        let now = fs::read_to_string("/proc/self/statm").unwrap();
        assert!(resident(&now).is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_process_without_a_limit_is_never_short_of_it() {
        assert!(!Memory::default().is_short());
    }
}
