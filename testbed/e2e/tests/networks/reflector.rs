//! Who gets an answer from the agents' STAMP reflector: the network's members, and others only where the network says so.

use std::{net::SocketAddr, time::Duration};

use peernet_api::report::STAMP_PORT;
use peernet_e2e::{Outcome, network::Network, scenario::testbed_scenario, waiting::eventually};
use serde_json::json;
use tokio::{net::UdpSocket, time::timeout};

/// An unauthenticated packet of RFC 8762, section 4.2.1.
const PACKET: usize = 44;
/// How long to wait for an answer that should not come. On this machine one that does takes less than a millisecond.
const SILENCE: Duration = Duration::from_millis(500);
const TRIES: u32 = 5;

#[test]
fn strangers_get_an_answer_only_from_an_open_reflector() {
    testbed_scenario("the foreign STAMP senders", "reflector", async |scenario| {
        let spec = |open: bool| json!({"replicas": 2, "probe": {"stamp": {"openReflector": open}}});
        let open = Network::create(scenario, "open", spec(true)).await?;
        let closed = Network::create(scenario, "closed", spec(false)).await?;
        open.until_ready(2).await?;
        closed.until_ready(2).await?;
        let open = reflector(&open, "open-0").await?;
        let answer = eventually("the open reflector to answer a stranger", async || {
            ask(open, 41).await?.ok_or_else(|| "silence".into())
        })
        .await?;
        assert!(answer.len() <= PACKET, "no longer than the question: {answer:?}");
        assert_eq!(
            answer.get(24..28),
            Some(41_u32.to_be_bytes().as_slice()),
            "the sender's sequence number stands in the answer (RFC 8762, section 4.3.1): {answer:?}"
        );
        let closed = reflector(&closed, "closed-0").await?;
        for seq in 0..TRIES {
            let answer = ask(closed, seq).await?;
            assert_eq!(answer, None, "a closed reflector answers no stranger");
        }
        Ok(())
    });
}

async fn reflector(network: &Network, pod: &str) -> Outcome<SocketAddr> {
    let [ip] = network.addresses([pod]).await?;
    Ok(SocketAddr::new(ip.parse()?, STAMP_PORT))
}

/// Sends what any STAMP sender would, and waits a while for an answer.
async fn ask(reflector: SocketAddr, seq: u32) -> Outcome<Option<Vec<u8>>> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(reflector).await?;
    let mut packet = [0; PACKET];
    for (into, byte) in packet.iter_mut().zip(seq.to_be_bytes()) {
        *into = byte;
    }
    // An error estimate must not be 0: S 0, Z 1 (PTP's format), scale 0, multiplier 1.
    packet[12] = 0x40;
    packet[13] = 1;
    socket.send(&packet).await?;
    let mut answer = vec![0; 2048];
    match timeout(SILENCE, socket.recv(&mut answer)).await {
        Ok(Ok(length)) => Ok(Some(answer[..length].to_vec())),
        // Nobody listens there: as silent as can be.
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}
