//! The copies of a record that were found, and which of them is the answer.

use std::time::{Duration, Instant};

use libp2p::{PeerId, kad::QueryStats};

use crate::dht::command::{Failure, Got, Quorum};

/// A copy of a record.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) value: Vec<u8>,
    pub(super) publisher: Option<PeerId>,
    pub(super) expires: Option<Instant>,
    pub(super) own: bool,
}

/// The copy that was put last, if there are enough.
pub(super) fn newest(
    copies: Vec<Copy>,
    quorum: Quorum,
    stats: &QueryStats,
    took: Duration,
) -> Result<Got, Failure> {
    let asked = stats.num_requests();
    let now = Instant::now();
    let copies: Vec<Copy> = copies
        .into_iter()
        .filter(|copy| copy.expires.is_none_or(|expires| expires > now))
        .collect();
    let found = copies.len();
    let own = usize::from(copies.iter().any(|copy| copy.own));
    let answered = usize::try_from(stats.num_successes()).unwrap_or(usize::MAX);
    let of = answered.saturating_add(own).max(found);
    let needed = quorum.needed(of);
    // A copy that says nothing of its time is the oldest.
    let latest = copies.iter().filter_map(|copy| copy.expires).max();
    let Some(newest) = copies
        .iter()
        .find(|copy| copy.expires == latest)
        .or_else(|| copies.first())
    else {
        return Err(Failure::NotFound { asked });
    };
    if found < needed {
        return Err(Failure::QuorumFailed {
            reached: found,
            needed,
            of,
        });
    }
    Ok(Got {
        value: newest.value.clone(),
        copies: found,
        older: copies.iter().filter(|copy| copy.value != newest.value).count(),
        publisher: newest.publisher,
        expires_in: newest
            .expires
            .map(|expires| expires.saturating_duration_since(now)),
        asked,
        took,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(value: &str, expires: Option<Duration>) -> Copy {
        Copy {
            value: value.into(),
            publisher: None,
            expires: expires.map(|lives| Instant::now() + lives),
            own: false,
        }
    }

    fn hour(hours: u64) -> Option<Duration> {
        Some(Duration::from_secs(hours * 3600))
    }

    fn read(copies: Vec<Copy>, quorum: Quorum) -> Result<Got, Failure> {
        newest(copies, quorum, &QueryStats::empty(), Duration::ZERO)
    }

    #[test]
    fn of_several_values_the_one_put_last_is_read_and_the_others_are_counted() {
        let got = read(
            vec![copy("old", hour(1)), copy("new", hour(2)), copy("older", None)],
            Quorum::One,
        )
        .unwrap();
        assert_eq!((got.value.as_slice(), got.copies, got.older), (&b"new"[..], 3, 2));
        assert!(got.expires_in.is_some_and(|left| left > hour(1).unwrap()));
    }

    #[test]
    fn copies_that_have_expired_are_none() {
        let expired = || copy("x", Some(Duration::ZERO));
        assert_eq!(
            read(vec![expired()], Quorum::One),
            Err(Failure::NotFound { asked: 0 })
        );
        assert_eq!(
            read(vec![expired(), copy("x", hour(1))], Quorum::Count(2)),
            Err(Failure::QuorumFailed {
                reached: 1,
                needed: 2,
                of: 1
            })
        );
    }

    #[test]
    fn a_quorum_is_of_those_asked_and_at_least_one() {
        for (quorum, of, needed) in [
            (Quorum::One, 0, 1),
            (Quorum::Majority, 0, 1),
            (Quorum::Majority, 2, 2),
            (Quorum::Majority, 3, 2),
            (Quorum::Majority, 20, 11),
            (Quorum::All, 0, 1),
            (Quorum::All, 7, 7),
            (Quorum::Count(0), 7, 1),
            (Quorum::Count(9), 7, 9),
        ] {
            assert_eq!(quorum.needed(of), needed, "{quorum:?} of {of}");
        }
    }
}
