//! The side of `/ipfs/ping/1.0.0` that answers.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

use super::SIZE;

/// Pings answered before other work on the connection gets its turn.
const ANSWERS_PER_TURN: usize = 16;

/// Answers the pings of one inbound stream. A poll-based state machine over any byte stream, so that no wake-up can be
/// lost between two futures.
#[derive(Debug)]
pub(super) struct Responder<S> {
    stream: S,
    ping: [u8; SIZE],
    state: Answering,
    wrote: bool,
}

#[derive(Debug)]
enum Answering {
    Reading { filled: usize },
    Writing { written: usize },
    Flushing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Responder<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            ping: [0; SIZE],
            state: Answering::Reading { filled: 0 },
            wrote: false,
        }
    }

    /// Whether something was written since this was last asked.
    pub(super) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    /// Answers pings until the stream ends. Pending always leaves a waker behind.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut answered = 0;
        loop {
            self.state = match self.state {
                Answering::Reading { filled } if filled < SIZE => {
                    let rest = self.ping.get_mut(filled..).unwrap_or_default();
                    match ready!(Pin::new(&mut self.stream).poll_read(cx, rest))? {
                        0 => return Poll::Ready(Ok(())),
                        read => Answering::Reading {
                            filled: filled + read,
                        },
                    }
                }
                Answering::Reading { .. } => Answering::Writing { written: 0 },
                Answering::Writing { written } if written < SIZE => {
                    let rest = self.ping.get(written..).unwrap_or_default();
                    match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        more => {
                            self.wrote = true;
                            Answering::Writing {
                                written: written + more,
                            }
                        }
                    }
                }
                Answering::Writing { .. } => Answering::Flushing,
                Answering::Flushing => {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    answered += 1;
                    Answering::Reading { filled: 0 }
                }
            };
            if answered >= ANSWERS_PER_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
