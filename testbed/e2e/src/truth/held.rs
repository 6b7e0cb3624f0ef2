//! How long the delaying program really held packets: its log, a line for each.
//!
//! ```text
//! ARRIVED HELD PROTOCOL SOURCE DESTINATION LENGTH        nanoseconds (wall clock; duration), number, addresses, bytes
//! ```

use std::net::Ipv4Addr;

/// A packet that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When it came, by the kernel's wall clock, in nanoseconds.
    pub arrived: i64,
    /// How long it was held, in nanoseconds.
    pub held: i64,
    /// Its protocol's number in IPv4: 6 is TCP, 17 UDP.
    pub protocol: u8,
    /// Where it came from.
    pub from: Ipv4Addr,
    /// Where it went to.
    pub to: Ipv4Addr,
}

/// UDP's protocol number in IPv4.
pub const UDP: u8 = 17;

/// Reads the program's log. A last line without an end is left out.
///
/// # Errors
/// The first line that is not as it should be.
pub fn read(log: &str) -> Result<Vec<Held>, String> {
    let whole = log
        .rfind('\n')
        .map_or("", |end| log.get(..end).unwrap_or_default());
    whole
        .lines()
        .map(|line| parse(line).ok_or_else(|| format!("no line of the delaying program: {line:?}")))
        .collect()
}

fn parse(line: &str) -> Option<Held> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [arrived, held, protocol, from, to, _length] = fields.as_slice() else {
        return None;
    };
    Some(Held {
        arrived: arrived.parse().ok()?,
        held: held.parse().ok()?,
        protocol: protocol.parse().ok()?,
        from: from.parse().ok()?,
        to: to.parse().ok()?,
    })
}

/// The packets from one end to the other, by their arrival.
#[derive(Debug)]
pub struct Holds {
    ascending: Vec<Held>,
}

impl Holds {
    /// The datagrams of `log` that go from `from` to `to`.
    #[must_use]
    pub fn datagrams(log: &[Held], from: Ipv4Addr, to: Ipv4Addr) -> Self {
        let of_pair = |held: &&Held| (held.protocol, held.from, held.to) == (UDP, from, to);
        let mut ascending: Vec<Held> = log.iter().filter(of_pair).copied().collect();
        ascending.sort_unstable_by_key(|held| held.arrived);
        Self { ascending }
    }

    /// The only packet that came between two times. None, if there is none or more than one.
    #[must_use]
    pub fn between(&self, begin: i64, end: i64) -> Option<Held> {
        let first = self.ascending.partition_point(|held| held.arrived < begin);
        let last = self.ascending.partition_point(|held| held.arrived <= end);
        match self.ascending.get(first..last)? {
            [held] => Some(*held),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "1000 5000123 17 10.0.0.1 10.0.0.2 140\n2000 4999 6 10.0.0.1 10.0.0.2 84\n3000 1 17 10.0.0.2 10.0.0.1 140\n40";

    #[test]
    fn a_log_is_read_up_to_its_last_whole_line() {
        let held = read(LOG).unwrap();
        assert_eq!(held.len(), 3);
        assert_eq!(
            (held[0].arrived, held[0].held, held[0].protocol),
            (1000, 5_000_123, UDP)
        );
        assert!(read("no log\n").is_err());
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn only_one_packet_can_be_meant() {
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut log = read(LOG).unwrap();
        let holds = Holds::datagrams(&log, a, b);
        assert_eq!(holds.between(900, 1100).unwrap().held, 5_000_123);
        assert_eq!(holds.between(1001, 9000), None);
        log.push(Held {
            arrived: 1050,
            ..log[0]
        });
        assert_eq!(Holds::datagrams(&log, a, b).between(900, 1100), None);
    }
}
