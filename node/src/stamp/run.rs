//! The thread that sends probes and answers them.
//!
//! It waits in `ppoll` for packets, stamps, orders and the next probe, whichever comes first. An asynchronous runtime
//! would wake it more often (each stamp is an event there), and a millisecond late.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};
use peernet_api::report::StampClock;
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    CAPACITY, Config, Counters, Handle, Order,
    agreement::Sending,
    clock::Reading,
    open::{self, OpenReflector},
    peers::Peers,
    reflector::{Arrival, Mark, Reflector},
    sender::Told,
    socket::{Buffer, Clocks, Received, Socket},
    wire::{self, Request},
};
use crate::{
    ledger::Moment,
    telemetry::{Event, StampNews},
};

/// Packets taken from one socket before the others have their turn.
const BATCH: usize = 64;
/// Without anything to do, the thread looks around this often.
const IDLE: Duration = Duration::from_secs(60);

/// All that the thread owns.
pub struct Worker {
    clocks: Clocks,
    orders: mpsc::Receiver<Order>,
    waker: Arc<EventFd>,
    counters: Arc<Counters>,
    events: mpsc::Sender<Event>,
    stale: mpsc::Sender<PeerId>,
    /// One for each family.
    reflectors: Vec<Socket<Mark>>,
    senders: Vec<Socket<(PeerId, u16, u32)>>,
    reflector: Reflector,
    open: Option<OpenReflector>,
    peers: Peers,
    told: Vec<Told>,
}

/// Opens the sockets. `stale` hears of peers with which a session must be agreed anew.
///
/// # Errors
/// If the port can't be had.
pub fn open(
    config: Config,
    started: Instant,
    events: mpsc::Sender<Event>,
    stale: mpsc::Sender<PeerId>,
) -> io::Result<(Worker, Handle)> {
    let clocks = Clocks::new(started);
    let kernel = config.clock == StampClock::Kernel;
    let all = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let addresses = config.address.map_or_else(|| all.to_vec(), |ip| vec![ip]);
    let mut reflectors: Vec<Socket<Mark>> = Vec::new();
    let mut senders = Vec::new();
    let mut port = config.port;
    let mut failed = None;
    for ip in addresses {
        let bound = Socket::bind((ip, port).into(), kernel, &clocks)
            .and_then(|reflector| Ok((reflector, Socket::bind((ip, 0).into(), kernel, &clocks)?)));
        match bound {
            Ok((reflector, sender)) => {
                port = reflector.local_addr()?.port();
                reflectors.push(reflector);
                senders.push(sender);
            }
            // A host may have only one family.
            Err(error) => failed = Some(error),
        }
    }
    let Some(first) = reflectors.first() else {
        return Err(failed.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()));
    };
    let waker = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let waker = Arc::new(waker);
    let counters = Arc::new(Counters::default());
    let (give, orders) = mpsc::channel(CAPACITY);
    let handle = Handle {
        orders: Some(give),
        waker: Arc::clone(&waker),
        counters: Arc::clone(&counters),
        reflector: first.local_addr()?,
    };
    let worker = Worker {
        clocks,
        orders,
        waker,
        counters,
        events,
        stale,
        reflectors,
        senders,
        reflector: Reflector::default(),
        open: config.open.then(OpenReflector::default),
        peers: Peers::new(config.interval, config.timeout),
        told: Vec::new(),
    };
    Ok((worker, handle))
}

impl Worker {
    /// Works until the handle is dropped.
    ///
    /// # Errors
    /// If the kernel refuses to wait for the sockets.
    pub fn run(mut self) -> io::Result<()> {
        let mut buffer = Buffer::default();
        while self.wait(&mut buffer)? {
            self.work_off_agenda(&mut buffer);
        }
        Ok(())
    }

    /// Waits until there is something to do, and takes what has come. False once there will be no more orders.
    fn wait(&mut self, buffer: &mut Buffer) -> io::Result<bool> {
        let now = self.clocks.read().after;
        let next = self.peers.next().unwrap_or(now + IDLE);
        let timeout = TimeSpec::from_duration(next.saturating_sub(now).min(IDLE));
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::new(self.waker.as_fd(), PollFlags::POLLIN));
        // Errors, that is stamps, wake it without being asked for.
        fds.extend(
            self.reflectors
                .iter()
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)),
        );
        fds.extend(
            self.senders
                .iter()
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)),
        );
        match ppoll(&mut fds, Some(timeout), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        let mut happened = happened.into_iter();
        if happened.next().is_some_and(|waker| !waker.is_empty()) {
            // An error says that the waker has been read, and only we read it.
            let _ = self.waker.read();
            // An order comes before the packets that follow from it.
            if !self.take_orders() {
                return Ok(false);
            }
        }
        // Others wait for what is reflected: it comes first.
        for n in 0..self.reflectors.len() {
            let flags = happened.next().unwrap_or(PollFlags::empty());
            if flags.contains(PollFlags::POLLERR) {
                self.take_reply_stamps(n);
                self.reflectors.get_mut(n).map(Socket::discard_strays);
            }
            if flags.contains(PollFlags::POLLIN) {
                self.reflect(n, buffer);
            }
        }
        for n in 0..self.senders.len() {
            let flags = happened.next().unwrap_or(PollFlags::empty());
            if flags.contains(PollFlags::POLLERR) {
                self.take_request_stamps(n);
                self.senders.get_mut(n).map(Socket::discard_strays);
            }
            if flags.contains(PollFlags::POLLIN) {
                self.take_replies(n, buffer);
            }
        }
        Ok(true)
    }

    /// Answers what has come to one of the reflectors' sockets.
    fn reflect(&mut self, n: usize, buffer: &mut Buffer) {
        let mut latest = self.clocks.read();
        for _ in 0..BATCH {
            let Some(socket) = self.reflectors.get_mut(n) else {
                return;
            };
            match socket.receive(buffer) {
                Ok(received) => latest = self.answer(n, buffer.packet(&received), &received),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.set_quiet(latest);
                    return;
                }
                Err(_) => {}
            }
        }
    }

    /// Answers a packet, if it gets an answer. Returns the clocks after that.
    fn answer(&mut self, n: usize, packet: &[u8], received: &Received) -> Reading {
        let taken = self.clocks.read();
        let Some(socket) = self.reflectors.get_mut(n) else {
            return taken;
        };
        let t2 = match (received.stamp, socket.clock()) {
            (Some(stamp), _) => Some((stamp, StampClock::Kernel)),
            (None, StampClock::UserSpace) => Some((taken.wall, StampClock::UserSpace)),
            (None, StampClock::Kernel) => None,
        };
        let arrival = Arrival {
            t2,
            ttl: received.ttl,
            quiet: socket.quiet(),
            taken,
        };
        if let Some(open) = &mut self.open
            && !self.reflector.claims_session(packet)
        {
            let t2 = t2.map_or(taken.wall, |(stamp, _)| stamp);
            let fits = (open::BASE..=open::LONGEST).contains(&packet.len());
            if !fits {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
            } else if !open.allows(received.from.ip(), &taken) {
                self.counters.limited.fetch_add(1, Ordering::Relaxed);
            } else if let Some(reply) = open::answer(packet, received.ttl, t2, self.clocks.read().wall)
                && socket.send(&reply, received.from, Mark::default()).is_ok()
            {
                self.counters.reflected.fetch_add(1, Ordering::Relaxed);
            }
            self.take_reply_stamps(n);
            return taken;
        }
        let now = || self.clocks.read();
        let Some((answer, sent)) = self.reflector.answer(packet, &arrival, &self.counters, now) else {
            return taken;
        };
        match socket.send(&answer.packet, received.from, answer.mark) {
            Ok(()) => {
                self.counters.reflected.fetch_add(1, Ordering::Relaxed);
                if socket.clock() == StampClock::UserSpace {
                    let t3 = (sent.wall, StampClock::UserSpace);
                    self.reflector.left(answer.mark, t3, &self.clocks.read());
                }
            }
            Err(error) => tracing::debug!(%error, to = %received.from, "a STAMP reply could not be sent"),
        }
        self.take_reply_stamps(n);
        self.clocks.read()
    }

    fn take_reply_stamps(&mut self, n: usize) {
        let Some(socket) = self.reflectors.get_mut(n) else {
            return;
        };
        while let Some((mark, stamp)) = socket.next_stamp() {
            let t3 = (stamp, StampClock::Kernel);
            self.reflector.left(mark, t3, &self.clocks.read());
        }
    }

    fn take_request_stamps(&mut self, n: usize) {
        let Some(socket) = self.senders.get_mut(n) else {
            return;
        };
        while let Some(((peer, ssid, seq), t1)) = socket.next_stamp() {
            if let Some(session) = self.peers.session(&peer, ssid) {
                session.sender.stamped(seq, t1);
            }
        }
    }

    /// Takes the replies that have come to one of the senders' sockets. False if some may be left.
    fn take_replies(&mut self, n: usize, buffer: &mut Buffer) -> bool {
        for _ in 0..BATCH {
            let Some(socket) = self.senders.get_mut(n) else {
                return true;
            };
            match socket.receive(buffer) {
                Ok(received) => {
                    let taken = self.clocks.read();
                    let clock = socket.clock();
                    self.take_reply(buffer.packet(&received), &received, taken, clock);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => {}
            }
        }
        false
    }

    fn take_reply(&mut self, packet: &[u8], received: &Received, taken: Reading, clock: StampClock) {
        let Some((peer, session, reply)) = self.peers.reply(packet, received.from) else {
            self.counters.unexpected.fetch_add(1, Ordering::Relaxed);
            return;
        };
        session
            .sender
            .replied(&reply, received.stamp, taken, clock, &mut self.told);
        self.tell(peer);
        self.peers.reschedule(&peer);
    }

    /// Takes the swarm's orders. False once there will be no more.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Send(agreed)) => self.begin(agreed),
                Ok(Order::Reflect(agreed)) => {
                    tracing::debug!(peer = %agreed.peer, ssid = agreed.ssid, "reflecting");
                    self.reflector.begin(agreed);
                }
                Ok(Order::Avoid(peer, moment)) => {
                    let now = self.clocks.read().after;
                    self.peers.avoid(&peer, moment, now);
                }
                Ok(Order::Forget(peer)) => self.peers.end(&peer),
                Ok(Order::End(peer)) => {
                    tracing::debug!(%peer, "no STAMP session any more");
                    self.peers.end(&peer);
                    self.reflector.end(&peer);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(&mut self, agreed: Sending) {
        let peer = agreed.peer;
        if !self
            .senders
            .iter()
            .any(|socket| socket.is_ipv6() == agreed.ip.is_ipv6())
        {
            tracing::debug!(%peer, ip = %agreed.ip, "no STAMP to this family of addresses");
            return;
        }
        tracing::debug!(%peer, ip = %agreed.ip, ssid = agreed.ssid, "sending");
        let now = self.clocks.read().after;
        self.peers.begin(agreed, now, &mut self.told);
        self.tell(peer);
    }

    /// Does what is due.
    fn work_off_agenda(&mut self, buffer: &mut Buffer) {
        let now = self.clocks.read().after;
        if self.peers.next().is_none_or(|next| next > now) {
            return;
        }
        let due = self.peers.due(now);
        // What has come until now is not too late, however late we look.
        let expire = due.iter().any(|peer| self.peers.expires(peer, now))
            && (0..self.senders.len()).all(|n| self.take_replies(n, buffer));
        for peer in due {
            let Some(due) = self.peers.visit(&peer, now, expire, &mut self.told) else {
                continue;
            };
            if due.silent {
                tracing::debug!(%peer, "the STAMP session is silent: agreeing anew");
                // If there is no room, it is asked for again in a while.
                let _ = self.stale.try_send(peer);
            }
            if let Some(due) = due.probe {
                self.probe(peer, due);
            }
            self.tell(peer);
            self.peers.reschedule(&peer);
        }
    }

    fn probe(&mut self, peer_id: PeerId, due: Moment) {
        let Some(session) = self.peers.current(&peer_id) else {
            return;
        };
        let v6 = session.to.is_ipv6();
        let socket = self
            .senders
            .iter_mut()
            .enumerate()
            .find(|(_, socket)| socket.is_ipv6() == v6);
        let (Some((n, socket)), Some(seq)) = (socket, session.sender.next_seq()) else {
            return;
        };
        let stamp = self.clocks.read().wall;
        let ssid = session.agreed.ssid;
        let request = Request {
            seq,
            ssid,
            sent: stamp,
        };
        let packet = wire::request(&session.agreed.keys.requests, &request);
        let sent = self.clocks.read();
        let result = socket.send(&packet, session.to, (peer_id, ssid, seq));
        session.sender.sent(stamp, sent, sent.after.saturating_sub(due));
        if let Err(error) = result {
            tracing::debug!(%error, peer = %peer_id, "a STAMP probe could not be sent");
            session.sender.not_sent(&mut self.told);
        }
        self.take_request_stamps(n);
    }

    /// Tells the reporting thread what has become of a peer's probes.
    fn tell(&mut self, peer: PeerId) {
        for told in self.told.drain(..) {
            if let (Some((seq, stamps)), StampNews::Sample(sample)) = (told.sample, told.news) {
                tracing::trace!(
                    target: "peernet_node::stamp",
                    %peer,
                    seq,
                    t1 = stamps.t1.0,
                    t2 = stamps.t2.0,
                    t3 = stamps.t3.0,
                    t4 = stamps.t4.0,
                    network_ns = nanos(sample.network),
                    own_host_ns = nanos(sample.own_host),
                    peer_host_ns = nanos(sample.peer_host),
                    user_ns = stamps.parts().map(|parts| nanos(parts.user)),
                    clock = ?sample.clock,
                    "sample"
                );
            }
            let event = Event::Stamp {
                peer,
                news: told.news,
                at: told.at,
            };
            if self.events.try_send(event).is_err() {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
