//! TCP connections that are reset when they are given up.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::tcp::tokio::TcpStream;

/// A TCP connection that is reset (RFC 9293, 3.5.2) if it goes without having been closed in order: because its handshakes
/// failed, or took too long.
///
/// Where both ends dial from the ports that they listen on, there is one pair of ports, and so one connection at a time. Closed the
/// usual way, one that came to nothing keeps the kernel from making the next one for a minute (TIME-WAIT).
#[derive(Debug)]
pub(super) struct ResetUnlessClosed {
    stream: TcpStream,
    is_closed: bool,
}

impl ResetUnlessClosed {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            is_closed: false,
        }
    }
}

impl Drop for ResetUnlessClosed {
    fn drop(&mut self) {
        if !self.is_closed {
            // If it fails, there is no connection any more.
            let _ = self.stream.0.set_zero_linger();
        }
    }
}

impl AsyncRead for ResetUnlessClosed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ResetUnlessClosed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_close(cx))?;
        self.is_closed = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncWriteExt;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream as Socket},
    };

    use super::*;

    /// What the other end reads after one end's connection has gone.
    async fn heard_after(end: impl AsyncFnOnce(ResetUnlessClosed)) -> io::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (dialed, accepted) = tokio::join!(Socket::connect(listener.local_addr()?), listener.accept());
        end(ResetUnlessClosed::new(TcpStream(dialed?))).await;
        accepted?.0.read(&mut [0; 1]).await
    }

    #[tokio::test]
    async fn what_is_given_up_is_reset_and_what_is_closed_is_not() {
        let error = heard_after(async |stream| drop(stream)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let closed = heard_after(async |mut stream| stream.close().await.unwrap()).await;
        assert_eq!(closed.unwrap(), 0);
    }
}
