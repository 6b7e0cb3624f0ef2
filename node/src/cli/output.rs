//! What the commands print: text for people, JSON for programs.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;

use super::{EXIT_FAILURE, Failure, Output};
use crate::api::{
    AnnounceAnswer, ErrorAnswer, ErrorDetail, FindPeerAnswer, GetAnswer, PeerAnswer, PeersAnswer, PingAnswer,
    ProvidersAnswer, PutAnswer, ServiceName,
};

/// What a command came to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Put(PutAnswer),
    Get(GetAnswer),
    Provide(AnnounceAnswer),
    Stopped(ServiceName),
    Providers(ProvidersAnswer),
    FindPeer(FindPeerAnswer),
    Peers(PeersAnswer),
    Ping(PingAnswer),
    Nothing,
}

impl Answer {
    /// A ping that nobody answered was not done.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Ping(ping) if ping.pings.iter().all(|ping| ping.rtt_micros.is_none()) => {
                ExitCode::from(EXIT_FAILURE)
            }
            _ => ExitCode::SUCCESS,
        }
    }
}

pub(super) fn print(out: &mut impl Write, output: Output, answer: &Answer) -> io::Result<()> {
    match output {
        Output::Json => {
            serde_json::to_writer(&mut *out, answer)?;
            writeln!(out)
        }
        Output::Text => print_text(out, answer),
    }
}

/// Says in a line of the answers that a command was not done.
pub(super) fn print_failure(out: &mut impl Write, output: Output, failure: &Failure) -> io::Result<()> {
    if output == Output::Text {
        return writeln!(out, "error: {failure}");
    }
    let code = match failure {
        Failure::Usage(_) => "InvalidParameter",
        Failure::NotFound(_) => "NotFound",
        Failure::Refused(_) => "Refused",
        Failure::Unreachable { .. } | Failure::Io(_) => "AgentUnreachable",
    };
    let answer = ErrorAnswer {
        error: ErrorDetail {
            code: code.to_owned(),
            message: failure.to_string(),
            parameter: None,
        },
    };
    serde_json::to_writer(&mut *out, &answer)?;
    writeln!(out)
}

fn print_text(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::Put(put) => writeln!(
            out,
            "stored: {} of {} other agents have it, {} must; it lives {}",
            put.stored,
            put.of,
            put.needed,
            span(put.expires_in_seconds)
        ),
        Answer::Get(got) => match &got.value {
            Some(text) if text.ends_with('\n') => write!(out, "{text}"),
            Some(text) => writeln!(out, "{text}"),
            None => writeln!(out, "base64:{}", got.value_base64),
        },
        Answer::Provide(announced) => {
            writeln!(out, "advertised: {}", shown(&announced.service))
        }
        Answer::Stopped(name) => writeln!(out, "advertised no more: {}", shown(name)),
        Answer::Providers(found) => {
            print_peers(out, &found.providers)?;
            let more = if found.may_be_more {
                ", there may be more"
            } else {
                ""
            };
            writeln!(out, "{} providers{more}", found.providers.len())
        }
        Answer::FindPeer(found) => {
            print_peers(out, std::slice::from_ref(&found.peer))?;
            if found.connected {
                writeln!(out, "connected: nobody was asked")
            } else {
                let took = Duration::from_micros(found.took_micros);
                writeln!(out, "{} agents were asked, it took {took:?}", found.asked)
            }
        }
        Answer::Peers(found) => {
            print_peers(out, &found.peers)?;
            writeln!(out, "{} peers", found.peers.len())
        }
        Answer::Ping(ping) => {
            let name = ping.name.as_deref().unwrap_or(&ping.peer_id);
            for ping in &ping.pings {
                let time = |micros: Option<u64>| {
                    micros.map_or_else(|| "unknown".to_owned(), |micros| format!("{micros}us"))
                };
                match &ping.error {
                    Some(error) => writeln!(out, "{name}: no answer: {error}")?,
                    None => writeln!(
                        out,
                        "{name}: rtt {}, warm {}",
                        time(ping.rtt_micros),
                        time(ping.warm_micros)
                    )?,
                }
            }
            Ok(())
        }
        Answer::Nothing => Ok(()),
    }
}

fn print_peers(out: &mut impl Write, peers: &[PeerAnswer]) -> io::Result<()> {
    for peer in peers {
        let name = peer.name.as_deref().unwrap_or("-");
        writeln!(out, "{}  {name}  {}", peer.peer_id, peer.addresses.join(" "))?;
    }
    Ok(())
}

fn shown(name: &ServiceName) -> String {
    name.name
        .clone()
        .unwrap_or_else(|| format!("base64:{}", name.name_base64))
}

/// A span of seconds in hours or minutes, rounded: a record's last second is nobody's business.
fn span(seconds: u64) -> String {
    if seconds >= 3600 {
        format!("{}h", (seconds + 1800) / 3600)
    } else {
        format!("{}m", (seconds + 30) / 60)
    }
}
