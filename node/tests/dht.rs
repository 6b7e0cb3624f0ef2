//! Records, services and peer routing among real agents over loopback, by the API that users have.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::{net::SocketAddr, time::Duration};

use peernet_node::{
    agent::Agent,
    config::{Config, Probe},
};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{Answer, DEADLINE, api, config, eventually, meshed, metric, report};

fn with_dht(secret: u8, name: &str, seeds: &[SocketAddr]) -> Config {
    Config {
        kademlia: true,
        ..config(secret, name, seeds)
    }
}

async fn mesh(secret: u8, number: usize) -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..number {
        let seeds: Vec<SocketAddr> = agents.iter().map(Agent::p2p_address).collect();
        let config = with_dht(secret, &format!("mesh-{n}"), &seeds);
        agents.push(Agent::start(config).await.unwrap());
    }
    meshed(&agents.iter().collect::<Vec<_>>()).await;
    agents
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

async fn put(agent: &Agent, key: &str, value: &[u8]) -> Value {
    let answer = api(agent, "PUT", &format!("/v1/records/{key}?quorum=all"), value).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    json(&answer)
}

async fn get(agent: &Agent, key: &str) -> Result<Vec<u8>, String> {
    let answer = api(agent, "GET", &format!("/v1/records/{key}"), b"").await;
    if answer.status != 200 {
        return Err(answer.text());
    }
    let value = json(&answer)["valueBase64"].as_str().unwrap().to_owned();
    peernet_node::api::text::decode(&value).ok_or(value)
}

#[tokio::test]
async fn what_is_put_on_one_is_read_on_every_other_also_when_the_first_has_gone() {
    let mut agents = mesh(60, 4).await;
    let stored = put(&agents[0], "greeting", b"hello").await;
    assert_eq!((&stored["stored"], &stored["of"]), (&3.into(), &3.into()));
    assert_eq!(stored["expiresInSeconds"], 24 * 3600 - 1 - 1);
    for agent in &agents {
        assert_eq!(get(agent, "greeting").await.unwrap(), b"hello");
    }
    agents.remove(0).stop().await.unwrap();
    for agent in &agents {
        assert_eq!(get(agent, "greeting").await.unwrap(), b"hello");
    }
    // A new value, put elsewhere, is what all read from then on.
    put(&agents[0], "greeting", b"good evening").await;
    for agent in &agents {
        assert_eq!(get(agent, "greeting").await.unwrap(), b"good evening");
    }
}

#[tokio::test]
async fn a_rolling_restart_loses_no_record() {
    const RECORDS: usize = 40;
    let mut agents = mesh(61, 3).await;
    for n in 0..RECORDS {
        put(
            &agents[n % 3],
            &format!("key-{n}"),
            format!("value-{n}").as_bytes(),
        )
        .await;
    }
    for n in 0..3 {
        let others: Vec<SocketAddr> = agents
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != n)
            .map(|(_, agent)| agent.p2p_address())
            .collect();
        agents.remove(n).stop().await.unwrap();
        let again = Agent::start(with_dht(61, &format!("mesh-{n}"), &others))
            .await
            .unwrap();
        agents.insert(n, again);
        // The next one goes as soon as this one has met one other: as a StatefulSet's controller does, no later.
        eventually("it meets another", || async {
            match metric(&agents[n], "peernet_peers").await {
                peers if peers >= 1.0 => Ok(()),
                peers => Err(peers.to_string()),
            }
        })
        .await;
    }
    for agent in &agents {
        eventually("every record is on every agent again", || async {
            match metric(agent, "peernet_dht_records").await as usize {
                RECORDS => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
        for n in 0..RECORDS {
            assert_eq!(
                get(agent, &format!("key-{n}")).await.unwrap(),
                format!("value-{n}").as_bytes()
            );
        }
    }
}

#[tokio::test]
async fn a_restarted_agent_gets_back_what_was_put_on_it() {
    let mut agents = mesh(62, 2).await;
    put(&agents[0], "mine", b"value").await;
    let other = agents[1].p2p_address();
    agents.remove(0).stop().await.unwrap();
    let again = Agent::start(with_dht(62, "mesh-0", &[other])).await.unwrap();
    eventually("its own record comes back", || async {
        match metric(&again, "peernet_dht_records").await as usize {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    // And it has it, when the other one goes.
    agents.remove(0).stop().await.unwrap();
    assert_eq!(get(&again, "mine").await.unwrap(), b"value");
}

#[tokio::test]
async fn any_bytes_survive_as_keys_and_as_values() {
    let agents = mesh(63, 2).await;
    let (key, value): (Vec<u8>, Vec<u8>) = ((0..=255).rev().collect(), (0..=255).collect());
    let path = format!(
        "/v1/records/{}?keyEncoding=base64",
        peernet_node::api::text::encode(&key)
    );
    let stored = api(&agents[0], "PUT", &path, &value).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    let answer = json(&api(&agents[1], "GET", &path, b"").await);
    assert_eq!(answer.get("value"), None);
    assert_eq!(answer["valueBase64"], peernet_node::api::text::encode(&value));
    // Raw, and by the same bytes in the other spellings.
    let raw = support::request(
        &agents[1],
        "GET",
        &path,
        &[("Accept", "application/octet-stream")],
        b"",
    )
    .await;
    assert_eq!(raw.body, value);
    let encoded = peernet_node::api::text::encode(&value);
    let stored = api(
        &agents[1],
        "PUT",
        "/v1/records/a%2Fb%20c?valueEncoding=base64",
        encoded.as_bytes(),
    )
    .await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    assert_eq!(json(&stored)["key"], "a/b c");
    assert_eq!(get(&agents[0], "a%2Fb%20c").await.unwrap(), value);
    // The largest value, and one byte more.
    let largest = vec![7; 64 << 10];
    put(&agents[0], "large", &largest).await;
    assert_eq!(get(&agents[1], "large").await.unwrap(), largest);
    let more = api(
        &agents[0],
        "PUT",
        "/v1/records/large",
        &[&largest[..], b"x"].concat(),
    )
    .await;
    assert_eq!(more.status, 413, "{}", more.text());
}

#[tokio::test]
async fn a_quorum_that_can_t_be_reached_is_no_success_and_says_how_far_it_came() {
    let agents = mesh(64, 3).await;
    let answer = api(&agents[0], "PUT", "/v1/records/k?quorum=3", b"v").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let error = json(&answer)["error"].clone();
    assert_eq!(error["code"], "QuorumFailed");
    assert_eq!(error["message"], "2 of 2 agents have it, 3 are needed");
    // What others have may be read, with as many copies as there are.
    let got = json(&api(&agents[1], "GET", "/v1/records/k?quorum=3", b"").await);
    assert_eq!((&got["copies"], &got["older"]), (&3.into(), &0.into()));
    let got = api(&agents[1], "GET", "/v1/records/k?quorum=4", b"").await;
    assert_eq!(json(&got)["error"]["code"], "QuorumFailed");
    // A lone agent stores a record on nobody else, and says so.
    let lone = Agent::start(with_dht(65, "mesh-0", &[])).await.unwrap();
    let answer = api(&lone, "PUT", "/v1/records/k", b"v").await;
    assert_eq!(
        json(&answer)["error"]["message"],
        "0 of 0 agents have it, 1 are needed"
    );
    assert_eq!(get(&lone, "k").await.unwrap(), b"v");
}

#[tokio::test]
async fn services_are_found_with_the_addresses_of_their_providers_until_they_end() {
    let a = Agent::start(with_dht(66, "mesh-0", &[])).await.unwrap();
    let seeds = [a.p2p_address()];
    let b = Agent::start(Config {
        services: vec!["web".to_owned(), "db".to_owned()],
        ..with_dht(66, "mesh-1", &seeds)
    })
    .await
    .unwrap();
    let c = Agent::start(Config {
        services: vec!["web".to_owned()],
        ..with_dht(66, "mesh-2", &seeds)
    })
    .await
    .unwrap();
    meshed(&[&a, &b, &c]).await;
    let providers = |name: &'static str| {
        let a = &a;
        async move {
            let answer = json(&api(a, "GET", &format!("/v1/services/{name}"), b"").await);
            let mut found: Vec<(String, String)> = answer["providers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|provider| {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    (text(&provider["name"]), text(&provider["addresses"][0]))
                })
                .collect();
            found.sort();
            found
        }
    };
    let at = |agent: &Agent| format!("/ip4/127.0.0.1/tcp/{}", agent.p2p_address().port());
    let all = [("mesh-1".to_owned(), at(&b)), ("mesh-2".to_owned(), at(&c))];
    eventually("both providers", || async {
        match providers("web").await {
            found if found == all => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    // By the API, too, and no more when told so.
    let announced = api(&a, "PUT", "/v1/services/db", b"").await;
    assert_eq!(announced.status, 200, "{}", announced.text());
    assert_eq!(providers("db").await.len(), 2);
    assert_eq!(
        json(&api(&a, "GET", "/v1/services", b"").await)["services"][0]["name"],
        "db"
    );
    assert_eq!(api(&a, "DELETE", "/v1/services/db", b"").await.status, 200);
    assert_eq!(providers("db").await, [("mesh-1".to_owned(), at(&b))]);
    assert_eq!(api(&a, "DELETE", "/v1/services/db", b"").await.status, 404);
    // Nobody provides this: that is an answer.
    assert_eq!(providers("nothing").await, []);
    // The report says how many each agent finds.
    eventually("the count in the report", || async {
        let services = report(&c).await.services;
        match services.as_slice() {
            [web] if web.name == "web" && web.providers == Some(2) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_neighbour_is_known_without_asking_and_an_id_that_nobody_has_is_not_found() {
    let agents = mesh(67, 3).await;
    let neighbour = agents[1].peer_id();
    let neighbour = json(&api(&agents[0], "GET", &format!("/v1/peers/{neighbour}"), b"").await);
    assert_eq!(
        (&neighbour["connected"], &neighbour["asked"]),
        (&true.into(), &0.into())
    );
    assert_eq!(neighbour["name"], "mesh-1");
    let address = format!("/ip4/127.0.0.1/tcp/{}", agents[1].p2p_address().port());
    assert_eq!(neighbour["addresses"], serde_json::json!([address]));
    let nobody = libp2p::PeerId::random();
    let answer = api(&agents[0], "GET", &format!("/v1/peers/{nobody}"), b"").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(
        json(&answer)["error"]["message"],
        "not found: 2 agents were asked"
    );
}

#[tokio::test]
async fn a_ping_is_the_next_probe_of_a_peer() {
    let agents = mesh(68, 2).await;
    let path = format!("/v1/ping/{}?count=3", agents[1].peer_id());
    let answer = json(&api(&agents[0], "GET", &path, b"").await);
    assert_eq!(answer["name"], "mesh-1");
    let pings = answer["pings"].as_array().unwrap();
    assert_eq!(pings.len(), 3, "{answer}");
    for ping in pings {
        let (rtt, warm) = (
            ping["rttMicros"].as_u64().unwrap(),
            ping["warmMicros"].as_u64().unwrap(),
        );
        assert!(0 < warm && warm <= rtt, "{answer}");
    }
}

#[tokio::test]
async fn what_can_t_be_used_is_named() {
    let agent = Agent::start(with_dht(69, "mesh-0", &[])).await.unwrap();
    let long = "k".repeat(257);
    for (method, path, status, code, says) in [
        (
            "GET",
            "/v1/records/k?quorum=most",
            400,
            "InvalidParameter",
            "majority",
        ),
        ("GET", "/v1/records/k?quorom=1", 400, "UnknownParameter", "quorom"),
        ("GET", "/v1/records/%FF", 400, "InvalidParameter", "UTF-8"),
        (
            "GET",
            &format!("/v1/records/{long}"),
            400,
            "InvalidParameter",
            "257",
        ),
        (
            "PUT",
            "/v1/records/k?valueEncoding=base64",
            400,
            "InvalidParameter",
            "base64",
        ),
        ("GET", "/v1/peers/12D3", 400, "InvalidParameter", "12D3KooW"),
        (
            "GET",
            "/v1/ping/12D3?count=11",
            400,
            "InvalidParameter",
            "1 to 10",
        ),
        ("GET", "/v1/nothing", 404, "NoSuchPath", "openapi"),
        ("POST", "/v1/records/k", 405, "NoSuchMethod", "openapi"),
        ("GET", "/v1/records/k", 404, "NotFound", "0 agents"),
    ] {
        let answer = api(&agent, method, path, b"*").await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        let error = json(&answer)["error"].clone();
        assert_eq!(error["code"], code, "{method} {path}");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    // Without the DHT there is none to ask, and it says how to turn it on.
    let off = Agent::start(config(69, "mesh-1", &[])).await.unwrap();
    let answer = api(&off, "GET", "/v1/records/k", b"").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("spec.discovery.kademlia"),
        "{}",
        answer.text()
    );
    assert_eq!(
        json(&api(&off, "GET", "/v1/peers", b"").await)["peers"],
        Value::Array(Vec::new())
    );
}

#[tokio::test]
async fn every_documented_path_is_there_and_the_document_is_served() {
    let agent = Agent::start(with_dht(70, "mesh-0", &[])).await.unwrap();
    let document = json(&api(&agent, "GET", "/openapi.json", b"").await);
    for (method, path) in peernet_node::api::ROUTES {
        let documented = &document["paths"][path][method]["responses"];
        let real = path
            .replace("{peerId}", &agent.peer_id().to_string())
            .replace("{key}", "k")
            .replace("{name}", "n");
        let answer = api(&agent, &method.to_uppercase(), &real, b"v").await;
        assert!(
            documented.get(answer.status.to_string()).is_some(),
            "{method} {path}: {} is not documented: {}",
            answer.status,
            answer.text()
        );
    }
}

#[tokio::test]
async fn the_api_listens_on_loopback_alone_unless_it_is_opened() {
    let closed = Agent::start(with_dht(71, "mesh-0", &[])).await.unwrap();
    assert!(closed.api_address().ip().is_loopback());
    let open = Agent::start(Config {
        api_open: true,
        ..with_dht(71, "mesh-1", &[])
    })
    .await
    .unwrap();
    assert!(open.api_address().ip().is_unspecified());
}

#[tokio::test]
async fn an_agent_that_has_nobody_to_hand_its_records_to_ends_all_the_same() {
    let agent = Agent::start(with_dht(72, "mesh-0", &[])).await.unwrap();
    // Too few have it, but it is there.
    assert_eq!(api(&agent, "PUT", "/v1/records/k", b"v").await.status, 503);
    timeout(DEADLINE, agent.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn more_commands_than_may_be_at_work_are_refused_at_once_and_the_others_are_done() {
    let slow = Config {
        probe: Probe {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            window: Duration::from_secs(60),
            burst: 1,
        },
        ..with_dht(73, "mesh-0", &[])
    };
    let a = Agent::start(slow).await.unwrap();
    let b = Agent::start(with_dht(73, "mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    meshed(&[&a, &b]).await;
    let path = format!("/v1/ping/{}", b.peer_id());
    let answers = futures::future::join_all((0..40).map(|_| api(&a, "GET", &path, b""))).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert!(
        statuses.iter().all(|status| [200, 429].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
}
