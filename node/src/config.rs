//! The agent's configuration: the only reader of flags, environment and files.

mod private;
mod values;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use libp2p::{Multiaddr, PeerId, StreamProtocol, multiaddr::Protocol};
use peernet_api::{
    identity::NetworkSecret,
    ports,
    report::{self, StampClock},
    transport::Transport,
};

pub use self::private::{Private, swarm_keys};
use self::values::{
    any_port, bootstrap_peers, count, count_or_none, flag, invalid, kademlia_protocol, mebibytes, name,
    network, pod_ip, port, seed_names, seeds, serves, services, stamp_clock, time, transports,
};
use crate::{discovery::Address, relay};

const INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3600));
/// Longer round trips would all look alike in a report.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(60));
/// Pings in one probe, at most.
const BURST: usize = 16;
/// Guests at a time, at most.
const MAX_GUESTS: usize = 256;
/// Bounds of what a relay may be told to allow.
const RESERVATIONS: usize = 1024;
const CIRCUITS: usize = 4096;
const CIRCUITS_PER_PEER: usize = 128;
/// Shorter ones would be replaced all the time.
const CIRCUIT_DURATION: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(7 * 24 * 3600));
const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// The settings of an agent, as text.
#[derive(Debug, Default, Parser)]
pub struct Args {
    /// The network, as namespace/name.
    #[arg(long, env = "PEERNET_NETWORK", default_value = "")]
    pub network: String,
    /// The name that this agent's identity is derived from: its pod's name, or its node's in a DaemonSet.
    #[arg(long, env = "PEERNET_NAME", default_value = "")]
    pub name: String,
    /// The address that the others reach this agent at. Without it, the agent listens on all addresses.
    #[arg(long, env = "PEERNET_POD_IP", default_value = "")]
    pub pod_ip: String,
    /// File with the network's secret: 32 bytes.
    #[arg(
        long,
        env = "PEERNET_SECRET_FILE",
        default_value = "/etc/peernet/secret/network-secret"
    )]
    pub secret_file: PathBuf,
    /// What to speak libp2p over: TCP, QUIC and WebSocket, separated by commas. Each is measured by itself; the report's
    /// own numbers are the first one's.
    #[arg(long, env = "PEERNET_TRANSPORTS", default_value = "TCP")]
    pub transports: String,
    /// Port for libp2p: of TCP, and of UDP for QUIC.
    #[arg(long, env = "PEERNET_P2P_PORT", default_value = "4001")]
    pub p2p_port: String,
    /// TCP port for libp2p over WebSocket.
    #[arg(long, env = "PEERNET_WEBSOCKET_PORT", default_value = "4002")]
    pub websocket_port: String,
    /// TCP port for HTTP: report, metrics and health.
    #[arg(long, env = "PEERNET_HTTP_PORT", default_value = "8080")]
    pub http_port: String,
    /// TCP port for the API: records, services, peers. 0 takes any free port.
    #[arg(long, env = "PEERNET_API_PORT", default_value = "8081")]
    pub api_port: String,
    /// Whether anybody may use the API, or only who is on this host or in this pod.
    #[arg(long, env = "PEERNET_API_OPEN", default_value = "false")]
    pub api_open: String,
    /// Services that this agent advertises, separated by commas.
    #[arg(long, env = "PEERNET_SERVICES", default_value = "")]
    pub services: String,
    /// How many ports further on those of the agent with the next ordinal are. 0: all have the same.
    #[arg(long, env = "PEERNET_PORT_STEP", default_value = "0")]
    pub port_step: String,
    /// Which of the agents on its host's network this is, from 0: its ports are so many steps further on.
    #[arg(long, env = "PEERNET_ORDINAL", default_value = "0")]
    pub ordinal: String,
    /// Ask the agent that runs with these settings for this path, /readyz or /livez, and end with its answer.
    #[arg(long, value_name = "PATH")]
    pub check: Option<String>,
    /// File in which to leave a word when the agent ends by an error.
    #[arg(long, env = "PEERNET_TERMINATION_LOG", default_value = "")]
    pub termination_log: String,
    /// Time between two probes to one peer.
    #[arg(long, env = "PEERNET_PROBE_INTERVAL", default_value = "1s")]
    pub probe_interval: String,
    /// An answer that takes this long is a loss.
    #[arg(long, env = "PEERNET_PROBE_TIMEOUT", default_value = "2s")]
    pub probe_timeout: String,
    /// Length of the sliding window that reports cover.
    #[arg(long, env = "PEERNET_PROBE_WINDOW", default_value = "5m")]
    pub probe_window: String,
    /// Pings in one probe, one after the other: the first answer is the cold time, the smallest the warm time.
    #[arg(long, env = "PEERNET_PROBE_BURST", default_value = "5")]
    pub probe_burst: String,
    /// Whether to measure the network's own time by STAMP (RFC 8762), and to answer the other members' STAMP probes.
    #[arg(long, env = "PEERNET_STAMP", default_value = "true")]
    pub stamp: String,
    /// UDP port on which STAMP probes are answered. 0 takes any free port.
    #[arg(long, env = "PEERNET_STAMP_PORT", default_value = "8620")]
    pub stamp_port: String,
    /// Whether to answer unauthenticated STAMP probes of anybody, too.
    #[arg(long, env = "PEERNET_STAMP_OPEN", default_value = "false")]
    pub stamp_open: String,
    /// What to stamp STAMP's packets by: kernel, or userSpace as if the kernel gave no stamps. For tests.
    #[arg(long, env = "PEERNET_STAMP_CLOCK", default_value = "kernel", hide = true)]
    pub stamp_clock: String,
    /// Most peers that this agent dials.
    #[arg(long, env = "PEERNET_PEERS_PER_NODE", default_value = "64")]
    pub peers_per_node: String,
    /// Names that stand for the addresses of agents, separated by commas: that of a headless Service, or those of agents. A name
    /// may end in :port; without it, agents have the same port as this one.
    #[arg(long, env = "PEERNET_SEED_DNS", default_value = "")]
    pub seed_dns: String,
    /// Addresses of agents known beforehand, as address:port of the first transport, separated by commas.
    #[arg(long, env = "PEERNET_SEEDS", default_value = "")]
    pub seeds: String,
    /// Whether to look for peers on the local network.
    #[arg(long, env = "PEERNET_MDNS", default_value = "true")]
    pub mdns: String,
    /// Whether members tell each other of members.
    #[arg(long, env = "PEERNET_KADEMLIA", default_value = "true")]
    pub kademlia: String,
    /// Name of the Kademlia protocol. Without it, one of the network's own.
    #[arg(long, env = "PEERNET_KADEMLIA_PROTOCOL", default_value = "")]
    pub kademlia_protocol: String,
    /// Peers that are dialed for ever, as multiaddrs that end in /p2p/PEER-ID, separated by commas.
    #[arg(long, env = "PEERNET_BOOTSTRAP_PEERS", default_value = "")]
    pub bootstrap_peers: String,
    /// Whether only those may connect who have the private network's key.
    #[arg(long, env = "PEERNET_PRIVATE_NETWORK", default_value = "false")]
    pub private_network: String,
    /// File with the private network's key. Without it, the key follows from the network's secret.
    #[arg(long, env = "PEERNET_SWARM_KEY_FILE", default_value = "")]
    pub swarm_key_file: String,
    /// Guests to receive at a time: libp2p hosts that are no members, may connect, identify themselves, ping this agent and
    /// ask the DHT, and are in no number. 0 turns all of them away.
    #[arg(long, env = "PEERNET_GUESTS", default_value = "0")]
    pub guests: String,
    /// Whether to reach members through others that relay, where no direct connection can be had.
    #[arg(long, env = "PEERNET_RELAY", default_value = "false")]
    pub relay: String,
    /// Which agents relay: those whose name ends in a number below this one, or all, or none of them with 0.
    #[arg(long, env = "PEERNET_RELAY_SERVERS", default_value = "0")]
    pub relay_servers: String,
    /// Members that may be reached through this agent at a time.
    #[arg(long, env = "PEERNET_RELAY_RESERVATIONS", default_value = "128")]
    pub relay_reservations: String,
    /// Circuits through this agent at a time.
    #[arg(long, env = "PEERNET_RELAY_CIRCUITS", default_value = "256")]
    pub relay_circuits: String,
    /// Circuits through this agent that one member may have at a time.
    #[arg(long, env = "PEERNET_RELAY_CIRCUITS_PER_PEER", default_value = "64")]
    pub relay_circuits_per_peer: String,
    /// A circuit through this agent ends after this time.
    #[arg(long, env = "PEERNET_RELAY_CIRCUIT_DURATION", default_value = "1h")]
    pub relay_circuit_duration: String,
    /// A circuit through this agent ends after so many mebibytes, both directions together.
    #[arg(long, env = "PEERNET_RELAY_CIRCUIT_MEBIBYTES", default_value = "64")]
    pub relay_circuit_mebibytes: String,
    /// How to write the log: json or text.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    pub log_format: String,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network, as `namespace/name`.
    pub network: String,
    /// The name that the agent's identity is derived from.
    pub name: String,
    /// The network's secret.
    pub secret: NetworkSecret,
    /// Where to listen for libp2p. All addresses, if there is none.
    pub listen: Option<IpAddr>,
    /// What to speak libp2p over, each once. At least one; the first is what the report's own numbers are of.
    pub transports: Vec<Transport>,
    /// Port for libp2p over TCP, and over QUIC. 0: any.
    pub p2p_port: u16,
    /// Port for libp2p over WebSocket. 0: any.
    pub websocket_port: u16,
    /// Where to serve HTTP. All addresses, if there is none.
    pub http: Option<SocketAddr>,
    /// TCP port for HTTP, unless [`Config::http`] has one.
    pub http_port: u16,
    /// TCP port for the API. 0: any.
    pub api_port: u16,
    /// Whether the API listens on all addresses, or on loopback alone.
    pub api_open: bool,
    /// Services that this agent advertises.
    pub services: Vec<String>,
    /// The pace of probes.
    pub probe: Probe,
    /// Whether to measure the network's own time by STAMP, and to answer the other members' STAMP probes.
    pub stamp: bool,
    /// UDP port on which STAMP probes are answered. 0: any.
    pub stamp_port: u16,
    /// Whether to answer unauthenticated STAMP probes of anybody, too.
    pub stamp_open: bool,
    /// What to stamp STAMP's packets by.
    pub stamp_clock: StampClock,
    /// Most peers to dial.
    pub peers_per_node: usize,
    /// Names that stand for the addresses of agents.
    pub seed_dns: Vec<SeedName>,
    /// Addresses of agents known beforehand.
    pub seeds: Vec<Address>,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Whether members tell each other of members.
    pub kademlia: bool,
    /// Name of the Kademlia protocol, if it is not the network's own.
    pub kademlia_protocol: Option<StreamProtocol>,
    /// Peers that are dialed for ever.
    pub bootstrap: Vec<Bootstrap>,
    /// The private network, if it is one.
    pub private: Option<Private>,
    /// Guests to receive at a time, at most.
    pub guests: usize,
    /// Whether and how to use relays.
    pub relay: Option<relay::Config>,
}

/// The pace of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Time between two probes to one peer.
    pub interval: Duration,
    /// An answer that takes this long is a loss.
    pub timeout: Duration,
    /// Length of the sliding window.
    pub window: Duration,
    /// Pings in one probe, at least one.
    pub burst: usize,
}

/// A name that stands for the addresses of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedName {
    /// What is looked up.
    pub name: String,
    /// Their libp2p port, if it is not ours.
    pub port: Option<u16>,
}

/// A peer that is dialed for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Its id.
    pub peer: PeerId,
    /// Where it is.
    pub place: Place,
}

/// Where a bootstrap peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an address.
    Address(Address),
    /// At a name that is to be looked up, and a transport's port.
    Name(Transport, String, u16),
}

impl Bootstrap {
    /// Where it is, as a multiaddr.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.place {
            Place::Address(address) => Multiaddr::from(*address).to_string(),
            Place::Name(transport, name, port) => {
                // Behind a name stands what would stand behind an address.
                let stand_in = Multiaddr::from(Address::new(*transport, ([0, 0, 0, 0], *port).into()));
                let name = Multiaddr::from(Protocol::Dns(name.into()));
                stand_in.iter().skip(1).fold(name, Multiaddr::with).to_string()
            }
        }
    }
}

/// Which format the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// A setting that can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{variable}: {problem}")]
pub struct Invalid {
    /// The environment variable.
    pub variable: &'static str,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

impl Args {
    /// The log's format.
    ///
    /// # Errors
    /// If it is neither `json` nor `text`.
    pub fn log_format(&self) -> Result<LogFormat, Invalid> {
        match self.log_format.as_str() {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            other => invalid(
                "LOG_FORMAT",
                format!("{other:?} is no log format: write json or text"),
            ),
        }
    }

    /// Checks all settings and reads the secret.
    ///
    /// # Errors
    /// The first setting that can't be used, by the name of its variable.
    pub fn config(&self) -> Result<Config, Invalid> {
        let secret = self.secret()?;
        let key_file = (!self.swarm_key_file.is_empty()).then(|| Path::new(&self.swarm_key_file));
        let is_private = flag("PEERNET_PRIVATE_NETWORK", &self.private_network)?;
        let transports = transports(&self.transports)?;
        let first_transport = transports.first().copied().unwrap_or_default();
        let config = Config {
            network: network(&self.network)?,
            name: name(&self.name)?,
            private: private::private(is_private, key_file, &secret)?,
            secret,
            listen: pod_ip(&self.pod_ip)?,
            transports,
            p2p_port: self.own_port("PEERNET_P2P_PORT", port("PEERNET_P2P_PORT", &self.p2p_port)?)?,
            websocket_port: self.own_port(
                "PEERNET_WEBSOCKET_PORT",
                port("PEERNET_WEBSOCKET_PORT", &self.websocket_port)?,
            )?,
            http: None,
            http_port: self.own_http_port()?,
            api_port: self.own_port("PEERNET_API_PORT", any_port("PEERNET_API_PORT", &self.api_port)?)?,
            api_open: flag("PEERNET_API_OPEN", &self.api_open)?,
            services: services(&self.services)?,
            probe: Probe {
                interval: time("PEERNET_PROBE_INTERVAL", &self.probe_interval, INTERVAL)?,
                timeout: time("PEERNET_PROBE_TIMEOUT", &self.probe_timeout, TIMEOUT)?,
                window: time("PEERNET_PROBE_WINDOW", &self.probe_window, WINDOW)?,
                burst: count("PEERNET_PROBE_BURST", &self.probe_burst, BURST)?,
            },
            stamp: flag("PEERNET_STAMP", &self.stamp)?,
            stamp_port: self.own_port(
                "PEERNET_STAMP_PORT",
                any_port("PEERNET_STAMP_PORT", &self.stamp_port)?,
            )?,
            stamp_open: flag("PEERNET_STAMP_OPEN", &self.stamp_open)?,
            stamp_clock: stamp_clock(&self.stamp_clock)?,
            peers_per_node: count("PEERNET_PEERS_PER_NODE", &self.peers_per_node, report::MAX_PEERS)?,
            seed_dns: seed_names(&self.seed_dns)?,
            seeds: seeds(&self.seeds, first_transport)?,
            mdns: flag("PEERNET_MDNS", &self.mdns)?,
            kademlia: flag("PEERNET_KADEMLIA", &self.kademlia)?,
            kademlia_protocol: kademlia_protocol(&self.kademlia_protocol)?,
            bootstrap: bootstrap_peers(&self.bootstrap_peers)?,
            guests: count_or_none("PEERNET_GUESTS", &self.guests, MAX_GUESTS)?,
            relay: self.relay()?,
        };
        if config.private.is_some() && config.transports.contains(&Transport::Quic) {
            return invalid(
                "PEERNET_TRANSPORTS",
                "QUIC can't be part of a private network: leave it out, or turn PEERNET_PRIVATE_NETWORK off",
            );
        }
        if config.transports.contains(&Transport::Tcp)
            && config.transports.contains(&Transport::WebSocket)
            && config.websocket_port == config.p2p_port
        {
            return invalid(
                "PEERNET_WEBSOCKET_PORT",
                format!("{} is TCP's port already: write another one", self.websocket_port),
            );
        }
        if let Some(known) = config
            .bootstrap
            .iter()
            .find(|known| !known.place.is_over(&config.transports))
        {
            return invalid(
                "PEERNET_BOOTSTRAP_PEERS",
                format!(
                    "{} is at a transport that PEERNET_TRANSPORTS does not list",
                    known.peer
                ),
            );
        }
        if config.probe.window < config.probe.interval {
            return invalid(
                "PEERNET_PROBE_WINDOW",
                format!(
                    "{} is shorter than the probe interval {}",
                    self.probe_window, self.probe_interval
                ),
            );
        }
        Ok(config)
    }

    fn relay(&self) -> Result<Option<relay::Config>, Invalid> {
        let relays = flag("PEERNET_RELAY", &self.relay)?;
        let serves = serves("PEERNET_RELAY_SERVERS", &self.relay_servers, &self.name)?;
        let limits = relay::Limits {
            reservations: count(
                "PEERNET_RELAY_RESERVATIONS",
                &self.relay_reservations,
                RESERVATIONS,
            )?,
            circuits: count("PEERNET_RELAY_CIRCUITS", &self.relay_circuits, CIRCUITS)?,
            circuits_per_peer: count(
                "PEERNET_RELAY_CIRCUITS_PER_PEER",
                &self.relay_circuits_per_peer,
                CIRCUITS_PER_PEER,
            )?,
            circuit_duration: time(
                "PEERNET_RELAY_CIRCUIT_DURATION",
                &self.relay_circuit_duration,
                CIRCUIT_DURATION,
            )?,
            circuit_bytes: mebibytes("PEERNET_RELAY_CIRCUIT_MEBIBYTES", &self.relay_circuit_mebibytes)?,
        };
        Ok(relays.then(|| relay::Config {
            serve: serves.then_some(limits),
        }))
    }

    /// The HTTP port of this very agent.
    ///
    /// # Errors
    /// If the settings don't say one.
    pub fn own_http_port(&self) -> Result<u16, Invalid> {
        let variable = "PEERNET_HTTP_PORT";
        self.own_port(variable, port(variable, &self.http_port)?)
    }

    /// The port of this very agent, where `first` is that of the agent with ordinal 0. Any port stays any.
    fn own_port(&self, variable: &'static str, first: u16) -> Result<u16, Invalid> {
        let step = any_port("PEERNET_PORT_STEP", &self.port_step)?;
        let ordinal = any_port("PEERNET_ORDINAL", &self.ordinal)?;
        if first == 0 {
            return Ok(0);
        }
        ports::of_ordinal(first, step, ordinal).map_or_else(
            || {
                invalid(
                    variable,
                    format!("{first} and {ordinal} steps of {step} go beyond 65535"),
                )
            },
            Ok,
        )
    }

    fn secret(&self) -> Result<NetworkSecret, Invalid> {
        let variable = "PEERNET_SECRET_FILE";
        let path = self.secret_file.display();
        let bytes = match std::fs::read(&self.secret_file) {
            Ok(bytes) => bytes,
            Err(error) => return invalid(variable, format!("failed to read {path}: {error}")),
        };
        NetworkSecret::new(&bytes)
            .or_else(|error| invalid(variable, format!("{path} holds no network secret: {error}")))
    }
}

impl Place {
    fn is_over(&self, transports: &[Transport]) -> bool {
        match self {
            Self::Address(address) => transports.contains(&address.transport()),
            Self::Name(transport, ..) => transports.contains(transport),
        }
    }
}

impl Config {
    /// The transport that members are looked for over first, and that the report's own numbers are of.
    #[must_use]
    pub fn first_transport(&self) -> Transport {
        self.transports.first().copied().unwrap_or_default()
    }

    /// The port that a transport listens on.
    #[must_use]
    pub fn port(&self, transport: Transport) -> u16 {
        match transport {
            Transport::Tcp | Transport::Quic => self.p2p_port,
            Transport::WebSocket => self.websocket_port,
        }
    }

    /// The name of the Kademlia protocol, if it is on. Other networks have other names, unless they are given the same.
    #[must_use]
    pub fn kad_protocol(&self) -> Option<StreamProtocol> {
        if let Some(given) = &self.kademlia_protocol {
            return self.kademlia.then(|| given.clone());
        }
        let name = format!("/peernet/{}/kad/1.0.0", self.network);
        self.kademlia
            .then(|| StreamProtocol::try_from_owned(name).ok())
            .flatten()
    }
}

#[cfg(test)]
mod tests;
