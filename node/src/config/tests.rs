use std::fs;

use clap::CommandFactory;

use super::*;

fn args(secret_file: &Path) -> Args {
    let given = [
        "peernet-node",
        "--network",
        "demo/mesh",
        "--name",
        "mesh-0",
        "--pod-ip",
        "10.0.0.7",
    ];
    Args {
        secret_file: secret_file.to_owned(),
        ..Args::parse_from(given)
    }
}

struct SecretFile(PathBuf);

impl SecretFile {
    fn new(test: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("peernet-node-{}-{test}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn the_flags_are_sound() {
    Args::command().debug_assert();
}

#[test]
fn defaults_make_a_valid_configuration() {
    let secret = SecretFile::new("defaults", &[1; 32]);
    let config = args(&secret.0).config().unwrap();
    assert_eq!(
        (config.p2p_port, config.http_port),
        (report::P2P_PORT, report::HTTP_PORT)
    );
    assert_eq!(config.probe.interval, Duration::from_secs(1));
    assert_eq!(config.peers_per_node, 64);
    assert_eq!((config.probe.burst, config.stamp_port), (5, report::STAMP_PORT));
    assert!(config.stamp && !config.stamp_open);
    assert_eq!(config.guests, 0);
    assert_eq!((config.api_port, config.api_open), (report::API_PORT, false));
    assert!(config.services.is_empty());
    assert!(config.mdns && config.kademlia && config.seed_dns.is_empty() && config.bootstrap.is_empty());
    assert_eq!(
        config.kad_protocol().unwrap().as_ref(),
        "/peernet/demo/mesh/kad/1.0.0"
    );
}

#[test]
fn agents_that_share_a_host_have_ports_by_their_ordinal() {
    let secret = SecretFile::new("ordinal", &[1; 32]);
    let args = Args {
        port_step: "8".into(),
        ordinal: "3".into(),
        ..args(&secret.0)
    };
    let config = args.config().unwrap();
    let ports = (config.p2p_port, config.http_port, config.stamp_port);
    assert_eq!(ports, (4025, 8104, 8644));
    assert_eq!(args.own_http_port(), Ok(8104));
}

#[test]
fn seeds_are_names_with_or_without_a_port() {
    let secret = SecretFile::new("names", &[1; 32]);
    let args = Args {
        seed_dns: "mesh.demo.svc, mesh-0.mesh.demo.svc:20000".into(),
        ..args(&secret.0)
    };
    let name = |name: &str, port| SeedName {
        name: name.to_owned(),
        port,
    };
    assert_eq!(
        args.config().unwrap().seed_dns,
        [
            name("mesh.demo.svc", None),
            name("mesh-0.mesh.demo.svc", Some(20_000))
        ]
    );
}

#[test]
fn seeds_are_where_the_first_transport_listens() {
    let secret = SecretFile::new("seeds", &[1; 32]);
    let args = Args {
        seeds: "192.0.2.1:4001".into(),
        transports: "QUIC,TCP".into(),
        ..args(&secret.0)
    };
    let seed = Address::new(Transport::Quic, ([192, 0, 2, 1], 4001).into());
    assert_eq!(args.config().unwrap().seeds, [seed]);
}

#[test]
fn the_kademlia_protocol_may_be_another_network_s() {
    let secret = SecretFile::new("protocol", &[1; 32]);
    let given = Args {
        kademlia_protocol: "/lab/kad/1.0.0".into(),
        ..args(&secret.0)
    };
    assert_eq!(given.config().unwrap().kad_protocol().unwrap(), "/lab/kad/1.0.0");
    let off = Args {
        kademlia: "false".into(),
        ..given
    };
    assert_eq!(off.config().unwrap().kad_protocol(), None);
}

#[test]
fn what_can_t_be_used_is_named_by_its_variable() {
    let secret = SecretFile::new("refused", &[1; 32]);
    let peer = PeerId::random();
    type Spoil = Box<dyn Fn(&mut Args)>;
    let cases: Vec<(&str, Spoil)> = vec![
        ("PEERNET_NETWORK", Box::new(|args| args.network = "mesh".into())),
        (
            "PEERNET_NETWORK",
            Box::new(|args| args.network = "demo/Mesh".into()),
        ),
        ("PEERNET_NAME", Box::new(|args| args.name = String::new())),
        ("PEERNET_GUESTS", Box::new(|args| args.guests = "257".into())),
        ("PEERNET_GUESTS", Box::new(|args| args.guests = "-1".into())),
        ("PEERNET_NAME", Box::new(|args| args.name = "a b".into())),
        ("PEERNET_POD_IP", Box::new(|args| args.pod_ip = "pod".into())),
        ("PEERNET_POD_IP", Box::new(|args| args.pod_ip = "0.0.0.0".into())),
        (
            "PEERNET_SECRET_FILE",
            Box::new(|args| args.secret_file = "/nonexistent".into()),
        ),
        ("PEERNET_P2P_PORT", Box::new(|args| args.p2p_port = "0".into())),
        (
            "PEERNET_HTTP_PORT",
            Box::new(|args| args.http_port = "65536".into()),
        ),
        ("PEERNET_PORT_STEP", Box::new(|args| args.port_step = "-8".into())),
        ("PEERNET_SEED_DNS", Box::new(|args| args.seed_dns = "a:0".into())),
        ("PEERNET_ORDINAL", Box::new(|args| args.ordinal = "x".into())),
        (
            "PEERNET_P2P_PORT",
            Box::new(|args| {
                args.port_step = "8".into();
                args.ordinal = "8000".into();
            }),
        ),
        (
            "PEERNET_KADEMLIA_PROTOCOL",
            Box::new(|args| args.kademlia_protocol = "kad".into()),
        ),
        (
            "PEERNET_PROBE_INTERVAL",
            Box::new(|args| args.probe_interval = "fast".into()),
        ),
        (
            "PEERNET_PROBE_INTERVAL",
            Box::new(|args| args.probe_interval = "1ms".into()),
        ),
        (
            "PEERNET_PROBE_TIMEOUT",
            Box::new(|args| args.probe_timeout = "0s".into()),
        ),
        (
            "PEERNET_PROBE_TIMEOUT",
            Box::new(|args| args.probe_timeout = "61s".into()),
        ),
        (
            "PEERNET_PROBE_WINDOW",
            Box::new(|args| args.probe_window = "500ms".into()),
        ),
        (
            "PEERNET_PROBE_WINDOW",
            Box::new(|args| args.probe_interval = "10m".into()),
        ),
        (
            "PEERNET_PEERS_PER_NODE",
            Box::new(|args| args.peers_per_node = "0".into()),
        ),
        (
            "PEERNET_PEERS_PER_NODE",
            Box::new(|args| args.peers_per_node = "513".into()),
        ),
        (
            "PEERNET_PROBE_BURST",
            Box::new(|args| args.probe_burst = "0".into()),
        ),
        (
            "PEERNET_PROBE_BURST",
            Box::new(|args| args.probe_burst = "17".into()),
        ),
        ("PEERNET_STAMP", Box::new(|args| args.stamp = "on".into())),
        (
            "PEERNET_STAMP_PORT",
            Box::new(|args| args.stamp_port = "stamp".into()),
        ),
        (
            "PEERNET_STAMP_PORT",
            Box::new(|args| args.stamp_port = "65536".into()),
        ),
        (
            "PEERNET_STAMP_OPEN",
            Box::new(|args| args.stamp_open = String::new()),
        ),
        (
            "PEERNET_STAMP_CLOCK",
            Box::new(|args| args.stamp_clock = "sundial".into()),
        ),
        ("PEERNET_SEEDS", Box::new(|args| args.seeds = "10.0.0.1".into())),
        ("PEERNET_MDNS", Box::new(|args| args.mdns = "yes".into())),
        ("PEERNET_KADEMLIA", Box::new(|args| args.kademlia = String::new())),
        (
            "PEERNET_BOOTSTRAP_PEERS",
            Box::new(|args| args.bootstrap_peers = "10.0.0.1:4001".into()),
        ),
        (
            "PEERNET_BOOTSTRAP_PEERS",
            Box::new(|args| args.bootstrap_peers = "/ip4/10.0.0.1/tcp/1".into()),
        ),
        (
            "PEERNET_BOOTSTRAP_PEERS",
            Box::new(move |args| args.bootstrap_peers = format!("/ip4/10.0.0.1/udp/1/quic-v1/p2p/{peer}")),
        ),
        (
            "PEERNET_BOOTSTRAP_PEERS",
            Box::new(move |args| {
                args.bootstrap_peers = format!("/ip4/10.0.0.1/tcp/1/p2p/{peer},").repeat(17)
            }),
        ),
    ];
    for (variable, spoil) in cases {
        let mut args = args(&secret.0);
        spoil(&mut args);
        let error = args.config().unwrap_err();
        assert_eq!(error.variable, variable, "{error}");
        assert!(
            error.to_string().starts_with(variable) && !error.to_string().contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_secret_is_refused_and_not_shown() {
    let secret = SecretFile::new("damaged", b"0123456789abcdef0123456789abcde");
    let error = args(&secret.0).config().unwrap_err();
    assert_eq!(error.variable, "PEERNET_SECRET_FILE");
    assert!(error.problem.contains("32 bytes, this one has 31"), "{error}");
    assert!(!error.problem.contains("0123456789abcdef"), "{error}");
}

#[test]
fn a_private_network_s_key_is_the_file_s_or_follows_from_the_secret() {
    let secret = SecretFile::new("private", &[1; 32]);
    let private = |private: &str, file: &str| {
        Args {
            private_network: private.to_owned(),
            swarm_key_file: file.to_owned(),
            ..args(&secret.0)
        }
        .config()
        .map(|config| config.private)
    };
    assert!(private("false", "").unwrap().is_none());
    let derived = private("true", "").unwrap().unwrap();
    assert_eq!(
        derived.keys,
        [NetworkSecret::new(&[1; 32]).unwrap().pre_shared_key()]
    );
    assert_eq!(derived.file, None);

    let key = peernet_api::private_key::PreSharedKey::new([7; 32]);
    let file = SecretFile::new("swarm-key", key.to_file().as_bytes());
    let path = file.0.display().to_string();
    let given = private("true", &path).unwrap().unwrap();
    assert_eq!((given.keys, given.file), (vec![key], Some(file.0.clone())));

    let damaged = SecretFile::new("damaged-key", b"/key/swarm/psk/1.0.0/\n/base16/\nhunter2\n");
    let damaged = damaged.0.display().to_string();
    for (is_private, file, says) in [
        ("true", "/nonexistent", "failed to read /nonexistent"),
        ("true", &damaged, "line 3 is no key"),
        ("true", &damaged, &damaged),
        ("false", &path, "PEERNET_PRIVATE_NETWORK=true"),
    ] {
        let error = private(is_private, file).unwrap_err();
        assert_eq!(error.variable, "PEERNET_SWARM_KEY_FILE");
        assert!(error.problem.contains(says), "{error}");
        assert!(!error.problem.contains("hunter2"), "{error}");
    }
}

#[test]
fn bootstrap_peers_are_addresses_or_names() {
    let secret = SecretFile::new("bootstrap", &[1; 32]);
    let (a, b) = (PeerId::random(), PeerId::random());
    let bootstrap_peers = format!("/ip6/fd00::1/tcp/4001/p2p/{a}, /dns4/a.example.com/tcp/4002/p2p/{b},");
    let config = Args {
        bootstrap_peers,
        ..args(&secret.0)
    }
    .config()
    .unwrap();
    let address = Place::Address(Address::tcp("[fd00::1]:4001".parse().unwrap()));
    let name = Place::Name(Transport::Tcp, "a.example.com".to_owned(), 4002);
    assert_eq!(
        config.bootstrap,
        [
            Bootstrap {
                peer: a,
                place: address
            },
            Bootstrap { peer: b, place: name }
        ]
    );
}

#[test]
fn the_log_s_format_is_checked() {
    assert_eq!(
        Args {
            log_format: "json".into(),
            ..Args::default()
        }
        .log_format(),
        Ok(LogFormat::Json)
    );
    let error = Args {
        log_format: "xml".into(),
        ..Args::default()
    }
    .log_format()
    .unwrap_err();
    assert_eq!(error.variable, "LOG_FORMAT");
}

#[test]
fn relays_are_those_with_the_lowest_ordinals_or_all() {
    let secret = SecretFile::new("relays", &[1; 32]);
    let config = |name: &str, servers: &str| {
        Args {
            name: name.into(),
            relay: "true".into(),
            relay_servers: servers.into(),
            ..args(&secret.0)
        }
        .config()
    };
    for (name, servers, serves) in [
        ("mesh-0", "2", true),
        ("mesh-1", "2", true),
        ("mesh-2", "2", false),
        ("mesh-12", "2", false),
        ("mesh-0", "0", false),
        ("n1", "2", false),
        ("n1", "all", true),
    ] {
        let relay = config(name, servers).unwrap().relay.unwrap();
        assert_eq!(relay.serve.is_some(), serves, "{name} of {servers}");
    }
    let limits = config("mesh-0", "1").unwrap().relay.unwrap().serve.unwrap();
    assert_eq!(limits.circuit_bytes, 64 << 20);
    assert_eq!(limits.circuit_duration, Duration::from_secs(3600));
    assert!(args(&secret.0).config().unwrap().relay.is_none());
    let error = config("mesh-0", "some").unwrap_err();
    assert_eq!(error.variable, "PEERNET_RELAY_SERVERS");
}

#[test]
fn services_are_names_with_a_bound() {
    let secret = SecretFile::new("services", &[1; 32]);
    let with = |services: String| {
        Args {
            services,
            ..args(&secret.0)
        }
        .config()
    };
    assert_eq!(
        with("web, db/1,,web".to_owned()).unwrap().services,
        ["web", "db/1"]
    );
    for services in [
        "x".repeat(report::MAX_SERVICE_NAME + 1),
        (0..=report::MAX_SERVICES).map(|n| format!("s{n},")).collect(),
    ] {
        assert_eq!(with(services).unwrap_err().variable, "PEERNET_SERVICES");
    }
}
