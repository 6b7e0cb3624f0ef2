//! The operator's two clocks: a monotonic one that ages are counted by, and the API server's, which labels them.
//!
//! `kubectl` shows how old a time in a status is by the API server's clock. So it is this one that labels must follow: one
//! made by the operator's own wall clock would be wrong by as much as that is, and could make an old sample look fresh.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{Request, header::DATE};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use kube::{Client, client::Body};

use crate::api_call::with_deadline;

/// Time since the operator's start, by its monotonic clock: no step of the wall clock moves it, and it goes on while the
/// operator is stopped.
pub type Moment = Duration;

/// The monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic(Instant);

impl Monotonic {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.0.elapsed()
    }
}

/// The API server is asked for its time this often.
const REFRESH: Duration = Duration::from_secs(60);
/// An answer that took longer says too little about now: the operator may have been stopped meanwhile.
const SLOWEST: Duration = Duration::from_secs(5);

/// The API server's clock, as far as the operator knows it.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<Reading>>);

/// What the server's clock showed at a moment, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it showed.
    pub date: Timestamp,
    /// When that was there.
    pub moment: Moment,
}

impl Reading {
    /// What the server's clock shows at `moment`: no more than it really does, as long as the two clocks run at one pace.
    #[must_use]
    pub fn at(&self, moment: Moment) -> Timestamp {
        let elapsed = moment.saturating_sub(self.moment);
        self.date.checked_add(elapsed).unwrap_or(self.date)
    }
}

impl ServerClock {
    /// Asks the API server for its time, if it was not asked of late. Each of its answers carries a `Date` (RFC 9110,
    /// section 6.6.1), also one that refuses. Without any, the last reading goes on.
    pub async fn refresh(&self, client: &Client, clock: Monotonic) {
        let asked = clock.now();
        if let Some(reading) = self.reading()
            && asked.saturating_sub(reading.moment) < REFRESH
        {
            return;
        }
        let Ok(request) = Request::get("/version").body(Body::empty()) else {
            return;
        };
        let answer = with_deadline("read the API server's clock", client.send(request)).await;
        let moment = clock.now();
        let header = match &answer {
            Ok(response) => response.headers().get(DATE).and_then(|date| date.to_str().ok()),
            Err(error) => {
                tracing::debug!(%error, "the API server's clock can't be read");
                None
            }
        };
        if let Some(date) = header.and_then(parse)
            && moment.saturating_sub(asked) <= SLOWEST
        {
            let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *reading = Some(Reading { date, moment });
        }
    }

    /// What the server's clock shows at `moment`; before it was read for the first time, what the own one does.
    #[must_use]
    pub fn at(&self, moment: Moment, own: Timestamp) -> Timestamp {
        self.reading().map_or(own, |reading| reading.at(moment))
    }

    fn reading(&self) -> Option<Reading> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an HTTP date.
fn parse(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_date_is_read() {
        assert_eq!(
            parse("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().as_second(),
            784_111_777
        );
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn the_servers_clock_goes_on_by_the_monotonic_one() {
        let clock = ServerClock::default();
        let (own, date) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(1_000_000).unwrap());
        let second = Duration::from_secs(1);
        assert_eq!(
            clock.at(second * 9, own),
            own,
            "there is no other before the first answer"
        );
        *clock.0.lock().unwrap() = Some(Reading {
            date,
            moment: second * 10,
        });
        assert_eq!(clock.at(second * 70, own).as_second(), 1_000_060);
    }
}
