//! `weir import`: files as ipvsadm and keepalived have them, what becomes of them, and what is said of the rest.
//!
//! `WEIR_UPDATE_EXPECTED=1 cargo test -p lb-userspace --test import` writes the `.toml` and `.stderr` files anew.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use lb_userspace::config::{
    Affinity, Config, ForwardMode, Protocol,
    health::{Dns, Http, Probe},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// Runs `weir` among the files.
fn weir(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .current_dir(folder())
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// What a file becomes, which is held against the files beside it; the configuration, read by weir's own reader.
fn imported(format: &str, file: &str, more: &[&str]) -> (Config, String) {
    let mut arguments = vec!["import", format, file];
    arguments.extend(more);
    let output = weir(&arguments, "");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    let (config, said) = (text(&output.stdout), text(&output.stderr));
    for (is, kind) in [(config, "toml"), (said, "stderr")] {
        let path = folder().join(format!("{file}.{kind}"));
        if std::env::var_os("WEIR_UPDATE_EXPECTED").is_some() {
            fs::write(&path, is).unwrap();
        }
        assert_eq!(
            is,
            fs::read_to_string(&path).unwrap_or_default(),
            "{file}.{kind}"
        );
    }
    let left = said.contains("not carried over: ") || said.contains("to be filled in: ");
    assert_eq!(
        output.status.code(),
        Some(if left { 3 } else { 0 }),
        "{said}"
    );
    (
        Config::parse_offline(config, file).unwrap(),
        said.to_owned(),
    )
}

/// Address, port, protocol, affinity, and the backends with weight and mode.
type Short = (
    String,
    u16,
    Protocol,
    Affinity,
    Vec<(String, u16, ForwardMode)>,
);

fn short(config: &Config) -> Vec<Short> {
    let vips = config.vips.iter().map(|vip| {
        let backends = vip.backends.iter();
        let backends = backends.map(|b| (b.address.to_string(), b.weight, b.forward));
        (
            vip.address.to_string(),
            vip.port,
            vip.protocol,
            vip.affinity,
            backends.collect(),
        )
    });
    vips.collect()
}

fn vip(
    (address, port): (&str, u16),
    protocol: Protocol,
    affinity: Affinity,
    backends: &[(&str, u16, ForwardMode)],
) -> Short {
    let backends = backends.iter();
    let backends = backends.map(|(address, weight, mode)| ((*address).to_owned(), *weight, *mode));
    (
        address.to_owned(),
        port,
        protocol,
        affinity,
        backends.collect(),
    )
}

/// The lines that are named, once each.
fn lines(said: &str, file: &str) -> Vec<usize> {
    let place = format!(": {file}:");
    let numbers = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once(&place)?;
        rest.split(':').next()?.parse().ok()
    });
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.dedup();
    numbers
}

use Affinity::{Flow, Source};
use ForwardMode::{Gue, Ipip, L2};
use Protocol::{Tcp, Udp};

#[test]
fn ipvs_services_keep_address_weights_and_modes() {
    let (config, said) = imported(
        "ipvsadm",
        "edge.ipvsadm",
        &[
            "--interface",
            "eth0",
            "--encap-source",
            "10.0.0.1",
            "--encap-source",
            "2001:db8:0:1::1",
        ],
    );
    assert_eq!(
        short(&config),
        [
            vip(
                ("203.0.113.10", 80),
                Tcp,
                Flow,
                &[
                    ("10.0.0.11", 100, L2),
                    ("10.0.0.12", 100, L2),
                    ("10.0.0.13", 200, L2)
                ]
            ),
            vip(
                ("203.0.113.10", 443),
                Tcp,
                Flow,
                &[("10.0.0.11", 1, L2), ("10.0.0.12", 0, L2)]
            ),
            vip(
                ("203.0.113.53", 53),
                Udp,
                Flow,
                &[("10.1.0.53", 10, Ipip), ("10.2.0.53", 20, Ipip)]
            ),
            vip(("203.0.113.20", 0), Tcp, Source, &[("10.0.0.21", 1, L2)]),
            vip(
                ("2001:db8::10", 443),
                Tcp,
                Source,
                &[("2001:db8:0:1::11", 100, L2), ("2001:db8:0:2::12", 50, Gue)]
            ),
        ]
    );
    // Persistence is what it comes nearest to, and GUE's port is the node's: nothing is lost.
    assert_eq!(lines(&said, "edge.ipvsadm"), [11, 15], "{said}");
    assert!(!said.contains("not carried over"), "{said}");
}

#[test]
fn what_ipvs_has_and_weir_lacks_is_named_line_by_line() {
    let (config, said) = imported("ipvsadm", "odd.ipvsadm", &[]);
    assert_eq!(
        short(&config),
        [
            vip(
                ("198.51.100.5", 25),
                Tcp,
                Source,
                &[("10.3.0.25", 1, L2), ("10.3.0.27", 5, L2)]
            ),
            vip(
                ("198.51.100.6", 5060),
                Udp,
                Flow,
                &[("10.3.0.60", 2, L2), ("10.3.0.61", 4, L2)]
            ),
            vip(("2001:db8::5", 80), Tcp, Flow, &[("10.3.0.80", 1, Gue)]),
        ]
    );
    assert_eq!(
        lines(&said, "odd.ipvsadm"),
        [
            2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22
        ],
        "{said}"
    );
    for named in [
        "-M 255.255.255.0",
        "wlc",
        "port 25 translated to 2525",
        "70000",
        "-x 1000",
        "firewall mark",
        "SCTP",
        "--pe sip",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
    assert!(
        said.contains("to be filled in: odd.ipvsadm: the interface"),
        "{said}"
    );
}

#[test]
fn keepalived_servers_keep_address_weights_modes_and_checks() {
    let (config, said) = imported(
        "keepalived",
        "keepalived.conf",
        &["--encap-source", "10.8.0.1"],
    );
    let resolvers: &[_] = &[("10.8.1.53", 10, Ipip), ("10.8.2.53", 20, Ipip)];
    let resolvers_v6: &[_] = &[("10.8.1.53", 10, Gue), ("10.8.2.53", 20, Gue)];
    assert_eq!(
        short(&config),
        [
            vip(
                ("203.0.113.80", 443),
                Tcp,
                Flow,
                &[
                    ("10.8.0.11", 100, L2),
                    ("10.8.0.12", 50, L2),
                    ("10.8.0.13", 0, L2)
                ]
            ),
            vip(("203.0.113.53", 53), Udp, Source, resolvers),
            vip(("203.0.113.54", 53), Udp, Source, resolvers),
            vip(("2001:db8::53", 53), Udp, Source, resolvers_v6),
        ]
    );
    assert_eq!(
        config.node.interfaces,
        ["bond0"],
        "as the VRRP instance has it"
    );
    let web = config.vips.first().unwrap().health.as_ref().unwrap();
    let Probe::Http(Http {
        tls: Some(_),
        host,
        path,
        expect_status,
    }) = &web.probe
    else {
        panic!("{web:?}");
    };
    assert_eq!(
        (host.name.as_str(), path.as_str()),
        ("shop.example.com", "/healthz")
    );
    assert!(expect_status.contains(200) && !expect_status.contains(204));
    assert_eq!(
        (web.interval, web.timeout, web.rise, web.fall),
        (Duration::from_secs(2), Duration::from_secs(1), 1, 3)
    );
    let dns = config.vips.get(1).unwrap().health.as_ref().unwrap();
    assert!(
        matches!(&dns.probe, Probe::Dns(Dns { query, .. }) if query.to_string() == "example.com."),
        "{dns:?}"
    );
    assert_eq!(dns.interval, Duration::from_secs(5));
    // Only what is keepalived's own; nothing of the virtual servers but that IPv6 over IPv4 goes by GUE.
    assert_eq!(lines(&said, "keepalived.conf"), [2, 13], "{said}");
    assert_eq!(lines(&said, "conf.d/dns.conf"), [11, 18], "{said}");
}

#[test]
fn what_keepalived_has_and_weir_lacks_is_named_line_by_line() {
    let (config, said) = imported("keepalived", "odd.conf", &["--interface", "eth0"]);
    assert_eq!(
        short(&config),
        [vip(
            ("198.51.100.80", 80),
            Tcp,
            Source,
            &[
                ("10.9.0.11", 3, L2),
                ("10.9.0.12", 3, L2),
                ("10.9.0.13", 3, L2)
            ]
        )]
    );
    let health = config.vips.first().unwrap().health.as_ref().unwrap();
    assert_eq!((health.port, health.fall), (8081, 4));
    let expected = [
        2, 5, 9, 10, 12, 22, 24, 25, 27, 28, 29, 30, 31, 32, 34, 36, 37, 38, 42, 43, 45, 52, 55,
        57, 61, 63, 70, 81, 87, 91,
    ];
    assert_eq!(lines(&said, "odd.conf"), expected, "{said}");
}

#[test]
fn standard_input_json_and_files_without_services() {
    let one = "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.1:80 -g -w 7\n";
    let output = weir(
        &[
            "import",
            "ipvsadm",
            "-",
            "--interface",
            "eth0",
            "-o",
            "json",
        ],
        one,
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["vips"], 1);
    assert_eq!(json["remarks"], serde_json::json!([]));
    let config = Config::parse_offline(json["config"].as_str().unwrap(), "x").unwrap();
    assert_eq!(
        short(&config),
        [vip(("192.0.2.80", 80), Tcp, Flow, &[("10.0.0.1", 7, L2)])]
    );

    let output = weir(&["import", "ipvsadm", "-"], "-A -f 1 -s rr\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("stdin:1: `-A -f 1 -s rr`: a firewall mark"));
    assert!(text(&output.stderr).contains("error: stdin: no virtual server"));

    let output = weir(&["import", "keepalived", "no-such-file"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no-such-file: cannot be read"));
    assert_eq!(weir(&["import", "haproxy", "-"], "").status.code(), Some(2));
}

#[test]
fn nothing_that_is_read_makes_it_panic() {
    let files = ["edge.ipvsadm", "odd.ipvsadm", "keepalived.conf", "odd.conf"];
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(folder().join(file)).unwrap())
        .collect();
    let mut random = fastrand::Rng::with_seed(9);
    let node = lb_userspace::import::Node::default();
    for _ in 0..3000 {
        let mut bytes = random.choice(&texts).unwrap().clone().into_bytes();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(0..bytes.len().max(1));
            match random.u8(0..3) {
                0 if at < bytes.len() => drop(bytes.remove(at)),
                1 => bytes.insert(at, *random.choice(b"{}#!$\"' \n-~@:0").unwrap()),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let imported = [
            lb_userspace::import::ipvsadm(&text, "f", &node),
            lb_userspace::import::keepalived(&text, "f", &folder(), &node),
        ];
        // What comes out has been read by weir's own reader; a name that is none may make it refuse, no more.
        for imported in imported.into_iter().flatten() {
            assert!(Config::parse_offline(&imported.config, "f").is_ok());
        }
    }
}
