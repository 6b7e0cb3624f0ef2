//! One session as its sender sees it: which probes are on the way, what became of them, and where the lost ones got
//! lost. Pure: time, stamps and packets are arguments.
//!
//! A probe is complete with the reply after its own, which says when its own reply left the peer's host (t3). What is lost
//! is known after the timeout; where it was lost, from the reflector's own numbers (RFC 8762, section 4.2, stateful mode):
//! of the probes missing between two replies, as many as numbers are missing between them were answered, and their
//! answers got lost on the way back. The others never reached the peer.

use std::{collections::VecDeque, time::Duration};

use peernet_api::report::StampClock;

use super::{
    clock::{Reading, Stamps, Wall},
    wire::Reply,
};
use crate::{
    ledger::Moment,
    telemetry::{StampNews, StampSample},
};

/// Probes that are remembered. What is lost before them stays without a direction; while all of them are on the way, none
/// is sent.
const MAX_PROBES: usize = 1024;
/// A sample waits this many intervals for its t3, in case the next probes get lost, too.
const PATIENCE: u32 = 4;

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The news for the ledger.
    pub news: StampNews,
    /// When it happened: when the answer came, or when time was up.
    pub at: Moment,
    /// A sample's stamps and its number.
    pub sample: Option<(u32, Stamps)>,
}

/// A session-sender.
#[derive(Debug)]
pub struct Sender {
    interval: Duration,
    timeout: Duration,
    /// The number of the first probe in `probes`.
    first: u64,
    probes: VecDeque<Probe>,
    /// The number that the reflector's next reply has, if nothing gets lost: one more than the highest that was seen before
    /// the first probe in `probes`.
    reflected: u64,
    /// The highest of the reflector's numbers, and the highest probe that was answered.
    newest: Option<(u64, u64)>,
    unanswered: u32,
}

#[derive(Debug)]
struct Probe {
    /// The timestamp in the packet. The reply repeats it.
    stamp: Wall,
    sent: Reading,
    lateness: Duration,
    t1: Option<Wall>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// On its way.
    Waiting,
    /// Answered; its t3 is on its way.
    Answered(Answer),
    /// Time was up. `told`: the ledger knows.
    Lost { told: bool },
    /// Nothing more can become of it. The reflector's number is known if an answer came.
    Over { reflected: Option<u64> },
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    reflected: u64,
    t2: Wall,
    t4: Option<Wall>,
    received: Reading,
}

impl Sender {
    /// A session that has sent nothing yet.
    #[must_use]
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self::starting_at(0, 0, interval, timeout)
    }

    fn starting_at(first: u64, reflected: u64, interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            first,
            probes: VecDeque::new(),
            reflected,
            newest: None,
            unanswered: 0,
        }
    }

    /// The number of the probe that is about to be sent. `None` if too many are on the way.
    #[must_use]
    pub fn next_seq(&mut self) -> Option<u32> {
        if self.probes.len() >= MAX_PROBES {
            match self.probes.front()?.state {
                State::Lost { .. } | State::Over { .. } => self.pop_front(),
                State::Waiting | State::Answered(_) => return None,
            }
        }
        Some(low(self.first + self.probes.len() as u64))
    }

    /// The probe that [`Sender::next_seq`] numbered is handed to the kernel now, `lateness` after it was due. `stamp` is
    /// the timestamp in it.
    pub fn sent(&mut self, stamp: Wall, sent: Reading, lateness: Duration) {
        self.probes.push_back(Probe {
            stamp,
            sent,
            lateness,
            t1: None,
            state: State::Waiting,
        });
    }

    /// The kernel refused the newest probe: it never left.
    pub fn not_sent(&mut self, told: &mut Vec<Told>) {
        if let Some(probe) = self.probes.back_mut() {
            probe.state = State::Over { reflected: None };
            told.push(news(StampNews::LostForward, probe.sent.after));
        }
    }

    /// The kernel stamped a probe as it left.
    pub fn stamped(&mut self, seq: u32, t1: Wall) {
        if let Some(probe) = self.index(seq).and_then(|index| self.probes.get_mut(index)) {
            probe.t1 = Some(t1);
        }
    }

    /// Takes a verified reply. `own_clock` is what our stamps are taken by: without a kernel that stamps, those of the
    /// program stand in for t1 and t4.
    pub fn replied(
        &mut self,
        reply: &Reply,
        t4: Option<Wall>,
        received: Reading,
        own_clock: StampClock,
        told: &mut Vec<Told>,
    ) {
        let expected = self.newest.map_or(self.reflected, |(reflected, _)| reflected);
        if let Some(follow_up) = reply.follow_up {
            let of = unwrap(follow_up.seq, expected);
            let sent = (follow_up.sent, follow_up.clock.max(own_clock));
            self.complete(of, sent, told);
        }
        let Some(index) = self.index(reply.request) else {
            return;
        };
        let number = self.first + index as u64;
        let Some(probe) = self.probes.get_mut(index) else {
            return;
        };
        if probe.stamp != reply.request_sent {
            return;
        }
        let reflected = unwrap(reply.seq, expected);
        let answer = Answer {
            reflected,
            t2: reply.received,
            t4,
            received,
        };
        match probe.state {
            State::Waiting if in_time(probe, &answer, self.timeout) => {
                probe.state = State::Answered(answer);
                self.unanswered = 0;
            }
            // Too late is lost, and nobody can say in which direction.
            State::Waiting => {
                let at = probe.sent.after + self.timeout;
                told.push(news(StampNews::LostUndirected, at));
                probe.state = State::Over {
                    reflected: Some(reflected),
                };
            }
            State::Lost { .. } | State::Over { reflected: None } => {
                probe.state = State::Over {
                    reflected: Some(reflected),
                };
            }
            State::Answered(_) | State::Over { reflected: Some(_) } => {
                told.push(news(StampNews::Duplicated, received.before));
                return;
            }
        }
        match &mut self.newest {
            Some((_, probe)) if number < *probe => told.push(news(StampNews::Reordered, received.before)),
            newest => *newest = Some((newest.map_or(reflected, |(most, _)| most.max(reflected)), number)),
        }
        self.locate(told);
    }

    /// Gives up what is too late. The sockets must have been emptied before: what waits there is not too late.
    pub fn expire(&mut self, now: Moment, told: &mut Vec<Told>) {
        let mut changed = false;
        for probe in &mut self.probes {
            match probe.state {
                State::Waiting if now >= probe.sent.after + self.timeout => {
                    probe.state = State::Lost { told: false };
                    self.unanswered = self.unanswered.saturating_add(1);
                    changed = true;
                }
                // Later ones were sent later.
                State::Waiting => break,
                State::Answered(answer) if now >= patience(&answer, self.interval, self.timeout) => {
                    told.push(news(StampNews::Voided, answer.received.before));
                    probe.state = State::Over {
                        reflected: Some(answer.reflected),
                    };
                    changed = true;
                }
                State::Answered(_) | State::Lost { .. } | State::Over { .. } => {}
            }
        }
        if !changed {
            return;
        }
        self.locate(told);
        for probe in &mut self.probes {
            if let State::Lost { told: heard @ false } = &mut probe.state {
                *heard = true;
                told.push(news(StampNews::LostUndirected, probe.sent.after + self.timeout));
            }
        }
    }

    /// When [`Sender::expire`] has something to do.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Moment> {
        // Both kinds stand in the order of their times.
        let mut waiting = self.probes.iter().filter_map(|probe| match probe.state {
            State::Waiting => Some(probe.sent.after + self.timeout),
            State::Answered(_) | State::Lost { .. } | State::Over { .. } => None,
        });
        let mut answered = self.probes.iter().filter_map(|probe| match &probe.state {
            State::Answered(answer) => Some(patience(answer, self.interval, self.timeout)),
            State::Waiting | State::Lost { .. } | State::Over { .. } => None,
        });
        [waiting.next(), answered.next()].into_iter().flatten().min()
    }

    /// Probes given up since the last answer.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Gives up all that is on the way.
    pub fn give_up(&mut self, told: &mut Vec<Told>) {
        for probe in self.probes.drain(..) {
            match probe.state {
                State::Waiting => told.push(news(StampNews::LostUndirected, probe.sent.after)),
                State::Answered(answer) => told.push(news(StampNews::Voided, answer.received.before)),
                State::Lost { .. } | State::Over { .. } => {}
            }
        }
    }

    /// Whether no probe can still be answered or completed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.next_expiry().is_none()
    }

    /// Where a probe is in `probes`, by the lower half of its number.
    fn index(&self, seq: u32) -> Option<usize> {
        let index = seq.wrapping_sub(low(self.first));
        usize::try_from(index)
            .ok()
            .filter(|index| *index < self.probes.len())
    }

    /// The peer said when its reply of that number left: the sample of the probe is complete.
    fn complete(&mut self, of: u64, (t3, clock): (Wall, StampClock), told: &mut Vec<Told>) {
        let first = self.first;
        for (index, probe) in self.probes.iter_mut().enumerate().rev() {
            let State::Answered(answer) = probe.state else {
                continue;
            };
            if answer.reflected != of {
                continue;
            }
            probe.state = State::Over { reflected: Some(of) };
            let at = answer.received.before;
            let (t1, t4) = match clock {
                StampClock::Kernel => (probe.t1, answer.t4),
                StampClock::UserSpace => (
                    probe.t1.or(Some(probe.sent.wall)),
                    answer.t4.or(Some(answer.received.wall)),
                ),
            };
            let stamps = t1.zip(t4).map(|(t1, t4)| Stamps {
                sent: probe.sent,
                t1,
                t2: answer.t2,
                t3,
                t4,
                received: answer.received,
            });
            let sample = stamps.and_then(|stamps| Some((stamps, stamps.parts()?)));
            told.push(match sample {
                Some((stamps, parts)) => Told {
                    news: StampNews::Sample(StampSample {
                        clock,
                        network: parts.network,
                        own_host: parts.own_host,
                        peer_host: parts.peer_host,
                        lateness: probe.lateness,
                    }),
                    at,
                    sample: Some((low(first + index as u64), stamps)),
                },
                None => news(StampNews::Voided, at),
            });
            return;
        }
    }

    /// Says of the lost probes before an answered one where they got lost, as soon as none of them can still be answered,
    /// and forgets what is over.
    fn locate(&mut self, told: &mut Vec<Told>) {
        let newest = self.newest.map_or(0, |(_, probe)| probe);
        let mut next = self.reflected;
        let mut open = 0_u64;
        let mut lost = Vec::new();
        for index in 0..self.probes.len() {
            if self.first + index as u64 > newest {
                break;
            }
            let Some(probe) = self.probes.get(index) else {
                break;
            };
            let reflected = match probe.state {
                State::Waiting => {
                    open += 1;
                    continue;
                }
                State::Lost { .. } => {
                    lost.push(index);
                    continue;
                }
                State::Over { reflected: None } => continue,
                State::Answered(answer) => answer.reflected,
                State::Over {
                    reflected: Some(reflected),
                } => reflected,
            };
            if open == 0 && !lost.is_empty() {
                let backward = usize::try_from(reflected.saturating_sub(next)).unwrap_or(usize::MAX);
                let forward = lost.len().saturating_sub(backward);
                for (n, index) in lost.iter().enumerate() {
                    self.located(*index, n < forward, told);
                }
            }
            next = next.max(reflected + 1);
            open = 0;
            lost.clear();
        }
        while let Some(Probe {
            state: State::Over { .. },
            ..
        }) = self.probes.front()
        {
            self.pop_front();
        }
    }

    fn located(&mut self, index: usize, forward: bool, told: &mut Vec<Told>) {
        let Some(probe) = self.probes.get_mut(index) else {
            return;
        };
        let at = probe.sent.after + self.timeout;
        told.push(match (&probe.state, forward) {
            (State::Lost { told: true }, forward) => news(StampNews::Located { forward }, at),
            (_, true) => news(StampNews::LostForward, at),
            (_, false) => news(StampNews::LostBackward, at),
        });
        probe.state = State::Over { reflected: None };
    }

    fn pop_front(&mut self) {
        let Some(probe) = self.probes.pop_front() else {
            return;
        };
        self.first += 1;
        if let State::Over {
            reflected: Some(reflected),
        } = probe.state
        {
            self.reflected = self.reflected.max(reflected + 1);
        }
    }
}

/// Whether an answer came in time. The kernel's stamp counts if there is one: an answer that waited for our own program
/// was not late.
fn in_time(probe: &Probe, answer: &Answer, timeout: Duration) -> bool {
    let seen = answer.received.before.saturating_sub(probe.sent.after);
    if seen < timeout {
        return true;
    }
    let stamped = answer.t4.map(|t4| t4.since(probe.t1.unwrap_or(probe.sent.wall)));
    !answer.received.stepped_since(&probe.sent)
        && stamped.is_some_and(|away| u128::try_from(away).is_ok_and(|away| away < timeout.as_nanos()))
}

/// How long an answered probe waits for its t3.
fn patience(answer: &Answer, interval: Duration, timeout: Duration) -> Moment {
    answer.received.before + timeout + interval.saturating_mul(PATIENCE)
}

fn news(news: StampNews, at: Moment) -> Told {
    Told {
        news,
        at,
        sample: None,
    }
}

/// The number as it is on the wire.
#[expect(clippy::cast_possible_truncation, reason = "numbers on the wire wrap around")]
fn low(number: u64) -> u32 {
    number as u32
}

/// The number of which the wire shows the lower half, next to an expected one.
fn unwrap(seq: u32, expected: u64) -> u64 {
    let ahead = seq.wrapping_sub(low(expected)).cast_signed();
    expected.saturating_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests;
