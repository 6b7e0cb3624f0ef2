//! Names that are looked up: what they stand for goes to the planner.

use std::net::SocketAddr;

use libp2p::PeerId;
use peernet_api::transport::Transport;

use super::EventLoop;
use crate::discovery::{Address, dns::Resolution, planner};

/// What a name that is looked up is for.
pub(super) struct Name {
    pub(super) name: String,
    pub(super) purpose: Purpose,
    pub(super) failing: bool,
}

pub(super) enum Purpose {
    /// Agents, at this port, with what was found last.
    Seeds {
        port: u16,
        found: Vec<Address>,
    },
    Bootstrap(PeerId, Transport, u16),
}

impl Name {
    pub(super) fn new(name: &str, purpose: Purpose) -> Self {
        Self {
            name: name.to_owned(),
            purpose,
            failing: false,
        }
    }
}

impl EventLoop {
    pub(super) fn on_resolution(&mut self, Resolution { key, addresses }: Resolution) {
        let Some(name) = self.names.get_mut(key) else {
            return;
        };
        let found = match addresses {
            Ok(found) => found,
            Err(error) => {
                if !name.failing {
                    tracing::info!(name = name.name, %error, "a name can't be looked up: trying on");
                }
                name.failing = true;
                return;
            }
        };
        if std::mem::take(&mut name.failing) {
            tracing::info!(name = name.name, "the name can be looked up again");
        }
        match &mut name.purpose {
            Purpose::Seeds { port, found: before } => {
                let transport = self.config.first_transport();
                let port = *port;
                let seeds: Vec<Address> = found
                    .into_iter()
                    .take(planner::MAX_SEEDS)
                    .map(|ip| Address::new(transport, SocketAddr::new(ip, port)))
                    .collect();
                if seeds != *before {
                    tracing::info!(
                        name = name.name,
                        addresses = seeds.len(),
                        "the name's addresses changed"
                    );
                    *before = seeds;
                    let all = self.names.iter().flat_map(|name| match &name.purpose {
                        Purpose::Seeds { found, .. } => found.as_slice(),
                        Purpose::Bootstrap(..) => &[],
                    });
                    self.planner.set_seeds(all.chain(&self.config.seeds).copied());
                }
            }
            Purpose::Bootstrap(peer, transport, port) => {
                let (peer, transport, port) = (*peer, *transport, *port);
                self.planner.resolved(
                    peer,
                    found
                        .into_iter()
                        .map(|ip| Address::new(transport, SocketAddr::new(ip, port)))
                        .collect(),
                );
            }
        }
    }
}
