//! WebSocket (RFC 6455) over TCP, without TLS: Noise runs inside it, as on plain TCP.
//!
//! The protocol is `soketto`'s, as in `libp2p-websocket`. That crate is not used because it brings a second TLS provider
//! and the web's root certificates into the program, also where TLS is never spoken; because its dialing side takes
//! messages of up to 256 MiB from whoever answers; and because it sends a message in two packets, header and rest.

use std::{
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{
    AsyncRead, AsyncWrite, FutureExt, Sink, StreamExt, future::BoxFuture, io::BufWriter, sink, stream,
    stream::BoxStream,
};
use libp2p::{
    Multiaddr,
    core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    multiaddr::Protocol,
    tcp,
};
use peernet_api::transport::Transport as Kind;
use soketto::{
    Incoming,
    connection::{Builder, Error},
    handshake::{Client, Server, ServerResponse, server::Response},
};

use super::OwnPort;
use crate::discovery::Address;

/// Longest message that is read or written. Noise has no longer frames than 64 KiB; other implementations may send a few
/// of them at once.
const MAX_MESSAGE: usize = 256 << 10;
/// The only path that agents ask for. They serve whatever is asked for.
const PATH: &str = "/";

type Inner = OwnPort<tcp::tokio::Transport>;

/// The transport.
pub(super) struct WebSocket(Inner);

impl WebSocket {
    pub(super) fn new(tcp: Inner) -> Self {
        Self(tcp)
    }
}

impl Transport for WebSocket {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<Connection>>;
    type Dial = BoxFuture<'static, io::Result<Connection>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let inside = inside(&address)?;
        self.0.listen_on(id, inside.into())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let inside = inside(&address)?;
        let dialing = self.0.dial(inside.into(), options)?;
        let host = inside.socket().to_string();
        Ok(async move { ask(dialing.await?, &host).await }.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(cx).map(|event| match event {
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => TransportEvent::NewAddress {
                listener_id,
                listen_addr: around(listen_addr),
            },
            TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            } => TransportEvent::AddressExpired {
                listener_id,
                listen_addr: around(listen_addr),
            },
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => TransportEvent::Incoming {
                listener_id,
                upgrade: async move { answer(upgrade.await?).await }.boxed(),
                local_addr: around(local_addr),
                send_back_addr: around(send_back_addr),
            },
            TransportEvent::ListenerClosed { listener_id, reason } => {
                TransportEvent::ListenerClosed { listener_id, reason }
            }
            TransportEvent::ListenerError { listener_id, error } => {
                TransportEvent::ListenerError { listener_id, error }
            }
        })
    }
}

/// The TCP address in a WebSocket address.
fn inside(address: &Multiaddr) -> Result<Address, TransportError<io::Error>> {
    Address::parse(address)
        .filter(|address| address.transport() == Kind::WebSocket)
        .map(|address| Address::tcp(address.socket()))
        .ok_or_else(|| TransportError::MultiaddrNotSupported(address.clone()))
}

/// The WebSocket address around a TCP address.
fn around(address: Multiaddr) -> Multiaddr {
    address.with(Protocol::Ws(PATH.into()))
}

async fn ask<S>(stream: S, host: &str) -> io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut client = Client::new(BufWriter::new(stream), host, PATH);
    match client.handshake().await.map_err(io::Error::other)? {
        ServerResponse::Accepted { .. } => Ok(Connection::new(client.into_builder())),
        ServerResponse::Redirect { status_code, .. } | ServerResponse::Rejected { status_code } => {
            let why = format!("no WebSocket there: HTTP status {status_code}");
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, why))
        }
    }
}

async fn answer<S>(stream: S) -> io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut server = Server::new(BufWriter::new(stream));
    let key = server.receive_request().await.map_err(io::Error::other)?.key();
    let response = Response::Accept { key, protocol: None };
    server.send_response(&response).await.map_err(io::Error::other)?;
    Ok(Connection::new(server.into_builder()))
}

enum Outgoing {
    Message(Vec<u8>),
    Close,
}

/// A byte stream: each write is one message. Messages are never kept back, and never cut across two packets for no
/// reason: header and payload reach the socket together.
pub(super) struct Connection {
    incoming: BoxStream<'static, io::Result<Vec<u8>>>,
    message: io::Cursor<Vec<u8>>,
    /// `None` once a message could not be sent.
    outgoing: Option<Pin<Box<dyn Sink<Outgoing, Error = io::Error> + Send>>>,
    closing: bool,
}

impl Connection {
    fn new<S>(mut builder: Builder<BufWriter<S>>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        builder.set_max_message_size(MAX_MESSAGE);
        builder.set_max_frame_size(MAX_MESSAGE);
        let (sender, receiver) = builder.finish();
        let outgoing = sink::unfold(sender, |mut sender, outgoing| async move {
            match outgoing {
                Outgoing::Message(mut bytes) => {
                    sender
                        .send_binary_mut(&mut bytes)
                        .await
                        .map_err(io::Error::other)?;
                    sender.flush().await.map_err(io::Error::other)?;
                }
                Outgoing::Close => sender.close().await.map_err(io::Error::other)?,
            }
            Ok(sender)
        });
        let incoming = stream::try_unfold(receiver, |mut receiver| async move {
            loop {
                let mut message = Vec::new();
                match receiver.receive(&mut message).await {
                    Ok(Incoming::Data(_)) => return Ok(Some((message, receiver))),
                    // An answer to no ping of ours.
                    Ok(Incoming::Pong(_)) => {}
                    Ok(Incoming::Closed(_)) | Err(Error::Closed) => return Ok(None),
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        });
        Self {
            incoming: Box::pin(incoming),
            message: io::Cursor::default(),
            outgoing: Some(Box::pin(outgoing)),
            closing: false,
        }
    }

    fn poll_outgoing(
        &mut self,
        poll: impl FnOnce(Pin<&mut (dyn Sink<Outgoing, Error = io::Error> + Send)>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let Some(outgoing) = &mut self.outgoing else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let polled = poll(outgoing.as_mut());
        if matches!(polled, Poll::Ready(Err(_))) {
            self.outgoing = None;
        }
        polled
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let read = self.message.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Poll::Ready(Ok(read));
            }
            match ready!(self.incoming.poll_next_unpin(cx)).transpose()? {
                Some(message) => self.message = io::Cursor::new(message),
                None => return Poll::Ready(Ok(0)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(|outgoing| outgoing.poll_ready(cx)))?;
        let part = buffer.get(..MAX_MESSAGE).unwrap_or(buffer);
        let message = Outgoing::Message(part.to_vec());
        ready!(self.poll_outgoing(|outgoing| Poll::Ready(outgoing.start_send(message))))?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_outgoing(|outgoing| outgoing.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            ready!(self.poll_outgoing(|outgoing| outgoing.poll_ready(cx)))?;
            ready!(self.poll_outgoing(|outgoing| Poll::Ready(outgoing.start_send(Outgoing::Close))))?;
            self.closing = true;
        }
        self.poll_outgoing(|outgoing| outgoing.poll_flush(cx))
    }
}
