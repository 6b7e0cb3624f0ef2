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
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};

/// Bytes that a connection may bring before its peer has shown what it is. Two handshakes and an introduction are some 5 KiB.
pub const ALLOWANCE: usize = 16 << 10;

/// The connections that stand, by the address of their other end.
#[derive(Clone, Debug, Default)]
pub struct Probation {
    entries: Arc<Mutex<HashMap<SocketAddr, Vec<Weak<Watch>>>>>,
    gate: Arc<GateCounts>,
    is_off: bool,
}

/// Who came to a transport's own gate, before there was a connection, and was not let through.
#[derive(Debug, Default)]
pub(crate) struct GateCounts {
    /// They were ignored: too many waited.
    pub(crate) refused: AtomicU64,
    /// They had to show first that they are at the address that they write from.
    pub(crate) to_validate: AtomicU64,
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
    #[must_use]
    pub fn watch(&self, remote: Option<SocketAddr>) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            left: AtomicUsize::new(ALLOWANCE),
            is_lifted: AtomicBool::new(self.is_off),
            remote,
            probation: self.clone(),
        });
        if let Some(remote) = remote {
            let mut entries = self.entries();
            entries.entry(remote).or_default().push(Arc::downgrade(&watch));
        }
        watch
    }

    /// The peer at the other end has shown what it is, and may stay.
    pub fn lift(&self, remote: &SocketAddr) {
        for watch in self.entries().get(remote).into_iter().flatten() {
            if let Some(watch) = watch.upgrade() {
                watch.is_lifted.store(true, Ordering::Relaxed);
            }
        }
    }

    /// What transports that judge for themselves count.
    pub(crate) fn gate(&self) -> &GateCounts {
        &self.gate
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Weak<Watch>>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of one connection.
#[derive(Debug)]
pub struct Watch {
    left: AtomicUsize,
    is_lifted: AtomicBool,
    remote: Option<SocketAddr>,
    probation: Probation,
}

impl Watch {
    /// Whether its peer has shown what it is.
    pub fn is_lifted(&self) -> bool {
        self.is_lifted.load(Ordering::Relaxed)
    }

    /// Whether its peer has sent too much before that.
    pub fn is_spent(&self) -> bool {
        !self.is_lifted() && self.left.load(Ordering::Relaxed) == 0
    }

    /// Counts what this stream brings: the whole of the connection, or one of those that it consists of.
    pub fn over<S>(self: &Arc<Self>, stream: S) -> Watched<S> {
        Watched {
            stream,
            watch: Arc::clone(self),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(remote) = self.remote else {
            return;
        };
        let mut entries = self.probation.entries();
        if let Some(of_remote) = entries.get_mut(&remote) {
            // Its own count is zero already.
            of_remote.retain(|watch| watch.strong_count() > 0);
            if of_remote.is_empty() {
                entries.remove(&remote);
            }
        }
    }
}

/// A stream that is counted.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
}

/// What ends a connection of which [`Watch::is_spent`] is true.
pub(crate) fn too_much() -> io::Error {
    io::Error::other("it sent too much before it said what it is")
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.watch.is_lifted() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let left = self.watch.left.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(too_much()));
        }
        let most = left.min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, part))?;
        // One task reads all streams of a connection: nobody else has counted meanwhile.
        self.watch
            .left
            .store(left.saturating_sub(read), Ordering::Relaxed);
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
        let mut stream = probation.watch(Some(remote())).over(much());
        let mut heard = Vec::new();
        let error = block_on(stream.read_to_end(&mut heard)).unwrap_err();
        assert!(error.to_string().contains("sent too much"), "{error}");
        assert_eq!(heard.len(), ALLOWANCE);
    }

    #[test]
    fn whoever_has_shown_what_it_is_is_heard_without_end() {
        let probation = Probation::default();
        let mut stream = probation.watch(Some(remote())).over(much());
        let mut other = probation
            .watch(Some("192.0.2.1:4002".parse().unwrap()))
            .over(much());
        probation.lift(&remote());
        let mut heard = Vec::new();
        block_on(stream.read_to_end(&mut heard)).unwrap();
        assert_eq!(heard.len(), 3 * ALLOWANCE);
        assert!(block_on(other.read_to_end(&mut Vec::new())).is_err());
    }

    #[test]
    fn streams_of_one_connection_share_its_allowance() {
        let probation = Probation::default();
        let watch = probation.watch(Some(remote()));
        let (mut one, mut two) = (watch.over(much()), watch.over(much()));
        block_on(one.read_exact(&mut [0; ALLOWANCE - 1])).unwrap();
        assert!(!watch.is_spent());
        assert!(block_on(two.read_exact(&mut [0; 2])).is_err());
        assert!(watch.is_spent());
        probation.lift(&remote());
        assert!(!watch.is_spent());
        block_on(two.read_exact(&mut [0; ALLOWANCE])).unwrap();
    }

    #[test]
    fn nothing_is_kept_of_connections_that_ended() {
        let probation = Probation::default();
        let (one, two) = (
            probation.watch(Some(remote())).over(much()),
            probation.watch(Some(remote())).over(much()),
        );
        drop(one);
        assert_eq!(probation.entries().values().map(Vec::len).sum::<usize>(), 1);
        drop(two);
        assert!(probation.entries().is_empty());
    }
}
