//! Texts for the columns of `kubectl get`. What is not known has no text.

use peernet_api::{
    duration::display_micros,
    v1alpha1::{Clock, Columns, PeersStatus},
};

use super::Input;
use crate::measure::{Measurements, Numbers};

pub(super) fn columns(
    ready: usize,
    wanted: usize,
    peers: Option<&PeersStatus>,
    measured: &Measurements,
    input: &Input<'_>,
) -> Columns {
    let numbers = &measured.numbers;
    let worst = measured.worst_links.first();
    Columns {
        nodes: format!("{ready}/{wanted}"),
        peers: peers.map(|peers| {
            let fewest = peers.fewest_connected.min(peers.expected);
            format!("{fewest}/{}", peers.expected)
        }),
        rtt_p50: numbers.rtt.as_ref().map(|rtt| display(rtt.p50_micros)),
        rtt_p99: numbers.rtt.as_ref().map(|rtt| display(rtt.p99_micros)),
        net_p50: numbers
            .network
            .as_ref()
            .map(|network| stamped(numbers, network.p50_micros)),
        net_p99: numbers
            .network
            .as_ref()
            .map(|network| stamped(numbers, network.p99_micros)),
        host_p99: numbers.hosts.as_ref().map(|hosts| display(hosts.p99_micros)),
        breakdown: breakdown(numbers),
        loss: numbers.loss.ppm.map(display_loss),
        worst_link: worst.and_then(|pair| {
            let rtt = pair.numbers.rtt.as_ref()?;
            Some(format!(
                "{} -> {} {}",
                pair.from,
                pair.to,
                display(rtt.p99_micros)
            ))
        }),
        image: input.image.clone(),
    }
}

/// What was the network and what the hosts, both as 99th percentiles.
pub(super) fn breakdown(numbers: &Numbers) -> Option<String> {
    let (network, hosts) = (numbers.network.as_ref()?, numbers.hosts.as_ref()?);
    Some(format!(
        "network {}, hosts {}",
        stamped(numbers, network.p99_micros),
        display(hosts.p99_micros)
    ))
}

/// A time of the network. Without the kernel's stamps it is only about what it says. (The hosts' time stands on samples that
/// have them alone.)
fn stamped(numbers: &Numbers, micros: i64) -> String {
    let about = match numbers.clock {
        Some(Clock::Kernel) => "",
        Some(Clock::UserSpace | Clock::Mixed) | None => "~",
    };
    format!("{about}{}", display(micros))
}

fn display(micros: i64) -> String {
    display_micros(micros.unsigned_abs())
}

/// Loss in percent with two significant digits. A little loss is never shown as none.
pub(super) fn display_loss(ppm: i32) -> String {
    match ppm {
        0 => "0%".to_owned(),
        1..100 => "<0.01%".to_owned(),
        100..10_000 => format!("{}.{:02}%", ppm / 10_000, ppm % 10_000 / 100),
        10_000..100_000 => format!("{}.{}%", ppm / 10_000, ppm % 10_000 / 1_000),
        _ => format!("{}%", ppm / 10_000),
    }
}
