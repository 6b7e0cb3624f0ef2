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
    Seeds,
    Bootstrap(PeerId, Transport, u16),
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
        match name.purpose {
            Purpose::Seeds => {
                let transport = self.config.first_transport();
                let port = self.config.port(transport);
                let seeds: Vec<Address> = found
                    .into_iter()
                    .take(planner::MAX_SEEDS)
                    .map(|ip| Address::new(transport, SocketAddr::new(ip, port)))
                    .collect();
                if seeds != self.seeds {
                    tracing::info!(
                        name = name.name,
                        addresses = seeds.len(),
                        "the name's addresses changed"
                    );
                    self.planner
                        .set_seeds(seeds.iter().chain(&self.config.seeds).copied());
                    self.seeds = seeds;
                }
            }
            Purpose::Bootstrap(peer, transport, port) => {
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
