//! `weir trace`, as the built binary: what goes in, what comes out, and that nothing of a daemon changes. Needs root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test panics where it fails"
)]

mod traced;

use std::{fs, process::Output};

use serde_json::{Value, json};
use traced::{
    BACKEND_MAC, CONFIG, Daemon, Workspace, code, err, fragments, frame, hex, lines, out, pcap,
    pcap_packets, pcapng, unhex, weir, with_macs, workspace,
};

const CLIENT_V4: &str = "198.51.100.7:40000";

/// Traces frames, given in hexadecimal, against the configuration.
fn trace_hex(files: &Workspace, packets: &[String]) -> Output {
    let mut args = vec!["trace", "--config", &files.config, "-o", "json"];
    args.extend(packets.iter().flat_map(|packet| ["--packet-hex", packet]));
    let output = weir(&args);
    assert_eq!(code(&output), 0, "{}", err(&output));
    output
}

#[test]
fn json_tells_what_became_of_each_packet_with_exactly_these_fields() {
    let files = workspace();
    let v4 = frame(CLIENT_V4, "203.0.113.10:443", b"hello");
    let v6 = frame("[2001:db8:1::7]:40000", "[2001:db8::10]:443", b"hello");
    let other = frame(CLIENT_V4, "203.0.113.99:443", b"hello");
    let empty = frame(CLIENT_V4, "203.0.113.10:1001", b"");
    let unresolved = frame(CLIENT_V4, "203.0.113.10:1002", b"");
    let packets = [&v4, &v6, &other, &empty, &unresolved].map(|packet| hex(packet));
    let output = trace_hex(&files, &packets);
    let said = lines(&output);
    let expected = [
        json!({"index": 0, "verdict": "tx", "vip": "web", "backend": "10.0.0.11", "reason": "forwarded",
            "packet": hex(&with_macs(&v4, BACKEND_MAC))}),
        json!({"index": 1, "verdict": "tx", "vip": "web6", "backend": "2001:db8:2::11", "reason": "forwarded",
            "packet": hex(&with_macs(&v6, BACKEND_MAC))}),
        json!({"index": 2, "verdict": "pass", "vip": null, "backend": null, "slot": null, "reason": "not_vip",
            "packet": hex(&other)}),
        json!({"index": 3, "verdict": "drop", "vip": "empty", "backend": null, "reason": "no_backend",
            "packet": null}),
        json!({"index": 4, "verdict": "drop", "vip": "unresolved", "backend": "10.0.0.12", "reason": "no_next_hop",
            "packet": null}),
    ];
    assert_eq!(said.len(), expected.len());
    for (said, mut expected) in said.into_iter().zip(expected) {
        if expected.get("slot").is_none() {
            assert!(said["slot"].as_u64().unwrap() < 65536, "{said}");
            expected["slot"] = said["slot"].clone();
        }
        assert_eq!(said, expected);
    }
    // The order of the fields is stable too.
    let first = out(&output).lines().next().unwrap();
    let places: Vec<_> = [
        "index", "verdict", "vip", "backend", "slot", "reason", "packet",
    ]
    .iter()
    .map(|field| first.find(&format!("\"{field}\":")).unwrap())
    .collect();
    assert!(places.is_sorted(), "{first}");
    let hint = err(&output);
    assert!(
        hint.contains("backend 10.0.0.12 of VIP unresolved: their packets end as no_next_hop"),
        "{hint}"
    );
    assert!(hint.contains("help: write `mac ="), "{hint}");
}

#[test]
fn captures_go_in_and_come_out_in_order_with_their_timestamps() {
    let files = workspace();
    let v4 = frame(CLIENT_V4, "203.0.113.10:443", b"one");
    let other = frame(CLIENT_V4, "203.0.113.99:443", b"two");
    let v6 = frame("[2001:db8:1::7]:40000", "[2001:db8::10]:443", b"three");
    let packets = [
        (1_700_000_000, 123_456, &v4),
        (1_700_000_001, 1, &other),
        (1_700_000_002, 999_999, &v6),
    ];
    let left = [
        (1_700_000_000, 123_456, with_macs(&v4, BACKEND_MAC)),
        (1_700_000_002, 999_999, with_macs(&v6, BACKEND_MAC)),
    ];
    for (name, bytes, is_nano) in [
        ("in.pcap", pcap(&packets), false),
        ("in.pcapng", pcapng(&packets), true),
    ] {
        let path = files.path(name);
        fs::write(&path, bytes).unwrap();
        let to = files.path("out.pcap");
        let output = weir(&[
            "trace",
            "--config",
            &files.config,
            "--pcap",
            &path,
            "--pcap-out",
            &to,
            "-o",
            "json",
        ]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        let said: Vec<_> = lines(&output)
            .iter()
            .map(|line| line["verdict"].clone())
            .collect();
        assert_eq!(said, ["tx", "pass", "tx"]);
        let indices: Vec<_> = lines(&output)
            .iter()
            .map(|line| line["index"].clone())
            .collect();
        assert_eq!(indices, [0, 1, 2]);
        let written = fs::read(&to).unwrap();
        let (magic, packets) = pcap_packets(&written);
        assert_eq!(
            magic,
            if is_nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4u32 },
            "{name}"
        );
        let unit = if is_nano { 1000 } else { 1 };
        let wanted: Vec<_> = left
            .iter()
            .map(|(s, us, packet)| (*s, us * unit, packet.clone()))
            .collect();
        assert_eq!(packets, wanted, "{name}");
        if !is_nano {
            let left: Vec<_> = left
                .iter()
                .map(|(s, us, packet)| (*s, *us, packet))
                .collect();
            assert_eq!(written, pcap(&left), "byte for byte");
        }
    }
}

#[test]
fn a_5_tuple_makes_the_packet() {
    let files = workspace();
    for (from, to, protocol, extra, vip, len) in [
        (
            CLIENT_V4,
            "203.0.113.10:443",
            "tcp",
            &["--flags", "syn,ack"][..],
            json!("web"),
            54,
        ),
        (
            CLIENT_V4,
            "203.0.113.10:443",
            "tcp",
            &["--size", "1000"][..],
            json!("web"),
            1000,
        ),
        (
            CLIENT_V4,
            "203.0.113.10:443",
            "udp",
            &[][..],
            Value::Null,
            42,
        ),
        (
            "[2001:db8:1::7]:40000",
            "[2001:db8::10]:443",
            "tcp",
            &[][..],
            json!("web6"),
            74,
        ),
    ] {
        let mut args = vec!["trace", "--config", &files.config, "-o", "json"];
        args.extend(["--from", from, "--to", to, "--protocol", protocol]);
        args.extend(extra);
        let output = weir(&args);
        assert_eq!(code(&output), 0, "{}", err(&output));
        let said = lines(&output);
        assert_eq!(said[0]["vip"], vip, "{args:?}");
        let packet = unhex(said[0]["packet"].as_str().unwrap());
        assert_eq!(packet.len(), len, "{args:?}");
        if extra.contains(&"syn,ack") {
            assert_eq!(packet[14 + 20 + 13], 0x12);
        }
        let sliced = etherparse::SlicedPacket::from_ethernet(&packet).unwrap();
        assert!(sliced.transport.is_some(), "{args:?}");
    }
}

#[test]
fn the_table_explains_every_step() {
    let files = workspace();
    let output = weir(&[
        "trace",
        "--config",
        &files.config,
        "--from",
        CLIENT_V4,
        "--to",
        "203.0.113.10:443",
    ]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let said = out(&output);
    for needle in [
        "packet 0: tx\n",
        "  came as  54 bytes\n",
        "           IPv4 198.51.100.7 > 203.0.113.10, TTL 64\n",
        "           TCP 40000 > 443 [SYN], 0 bytes\n",
        "  VIP      web\n",
        " of 65536, by the hash of the flow\n",
        "  backend  10.0.0.11\n",
        "  changed  Ethernet destination: 02:00:00:00:00:01 -> 02:00:00:00:00:0b\n",
        "           Ethernet source: 02:00:00:00:00:02 -> 02:00:00:00:00:01\n",
        "  verdict  tx: sent out of the interface by which it came\n",
        "  reason   forwarded: Sent to a backend.\n",
    ] {
        assert!(said.contains(needle), "{needle:?} in\n{said}");
    }
}

#[test]
fn access_lists_of_a_configuration_are_traced_with_their_files() {
    let files = workspace();
    fs::write(files.path("feed.txt"), "198.51.100.0/24\n2001:db8:1::/48\n").unwrap();
    let text = fs::read_to_string(&files.config).unwrap();
    let text = text.replace("port = 443", "port = 443\ndeny_file = \"feed.txt\"");
    let text = text.replace(
        "name = \"web\"",
        "name = \"web\"\nallow = [\"198.51.100.7\"]",
    );
    fs::write(&files.config, text).unwrap();
    for (from, to, reason) in [
        (CLIENT_V4, "203.0.113.10:443", "forwarded"),
        ("198.51.100.8:40000", "203.0.113.10:443", "denied"),
        ("233.252.0.1:40000", "203.0.113.10:443", "denied"),
        ("[2001:db8:1::7]:40000", "[2001:db8::10]:443", "denied"),
        ("[2001:db8:2::7]:40000", "[2001:db8::10]:443", "forwarded"),
    ] {
        let config = files.config.as_str();
        let arguments = [
            "trace", "--config", config, "-o", "json", "--from", from, "--to", to,
        ];
        let output = weir(&arguments);
        assert_eq!(code(&output), 0, "{}", err(&output));
        let said = lines(&output);
        assert_eq!(said[0]["reason"], reason, "{from} to {to}: {}", said[0]);
    }
}

#[test]
fn the_later_fragments_of_a_packet_follow_its_first() {
    let files = workspace();
    // Many packets, so that following by chance is ruled out: the VIP has two backends.
    let all: Vec<_> = (0..32).flat_map(fragments).collect();
    let output = trace_hex(&files, &all);
    let said = lines(&output);
    assert_eq!(said.len(), 64);
    let mut backends = std::collections::BTreeSet::new();
    for pair in said.chunks(2) {
        assert_eq!(pair[0]["reason"], "forwarded", "{}", pair[0]);
        assert_eq!(pair[1]["reason"], "forwarded", "{}", pair[1]);
        assert_eq!(pair[0]["backend"], pair[1]["backend"]);
        assert_eq!(pair[1]["vip"], "dns");
        backends.insert(pair[0]["backend"].to_string());
    }
    assert_eq!(backends.len(), 2);
    // Alone, a later one is an orphan.
    let output = trace_hex(&files, &all[1..2]);
    assert_eq!(lines(&output)[0]["reason"], "fragment_orphan");
}

#[test]
fn a_frame_too_short_for_the_kernel_is_judged_all_the_same() {
    let files = workspace();
    let output = trace_hex(&files, &["0200".to_owned()]);
    let expected = json!({"index": 0, "verdict": "pass", "vip": null, "backend": null, "slot": null,
        "reason": "truncated", "packet": "0200"});
    assert_eq!(lines(&output)[0], expected);
}

#[test]
fn bad_input_is_refused_with_a_remedy() {
    let files = workspace();
    let write = |name: &str, bytes: &[u8]| {
        let path = files.path(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let good = pcap(&[(1, 2, &frame(CLIENT_V4, "203.0.113.10:443", b"x"))]);
    let mut cooked = good.clone();
    cooked[20] = 113;
    let text = write("text.pcap", b"this is not a capture");
    let cooked = write("cooked.pcap", &cooked);
    let cut = write("cut.pcap", &good[..good.len() - 5]);
    let huge = write("huge.pcap", &pcap(&[(1, 2, &vec![0x02; 100_000])]));
    let away = files.path("away");
    for (args, exit, needle) in [
        (
            vec!["--pcap", &text],
            1,
            "is neither a pcap nor a pcapng file",
        ),
        (
            vec!["--pcap", &cooked],
            1,
            "its link type is LINUX_SLL, wanted ETHERNET",
        ),
        (vec!["--pcap", &cut], 1, "read packet 0 of"),
        (vec!["--pcap", &huge], 1, "packet 0 has 100000 bytes"),
        (vec!["--pcap", &away], 1, "open the capture"),
        (vec!["--packet-hex", "0z"], 2, "character 2 is 'z'"),
        (vec!["--packet-hex", "020"], 2, "two make one"),
        (vec![], 2, "required"),
        (
            vec!["--packet-hex", "02", "--pcap", &text],
            2,
            "cannot be used with",
        ),
        (vec!["--from", CLIENT_V4], 2, "--to"),
        (
            vec!["--from", CLIENT_V4, "--to", "[2001:db8::10]:443"],
            1,
            "two families",
        ),
        (
            vec![
                "--from",
                CLIENT_V4,
                "--to",
                "203.0.113.10:443",
                "--size",
                "20",
            ],
            1,
            "the headers: they are 54 bytes",
        ),
        (
            vec![
                "--from",
                CLIENT_V4,
                "--to",
                "203.0.113.10:443",
                "--protocol",
                "udp",
                "--flags",
                "syn",
            ],
            1,
            "no flags",
        ),
    ] {
        let mut all = vec!["trace", "--config", &files.config];
        all.extend(&args);
        let output = weir(&all);
        assert_eq!(code(&output), exit, "{args:?}: {}", err(&output));
        assert!(err(&output).contains(needle), "{args:?}: {}", err(&output));
    }
    let broken = write(
        "broken.toml",
        CONFIG.replace("port = 443", "port = 70000").as_bytes(),
    );
    let output = weir(&["trace", "--config", &broken, "--packet-hex", "02"]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("wanted a port from 0 to 65535"),
        "{}",
        err(&output)
    );
    let output = weir(&["trace", "--pin-path", &away, "--packet-hex", "02"]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("is weir running there?"),
        "{}",
        err(&output)
    );
}

#[test]
fn tracing_changes_nothing_of_a_running_daemon() {
    let files = workspace();
    let mut daemon = Daemon::start(&files);
    let [pinned_first, pinned_later] = fragments(1).try_into().unwrap();
    let [new_first, new_later] = fragments(2).try_into().unwrap();
    let v4 = frame(CLIENT_V4, "203.0.113.10:443", b"hello");
    // Some traffic, so that there is something to change.
    for packet in [v4.clone(), unhex(&pinned_first)] {
        daemon.plane.test_run(&packet).unwrap();
    }
    let before = daemon.state();
    assert_eq!(before.fragments.len(), 1);
    assert!(before.reasons.iter().any(|count| count.packets > 0));
    // This one is attached nowhere: without an interface nobody knows by which one packets come.
    let output = weir(&[
        "trace",
        "--pin-path",
        &daemon.pin_path,
        "--packet-hex",
        &hex(&v4),
    ]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("--interface"), "{}", err(&output));
    for form in ["json", "table"] {
        let mut args = vec!["trace", "--pin-path", &daemon.pin_path, "-o", form];
        args.extend(["--interface", "lo"]);
        let v4 = hex(&v4);
        for packet in [&v4, &pinned_later, &new_first, &new_later] {
            args.extend(["--packet-hex", packet]);
        }
        let output = weir(&args);
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(
            err(&output).contains("VIPs are shown by number"),
            "{}",
            err(&output)
        );
        if form == "json" {
            let said = lines(&output);
            let reasons: Vec<_> = said.iter().map(|line| line["reason"].clone()).collect();
            // Live fragments are found; those that are only traced are not remembered.
            assert_eq!(
                reasons,
                ["forwarded", "forwarded", "forwarded", "fragment_orphan"]
            );
            assert_eq!(said[0]["backend"], "10.0.0.11");
            assert_eq!(said[0]["verdict"], "tx");
            assert_eq!(said[0]["packet"], hex(&with_macs(&unhex(&v4), BACKEND_MAC)));
            assert!(said[0]["vip"].as_str().unwrap().starts_with('#'));
        }
    }
    assert_eq!(daemon.state(), before);
}
