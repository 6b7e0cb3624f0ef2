//! What somebody may send before it has shown what it is.
//!
//! A connection's streams have buffers, 256 KiB each by the multiplexer's specification: who fills all of them on all connections
//! that it may open takes more memory than an agent has. Members have no reason to. Everybody else is let through for so many
//! bytes only, enough to say what it is; then its connection ends.
//!
//! It is not heard in one go, either: a thousand proposals of protocols that nobody speaks take milliseconds to answer, on the thread
//! that also answers pings.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep_until};

use crate::admission::Wasted;

/// Bytes that a connection may bring before its peer has shown what it is. Two handshakes and an introduction are some 5 KiB.
pub const ALLOWANCE: usize = 16 << 10;
/// Bytes of it that are read in one go, of all streams of the connection.
const PIECE: usize = 512;
/// From one such piece to the next.
const PAUSE: Duration = Duration::from_millis(2);

/// The connections that stand, by the address of their other end.
#[derive(Clone, Debug, Default)]
pub struct Probation {
    entries: Arc<Mutex<HashMap<SocketAddr, Vec<Weak<Watch>>>>>,
    gate: Arc<GateCounts>,
    wasted: Wasted,
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
            allowed: Mutex::new(Allowed::new()),
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

    /// Whose connections came to nothing lately.
    pub(crate) fn wasted(&self) -> &Wasted {
        &self.wasted
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
    allowed: Mutex<Allowed>,
    is_lifted: AtomicBool,
    remote: Option<SocketAddr>,
    probation: Probation,
}

/// What an unknown peer may still send, in bytes.
#[derive(Debug)]
struct Allowed {
    all: usize,
    piece: usize,
    /// When the present piece was begun.
    begun: Option<Instant>,
    /// The last one that a stream waits for. Each waits for one of its own: if all woke for each, waking would take more time than
    /// reading.
    waited_for: Option<Instant>,
}

impl Allowed {
    fn new() -> Self {
        Self {
            all: ALLOWANCE,
            piece: 0,
            begun: None,
            waited_for: None,
        }
    }

    /// How much of it may be read now, or when to ask again.
    fn now(&mut self, now: Instant) -> Result<usize, Instant> {
        let next = self.begun.map(|begun| begun + PAUSE);
        if next.is_none_or(|next| next <= now) {
            self.piece = PIECE;
            self.begun = Some(now);
        }
        match next {
            Some(next) if self.piece == 0 => {
                let free = self.waited_for.map(|last| last + PAUSE);
                let turn = free.map_or(next, |free| free.max(next));
                self.waited_for = Some(turn);
                Err(turn)
            }
            _ => Ok(self.piece.min(self.all)),
        }
    }

    fn take(&mut self, read: usize) {
        self.all = self.all.saturating_sub(read);
        self.piece = self.piece.saturating_sub(read);
    }
}

impl Watch {
    /// Whether its peer has shown what it is.
    pub fn is_lifted(&self) -> bool {
        self.is_lifted.load(Ordering::Relaxed)
    }

    /// Whether its peer has sent too much before that.
    pub fn is_spent(&self) -> bool {
        !self.is_lifted() && self.allowed().all == 0
    }

    fn allowed(&self) -> MutexGuard<'_, Allowed> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what this stream brings: the whole of the connection, or one of those that it consists of.
    pub fn over<S>(self: &Arc<Self>, stream: S) -> Watched<S> {
        Watched {
            stream,
            watch: Arc::clone(self),
            pause: None,
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
    pause: Option<Pin<Box<Sleep>>>,
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
        let this = &mut *self;
        loop {
            if this.watch.is_lifted() {
                this.pause = None;
                return Pin::new(&mut this.stream).poll_read(cx, buffer);
            }
            if this.watch.is_spent() {
                return Poll::Ready(Err(too_much()));
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            // One task reads all streams of a connection: nobody else reads meanwhile.
            let allowed = this.watch.allowed().now(Instant::now());
            match allowed {
                Err(next) => this.pause = Some(Box::pin(sleep_until(next.into()))),
                Ok(most) => {
                    let most = most.min(buffer.len());
                    let part = buffer.get_mut(..most).unwrap_or_default();
                    let read = ready!(Pin::new(&mut this.stream).poll_read(cx, part))?;
                    this.watch.allowed().take(read);
                    return Poll::Ready(Ok(read));
                }
            }
        }
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
    use futures::{AsyncReadExt, io::Cursor};

    use super::*;

    fn much() -> Cursor<Vec<u8>> {
        Cursor::new(vec![7; 3 * ALLOWANCE])
    }

    fn remote() -> SocketAddr {
        "192.0.2.1:4001".parse().unwrap()
    }

    #[tokio::test]
    async fn an_unknown_peer_is_heard_up_to_its_allowance() {
        let probation = Probation::default();
        let mut stream = probation.watch(Some(remote())).over(much());
        let mut heard = Vec::new();
        let error = stream.read_to_end(&mut heard).await.unwrap_err();
        assert!(error.to_string().contains("sent too much"), "{error}");
        assert_eq!(heard.len(), ALLOWANCE);
    }

    #[tokio::test]
    async fn whoever_has_shown_what_it_is_is_heard_without_end() {
        let probation = Probation::default();
        let mut stream = probation.watch(Some(remote())).over(much());
        let mut other = probation
            .watch(Some("192.0.2.1:4002".parse().unwrap()))
            .over(much());
        probation.lift(&remote());
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), 3 * ALLOWANCE);
        assert!(other.read_to_end(&mut Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn streams_of_one_connection_share_its_allowance() {
        let probation = Probation::default();
        let watch = probation.watch(Some(remote()));
        let (mut one, mut two) = (watch.over(much()), watch.over(much()));
        one.read_exact(&mut [0; ALLOWANCE - 1]).await.unwrap();
        assert!(!watch.is_spent());
        assert!(two.read_exact(&mut [0; 2]).await.is_err());
        assert!(watch.is_spent());
        probation.lift(&remote());
        assert!(!watch.is_spent());
        two.read_exact(&mut [0; ALLOWANCE]).await.unwrap();
    }

    #[tokio::test]
    async fn what_they_bring_is_read_in_pieces_with_pauses_in_between() {
        let probation = Probation::default();
        let watch = probation.watch(Some(remote()));
        let (mut one, mut two) = (watch.over(much()), watch.over(much()));
        let begun = Instant::now();
        let mut buffer = [0; 2 * PIECE];
        assert_eq!(one.read(&mut buffer).await.unwrap(), PIECE);
        assert_eq!(two.read(&mut buffer).await.unwrap(), PIECE);
        assert!(begun.elapsed() >= PAUSE);
    }

    #[test]
    fn a_piece_that_was_not_used_up_is_none_the_greater_for_it_and_each_stream_waits_for_its_own() {
        let start = Instant::now();
        let mut allowed = Allowed::new();
        assert_eq!(allowed.now(start), Ok(PIECE));
        allowed.take(PIECE - 1);
        assert_eq!(allowed.now(start + PAUSE / 2), Ok(1));
        assert_eq!(allowed.now(start + PAUSE * 9), Ok(PIECE));
        allowed.take(PIECE);
        assert_eq!(allowed.now(start + PAUSE * 9), Err(start + PAUSE * 10));
        assert_eq!(allowed.now(start + PAUSE * 9), Err(start + PAUSE * 11));
        assert_eq!(allowed.now(start + PAUSE * 10), Ok(PIECE));
        allowed.take(PIECE);
        assert_eq!(allowed.now(start + PAUSE * 10), Err(start + PAUSE * 12));
        assert_eq!(allowed.now(start + PAUSE * 20), Ok(PIECE));
        allowed.take(ALLOWANCE - 3 * PIECE - 1);
        assert_eq!(allowed.now(start + PAUSE * 21), Ok(2));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_connections_that_ended() {
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
