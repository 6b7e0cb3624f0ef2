//! The values of settings: text in, a value or one sentence on what is wrong with it out. Pure.

use std::{net::IpAddr, time::Duration};

use libp2p::{Multiaddr, StreamProtocol, multiaddr::Protocol};
use peernet_api::{
    duration,
    report::{MAX_SERVICE_NAME, MAX_SERVICES, StampClock},
    transport::Transport,
};

use super::{Bootstrap, Invalid, Place, SeedName};
use crate::{discovery::Address, membership, transport::is_built};

/// Bootstrap peers, at most.
const MAX_BOOTSTRAP: usize = 16;
/// Names of agents that are looked up, at most.
const MAX_SEED_NAMES: usize = 16;
/// Addresses given beforehand, at most.
const MAX_SEEDS: usize = 256;

pub(super) fn invalid<T>(variable: &'static str, problem: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid {
        variable,
        problem: problem.into(),
    })
}

pub(super) fn network(text: &str) -> Result<String, Invalid> {
    match text.split_once('/') {
        Some((namespace, name)) if membership::is_name(namespace) && membership::is_name(name) => {
            Ok(text.to_owned())
        }
        _ => invalid(
            "PEERNET_NETWORK",
            format!("{text:?} is no network: write namespace/name"),
        ),
    }
}

pub(super) fn name(text: &str) -> Result<String, Invalid> {
    if membership::is_name(text) {
        return Ok(text.to_owned());
    }
    invalid(
        "PEERNET_NAME",
        format!("{text:?} is no name: it needs 1 to 253 of the characters a-z, 0-9, - and ."),
    )
}

pub(super) fn pod_ip(text: &str) -> Result<Option<IpAddr>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => Ok(Some(ip)),
        _ => invalid(
            "PEERNET_POD_IP",
            format!("{text:?} is no IP address that others could reach"),
        ),
    }
}

pub(super) fn port(variable: &'static str, text: &str) -> Result<u16, Invalid> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => invalid(
            variable,
            format!("{text:?} is no port: write a number from 1 to 65535"),
        ),
    }
}

pub(super) fn transports(text: &str) -> Result<Vec<Transport>, Invalid> {
    let variable = "PEERNET_TRANSPORTS";
    let mut transports: Vec<Transport> = Vec::new();
    for item in items(text) {
        let transport: Transport = item
            .parse()
            .or_else(|error| invalid(variable, format!("{error}")))?;
        if !is_built(transport) {
            return invalid(variable, format!("this agent was built without {transport}"));
        }
        if transports.contains(&transport) {
            return invalid(variable, format!("{transport} is there twice"));
        }
        transports.push(transport);
    }
    if transports.is_empty() {
        return invalid(variable, "none is given: write for example TCP or TCP,QUIC");
    }
    Ok(transports)
}

/// A port, or 0 for whichever is free.
pub(super) fn any_port(variable: &'static str, text: &str) -> Result<u16, Invalid> {
    text.parse().or_else(|_| {
        invalid(
            variable,
            format!("{text:?} is no port: write a number from 0 to 65535"),
        )
    })
}

pub(super) fn time(
    variable: &'static str,
    text: &str,
    (least, most): (Duration, Duration),
) -> Result<Duration, Invalid> {
    let time = duration::parse(text).or_else(|error| invalid(variable, error.to_string()))?;
    if time < least || time > most {
        return invalid(
            variable,
            format!("{text} is out of range: it may be from {least:?} to {most:?}"),
        );
    }
    Ok(time)
}

/// A number from 1 to `most`.
pub(super) fn count(variable: &'static str, text: &str, most: usize) -> Result<usize, Invalid> {
    match text.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => invalid(
            variable,
            format!("{text:?} is out of range: write a number from 1 to {most}"),
        ),
    }
}

/// A number from 0 to `most`.
pub(super) fn count_or_none(variable: &'static str, text: &str, most: usize) -> Result<usize, Invalid> {
    match text.parse() {
        Ok(count) if count <= most => Ok(count),
        _ => invalid(
            variable,
            format!("{text:?} is out of range: write a number from 0 to {most}"),
        ),
    }
}

/// Bytes, given in mebibytes from 1 to 1 TiB.
pub(super) fn mebibytes(variable: &'static str, text: &str) -> Result<u64, Invalid> {
    let mebibytes = count(variable, text, 1 << 20)?;
    Ok(u64::try_from(mebibytes).unwrap_or(u64::MAX) << 20)
}

/// Whether the agent of this name is one of the first so many, by the number that its name ends in, as a StatefulSet's pods
/// have it. `all`: whatever its name is.
pub(super) fn serves(variable: &'static str, text: &str, name: &str) -> Result<bool, Invalid> {
    if text == "all" {
        return Ok(true);
    }
    let Ok(first) = text.parse::<u32>() else {
        return invalid(
            variable,
            format!("{text:?} is no number of agents: write a number, or all"),
        );
    };
    let ordinal = name
        .rsplit_once('-')
        .and_then(|(_, ordinal)| ordinal.parse::<u32>().ok());
    Ok(ordinal.is_some_and(|ordinal| ordinal < first))
}

pub(super) fn flag(variable: &'static str, text: &str) -> Result<bool, Invalid> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => invalid(variable, format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn stamp_clock(text: &str) -> Result<StampClock, Invalid> {
    match text {
        "kernel" => Ok(StampClock::Kernel),
        "userSpace" => Ok(StampClock::UserSpace),
        _ => invalid(
            "PEERNET_STAMP_CLOCK",
            format!("{text:?} is no clock: write kernel or userSpace"),
        ),
    }
}

/// A protocol's name, if one is given.
pub(super) fn kademlia_protocol(text: &str) -> Result<Option<StreamProtocol>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    StreamProtocol::try_from_owned(text.to_owned())
        .map(Some)
        .or_else(|_| {
            invalid(
                "PEERNET_KADEMLIA_PROTOCOL",
                format!("{text:?} is no protocol: its name must begin with /"),
            )
        })
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

pub(super) fn seed_names(text: &str) -> Result<Vec<SeedName>, Invalid> {
    let variable = "PEERNET_SEED_DNS";
    if items(text).count() > MAX_SEED_NAMES {
        return invalid(variable, format!("at most {MAX_SEED_NAMES} names are allowed"));
    }
    items(text)
        .map(|item| match item.rsplit_once(':') {
            None => Ok(SeedName {
                name: item.to_owned(),
                port: None,
            }),
            Some((name, port)) => match port.parse() {
                Ok(port) if port > 0 => Ok(SeedName {
                    name: name.to_owned(),
                    port: Some(port),
                }),
                _ => invalid(
                    variable,
                    format!("{item:?} does not end in a port from 1 to 65535"),
                ),
            },
        })
        .collect()
}

/// Where agents listen on this transport.
pub(super) fn seeds(text: &str, transport: Transport) -> Result<Vec<Address>, Invalid> {
    let variable = "PEERNET_SEEDS";
    if items(text).count() > MAX_SEEDS {
        return invalid(variable, format!("at most {MAX_SEEDS} addresses are allowed"));
    }
    items(text)
        .map(|item| {
            item.parse()
                .map(|socket| Address::new(transport, socket))
                .or_else(|_| invalid(variable, format!("{item:?} is no address:port")))
        })
        .collect()
}

pub(super) fn services(text: &str) -> Result<Vec<String>, Invalid> {
    let variable = "PEERNET_SERVICES";
    if items(text).count() > MAX_SERVICES {
        return invalid(variable, format!("at most {MAX_SERVICES} services are allowed"));
    }
    let mut services: Vec<String> = Vec::new();
    for name in items(text) {
        if name.len() > MAX_SERVICE_NAME {
            return invalid(
                variable,
                format!("{name:?} is too long: a service's name has at most {MAX_SERVICE_NAME} bytes"),
            );
        }
        if !services.iter().any(|known| known == name) {
            services.push(name.to_owned());
        }
    }
    Ok(services)
}

pub(super) fn bootstrap_peers(text: &str) -> Result<Vec<Bootstrap>, Invalid> {
    if items(text).count() > MAX_BOOTSTRAP {
        return invalid(
            "PEERNET_BOOTSTRAP_PEERS",
            format!("at most {MAX_BOOTSTRAP} peers are allowed"),
        );
    }
    items(text).map(bootstrap_peer).collect()
}

fn bootstrap_peer(text: &str) -> Result<Bootstrap, Invalid> {
    let variable = "PEERNET_BOOTSTRAP_PEERS";
    let hint =
        "write for example /ip4/192.0.2.1/tcp/4001/p2p/PEER-ID or /dns4/a.example.com/tcp/4001/p2p/PEER-ID";
    let address: Multiaddr = text
        .parse()
        .or_else(|error| invalid(variable, format!("{text:?} is no multiaddr ({error}): {hint}")))?;
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return invalid(variable, format!("{text:?} does not end in /p2p/PEER-ID: {hint}"));
    };
    let place = match (Address::parse(&address), address.iter().next()) {
        (Some(address), _) => Some(Place::Address(address)),
        (None, Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name))) => {
            // Behind a name stands what could stand behind an address.
            let stand_in = Multiaddr::from(IpAddr::from([0, 0, 0, 0]));
            let stand_in = address.iter().skip(1).fold(stand_in, Multiaddr::with);
            Address::parse(&stand_in).map(|found| {
                let port = found.socket().port();
                Place::Name(found.transport(), name.to_string(), port)
            })
        }
        _ => None,
    };
    let Some(place) = place else {
        return invalid(
            variable,
            format!("{text:?} is no address of TCP, QUIC or WebSocket: {hint}"),
        );
    };
    Ok(Bootstrap { peer, place })
}
