//! Noise's handshakes, on a thread of their own.
//!
//! A handshake is some hundred microseconds of signatures and key exchange in one piece. Whoever floods an agent with them would make
//! every answer to a ping wait for those before it; beside them, the kernel lets the thread that answers have its turn.

use std::io;

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    noise,
};
use tokio::{runtime::Handle, task::JoinSet};

/// Noise, whose handshakes another runtime works on.
#[derive(Clone)]
pub(super) struct Aside {
    pub(super) noise: noise::Config,
    pub(super) runtime: Handle,
}

impl Aside {
    /// Has the handshake done. If the caller gives up, it ends.
    fn hand_over<S>(runtime: &Handle, handshake: Handshake<S>) -> Handshake<S>
    where
        S: Send + 'static,
    {
        let mut work = JoinSet::new();
        work.spawn_on(handshake, runtime);
        async move {
            match work.join_next().await {
                Some(Ok(result)) => result,
                // The agent is about to end.
                _ => Err(noise::Error::Io(io::ErrorKind::ConnectionAborted.into())),
            }
        }
        .boxed()
    }
}

type Handshake<S> = BoxFuture<'static, Result<(PeerId, noise::Output<S>), noise::Error>>;

impl UpgradeInfo for Aside {
    type Info = <noise::Config as UpgradeInfo>::Info;
    type InfoIter = <noise::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.noise.protocol_info()
    }
}

impl<S> InboundConnectionUpgrade<S> for Aside
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, noise::Output<S>);
    type Error = noise::Error;
    type Future = Handshake<S>;

    fn upgrade_inbound(self, socket: S, info: Self::Info) -> Self::Future {
        Self::hand_over(&self.runtime, self.noise.upgrade_inbound(socket, info))
    }
}

impl<S> OutboundConnectionUpgrade<S> for Aside
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, noise::Output<S>);
    type Error = noise::Error;
    type Future = Handshake<S>;

    fn upgrade_outbound(self, socket: S, info: Self::Info) -> Self::Future {
        Self::hand_over(&self.runtime, self.noise.upgrade_outbound(socket, info))
    }
}
