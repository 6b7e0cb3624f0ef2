//! `/proc/PID/task/TID/schedstat`
//! ([sched-stats](https://docs.kernel.org/scheduler/sched-stats.html)). Pure.

use std::{collections::BTreeMap, time::Duration};

/// Time that one thread ran, and time that it was ready and waited for a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Thread {
    cpu: Duration,
    run_delay: Duration,
}

/// All threads of a process, by their ids.
#[derive(Debug, Default)]
pub(super) struct Threads(BTreeMap<u32, Thread>);

impl Threads {
    pub(super) fn insert(&mut self, id: u32, thread: Thread) {
        self.0.insert(id, thread);
    }

    /// Whether the kernel counts at all.
    pub(super) fn are_counted(&self) -> bool {
        self.0.values().any(|thread| *thread != Thread::default())
    }

    /// CPU time and run delay since an earlier look. Threads that have ended since then take the rest of theirs along.
    pub(super) fn since(&self, before: &Self) -> (Duration, Duration) {
        self.0
            .iter()
            .fold((Duration::ZERO, Duration::ZERO), |(cpu, delay), (id, now)| {
                let (cpu_before, delay_before) = match before.0.get(id) {
                    // A smaller count is that of a new thread, which was given an old id.
                    Some(before) if before.cpu <= now.cpu && before.run_delay <= now.run_delay => {
                        (before.cpu, before.run_delay)
                    }
                    _ => (Duration::ZERO, Duration::ZERO),
                };
                (
                    cpu + (now.cpu - cpu_before),
                    delay + (now.run_delay - delay_before),
                )
            })
    }
}

/// Three numbers: nanoseconds on a CPU, nanoseconds waiting for one, and time slices.
pub(super) fn parse(text: &str) -> Option<Thread> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (cpu, run_delay, _) = (
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    );
    numbers.next().is_none().then_some(Thread {
        cpu: Duration::from_nanos(cpu),
        run_delay: Duration::from_nanos(run_delay),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(cpu: u64, run_delay: u64) -> Thread {
        Thread {
            cpu: Duration::from_nanos(cpu),
            run_delay: Duration::from_nanos(run_delay),
        }
    }

    #[test]
    fn the_kernel_s_text_is_understood() {
        assert_eq!(parse("1203947 55021 12\n"), Some(thread(1_203_947, 55_021)));
        for text in ["", "1 2\n", "1 2 3 4\n", "1 -2 3\n", "a b c"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_kernel_that_does_not_count_says_zero_of_all_threads() {
        let mut threads = Threads::default();
        assert!(!threads.are_counted());
        threads.insert(1, thread(0, 0));
        assert!(!threads.are_counted());
        threads.insert(2, thread(1, 0));
        assert!(threads.are_counted());
    }

    #[test]
    fn threads_that_come_and_go_are_counted_for_what_is_known_of_them() {
        let (mut before, mut after) = (Threads::default(), Threads::default());
        before.insert(1, thread(100, 10));
        before.insert(2, thread(900, 90));
        before.insert(3, thread(5_000, 500));
        after.insert(1, thread(150, 15));
        // A new thread with the id of one that ended.
        after.insert(3, thread(7, 1));
        after.insert(4, thread(40, 4));
        let expected = thread(50 + 7 + 40, 5 + 1 + 4);
        assert_eq!(after.since(&before), (expected.cpu, expected.run_delay));
    }
}
