//! The reflector: who is answered, and with what. Pure: time, stamps and packets are arguments.
//!
//! Nothing of a packet is believed, and nothing is answered, before its HMAC holds. Strangers, copies of packets that
//! were answered before, and whoever asks too often get silence, and are counted. The reflector is stateful (RFC 8762,
//! section 4.2): its replies are numbered by themselves, so that the sender can tell in which direction something got
//! lost.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use libp2p::PeerId;
use peernet_api::report::StampClock;

use super::{
    Counters, MAX_SESSIONS,
    agreement::Reflecting,
    clock::{Reading, Wall},
    window::Window,
    wire::{self, FollowUp, Key, PROBE, Reply},
};
use crate::{
    bucket::{Bucket, Rate},
    ledger::Moment,
};

/// A session is answered this many times as often as it was agreed.
const SESSION_RATE: u32 = 4;
const SESSION_BURST: u32 = 16;
/// All sessions together: more than all members at the fastest pace that a network of this size is probed at.
const TOTAL: Rate = Rate {
    each: Duration::from_micros(50),
    burst: 2000,
};

/// All sessions in which this agent answers.
#[derive(Debug)]
pub struct Reflector {
    sessions: HashMap<u16, Session>,
    peers: HashMap<PeerId, Sessions>,
    total: Bucket<Moment>,
}

/// A peer's newest session, and the one before it: packets of that one may be on their way.
#[derive(Clone, Copy, Debug)]
struct Sessions {
    newest: u16,
    before: Option<u16>,
}

#[derive(Debug)]
struct Session {
    requests: Key,
    replies: Key,
    seen: Window,
    bucket: Bucket<Moment>,
    next: u32,
    last: Option<Last>,
}

/// The newest reply: the next one says when it left.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: u32,
    /// What t2 was taken by.
    clock: StampClock,
    /// The clocks when the request had certainly not come yet.
    quiet: Reading,
    t3: Option<(Wall, StampClock)>,
}

/// How a request came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// t2 and what it was taken by. `None` if the kernel should have stamped the packet and has not.
    pub t2: Option<(Wall, StampClock)>,
    /// TTL or hop limit. 0: not known.
    pub ttl: u8,
    /// The clocks at a moment when the packet had certainly not come yet.
    pub quiet: Reading,
    /// The clocks after it was taken from the kernel.
    pub taken: Reading,
}

/// An answer to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The packet.
    pub packet: [u8; PROBE],
    /// Where its stamp belongs.
    pub mark: Mark,
}

/// A reply: its session and its number there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The session.
    pub ssid: u16,
    /// The reply.
    pub seq: u32,
}

impl Default for Reflector {
    fn default() -> Self {
        Self {
            sessions: HashMap::new(),
            peers: HashMap::new(),
            total: Bucket::new(TOTAL, Moment::ZERO),
        }
    }
}

impl Reflector {
    /// Answers a peer from now on. Its session before the last one ends.
    pub fn begin(&mut self, agreed: Reflecting) {
        if self.peers.len() >= MAX_SESSIONS && !self.peers.contains_key(&agreed.peer) {
            return;
        }
        let rate = Rate {
            each: agreed.interval / SESSION_RATE,
            burst: SESSION_BURST,
        };
        let session = Session {
            requests: agreed.keys.requests,
            replies: agreed.keys.replies,
            seen: Window::default(),
            bucket: Bucket::new(rate, Moment::ZERO),
            next: 0,
            last: None,
        };
        self.sessions.insert(agreed.ssid, session);
        let known = self.peers.get(&agreed.peer).copied();
        if let Some(old) = known.and_then(|known| known.before)
            && old != agreed.ssid
        {
            self.sessions.remove(&old);
        }
        let sessions = Sessions {
            newest: agreed.ssid,
            before: known.map(|known| known.newest),
        };
        self.peers.insert(agreed.peer, sessions);
    }

    /// Answers a peer no more.
    pub fn end(&mut self, peer: &PeerId) {
        if let Some(Sessions { newest, before }) = self.peers.remove(peer) {
            self.sessions.remove(&newest);
            if let Some(before) = before {
                self.sessions.remove(&before);
            }
        }
    }

    /// Whether a packet claims to be of a session that there is.
    #[must_use]
    pub fn claims_session(&self, packet: &[u8]) -> bool {
        wire::claimed_ssid(packet).is_some_and(|ssid| self.sessions.contains_key(&ssid))
    }

    /// The answer to a packet, if it gets one. `now` reads the clocks: as late as can be, since the answer says when it was
    /// sent.
    pub fn answer(
        &mut self,
        packet: &[u8],
        arrival: &Arrival,
        counters: &Counters,
        now: impl FnOnce() -> Reading,
    ) -> Option<(Answer, Reading)> {
        let refuse = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
            None
        };
        let session = wire::claimed_ssid(packet).and_then(|ssid| self.sessions.get_mut(&ssid));
        let Some(session) = session else {
            return refuse(&counters.refused);
        };
        let Some(request) = wire::parse_request(&session.requests, packet) else {
            return refuse(&counters.refused);
        };
        // Copies use up nothing: whoever sends them has no key.
        if !session.seen.is_new(request.seq) {
            return refuse(&counters.replayed);
        }
        let at = arrival.taken.after;
        if !session.bucket.take(at) || !self.total.take(at) {
            return refuse(&counters.limited);
        }
        session.seen.take(request.seq);
        let seq = session.next;
        session.next = seq.wrapping_add(1);
        let follow_up = session.last.take().and_then(Last::follow_up);
        let (t2, clock) = arrival.t2.unwrap_or((arrival.taken.wall, StampClock::UserSpace));
        session.last = arrival.t2.map(|_| Last {
            seq,
            clock,
            quiet: arrival.quiet,
            t3: None,
        });
        let sent = now();
        let packet = wire::reply(
            &session.replies,
            &Reply {
                seq,
                ssid: request.ssid,
                sent: sent.wall,
                received: t2,
                request: request.seq,
                request_sent: request.sent,
                ttl: arrival.ttl,
                follow_up,
            },
        );
        let mark = Mark {
            ssid: request.ssid,
            seq,
        };
        Some((Answer { packet, mark }, sent))
    }

    /// A reply left the host at t3. `now`: the clocks after that.
    pub fn left(&mut self, mark: Mark, t3: (Wall, StampClock), now: &Reading) {
        let session = self.sessions.get_mut(&mark.ssid);
        let Some(last) = session.and_then(|session| session.last.as_mut()) else {
            return;
        };
        if last.seq != mark.seq {
            return;
        }
        // A clock that was stepped on the way makes no difference of t2 and t3.
        last.t3 = (!now.stepped_since(&last.quiet)).then_some(t3);
    }
}

impl Last {
    fn follow_up(self) -> Option<FollowUp> {
        let (sent, clock) = self.t3?;
        Some(FollowUp {
            seq: self.seq,
            sent,
            clock: clock.max(self.clock),
        })
    }
}

#[cfg(test)]
mod tests;
