//! A socket that is listened on, and dialed from.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures::{FutureExt, future::BoxFuture};
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::core::transport::{ListenerId, TransportEvent};
use peernet_api::transport::Transport;
use quinn::{Endpoint, Incoming, VarInt};
use tokio::time::{Sleep, sleep_until};

use super::{Error, Socket, Upgrade, gate::Gate};
use crate::{discovery::Address, probation::Probation};

/// Those who come are judged in one go at most: others on this thread have their turn in between.
const JUDGED: usize = 4;

type Event = TransportEvent<Upgrade, Error>;

pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) socket: Socket,
    local: SocketAddr,
    /// Watches the host's addresses, where it listens on all of them.
    interfaces: Option<IfWatcher>,
    accept: BoxFuture<'static, Option<Incoming>>,
    gate: Gate<Incoming>,
    probation: Probation,
    turn: Option<Pin<Box<Sleep>>>,
    events: VecDeque<Event>,
    is_closed: bool,
    waker: Option<Waker>,
}

fn accept(endpoint: &Endpoint) -> BoxFuture<'static, Option<Incoming>> {
    let endpoint = endpoint.clone();
    async move { endpoint.accept().await }.boxed()
}

impl Listener {
    pub(super) fn new(id: ListenerId, socket: Socket, probation: Probation) -> Result<Self, Error> {
        let local = socket.endpoint.local_addr()?;
        let (mut interfaces, mut events) = (None, VecDeque::new());
        if local.ip().is_unspecified() {
            interfaces = Some(IfWatcher::new()?);
        } else {
            events.push_back(Event::NewAddress {
                listener_id: id,
                listen_addr: Address::new(Transport::Quic, local).into(),
            });
        }
        Ok(Self {
            id,
            accept: accept(&socket.endpoint),
            socket,
            local,
            interfaces,
            gate: Gate::new(Instant::now()),
            probation,
            turn: None,
            events,
            is_closed: false,
            waker: None,
        })
    }

    /// Whether what is dialed from here can reach that address.
    pub(super) fn reaches(&self, to: IpAddr) -> bool {
        let from = self.local.ip();
        !self.is_closed
            && from.is_ipv4() == to.is_ipv4()
            && (from.is_unspecified() || from.is_loopback() == to.is_loopback())
    }

    pub(super) fn close(&mut self) {
        self.socket.endpoint.close(VarInt::from_u32(0), &[]);
        self.end(Ok(()));
    }

    fn end(&mut self, reason: Result<(), Error>) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.events.push_back(Event::ListenerClosed {
                listener_id: self.id,
                reason,
            });
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Its next event, and nothing when it has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_interfaces(cx);
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if self.is_closed {
            return Poll::Ready(None);
        }
        self.poll_comers(cx);
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if let Some(incoming) = self.gate.next(Instant::now()) {
            return Poll::Ready(Some(self.begin(incoming)));
        }
        if let Some(due) = self.gate.due() {
            let turn = self.turn.insert(Box::pin(sleep_until(due.into())));
            if turn.poll_unpin(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_interfaces(&mut self, cx: &mut Context<'_>) {
        while let Some(interfaces) = &mut self.interfaces
            && let Poll::Ready(event) = interfaces.poll_if_event(cx)
        {
            let listener_id = self.id;
            let address = |ip: IpAddr| {
                let is_ours = ip.is_ipv4() == self.local.is_ipv4();
                let socket = SocketAddr::new(ip, self.local.port());
                is_ours.then(|| Address::new(Transport::Quic, socket).into())
            };
            self.events.extend(match event {
                Ok(IfEvent::Up(net)) => address(net.addr()).map(|listen_addr| Event::NewAddress {
                    listener_id,
                    listen_addr,
                }),
                Ok(IfEvent::Down(net)) => address(net.addr()).map(|listen_addr| Event::AddressExpired {
                    listener_id,
                    listen_addr,
                }),
                Err(error) => {
                    // It would say so again and again.
                    self.interfaces = None;
                    Some(Event::ListenerError {
                        listener_id,
                        error: error.into(),
                    })
                }
            });
        }
    }

    /// Judges those who have come.
    fn poll_comers(&mut self, cx: &mut Context<'_>) {
        for _ in 0..JUDGED {
            let Poll::Ready(incoming) = self.accept.poll_unpin(cx) else {
                return;
            };
            let Some(incoming) = incoming else {
                self.end(Ok(()));
                return;
            };
            self.accept = accept(&self.socket.endpoint);
            let (source, now) = (incoming.remote_address().ip(), Instant::now());
            let counts = self.probation.gate();
            if self.probation.wasted().is_too_much(source, now) || !self.gate.has_place(source) {
                // Who means it asks again a second later, by itself, and who only makes trouble can't do so any faster.
                counts.refused.fetch_add(1, Ordering::Relaxed);
                incoming.ignore();
            } else if incoming.remote_address_validated() {
                self.gate.wait(source, incoming);
            } else {
                counts.to_validate.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Begins a handshake.
    fn begin(&self, incoming: Incoming) -> Event {
        let from = incoming.remote_address();
        let over = |socket| Address::new(Transport::Quic, socket).into();
        match incoming.accept() {
            Ok(connecting) => Event::Incoming {
                listener_id: self.id,
                upgrade: self.socket.upgrade(connecting, &self.probation),
                local_addr: over(self.local),
                send_back_addr: over(from),
            },
            Err(error) => Event::ListenerError {
                listener_id: self.id,
                error: error.into(),
            },
        }
    }
}
