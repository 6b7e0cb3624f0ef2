use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::stamp::wire::FollowUp;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(2);
const MICRO: i64 = 1_000;

/// Probe n leaves at n seconds, on a world clock that both hosts share here: only differences matter.
fn wall(moment: Duration) -> Wall {
    Wall(1_700_000_000 * Wall::SECOND + i64::try_from(moment.as_nanos()).unwrap())
}

fn reading(moment: Duration) -> Reading {
    Reading {
        before: moment,
        wall: wall(moment),
        after: moment,
    }
}

/// A sender with the world around it: what is sent is reflected, unless it gets lost.
struct World {
    sender: Sender,
    told: Vec<Told>,
    sent: HashMap<u32, Duration>,
    reflected: u32,
    last: Option<FollowUp>,
    clock: StampClock,
    kernel_stamps: bool,
}

impl World {
    fn new() -> Self {
        Self::starting_at(0, 0)
    }

    fn starting_at(first: u64, reflected: u64) -> Self {
        Self {
            sender: Sender::starting_at(first, reflected, SECOND, TIMEOUT),
            told: Vec::new(),
            sent: HashMap::new(),
            reflected: low(reflected),
            last: None,
            clock: StampClock::Kernel,
            kernel_stamps: true,
        }
    }

    fn send(&mut self, at: Duration) -> u32 {
        let seq = self.sender.next_seq().unwrap();
        self.sender.sent(wall(at), reading(at), Duration::from_micros(50));
        if self.kernel_stamps {
            self.sender.stamped(seq, wall(at + Duration::from_micros(10)));
        }
        self.sent.insert(seq, at);
        seq
    }

    /// The reflector answers a request: 100 us on the way each way, 300 us in the peer's host.
    fn reflect(&mut self, seq: u32) -> (Reply, Duration) {
        let t1 = self.sent[&seq] + Duration::from_micros(10);
        let t2 = t1 + Duration::from_micros(100);
        let t3 = t2 + Duration::from_micros(300);
        let reply = Reply {
            seq: self.reflected,
            ssid: 1,
            sent: wall(t3),
            received: wall(t2),
            request: seq,
            request_sent: wall(self.sent[&seq]),
            ttl: 64,
            follow_up: self.last,
        };
        self.last = Some(FollowUp {
            seq: self.reflected,
            sent: wall(t3),
            clock: StampClock::Kernel,
        });
        self.reflected = self.reflected.wrapping_add(1);
        (reply, t3 + Duration::from_micros(100))
    }

    fn receive(&mut self, reply: &Reply, t4: Duration) {
        let taken = reading(t4 + Duration::from_micros(20));
        let t4 = self.kernel_stamps.then(|| wall(t4));
        self.sender.replied(reply, t4, taken, self.clock, &mut self.told);
    }

    fn round(&mut self, at: Duration) -> u32 {
        let seq = self.send(at);
        let (reply, t4) = self.reflect(seq);
        self.receive(&reply, t4);
        seq
    }

    fn expire(&mut self, now: Duration) {
        self.sender.expire(now, &mut self.told);
    }

    fn news(&mut self) -> Vec<StampNews> {
        self.told.drain(..).map(|told| told.news).collect()
    }

    fn count(&self, wanted: impl Fn(&StampNews) -> bool) -> usize {
        self.told.iter().filter(|told| wanted(&told.news)).count()
    }
}

fn is_sample(news: &StampNews) -> bool {
    matches!(news, StampNews::Sample(_))
}

#[test]
fn a_sample_is_complete_with_the_reply_after_its_own() {
    let mut world = World::new();
    world.round(SECOND);
    assert_eq!(world.told, []);
    world.round(SECOND * 2);
    let told = world.told[0];
    assert_eq!(world.told.len(), 1);
    let StampNews::Sample(sample) = told.news else {
        panic!("{told:?}");
    };
    assert_eq!(sample.network, Duration::from_micros(200));
    assert_eq!(sample.own_host, Duration::from_micros(10 + 20));
    assert_eq!(sample.peer_host, Duration::from_micros(300));
    assert_eq!(sample.lateness, Duration::from_micros(50));
    assert_eq!(sample.clock, StampClock::Kernel);
    // The sample is as old as its answer, not as its completion.
    assert_eq!(told.at, SECOND + Duration::from_micros(530));
    assert_eq!(told.sample.unwrap().0, 0);
}

#[test]
fn a_hundred_rounds_give_ninety_nine_samples_and_nothing_is_kept() {
    let mut world = World::new();
    for n in 1..=100 {
        world.round(SECOND * n);
        world.expire(SECOND * n + SECOND / 2);
    }
    assert_eq!(world.count(is_sample), 99);
    assert_eq!(world.told.len(), 99);
    assert!(world.sender.probes.len() <= 2);
}

#[test]
fn what_is_lost_on_the_way_there_is_told_after_the_timeout_with_its_direction() {
    let mut world = World::new();
    world.round(SECOND);
    world.send(SECOND * 2);
    world.round(SECOND * 3);
    world.told.clear();
    world.expire(SECOND * 4 - Duration::from_nanos(1));
    assert_eq!(world.news(), []);
    world.expire(SECOND * 4);
    assert_eq!(world.told[0].at, SECOND * 4);
    assert_eq!(world.news(), [StampNews::LostForward]);
    assert_eq!(world.sender.unanswered(), 1);
    world.round(SECOND * 5);
    assert_eq!(world.sender.unanswered(), 0);
}

#[test]
fn what_is_lost_on_the_way_back_is_told_so() {
    let mut world = World::new();
    world.round(SECOND);
    let lost = world.send(SECOND * 2);
    world.reflect(lost);
    world.round(SECOND * 3);
    world.expire(SECOND * 4);
    assert_eq!(world.count(|news| *news == StampNews::LostBackward), 1);
    assert_eq!(world.count(|news| *news == StampNews::LostForward), 0);
    world.round(SECOND * 4);
    // The reply that got lost would have told when the first one left: that sample has no t3, and is void in the end.
    world.expire(SECOND * 20);
    assert_eq!(
        world.count(|news| *news == StampNews::Voided),
        2,
        "the first, and the newest"
    );
    assert_eq!(world.count(is_sample), 1);
}

#[test]
fn an_outage_has_no_direction_until_an_answer_comes() {
    let mut world = World::new();
    world.round(SECOND);
    for n in 2..=5 {
        let seq = world.send(SECOND * n);
        if n <= 3 {
            world.reflect(seq);
        }
    }
    world.expire(SECOND * 7);
    assert_eq!(world.news(), [StampNews::LostUndirected; 4]);
    world.round(SECOND * 9);
    let located = world.news();
    let directions = |forward| {
        located
            .iter()
            .filter(|news| **news == StampNews::Located { forward })
            .count()
    };
    assert_eq!((directions(true), directions(false)), (2, 2), "{located:?}");
}

#[test]
fn a_run_with_a_probe_still_on_the_way_waits_for_it() {
    let mut world = World::new();
    world.round(SECOND);
    world.send(SECOND * 2);
    let slow = world.send(SECOND * 3);
    let (late_reply, _) = world.reflect(slow);
    world.round(SECOND * 4);
    world.told.clear();
    world.expire(SECOND * 4);
    assert_eq!(world.news(), [StampNews::LostUndirected]);
    world.receive(&late_reply, SECOND * 4 + Duration::from_millis(900));
    let news = world.news();
    assert!(news.contains(&StampNews::Located { forward: true }), "{news:?}");
    assert!(news.contains(&StampNews::Reordered), "{news:?}");
}

#[test]
fn an_answer_that_comes_too_late_is_lost_and_no_sample() {
    let mut world = World::new();
    world.round(SECOND);
    let slow = world.send(SECOND * 2);
    let (reply, _) = world.reflect(slow);
    world.receive(&reply, SECOND * 4 + Duration::from_micros(10));
    assert_eq!(world.told[1].news, StampNews::LostUndirected);
    world.round(SECOND * 5);
    world.round(SECOND * 6);
    world.expire(SECOND * 30);
    assert_eq!(
        world.count(|news| matches!(news, StampNews::LostForward | StampNews::LostBackward)),
        0
    );
    assert_eq!(world.count(|news| matches!(news, StampNews::Located { .. })), 0);
    assert_eq!(world.count(is_sample), 2);
}

#[test]
fn an_answer_that_waited_for_our_own_program_is_in_time() {
    let mut world = World::new();
    let seq = world.send(SECOND);
    let (reply, t4) = world.reflect(seq);
    // We were stopped for a minute; the kernel had the answer long before.
    let taken = reading(SECOND * 61);
    world
        .sender
        .replied(&reply, Some(wall(t4)), taken, StampClock::Kernel, &mut world.told);
    world.expire(SECOND * 61);
    world.round(SECOND * 62);
    let StampNews::Sample(sample) = world.told[0].news else {
        panic!("{:?}", world.told);
    };
    assert_eq!(sample.network, Duration::from_micros(200));
    assert!(sample.own_host > SECOND * 59);
}

#[test]
fn without_stamps_of_the_kernel_the_program_s_stand_in_and_say_so() {
    let mut world = World::new();
    world.kernel_stamps = false;
    world.round(SECOND);
    world.round(SECOND * 2);
    assert_eq!(
        world.news(),
        [StampNews::Voided],
        "the kernel should have stamped it"
    );
    world.clock = StampClock::UserSpace;
    world.round(SECOND * 3);
    let told = world.told[0];
    let StampNews::Sample(sample) = told.news else {
        panic!("{told:?}");
    };
    assert_eq!(sample.clock, StampClock::UserSpace);
    assert_eq!(sample.network, Duration::from_micros(200 + 10 + 20));
    assert_eq!(sample.own_host, Duration::ZERO);
}

#[test]
fn the_sample_is_worth_what_the_worse_end_s_clock_is() {
    let mut world = World::new();
    world.round(SECOND);
    world.last = world.last.map(|last| FollowUp {
        clock: StampClock::UserSpace,
        ..last
    });
    world.round(SECOND * 2);
    assert!(matches!(
        world.told[0].news,
        StampNews::Sample(StampSample {
            clock: StampClock::UserSpace,
            ..
        })
    ));
}

#[test]
fn a_step_of_our_clock_voids_what_was_on_the_way() {
    for step in [3_600_000_000_000, -3_600_000_000_000, 5_000_000, -5_000_000_i64] {
        let mut world = World::new();
        let seq = world.send(SECOND);
        let (reply, t4) = world.reflect(seq);
        let mut taken = reading(t4 + Duration::from_micros(20));
        taken.wall.0 += step;
        let t4 = Wall(wall(t4).0 + step);
        world
            .sender
            .replied(&reply, Some(t4), taken, StampClock::Kernel, &mut world.told);
        world.round(SECOND * 2);
        assert_eq!(world.news(), [StampNews::Voided], "{step}");
    }
}

#[test]
fn a_step_of_the_peer_s_clock_voids_what_it_had() {
    for step in [3_600_000_000_000, -3_600_000_000_000, 5_000_000, -5_000_000_i64] {
        let mut world = World::new();
        world.round(SECOND);
        // The peer noticed: it gives no t3.
        let stepped = world.last.take();
        world.round(SECOND * 2);
        world.expire(SECOND * 20);
        assert_eq!(world.count(is_sample), 0);
        assert_eq!(world.count(|news| *news == StampNews::Voided), 2, "{step}");
        // And if it did not notice, the order shows it.
        let mut world = World::new();
        world.round(SECOND);
        world.last = stepped.map(|last| FollowUp {
            sent: Wall(last.sent.0 + step),
            ..last
        });
        world.round(SECOND * 2);
        assert_eq!(world.news(), [StampNews::Voided], "{step}");
    }
}

#[test]
fn copies_are_counted_and_change_nothing() {
    let mut world = World::new();
    let seq = world.send(SECOND);
    let (reply, t4) = world.reflect(seq);
    for _ in 0..3 {
        world.receive(&reply, t4);
    }
    assert_eq!(world.news(), [StampNews::Duplicated; 2]);
    world.round(SECOND * 2);
    assert_eq!(world.count(is_sample), 1);
}

#[test]
fn an_answer_to_another_session_s_probe_of_that_number_is_ignored() {
    let mut world = World::new();
    let seq = world.send(SECOND);
    let (mut reply, t4) = world.reflect(seq);
    reply.request_sent.0 += MICRO;
    world.receive(&reply, t4);
    reply.request = 77;
    world.receive(&reply, t4);
    assert_eq!(world.told, []);
    world.expire(SECOND * 3);
    assert_eq!(world.news(), [StampNews::LostUndirected]);
}

#[test]
fn a_probe_that_the_kernel_refuses_never_left() {
    let mut world = World::new();
    world.round(SECOND);
    world.send(SECOND * 2);
    world.sender.not_sent(&mut world.told);
    assert_eq!(world.news(), [StampNews::LostForward]);
    world.send(SECOND * 3);
    world.round(SECOND * 4);
    world.told.clear();
    world.expire(SECOND * 5);
    assert_eq!(world.news(), [StampNews::LostForward]);
}

#[test]
fn numbers_wrap_around() {
    let first = u64::from(u32::MAX) - 3;
    let mut world = World::starting_at(first, first);
    for n in 1..=10 {
        if n == 5 {
            world.send(SECOND * n);
        } else {
            world.round(SECOND * n);
        }
        world.expire(SECOND * n);
    }
    assert_eq!(world.count(is_sample), 8);
    assert_eq!(world.count(|news| *news == StampNews::LostForward), 1);
}

#[test]
fn an_outage_of_days_takes_no_more_memory_and_is_still_probed() {
    let mut world = World::new();
    world.round(SECOND);
    for n in 2..5000 {
        world.send(SECOND * n);
        world.expire(SECOND * n);
    }
    assert!(world.sender.probes.len() <= MAX_PROBES);
    assert_eq!(world.sender.unanswered(), 4996);
    world.round(SECOND * 5000);
    world.round(SECOND * 5001);
    world.expire(SECOND * 5002);
    assert_eq!(world.count(is_sample), 1);
    assert_eq!(
        world.count(|news| *news == StampNews::Voided),
        1,
        "its t3 came hours late"
    );
    assert!(world.sender.probes.len() <= 2);
    let lost = world.count(|news| matches!(news, StampNews::LostUndirected | StampNews::LostForward));
    assert_eq!(lost, 4998);
}

#[test]
fn no_more_probes_are_on_the_way_than_are_remembered() {
    let mut sender = Sender::new(Duration::from_millis(10), Duration::from_secs(60));
    let mut told = Vec::new();
    let mut sent = 0;
    for n in 0..3000 {
        let at = Duration::from_millis(10) * n;
        if sender.next_seq().is_some() {
            sender.sent(wall(at), reading(at), Duration::ZERO);
            sent += 1;
        }
        sender.expire(at, &mut told);
    }
    assert_eq!(sent, MAX_PROBES);
    assert_eq!(sender.next_expiry(), Some(Duration::from_secs(60)));
}

/// What the network does to one probe.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    Forward,
    Backward,
}

proptest! {
    /// Whatever is lost in whichever order: every probe comes to exactly one end, and both directions are counted right.
    #[test]
    fn every_probe_comes_to_one_end_and_losses_are_counted_by_direction(
        fates in prop::collection::vec(
            prop_oneof![3 => Just(Fate::Answered), 1 => Just(Fate::Forward), 1 => Just(Fate::Backward)],
            1..120,
        ),
        first in prop_oneof![Just(0_u64), Just(u64::from(u32::MAX) - 50)],
    ) {
        let mut world = World::starting_at(first, first);
        let mut all = fates.clone();
        // Somebody must answer in the end, or nobody can tell.
        all.extend([Fate::Answered, Fate::Answered]);
        for (n, fate) in all.iter().enumerate() {
            let at = SECOND * u32::try_from(n + 1).unwrap();
            let seq = world.send(at);
            if *fate != Fate::Forward {
                let (reply, t4) = world.reflect(seq);
                if *fate == Fate::Answered {
                    world.receive(&reply, t4);
                }
            }
            world.expire(at + SECOND / 2);
        }
        world.expire(SECOND * 10_000);
        let fate = |wanted| all.iter().filter(|fate| **fate == wanted).count();
        let located = |forward| world.count(|news| *news == StampNews::Located { forward });
        let forward = world.count(|news| *news == StampNews::LostForward) + located(true);
        let backward = world.count(|news| *news == StampNews::LostBackward) + located(false);
        let undirected = world.count(|news| *news == StampNews::LostUndirected);
        let answered = world.count(|news| is_sample(news) || *news == StampNews::Voided);
        prop_assert_eq!(forward, fate(Fate::Forward));
        prop_assert_eq!(backward, fate(Fate::Backward));
        prop_assert_eq!(undirected, located(true) + located(false));
        prop_assert_eq!(answered, fate(Fate::Answered));
        for told in &world.told {
            if let StampNews::Sample(sample) = told.news {
                prop_assert_eq!(sample.network, Duration::from_micros(200));
            }
        }
    }

    /// A peer may answer with anything that is authentic: nothing panics, no probe comes to two ends.
    #[test]
    fn nonsense_of_a_member_does_no_harm(
        replies in prop::collection::vec((any::<u32>(), 0..12_u32, any::<i64>(), any::<i64>(), any::<u32>(), 0..30_u64), 0..60),
    ) {
        let mut world = World::new();
        let mut answered = HashSet::new();
        for n in 1..=10 {
            world.send(SECOND * n);
        }
        for (seq, request, t2, t3, of, at) in replies {
            let reply = Reply {
                seq,
                ssid: 1,
                sent: Wall(t3),
                received: Wall(t2),
                request,
                request_sent: world.sent.get(&request).map_or(Wall(0), |at| wall(*at)),
                ttl: 0,
                follow_up: Some(FollowUp { seq: of, sent: Wall(t3), clock: StampClock::Kernel }),
            };
            world.receive(&reply, Duration::from_secs(at));
            world.expire(Duration::from_secs(at));
            answered.insert(request);
        }
        world.expire(SECOND * 1000);
        let ends = world.count(|news| matches!(
            news,
            StampNews::Sample(_)
                | StampNews::Voided
                | StampNews::LostForward
                | StampNews::LostBackward
                | StampNews::LostUndirected
        ));
        prop_assert_eq!(ends, 10);
    }
}
