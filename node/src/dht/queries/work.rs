//! What runs.

use std::{collections::HashMap, time::Instant};

use libp2p::{
    Multiaddr, PeerId,
    kad::{Record, RecordKey},
};

use super::copies::Copy;
use crate::dht::command::{Announced, Failure, Found, Got, Providers, Put, Quorum, Reply};

/// Who waits for a search for providers.
#[derive(Debug)]
pub(super) enum Sink {
    Reply(Reply<Providers>),
    Service(usize),
}

#[derive(Debug)]
pub(super) enum Work {
    /// Looks for the agents that should have a record that was put here.
    Place {
        record: Record,
        quorum: Quorum,
        reply: Reply<Put>,
    },
    /// Brings it to them.
    Store {
        expires: Instant,
        needed: usize,
        of: usize,
        asked: u32,
        reply: Reply<Put>,
    },
    Get {
        quorum: Quorum,
        copies: Vec<Copy>,
        reply: Reply<Got>,
    },
    Announce {
        reply: Option<Reply<Announced>>,
    },
    Providers {
        key: RecordKey,
        found: HashMap<PeerId, Vec<Multiaddr>>,
        round: u32,
        quiet: u32,
        before: usize,
        asked: u32,
        sink: Sink,
    },
    FindPeer {
        peer: PeerId,
        reply: Reply<Found>,
    },
    /// Looks for the agents that should have a record.
    PlaceAgain {
        record: Record,
    },
    /// Brings it to some.
    Push {
        key: RecordKey,
    },
}

impl Work {
    pub(super) fn is_task(&self) -> bool {
        match self {
            Self::Place { .. } | Self::Store { .. } | Self::Get { .. } | Self::FindPeer { .. } => false,
            Self::Announce { reply } => reply.is_none(),
            Self::Providers { sink, .. } => matches!(sink, Sink::Service(_)),
            Self::PlaceAgain { .. } | Self::Push { .. } => true,
        }
    }

    pub(super) fn give_up(self) {
        // Who asked may have gone.
        match self {
            Self::Place { reply, .. } | Self::Store { reply, .. } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Get { reply, .. } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Providers {
                sink: Sink::Reply(reply),
                ..
            } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::FindPeer { reply, .. } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Announce { reply: Some(reply) } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Announce { reply: None }
            | Self::Providers { .. }
            | Self::PlaceAgain { .. }
            | Self::Push { .. } => {}
        }
    }
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) begun: Instant,
    pub(super) work: Work,
}
