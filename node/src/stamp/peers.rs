//! The peers that this agent sends to: their sessions, and when each has something to do next. Pure: time and packets are
//! arguments.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use libp2p::PeerId;

use super::{
    MAX_SESSIONS,
    agreement::Sending,
    sender::{Sender, Told},
    wire::{self, Reply},
};
use crate::{ledger::Moment, pace::Pace};

/// Probes without an answer, after which a session is agreed anew: the peer may have forgotten it.
const SILENCE: u32 = 10;
/// The pause between two such attempts.
const BETWEEN_RENEWALS: Duration = Duration::from_secs(10);

/// All peers with a session.
#[derive(Debug)]
pub(super) struct Peers {
    interval: Duration,
    timeout: Duration,
    peers: HashMap<PeerId, Peer>,
    /// Whose reply a packet is, by where it comes from and its session.
    routes: HashMap<(SocketAddr, u16), PeerId>,
    /// When each peer has something to do next.
    agenda: BTreeSet<(Moment, PeerId)>,
}

#[derive(Debug)]
struct Peer {
    current: Session,
    /// The session before, as long as its probes are on the way.
    before: Option<Session>,
    pace: Pace<Moment>,
    /// When a silent session was reported last.
    renewed: Option<Moment>,
    /// Where the peer stands in the agenda.
    next: Moment,
}

/// A session in which this agent sends.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) agreed: Sending,
    pub(super) to: SocketAddr,
    pub(super) sender: Sender,
}

/// What there is to do for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// A probe is due since then.
    pub(super) probe: Option<Moment>,
    /// Its session must be agreed anew.
    pub(super) silent: bool,
}

impl Peers {
    pub(super) fn new(interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            peers: HashMap::new(),
            routes: HashMap::new(),
            agenda: BTreeSet::new(),
        }
    }

    /// Sends in this session from now on. What is on the way in the one before may still be answered.
    pub(super) fn begin(&mut self, agreed: Sending, now: Moment, told: &mut Vec<Told>) {
        let peer_id = agreed.peer;
        if self.peers.len() >= MAX_SESSIONS && !self.peers.contains_key(&peer_id) {
            return;
        }
        let session = Session {
            to: SocketAddr::new(agreed.ip, agreed.port),
            agreed,
            sender: Sender::new(self.interval, self.timeout),
        };
        let route = session.route();
        match self.peers.get_mut(&peer_id) {
            Some(peer) => {
                let ended = std::mem::replace(&mut peer.current, session);
                if let Some(mut older) = peer.before.replace(ended) {
                    older.sender.give_up(told);
                    self.routes.remove(&older.route());
                }
            }
            None => {
                let pace = Pace::new(now, self.interval);
                let next = pace.fire();
                let peer = Peer {
                    current: session,
                    before: None,
                    pace,
                    renewed: None,
                    next,
                };
                self.peers.insert(peer_id, peer);
            }
        }
        self.routes.insert(route, peer_id);
        self.reschedule(&peer_id);
    }

    /// Sends to a peer no more. What is on the way is nobody's.
    pub(super) fn end(&mut self, peer_id: &PeerId) {
        let Some(peer) = self.peers.remove(peer_id) else {
            return;
        };
        self.agenda.remove(&(peer.next, *peer_id));
        for session in [Some(peer.current), peer.before].into_iter().flatten() {
            self.routes.remove(&session.route());
        }
    }

    /// Keeps probes away from something else that happens at the same pace.
    pub(super) fn avoid(&mut self, peer_id: &PeerId, other: Moment, now: Moment) {
        if let Some(peer) = self.peers.get_mut(peer_id) {
            peer.pace.avoid(other, now);
            self.reschedule(peer_id);
        }
    }

    /// The session in which probes are sent.
    pub(super) fn current(&mut self, peer_id: &PeerId) -> Option<&mut Session> {
        self.peers.get_mut(peer_id).map(|peer| &mut peer.current)
    }

    /// A session by its identifier: the current one, or the one before.
    pub(super) fn session(&mut self, peer_id: &PeerId, ssid: u16) -> Option<&mut Session> {
        let peer = self.peers.get_mut(peer_id)?;
        let sessions = [Some(&mut peer.current), peer.before.as_mut()];
        let mut sessions = sessions.into_iter().flatten();
        sessions.find(|session| session.agreed.ssid == ssid)
    }

    /// The reply that a packet is, and the session that it belongs to. `None` unless its HMAC holds.
    pub(super) fn reply(&mut self, packet: &[u8], from: SocketAddr) -> Option<(PeerId, &mut Session, Reply)> {
        let ssid = wire::claimed_ssid(packet)?;
        let peer_id = *self.routes.get(&(from, ssid))?;
        let session = self.session(&peer_id, ssid)?;
        let reply = wire::parse_reply(&session.agreed.keys.replies, packet)?;
        Some((peer_id, session, reply))
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Option<Moment> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// Those with something to do.
    pub(super) fn due(&self, now: Moment) -> Vec<PeerId> {
        let due = self.agenda.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, peer)| *peer).collect()
    }

    /// Whether something on the way to a peer may be too late.
    pub(super) fn expires(&self, peer_id: &PeerId, now: Moment) -> bool {
        let expiry = self.peers.get(peer_id).and_then(Peer::next_expiry);
        expiry.is_some_and(|expiry| expiry <= now)
    }

    /// What there is to do for a peer. With `expire`, probes that are too late are given up: all sockets must be empty then.
    pub(super) fn visit(
        &mut self,
        peer_id: &PeerId,
        now: Moment,
        expire: bool,
        told: &mut Vec<Told>,
    ) -> Option<Due> {
        let peer = self.peers.get_mut(peer_id)?;
        if expire {
            peer.current.sender.expire(now, told);
            if let Some(before) = &mut peer.before {
                before.sender.expire(now, told);
                if before.sender.is_over() {
                    self.routes.remove(&before.route());
                    peer.before = None;
                }
            }
        }
        let silent = peer.current.sender.unanswered() >= SILENCE
            && peer.renewed.is_none_or(|then| now >= then + BETWEEN_RENEWALS);
        if silent {
            peer.renewed = Some(now);
        }
        let probe = peer.pace.due(now).map(|lateness| now - lateness);
        Some(Due { probe, silent })
    }

    /// Puts a peer to its place in the agenda, after anything happened to it.
    pub(super) fn reschedule(&mut self, peer_id: &PeerId) {
        let Some(peer) = self.peers.get_mut(peer_id) else {
            return;
        };
        let next = peer.next_expiry().into_iter().fold(peer.pace.fire(), Moment::min);
        if next != peer.next {
            self.agenda.remove(&(peer.next, *peer_id));
            peer.next = next;
        }
        self.agenda.insert((next, *peer_id));
    }
}

impl Peer {
    fn next_expiry(&self) -> Option<Moment> {
        let sessions = [Some(&self.current), self.before.as_ref()].into_iter().flatten();
        sessions.filter_map(|session| session.sender.next_expiry()).min()
    }
}

impl Session {
    fn route(&self) -> (SocketAddr, u16) {
        (self.to, self.agreed.ssid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{
        agreement::Keys,
        clock::{Reading, Wall},
        wire::Key,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn agreed(peer: PeerId, ssid: u16) -> Sending {
        Sending {
            peer,
            ip: [192, 0, 2, 1].into(),
            port: 8620,
            ssid,
            keys: Keys {
                requests: Key::new(&[1; wire::KEY]),
                replies: Key::new(&[2; wire::KEY]),
            },
        }
    }

    fn reading(at: Moment) -> Reading {
        Reading {
            before: at,
            wall: Wall(i64::try_from(at.as_nanos()).unwrap()),
            after: at,
        }
    }

    /// Sends what is due until then. Nobody answers.
    fn work(peers: &mut Peers, until: Moment, told: &mut Vec<Told>) -> (u32, u32) {
        let (mut probes, mut silent) = (0, 0);
        while let Some(now) = peers.next().filter(|now| *now <= until) {
            for peer in peers.due(now) {
                let due = peers.visit(&peer, now, true, told).unwrap();
                silent += u32::from(due.silent);
                if due.probe.is_some() {
                    let sender = &mut peers.current(&peer).unwrap().sender;
                    sender.next_seq().unwrap();
                    sender.sent(Wall(0), reading(now), Duration::ZERO);
                    probes += 1;
                }
                peers.reschedule(&peer);
            }
        }
        (probes, silent)
    }

    #[test]
    fn each_peer_is_probed_once_an_interval_and_reported_when_it_is_silent() {
        let mut peers = Peers::new(SECOND, SECOND * 2);
        let mut told = Vec::new();
        for _ in 0..3 {
            peers.begin(agreed(PeerId::random(), 1), SECOND, &mut told);
        }
        let (probes, silent) = work(&mut peers, SECOND * 101, &mut told);
        assert!((297..=303).contains(&probes), "{probes}");
        // After some ten seconds, and every ten from then on.
        assert!((24..=27).contains(&silent), "{silent}");
        assert!(told.len() >= 290);
    }

    #[test]
    fn a_session_outlives_its_successor_s_begin_by_what_is_on_the_way() {
        let mut peers = Peers::new(SECOND, SECOND * 2);
        let mut told = Vec::new();
        let peer = PeerId::random();
        peers.begin(agreed(peer, 1), SECOND, &mut told);
        work(&mut peers, SECOND * 2, &mut told);
        peers.begin(agreed(peer, 2), SECOND * 2, &mut told);
        assert!(peers.session(&peer, 1).is_some() && peers.session(&peer, 2).is_some());
        assert_eq!(peers.routes.len(), 2);
        assert_eq!(told.len(), 0);
        work(&mut peers, SECOND * 5, &mut told);
        assert!(peers.session(&peer, 1).is_none());
        assert_eq!(peers.routes.len(), 1);
        // A third one while the first has not come to its end: that is given up.
        peers.begin(agreed(peer, 3), SECOND * 5, &mut told);
        peers.begin(agreed(peer, 4), SECOND * 5, &mut told);
        assert!(peers.session(&peer, 2).is_none());
        peers.end(&peer);
        assert!(peers.routes.is_empty() && peers.agenda.is_empty() && peers.peers.is_empty());
    }

    #[test]
    fn what_can_not_be_given_up_yet_does_not_stop_the_rest() {
        let mut peers = Peers::new(SECOND, SECOND * 2);
        let mut told = Vec::new();
        let peer = PeerId::random();
        peers.begin(agreed(peer, 1), SECOND, &mut told);
        work(&mut peers, SECOND * 2, &mut told);
        let due = peers.visit(&peer, SECOND * 60, false, &mut told).unwrap();
        assert!(due.probe.is_some() && told.is_empty());
    }

    #[test]
    fn there_are_no_more_peers_than_allowed() {
        let mut peers = Peers::new(SECOND, SECOND);
        for _ in 0..2 * MAX_SESSIONS {
            peers.begin(agreed(PeerId::random(), 1), SECOND, &mut Vec::new());
        }
        assert_eq!(peers.peers.len(), MAX_SESSIONS);
    }
}
