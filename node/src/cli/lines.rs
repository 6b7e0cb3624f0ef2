//! Commands from standard input, one a line, in the words of libp2p's tutorials.

use std::{
    io::{BufRead, Read, Write},
    process::ExitCode,
};

use super::{
    EXIT_FAILURE, Failure, Output,
    client::Client,
    output::{Answer, print, print_failure},
    peer_id,
};
use crate::dht::Limits;

/// Longest line: the longest key and value with their word.
const MAX_LINE: usize = Limits::DEFAULT.key_bytes + Limits::DEFAULT.value_bytes + 64;
const WORDS: &str =
    "PUT KEY VALUE, GET KEY, PUT_PROVIDER NAME, GET_PROVIDERS NAME, FIND_PEER ID, PEERS or PING ID";

/// Does what the lines say, until they end. Fails in the end if one of them failed.
pub(super) async fn run(
    client: &Client,
    output: Output,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    while let Some(line) = next_line(input)? {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match done(client, line).await {
            Ok(answer) => print(out, output, &answer)?,
            Err(failure) => {
                print_failure(out, output, &failure)?;
                code = ExitCode::from(EXIT_FAILURE);
            }
        }
        out.flush()?;
    }
    Ok(code)
}

fn next_line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() >= MAX_LINE && line.last() != Some(&b'\n') {
        return Err(Failure::Usage(format!("a line has at most {MAX_LINE} bytes")));
    }
    String::from_utf8(line).map(Some).map_err(|_| {
        Failure::Usage("a line is no UTF-8: use the commands put and get for binary values".to_owned())
    })
}

async fn done(client: &Client, line: &str) -> Result<Answer, Failure> {
    let (word, rest) = split(line);
    match (word.to_ascii_uppercase().as_str(), split(rest)) {
        ("PUT", (key, value)) if !key.is_empty() && !value.is_empty() => {
            let value = value.as_bytes().to_vec();
            Ok(Answer::Put(client.put(key.as_bytes(), value, None).await?))
        }
        ("GET", (key, "")) if !key.is_empty() => Ok(Answer::Get(client.get(key.as_bytes(), None).await?)),
        ("PUT_PROVIDER", (name, "")) if !name.is_empty() => {
            Ok(Answer::Provide(client.provide(name.as_bytes()).await?))
        }
        ("GET_PROVIDERS", (name, "")) if !name.is_empty() => {
            Ok(Answer::Providers(client.providers(name.as_bytes()).await?))
        }
        ("FIND_PEER", (peer, "")) if !peer.is_empty() => {
            let peer = peer_id(client, peer).await?;
            Ok(Answer::FindPeer(client.find_peer(&peer).await?))
        }
        ("PEERS", ("", "")) => Ok(Answer::Peers(client.peers().await?)),
        ("PING", (peer, "")) if !peer.is_empty() => {
            let peer = peer_id(client, peer).await?;
            Ok(Answer::Ping(client.ping(&peer, 1).await?))
        }
        _ => Err(Failure::Usage(format!("{line:?} is no command: write {WORDS}"))),
    }
}

/// The first word, and what follows it.
fn split(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_word_a_key_and_the_rest() {
        assert_eq!(split("PUT  a b c"), ("PUT", "a b c"));
        assert_eq!(split("a b c"), ("a", "b c"));
        assert_eq!(split("PEERS"), ("PEERS", ""));
        assert_eq!(split(""), ("", ""));
    }

    #[tokio::test]
    async fn what_is_no_command_is_named_with_those_that_are() {
        let client = Client::new(([127, 0, 0, 1], 9).into());
        for line in ["put", "PUT key", "GET", "GET a b", "PEERS all", "DELETE x"] {
            let failure = done(&client, line).await.unwrap_err();
            assert!(
                matches!(&failure, Failure::Usage(text) if text.contains(line) && text.contains("GET_PROVIDERS")),
                "{failure}"
            );
        }
    }

    #[test]
    fn lines_have_a_bound() {
        let long = vec![b'x'; MAX_LINE + 1];
        assert!(matches!(next_line(&mut long.as_slice()), Err(Failure::Usage(_))));
        let mut two = &b"a\nb"[..];
        assert_eq!(next_line(&mut two).unwrap().as_deref(), Some("a\n"));
        assert_eq!(next_line(&mut two).unwrap().as_deref(), Some("b"));
        assert_eq!(next_line(&mut two).unwrap(), None);
    }
}
