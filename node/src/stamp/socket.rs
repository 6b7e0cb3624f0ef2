//! A UDP socket whose packets the kernel stamps, and the clocks of this host.
//!
//! `SO_TIMESTAMPING` gives the moment when a packet left the host's network stack and when it entered it (Linux,
//! `Documentation/networking/timestamping.rst`). It needs no capability. A packet's stamp of reception comes with it; the
//! stamp of a packet that was sent comes through the socket's error queue, at once or, with real network cards, a little
//! later. What is written here against the kernel's ways:
//!
//! * Stamps of sent packets carry the packet alone by its number since the socket's start. A send that fails may or may
//!   not have used up a number: counting starts anew then, and stamps on their way are given up.
//! * The error queue shares its memory with packets that were received: it is read whenever something is expected there.
//! * Neither `SO_TIMESTAMP` nor `SO_TIMESTAMPNS` is set: with them the kernel makes up stamps that are missing.
//! * The kernel begins to stamp what is received a little after it was asked to: the first packets may have none.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant, SystemTime},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, recvmsg, setsockopt, sockopt,
        },
        time::TimeSpec,
    },
};
use peernet_api::report::StampClock;

use super::clock::{Reading, Wall};

/// Packets in a row without a stamp, after which the kernel counts as one that gives none.
const MISSING: u32 = 16;
/// Stamps of sent packets that are waited for. More than that are on their way only if the kernel gives none.
const MAX_PENDING: usize = 1024;
/// What the control messages of one packet need: three time stamps, a TTL or an error with an address, each with a header.
const CONTROL: usize = 256;
/// Other requests than those that we know are not looked at beyond this: they are longer than what is answered.
const LONGEST: usize = 2048;

/// Reading both clocks takes less than this, unless something else ran in between: then they are read again, a few times.
const READING: Duration = Duration::from_micros(3);
const READINGS: u32 = 4;

/// `SOF_TIMESTAMPING_OPT_ID`, and all that is asked for: software stamps of both directions, numbered, without a copy of
/// the packet (that would need a capability).
const NUMBERED: TimestampingFlag = TimestampingFlag::SOF_TIMESTAMPING_OPT_ID;
fn wanted() -> TimestampingFlag {
    TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY
        | NUMBERED
}

/// `SO_EE_ORIGIN_TIMESTAMPING`: what the error queue has besides is no stamp.
const ORIGIN_TIMESTAMPING: u8 = 4;
/// `SCM_TSTAMP_SND`: the packet left the stack.
const STAMP_OF_SENDING: u32 = 0;

/// Reads the clocks of this host.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    started: Instant,
}

impl Clocks {
    /// Clocks whose monotonic one starts with the agent.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        Self { started }
    }

    /// Both clocks now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let mut reading = self.read_once();
        for _ in 1..READINGS {
            if reading.after.saturating_sub(reading.before) <= READING {
                break;
            }
            reading = self.read_once();
        }
        reading
    }

    fn read_once(&self) -> Reading {
        let before = self.started.elapsed();
        let wall = SystemTime::now();
        let after = self.started.elapsed();
        let since = wall.duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        Reading {
            before,
            wall: Wall(nanos),
            after,
        }
    }
}

/// A packet that was received into the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its length in octets.
    pub length: usize,
    /// Where it came from.
    pub from: SocketAddr,
    /// When it entered the host's network stack.
    pub stamp: Option<Wall>,
    /// TTL or hop limit. 0: not known.
    pub ttl: u8,
}

/// A UDP socket. `M` says what a sent packet was.
#[derive(Debug)]
pub struct Socket<M> {
    udp: UdpSocket,
    v6: bool,
    control: Vec<u8>,
    /// Whether the kernel was asked for stamps, and granted them.
    stamps: bool,
    missing_sent: u32,
    missing_received: u32,
    next_id: u32,
    pending: VecDeque<(u32, M)>,
    /// The clocks at a moment when all packets that had come were taken.
    quiet: Reading,
}

impl<M> Socket<M> {
    /// Binds a socket. `kernel`: whether to ask the kernel for stamps.
    ///
    /// # Errors
    /// If the address can't be had.
    pub fn bind(address: SocketAddr, kernel: bool, clocks: &Clocks) -> io::Result<Self> {
        let quiet = clocks.read();
        let udp = bind_family(address)?;
        udp.set_nonblocking(true)?;
        // A sender's packets start with the highest TTL (RFC 5357, 4.1.2), so that the reply tells the hops. All of this
        // is only worth something if it can be had.
        let options = if address.is_ipv6() {
            setsockopt(&udp, sockopt::Ipv6RecvHopLimit, &true)
                .and_then(|()| setsockopt(&udp, sockopt::Ipv6Ttl, &255))
        } else {
            setsockopt(&udp, sockopt::Ipv4RecvTtl, &true)
                .and_then(|()| setsockopt(&udp, sockopt::Ipv4Ttl, &255))
        };
        if let Err(error) = options {
            tracing::debug!(%error, "hops are not known");
        }
        let stamps = kernel
            && setsockopt(&udp, sockopt::Timestamping, &wanted())
                .inspect_err(|error| tracing::warn!(%error, "the kernel gives no time stamps"))
                .is_ok();
        Ok(Self {
            udp,
            v6: address.is_ipv6(),
            control: vec![0; CONTROL],
            stamps,
            missing_sent: 0,
            missing_received: 0,
            next_id: 0,
            pending: VecDeque::new(),
            quiet,
        })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// If the kernel can't say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Whether it speaks IPv6, and not IPv4.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.v6
    }

    /// What the stamps of this socket are taken by.
    #[must_use]
    pub fn clock(&self) -> StampClock {
        if self.stamps && self.missing_sent < MISSING && self.missing_received < MISSING {
            StampClock::Kernel
        } else {
            StampClock::UserSpace
        }
    }

    /// The clocks at a moment when a packet that is taken now had certainly not come yet.
    #[must_use]
    pub fn quiet(&self) -> Reading {
        self.quiet
    }

    /// All that had come before that reading was taken.
    pub fn set_quiet(&mut self, before: Reading) {
        self.quiet = before;
    }

    /// Sends a packet. Its stamp comes with [`Socket::next_stamp`].
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn send(&mut self, packet: &[u8], to: SocketAddr, mark: M) -> io::Result<()> {
        match self.udp.send_to(packet, to) {
            Ok(_) => {
                if self.stamps {
                    if self.pending.len() >= MAX_PENDING {
                        self.pending.pop_front();
                    }
                    self.pending.push_back((self.next_id, mark));
                    self.next_id = self.next_id.wrapping_add(1);
                    self.missing_sent = self.missing_sent.saturating_add(1);
                }
                Ok(())
            }
            Err(error) => {
                self.number_anew();
                Err(error)
            }
        }
    }

    /// The next stamp of a sent packet, if one has come.
    pub fn next_stamp(&mut self) -> Option<(M, Wall)> {
        while self.stamps && !self.pending.is_empty() {
            let (id, wall) = self.read_stamp()?;
            // Stamps come in the order of their packets. Those that are passed over will not come.
            while let Some((known, mark)) = self.pending.pop_front() {
                if known == id {
                    self.missing_sent = 0;
                    return Some((mark, wall));
                }
                if id.wrapping_sub(known).cast_signed() < 0 {
                    self.pending.push_front((known, mark));
                    break;
                }
            }
        }
        None
    }

    /// Empties the error queue of what no packet waits for: a queue that nobody empties wakes us for ever.
    pub fn discard_strays(&mut self) {
        if self.pending.is_empty() {
            self.discard_errors();
        }
    }

    fn discard_errors(&mut self) {
        for _ in 0..MAX_PENDING {
            if !self.read_error(|_| ()) {
                return;
            }
        }
    }

    /// Takes the next packet.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if there is none.
    pub fn receive(&mut self, buffer: &mut Buffer) -> io::Result<Received> {
        let mut slices = [IoSliceMut::new(&mut buffer.0)];
        let message = recvmsg::<SockaddrStorage>(
            self.udp.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::empty(),
        )?;
        let (mut stamp, mut ttl) = (None, 0);
        // Truncated control messages can't be read: there is no stamp then.
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::ScmTimestampsns(stamps) => stamp = wall(stamps.system),
                ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => {
                    ttl = u8::try_from(hops).unwrap_or(0);
                }
                _ => {}
            }
        }
        let from = message.address.as_ref().and_then(socket_addr);
        let length = message.bytes;
        if self.stamps {
            self.missing_received = match stamp {
                Some(_) => 0,
                None => self.missing_received.saturating_add(1),
            };
        }
        Ok(Received {
            length,
            from: from.ok_or(ErrorKind::InvalidData)?,
            stamp,
            ttl,
        })
    }

    fn number_anew(&mut self) {
        if !self.stamps {
            return;
        }
        // The number is set to zero when numbers are asked for and were not before. The other flags stay: turning stamps
        // off and on again would leave packets without one.
        let renumbered = setsockopt(&self.udp, sockopt::Timestamping, &(wanted() - NUMBERED))
            .and_then(|()| setsockopt(&self.udp, sockopt::Timestamping, &wanted()));
        self.discard_errors();
        self.pending.clear();
        self.next_id = 0;
        if let Err(error) = renumbered {
            tracing::warn!(%error, "the kernel gives no time stamps any more");
            self.stamps = false;
        }
    }

    /// The next stamp in the error queue, with its packet's number. `None` once the queue is empty.
    fn read_stamp(&mut self) -> Option<(u32, Wall)> {
        let (mut id, mut stamp) = (None, None);
        loop {
            let any = self.read_error(|control| match control {
                ControlMessageOwned::ScmTimestampsns(stamps) => stamp = wall(stamps.system),
                ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)
                    if error.ee_origin == ORIGIN_TIMESTAMPING && error.ee_info == STAMP_OF_SENDING =>
                {
                    id = Some(error.ee_data);
                }
                _ => {}
            });
            if let Some(found) = id.take().zip(stamp.take()) {
                return Some(found);
            }
            if !any {
                return None;
            }
        }
    }

    /// Takes one message from the error queue. False if there is none.
    fn read_error(&mut self, mut each: impl FnMut(ControlMessageOwned)) -> bool {
        // The flags that were asked for leave the packet out.
        let mut nothing = [0; 1];
        let mut slices = [IoSliceMut::new(&mut nothing)];
        let message = recvmsg::<SockaddrStorage>(
            self.udp.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::MSG_ERRQUEUE,
        );
        match message {
            Ok(message) => {
                message.cmsgs().into_iter().flatten().for_each(&mut each);
                true
            }
            Err(Errno::EINTR) => true,
            Err(_) => false,
        }
    }
}

impl<M> AsFd for Socket<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}

/// Room for one packet.
pub struct Buffer([u8; LONGEST]);

impl Default for Buffer {
    fn default() -> Self {
        Self([0; LONGEST])
    }
}

impl Buffer {
    /// The packet that was received last. A longer one than the buffer is cut: it is longer than what is answered, too.
    #[must_use]
    pub fn packet(&self, received: &Received) -> &[u8] {
        self.0.get(..received.length).unwrap_or(&self.0)
    }
}

/// A UDP socket for one family of addresses alone: all of IPv4, or all of IPv6, may have another one on the same port.
pub(crate) fn bind_family(address: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, socket};
    if address.is_ipv4() {
        return UdpSocket::bind(address);
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(UdpSocket::from(fd))
}

/// A stamp of zero is none.
fn wall(time: TimeSpec) -> Option<Wall> {
    let nanos = time
        .tv_sec()
        .checked_mul(Wall::SECOND)?
        .checked_add(time.tv_nsec())?;
    (nanos != 0).then_some(Wall(nanos))
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::new(IpAddr::V6(v6.ip()), v6.port()))
}
