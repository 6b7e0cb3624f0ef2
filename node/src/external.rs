//! The hosts outside the network: bootstrap peers that are no members. Measured like members, and in no number of theirs.

use std::time::Duration;

use libp2p::PeerId;
use peernet_api::{
    report::{ExternalReport, PeerReport},
    transport::Transport,
};

use crate::{
    config::Bootstrap,
    ledger::{Ledger, Member, Moment},
    ping::{News, Over},
};

/// What is measured of them.
#[derive(Debug)]
pub struct External {
    hosts: Vec<Bootstrap>,
    ledger: Ledger,
}

impl External {
    /// Nothing measured yet of these hosts, over a window of this length.
    #[must_use]
    pub fn new(hosts: &[Bootstrap], window: Duration) -> Self {
        let mut hosts = hosts.to_vec();
        hosts.truncate(peernet_api::report::MAX_EXTERNAL);
        // Each has one connection, and one series of numbers whatever that runs over.
        let ledger = Ledger::new(window, &[Transport::default()]);
        Self { hosts, ledger }
    }

    /// Whether a peer is one of the hosts.
    #[must_use]
    pub fn has(&self, peer: &PeerId) -> bool {
        self.hosts.iter().any(|host| host.peer == *peer)
    }

    /// Takes the list of those that have a connection now.
    pub fn set_connected(&mut self, connected: &[Member], now: Moment) {
        self.ledger.set_members(connected, now);
    }

    /// Counts news of a probe. Members relay for members only: there is no way to these hosts but the direct one.
    pub fn record(&mut self, peer: &PeerId, news: News, sent: Moment, at: Moment) {
        let over = Over::Direct(self.ledger.first_transport());
        self.ledger.record(peer, over, news, sent, at);
    }

    /// A row for each host that is none of these members, reached or not.
    #[must_use]
    pub fn rows(&self, members: &[PeerReport], now: Moment) -> Vec<ExternalReport> {
        let measured = self.ledger.rows(now);
        let mut rows: Vec<ExternalReport> = Vec::new();
        for host in &self.hosts {
            let peer_id = host.peer.to_string();
            if members.iter().any(|member| member.peer_id == peer_id)
                || rows.iter().any(|row| row.peer_id == peer_id)
            {
                continue;
            }
            let row = measured.iter().find(|row| row.peer_id == peer_id);
            let row = row.cloned().unwrap_or_default();
            rows.push(ExternalReport {
                peer_id,
                address: host.address(),
                connected: row.connected,
                answered: row.answered,
                timed_out: row.timed_out,
                failed: row.failed,
                newest_sample_age_millis: row.newest_sample_age_millis,
                newest_probe_age_millis: row.newest_probe_age_millis,
                rtt: row.rtt,
            });
        }
        rows
    }
}
