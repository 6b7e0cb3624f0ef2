//! Private networks: only who has the pre-shared key gets a word out of an agent.
//!
//! On the wire this is libp2p's private network (pnet), so that other implementations take part. libp2p's own crate for it
//! has one key for good; this has several at a time, and takes new ones while connections stand:
//!
//! * [`ring`]: which keys are accepted, and until when;
//! * `hint`: how the dialer learns which key the listener would use;
//! * [`handshake`]: how a connection begins, and how the listener tells keys apart;
//! * `stream`: encryption;
//! * [`reload`]: follows the file with the keys.

pub mod handshake;
mod hint;
pub mod reload;
pub mod ring;
mod stream;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::Transport;
use peernet_api::{private_key::PreSharedKey, report::PrivateNetworkReport};

use self::ring::Ring;
pub use self::stream::Encrypted;

/// The keys of this agent. Each connection is made with those of its moment; what stands is not touched when they change.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Held for as long as it takes to copy a few keys.
    ring: Arc<Mutex<Ring>>,
    grace: Duration,
}

impl Keys {
    /// `given`: the first one is the one to connect by. A key that is replaced is accepted for `grace` more.
    #[must_use]
    pub fn new(given: Vec<PreSharedKey>, grace: Duration) -> Self {
        Self {
            ring: Arc::new(Mutex::new(Ring::new(given))),
            grace,
        }
    }

    /// Takes what the file holds now. Returns whether that is something else than before.
    pub fn replace(&self, given: Vec<PreSharedKey>) -> bool {
        let mut ring = self.ring();
        let changed = !ring.holds(&given);
        if changed {
            ring.replace(given, self.grace, Instant::now());
        }
        changed
    }

    /// The keys that are accepted now. The first one is the one to connect by.
    #[must_use]
    pub fn accepted(&self) -> Vec<PreSharedKey> {
        self.ring().accepted(Instant::now()).cloned().collect()
    }

    /// The same, by name.
    #[must_use]
    pub fn report(&self) -> PrivateNetworkReport {
        let mut names = self.accepted().into_iter().map(|key| key.fingerprint());
        PrivateNetworkReport {
            key: names.next().unwrap_or_default(),
            accepted: names.collect(),
        }
    }

    /// A transport over which only those speak who share a key.
    pub fn guard<T>(
        &self,
        transport: T,
    ) -> impl Transport<
        Output = Encrypted<T::Output>,
        Error: Send + Sync + 'static,
        Dial: Send + 'static,
        ListenerUpgrade: Send + 'static,
    > + Send
    + Unpin
    + use<T>
    where
        T: Transport + Send + Unpin + 'static,
        T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        T::Error: Send + Sync + 'static,
        T::Dial: Send + 'static,
        T::ListenerUpgrade: Send + 'static,
    {
        let keys = self.clone();
        transport
            .and_then(move |socket, point| handshake::shake(socket, keys, handshake::speaks_first(&point)))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
