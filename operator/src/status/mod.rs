//! The status that a network should show, and whether it says something new. Pure: `now` is an argument.
//!
//! The wall clock is a label here: it says when, and never whether something is fresh.

mod columns;
mod news;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peernet_api::{
    ports::Block,
    report::FoundBy,
    v1alpha1::{
        DiscoveryStatus, Distribution, ExternalStatus, FederatedStatus, HostPorts, Link, LossStatus,
        MAX_EXTERNAL_ROWS, MAX_NODE_ROWS, NetworkDistribution, NodeStatus, PathsStatus, PeerNetworkStatus,
        PeersStatus, PrivateNetworkStatus, RelayedPair, ReportOutcome, ServiceStatus, Stranger,
        StrangersStatus, TransportStatus, ZonePair, conditions::READY,
    },
};

pub use self::news::says_something_new;
use crate::{
    conditions::{self, Facts},
    measure::{External, Loss, MemberMeasurements, Numbers, Pair, Paths, Spread, TransportNumbers},
    pull::Pulled,
    roster::Member,
    strangers::Strangers,
};

/// Everything that a status is made of.
pub struct Input<'a> {
    /// Facts for the conditions: the roster, the reports and the measurements among them.
    pub facts: Facts<'a>,
    /// What is known of the hosts outside the network.
    pub external: &'a [External],
    /// Label selector of the pods.
    pub selector: String,
    /// Image that the nodes are to run, if known.
    pub image: Option<String>,
    /// The services that the spec names.
    pub services: &'a [String],
    /// The ports that the network has on its nodes, if it has any.
    pub host_ports: Option<Block>,
    /// Generation of the spec that this is about.
    pub generation: Option<i64>,
    /// The key of the private network, and who has it.
    pub private_network: Option<PrivateNetworkStatus>,
    /// Who was turned away.
    pub strangers: Strangers,
    /// The status that stands.
    pub previous: &'a PeerNetworkStatus,
    /// The time. Ages are those at this time.
    pub now: Timestamp,
}

/// Makes the status.
#[must_use]
pub fn compose(input: &Input<'_>) -> PeerNetworkStatus {
    let Input {
        facts, previous, now, ..
    } = input;
    let (roster, measured) = (facts.roster, facts.measured);
    let numbers = &measured.numbers;
    let labels = Labels { now: *now };
    let mut nodes: Vec<_> = roster
        .members
        .iter()
        .zip(facts.pulled)
        .zip(&measured.members)
        .map(|((member, pulled), measured)| labels.node_row(member, pulled, measured.as_ref()))
        .collect();
    let ready = nodes.iter().filter(|node| node.ready).count();
    nodes.sort_by_key(|node| {
        let connected = node.connected_peers.unwrap_or(0);
        (
            node.ready,
            node.report == ReportOutcome::Accepted,
            connected,
            node.name.clone(),
        )
    });
    let omitted = nodes.len().saturating_sub(MAX_NODE_ROWS);
    nodes.truncate(MAX_NODE_ROWS);
    let peers = measured.fewest_connected.map(|fewest| PeersStatus {
        expected: count(measured.expected_peers),
        fewest_connected: count(fewest),
    });
    let conditions = conditions::all(facts, &previous.conditions, input.generation, *now);
    let is_ready = conditions::is(&conditions, READY, "True");
    PeerNetworkStatus {
        observed_generation: input.generation,
        conditions,
        replicas: count(roster.existing),
        desired_replicas: count(roster.wanted),
        ready_replicas: count(ready),
        selector: Some(input.selector.clone()),
        guests: measured
            .guests
            .map(|guests| i32::try_from(guests).unwrap_or(i32::MAX)),
        paths: peers.is_some().then(|| labels.paths(&measured.paths)),
        host_ports: input.host_ports.map(|block| HostPorts {
            first: block.first.into(),
            last: block.last.into(),
        }),
        discovery: measured.found_by.as_ref().map(discovery),
        external: input
            .external
            .iter()
            .take(MAX_EXTERNAL_ROWS)
            .map(|host| labels.external(host))
            .collect(),
        rtt: numbers.rtt.as_ref().map(|rtt| labels.distribution(rtt)),
        warm: numbers.warm.as_ref().map(|warm| labels.distribution(warm)),
        network: numbers
            .network
            .as_ref()
            .map(|network| labels.network(network, numbers)),
        hosts: numbers.hosts.as_ref().map(|hosts| labels.distribution(hosts)),
        loss_ppm: numbers.loss.ppm,
        loss: labels.loss(&numbers.loss),
        transports: measured
            .transports
            .iter()
            .map(|over| labels.transport(over))
            .collect(),
        worst_links: measured
            .worst_links
            .iter()
            .filter_map(|pair| labels.link(pair))
            .collect(),
        zones: measured.zones.iter().map(|pair| labels.zone_pair(pair)).collect(),
        zones_omitted: some_of(measured.zones_omitted),
        nodes,
        nodes_omitted: some_of(omitted),
        private_network: input.private_network.clone(),
        strangers: labels.strangers(&input.strangers),
        services: input
            .services
            .iter()
            .map(|name| ServiceStatus {
                name: name.clone(),
                providers: measured
                    .services
                    .get(name)
                    .map(|number| i32::try_from(*number).unwrap_or(i32::MAX)),
            })
            .collect(),
        last_sample_time: measured.newest_sample_age().and_then(|age| labels.ago(age)),
        first_ready_time: previous
            .first_ready_time
            .clone()
            .or_else(|| (is_ready || was_whole(previous)).then(|| whole_second(*now))),
        columns: Some(columns::columns(
            ready,
            roster.wanted,
            peers.as_ref(),
            measured,
            input,
        )),
        peers,
    }
}

/// Whether the network was Ready once.
#[must_use]
pub fn was_whole(previous: &PeerNetworkStatus) -> bool {
    previous.first_ready_time.is_some() || conditions::is(&previous.conditions, READY, "True")
}

/// Turns ages into times of the wall clock.
struct Labels {
    now: Timestamp,
}

impl Labels {
    fn ago(&self, age: Duration) -> Option<Time> {
        self.now.checked_sub(age).ok().map(whole_second)
    }

    fn strangers(&self, strangers: &Strangers) -> Option<StrangersStatus> {
        let recent = strangers.recent.iter().filter_map(|stranger| {
            Some(Stranger {
                address: stranger.address.clone(),
                reason: stranger.reason,
                peer_id: stranger.peer_id.clone(),
                node: stranger.node.clone(),
                last_time: self.ago(stranger.age)?,
            })
        });
        let recent: Vec<_> = recent.collect();
        (!recent.is_empty()).then(|| StrangersStatus {
            turned_away: large_count(strangers.turned_away),
            recent,
        })
    }

    fn distribution(&self, spread: &Spread) -> Distribution {
        Distribution {
            p50_micros: spread.p50_micros,
            p90_micros: spread.p90_micros,
            p99_micros: spread.p99_micros,
            max_micros: spread.max_micros,
            samples: large_count(spread.samples),
            newest_sample_time: self.ago(spread.newest),
        }
    }

    fn network(&self, network: &Spread, numbers: &Numbers) -> NetworkDistribution {
        NetworkDistribution {
            times: self.distribution(network),
            clock: numbers.clock.unwrap_or_default(),
            host_limited: large_count(numbers.host_limited),
            voided: large_count(numbers.voided),
        }
    }

    fn paths(&self, paths: &Paths) -> PathsStatus {
        let distribution = |spread: Option<&Spread>| spread.map(|spread| self.distribution(spread));
        PathsStatus {
            direct: count(paths.direct),
            relayed: count(paths.relayed),
            relayed_rtt: distribution(paths.rtt.as_ref()),
            relayed_loss_ppm: paths.loss_ppm,
            relayed_pairs: paths
                .pairs
                .iter()
                .map(|pair| RelayedPair {
                    from: pair.from.clone(),
                    to: pair.to.clone(),
                    relay: pair.relay.clone(),
                    rtt_p50_micros: pair.rtt.as_ref().map(|rtt| rtt.p50_micros),
                    rtt_p99_micros: pair.rtt.as_ref().map(|rtt| rtt.p99_micros),
                    relay_rtt_p50_micros: pair.relay_p50_micros,
                    loss_ppm: pair.loss_ppm,
                    samples: pair.rtt.as_ref().map_or(0, |rtt| large_count(rtt.samples)),
                })
                .collect(),
            federated: paths.federated.as_ref().map(|federated| FederatedStatus {
                members: count(federated.members),
                direct: count(federated.direct),
                relayed: count(federated.relayed),
                rtt: distribution(federated.rtt.as_ref()),
                relayed_rtt: distribution(federated.relayed_rtt.as_ref()),
            }),
        }
    }

    fn loss(&self, loss: &Loss) -> Option<LossStatus> {
        let status = LossStatus {
            ppm: loss.ppm,
            probes: loss.newest.map(|_| large_count(loss.probes)),
            newest_probe_time: loss.newest.and_then(|age| self.ago(age)),
            tcp_retransmissions: loss.retransmitted.map(large_count),
            forward_ppm: loss.forward_ppm,
            backward_ppm: loss.backward_ppm,
            undirected_ppm: loss.undirected_ppm,
            udp_probes: loss.udp_newest.map(|_| large_count(loss.udp_probes)),
            newest_udp_probe_time: loss.udp_newest.and_then(|age| self.ago(age)),
        };
        (status != LossStatus::default()).then_some(status)
    }

    fn transport(&self, over: &TransportNumbers) -> TransportStatus {
        let rtt = over.rtt.as_ref();
        TransportStatus {
            transport: over.transport,
            expected_links: count(over.expected),
            connected_links: count(over.connected),
            rtt_p50_micros: rtt.map(|rtt| rtt.p50_micros),
            rtt_p99_micros: rtt.map(|rtt| rtt.p99_micros),
            warm_p50_micros: over.warm.as_ref().map(|warm| warm.p50_micros),
            samples: rtt.map_or(0, |rtt| large_count(rtt.samples)),
            newest_sample_time: rtt.and_then(|rtt| self.ago(rtt.newest)),
            loss_ppm: over.loss_ppm,
        }
    }

    fn link(&self, pair: &Pair) -> Option<Link> {
        let numbers = &pair.numbers;
        let rtt = numbers.rtt.as_ref()?;
        Some(Link {
            from: pair.from.clone(),
            to: pair.to.clone(),
            rtt_p99_micros: rtt.p99_micros,
            loss_ppm: numbers.loss.ppm,
            samples: large_count(rtt.samples),
            newest_sample_time: self.ago(rtt.newest),
            network_p99_micros: numbers.network.as_ref().map(|network| network.p99_micros),
            hosts_p99_micros: numbers.hosts.as_ref().map(|hosts| hosts.p99_micros),
            clock: numbers.clock,
            forward_loss_ppm: numbers.loss.forward_ppm,
            backward_loss_ppm: numbers.loss.backward_ppm,
            late_end: pair.late_end,
            breakdown: columns::breakdown(numbers),
        })
    }

    fn zone_pair(&self, pair: &Pair) -> ZonePair {
        let Numbers {
            rtt, network, clock, ..
        } = &pair.numbers;
        let newest = [rtt, network]
            .into_iter()
            .flatten()
            .map(|spread| spread.newest)
            .min();
        ZonePair {
            from: pair.from.clone(),
            to: pair.to.clone(),
            rtt_p50_micros: rtt.as_ref().map(|rtt| rtt.p50_micros),
            rtt_p99_micros: rtt.as_ref().map(|rtt| rtt.p99_micros),
            samples: rtt.as_ref().map_or(0, |rtt| large_count(rtt.samples)),
            newest_sample_time: newest.and_then(|age| self.ago(age)),
            network_p50_micros: network.as_ref().map(|network| network.p50_micros),
            network_p99_micros: network.as_ref().map(|network| network.p99_micros),
            network_samples: network.as_ref().map_or(0, |network| large_count(network.samples)),
            clock: *clock,
            loss_ppm: pair.numbers.loss.ppm,
        }
    }

    fn external(&self, host: &External) -> ExternalStatus {
        let rtt = host.rtt.as_ref();
        ExternalStatus {
            peer_id: host.peer_id.clone(),
            address: host.address.clone(),
            connected_nodes: count(host.connected),
            reporting_nodes: count(host.reporting),
            rtt_p50_micros: rtt.map(|rtt| rtt.p50_micros),
            rtt_p99_micros: rtt.map(|rtt| rtt.p99_micros),
            samples: rtt.map_or(0, |rtt| large_count(rtt.samples)),
            newest_sample_time: rtt.and_then(|rtt| self.ago(rtt.newest)),
            loss_ppm: host.loss_ppm,
        }
    }

    fn node_row(
        &self,
        member: &Member,
        pulled: &Pulled,
        measured: Option<&MemberMeasurements>,
    ) -> NodeStatus {
        let rtt = measured.and_then(|measured| measured.rtt.as_ref());
        NodeStatus {
            name: member.name.clone(),
            pod: member.pod.as_ref().map(|pod| pod.name.clone()),
            node_name: member.pod.as_ref().and_then(|pod| pod.node_name.clone()),
            peer_id: member.peer_id.clone(),
            ready: member.pod.as_ref().is_some_and(|pod| pod.ready),
            report: pulled.as_ref().err().copied().unwrap_or(ReportOutcome::Accepted),
            connected_peers: measured.map(|measured| count(measured.connected)),
            rtt_p99_micros: rtt.map(|rtt| rtt.p99_micros),
            newest_sample_time: rtt.and_then(|rtt| self.ago(rtt.newest)),
            host_delay_p99_micros: measured
                .and_then(|measured| Some(measured.host_delay.as_ref()?.p99_micros)),
            throttled_ppm: measured.and_then(|measured| measured.throttled_ppm),
            host_limited: measured.map(|measured| large_count(measured.host_limited)),
            reachable: measured.and_then(|measured| measured.reachable),
        }
    }
}

fn discovery(found_by: &BTreeMap<FoundBy, usize>) -> DiscoveryStatus {
    let pairs = |how| count(found_by.get(&how).copied().unwrap_or_default());
    DiscoveryStatus {
        dns: pairs(FoundBy::Dns),
        mdns: pairs(FoundBy::Mdns),
        kademlia: pairs(FoundBy::Kademlia),
        bootstrap: pairs(FoundBy::Bootstrap),
        relay: pairs(FoundBy::Relay),
        inbound: pairs(FoundBy::Inbound),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn large_count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn some_of(number: usize) -> Option<i32> {
    (number > 0).then(|| count(number))
}

/// The last whole second: a label is never later than what it labels.
fn whole_second(time: Timestamp) -> Time {
    let below = i64::from(time.subsec_nanosecond() < 0);
    Time(Timestamp::from_second(time.as_second() - below).unwrap_or(time))
}

#[cfg(test)]
mod tests;
