//! The hosts outside the network: what all members measured to each of them, apart from everything else.

use peernet_api::bootstrap;

use super::{Spread, latency::Pool, loss::ppm, rows::ProbeSettings};
use crate::{clock::Moment, pull::Pulled, roster::Roster};

/// What is known of a host outside the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Its peer id.
    pub peer_id: String,
    /// Where members look for it.
    pub address: String,
    /// Members that are connected to it.
    pub connected: usize,
    /// Members that report of it.
    pub reporting: usize,
    /// Their cold round trips to it.
    pub rtt: Option<Spread>,
    /// Share of the probes that got no answer, in millionths.
    pub loss_ppm: Option<i32>,
}

/// Puts together what members report of the hosts that the spec names. A host that is a member is none of them; nor is one that
/// a member reports and the spec does not name.
#[must_use]
pub fn external(
    roster: &Roster,
    pulled: &[Pulled],
    bootstrap_peers: &[String],
    probe: ProbeSettings,
    now: Moment,
) -> Vec<External> {
    let mut hosts: Vec<External> = Vec::new();
    for text in bootstrap_peers {
        let Ok((address, peer)) = bootstrap::parse(text) else {
            continue;
        };
        let peer_id = peer.to_string();
        let is_member = |member: &crate::roster::Member| member.peer_id.as_deref() == Some(peer_id.as_str());
        if roster.members.iter().any(is_member) || hosts.iter().any(|host| host.peer_id == peer_id) {
            continue;
        }
        hosts.push(of_host(peer_id, address.to_string(), pulled, probe, now));
    }
    hosts
}

fn of_host(
    peer_id: String,
    address: String,
    pulled: &[Pulled],
    probe: ProbeSettings,
    now: Moment,
) -> External {
    let (mut connected, mut reporting) = (0, 0);
    let (mut rtt, mut lost, mut probes) = (Pool::default(), 0_u64, 0_u64);
    for answer in pulled.iter().flatten() {
        let Some(row) = answer.report.external.iter().find(|row| row.peer_id == peer_id) else {
            continue;
        };
        reporting += 1;
        connected += usize::from(row.connected);
        let since_asked = now.saturating_sub(answer.asked);
        let fresh = |millis| Some(probe.fresh(millis)?.saturating_add(since_asked));
        if let Some(age) = fresh(row.newest_sample_age_millis) {
            rtt.add(&row.rtt, age);
        }
        if fresh(row.newest_probe_age_millis).is_some() {
            let more = row.timed_out.saturating_add(row.failed);
            lost = lost.saturating_add(more);
            probes = probes.saturating_add(row.answered).saturating_add(more);
        }
    }
    External {
        peer_id,
        address,
        connected,
        reporting,
        rtt: rtt.spread(),
        loss_ppm: ppm(lost, probes),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peernet_api::{histogram::Histogram, report::ExternalReport};

    use super::*;
    use crate::{
        measure::tests::in_zones,
        reports::tests::{answer, report},
    };

    const PROBE: ProbeSettings = ProbeSettings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        peers_per_node: 64,
    };
    const HOST: &str = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV";

    fn named(peer: &str) -> String {
        format!("/ip4/192.0.2.7/tcp/4001/p2p/{peer}")
    }

    /// Reports of three members, each of which says this of the host.
    fn pulled(roster: &Roster, rows: [ExternalReport; 3]) -> Vec<Pulled> {
        let members = roster.members.iter().zip(rows);
        let answers = members.map(|(member, row)| {
            let mut report = report(&member.name);
            report.external = vec![row];
            Ok(answer(report))
        });
        answers.collect()
    }

    fn row(peer: &str, micros: &[u64], lost: u64, age: u64) -> ExternalReport {
        let mut rtt = Histogram::new();
        micros.iter().for_each(|micros| rtt.record(micros * 1_000));
        ExternalReport {
            peer_id: peer.to_owned(),
            connected: true,
            answered: rtt.count(),
            timed_out: lost,
            newest_sample_age_millis: (!micros.is_empty()).then_some(age),
            newest_probe_age_millis: Some(age),
            rtt,
            ..ExternalReport::default()
        }
    }

    #[test]
    fn what_members_measured_to_a_host_is_merged() {
        let roster = in_zones(&[""; 3]);
        let rows = [
            row(HOST, &[100, 100, 100], 0, 10),
            row(HOST, &[9_000], 1, 20),
            // Its newest sample is old: neither it nor its losses count.
            row(HOST, &[50_000], 7, 6_000),
        ];
        let now = Duration::from_secs(100);
        let hosts = external(&roster, &pulled(&roster, rows), &[named(HOST)], PROBE, now);
        let [host] = hosts.as_slice() else {
            panic!("{hosts:?}")
        };
        assert_eq!(
            (host.peer_id.as_str(), host.address.as_str()),
            (HOST, "/ip4/192.0.2.7/tcp/4001")
        );
        assert_eq!((host.connected, host.reporting), (3, 3));
        let rtt = host.rtt.as_ref().unwrap();
        assert!((rtt.p50_micros - 100).abs() <= 1, "{rtt:?}");
        assert!(
            (rtt.max_micros - 9_000).abs() <= 90 && rtt.samples == 4,
            "{rtt:?}"
        );
        assert_eq!(host.loss_ppm, Some(200_000));
    }

    #[test]
    fn a_member_or_a_host_that_nobody_named_is_no_external_one() {
        let roster = in_zones(&[""; 3]);
        let rows = || {
            [
                row(HOST, &[1], 0, 1),
                row(HOST, &[1], 0, 1),
                row(HOST, &[1], 0, 1),
            ]
        };
        let now = Duration::from_secs(100);
        assert!(external(&roster, &pulled(&roster, rows()), &[], PROBE, now).is_empty());
        let member = roster.members[0].peer_id.clone().unwrap();
        assert!(external(&roster, &pulled(&roster, rows()), &[named(&member)], PROBE, now).is_empty());
    }

    #[test]
    fn a_host_that_nobody_has_reached_is_named_without_numbers() {
        let roster = in_zones(&[""; 3]);
        let silent = || ExternalReport {
            peer_id: HOST.to_owned(),
            ..ExternalReport::default()
        };
        let now = Duration::from_secs(100);
        let pulled = pulled(&roster, [silent(), silent(), silent()]);
        let hosts = external(&roster, &pulled, &[named(HOST), named(HOST)], PROBE, now);
        assert_eq!(hosts.len(), 1);
        assert_eq!((hosts[0].connected, hosts[0].reporting), (0, 3));
        assert_eq!((hosts[0].rtt.clone(), hosts[0].loss_ppm), (None, None));
    }
}
