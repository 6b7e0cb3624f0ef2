//! What an agent says of each of its samples: the lines of its log, as JSON, whose target is `peernet_node::stamp`.

use serde::Deserialize;

const TARGET: &str = "peernet_node::stamp";

/// One sample as the agent saw it. Stamps are nanoseconds of the kernel's wall clock, the rest durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Trace {
    /// The sequence number of its request.
    pub seq: u32,
    /// When the request left.
    pub t1: i64,
    /// When it came to the peer.
    pub t2: i64,
    /// When the reply left the peer.
    pub t3: i64,
    /// When it came back.
    pub t4: i64,
    /// The network's own time.
    pub network_ns: i64,
    /// Time in the agent's own host.
    pub own_host_ns: i64,
    /// Time in the peer's host.
    pub peer_host_ns: i64,
    /// The user-space time, by the monotonic clock.
    pub user_ns: i64,
    /// Who stamped it.
    pub clock: String,
}

/// The samples in an agent's log. Other lines are left out.
///
/// # Errors
/// A line about a sample that lacks a field.
pub fn read(log: &str) -> Result<Vec<Trace>, String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        target: String,
        #[serde(default)]
        level: String,
    }
    log.lines()
        .filter(|line| {
            serde_json::from_str::<Line>(line)
                .is_ok_and(|found| found.target == TARGET && found.level == "TRACE")
        })
        .filter(|line| line.contains("\"network_ns\""))
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_among_other_lines() {
        let sample = r#"{"timestamp":"x","level":"TRACE","message":"sample","peer":"12D3","seq":7,"t1":1,"t2":2,"t3":3,"t4":4,"network_ns":2,"own_host_ns":5,"peer_host_ns":1,"user_ns":8,"clock":"kernel","target":"peernet_node::stamp"}"#;
        let log = format!("no json\n{{\"level\":\"INFO\",\"target\":\"peernet_node::stamp\"}}\n{sample}\n");
        let found = read(&log).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].seq, found[0].user_ns), (7, 8));
    }

    #[test]
    fn a_sample_that_lacks_a_field_is_no_sample() {
        let log = r#"{"level":"TRACE","target":"peernet_node::stamp","network_ns":2}"#;
        assert!(read(log).is_err());
    }
}
