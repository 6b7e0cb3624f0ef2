//! The sockets of one address: one for whoever comes, and one for each peer that has shown what it is.
//!
//! On one socket, what a member sends stands in line behind whatever anybody else sent before, and is dropped with it when the line
//! is too long. The kernel gives each datagram to the socket that names its sender, if there is one. So members have sockets that are
//! connected to them: lanes of their own. What comes in these is read first; what comes from others is read in small pieces, and not
//! faster than makes up a small part of a CPU.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    ops::Bound,
    os::fd::AsRawFd,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt},
};
use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Sleep, sleep_until};

use crate::{
    bucket::{Bucket, Rate},
    stamp::socket::bind_family,
};

/// Datagrams of unknown peers that are read in one go: others on this thread have their turn in between. Each may be the first of a
/// handshake, whose keys take some ten microseconds.
const PIECE: usize = 2;
/// Datagrams of unknown peers that may come: the greetings of a network that starts at once, and 3,000 a second. What comes faster
/// waits in the kernel, and is dropped there at no cost.
const RATION: Rate = Rate {
    each: Duration::from_micros(333),
    burst: 256,
};

struct State {
    /// Those of members, and how many connections each serves.
    members: BTreeMap<SocketAddr, (Arc<dyn AsyncUdpSocket>, usize)>,
    /// The one that is read last: those behind it have their turn before it.
    last: Option<SocketAddr>,
    /// How many datagrams of unknown peers may be read.
    ration: Bucket<Instant>,
    /// Whether unknown peers have had their turn.
    is_over: bool,
    pause: Option<Pin<Box<Sleep>>>,
    waker: Option<Waker>,
}

/// The sockets of one address.
pub(super) struct Lanes {
    local: SocketAddr,
    public: Arc<dyn AsyncUdpSocket>,
    /// The same socket, for its options.
    options: UdpSocket,
    state: Mutex<State>,
}

/// Prepares a socket for reading. The kernel is not to put many small datagrams together as one: they could not be read in pieces.
fn wrap(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let options = socket.try_clone()?;
    let wrapped = TokioRuntime.wrap_udp_socket(socket)?;
    match setsockopt(&options, sockopt::UdpGroSegment, &false) {
        // A kernel that does not know how to has no need to be told.
        Ok(()) | Err(Errno::ENOPROTOOPT) => Ok(wrapped),
        Err(error) => Err(error.into()),
    }
}

impl Lanes {
    /// A socket for whoever comes.
    ///
    /// # Errors
    /// If that address is taken, or can't be had.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Arc<Self>> {
        let public = bind_family(address)?;
        Ok(Arc::new(Self {
            local: public.local_addr()?,
            options: public.try_clone()?,
            public: wrap(public)?,
            state: Mutex::new(State {
                members: BTreeMap::new(),
                last: None,
                ration: Bucket::new(RATION, Instant::now()),
                is_over: false,
                pause: None,
                waker: None,
            }),
        }))
    }

    /// Gives a peer a lane of its own, until what is returned goes.
    ///
    /// # Errors
    /// If there can't be another socket. Its datagrams come in as those of others do, then.
    pub(super) fn open(self: &Arc<Self>, remote: SocketAddr) -> io::Result<Lane> {
        let mut state = self.state();
        if let Some((_, connections)) = state.members.get_mut(&remote) {
            *connections += 1;
        } else {
            let socket = wrap(self.connected(remote)?)?;
            state.members.insert(remote, (socket, 1));
            // It is waited for from now on.
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        Ok(Lane {
            lanes: Arc::clone(self),
            remote,
        })
    }

    /// A second socket on the same port. Nobody else can have one: only while it is made, the first one allows that.
    fn connected(&self, remote: SocketAddr) -> io::Result<UdpSocket> {
        let family = if self.local.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if self.local.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        setsockopt(&self.options, sockopt::ReuseAddr, &true)?;
        let bound = bind(fd.as_raw_fd(), &SockaddrStorage::from(self.local));
        setsockopt(&self.options, sockopt::ReuseAddr, &false)?;
        bound?;
        let socket = UdpSocket::from(fd);
        socket.connect(remote)?;
        Ok(socket)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What has come from members, each in its turn.
    fn poll_members(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (before, after) = match self.last {
            Some(last) => (Bound::Included(last), Bound::Excluded(last)),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let behind = self.members.range((after, Bound::Unbounded));
        for (remote, (socket, _)) in behind.chain(self.members.range((Bound::Unbounded, before))) {
            let polled = socket.poll_recv(cx, buffers, metas);
            if polled.is_ready() {
                self.last = Some(*remote);
                return polled;
            }
        }
        Poll::Pending
    }
}

impl AsyncUdpSocket for Lanes {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.public).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.public.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if let Poll::Ready(read) = state.poll_members(cx, buffers, metas) {
            return Poll::Ready(read);
        }
        state.waker = Some(cx.waker().clone());
        if std::mem::take(&mut state.is_over) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let now = Instant::now();
        let piece = PIECE.min(state.ration.left(now) as usize);
        if piece == 0 {
            let due = state.ration.next(PIECE as u32, now);
            let pause = state.pause.insert(Box::pin(sleep_until(due.into())));
            if pause.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let piece = piece.min(buffers.len()).min(metas.len());
        let (buffers, metas) = (buffers.split_at_mut(piece).0, metas.split_at_mut(piece).0);
        let polled = self.public.poll_recv(cx, buffers, metas);
        if let Poll::Ready(Ok(read)) = polled {
            state.ration.spend(u32::try_from(read).unwrap_or(u32::MAX), now);
            state.is_over = true;
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.public.max_transmit_segments()
    }

    fn may_fragment(&self) -> bool {
        self.public.may_fragment()
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("local", &self.local)
            .field("members", &self.state().members.len())
            .finish_non_exhaustive()
    }
}

/// A peer's own lane.
pub(super) struct Lane {
    lanes: Arc<Lanes>,
    remote: SocketAddr,
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.lanes.state();
        if let Some((_, connections)) = state.members.get_mut(&self.remote) {
            *connections -= 1;
            if *connections == 0 {
                state.members.remove(&self.remote);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Ipv4Addr};

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn peer(lanes: &Lanes) -> UdpSocket {
        let peer = UdpSocket::bind(LOOPBACK).unwrap();
        peer.connect(lanes.local).unwrap();
        peer
    }

    /// From whom the datagrams of one go are, or `None` if there is to be a pause.
    async fn read(lanes: &Lanes) -> Option<Vec<SocketAddr>> {
        let mut bytes = [[0; 64]; 32];
        let mut metas = [RecvMeta::default(); 32];
        poll_fn(|cx| {
            let mut buffers = bytes.each_mut().map(|bytes| IoSliceMut::new(bytes));
            Poll::Ready(match lanes.poll_recv(cx, &mut buffers, &mut metas) {
                Poll::Ready(read) => Some(metas.iter().take(read.unwrap()).map(|meta| meta.addr).collect()),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Lets the reactor see what has come.
    async fn arrives() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    #[tokio::test]
    async fn what_members_send_is_read_before_what_others_sent_earlier() {
        let lanes = Lanes::bind(LOOPBACK).unwrap();
        let (stranger, member) = (peer(&lanes), peer(&lanes));
        let _lane = lanes.open(member.local_addr().unwrap()).unwrap();
        read(&lanes).await;
        for _ in 0..=PIECE {
            stranger.send(b"first").unwrap();
        }
        member.send(b"second").unwrap();
        arrives().await;
        assert_eq!(read(&lanes).await, Some(vec![member.local_addr().unwrap()]));
        // Then the others', in pieces, with a turn for everybody else in between.
        let stranger = stranger.local_addr().unwrap();
        assert_eq!(read(&lanes).await, Some(vec![stranger; PIECE]));
        assert_eq!(read(&lanes).await, None);
        assert_eq!(read(&lanes).await, Some(vec![stranger]));
    }

    #[tokio::test]
    async fn each_member_has_its_turn() {
        let lanes = Lanes::bind(LOOPBACK).unwrap();
        let members = [(); 3].map(|()| peer(&lanes));
        let _open = members
            .each_ref()
            .map(|member| lanes.open(member.local_addr().unwrap()).unwrap());
        let mut heard = Vec::new();
        for _ in 0..3 {
            for member in &members {
                member.send(b"again").unwrap();
            }
            arrives().await;
            heard.extend(read(&lanes).await.unwrap());
        }
        heard.sort_unstable();
        heard.dedup();
        assert_eq!(heard.len(), 3);
    }

    #[tokio::test]
    async fn a_lane_is_open_as_long_as_a_connection_needs_it_and_then_its_peer_is_one_of_all() {
        let lanes = Lanes::bind(LOOPBACK).unwrap();
        let member = peer(&lanes);
        let address = member.local_addr().unwrap();
        let (one, two) = (lanes.open(address).unwrap(), lanes.open(address).unwrap());
        drop(one);
        assert_eq!(lanes.state().members.len(), 1);
        drop(two);
        assert!(lanes.state().members.is_empty());
        member.send(b"still here").unwrap();
        arrives().await;
        assert_eq!(read(&lanes).await, Some(vec![address]));
    }

    #[tokio::test]
    async fn nobody_else_gets_the_port() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let lanes = Lanes::bind(any.parse().unwrap()).unwrap();
            let remote = if lanes.local.is_ipv4() {
                "127.0.0.1:9"
            } else {
                "[::1]:9"
            };
            let _lane = lanes.open(remote.parse().unwrap()).unwrap();
            let taken = bind_family(lanes.local).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            // Also not who would share it.
            let bold = lanes.connected(remote.parse().unwrap()).unwrap();
            drop(bold);
            let other = Lanes::bind((lanes.local.ip(), 0).into()).unwrap();
            let error = Lanes {
                local: lanes.local,
                ..Arc::into_inner(other).unwrap()
            }
            .connected(remote.parse().unwrap())
            .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[tokio::test]
    async fn others_who_send_too_much_are_read_again_after_a_while_and_members_meanwhile() {
        const LATER: Duration = Duration::from_millis(300);
        let lanes = Lanes::bind(LOOPBACK).unwrap();
        let (stranger, member) = (peer(&lanes), peer(&lanes));
        let _lane = lanes.open(member.local_addr().unwrap()).unwrap();
        let begun = Instant::now();
        lanes.state().ration = Bucket::new(RATION, begun + LATER);
        lanes.state().ration.spend(RATION.burst, begun + LATER);
        stranger.send(b"too much").unwrap();
        member.send(b"as always").unwrap();
        let mut heard = Vec::new();
        while heard.len() < 2 {
            let mut bytes = [0; 64];
            let mut metas = [RecvMeta::default()];
            let read = poll_fn(|cx| lanes.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut metas));
            assert_eq!(read.await.unwrap(), 1);
            heard.push(metas[0].addr);
            let is_strangers = metas[0].addr == stranger.local_addr().unwrap();
            assert!(!is_strangers || begun.elapsed() >= LATER);
        }
        assert_eq!(heard, [member, stranger].map(|peer| peer.local_addr().unwrap()));
    }
}
