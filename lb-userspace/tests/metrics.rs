//! The metrics' server, and the page that lists them.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use lb_userspace::{
    agreement::Report,
    api::{Handle, LeavingStatus, VipAgreement},
    metrics::{self, MEASURED, METRICS, PROCESS},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn start(handle: Handle) -> SocketAddr {
    let listener = metrics::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let measured = prometheus::Registry::new();
    let counter = prometheus::IntCounter::new("weir_measured_total", "Measured elsewhere.");
    let counter = counter.unwrap();
    counter.inc_by(5);
    measured.register(Box::new(counter)).unwrap();
    let end = std::future::pending();
    tokio::spawn(metrics::serve(listener, handle, measured, end));
    address
}

/// Status line, headers and body.
async fn get(address: SocketAddr, path: &str) -> (String, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    (status.to_owned(), headers.to_owned(), body.to_owned())
}

/// Value of each sample, by its name and labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        (sample, value.parse().unwrap())
    });
    samples.collect()
}

#[tokio::test]
async fn serves_every_metric_of_the_table() {
    let address = start(common::reconciler(common::status())).await;
    let (status, headers, body) = get(address, "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains("text/plain"), "{headers}");
    let counted = METRICS.iter().map(|m| (m.name, m.kind, m.help));
    let process = PROCESS.iter().map(|m| (m.name, m.kind, m.help));
    for (name, kind, help) in counted.chain(process) {
        let kind = kind.as_str();
        for line in [
            format!("# HELP {name} {help}\n"),
            format!("# TYPE {name} {kind}\n"),
        ] {
            assert_eq!(body.matches(&line).count(), 1, "{line} in {body}");
        }
    }

    let samples = samples(&body);
    for (sample, value) in [
        (r#"weir_vip_packets_total{vip="web"}"#, 2_469_135_780.0),
        (r#"weir_vip_bytes_total{vip="web"}"#, 1_975_308_642_000.0),
        (r#"weir_vip_new_connections_total{vip="web.v6"}"#, 34.0),
        (
            r#"weir_backend_packets_total{backend="10.0.0.11",vip="web"}"#,
            1_234_567_891.0,
        ),
        (
            r#"weir_backend_new_connections_total{backend="10.0.0.12",vip="web"}"#,
            17.0,
        ),
        (
            r#"weir_backend_bytes_total{backend="2001:db8:1111:2222:3333:4444:5555:6666",vip="web.v6"}"#,
            987_654_321_000.0,
        ),
        (
            r#"weir_backend_weight{backend="10.0.0.11",vip="web"}"#,
            100.0,
        ),
        (
            r#"weir_packets_total{reason="not_vip",verdict="pass"}"#,
            99.0,
        ),
        (
            r#"weir_packets_total{reason="no_backend",verdict="drop"}"#,
            0.0,
        ),
        (
            r#"weir_table_digest_info{digest="0badcaf0",vip="web"}"#,
            1.0,
        ),
        (
            r#"weir_health_checks_total{backend="10.0.0.11",result="pass",vip="web"}"#,
            100.0,
        ),
        (
            r#"weir_health_checks_total{backend="10.0.0.12",result="fail",vip="web"}"#,
            25.0,
        ),
        (
            r#"weir_health_checks_total{backend="10.0.0.12",result="skipped",vip="web"}"#,
            1.0,
        ),
        (
            r#"weir_health_flaps_total{backend="10.0.0.12",vip="web"}"#,
            3.0,
        ),
        (
            r#"weir_health_check_last_duration_seconds{backend="10.0.0.11",vip="web"}"#,
            0.0025,
        ),
        (r#"weir_vip_announced{vip="web"}"#, 1.0),
        (r#"weir_vip_announce_wanted{vip="web"}"#, 1.0),
        (
            r#"weir_announcements_total{op="announce",result="ok"}"#,
            2.0,
        ),
        ("weir_node_drained", 0.0),
        ("weir_measured_total", 5.0),
        ("weir_config_generation", 3.0),
        (
            r#"weir_build_info{commit="0123456789ab",version="0.1.0"}"#,
            1.0,
        ),
        (
            r#"weir_vip_dropped_packets_total{reason="no_next_hop",vip="web"}"#,
            1.0,
        ),
        (
            r#"weir_vip_dropped_packets_total{reason="limited",vip="web.v6"}"#,
            8.0,
        ),
        (
            r#"weir_program_runs_total{program="weir_xdp"}"#,
            1_000_000.0,
        ),
        (
            r#"weir_program_run_seconds_total{program="weir_xdp"}"#,
            0.0625,
        ),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample} in {body}");
    }
}

#[test]
fn what_is_gone_has_no_series() {
    let mut status = common::status();
    let measured = prometheus::Registry::new();
    let gone = status.vips[0].backends.pop().unwrap();
    status.vips[0].backends[0].health = None;
    let text = metrics::text(&status, &measured).unwrap();
    let gone = format!("backend=\"{}\"", gone.address);
    assert!(!text.contains(&gone), "{text}");
    let unchecked = text.lines().filter(|line| line.contains("10.0.0.11"));
    let health: Vec<_> = unchecked.filter(|line| line.contains("_health_")).collect();
    assert_eq!(health, Vec::<&str>::new());
}

#[tokio::test]
async fn health_follows_the_daemons_task() {
    let address = start(common::reconciler(common::status())).await;
    assert_eq!(get(address, "/healthz").await.0, "HTTP/1.1 200 OK");
    assert_eq!(get(address, "/readyz").await.0, "HTTP/1.1 200 OK");
    let (status, _, body) = get(address, "/nothing").await;
    assert!(
        status.contains("404") && body.contains("\"error\""),
        "{body}"
    );

    let mut not_ready = common::status();
    not_ready.ready = false;
    let address = start(common::reconciler(not_ready)).await;
    assert_eq!(get(address, "/healthz").await.0, "HTTP/1.1 200 OK");
    let (status, _, body) = get(address, "/readyz").await;
    assert!(
        status.contains("503") && body.contains("has no next hop yet"),
        "{body}"
    );

    // A task that hangs: the commands are never received.
    let (handle, _commands) = Handle::channel();
    let address = start(handle).await;
    let (status, _, body) = get(address, "/healthz").await;
    assert!(
        status.contains("503") && body.contains("did not answer within 1 s"),
        "{body}"
    );
}

#[tokio::test]
async fn other_nodes_are_told_of_this_one_and_not_twice() {
    let address = start(common::reconciler(common::status())).await;
    let (status, headers, body) = get(address, "/fleet").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains("application/json"), "{headers}");
    assert_eq!(
        Report::from_json(body.as_bytes()).unwrap(),
        common::report()
    );
    let tag = headers.lines().find_map(|line| line.strip_prefix("etag: "));
    let known = format!("/fleet HTTP/1.1\r\nIf-None-Match: {}\r\nX:", tag.unwrap());
    let (status, _, body) = get(address, &known).await;
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("HTTP/1.1 304 Not Modified", "")
    );
    let other = "/fleet HTTP/1.1\r\nIf-None-Match: \"0123456789abcdef\"\r\nX:";
    assert_eq!(get(address, other).await.0, "HTTP/1.1 200 OK");
}

#[test]
fn how_the_nodes_of_the_fleet_stand_is_counted() {
    let mut status = common::status();
    let measured = prometheus::Registry::new();
    let text = metrics::text(&status, &measured).unwrap();
    let found = samples(&text);
    for (sample, value) in [
        (r#"weir_fleet_nodes{state="agrees"}"#, 1.0),
        (r#"weir_fleet_nodes{state="differs"}"#, 1.0),
        (r#"weir_fleet_nodes{state="unreachable"}"#, 0.0),
        (r#"weir_fleet_vip_nodes_differing{vip="web"}"#, 1.0),
        (r#"weir_fleet_vip_nodes_differing{vip="web.v6"}"#, 0.0),
        ("weir_fleet_reports_connected", 1.0),
    ] {
        assert_eq!(found.get(sample), Some(&value), "{sample} in {text}");
    }
    let agreement = status.agreement.as_mut().unwrap();
    // A VIP of that name that is dialled elsewhere, and one that only others have.
    let more = [("web", 2), ("new", 1)].map(|(vip, nodes)| VipAgreement {
        vip: vip.to_owned(),
        nodes,
    });
    agreement.vips.extend(more);
    agreement.error = Some("no answer".to_owned());
    let text = metrics::text(&status, &measured).unwrap();
    let found = samples(&text);
    let web = r#"weir_fleet_vip_nodes_differing{vip="web"}"#;
    assert_eq!(found.get(web), Some(&2.0), "{text}");
    assert_eq!(found.get("weir_fleet_reports_connected"), Some(&0.0));
    assert!(!text.contains(r#"vip="new""#), "{text}");
    status.agreement = None;
    let text = metrics::text(&status, &measured).unwrap();
    for name in ["nodes", "vip_nodes_differing", "reports_connected"] {
        assert!(!text.contains(&format!("weir_fleet_{name}")), "{text}");
    }
}

#[test]
fn a_backend_that_is_leaving_has_its_series() {
    let mut status = common::status();
    let leaving = |id, address: &str| LeavingStatus {
        id,
        address: address.parse().unwrap(),
        alive: true,
        health: None,
        packets: 5,
        bytes: 500,
        new_connections: 1,
        packets_per_second: None,
        pins: 0,
        drain_seconds_left: None,
    };
    // The second came back under another id: both count.
    status.vips[0].leaving = vec![leaving(8, "10.0.0.19"), leaving(9, "10.0.0.11")];
    let text = metrics::text(&status, &prometheus::Registry::new()).unwrap();
    let samples = samples(&text);
    for (name, value) in [("packets", 5.0), ("bytes", 500.0), ("new_connections", 1.0)] {
        let sample = format!(r#"weir_backend_{name}_total{{backend="10.0.0.19",vip="web"}}"#);
        assert_eq!(samples.get(&*sample), Some(&value), "{text}");
    }
    let back = r#"weir_backend_packets_total{backend="10.0.0.11",vip="web"}"#;
    assert_eq!(text.matches(back).count(), 1, "{text}");
    assert_eq!(samples.get(back), Some(&1_234_567_896.0), "{text}");
    assert!(
        !text.contains(r#"weir_backend_weight{backend="10.0.0.19""#),
        "{text}"
    );
}

#[test]
fn names_are_prometheus_own_style() {
    let counted = METRICS.iter().map(|m| (m.name, m.kind, m.help));
    let measured = MEASURED.iter().map(|m| (m.name, m.kind, m.help));
    let process = PROCESS.iter().map(|m| (m.name, m.kind, m.help));
    for (name, kind, help) in counted.chain(measured).chain(process) {
        // Those of the process have the names that every dashboard knows.
        assert!(
            name.starts_with("weir_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        let is_counter = kind == metrics::Kind::Counter;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        assert!(
            help.ends_with('.') && !help.contains(['|', '\\', '\n']),
            "{name}"
        );
    }
}

#[test]
fn the_page_lists_what_the_code_has() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("WEIR_UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, metrics::page()).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        page,
        metrics::page(),
        "docs/metrics.md is old: WEIR_UPDATE_DOCS=1 cargo test -p lb-userspace --test metrics"
    );
}
