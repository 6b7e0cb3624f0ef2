//! One connection's part in agreeing on sessions: two short exchanges, each with a deadline.

use std::{
    fmt, io,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError,
        SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::timeout;

use super::{ASK, Ask, OFFER, Offer, PROTOCOL};

/// For each exchange, and for each half of one.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the behaviour tells the handler.
#[derive(Debug)]
pub struct Command(pub(super) Say);

/// What the handler tells the behaviour.
#[derive(Debug)]
pub struct Event(pub(super) Heard);

#[derive(Clone, Copy, Debug)]
pub(super) enum Say {
    /// Ask the peer for a session.
    Ask(Ask),
    /// Answer what the peer asked, if it still waits.
    Offer { asked: u64, offer: Offer },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// The peer asks for a session.
    Asked { asked: u64, ask: Ask },
    /// The peer answered, or did not.
    Offered(Result<Offer, Failed>),
}

/// Why the peer made no offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It does not know the protocol.
    Unsupported,
    /// The stream broke, or took too long.
    Broken,
}

/// The handler of one connection.
pub struct Handler {
    outbound: Outbound,
    inbound: Inbound,
    /// Inbound streams so far: tells the answer to an earlier one from that to the newest.
    asked: u64,
}

enum Outbound {
    Idle,
    Wanted(Ask),
    Opening(Ask),
    Exchange(BoxFuture<'static, Option<Offer>>),
    Failed(Failed),
}

enum Inbound {
    Idle,
    Reading(BoxFuture<'static, Option<(Stream, Ask)>>),
    /// The behaviour decides. Only the newest stream is kept, so that a peer can't make us hold many.
    Deciding(Stream),
    Writing(BoxFuture<'static, ()>),
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Handler {
    pub(super) fn new() -> Self {
        Self {
            outbound: Outbound::Idle,
            inbound: Inbound::Idle,
            asked: 0,
        }
    }

    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<Result<Offer, Failed>> {
        let result = match &mut self.outbound {
            Outbound::Exchange(exchange) => futures::ready!(exchange.poll_unpin(cx)).ok_or(Failed::Broken),
            Outbound::Failed(failed) => Err(*failed),
            Outbound::Idle | Outbound::Wanted(_) | Outbound::Opening(_) => return Poll::Pending,
        };
        self.outbound = Outbound::Idle;
        Poll::Ready(result)
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Ask> {
        match &mut self.inbound {
            Inbound::Reading(reading) => {
                let Some((stream, ask)) = futures::ready!(reading.poll_unpin(cx)) else {
                    self.inbound = Inbound::Idle;
                    return Poll::Pending;
                };
                self.inbound = Inbound::Deciding(stream);
                Poll::Ready(ask)
            }
            Inbound::Writing(writing) => {
                futures::ready!(writing.poll_unpin(cx));
                self.inbound = Inbound::Idle;
                Poll::Pending
            }
            Inbound::Idle | Inbound::Deciding(_) => Poll::Pending,
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Event;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(DEADLINE)
    }

    fn on_behaviour_event(&mut self, Command(say): Command) {
        match say {
            Say::Ask(ask) => {
                if matches!(self.outbound, Outbound::Idle) {
                    self.outbound = Outbound::Wanted(ask);
                }
            }
            Say::Offer { asked, offer } => {
                if asked != self.asked {
                    return;
                }
                match std::mem::replace(&mut self.inbound, Inbound::Idle) {
                    Inbound::Deciding(stream) => {
                        self.inbound = Inbound::Writing(write_offer(stream, offer).boxed());
                    }
                    other => self.inbound = other,
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Poll::Ready(ask) = self.poll_inbound(cx) {
            let heard = Heard::Asked {
                asked: self.asked,
                ask,
            };
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Event(heard)));
        }
        if let Poll::Ready(result) = self.poll_outbound(cx) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Event(Heard::Offered(
                result,
            ))));
        }
        if let Outbound::Wanted(ask) = self.outbound {
            self.outbound = Outbound::Opening(ask);
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(DEADLINE);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.asked += 1;
                self.inbound = Inbound::Reading(read_ask(stream).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream, ..
            }) => {
                if let Outbound::Opening(ask) = self.outbound {
                    self.outbound = Outbound::Exchange(exchange(stream, ask).boxed());
                }
            }
            ConnectionEvent::DialUpgradeError(error) => {
                self.outbound = Outbound::Failed(match error.error {
                    StreamUpgradeError::NegotiationFailed => Failed::Unsupported,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => Failed::Broken,
                    StreamUpgradeError::Apply(never) => match never {},
                });
            }
            _ => {}
        }
    }
}

async fn exchange(mut stream: Stream, ask: Ask) -> Option<Offer> {
    let exchange = async {
        stream.write_all(&ask.to_bytes()).await?;
        stream.flush().await?;
        let mut offer = [0; OFFER];
        stream.read_exact(&mut offer).await?;
        stream.close().await?;
        io::Result::Ok(offer)
    };
    let offer = timeout(DEADLINE, exchange).await.ok()?.ok()?;
    Offer::from_bytes(&offer)
}

async fn read_ask(mut stream: Stream) -> Option<(Stream, Ask)> {
    let mut ask = [0; ASK];
    timeout(DEADLINE, stream.read_exact(&mut ask)).await.ok()?.ok()?;
    Some((stream, Ask::from_bytes(&ask)?))
}

/// If it fails, the peer asks again.
async fn write_offer(mut stream: Stream, offer: Offer) {
    let write = async {
        stream.write_all(&offer.to_bytes()).await?;
        stream.close().await
    };
    if let Ok(Err(error)) = timeout(DEADLINE, write).await {
        tracing::debug!(%error, "the peer went away while a STAMP session was agreed");
    }
}
