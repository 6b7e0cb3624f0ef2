//! Steps of the wall clock while probes are on the way. Both namespaces have the machine's one clock, so each step is one at
//! both ends at once; that a step at one end alone is noticed, too, is tested on readings (node/src/stamp/clock.rs).

use std::time::{Duration, Instant, SystemTime};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use peernet_e2e::Outcome;
use tokio::time::sleep;

use crate::{
    bare::{Agent, Delay, Lab},
    numbers::Numbers,
    tables::{Table, time},
};

const PACE: Duration = Duration::from_millis(20);
/// So long that half of the time a probe is on the way.
const DELAY_MILLIS: u32 = 5;
const STEP: Duration = Duration::from_secs(1);
const STEPS: usize = 40;
/// The clock is wrong for so long.
const WRONG: Duration = Duration::from_millis(110);
/// And right for so long before it is stepped again: no multiple of the pace, so that steps meet probes everywhere.
const RIGHT: Duration = Duration::from_millis(333);

pub(crate) async fn run(lab: &Lab) -> Outcome<Table> {
    let mut table = Table::new(
        "A stepped wall clock, in two bare network namespaces",
        "The machine's clock goes a second ahead and back, while packets take some 10 ms for a round trip. Steps that meet a probe \
         void it: it is counted, and in no number. Goal: no round trip is longer than twice the median, and nothing is lost.",
        &[
            "steps",
            "probes",
            "answered",
            "voided",
            "lost",
            "network: p50 / p99 / largest",
            "goal",
        ],
    );
    let agents = lab.agents(PACE, &[]).await?;
    let _there = Delay::begin(lab, &lab.a, &lab.b, DELAY_MILLIS, 0).await?;
    let _back = Delay::begin(lab, &lab.b, &lab.a, DELAY_MILLIS, 0).await?;
    // Probes that began before the delay have ended.
    sleep(Duration::from_secs(1)).await;
    for steps in [0, STEPS] {
        let before = reports(&agents).await?;
        for _ in 0..steps {
            step().await?;
        }
        if steps == 0 {
            sleep((RIGHT + WRONG) * STEPS as u32).await;
        }
        // What is on the way comes home.
        sleep(Duration::from_secs(3)).await;
        let after = reports(&agents).await?;
        let mut found = Numbers::default();
        let ([before_a, before_b], [after_a, after_b]) = (&before, &after);
        found.add(before_a, after_a, "b")?;
        found.add(before_b, after_b, "a")?;
        table.row(row(steps * 2, &found));
    }
    crate::bare::clear(lab).await?;
    Ok(table)
}

async fn reports([a, b]: &[Agent; 2]) -> Outcome<[peernet_api::report::Report; 2]> {
    Ok([a.report().await?, b.report().await?])
}

fn row(steps: usize, found: &Numbers) -> Vec<String> {
    let network = |percent| found.network.percentile(percent);
    let lost = found.lost_forward + found.lost_backward + found.lost_undirected;
    let met = match (network(50.0), network(100.0)) {
        (Some(median), Some(largest)) => largest <= 2 * median && lost == 0,
        _ => false,
    };
    vec![
        steps.to_string(),
        found.sent.to_string(),
        found.answered.to_string(),
        found.voided.to_string(),
        lost.to_string(),
        [50.0, 99.0, 100.0].map(|at| time(network(at))).join(" / "),
        if met { "met" } else { "MISSED" }.to_owned(),
    ]
}

/// Steps the clock ahead, and back to where it would be by now.
async fn step() -> Outcome {
    sleep(RIGHT).await;
    let (begun, right) = (Instant::now(), SystemTime::now());
    set_clock(right + STEP + begun.elapsed())?;
    sleep(WRONG).await;
    set_clock(right + begun.elapsed())
}

fn set_clock(to: SystemTime) -> Outcome {
    let to = TimeSpec::from_duration(to.duration_since(SystemTime::UNIX_EPOCH)?);
    Ok(clock_settime(ClockId::CLOCK_REALTIME, to)?)
}
