//! The thread that sends and reflects STAMP, without an agent around it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use peernet_api::report::StampClock;
use peernet_node::{
    stamp::{
        self, Counts, Handle, Order,
        agreement::{Keys, Reflecting, Sending},
        run,
        wire::{KEY, Key},
    },
    telemetry::{Event, StampNews},
};
use tokio::{sync::mpsc, time::timeout};

use super::{DEADLINE, eventually};

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) struct Thread {
    pub(crate) handle: Handle,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) stale: mpsc::Receiver<PeerId>,
}

impl Thread {
    pub(crate) fn start(open: bool) -> Self {
        let config = stamp::Config {
            interval: Duration::from_millis(20),
            timeout: Duration::from_millis(200),
            address: Some(LOCAL),
            port: 0,
            open,
            clock: StampClock::Kernel,
        };
        let (told, events) = mpsc::channel(1024);
        let (silent, stale) = mpsc::channel(8);
        let (worker, handle) = run::open(config, Instant::now(), told, silent).unwrap();
        std::thread::spawn(move || worker.run().unwrap());
        Self {
            handle,
            events,
            stale,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.handle.reflector()
    }

    /// A session in which the thread answers us, at any pace that a test has.
    pub(crate) fn reflect(&self, ssid: u16, keys: &Keys) {
        self.handle.order(Order::Reflect(Reflecting {
            peer: PeerId::random(),
            ssid,
            keys: keys.clone(),
            interval: Duration::from_millis(10),
        }));
    }

    /// A session in which the thread asks a reflector at that port.
    pub(crate) fn send(&self, port: u16, ssid: u16, keys: &Keys) -> PeerId {
        let peer = PeerId::random();
        self.handle.order(Order::Send(Sending {
            peer,
            ip: LOCAL,
            port,
            ssid,
            keys: keys.clone(),
        }));
        peer
    }

    pub(crate) async fn counts(&self, good: impl Fn(&Counts) -> bool) -> Counts {
        eventually("the counters", || async {
            let counts = self.handle.counts();
            if good(&counts) {
                Ok(counts)
            } else {
                Err(format!("{counts:?}"))
            }
        })
        .await
    }

    /// The next news that is not the one that the first packets may have no stamp.
    pub(crate) async fn news(&mut self) -> StampNews {
        loop {
            let event = timeout(DEADLINE, self.events.recv()).await;
            match event.expect("news in time").expect("a thread that runs") {
                Event::Stamp {
                    news: StampNews::Voided,
                    ..
                } => {}
                Event::Stamp { news, .. } => return news,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Keys that differ by direction.
pub(crate) fn keys(byte: u8) -> Keys {
    Keys {
        requests: Key::new(&[byte; KEY]),
        replies: Key::new(&[byte.wrapping_add(1); KEY]),
    }
}
