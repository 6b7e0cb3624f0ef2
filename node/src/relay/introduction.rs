//! How a relay tells a member whom it leads to.
//!
//! A member asks by opening a stream and saying nothing; the relay answers with the ids of the members that have reserved
//! at it, each as one byte of length and the id's bytes, and ends the stream.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    PeerId, StreamProtocol,
    request_response::{self, Codec, ProtocolSupport},
};
use peernet_api::report::MAX_PEERS;

/// The protocol's name. The same for all networks: those that are joined by a relay share a secret, and not a name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/peernet/introduction/1.0.0");

/// An answer that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Questions and answers on one connection at a time.
const MAX_STREAMS: usize = 2;
/// Longest id in an answer. Ed25519's have 38 bytes.
const MAX_ID: usize = 64;
/// Longest answer.
const MAX_ANSWER: usize = MAX_PEERS * (1 + MAX_ID);

/// Asks relays, and answers.
pub type Behaviour = request_response::Behaviour<Introductions>;
/// What becomes of questions.
pub type Event = request_response::Event<Question, Answer>;

/// The question: whom do you lead to?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question;

/// The members that the relay leads to, at most [`MAX_PEERS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub Vec<PeerId>);

/// The behaviour, which asks, and answers if this agent is a relay.
#[must_use]
pub fn behaviour(is_relay: bool) -> Behaviour {
    let support = if is_relay {
        ProtocolSupport::Full
    } else {
        ProtocolSupport::Outbound
    };
    let config = request_response::Config::default()
        .with_request_timeout(TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    Behaviour::with_codec(Introductions, [(PROTOCOL, support)], config)
}

/// The form of questions and answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Introductions;

impl Codec for Introductions {
    type Protocol = StreamProtocol;
    type Request = Question;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Question>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(Question)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        let longest = u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX);
        stream.take(longest + 1).read_to_end(&mut bytes).await?;
        decode(&bytes)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Question) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        stream: &mut T,
        answer: Answer,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&encode(&answer)).await
    }
}

fn encode(Answer(peers): &Answer) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in peers.iter().take(MAX_PEERS).map(|peer| peer.to_bytes()) {
        if let Ok(length @ 1..=64) = u8::try_from(id.len()) {
            bytes.push(length);
            bytes.extend(id);
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> io::Result<Answer> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if bytes.len() > MAX_ANSWER {
        return Err(invalid("the answer is too long"));
    }
    let mut peers = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (id, after) = after
            .split_at_checked(usize::from(*length))
            .filter(|(id, _)| id.len() <= MAX_ID)
            .ok_or_else(|| invalid("the answer is cut off"))?;
        peers.push(PeerId::from_bytes(id).map_err(|_| invalid("the answer holds what is no peer id"))?);
        rest = after;
    }
    if peers.len() > MAX_PEERS {
        return Err(invalid("the answer names too many peers"));
    }
    Ok(Answer(peers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read_back_and_bounded() {
        for count in [0, 1, MAX_PEERS] {
            let answer = Answer((0..count).map(|_| PeerId::random()).collect());
            assert_eq!(decode(&encode(&answer)).unwrap(), answer);
        }
        let many = Answer((0..MAX_PEERS + 9).map(|_| PeerId::random()).collect());
        assert_eq!(decode(&encode(&many)).unwrap().0.len(), MAX_PEERS);
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        let bytes = encode(&Answer(vec![PeerId::random()]));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode(&bytes.repeat(MAX_PEERS + 1)).is_err());
        assert!(decode(&[0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(answer) = decode(&bytes) {
                prop_assert!(answer.0.len() <= MAX_PEERS);
            }
        }
    }
}
