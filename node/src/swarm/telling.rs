//! What the reporting thread hears of the event loop.

use std::{sync::atomic::Ordering, time::Instant};

use peernet_api::report::Path;

use super::{EventLoop, relaying::Relaying};
use crate::{
    ledger::Member,
    ping::Over,
    telemetry::{Event, State},
};

impl EventLoop {
    pub(super) fn tell_state(&mut self, now: Instant) {
        let ping = &self.swarm.behaviour().ping;
        let members = self.members.values().map(|member| {
            let direct = ping.measured(&member.peer, Over::Direct(self.config.first_transport()));
            let best = ping.best(&member.peer);
            let best = best.and_then(|id| self.connections.get(&id));
            let circuit = best.and_then(|connection| connection.circuit);
            let relay = circuit.and_then(|circuit| self.members.get(&circuit.relay?));
            let link = self.links.get(&member.peer);
            Member {
                transports: link.map(|link| link.transports.clone()).unwrap_or_default(),
                link: direct.and_then(|id| Some(self.connections.get(&id)?.remote?.socket())),
                path: circuit.map_or(Path::Direct, |_| Path::Relayed),
                relay: relay.map(|relay| relay.name.clone()),
                ..member.clone()
            }
        });
        let admission = &self.swarm.behaviour().admission;
        let mut counters = self.counters;
        counters.strangers_rejected += admission.refused_strangers();
        let gate = self.probation.gate();
        counters.connections_refused = admission.refused_limits() + gate.refused.load(Ordering::Relaxed);
        counters.handshakes_to_validate = gate.to_validate.load(Ordering::Relaxed);
        if let Some(stamping) = &self.stamp {
            counters.stamp = stamping.counts();
            counters.events_dropped += counters.stamp.dropped;
        }
        let state = State {
            at: now.saturating_duration_since(self.started),
            listening: self.listening.is_none(),
            members: members.collect(),
            guests: (self.config.guests > 0).then(|| self.guests.count()),
            external: self.external.values().cloned().collect(),
            connections: admission.established(),
            reachable: self.relaying.as_ref().and_then(Relaying::reachable),
            services: self.dht.services(),
            counters,
            strangers: self.strangers.clone(),
            relaying: self.relay_counts(),
        };
        self.tell(Event::State(state));
    }

    pub(super) fn tell(&mut self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.counters.events_dropped += 1;
        }
    }
}
