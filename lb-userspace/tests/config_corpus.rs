//! Configuration files that weir takes, and files that it refuses with exactly these words.
//!
//! `WEIR_UPDATE_EXPECTED=1 cargo test -p lb-userspace --test config_corpus` writes the `.stderr` files anew.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_userspace::config::{
    Affinity, Announce, Config, Endpoint, ForwardMode, Health, OnExit, Protocol, Scope, XdpMode,
    check,
    health::{Dns, Grpc, Host, Http, Probe, Tls, Udp, Via},
};

const SECRET: &str = "do-not-print-this-seed";

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/configs")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

#[test]
fn refuses_every_broken_file_with_line_key_and_remedy() {
    let files = files("broken");
    assert!(files.len() >= 30);
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let Err(errors) = Config::parse(&text, name) else {
            panic!("{name} is taken as valid");
        };
        let said = format!("{errors}\n");
        assert!(
            !said.contains("do-not-print"),
            "{name} shows the seed: {said}"
        );
        assert!(
            !said.contains("1234567890"),
            "{name} shows the seed: {said}"
        );
        assert!(!format!("{errors:?}").contains("do-not-print"), "{name}");
        assert!(!errors.findings().is_empty(), "{name}");
        for finding in errors.findings() {
            assert!(
                finding.line >= 1 && finding.line <= text.lines().count().max(1),
                "{finding}"
            );
            assert!(
                !finding.key.is_empty() && !finding.help.is_empty(),
                "{finding}"
            );
            assert!(
                !finding.found.is_empty() && !finding.wanted.is_empty(),
                "{finding}"
            );
        }
        let expected = path.with_extension("stderr");
        if std::env::var_os("WEIR_UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if said != expected {
            wrong.push(format!("--- {name}: expected\n{expected}--- said\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn takes_every_good_file() {
    for path in files("good") {
        let text = fs::read_to_string(&path).unwrap();
        let config = Config::parse(&text, path.to_str().unwrap());
        let config = config.unwrap_or_else(|errors| panic!("{}: {errors}", path.display()));
        let shown = format!("{config:?}");
        for secret in [SECRET, "fleet-secret", "from-the-seed-file"] {
            assert!(!shown.contains(secret), "{}: {shown}", path.display());
        }
    }
}

fn good(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/configs/good")
        .join(name);
    let text = fs::read_to_string(&path).unwrap();
    Config::parse(&text, path.to_str().unwrap()).unwrap()
}

#[test]
fn reads_access_lists_and_their_files() {
    let config = good("access.toml");
    let shown = |lists: &lb_userspace::config::Lists| {
        let entries = lists.entries.iter().map(|entry| {
            let word = if entry.is_denied { "deny" } else { "allow" };
            format!("{word} {}", entry.prefix)
        });
        entries.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        shown(&config.access),
        "allow 0.0.0.0/0, deny 192.0.2.0/24, allow 192.0.2.53/32, deny 198.51.100.0/24, allow ::/0, \
         deny 2001:db8:bad::/48, deny 2001:db8:bad::1/128"
    );
    let [web, ssh] = config.vips.as_slice() else {
        panic!("two VIPs")
    };
    assert!(!web.access.is_given());
    assert_eq!(
        shown(&ssh.access),
        "allow 198.51.100.0/24, allow 2001:db8:a::/48, allow 2001:db8:bad::1/128"
    );
}

#[test]
fn reads_where_redis_is() {
    let redis = good("redis_sentinel.toml").redis.unwrap();
    assert!(matches!(redis.endpoint, Endpoint::Sentinel(_)));
    assert_eq!(redis.period, Duration::from_millis(50));
    assert_eq!(redis.timeout, Duration::from_millis(20));
    let redis = good("redis_file.toml").redis.unwrap();
    assert!(redis.url.expose().starts_with("redis://weir:"));
    assert!(matches!(redis.endpoint, Endpoint::Single(_)));
    assert_eq!(good("minimal.toml").redis, None);
}

#[test]
fn reads_peers_once_each_in_any_order() {
    let peers = good("fleet.toml").fleet.peers;
    let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
    assert_eq!(
        peers,
        ["10.0.0.1:9407", "10.0.0.2:9407", "[2001:db8::3]:9407"]
    );
    assert!(good("minimal.toml").fleet.peers.is_empty());
}

#[test]
fn reads_what_the_design_shows() {
    let config = good("design.toml");
    assert_eq!(config.node.name, "lb-1");
    assert_eq!(config.node.interfaces, ["eth0"]);
    assert_eq!(config.node.seed.expose(), "fleet-secret");
    assert_eq!(
        config.node.metrics_listen,
        "127.0.0.1:9407".parse().unwrap()
    );
    let redis = config.redis.as_ref().unwrap();
    assert_eq!(redis.fleet, "edge");
    assert_eq!(redis.period, Duration::from_millis(100));
    assert_eq!(redis.timeout, Duration::from_millis(50));
    assert!(matches!(redis.endpoint, Endpoint::Single(_)));
    let [vip] = config.vips.as_slice() else {
        panic!("one VIP")
    };
    assert_eq!(
        (vip.name.as_str(), vip.port, vip.protocol),
        ("web", 443, Protocol::Tcp)
    );
    assert_eq!(vip.affinity, Affinity::Flow);
    let [first, second] = vip.backends.as_slice() else {
        panic!("two backends")
    };
    assert_eq!(
        (first.weight, first.mac, first.forward),
        (100, None, ForwardMode::L2)
    );
    assert_eq!(
        (second.weight, second.mac),
        (0, Some([2, 0, 0, 0, 0, 0x0b]))
    );
}

#[test]
fn fills_in_the_defaults() {
    let node = good("minimal.toml").node;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(node.name, host.trim());
    assert_eq!((node.xdp_mode, node.on_exit), (XdpMode::Auto, OnExit::Keep));
    assert_eq!(node.pin_path, Path::new("/sys/fs/bpf/weir"));
    assert_eq!(node.api_socket, Path::new("/run/weir/weir.sock"));
    assert_eq!(node.metrics_listen, "127.0.0.1:9407".parse().unwrap());
}

#[test]
fn reads_the_seed_from_a_file_beside_the_configuration() {
    let node = good("seed_file.toml").node;
    assert_eq!(node.seed.expose(), "from-the-seed-file");
    assert_eq!(
        (node.xdp_mode, node.on_exit),
        (XdpMode::Generic, OnExit::Detach)
    );
}

#[test]
fn keeps_the_files_order_and_tells_services_apart() {
    let vips = good("several_vips.toml").vips;
    let names: Vec<&str> = vips.iter().map(|vip| vip.name.as_str()).collect();
    assert_eq!(names, ["web", "web-all-ports", "quic", "web.v6"]);
    let tables: Vec<_> = vips.iter().map(|vip| vip.table.as_str()).collect();
    assert_eq!(tables, ["maglev", "maglev", "ring", "maglev"]);
    assert_eq!(vips[3].affinity, Affinity::Source);
    assert_eq!(vips[3].backends[1].weight, 65535);
}

#[test]
fn reads_modes_their_sources_and_announcements() {
    let config = good("forward_modes.toml");
    let source = config.node.encap_source;
    assert_eq!(source.v4, Some([10, 0, 0, 1].into()));
    assert_eq!(source.v6, Some("2001:db8::1".parse().unwrap()));
    assert_eq!(config.node.gue_port, 6081);
    let modes = |vip: usize| -> Vec<_> {
        let backends = config.vips[vip].backends.iter();
        backends.map(|backend| backend.forward).collect()
    };
    // A backend's own key beats the VIP's.
    assert_eq!(
        modes(0),
        [ForwardMode::Ipip, ForwardMode::Ipip, ForwardMode::L2]
    );
    assert_eq!(modes(2), [ForwardMode::Gue, ForwardMode::Ipip]);
    let announced: Vec<_> = config.vips.iter().map(|vip| vip.announce).collect();
    assert_eq!(announced, [Announce::L2, Announce::L2, Announce::None]);
    let plain = good("minimal.toml").node;
    assert_eq!((plain.gue_port, plain.encap_source.v4), (6080, None));
}

#[test]
fn reads_how_routes_are_announced() {
    let config = good("announce.toml");
    let announce = &config.announce;
    assert_eq!((announce.table, announce.protocol), (100, 202));
    assert_eq!(announce.hold_down, Duration::from_secs(30));
    assert_eq!(announce.dead_daemon_hold, None);
    assert_eq!(announce.withdraw_delay, Some(Duration::from_secs(15)));
    let vips: Vec<_> = config
        .vips
        .iter()
        .map(|vip| (vip.announce, vip.min_healthy))
        .collect();
    let route = Announce::Route;
    assert_eq!(vips, [(route, 2), (route, 1), (Announce::L2, 0)]);
    let usual = good("minimal.toml").announce;
    assert_eq!((usual.table, usual.protocol), (4077, 201));
    assert_eq!(usual.hold_down, Duration::from_secs(10));
    assert_eq!(usual.dead_daemon_hold, Some(Duration::from_mins(10)));
    assert_eq!(usual.withdraw_delay, None);
}

#[test]
fn reads_every_type_of_health_check() {
    let vips = good("health.toml").vips;
    let health: Vec<Option<Health>> = vips.into_iter().map(|vip| vip.health).collect();
    let plain = Health {
        probe: Probe::Tcp,
        via: Via::Direct,
        port: 443,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        panic_threshold: 100,
    };
    assert_eq!(health[0], Some(plain));
    assert_eq!(health[1], None);

    let http = health[2].as_ref().unwrap();
    let half_a_second = Duration::from_millis(500);
    assert_eq!(
        (http.interval, http.timeout),
        (half_a_second, half_a_second)
    );
    assert_eq!((http.port, http.rise, http.fall), (8080, 1, 5));
    assert_eq!(http.panic_threshold, 50);
    let vip = [203, 0, 113, 3].into();
    assert_eq!(http.via, Via::Dsr { vip });
    let Probe::Http(Http {
        tls: None,
        host,
        path,
        expect_status,
    }) = &http.probe
    else {
        panic!("{http:?}")
    };
    assert_eq!(path, "/healthz?deep=1");
    assert_eq!(*host, Host::of_address([203, 0, 113, 3].into()));
    let passes: Vec<u16> = (100..600)
        .filter(|status| expect_status.contains(*status))
        .collect();
    assert_eq!(passes, [200, 204]);

    let https = health[3].as_ref().unwrap();
    assert_eq!((https.port, https.timeout), (8443, Duration::from_secs(2)));
    let Probe::Http(Http {
        tls: Some(Tls { verify: true }),
        host,
        path,
        expect_status,
    }) = &https.probe
    else {
        panic!("{https:?}")
    };
    assert_eq!(
        (host.authority.as_str(), host.name.as_str()),
        ("www.example.com:8443", "www.example.com")
    );
    assert_eq!(path, "/");
    assert!(
        expect_status.contains(200) && expect_status.contains(399) && !expect_status.contains(400)
    );

    let grpc = Grpc {
        tls: Some(Tls { verify: false }),
        host: Host {
            authority: "[2001:db8::5]".to_owned(),
            name: "2001:db8::5".to_owned(),
        },
        service: "shop.v1.Carts".to_owned(),
    };
    assert_eq!(health[4].as_ref().unwrap().probe, Probe::Grpc(grpc));
    let udp = Udp {
        send: vec![0, 1, 0, 0, 0, 1, 0, 0],
        expect: b"VERSION".to_vec(),
    };
    assert_eq!(health[5].as_ref().unwrap().probe, Probe::Udp(udp));
    for (health, wanted) in health[6..].iter().zip([Protocol::Udp, Protocol::Tcp]) {
        let Probe::Dns(Dns { query, transport }) = &health.as_ref().unwrap().probe else {
            panic!("{health:?}")
        };
        assert_eq!(
            (query.to_string().as_str(), *transport),
            ("example.com.", wanted)
        );
    }
}

/// A file of the repository.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

#[test]
fn takes_the_example_that_is_shipped() {
    let example = shipped("deploy/weir.example.toml");
    check(&example, Scope::Offline).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn takes_the_health_checks_of_the_documentation() {
    let page = fs::read_to_string(shipped("docs/health.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
    let sections: Vec<&str> = blocks
        .flat_map(|block| block.split("[vip.health]").skip(1))
        .collect();
    assert!(sections.len() >= 4);
    for section in sections {
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n[[vip]]\nname = \"web\"\n\
             address = \"203.0.113.10\"\nport = 443\nprotocol = \"tcp\"\n[vip.health]{section}"
        );
        let config =
            Config::parse(&text, "docs").unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        assert!(config.vips[0].health.is_some());
    }
}

fn many(vips: usize, backends: usize) -> String {
    use std::fmt::Write as _;
    let mut text = "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n".to_owned();
    for vip in 0..vips {
        write!(
            text,
            "[[vip]]\nname = \"v{vip}\"\naddress = \"203.0.113.1\"\nport = {vip}\nprotocol = \"tcp\"\nbackend = ["
        )
        .unwrap();
        for backend in 0..backends {
            write!(
                text,
                "{{ address = \"10.0.{}.{}\" }},",
                backend / 256,
                backend % 256
            )
            .unwrap();
        }
        text.push_str("]\n");
    }
    text
}

#[test]
fn holds_the_limits_of_vips_and_backends() {
    assert!(Config::parse(&many(4096, 0), "f").is_ok());
    let errors = Config::parse(&many(4097, 0), "f").unwrap_err();
    let [finding] = errors.findings() else {
        panic!("{errors}")
    };
    assert_eq!(
        (finding.key.as_str(), finding.line),
        ("vip[4096]", 3 + 4096 * 6 + 1)
    );

    // 65,533 = 151 × 433 + 150
    assert!(Config::parse(&many(151, 433), "f").is_ok());
    let errors = Config::parse(&many(152, 433), "f").unwrap_err();
    let [finding] = errors.findings() else {
        panic!("{errors}")
    };
    assert_eq!(finding.key, "vip[151].backend[150]");
    assert!(finding.wanted.contains("65533"), "{finding}");
}
