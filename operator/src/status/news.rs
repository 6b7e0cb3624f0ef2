//! Whether a status is worth a write. Each write wakes everyone who watches the network.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peernet_api::v1alpha1::{
    Distribution, Link, LossStatus, NetworkDistribution, PeerNetworkStatus, StrangersStatus,
};

/// A status whose numbers moved only a little is written at most this often.
const REFRESH: Duration = Duration::from_secs(30);
/// Times that are shorter than this move by a share of it: a few microseconds are no news.
const SHORT_MICROS: u64 = 200;
/// Losses that are smaller than this, in millionths, move by a share of it.
const SMALL_PPM: u64 = 1_000;

/// Whether `next` is worth a write over `previous`: at once if anything but a number moved, or a number by more than a
/// tenth; else only now and then. `since_write` is the time since the last write by a monotonic clock, if this operator
/// wrote any: the labels in a status follow the wall clock, which may have been stepped.
#[must_use]
pub fn says_something_new(
    previous: &PeerNetworkStatus,
    next: &PeerNetworkStatus,
    since_write: Option<Duration>,
) -> bool {
    if without_numbers(previous) != without_numbers(next)
        || numbers_moved(previous, next)
        || worst_link_left(previous, next)
        || zones_changed(previous, next)
    {
        return true;
    }
    previous != next && since_write.is_none_or(|since| since >= REFRESH)
}

/// What is left if each number that is known is the same. Whether it is known stays.
fn without_numbers(status: &PeerNetworkStatus) -> PeerNetworkStatus {
    let mut status = status.clone();
    for distribution in [&mut status.rtt, &mut status.warm, &mut status.hosts] {
        *distribution = distribution.take().map(|_| Distribution::default());
    }
    status.network = status.network.map(|network| NetworkDistribution {
        clock: network.clock,
        ..NetworkDistribution::default()
    });
    // They come and go as they like: that is no reason to wake anyone.
    status.guests = status.guests.map(|_| 0);
    if let Some(paths) = &mut status.paths {
        paths.relayed_rtt = paths.relayed_rtt.take().map(|_| Distribution::default());
        paths.relayed_loss_ppm = paths.relayed_loss_ppm.map(|_| 0);
        // Which of many pairs are the worst changes all the time. How many there are is compared.
        paths.relayed_pairs.clear();
        if let Some(federated) = &mut paths.federated {
            for distribution in [&mut federated.rtt, &mut federated.relayed_rtt] {
                *distribution = distribution.take().map(|_| Distribution::default());
            }
        }
    }
    status.loss_ppm = status.loss_ppm.map(|_| 0);
    status.loss = status.loss.map(known_losses);
    for over in &mut status.transports {
        over.rtt_p50_micros = over.rtt_p50_micros.map(|_| 0);
        over.rtt_p99_micros = over.rtt_p99_micros.map(|_| 0);
        over.warm_p50_micros = over.warm_p50_micros.map(|_| 0);
        over.samples = 0;
        over.newest_sample_time = over.newest_sample_time.take().map(no_time);
        over.loss_ppm = over.loss_ppm.map(|_| 0);
    }
    for host in &mut status.external {
        host.rtt_p50_micros = host.rtt_p50_micros.map(|_| 0);
        host.rtt_p99_micros = host.rtt_p99_micros.map(|_| 0);
        host.loss_ppm = host.loss_ppm.map(|_| 0);
        host.samples = 0;
        host.newest_sample_time = host.newest_sample_time.take().map(no_time);
    }
    status.worst_links.clear();
    status.zones.clear();
    status.zones_omitted = None;
    // Who comes and when is up to the strangers: it must not be them who pace the writes.
    status.strangers = status.strangers.map(|_| StrangersStatus::default());
    status.last_sample_time = status.last_sample_time.map(no_time);
    for node in &mut status.nodes {
        node.rtt_p99_micros = node.rtt_p99_micros.map(|_| 0);
        node.newest_sample_time = node.newest_sample_time.take().map(no_time);
        node.host_delay_p99_micros = node.host_delay_p99_micros.map(|_| 0);
        node.throttled_ppm = node.throttled_ppm.map(|_| 0);
        node.host_limited = node.host_limited.map(|_| 0);
    }
    if let Some(columns) = &mut status.columns {
        for text in [
            &mut columns.rtt_p50,
            &mut columns.rtt_p99,
            &mut columns.net_p50,
            &mut columns.net_p99,
            &mut columns.host_p99,
            &mut columns.breakdown,
            &mut columns.loss,
            &mut columns.worst_link,
        ] {
            *text = text.take().map(|_| String::new());
        }
    }
    status
}

fn known_losses(loss: LossStatus) -> LossStatus {
    LossStatus {
        ppm: loss.ppm.map(|_| 0),
        probes: loss.probes.map(|_| 0),
        newest_probe_time: loss.newest_probe_time.map(no_time),
        tcp_retransmissions: loss.tcp_retransmissions.map(|_| 0),
        forward_ppm: loss.forward_ppm.map(|_| 0),
        backward_ppm: loss.backward_ppm.map(|_| 0),
        undirected_ppm: loss.undirected_ppm.map(|_| 0),
        udp_probes: loss.udp_probes.map(|_| 0),
        newest_udp_probe_time: loss.newest_udp_probe_time.map(no_time),
    }
}

/// Whether the link that is named as the worst one is not even among the worst any more: it may have grown old.
fn worst_link_left(previous: &PeerNetworkStatus, next: &PeerNetworkStatus) -> bool {
    previous.worst_links.first().is_some_and(|worst| {
        let is_worst = |link: &Link| (&link.from, &link.to) == (&worst.from, &worst.to);
        !next.worst_links.iter().any(is_worst)
    })
}

/// Whether something else is known of some pair of zones. Which of many pairs are the worst changes all the time.
fn zones_changed(previous: &PeerNetworkStatus, next: &PeerNetworkStatus) -> bool {
    let known = |status: &PeerNetworkStatus| -> BTreeSet<_> {
        let pairs = status.zones.iter().map(|pair| {
            let known = (pair.rtt_p99_micros.is_some(), pair.network_p99_micros.is_some());
            (pair.from.clone(), pair.to.clone(), known)
        });
        pairs.collect()
    };
    let all_are_told = previous.zones_omitted.is_none() && next.zones_omitted.is_none();
    all_are_told && known(previous) != known(next)
}

fn no_time(_: Time) -> Time {
    Time(Timestamp::MIN)
}

fn numbers_moved(previous: &PeerNetworkStatus, next: &PeerNetworkStatus) -> bool {
    let times = [
        (previous.rtt.as_ref(), next.rtt.as_ref()),
        (
            previous.network.as_ref().map(|network| &network.times),
            next.network.as_ref().map(|network| &network.times),
        ),
    ];
    let losses = |status: &PeerNetworkStatus| {
        let loss = status.loss.clone().unwrap_or_default();
        [loss.ppm, loss.forward_ppm, loss.backward_ppm]
    };
    let times_moved = times.into_iter().any(|(before, after)| {
        before.zip(after).is_some_and(|(before, after)| {
            moved(before.p50_micros, after.p50_micros, SHORT_MICROS)
                || moved(before.p99_micros, after.p99_micros, SHORT_MICROS)
        })
    });
    let losses_moved = losses(previous)
        .into_iter()
        .zip(losses(next))
        .filter_map(|(before, after)| before.zip(after))
        .any(|(before, after)| moved(before.into(), after.into(), SMALL_PPM));
    times_moved || losses_moved
}

/// Whether a number moved by more than a tenth of itself, or of `small` if it is smaller.
fn moved(before: i64, after: i64, small: u64) -> bool {
    before.abs_diff(after).saturating_mul(10) > before.unsigned_abs().max(small)
}
