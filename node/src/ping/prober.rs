//! The side of `/ipfs/ping/1.0.0` that asks.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite};

use super::SIZE;
use crate::pace::is_late;

/// Most pings that may be on the way on one stream, those given up included. More than a timeout of 60 s at the
/// fastest pace that the agent accepts needs only if the peer has stopped answering, and then three are enough to tell.
const MAX_IN_FLIGHT: usize = 128;
/// How often a ping gets more time because the agent was away when its time was up.
const MAX_POSTPONED: u8 = 3;

/// Which ping of which burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ping {
    pub(super) burst: u64,
    pub(super) first: bool,
}

/// A ping that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) ping: Ping,
    pub(super) sent: Instant,
    /// This process was late to send it, or while it was on the way.
    pub(super) host_limited: bool,
}

/// Sends pings on one stream and matches the answers, which come in the order of the pings. A poll-based state machine
/// over any byte stream, so that no wake-up can be lost between two futures.
///
/// A ping may be sent while earlier ones are on the way, so that a slow answer never delays the next probe: the pace
/// is the clock's, not the peer's.
#[derive(Debug)]
pub(super) struct Prober<S> {
    stream: S,
    timeout: Duration,
    outgoing: VecDeque<u8>,
    unflushed: bool,
    wrote: bool,
    in_flight: VecDeque<InFlight>,
    answer: [u8; SIZE],
    filled: usize,
}

#[derive(Debug)]
struct InFlight {
    payload: [u8; SIZE],
    ended: Ended,
    deadline: Instant,
    postponed: u8,
    given_up: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Prober<S> {
    /// Speaks on this stream. A ping has `timeout` to be answered.
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self {
            stream,
            timeout,
            outgoing: VecDeque::new(),
            unflushed: false,
            wrote: false,
            in_flight: VecDeque::new(),
            answer: [0; SIZE],
            filled: 0,
        }
    }

    /// Queues one ping, which was due much earlier if it is `late`. The round trip starts now: call [`Self::poll`] at
    /// once. False if too many are on the way.
    pub(super) fn send(&mut self, ping: Ping, payload: [u8; SIZE], late: bool, now: Instant) -> bool {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return false;
        }
        self.in_flight.push_back(InFlight {
            payload,
            ended: Ended {
                ping,
                sent: now,
                host_limited: late,
            },
            deadline: now + self.timeout,
            postponed: 0,
            given_up: false,
        });
        self.outgoing.extend(payload);
        true
    }

    /// Whether something was written since this was last asked.
    pub(super) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    /// When the next ping must be given up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.in_flight
            .iter()
            .filter(|probe| !probe.given_up)
            .map(|probe| probe.deadline)
            .min()
    }

    /// This process was late: whatever is on the way may have been answered while nobody read.
    pub(super) fn mark_host_limited(&mut self) {
        for probe in self.in_flight.iter_mut().filter(|probe| !probe.given_up) {
            probe.ended.host_limited = true;
        }
    }

    /// Gives up the pings whose time is up. `true` stands beside those of which nobody can say whether they were
    /// answered in time. Their answers, should they still come, are read and thrown away.
    ///
    /// A ping whose time ran out while this process did not run gets as much more time as the process was away: its
    /// answer may lie in a buffer of the kernel, and if it does not, the peer had the whole timeout of a running agent.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<(Ended, bool)> {
        let mut given_up = Vec::new();
        let mut away = false;
        for probe in self.in_flight.iter_mut().filter(|probe| !probe.given_up) {
            let Some(lateness) = now.checked_duration_since(probe.deadline) else {
                continue;
            };
            let late = is_late(lateness);
            away |= late;
            probe.ended.host_limited |= late;
            if late && probe.postponed < MAX_POSTPONED {
                probe.postponed += 1;
                probe.deadline = now + lateness.min(self.timeout);
                continue;
            }
            probe.given_up = true;
            given_up.push((probe.ended, late));
        }
        if away {
            self.mark_host_limited();
        }
        given_up
    }

    /// Ends all pings on the way, as [`Self::give_up`] tells them. A stream that ended while this process was late may
    /// have ended because of that.
    pub(super) fn abandon(&mut self, now: Instant) -> Vec<(Ended, bool)> {
        self.in_flight
            .drain(..)
            .filter(|probe| !probe.given_up)
            .map(|probe| {
                let overdue = is_late(now.saturating_duration_since(probe.deadline));
                let host_limited = probe.ended.host_limited || overdue;
                let ended = Ended {
                    host_limited,
                    ..probe.ended
                };
                (ended, host_limited)
            })
            .collect()
    }

    /// Writes what is queued and yields the next ping that was answered, with its round trip. An error ends the stream.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Ended, Duration)>> {
        self.poll_write(cx)?;
        loop {
            let rest = self.answer.get_mut(self.filled..).unwrap_or_default();
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, rest))?;
            let now = Instant::now();
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.filled += read;
            if self.filled < SIZE {
                continue;
            }
            self.filled = 0;
            let Some(probe) = self.in_flight.pop_front() else {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an answer to no ping",
                )));
            };
            if probe.payload != self.answer {
                // It stays among those on the way, so that its end is told.
                self.in_flight.push_front(probe);
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not the bytes that were sent",
                )));
            }
            if !probe.given_up {
                let rtt = now.saturating_duration_since(probe.ended.sent);
                return Poll::Ready(Ok((probe.ended, rtt)));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            let (bytes, _) = self.outgoing.as_slices();
            match Pin::new(&mut self.stream).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.wrote = true;
                    self.outgoing.drain(..written.min(self.outgoing.len()));
                    self.unflushed = true;
                }
                Poll::Pending => return Ok(()),
            }
        }
        if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
