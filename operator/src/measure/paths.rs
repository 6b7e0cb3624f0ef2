//! By which ways the members are connected: directly, or through relays. And the members of federated networks, which share
//! the secret and are in no other number.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use peernet_api::{
    report::{Path, PeerReport},
    v1alpha1::MAX_RELAYED_PAIRS,
};

use super::{
    latency::{Pool, Spread, micros},
    loss::ppm,
    rows::Row,
};
use crate::roster::{Member, Roster};

/// The ways between the members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Paths {
    /// Pairs with a direct connection.
    pub direct: usize,
    /// Pairs that are connected through a relay alone.
    pub relayed: usize,
    /// Cold round trips through relays.
    pub rtt: Option<Spread>,
    /// Share of the probes through relays that got no answer, in millionths.
    pub loss_ppm: Option<i32>,
    /// The relayed pairs with the longest round trips.
    pub pairs: Vec<RelayedPair>,
    /// What is known of members of federated networks.
    pub federated: Option<Federated>,
}

/// A pair that is connected through a relay alone, as one of the two sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelayedPair {
    /// The member that sees it so.
    pub from: String,
    /// The other one.
    pub to: String,
    /// The member that relays, if it is known.
    pub relay: Option<String>,
    /// Cold round trips through the relay.
    pub rtt: Option<Spread>,
    /// Median of the cold round trip to the relay alone, in microseconds.
    pub relay_p50_micros: Option<i64>,
    /// Share of the probes that got no answer, in millionths.
    pub loss_ppm: Option<i32>,
}

/// The members of other networks with the same secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Federated {
    /// How many there are.
    pub members: usize,
    /// Direct connections to them.
    pub direct: usize,
    /// Circuits to them.
    pub relayed: usize,
    /// Cold round trips over direct connections.
    pub rtt: Option<Spread>,
    /// Cold round trips through relays.
    pub relayed_rtt: Option<Spread>,
}

/// Gathers the ways from the members' rows.
#[derive(Default)]
pub(super) struct Ways<'a> {
    pairs: BTreeMap<(usize, usize), Path>,
    rtt: Pool,
    probes: u64,
    lost: u64,
    relayed: BTreeMap<(usize, usize), RelayedPair>,
    foreign: BTreeSet<&'a str>,
    foreign_direct: usize,
    foreign_relayed: usize,
    foreign_rtt: Pool,
    foreign_relayed_rtt: Pool,
}

impl<'a> Ways<'a> {
    /// Takes one member's view of another.
    pub(super) fn add(
        &mut self,
        (from_at, from): (usize, &Member),
        (to_at, to): (usize, &Member),
        row: &Row<'_>,
    ) {
        let pair = (from_at.min(to_at), from_at.max(to_at));
        let path = row.view.path.unwrap_or_default();
        if row.view.connected {
            // One end may have noticed already that a direct connection stands.
            let known = self.pairs.entry(pair).or_insert(path);
            *known = path.min(*known);
        }
        if let Some((relayed, age)) = row.relayed_samples() {
            self.rtt.add(&relayed.rtt, age);
        }
        let (probes, lost) = row.relayed_losses();
        self.probes = self.probes.saturating_add(probes);
        self.lost = self.lost.saturating_add(lost);
        if row.view.connected && path == Path::Relayed {
            let mut rtt = Pool::default();
            if let Some((relayed, age)) = row.relayed_samples() {
                rtt.add(&relayed.rtt, age);
            }
            let relay = row.view.relay.as_ref();
            let to_relay = relay.and_then(|relay| {
                let mut peers = row.report.peers.iter();
                peers.find(|peer| peer.name == *relay && peer.path != Some(Path::Relayed))
            });
            self.relayed.entry(pair).or_insert_with(|| RelayedPair {
                from: from.name.clone(),
                to: to.name.clone(),
                relay: relay.cloned(),
                rtt: rtt.spread(),
                relay_p50_micros: to_relay.and_then(|view| micros(view.rtt.quantile(500))),
                loss_ppm: ppm(lost, probes),
            });
        }
    }

    /// Takes a row about a member that is none of the network's own.
    pub(super) fn add_foreign(&mut self, row: &Row<'a>) {
        let view = row.view;
        if !view.connected {
            return;
        }
        self.foreign.insert(&view.peer_id);
        match view.path.unwrap_or_default() {
            Path::Direct => self.foreign_direct += 1,
            Path::Relayed => self.foreign_relayed += 1,
        }
        if let Some(age) = row.sample {
            self.foreign_rtt.add(&view.rtt, age);
        }
        if let Some((relayed, age)) = row.relayed_samples() {
            self.foreign_relayed_rtt.add(&relayed.rtt, age);
        }
    }

    pub(super) fn paths(self) -> Paths {
        let count = |wanted: Path| self.pairs.values().filter(|path| **path == wanted).count();
        let mut pairs: Vec<RelayedPair> = self
            .relayed
            .into_iter()
            .filter(|(pair, _)| self.pairs.get(pair) == Some(&Path::Relayed))
            .map(|(_, pair)| pair)
            .collect();
        let (direct, relayed) = (count(Path::Direct), count(Path::Relayed));
        // Those that are not measured yet come first.
        pairs.sort_by_key(|pair| Reverse(pair.rtt.as_ref().map_or(i64::MAX, |rtt| rtt.p99_micros)));
        pairs.truncate(MAX_RELAYED_PAIRS);
        let federated = (!self.foreign.is_empty()).then(|| Federated {
            members: self.foreign.len(),
            direct: self.foreign_direct,
            relayed: self.foreign_relayed,
            rtt: self.foreign_rtt.spread(),
            relayed_rtt: self.foreign_relayed_rtt.spread(),
        });
        Paths {
            direct,
            relayed,
            rtt: self.rtt.spread(),
            loss_ppm: ppm(self.lost, self.probes),
            pairs,
            federated,
        }
    }
}

/// Whether a row is about none of the network's own members.
pub(super) fn is_foreign(own: &BTreeSet<&str>, view: &PeerReport) -> bool {
    !own.contains(view.peer_id.as_str())
}

/// The peer ids of the network's own members: those that are wanted.
pub(super) fn own_peers(roster: &Roster) -> BTreeSet<&str> {
    let members = roster.members.iter();
    members.filter_map(|member| member.peer_id.as_deref()).collect()
}

#[cfg(test)]
mod tests {
    use peernet_api::{
        histogram::Histogram,
        report::{RelayedReport, Report},
    };

    use super::{
        super::{measure, rows::ProbeSettings, tests::in_zones},
        *,
    };
    use crate::{
        pull::Pulled,
        reports::tests::{answer, report},
    };

    const PROBE: ProbeSettings = ProbeSettings {
        interval: std::time::Duration::from_secs(1),
        timeout: std::time::Duration::from_secs(2),
        peers_per_node: 64,
    };
    const NOW: crate::clock::Moment = std::time::Duration::from_secs(100);

    fn histogram(micros: u64) -> Histogram {
        let mut histogram = Histogram::new();
        histogram.record(micros * 1_000);
        histogram
    }

    fn direct(roster: &Roster, peer: usize, micros: u64) -> PeerReport {
        PeerReport {
            peer_id: roster.members[peer].peer_id.clone().unwrap(),
            name: roster.members[peer].name.clone(),
            connected: true,
            path: Some(Path::Direct),
            answered: 1,
            newest_sample_age_millis: Some(400),
            newest_probe_age_millis: Some(300),
            rtt: histogram(micros),
            ..PeerReport::default()
        }
    }

    fn relayed(roster: &Roster, peer: usize, relay: usize, micros: u64) -> PeerReport {
        PeerReport {
            peer_id: roster.members[peer].peer_id.clone().unwrap(),
            name: roster.members[peer].name.clone(),
            connected: true,
            path: Some(Path::Relayed),
            relay: Some(roster.members[relay].name.clone()),
            relayed: Some(RelayedReport {
                answered: 1,
                timed_out: 1,
                newest_sample_age_millis: Some(400),
                newest_probe_age_millis: Some(300),
                rtt: histogram(micros),
                ..RelayedReport::default()
            }),
            ..PeerReport::default()
        }
    }

    fn from(roster: &Roster, member: usize, peers: Vec<PeerReport>) -> Pulled {
        Ok(answer(Report {
            peers,
            ..report(&roster.members[member].name)
        }))
    }

    /// Three members, of which 0 relays between 1 and 2.
    fn relayed_by_0(roster: &Roster) -> [Pulled; 3] {
        [
            from(roster, 0, vec![direct(roster, 1, 100), direct(roster, 2, 120)]),
            from(
                roster,
                1,
                vec![direct(roster, 0, 150), relayed(roster, 2, 0, 900)],
            ),
            from(
                roster,
                2,
                vec![direct(roster, 0, 130), relayed(roster, 1, 0, 800)],
            ),
        ]
    }

    #[test]
    fn a_relayed_pair_is_connected_and_in_no_direct_number() {
        let roster = in_zones(&[""; 3]);
        let got = measure(&roster, &relayed_by_0(&roster), PROBE, NOW);
        assert_eq!((got.fewest_connected, got.missing_links_total), (Some(2), 0));
        assert_eq!((got.paths.direct, got.paths.relayed), (2, 1));
        let rtt = got.numbers.rtt.unwrap();
        assert!(rtt.samples == 4 && rtt.max_micros < 200, "{rtt:?}");
        assert_eq!(got.numbers.loss.ppm, Some(0));
        assert!(
            got.worst_links
                .iter()
                .all(|link| link.from == "mesh-0" || link.to == "mesh-0")
        );
        let through = got.paths.rtt.unwrap();
        assert!(through.samples == 2 && through.max_micros > 800, "{through:?}");
        assert_eq!(got.paths.loss_ppm, Some(500_000));
    }

    #[test]
    fn a_relayed_pair_is_named_with_its_relay_and_both_round_trips() {
        let roster = in_zones(&[""; 3]);
        let got = measure(&roster, &relayed_by_0(&roster), PROBE, NOW);
        let [pair] = got.paths.pairs.as_slice() else {
            panic!("{:?}", got.paths.pairs)
        };
        assert_eq!(
            (pair.from.as_str(), pair.to.as_str(), pair.relay.as_deref()),
            ("mesh-1", "mesh-2", Some("mesh-0"))
        );
        let through = pair.rtt.as_ref().unwrap().p50_micros;
        assert!((890..=910).contains(&through), "{pair:?}");
        assert!((148..=152).contains(&pair.relay_p50_micros.unwrap()), "{pair:?}");
    }

    #[test]
    fn a_pair_is_direct_as_soon_as_one_end_says_so() {
        let roster = in_zones(&[""; 3]);
        let mut pulled = relayed_by_0(&roster);
        pulled[2] = from(&roster, 2, vec![direct(&roster, 0, 130), direct(&roster, 1, 90)]);
        let got = measure(&roster, &pulled, PROBE, NOW);
        assert_eq!((got.paths.direct, got.paths.relayed), (3, 0));
        assert!(got.paths.pairs.is_empty());
    }

    #[test]
    fn agents_that_say_no_path_are_connected_directly_and_old_relayed_samples_are_not_shown() {
        let roster = in_zones(&[""; 3]);
        let mut pulled = relayed_by_0(&roster);
        let mut old = relayed(&roster, 2, 0, 900);
        old.relayed.as_mut().unwrap().newest_sample_age_millis = Some(60_000);
        let mut plain = direct(&roster, 0, 100);
        plain.path = None;
        pulled[1] = from(&roster, 1, vec![plain, old]);
        pulled[2] = Err(peernet_api::v1alpha1::ReportOutcome::TimedOut);
        let got = measure(&roster, &pulled, PROBE, NOW);
        assert_eq!((got.paths.direct, got.paths.relayed), (2, 1));
        assert_eq!(got.paths.rtt, None);
    }

    #[test]
    fn members_of_federated_networks_are_counted_apart() {
        let roster = in_zones(&[""; 2]);
        let other = in_zones(&[""; 4]);
        let foreign = |peer: usize| {
            let mut view = relayed(&other, peer, 0, 700);
            view.name = format!("east-{peer}");
            view
        };
        let pulled = [
            from(&roster, 0, vec![direct(&roster, 1, 100), foreign(2), foreign(3)]),
            from(&roster, 1, vec![direct(&roster, 0, 100), foreign(2)]),
        ];
        let got = measure(&roster, &pulled, PROBE, NOW);
        assert_eq!((got.paths.direct, got.paths.relayed), (1, 0));
        assert_eq!(got.fewest_connected, Some(1));
        let federated = got.paths.federated.unwrap();
        assert_eq!(
            (federated.members, federated.direct, federated.relayed),
            (2, 0, 3)
        );
        assert_eq!(federated.relayed_rtt.unwrap().samples, 3);
        assert_eq!(federated.rtt, None);
    }

    #[test]
    fn relayed_pairs_are_bounded_worst_first() {
        let roster = in_zones(&[""; 12]);
        let pulled: Vec<Pulled> = (0..12)
            .map(|member| {
                let others = (0..12).filter(|peer| *peer != member);
                let views =
                    others.map(|peer| relayed(&roster, peer, 0, (member * 100 + peer * 10 + 1) as u64));
                from(&roster, member, views.collect())
            })
            .collect();
        let got = measure(&roster, &pulled, PROBE, NOW);
        assert_eq!(
            (got.paths.relayed, got.paths.pairs.len()),
            (66, MAX_RELAYED_PAIRS)
        );
        assert!(
            got.paths
                .pairs
                .is_sorted_by_key(|pair| Reverse(pair.rtt.as_ref().unwrap().p99_micros))
        );
    }
}
