//! What somebody may send before it has shown what it is.
//!
//! A connection's streams have buffers, 256 KiB each by the multiplexer's specification: who fills all of them on all connections
//! that it may open takes more memory than an agent has. Members have no reason to. Everybody else is let through for so many
//! bytes only, enough to say what it is; then its connection ends.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};

/// Bytes that a connection may bring before its peer has shown what it is. Two handshakes and an introduction are some 5 KiB.
pub const ALLOWANCE: usize = 16 << 10;

/// The connections that stand, by the address of their other end.
#[derive(Clone, Debug, Default)]
pub struct Probation {
    entries: Arc<Mutex<HashMap<SocketAddr, Vec<Weak<AtomicBool>>>>>,
    is_off: bool,
}

impl Probation {
    /// Lets everything through: for those who have no strangers to fear.
    #[must_use]
    pub fn off() -> Self {
        Self {
            is_off: true,
            ..Self::default()
        }
    }

    /// Counts what a connection brings, until [`Self::lift`] is called for its other end. A connection without an address is
    /// counted for ever.
    pub fn watch<S>(&self, stream: S, remote: Option<SocketAddr>) -> Watched<S> {
        let lifted = Arc::new(AtomicBool::new(self.is_off));
        if let Some(remote) = remote {
            self.entries()
                .entry(remote)
                .or_default()
                .push(Arc::downgrade(&lifted));
        }
        Watched {
            stream,
            left: ALLOWANCE,
            lifted,
            remote,
            probation: self.clone(),
        }
    }

    /// The peer at the other end has shown what it is, and may stay.
    pub fn lift(&self, remote: &SocketAddr) {
        for lifted in self.entries().get(remote).into_iter().flatten() {
            if let Some(lifted) = lifted.upgrade() {
                lifted.store(true, Ordering::Relaxed);
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Weak<AtomicBool>>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    left: usize,
    lifted: Arc<AtomicBool>,
    remote: Option<SocketAddr>,
    probation: Probation,
}

impl<S> Watched<S> {
    fn too_much() -> io::Error {
        io::Error::other("it sent too much before it said what it is")
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.lifted.load(Ordering::Relaxed) {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        if self.left == 0 {
            return Poll::Ready(Err(Self::too_much()));
        }
        let most = self.left.min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, part))?;
        self.left = self.left.saturating_sub(read);
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        let Some(remote) = self.remote else {
            return;
        };
        let mut entries = self.probation.entries();
        if let Some(of_remote) = entries.get_mut(&remote) {
            let own = Arc::as_ptr(&self.lifted);
            of_remote.retain(|lifted| !std::ptr::eq(lifted.as_ptr(), own));
            if of_remote.is_empty() {
                entries.remove(&remote);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, executor::block_on, io::Cursor};

    use super::*;

    fn much() -> Cursor<Vec<u8>> {
        Cursor::new(vec![7; 3 * ALLOWANCE])
    }

    fn remote() -> SocketAddr {
        "192.0.2.1:4001".parse().unwrap()
    }

    #[test]
    fn an_unknown_peer_is_heard_up_to_its_allowance() {
        let probation = Probation::default();
        let mut stream = probation.watch(much(), Some(remote()));
        let mut heard = Vec::new();
        let error = block_on(stream.read_to_end(&mut heard)).unwrap_err();
        assert!(error.to_string().contains("sent too much"), "{error}");
        assert_eq!(heard.len(), ALLOWANCE);
    }

    #[test]
    fn whoever_has_shown_what_it_is_is_heard_without_end() {
        let probation = Probation::default();
        let mut stream = probation.watch(much(), Some(remote()));
        let mut other = probation.watch(much(), Some("192.0.2.1:4002".parse().unwrap()));
        probation.lift(&remote());
        let mut heard = Vec::new();
        block_on(stream.read_to_end(&mut heard)).unwrap();
        assert_eq!(heard.len(), 3 * ALLOWANCE);
        assert!(block_on(other.read_to_end(&mut Vec::new())).is_err());
    }

    #[test]
    fn nothing_is_kept_of_connections_that_ended() {
        let probation = Probation::default();
        let (one, two) = (
            probation.watch(much(), Some(remote())),
            probation.watch(much(), Some(remote())),
        );
        drop(one);
        assert_eq!(probation.entries().values().map(Vec::len).sum::<usize>(), 1);
        drop(two);
        assert!(probation.entries().is_empty());
    }
}
