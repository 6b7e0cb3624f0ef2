//! A connection that is encrypted with the pre-shared key.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use salsa20::{XSalsa20, cipher::StreamCipher};

/// Most bytes that are encrypted at a time, and so may wait to be sent.
const CHUNK: usize = 16 << 10;

/// Encrypts what is written and decrypts what is read.
pub struct Encrypted<S> {
    socket: S,
    reading: XSalsa20,
    writing: XSalsa20,
    /// What was read and decrypted before this was made, and how much of it was read from here.
    opening: Vec<u8>,
    opened: usize,
    /// What is encrypted and not sent yet, and how much of it is.
    waiting: Vec<u8>,
    sent: usize,
}

impl<S> Encrypted<S> {
    /// `opening`: what was already read from the socket, in the clear. `reading` stands behind it.
    pub(super) fn new(socket: S, reading: XSalsa20, writing: XSalsa20, opening: Vec<u8>) -> Self {
        Self {
            socket,
            reading,
            writing,
            opening,
            opened: 0,
            waiting: Vec::new(),
            sent: 0,
        }
    }
}

impl<S: AsyncWrite + Unpin> Encrypted<S> {
    /// What was encrypted must be sent, in this order and once: the other side counts the bytes.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.waiting.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(rest) = this.opening.get(this.opened..).filter(|rest| !rest.is_empty()) {
            let length = rest.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(rest) {
                *to = *from;
            }
            this.opened += length;
            if this.opened == this.opening.len() {
                this.opening = Vec::new();
                this.opened = 0;
            }
            return Poll::Ready(Ok(length));
        }
        let length = ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        if let Some(read) = buffer.get_mut(..length) {
            this.reading.apply_keystream(read);
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_send(cx))?;
        let chunk = data.get(..CHUNK).unwrap_or(data);
        this.waiting.extend_from_slice(chunk);
        this.writing.apply_keystream(&mut this.waiting);
        // It is taken, whether or not it could be sent at once: a flush, or the next write, sends the rest.
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
