use libp2p::swarm::{
    ListenError,
    behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure},
};

use super::*;

fn limits() -> Limits {
    Limits {
        pending_incoming: 2,
        pending_per_source: 2,
        unknown: 2,
        unknown_per_source: 2,
        pending_outgoing: 2,
        established_incoming: 2,
        newcomers: 1,
        established_outgoing: 2,
        established: 3,
        established_per_peer: 1,
    }
}

fn dialed() -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: "/memory/1".parse().unwrap(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::New,
    }
}

fn connect(behaviour: &mut Behaviour, peer: PeerId, id: usize) -> Result<(), ConnectionDenied> {
    let (id, addr) = (ConnectionId::new_unchecked(id), "/memory/1".parse().unwrap());
    behaviour.handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer)?;
    let admitted =
        behaviour.handle_established_outbound_connection(id, peer, &addr, Endpoint::Dialer, PortUse::New);
    admitted?;
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: id,
        endpoint: &dialed(),
        failed_addresses: &[],
        other_established: 0,
    }));
    Ok(())
}

fn disconnect(behaviour: &mut Behaviour, peer: PeerId, id: usize) {
    behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(id),
        endpoint: &dialed(),
        cause: None,
        remaining_established: 0,
    }));
}

fn house(limits: Limits) -> Behaviour {
    Behaviour::new(limits, Wasted::default())
}

#[test]
fn nothing_is_kept_of_peers_that_left() {
    let mut behaviour = house(limits());
    for id in 0..10_000 {
        let peer = PeerId::random();
        connect(&mut behaviour, peer, id).unwrap();
        disconnect(&mut behaviour, peer, id);
    }
    assert_eq!((behaviour.per_peer.len(), behaviour.established()), (0, 0));
    assert!(behaviour.pending_outgoing.is_empty());
}

/// What there was too much of.
fn too_many(denied: Result<(), ConnectionDenied>) -> &'static str {
    match denied.unwrap_err().downcast::<Refused>().unwrap() {
        Refused::Limit { what, .. } => what,
        Refused::Stranger => "strangers",
        Refused::Memory => "memory",
    }
}

#[test]
fn each_limit_is_enforced() {
    let mut behaviour = house(limits());
    let (a, b, c) = (PeerId::random(), PeerId::random(), PeerId::random());
    connect(&mut behaviour, a, 1).unwrap();
    assert_eq!(too_many(connect(&mut behaviour, a, 2)), "connections to one peer");
    connect(&mut behaviour, b, 3).unwrap();
    assert_eq!(too_many(connect(&mut behaviour, c, 4)), "outbound connections");

    let address: Multiaddr = "/memory/1".parse().unwrap();
    let mut knock =
        |id| behaviour.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &address, &address);
    knock(5).unwrap();
    knock(6).unwrap();
    assert_eq!(too_many(knock(7)), "inbound handshakes");

    let mut enter = |peer, id| {
        let id = ConnectionId::new_unchecked(id);
        behaviour.handle_established_inbound_connection(id, peer, &address, &address)?;
        let endpoint = ConnectedPoint::Listener {
            local_addr: address.clone(),
            send_back_addr: address.clone(),
        };
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        Ok(())
    };
    enter(c, 5).unwrap();
    assert_eq!(too_many(enter(PeerId::random(), 6)), "connections");
    disconnect(&mut behaviour, a, 1);
    let mut behaviour = house(Limits {
        established: 9,
        established_incoming: 0,
        newcomers: 0,
        ..limits()
    });
    let id = ConnectionId::new_unchecked(8);
    let denied = behaviour.handle_established_inbound_connection(id, a, &address, &address);
    assert_eq!(too_many(denied.map(drop)), "inbound connections");
}

/// Lets a peer in from an address.
fn enter(behaviour: &mut Behaviour, peer: PeerId, id: usize, from: &str) -> Result<(), ConnectionDenied> {
    let id = ConnectionId::new_unchecked(id);
    let (local, remote): (Multiaddr, Multiaddr) = ("/memory/1".parse().unwrap(), from.parse().unwrap());
    behaviour.handle_pending_inbound_connection(id, &local, &remote)?;
    behaviour.handle_established_inbound_connection(id, peer, &local, &remote)?;
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: id,
        endpoint: &ConnectedPoint::Listener {
            local_addr: local,
            send_back_addr: remote,
        },
        failed_addresses: &[],
        other_established: 0,
    }));
    Ok(())
}

#[test]
fn those_who_have_not_shown_what_they_are_have_few_places_and_fewer_from_one_address() {
    let mut behaviour = house(Limits {
        unknown: 3,
        unknown_per_source: 2,
        ..Limits::for_peers(64, 1, 0)
    });
    let (member, one, other) = (PeerId::random(), "/ip4/192.0.2.1/tcp/9", "/ip4/192.0.2.2/tcp/9");
    enter(&mut behaviour, PeerId::random(), 1, one).unwrap();
    enter(&mut behaviour, PeerId::random(), 2, one).unwrap();
    let denied = enter(&mut behaviour, PeerId::random(), 3, one);
    assert_eq!(too_many(denied), "connections of unknown peers from one address");
    enter(&mut behaviour, member, 4, other).unwrap();
    let denied = enter(&mut behaviour, PeerId::random(), 5, other);
    assert_eq!(too_many(denied), "connections of unknown peers");
    assert_eq!(behaviour.refused_limits(), 2);

    // A member's place is free again as soon as it has shown that it is one, and it may come a second time.
    behaviour.know(member);
    assert_eq!(behaviour.unknown().count(), 2);
    enter(&mut behaviour, member, 6, one).unwrap();
    enter(&mut behaviour, PeerId::random(), 7, other).unwrap();
    // Whoever left is unknown again.
    for id in [4, 6] {
        behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: member,
            connection_id: ConnectionId::new_unchecked(id),
            endpoint: &dialed(),
            cause: None,
            remaining_established: usize::from(id == 4),
        }));
    }
    assert_eq!(
        too_many(enter(&mut behaviour, member, 8, other)),
        "connections of unknown peers"
    );
    assert!(behaviour.known.is_empty());
}

#[test]
fn circuits_have_no_address_and_share_all_places() {
    let mut behaviour = house(Limits {
        unknown: 12,
        ..Limits::for_peers(64, 1, 0)
    });
    let circuit = |n: usize, behaviour: &mut Behaviour| {
        let peer = PeerId::random();
        enter(behaviour, peer, n, &format!("/p2p/{peer}"))
    };
    for n in 0..12 {
        circuit(n, &mut behaviour).unwrap();
    }
    assert_eq!(
        too_many(circuit(12, &mut behaviour)),
        "connections of unknown peers"
    );
}

#[test]
fn handshakes_from_one_address_leave_places_for_others() {
    let mut behaviour = house(Limits::for_peers(64, 1, 0));
    let local: Multiaddr = "/memory/1".parse().unwrap();
    let mut knock = |id, from: &str| {
        let id = ConnectionId::new_unchecked(id);
        behaviour.handle_pending_inbound_connection(id, &local, &from.parse().unwrap())
    };
    for id in 0..8 {
        knock(id, "/ip4/192.0.2.1/tcp/9").unwrap();
    }
    assert_eq!(
        too_many(knock(8, "/ip4/192.0.2.1/tcp/9")),
        "inbound handshakes from one address"
    );
    knock(9, "/ip4/192.0.2.2/tcp/9").unwrap();
}

#[test]
fn whose_connections_come_to_nothing_again_and_again_has_to_wait() {
    let mut behaviour = house(Limits::for_peers(64, 1, 0));
    let (member, one, other) = (PeerId::random(), "/ip4/192.0.2.1/tcp/9", "/ip4/192.0.2.2/tcp/9");
    enter(&mut behaviour, member, 0, one).unwrap();
    behaviour.know(member);
    let most = usize::try_from(wasted::ALLOWED.burst).unwrap();
    for id in 1..=most {
        let peer = PeerId::random();
        enter(&mut behaviour, peer, id, one).unwrap();
        disconnect(&mut behaviour, peer, id);
    }
    let denied = enter(&mut behaviour, PeerId::random(), most + 1, one);
    assert_eq!(
        too_many(denied),
        "connections from one address that come to nothing"
    );
    enter(&mut behaviour, PeerId::random(), most + 2, other).unwrap();

    // Handshakes that fail count, too; connections of members that end do not.
    let mut behaviour = house(Limits::for_peers(64, 1, 0));
    let local: Multiaddr = "/memory/1".parse().unwrap();
    for id in 0..=most {
        enter(&mut behaviour, member, id, one).unwrap();
        behaviour.know(member);
        disconnect(&mut behaviour, member, id);
    }
    let remote: Multiaddr = one.parse().unwrap();
    for id in 0..=most {
        let id = ConnectionId::new_unchecked(id);
        let knocked = behaviour.handle_pending_inbound_connection(id, &local, &remote);
        assert_eq!(knocked.is_ok(), id != ConnectionId::new_unchecked(most));
        behaviour.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
            local_addr: &local,
            send_back_addr: &remote,
            error: &ListenError::Aborted,
            connection_id: id,
            peer_id: None,
        }));
    }
}

#[test]
fn when_memory_is_short_only_those_come_in_who_are_known() {
    let mut behaviour = house(Limits::for_peers(64, 1, 0));
    let (member, address) = (PeerId::random(), "/ip4/192.0.2.1/tcp/9");
    connect(&mut behaviour, member, 1).unwrap();
    behaviour.know(member);
    behaviour.set_memory_is_short(true);
    assert_eq!(
        too_many(enter(&mut behaviour, PeerId::random(), 2, address)),
        "memory"
    );
    // We still choose whom to dial.
    connect(&mut behaviour, PeerId::random(), 3).unwrap();
    behaviour.set_memory_is_short(false);
    enter(&mut behaviour, PeerId::random(), 4, address).unwrap();
}

#[test]
fn who_comes_when_all_places_are_taken_has_one_turn_beyond_them() {
    let mut behaviour = house(Limits {
        unknown: 9,
        unknown_per_source: 9,
        established: 9,
        ..limits()
    });
    let (now, from) = (Instant::now(), "/ip4/192.0.2.1/tcp/9");
    let (first, newcomer, late) = (PeerId::random(), PeerId::random(), PeerId::random());
    enter(&mut behaviour, first, 1, from).unwrap();
    enter(&mut behaviour, PeerId::random(), 2, from).unwrap();
    assert_eq!(behaviour.too_many(), 0);
    enter(&mut behaviour, newcomer, 3, from).unwrap();
    assert_eq!(behaviour.too_many(), 1);
    assert_eq!(
        too_many(enter(&mut behaviour, late, 4, from)),
        "inbound connections"
    );
    // Its turn is over, and others have theirs. It comes back as soon as there is a place for good.
    behaviour.end_turn(newcomer, now);
    disconnect(&mut behaviour, newcomer, 3);
    assert_eq!(
        too_many(enter(&mut behaviour, newcomer, 5, from)),
        "inbound connections"
    );
    enter(&mut behaviour, late, 6, from).unwrap();
    disconnect(&mut behaviour, late, 6);
    disconnect(&mut behaviour, first, 1);
    enter(&mut behaviour, newcomer, 7, from).unwrap();
    for _ in 0..5_000 {
        behaviour.end_turn(PeerId::random(), now);
    }
    assert_eq!(behaviour.had_turn.len(), MAX_NEWCOMERS);
    behaviour.end_turn(PeerId::random(), now + NEWCOMER_PAUSE);
    assert_eq!(behaviour.had_turn.len(), 1);
}

#[test]
fn a_guest_is_held_to_fewer_connections_than_a_member() {
    let limits = Limits {
        established: 9,
        established_outgoing: 9,
        established_per_peer: 4,
        ..limits()
    };
    let mut behaviour = house(limits);
    let guest = PeerId::random();
    behaviour.set_guest(guest, true);
    connect(&mut behaviour, guest, 1).unwrap();
    connect(&mut behaviour, guest, 2).unwrap();
    assert_eq!(
        too_many(connect(&mut behaviour, guest, 3)),
        "connections to one peer"
    );
    behaviour.set_guest(guest, false);
    connect(&mut behaviour, guest, 4).unwrap();
}

#[test]
fn guests_have_room_beside_that_of_members() {
    let (without, with) = (Limits::for_peers(8, 1, 0), Limits::for_peers(8, 1, 16));
    let of_guests = 16 * GUEST_CONNECTIONS;
    assert_eq!(
        with.established_incoming,
        without.established_incoming + of_guests
    );
    assert_eq!(with.established, without.established + of_guests);
    assert_eq!(with.established_outgoing, without.established_outgoing);
}

#[test]
fn who_is_only_not_to_be_dialed_may_come_and_who_is_to_wait_may_come_later() {
    let mut behaviour = house(limits());
    let (now, address) = (Instant::now(), "/memory/1".parse::<Multiaddr>().unwrap());
    let comes = |behaviour: &mut Behaviour, peer, id| {
        let id = ConnectionId::new_unchecked(id);
        behaviour
            .handle_established_inbound_connection(id, peer, &address, &address)
            .is_ok()
    };
    let (undialed, waiting) = (PeerId::random(), PeerId::random());
    behaviour.keep_out(undialed, Ban::Dials, now);
    assert!(behaviour.is_stranger(&undialed, now));
    assert!(connect(&mut behaviour, undialed, 1).is_err());
    assert!(comes(&mut behaviour, undialed, 2));
    behaviour.keep_out(waiting, Ban::Pause, now);
    assert!(!comes(&mut behaviour, waiting, 3));
    assert!(!behaviour.is_stranger(&waiting, now + GUEST_TTL));
}

#[test]
fn strangers_are_kept_out_for_a_while_and_their_number_is_bounded() {
    let mut behaviour = house(limits());
    let now = Instant::now();
    let stranger = PeerId::random();
    behaviour.keep_out(stranger, Ban::All, now);
    assert!(connect(&mut behaviour, stranger, 1).is_err());
    assert!(!behaviour.is_stranger(&stranger, now + STRANGER_TTL));
    for n in 0..5_000_u64 {
        behaviour.keep_out(PeerId::random(), Ban::All, now + Duration::from_millis(n + 1));
    }
    assert_eq!(behaviour.strangers.len(), MAX_STRANGERS);
}
