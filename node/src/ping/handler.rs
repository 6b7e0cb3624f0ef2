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
    Config, Failure, PROTOCOL,
    protocol::{Prober, Responder},
};

/// The specification lets a peer open one stream and asks us to accept two, since an old one may linger.
const MAX_RESPONDERS: usize = 2;
/// A new connection's first probe waits at most this long, so that many peers met at once are not probed at once.
const MAX_FIRST_DELAY: Duration = Duration::from_millis(250);

/// What became of one probe, and when that was known.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// When the answer came, or the probe was given up.
    pub at: Instant,
    /// The round trip, or why there is none.
    pub result: Result<Duration, Failure>,
}

/// Tells the handler to start probing.
#[derive(Clone, Copy, Debug)]
pub struct Start;

/// The handler of one connection.
pub struct Handler {
    config: Config,
    responders: VecDeque<Responder<Stream>>,
    outbound: Outbound,
    pace: Option<Pace>,
    /// A probe is due and waits for its stream.
    waiting: bool,
    timer: Option<Pin<Box<Sleep>>>,
    outcomes: VecDeque<Outcome>,
}

enum Outbound {
    None,
    /// A stream must be asked for.
    Wanted,
    Opening,
    Open(Box<Prober<Stream>>),
}

impl Handler {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            responders: VecDeque::with_capacity(MAX_RESPONDERS),
            outbound: Outbound::None,
            pace: None,
            waiting: false,
            timer: None,
            outcomes: VecDeque::new(),
        }
    }

    fn outcome(&mut self, result: Result<Duration, Failure>) {
        self.outcomes.push_back(Outcome {
            at: Instant::now(),
            result,
        });
    }

    /// Ends the outbound stream: whatever is on the way there will not be answered.
    fn drop_stream(&mut self, failure: Failure) {
        if let Outbound::Open(prober) = std::mem::replace(&mut self.outbound, Outbound::None) {
            for _ in 0..prober.outstanding() {
                self.outcome(Err(failure));
            }
        }
    }

    fn poll_responders(&mut self, cx: &mut Context<'_>) {
        self.responders.retain_mut(|responder| match responder.poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "an inbound ping stream ended");
                false
            }
        });
    }

    /// Does everything that can be done now and leaves wakers for the rest.
    fn poll_prober(&mut self, cx: &mut Context<'_>) {
        loop {
            self.start_due_probe();
            if let Outbound::Open(prober) = &mut self.outbound {
                let given_up = prober.give_up(Instant::now(), self.config.timeout);
                let polled = prober.poll(cx);
                for _ in 0..given_up {
                    self.outcome(Err(Failure::Timeout));
                }
                match polled {
                    Poll::Pending => {}
                    Poll::Ready(Ok(rtt)) => {
                        // An answer that came too late is no latency, also when the timer was late, too.
                        self.outcome(if rtt < self.config.timeout {
                            Ok(rtt)
                        } else {
                            Err(Failure::Timeout)
                        });
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%error, "the outbound ping stream ended");
                        self.drop_stream(Failure::Reset);
                    }
                }
            }
            if self.timer_is_pending(cx) {
                return;
            }
        }
    }

    fn start_due_probe(&mut self) {
        let now = Instant::now();
        if let Some(pace) = &mut self.pace
            && pace.due(now)
        {
            self.waiting = true;
        }
        if !self.waiting {
            return;
        }
        match &mut self.outbound {
            Outbound::None => self.outbound = Outbound::Wanted,
            Outbound::Wanted | Outbound::Opening => {}
            Outbound::Open(prober) => {
                self.waiting = false;
                if !prober.send(rand::random(), now) {
                    self.outcome(Err(Failure::Reset));
                    self.drop_stream(Failure::Reset);
                }
            }
        }
    }

    /// Registers for the next probe or the next timeout, whichever comes first. False if that is now.
    fn timer_is_pending(&mut self, cx: &mut Context<'_>) -> bool {
        let timeout = match &self.outbound {
            Outbound::Open(prober) => prober.oldest().map(|sent| sent + self.config.timeout),
            Outbound::None | Outbound::Wanted | Outbound::Opening => None,
        };
        let next = self.pace.as_ref().map(|pace| pace.fire);
        let Some(at) = [timeout, next].into_iter().flatten().min() else {
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
    type FromBehaviour = Start;
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

    fn on_behaviour_event(&mut self, Start: Start) {
        if self.pace.is_none() {
            self.pace = Some(Pace::new(Instant::now(), self.config.interval));
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        self.poll_responders(cx);
        self.poll_prober(cx);
        if let Some(outcome) = self.outcomes.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(outcome));
        }
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
                self.outbound = Outbound::Open(Box::new(Prober::new(stream)));
            }
            ConnectionEvent::DialUpgradeError(error) => {
                self.outbound = Outbound::None;
                self.waiting = false;
                self.outcome(Err(match error.error {
                    StreamUpgradeError::Timeout => Failure::Timeout,
                    StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
                    StreamUpgradeError::Io(_) => Failure::Reset,
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}

/// When probes are due: on a grid of the interval, each one up to a tenth of it late at random, so that agents started
/// together don't stay in step with each other or with anything else that is periodic on the host.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    grid: Instant,
    fire: Instant,
}

impl Pace {
    fn new(now: Instant, interval: Duration) -> Self {
        let fire = now + interval.min(MAX_FIRST_DELAY).mul_f64(rand::random());
        Self {
            interval,
            grid: fire,
            fire,
        }
    }

    /// Whether a probe is due. If so, the next one is set: a process that was stopped does not catch up in a burst.
    fn due(&mut self, now: Instant) -> bool {
        if now < self.fire {
            return false;
        }
        self.grid += self.interval;
        if self.grid <= now {
            self.grid = now + self.interval;
        }
        self.fire = self.grid + self.interval.mul_f64(rand::random::<f64>() / 10.0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_keeps_its_grid_and_never_bursts() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(start, second);
        let first = pace.fire;
        for n in 1..=1000_u32 {
            assert!(!pace.due(pace.fire - Duration::from_nanos(1)));
            assert!(pace.due(pace.fire));
            let offset = pace.fire - (first + second * n);
            assert!(offset <= second / 10, "probe {n} is {offset:?} off the grid");
        }
        let late = pace.fire + second * 60;
        assert!(pace.due(late));
        assert!(!pace.due(late));
        assert!(pace.fire >= late + second);
    }
}
