//! The wire of `/ipfs/ping/1.0.0` ([libp2p ping](https://github.com/libp2p/specs/blob/master/ping/ping.md)):
//! 32 random bytes go out, the same 32 bytes come back. Both halves are poll-based state machines over any byte
//! stream, so that no wake-up can be lost between two futures.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite};

/// Bytes in one ping.
pub(crate) const SIZE: usize = 32;
/// Most probes that may be on the way on one stream, those given up included. More than a timeout of 60 s at the
/// fastest pace that the agent accepts needs only if the peer has stopped answering, and then three are enough to tell.
const MAX_IN_FLIGHT: usize = 128;
/// Pings answered before other work on the connection gets its turn.
const ANSWERS_PER_TURN: usize = 16;

/// The side that asks: sends probes on one stream and matches the answers, which come in the order of the probes.
///
/// A probe may be sent while earlier ones are on the way, so that a slow answer never delays the next probe: the pace
/// is the clock's, not the peer's.
#[derive(Debug)]
pub(crate) struct Prober<S> {
    stream: S,
    outgoing: VecDeque<u8>,
    unflushed: bool,
    in_flight: VecDeque<Probe>,
    answer: [u8; SIZE],
    filled: usize,
}

#[derive(Debug)]
struct Probe {
    payload: [u8; SIZE],
    sent: Instant,
    given_up: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Prober<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            outgoing: VecDeque::new(),
            unflushed: false,
            in_flight: VecDeque::new(),
            answer: [0; SIZE],
            filled: 0,
        }
    }

    /// Queues one probe. The round trip starts now: call [`Self::poll`] at once. False if too many are on the way.
    pub(crate) fn send(&mut self, payload: [u8; SIZE], now: Instant) -> bool {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return false;
        }
        self.in_flight.push_back(Probe {
            payload,
            sent: now,
            given_up: false,
        });
        self.outgoing.extend(payload);
        true
    }

    /// Probes that are neither answered nor given up.
    pub(crate) fn outstanding(&self) -> usize {
        self.in_flight.iter().filter(|probe| !probe.given_up).count()
    }

    /// When the oldest outstanding probe was sent.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.in_flight
            .iter()
            .find(|probe| !probe.given_up)
            .map(|probe| probe.sent)
    }

    /// Gives up what was sent `timeout` ago or earlier, and says how many that were. Their answers, should they still
    /// come, are read and thrown away.
    pub(crate) fn give_up(&mut self, now: Instant, timeout: Duration) -> usize {
        let mut given_up = 0;
        for probe in self.in_flight.iter_mut().filter(|probe| !probe.given_up) {
            if now.saturating_duration_since(probe.sent) < timeout {
                break;
            }
            probe.given_up = true;
            given_up += 1;
        }
        given_up
    }

    /// Writes what is queued and yields the next answer's round trip. An error ends the stream.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Duration>> {
        self.poll_write(cx)?;
        loop {
            let rest = self.answer.get_mut(self.filled..).unwrap_or_default();
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, rest))?;
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.filled += read;
            if self.filled < SIZE {
                continue;
            }
            let now = Instant::now();
            self.filled = 0;
            match self.in_flight.pop_front() {
                Some(probe) if probe.payload != self.answer => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "not the bytes that were sent",
                    )));
                }
                None => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "an answer to no probe",
                    )));
                }
                Some(probe) if probe.given_up => {}
                Some(probe) => return Poll::Ready(Ok(now.saturating_duration_since(probe.sent))),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            let (bytes, _) = self.outgoing.as_slices();
            match Pin::new(&mut self.stream).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
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

/// The side that answers, one per inbound stream.
#[derive(Debug)]
pub(crate) struct Responder<S> {
    stream: S,
    ping: [u8; SIZE],
    state: Answering,
}

#[derive(Debug)]
enum Answering {
    Reading { filled: usize },
    Writing { written: usize },
    Flushing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Responder<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            ping: [0; SIZE],
            state: Answering::Reading { filled: 0 },
        }
    }

    /// Answers pings until the stream ends. Pending always leaves a waker behind.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut answered = 0;
        loop {
            self.state = match self.state {
                Answering::Reading { filled } if filled < SIZE => {
                    let rest = self.ping.get_mut(filled..).unwrap_or_default();
                    match ready!(Pin::new(&mut self.stream).poll_read(cx, rest))? {
                        0 => return Poll::Ready(Ok(())),
                        read => Answering::Reading {
                            filled: filled + read,
                        },
                    }
                }
                Answering::Reading { .. } => Answering::Writing { written: 0 },
                Answering::Writing { written } if written < SIZE => {
                    let rest = self.ping.get(written..).unwrap_or_default();
                    match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        more => Answering::Writing {
                            written: written + more,
                        },
                    }
                }
                Answering::Writing { .. } => Answering::Flushing,
                Answering::Flushing => {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    answered += 1;
                    Answering::Reading { filled: 0 }
                }
            };
            if answered >= ANSWERS_PER_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests;
