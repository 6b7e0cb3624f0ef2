//! What is measured between two pods of the test cluster, on two nodes, with other tools beside the agents.

use std::{fs, path::PathBuf, time::Duration};

use peernet_api::report::{P2P_PORT, Report};
use peernet_e2e::{
    Outcome,
    busy::BusyPods,
    faults::{self, Fault},
    network::{Network, address_of},
    processes,
    scenario::{Scenario, tool_image},
    truth::{held::UDP, samples::Samples},
    waiting::{ensure, eventually},
};
use serde_json::json;
use tokio::{process::Child, time::sleep};

use crate::{
    Selection,
    numbers::Numbers,
    observation::{Observation, network_row, network_table, wall_clock},
    place::Place,
    programs,
    side_by_side::{self, Tools},
    tables::{Table, time, within},
};

const NETWORK: &str = "truth";
const WHILE: Duration = Duration::from_secs(60);
const THROTTLED: Duration = Duration::from_secs(40);
const FAULTY: Duration = Duration::from_secs(15);
/// The least that a resource may ask for.
const PACE: Duration = Duration::from_millis(100);
/// Neighbours that use all the CPU time they can get, on the machine's cores.
const BUSY_PODS: usize = 4;
/// What the throttled responder may use of a CPU, in microseconds in each 100 ms: 20m.
const QUOTA_MICROS: u32 = 2_000;

/// Two agents of a network, and where they run.
struct Pair {
    network: Network,
    names: [String; 2],
    places: [Place; 2],
    folder: PathBuf,
}

pub(crate) async fn run(scenario: &Scenario, selection: &Selection) -> Outcome<Vec<Table>> {
    let Some(image) = tool_image("the truth bench in pods") else {
        return Ok(Vec::new());
    };
    let pair = Pair::make(scenario).await?;
    let mut situations = network_table("Network, in two pods on two nodes");
    let mut beside = Vec::new();
    let mut tables = Vec::new();
    let _servers = pair.serve()?;
    if selection.has("quiet") {
        let (found, tools) = tokio::try_join!(
            pair.observe(WHILE),
            side_by_side::measure(&pair.places, WHILE, PACE)
        )?;
        situations.row(network_row("quiet", &found));
        beside.push(("quiet", found, tools));
    }
    if selection.has("busy") {
        let busy = BusyPods::start(scenario, &image, BUSY_PODS).await?;
        let (found, tools) = tokio::try_join!(
            pair.observe(WHILE),
            side_by_side::measure(&pair.places, WHILE, PACE)
        )?;
        busy.end().await?;
        situations.row(network_row(&format!("{BUSY_PODS} busy pods of 400m"), &found));
        beside.push(("beside busy pods", found, tools));
    }
    if selection.has("throttled") {
        let quota = Quota::set(&pair.places[1])?;
        let found = pair.observe(THROTTLED).await?;
        drop(quota);
        situations.row(network_row("responder limited to 20m", &found));
    }
    tables.push(situations);
    let beside: Vec<(&str, Observation, Tools)> = beside;
    tables.push(side_by_side::table(&beside));
    if selection.has("delay") {
        tables.push(pair.delays().await?);
    }
    if selection.has("loss") {
        tables.push(pair.losses().await?);
    }
    let _ = fs::remove_dir_all(&pair.folder);
    tables.retain(|table| !table.is_empty());
    Ok(tables)
}

impl Pair {
    async fn make(scenario: &Scenario) -> Outcome<Self> {
        // Within the window, what was measured is the difference of two reports.
        let spec =
            json!({"replicas": 2, "probe": {"interval": format!("{}ms", PACE.as_millis()), "window": "1h"}});
        let network = Network::create(scenario, NETWORK, spec).await?;
        network.until_ready(2).await?;
        let pods = network.pods().await?;
        let ids = processes::agents_of(&format!("{}/{NETWORK}", scenario.namespace))?;
        let mut found = Vec::new();
        let mut nodes = Vec::new();
        for (name, pod) in &pods {
            let ip = address_of(pod)?.parse()?;
            let id = ids
                .get(name)
                .ok_or_else(|| format!("agent {name} does not run here"))?;
            nodes.push(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
            found.push((name.clone(), Place::of_process(*id, ip)?));
        }
        let [(a, at_a), (b, at_b)] =
            <[_; 2]>::try_from(found).map_err(|found| format!("{} agents, not two", found.len()))?;
        ensure(nodes.first() != nodes.last(), || {
            "both agents run on one node".to_owned()
        })?;
        let folder = std::env::temp_dir().join(format!("peernet-truth-pods-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let pair = Self {
            network,
            names: [a, b],
            places: [at_a, at_b],
            folder,
        };
        eventually("STAMP between the two pods", async || {
            for report in pair.reports().await? {
                let stamped = report
                    .peers
                    .iter()
                    .any(|row| row.network.as_ref().is_some_and(|found| found.answered > 0));
                ensure(stamped, || format!("{:?}", report.peers))?;
            }
            Ok(())
        })
        .await?;
        Ok(pair)
    }

    /// Lets both pods answer the other tools, as processes of the agents' own pods.
    fn serve(&self) -> Outcome<Vec<Child>> {
        let program = programs::yardstick()?;
        let start = |(number, place): (usize, &Place)| {
            place.start(
                &program,
                &["serve", side_by_side::PORT],
                &self.folder.join(format!("serve-{number}.log")),
            )
        };
        self.places.iter().enumerate().map(start).collect()
    }

    async fn reports(&self) -> Outcome<[Report; 2]> {
        let [a, b] = &self.names;
        Ok([self.network.report(a).await?.0, self.network.report(b).await?.0])
    }

    /// Both agents over a while, with captures of both pods.
    async fn observe(&self, span: Duration) -> Outcome<Observation> {
        let [a, b] = &self.places;
        let captures = (
            a.capture(self.folder.join("a.pcap")).await?,
            b.capture(self.folder.join("b.pcap")).await?,
        );
        let begun = wall_clock()?;
        let before = self.reports().await?;
        sleep(span).await;
        let after = self.reports().await?;
        let ended = wall_clock()?;
        sleep(Duration::from_millis(500)).await;
        let (packets_a, packets_b) = (captures.0.end().await?, captures.1.end().await?);
        let mut found = Observation::default();
        found.add_captures([(a.ip, &packets_a), (b.ip, &packets_b)], (begun, ended));
        found.numbers = self.numbers(&before, &after)?;
        Ok(found)
    }

    fn numbers(&self, before: &[Report; 2], after: &[Report; 2]) -> Outcome<Numbers> {
        let mut numbers = Numbers::default();
        for (earlier, later) in before.iter().zip(after) {
            let peer = self.names.iter().find(|name| **name != earlier.name);
            numbers.add(earlier, later, peer.ok_or("an agent without a peer")?)?;
        }
        Ok(numbers)
    }

    async fn delays(&self) -> Outcome<Table> {
        let mut table = Table::new(
            "Delay between two pods",
            "p50 / p99. Held on the nodes' side of the pods, so that it counts as network. *Held* is what the delaying program says \
             it held datagrams from one pod to the other, which is once in each round trip, whoever asks; *recovered* the network's round \
             trip less its median without delay. Goal: within max(2 %, 20 us).",
            &["delay", "samples", "held", "recovered", "goal"],
        );
        let [a, b] = self.places.each_ref().map(|place| place.ip.to_string());
        let baseline = self
            .observe(FAULTY)
            .await?
            .numbers
            .network
            .percentile(50.0)
            .ok_or("no samples without delay")?;
        for (millis, jitter) in [(1, 0), (5, 0), (5, 5), (25, 0)] {
            let delay = Fault::delay(&a, &b, millis, jitter).await?;
            // What was on its way then was not held.
            sleep(PACE * 3).await;
            let found = self.observe(FAULTY).await?;
            let log = faults::held(&a, &b).await?;
            delay.mend().await?;
            let held: Samples = log
                .iter()
                .filter(|held| held.protocol == UDP)
                .map(|held| held.held)
                .collect();
            let recovered = |at: f64| found.numbers.network.percentile(at).map(|nanos| nanos - baseline);
            let near = |truth: i64| (truth / 50).max(20_000);
            let goals = [50.0, 99.0].map(|at| within(recovered(at), held.percentile(at), near));
            let jitter = if jitter == 0 {
                String::new()
            } else {
                format!(" + 0-{jitter} ms")
            };
            table.row(vec![
                format!("{millis} ms{jitter}, one way"),
                found.numbers.network.count().to_string(),
                [50.0, 99.0].map(|at| time(held.percentile(at))).join(" / "),
                [50.0, 99.0].map(|at| time(recovered(at))).join(" / "),
                goals.join(" / "),
            ]);
        }
        Ok(table)
    }

    async fn losses(&self) -> Outcome<Table> {
        let mut table = Table::new(
            "Loss between two pods",
            "Datagrams from the first pod to the second are dropped on the node by a rule whose counter is the truth: the first one's probes \
             are lost forward, the second one's backward. Goal: what the agents count is what the rule counts, and no probe is given the \
             wrong direction.",
            &[
                "loss",
                "the rule: dropped",
                "first: forward",
                "first: backward",
                "second: forward",
                "second: backward",
                "not known where",
                "goal",
            ],
        );
        let [a, b] = self.places.each_ref().map(|place| place.ip.to_string());
        for percent in [5, 30] {
            let before = self.reports().await?;
            let loss = Fault::loss_one_way(&a, &b, percent, "udp").await?;
            sleep(FAULTY).await;
            let dropped = faults::dropped(&a, &b).await?;
            loss.mend().await?;
            // Past the timeout, and one more answer.
            sleep(Duration::from_secs(4)).await;
            let after = self.reports().await?;
            let mut of = [Numbers::default(), Numbers::default()];
            let ([first, second], [a_before, b_before], [a_after, b_after]) = (&mut of, &before, &after);
            first.add(a_before, a_after, &self.names[1])?;
            second.add(b_before, b_after, &self.names[0])?;
            table.row(side_by_side::loss_row(
                &format!("{percent} %"),
                &dropped.to_string(),
                dropped,
                first,
                second,
            ));
        }
        Ok(table)
    }
}

/// A limit of CPU time on the control group of an agent, as a kubelet sets it, until this is dropped.
struct Quota(Vec<(PathBuf, String)>);

impl Quota {
    fn set(place: &Place) -> Outcome<Self> {
        let mut before = Vec::new();
        for group in &place.groups {
            // Version 1 of control groups has a file for each of the two values.
            for (file, value) in [
                ("cpu.max", format!("{QUOTA_MICROS} 100000")),
                ("cpu.cfs_quota_us", QUOTA_MICROS.to_string()),
            ] {
                let file = group.join(file);
                if file.exists() {
                    before.push((file.clone(), fs::read_to_string(&file)?));
                    fs::write(&file, value)?;
                }
            }
        }
        ensure(!before.is_empty(), || {
            format!("no CPU limit can be set in {:?}", place.groups)
        })?;
        Ok(Self(before))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        for (file, value) in &self.0 {
            if let Err(error) = fs::write(file, value.trim()) {
                eprintln!("{}: {error}", file.display());
            }
        }
    }
}

/// The kernel's own smoothed round trip of the agents' connection (`ss -ti`), in nanoseconds.
pub(crate) async fn kernel_tcp(place: &Place) -> Outcome<Option<i64>> {
    let filter = format!("( sport = :{P2P_PORT} or dport = :{P2P_PORT} )");
    let listed = place
        .output("ss", &["-tinH", "state", "established", &filter])
        .await?;
    let listed = String::from_utf8(listed)?;
    let millis = listed
        .split_whitespace()
        .filter_map(|field| field.strip_prefix("rtt:")?.split('/').next()?.parse::<f64>().ok());
    Ok(millis.reduce(f64::min).map(|millis| (millis * 1e6) as i64))
}
