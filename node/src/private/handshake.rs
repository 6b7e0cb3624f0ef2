//! The beginning of a connection: both sides send a nonce, and from then on all is encrypted with the key that they share.
//!
//! The key itself is never negotiated. But the first bytes of the dialer are always the same, the header of
//! multistream-select: the listener tries its keys on them. So it accepts several keys at once, and knows before it says
//! a word whether the other side has one of them.

use std::{error::Error as StdError, io};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::{ConnectedPoint, Endpoint};
use peernet_api::private_key::PreSharedKey;
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit, StreamCipher},
};

use super::{
    Keys,
    hint::{self, NONCE},
    stream::Encrypted,
};

/// What every libp2p connection begins with, in both directions.
const OPENING: &[u8; 20] = b"\x13/multistream/1.0.0\n";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It ended before a key was shown.
    #[error("the connection ended before a key was shown: {0}")]
    Ended(#[from] io::Error),
    /// The other side has no key that is accepted here.
    #[error("refused by the private network: {0}")]
    Refused(#[source] Refusal),
}

/// Why the other side is a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks plain libp2p.
    #[error("it has no key")]
    WithoutKey,
    /// What it sends makes no sense by any key that is accepted here.
    #[error("it has another key")]
    AnotherKey,
}

/// Whether an error of the transport comes from here, and why.
#[must_use]
pub fn refusal(error: &(dyn StdError + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(*refusal);
        }
        // An error within an I/O error is not its source, but the source's source is.
        let within = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|within| -> &(dyn StdError + 'static) { within });
        next = within.or_else(|| error.source());
    }
    None
}

/// The side that speaks first. It is the dialer, unless the two agreed on something else to get through a NAT.
pub(super) fn speaks_first(point: &ConnectedPoint) -> bool {
    match point {
        ConnectedPoint::Dialer { role_override, .. } => *role_override == Endpoint::Dialer,
        ConnectedPoint::Listener { .. } => false,
    }
}

/// Agrees on a key with the other side. The caller sets the deadline.
pub(super) async fn shake<S>(mut socket: S, keys: Keys, speaks_first: bool) -> Result<Encrypted<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = keys.accepted();
    let Some(first) = accepted.first() else {
        return Err(Error::Refused(Refusal::AnotherKey));
    };
    let own = hint::nonce(first);
    socket.write_all(&own).await?;
    socket.flush().await?;
    let mut theirs = [0; NONCE];
    let (beginning, end) = theirs.split_at_mut(OPENING.len());
    socket.read_exact(beginning).await?;
    // Before the rest: some say no more until they are answered.
    if beginning == OPENING {
        return Err(Error::Refused(Refusal::WithoutKey));
    }
    socket.read_exact(end).await?;
    if speaks_first {
        let meant = accepted.iter().find(|key| hint::means(&theirs, key));
        let key = meant.unwrap_or(first);
        let (reading, writing) = (cipher(key, &theirs), cipher(key, &own));
        return Ok(Encrypted::new(socket, reading, writing, Vec::new()));
    }
    let mut read = [0; OPENING.len()];
    socket.read_exact(&mut read).await?;
    for key in &accepted {
        let (mut opening, mut reading) = (read, cipher(key, &theirs));
        reading.apply_keystream(&mut opening);
        if opening == *OPENING {
            let writing = cipher(key, &own);
            return Ok(Encrypted::new(socket, reading, writing, opening.to_vec()));
        }
    }
    Err(Error::Refused(Refusal::AnotherKey))
}

fn cipher(key: &PreSharedKey, nonce: &[u8; NONCE]) -> XSalsa20 {
    XSalsa20::new(&(*key.bytes()).into(), &(*nonce).into())
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
        time::Duration,
    };

    use futures::future::join;

    use super::*;

    /// One end of a pair that takes and gives only a few bytes at a time.
    struct Narrow(tokio::io::DuplexStream);

    impl AsyncRead for Narrow {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            to: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let most = to.len().min(7);
            let mut buffer = tokio::io::ReadBuf::new(&mut to[..most]);
            let read = tokio::io::AsyncRead::poll_read(Pin::new(&mut self.0), cx, &mut buffer);
            let length = buffer.filled().len();
            read.map_ok(|()| length)
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            let most = data.len().min(5);
            tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.0), cx, &data[..most])
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
        }

        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx)
        }
    }

    fn pair() -> (Narrow, Narrow) {
        let (a, b) = tokio::io::duplex(64);
        (Narrow(a), Narrow(b))
    }

    fn keys(bytes: &[u8]) -> Keys {
        let given = bytes.iter().map(|byte| PreSharedKey::new([*byte; 32]));
        Keys::new(given.collect(), Duration::from_secs(600))
    }

    /// What the listener reads after the opening, if the two come together.
    async fn told(dialer: Keys, listener: Keys) -> Result<Vec<u8>, Refusal> {
        let (a, b) = pair();
        let text: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let dial = async {
            let mut stream = shake(a, dialer, true).await.unwrap();
            // A listener that refuses closes while this is being written.
            let written = async {
                stream.write_all(OPENING).await?;
                stream.write_all(&text).await?;
                stream.close().await
            };
            let _ = written.await;
        };
        let listen = async {
            match shake(b, listener, false).await {
                Ok(mut stream) => {
                    let mut read = Vec::new();
                    stream.read_to_end(&mut read).await.unwrap();
                    let rest = read.strip_prefix(OPENING.as_slice()).expect("the opening first");
                    assert_eq!(rest, text);
                    Ok(rest.to_vec())
                }
                Err(Error::Refused(refusal)) => Err(refusal),
                Err(Error::Ended(error)) => panic!("{error}"),
            }
        };
        join(dial, listen).await.1
    }

    #[tokio::test]
    async fn two_that_share_a_key_understand_each_other_however_the_bytes_come() {
        for (dialer, listener) in [
            (&[1][..], &[1][..]),
            // The dialer has a newer key that the listener does not know, and takes the listener's.
            (&[2, 1], &[1]),
            (&[3, 2, 1], &[1]),
            // The listener has a newer one, and still accepts the dialer's.
            (&[1], &[2, 1]),
            (&[1], &[4, 3, 2, 1]),
            // Both know both, and each would connect by another one.
            (&[1, 2], &[2, 1]),
        ] {
            let told = told(keys(dialer), keys(listener)).await;
            assert!(told.is_ok(), "{dialer:?} to {listener:?}: {told:?}");
        }
    }

    #[tokio::test]
    async fn another_key_and_none_are_told_apart() {
        assert_eq!(told(keys(&[1]), keys(&[2])).await, Err(Refusal::AnotherKey));
        assert_eq!(told(keys(&[1]), keys(&[2, 3, 4])).await, Err(Refusal::AnotherKey));
        // Whether or not it waits for an answer to its first line.
        for lines in ["\x13/multistream/1.0.0\n", "\x13/multistream/1.0.0\n\x07/noise\n"] {
            let (mut plain, listener) = pair();
            let speak = async {
                let _ = plain.write_all(lines.as_bytes()).await;
                let mut answer = Vec::new();
                let _ = plain.read_to_end(&mut answer).await;
                answer
            };
            let (answer, refused) = join(speak, shake(listener, keys(&[1]), false)).await;
            assert!(matches!(refused, Err(Error::Refused(Refusal::WithoutKey))));
            assert_eq!(answer.len(), NONCE, "it learns nothing but random bytes");
        }
    }

    #[tokio::test]
    async fn who_ends_before_a_key_was_shown_is_nobody() {
        for length in [0, 19, 23, 24, 43] {
            let (mut other, listener) = pair();
            let speak = async {
                let _ = other.write_all(&vec![7; length]).await;
                let _ = other.close().await;
                let _ = other.read_to_end(&mut Vec::new()).await;
            };
            let ((), ended) = join(speak, shake(listener, keys(&[1]), false)).await;
            assert!(matches!(ended, Err(Error::Ended(_))), "{length} bytes");
        }
    }

    #[test]
    fn a_refusal_is_found_within_the_errors_of_the_transport() {
        let refused = || Error::Refused(Refusal::WithoutKey);
        let wrapped = io::Error::other(libp2p::core::transport::TransportError::Other(io::Error::other(
            refused(),
        )));
        assert_eq!(refusal(&refused()), Some(Refusal::WithoutKey));
        assert_eq!(refusal(&wrapped), Some(Refusal::WithoutKey));
        assert_eq!(refusal(&io::Error::other("closed")), None);
    }
}
