//! A connection, and its streams.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::{
    CONNECTION_WINDOW, Error,
    lanes::{Lane, Lanes},
};
use crate::probation::{Watch, Watched, too_much};

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// A connection of QUIC, which multiplexes by itself.
pub(crate) struct Connection {
    inner: quinn::Connection,
    lanes: Arc<Lanes>,
    /// That of its peer, once it has shown what it is.
    lane: Option<Lane>,
    watch: Arc<Watch>,
    /// Whether its peer is known to have shown what it is.
    is_trusted: bool,
    inbound: Option<Opening>,
    outbound: Option<Opening>,
    closing: Option<BoxFuture<'static, ConnectionError>>,
}

impl Connection {
    pub(super) fn new(inner: quinn::Connection, lanes: Arc<Lanes>, watch: Arc<Watch>) -> Self {
        Self {
            inner,
            lanes,
            lane: None,
            watch,
            is_trusted: false,
            inbound: None,
            outbound: None,
            closing: None,
        }
    }
}

/// Goes on with what waits for a stream, or begins to wait for one.
fn poll_opening(
    waiting: &mut Option<Opening>,
    watch: &Arc<Watch>,
    begin: impl FnOnce() -> Opening,
    cx: &mut Context<'_>,
) -> Poll<Result<Watched<Stream>, Error>> {
    let opened = ready!(waiting.get_or_insert_with(begin).poll_unpin(cx));
    *waiting = None;
    let (send, receive) = opened?;
    Poll::Ready(Ok(watch.over(Stream {
        send,
        receive,
        closed: None,
    })))
}

impl StreamMuxer for Connection {
    type Substream = Watched<Stream>;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Watched<Stream>, Error>> {
        let connection = self.inner.clone();
        let begin = || async move { connection.accept_bi().await }.boxed();
        let this = &mut *self;
        poll_opening(&mut this.inbound, &this.watch, begin, cx)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Watched<Stream>, Error>> {
        let connection = self.inner.clone();
        let begin = || async move { connection.open_bi().await }.boxed();
        let this = &mut *self;
        poll_opening(&mut this.outbound, &this.watch, begin, cx)
    }

    /// QUIC's own task drives it: here is only seen to what its peer may send.
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        if self.watch.is_spent() {
            return Poll::Ready(Err(too_much().into()));
        }
        if !self.is_trusted && self.watch.is_lifted() {
            self.is_trusted = true;
            self.inner.set_receive_window(CONNECTION_WINDOW.into());
            let remote = self.inner.remote_address();
            self.lane = self
                .lanes
                .open(remote)
                .inspect_err(|error| tracing::debug!(%remote, %error, "no socket of its own for a member"))
                .ok();
        }
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let connection = self.inner.clone();
        let closing = self.closing.get_or_insert_with(|| {
            connection.close(VarInt::from_u32(0), &[]);
            async move { connection.closed().await }.boxed()
        });
        match ready!(closing.poll_unpin(cx)) {
            ConnectionError::LocallyClosed => Poll::Ready(Ok(())),
            error => Poll::Ready(Err(error.into())),
        }
    }
}

/// A stream in both directions.
pub(crate) struct Stream {
    send: SendStream,
    receive: RecvStream,
    /// How closing went: it may be asked for more than once.
    closed: Option<Result<(), io::ErrorKind>>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(Err(_)) = self.closed {
            return Poll::Ready(Ok(0));
        }
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(closed) = self.closed {
            return Poll::Ready(closed.map_err(Into::into));
        }
        let result = ready!(AsyncWrite::poll_close(Pin::new(&mut self.send), cx));
        self.closed = Some(match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.kind()),
        });
        Poll::Ready(result)
    }
}
