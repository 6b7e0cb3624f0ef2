//! The program's own commands: the DHT for people, by `kubectl exec`, and for scripts. They talk to the API of the agent
//! that runs beside them.
//!
//! Exit codes: 0 if it was done, 1 if it could not be, 2 if a flag or a word is wrong, 3 if nobody has what was asked for.

mod client;
mod lines;
mod output;

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use libp2p::PeerId;
use peernet_api::ports;

use self::{
    client::Client,
    output::{Answer, print},
};
use crate::{api::text, dht::Limits};

/// It could not be done.
const EXIT_FAILURE: u8 = 1;
/// A word is wrong.
const EXIT_USAGE: u8 = 2;
/// Nobody has it.
const EXIT_NOT_FOUND: u8 = 3;

/// What the program does beside being the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a record for 24 hours.
    Put {
        /// Its key.
        key: String,
        /// Its value. Without it, or as `-`: what comes on standard input.
        value: Option<String>,
        /// How many other agents must have stored it: one, majority, all or a number.
        #[arg(long)]
        quorum: Option<String>,
        /// The key is base64.
        #[arg(long)]
        key_base64: bool,
        /// The value is base64.
        #[arg(long)]
        value_base64: bool,
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
    /// Look for a record.
    Get {
        /// Its key.
        key: String,
        /// How many copies must be found: one, majority, all or a number. Of several values the newest is shown.
        #[arg(long)]
        quorum: Option<String>,
        /// The key is base64.
        #[arg(long)]
        key_base64: bool,
        /// Write the value's bytes as they are, and nothing else.
        #[arg(long, conflicts_with = "output")]
        raw: bool,
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
    /// Advertise a service on this agent.
    Provide {
        /// Its name.
        name: String,
        /// Advertise it no more.
        #[arg(long)]
        stop: bool,
        /// The name is base64.
        #[arg(long)]
        name_base64: bool,
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
    /// Look for the providers of a service.
    Providers {
        /// Its name.
        name: String,
        /// The name is base64.
        #[arg(long)]
        name_base64: bool,
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
    /// Look for a peer's addresses.
    FindPeer {
        /// Its id, or the name of a connected agent.
        peer: String,
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
    /// Show the members that this agent is connected to.
    Peers {
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
    /// Show the next probes of a peer, at the network's pace.
    Ping {
        /// Its id, or the name of a connected agent.
        peer: String,
        /// How many probes, at most 10.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=10))]
        count: u8,
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
    /// Read commands from standard input, one a line: PUT KEY VALUE, GET KEY, PUT_PROVIDER NAME, GET_PROVIDERS NAME,
    /// FIND_PEER ID, PEERS, PING ID.
    Lines {
        /// What all commands take.
        #[command(flatten)]
        common: Common,
    },
}

/// What all commands take.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// For whom to write: text for people, json for programs.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Where the agent serves its API.
    #[arg(long, env = "PEERNET_API_ADDRESS")]
    api: Option<SocketAddr>,
    /// The port of the API on this host, if the address is not given.
    #[arg(long, env = "PEERNET_API_PORT", default_value_t = peernet_api::report::API_PORT)]
    api_port: u16,
    /// How many ports further on that of the agent with the next ordinal is.
    #[arg(long, env = "PEERNET_PORT_STEP", default_value_t = 0, hide = true)]
    port_step: u16,
    /// Which of the agents on its host's network is asked, from 0.
    #[arg(long, env = "PEERNET_ORDINAL", default_value_t = 0, hide = true)]
    ordinal: u16,
}

/// For whom to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object a command, for programs.
    Json,
}

impl Common {
    fn client(&self) -> Client {
        let port = ports::of_ordinal(self.api_port, self.port_step, self.ordinal);
        let on_this_host = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or(self.api_port)));
        let address = self.api.unwrap_or(on_this_host);
        Client::new(address)
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A word is wrong.
    #[error("{0}")]
    Usage(String),
    /// Nobody has it.
    #[error("{0}")]
    NotFound(String),
    /// The agent can't do it.
    #[error("{0}")]
    Refused(String),
    /// The agent can't be asked.
    #[error("failed to ask the agent at {address}: {problem}")]
    Unreachable {
        /// Where it should be.
        address: SocketAddr,
        /// What is in the way.
        problem: String,
    },
    /// Standard input or output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::NotFound(_) => EXIT_NOT_FOUND,
            Self::Refused(_) | Self::Unreachable { .. } | Self::Io(_) => EXIT_FAILURE,
        })
    }
}

/// Does a command, and says how it went.
#[must_use]
pub fn run(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.into()),
    };
    match runtime.block_on(command.run()) {
        Ok(code) => code,
        Err(failure) => complain(&failure),
    }
}

fn complain(failure: &Failure) -> ExitCode {
    // Nothing else can be done if even this can't be written.
    let _ = writeln!(io::stderr(), "{failure}");
    failure.exit_code()
}

impl Command {
    async fn run(self) -> Result<ExitCode, Failure> {
        let (client, output, answer) = match self {
            Self::Put {
                key,
                value,
                quorum,
                key_base64,
                value_base64,
                common,
            } => {
                let key = bytes("the key", &key, key_base64)?;
                let value = value_bytes(value, value_base64)?;
                let put = common.client().put(&key, value, quorum.as_deref()).await?;
                (None, common.output, Answer::Put(put))
            }
            Self::Get {
                key,
                quorum,
                key_base64,
                raw,
                common,
            } => {
                let key = bytes("the key", &key, key_base64)?;
                let got = common.client().get(&key, quorum.as_deref()).await?;
                if raw {
                    let value = text::decode(&got.value_base64).unwrap_or_default();
                    io::stdout().write_all(&value)?;
                    return Ok(ExitCode::SUCCESS);
                }
                (None, common.output, Answer::Get(got))
            }
            Self::Provide {
                name,
                stop,
                name_base64,
                common,
            } => {
                let name = bytes("the name", &name, name_base64)?;
                let answer = if stop {
                    Answer::Stopped(common.client().stop_providing(&name).await?)
                } else {
                    Answer::Provide(common.client().provide(&name).await?)
                };
                (None, common.output, answer)
            }
            Self::Providers {
                name,
                name_base64,
                common,
            } => {
                let name = bytes("the name", &name, name_base64)?;
                let found = common.client().providers(&name).await?;
                (None, common.output, Answer::Providers(found))
            }
            Self::FindPeer { peer, common } => {
                let client = common.client();
                let id = peer_id(&client, &peer).await?;
                (
                    None,
                    common.output,
                    Answer::FindPeer(client.find_peer(&id).await?),
                )
            }
            Self::Peers { common } => (None, common.output, Answer::Peers(common.client().peers().await?)),
            Self::Ping { peer, count, common } => {
                let client = common.client();
                let id = peer_id(&client, &peer).await?;
                (None, common.output, Answer::Ping(client.ping(&id, count).await?))
            }
            Self::Lines { common } => (Some(common.client()), common.output, Answer::Nothing),
        };
        match client {
            Some(client) => lines::run(&client, output, &mut io::stdin().lock(), &mut io::stdout()).await,
            None => {
                print(&mut io::stdout(), output, &answer)?;
                Ok(answer.exit_code())
            }
        }
    }
}

/// The id of a peer, given as such or as the name of a connected agent.
async fn peer_id(client: &Client, given: &str) -> Result<PeerId, Failure> {
    if let Ok(id) = given.parse() {
        return Ok(id);
    }
    let peers = client.peers().await?.peers;
    peers
        .iter()
        .find(|peer| peer.name.as_deref() == Some(given))
        .and_then(|peer| peer.peer_id.parse().ok())
        .ok_or_else(|| Failure::NotFound(format!("{given:?} is no peer id, and no connected agent's name")))
}

fn bytes(what: &str, given: &str, base64: bool) -> Result<Vec<u8>, Failure> {
    if !base64 {
        return Ok(given.as_bytes().to_vec());
    }
    text::decode(given).ok_or_else(|| Failure::Usage(format!("{what} is no base64")))
}

fn value_bytes(given: Option<String>, base64: bool) -> Result<Vec<u8>, Failure> {
    let given = match given {
        Some(given) if given != "-" => given.into_bytes(),
        _ => {
            // One byte more than may be shows that it is too much.
            let most = u64::try_from(Limits::DEFAULT.value_bytes * 2 + 1).unwrap_or(u64::MAX);
            let mut read = Vec::new();
            io::stdin().lock().take(most).read_to_end(&mut read)?;
            read
        }
    };
    if !base64 {
        return Ok(given);
    }
    let text = String::from_utf8(given).unwrap_or_default();
    text::decode(&text).ok_or_else(|| Failure::Usage("the value is no base64".to_owned()))
}
