//! Hosts that are none of ours, and agents in pods.

use peernet_e2e::{
    command::testbed,
    network::{Network, yaml},
    note,
    program::exec,
    scenario::testbed_scenario,
    settings::SETTINGS,
};
use serde_json::{Value, json};

#[test]
fn a_js_libp2p_host_pings_an_agent_and_asks_the_networks_dht() {
    let Some(interop) = &SETTINGS.interop else {
        note("js-libp2p is skipped: testbed/interop/install has not installed it (PEERNET_INTEROP)");
        return;
    };
    testbed_scenario("js-libp2p", "guests", async |scenario| {
        let network = Network::create(
            scenario,
            "mesh",
            json!({"replicas": 3, "guests": {"enabled": true, "max": 2}}),
        )
        .await?;
        let status = network.until_ready(3).await?;
        let put = ["put", "/app/greeting", "hello", "--quorum", "all"];
        exec(scenario, "mesh-1", &put).await?;
        let wanted = status.nodes.iter().find(|row| row.name == "mesh-2");
        let wanted = wanted.and_then(|row| row.peer_id.clone()).ok_or("no peer id")?;
        let [contact, other] = network.addresses(["mesh-0", "mesh-2"]).await?;
        let nodes = crate::free_nodes(scenario).await?;
        let node = nodes.first().ok_or("a node is needed")?;
        let script = interop.join("js/guest.mjs");
        let told = testbed(&[
            "on",
            node,
            "node",
            // Node 20 has it behind this flag.
            "--experimental-websocket",
            &script.to_string_lossy(),
            &format!("{}/mesh", scenario.namespace),
            &format!("/ip4/{contact}/tcp/4001"),
            "ping",
            "find",
            &wanted,
            "get",
            "/app/greeting",
        ])
        .await?;
        note(&told);
        let told: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let [introduction, pings, found, got] = &told[..] else {
            return Err(format!("{told:?}").into());
        };
        let version = introduction["agentVersion"].as_str().unwrap_or_default();
        let expected = format!("peernet/{} (mesh-0; ", peernet_api::VERSION);
        assert!(version.starts_with(&expected), "{version}");
        assert_eq!(pings["millis"].as_array().map(Vec::len), Some(3), "{pings}");
        let address = format!("/ip4/{other}/tcp/4001/p2p/{wanted}");
        let addresses = found["addresses"].as_array();
        assert!(
            addresses.is_some_and(|all| all.contains(&json!(address))),
            "{found}"
        );
        assert_eq!(got["value"], "hello", "{got}");
        // It was counted nowhere else.
        let status = network.until_ready(3).await?;
        assert!(
            status.guests.is_some() && status.nodes.len() == 3,
            "{}",
            yaml(&status)
        );
        Ok(())
    });
}
