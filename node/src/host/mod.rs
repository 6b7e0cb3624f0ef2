//! What the agent's own host does to it: CPU time used, waited for and withheld, and segments that TCP sent again.
//!
//! Read from `/proc`, the control group's file system and the kernel's socket diagnostics; nothing here needs a right.
//! What the kernel does not tell is left out, and never 0.

mod cgroup;
pub mod memory;
mod sched;
pub mod tcp;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use self::sched::Threads;

/// What the agent used of its host, and what was withheld from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time that the agent's threads were ready to run and waited for a CPU, summed over the threads.
    pub run_delay: Option<Duration>,
    /// CPU time that they used.
    pub cpu: Option<Duration>,
    /// Time that the control group was kept from running by its CPU limit. With a limit of several CPUs, the kernel may
    /// count a moment once for each of them.
    pub throttled: Option<Duration>,
    /// How often that happened.
    pub throttled_periods: Option<u64>,
}

impl Usage {
    /// Adds what is known.
    pub fn add(&mut self, more: &Self) {
        fn sum<T: Copy>(a: Option<T>, b: Option<T>, add: impl Fn(T, T) -> T) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(add(a, b)),
                (a, b) => a.or(b),
            }
        }
        self.run_delay = sum(self.run_delay, more.run_delay, Duration::saturating_add);
        self.cpu = sum(self.cpu, more.cpu, Duration::saturating_add);
        self.throttled = sum(self.throttled, more.throttled, Duration::saturating_add);
        self.throttled_periods = sum(
            self.throttled_periods,
            more.throttled_periods,
            u64::saturating_add,
        );
    }
}

/// Looks at the host every now and then.
#[derive(Debug)]
pub struct Sampler {
    process: PathBuf,
    threads: Option<Threads>,
    /// The file that tells of throttling, if the control group has one.
    cpu_stat: Option<PathBuf>,
    throttling: Option<cgroup::Throttling>,
}

impl Sampler {
    /// Looks at this process for the first time.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Path::new("/proc/self"))
    }

    fn of(process: &Path) -> Self {
        let read = |name| std::fs::read_to_string(process.join(name));
        let cpu_stat = match (read("cgroup"), read("mountinfo")) {
            (Ok(groups), Ok(mounts)) => cgroup::cpu_stat(&groups, &mounts),
            _ => None,
        };
        let throttling = cpu_stat.as_deref().and_then(throttling);
        Self {
            process: process.to_owned(),
            threads: threads(process),
            cpu_stat: cpu_stat.filter(|_| throttling.is_some()),
            throttling,
        }
    }

    /// What came to pass since the last call, or since [`Self::new`].
    pub fn sample(&mut self) -> Usage {
        let mut usage = Usage::default();
        let threads = threads(&self.process);
        if let (Some(before), Some(after)) = (&self.threads, &threads) {
            let (cpu, run_delay) = after.since(before);
            usage.cpu = Some(cpu);
            usage.run_delay = Some(run_delay);
        }
        self.threads = threads;
        let throttling = self.cpu_stat.as_deref().and_then(throttling);
        if let (Some(before), Some(after)) = (&self.throttling, &throttling) {
            usage.throttled = Some(after.time.saturating_sub(before.time));
            usage.throttled_periods = Some(after.periods.saturating_sub(before.periods));
        }
        self.throttling = throttling;
        usage
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

fn threads(process: &Path) -> Option<Threads> {
    let mut threads = Threads::default();
    for entry in std::fs::read_dir(process.join("task")).ok()? {
        let entry = entry.ok()?;
        let id = entry.file_name().to_str()?.parse().ok()?;
        // A thread may end between the two reads.
        let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) else {
            continue;
        };
        threads.insert(id, sched::parse(&text)?);
    }
    threads.are_counted().then_some(threads)
}

fn throttling(cpu_stat: &Path) -> Option<cgroup::Throttling> {
    cgroup::throttling(&std::fs::read_to_string(cpu_stat).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_time_and_says_so() {
        let mut sampler = Sampler::new();
        let mut used = Usage::default();
        let mut rounds = 0_u64;
        // Ends when the kernel has counted some of the work: a test that hangs here has found a bug.
        while used.cpu.is_none_or(|cpu| cpu < Duration::from_millis(20)) {
            for n in 0..1_000_000_u64 {
                rounds = std::hint::black_box(rounds.wrapping_add(n));
            }
            used.add(&sampler.sample());
            assert!(used.cpu.is_some(), "no /proc/self/task/*/schedstat?");
        }
        assert!(used.run_delay.is_some());
    }

    #[test]
    fn what_is_not_there_is_not_zero() {
        let mut sampler = Sampler::of(Path::new("/nonexistent"));
        assert_eq!(sampler.sample(), Usage::default());
        assert_eq!(Usage::default().throttled, None);
    }

    #[test]
    fn unknown_and_known_make_known() {
        let known = Usage {
            throttled_periods: Some(2),
            ..Usage::default()
        };
        let mut sum = Usage::default();
        sum.add(&known);
        sum.add(&Usage::default());
        sum.add(&known);
        assert_eq!((sum.throttled_periods, sum.cpu), (Some(4), None));
    }
}
