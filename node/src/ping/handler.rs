//! One connection's ping: answers whoever asks, and probes at a fixed pace once it is told to.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError,
        SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::Sleep;

use super::{
    Config, Failure, News, Outcome, PROTOCOL,
    prober::{Ended, Ping, Prober},
    responder::Responder,
};
use crate::pace::{Pace, is_late};

/// The specification lets a peer open one stream and asks us to accept two, since an old one may linger.
const MAX_RESPONDERS: usize = 2;

/// What the handler is told.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Probe from now on.
    Start {
        /// When the first probe is to leave.
        first: Instant,
    },
    /// Send no more probes: another connection is better. Those on the way are awaited.
    Stop,
}

/// The handler of one connection.
pub struct Handler {
    config: Config,
    responders: VecDeque<Responder<Stream>>,
    outbound: Outbound,
    pace: Option<Pace<Instant>>,
    /// A probe is due and waits for its stream.
    waiting: Option<Waiting>,
    burst: Option<Burst>,
    bursts: u64,
    timer: Option<Pin<Box<Sleep>>>,
    outcomes: VecDeque<Outcome>,
    /// Outcomes were held back in the last turn.
    held: bool,
}

enum Outbound {
    None,
    /// A stream must be asked for.
    Wanted,
    Opening,
    Open(Box<Prober<Stream>>),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Instant,
    late: bool,
}

/// The burst under way: no more than one at a time.
#[derive(Clone, Copy, Debug)]
struct Burst {
    number: u64,
    sent: Instant,
    /// Pings that are still to be sent.
    left: usize,
    smallest: Option<Duration>,
}

impl Handler {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            responders: VecDeque::with_capacity(MAX_RESPONDERS),
            outbound: Outbound::None,
            pace: None,
            waiting: None,
            burst: None,
            bursts: 0,
            timer: None,
            outcomes: VecDeque::new(),
            held: false,
        }
    }

    fn tell(&mut self, sent: Instant, news: News) {
        let at = Instant::now();
        self.outcomes.push_back(Outcome { sent, at, news });
    }

    fn tell_cold(&mut self, sent: Instant, result: Result<Duration, Failure>, host_limited: bool) {
        self.tell(sent, News::Cold { result, host_limited });
    }

    /// Ends the burst under way, and says what it found.
    fn end_burst(&mut self) {
        if let Some(Burst {
            sent,
            smallest: Some(warm),
            ..
        }) = self.burst.take()
        {
            self.tell(sent, News::Warm(warm));
        }
    }

    fn is_under_way(&self, number: u64) -> bool {
        self.burst.is_some_and(|burst| burst.number == number)
    }

    /// A ping came to its end without a round trip.
    fn on_failure(&mut self, ended: Ended, failure: Failure) {
        if ended.ping.first {
            self.tell_cold(ended.sent, Err(failure), ended.host_limited);
        }
        if self.is_under_way(ended.ping.burst) {
            self.end_burst();
        }
    }

    fn on_answer(&mut self, ended: Ended, rtt: Duration) {
        let timeout = self.config.timeout;
        if rtt >= timeout {
            // An answer that came too late is no latency. If it was read too late, nobody knows when it came.
            let unheard = ended.host_limited || is_late(rtt.saturating_sub(timeout));
            let host_limited = ended.host_limited || unheard;
            let ended = Ended {
                host_limited,
                ..ended
            };
            self.on_failure(ended, Failure::Timeout.unless_unheard(unheard));
            return;
        }
        let Ping { burst: number, first } = ended.ping;
        if first {
            self.tell_cold(ended.sent, Ok(rtt), ended.host_limited);
        }
        match &mut self.burst {
            Some(burst) if burst.number == number => {
                burst.smallest = Some(burst.smallest.map_or(rtt, |smallest| smallest.min(rtt)));
                match burst.left.checked_sub(1) {
                    Some(left) => {
                        burst.left = left;
                        self.repeat(number);
                    }
                    None => self.end_burst(),
                }
            }
            // The next probe was due before this one's answer came: it stands for the whole burst.
            _ if first => self.tell(ended.sent, News::Warm(rtt)),
            _ => {}
        }
    }

    /// Sends the next ping of a burst.
    fn repeat(&mut self, burst: u64) {
        let ping = Ping { burst, first: false };
        let payload = rand::random();
        let sent = match &mut self.outbound {
            Outbound::Open(prober) => prober.send(ping, payload, false, Instant::now()),
            Outbound::None | Outbound::Wanted | Outbound::Opening => false,
        };
        if !sent {
            self.end_burst();
        }
    }

    /// Ends the outbound stream: whatever is on the way there will not be answered.
    fn drop_stream(&mut self, failure: Failure) {
        if let Outbound::Open(mut prober) = std::mem::replace(&mut self.outbound, Outbound::None) {
            for (ended, unheard) in prober.abandon(Instant::now()) {
                self.on_failure(ended, failure.unless_unheard(unheard));
            }
        }
        self.end_burst();
    }

    /// Whether an answer was written.
    fn poll_responders(&mut self, cx: &mut Context<'_>) -> bool {
        let mut wrote = false;
        self.responders.retain_mut(|responder| {
            let polled = responder.poll(cx);
            wrote |= responder.take_wrote();
            match polled {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "an inbound ping stream ended");
                    false
                }
            }
        });
        wrote
    }

    /// Does everything that can be done now and leaves wakers for the rest. Whether a ping was written.
    fn poll_prober(&mut self, cx: &mut Context<'_>) -> bool {
        let mut wrote = false;
        loop {
            self.give_up();
            self.start_due_probe();
            while let Outbound::Open(prober) = &mut self.outbound {
                let polled = prober.poll(cx);
                wrote |= prober.take_wrote();
                match polled {
                    Poll::Pending => break,
                    // The next ping of the burst is written by the next turn of this loop.
                    Poll::Ready(Ok((ended, rtt))) => self.on_answer(ended, rtt),
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%error, "the outbound ping stream ended");
                        self.drop_stream(Failure::Reset);
                    }
                }
            }
            if self.timer_is_pending(cx) {
                return wrote;
            }
        }
    }

    fn give_up(&mut self) {
        let Outbound::Open(prober) = &mut self.outbound else {
            return;
        };
        for (ended, unheard) in prober.give_up(Instant::now()) {
            self.on_failure(ended, Failure::Timeout.unless_unheard(unheard));
        }
    }

    fn start_due_probe(&mut self) {
        let now = Instant::now();
        if let Some(lateness) = self.pace.as_mut().and_then(|pace| pace.due(now)) {
            // Never two bursts at once, and never a probe that waits for the burst before it.
            self.end_burst();
            let late = is_late(lateness);
            if late && let Outbound::Open(prober) = &mut self.outbound {
                prober.mark_host_limited();
            }
            self.waiting.get_or_insert(Waiting { since: now, late });
        }
        let Some(waiting) = self.waiting else {
            return;
        };
        match &mut self.outbound {
            Outbound::None => self.outbound = Outbound::Wanted,
            Outbound::Wanted | Outbound::Opening => {}
            Outbound::Open(prober) => {
                self.waiting = None;
                self.bursts += 1;
                let ping = Ping {
                    burst: self.bursts,
                    first: true,
                };
                let payload = rand::random();
                let sent = Instant::now();
                if prober.send(ping, payload, waiting.late, sent) {
                    self.burst = Some(Burst {
                        number: self.bursts,
                        sent,
                        left: self.config.burst.saturating_sub(1),
                        smallest: None,
                    });
                } else {
                    self.tell_cold(now, Err(Failure::Reset), waiting.late);
                    self.drop_stream(Failure::Reset);
                }
            }
        }
    }

    /// Registers for the next probe or the next timeout, whichever comes first. False if that is now.
    fn timer_is_pending(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = match &self.outbound {
            Outbound::Open(prober) => prober.next_deadline(),
            Outbound::None | Outbound::Wanted | Outbound::Opening => None,
        };
        let next = self.pace.as_ref().map(Pace::fire);
        let Some(at) = [deadline, next].into_iter().flatten().min() else {
            return true;
        };
        let at = tokio::time::Instant::from_std(at);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_pending()
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Outcome;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    /// The event loop alone decides which connections end: none of them is ever idle.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Start { first } if self.pace.is_none() => {
                self.pace = Some(Pace::starting_at(first, self.config.interval));
            }
            Command::Start { .. } => {}
            Command::Stop => {
                self.pace = None;
                self.waiting = None;
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        let answered = self.poll_responders(cx);
        let asked = self.poll_prober(cx);
        if (answered || asked) && !self.outcomes.is_empty() && !self.held {
            // What was written reaches the socket when the muxer has its turn, which it has when we have nothing to
            // say. News can wait that long; a ping can't, since its clock is running.
            self.held = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(outcome) = self.outcomes.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(outcome));
        }
        self.held = false;
        if matches!(self.outbound, Outbound::Wanted) {
            self.outbound = Outbound::Opening;
            let protocol =
                SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(self.config.timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    /// Probes on the way when the connection ends get no answer: they are told before the end is.
    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.pace = None;
        self.drop_stream(Failure::Closed);
        Poll::Ready(self.outcomes.pop_front())
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                if self.responders.len() >= MAX_RESPONDERS {
                    self.responders.pop_front();
                }
                self.responders.push_back(Responder::new(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream, ..
            }) => {
                self.outbound = Outbound::Open(Box::new(Prober::new(stream, self.config.timeout)));
            }
            ConnectionEvent::DialUpgradeError(error) => {
                self.outbound = Outbound::None;
                if self.waiting.is_none() && self.pace.is_none() {
                    // Told to stop meanwhile: no probe waited for this stream.
                    return;
                }
                let now = Instant::now();
                let waiting = self.waiting.take().unwrap_or(Waiting {
                    since: now,
                    late: false,
                });
                let waited = now.saturating_duration_since(waiting.since);
                let late = waiting.late || is_late(waited.saturating_sub(self.config.timeout));
                let failure = match error.error {
                    StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
                    _ if late => Failure::Unheard,
                    StreamUpgradeError::Timeout => Failure::Timeout,
                    StreamUpgradeError::Io(_) => Failure::Reset,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.tell_cold(waiting.since, Err(failure), late);
            }
            _ => {}
        }
    }
}
