//! A peer that speaks libp2p's ping in the manner that a test asks for, and counts what it is asked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{DeniedUpgrade, ReadyUpgrade},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// How pings are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// So much after each one came, in their order.
    After(Duration),
    /// The first so many at once, and then never again.
    UpTo(u64),
}

/// Answers pings.
pub(crate) struct Echo {
    manner: Manner,
    asked: Arc<AtomicU64>,
}

impl Echo {
    /// The counter beside it says how many pings came.
    pub(crate) fn new(manner: Manner) -> (Self, Arc<AtomicU64>) {
        let asked = Arc::default();
        (
            Self {
                manner,
                asked: Arc::clone(&asked),
            },
            asked,
        )
    }

    fn handler(&self) -> Handler {
        Handler {
            manner: self.manner,
            asked: Arc::clone(&self.asked),
            answering: None,
        }
    }
}

pub(crate) struct Handler {
    manner: Manner,
    asked: Arc<AtomicU64>,
    answering: Option<BoxFuture<'static, std::io::Result<()>>>,
}

async fn answer(stream: Stream, manner: Manner, asked: Arc<AtomicU64>) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let (due, mut queue) = mpsc::channel(1024);
    let read = async {
        loop {
            let mut ping = [0; 32];
            reader.read_exact(&mut ping).await?;
            let before = asked.fetch_add(1, Ordering::SeqCst);
            let at = match manner {
                Manner::After(delay) => Instant::now() + delay,
                Manner::UpTo(most) if before < most => Instant::now(),
                Manner::UpTo(_) => continue,
            };
            due.send((at, ping)).await.unwrap();
        }
    };
    let write = async {
        while let Some((at, ping)) = queue.recv().await {
            sleep_until(at).await;
            writer.write_all(&ping).await?;
            writer.flush().await?;
        }
        Ok(())
    };
    futures::future::try_join(read, write).await.map(|((), ())| ())
}

impl ConnectionHandler for Handler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(libp2p::ping::PROTOCOL_NAME), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(answering) = &mut self.answering
            && answering.poll_unpin(cx).is_ready()
        {
            self.answering = None;
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) =
            event
        {
            self.answering = Some(answer(stream, self.manner, Arc::clone(&self.asked)).boxed());
        }
    }
}

impl NetworkBehaviour for Echo {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
