//! `weir capture` and `weir events --packets`, end to end: what tshark reads in a capture, what packets are told, what
//! becomes of the programs on the interface when captures begin, end, or their daemon is killed, and a flood meanwhile.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod run;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, UdpSocket},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::{FrameSocket, Plan, Topology, VIP_V4, eventually};

use self::run::{PATIENCE, PLAN, Run, done, mac, signal, tally};

#[test]
fn a_capture_shows_packets_as_they_came_and_as_they_left() {
    let run = Run::start("l2", &PLAN);
    let before = run.weir.program_on("eth0").unwrap();
    let capture = run.capture("l2.pcapng", &["--vip", "web-v4", "-c", "60"]);
    let during = run.weir.program_on("eth0").unwrap();
    assert_ne!(before, during, "the program that observes is in");
    assert_eq!(run.answering(60), run.topology.backend_names());
    let (captured, skipped) = tally(&done(capture));
    assert_eq!((captured, skipped), (60, 0));

    let packets = run.read("l2.pcapng");
    assert_eq!(packets.len(), 120);
    let lb = mac(run.topology.lb.nic.mac_bytes().unwrap());
    for pair in packets.chunks(2) {
        let [came, left] = pair else {
            panic!("{pair:?}")
        };
        assert_eq!((came.which.as_str(), left.which.as_str()), ("came", "left"));
        assert_eq!(came.told, left.told, "one packet has one comment");
        assert_eq!((&came.time, came.length), (&left.time, left.length));
        let what = ["vip", "reason", "verdict"].map(|key| came.told(key));
        assert_eq!(what, ["web-v4", "forwarded", "tx"]);
        assert_eq!(came.ethernet, lb);
        assert_eq!(left.ethernet, run.mac(left.told("backend")));
        assert_eq!((&came.ip, &left.ip), (&VIP_V4.to_string(), &came.ip));
        assert_eq!(
            (came.interface.as_str(), left.interface.as_str()),
            ("eth0", "eth0")
        );
        assert!(came.told("slot").parse::<u16>().is_ok());
    }
    // Every slot is one backend's: one slot, one backend in the capture.
    let mut owners = BTreeMap::new();
    for packet in &packets {
        let owner = owners
            .entry(packet.told("slot"))
            .or_insert(packet.told("backend"));
        assert_eq!(*owner, packet.told("backend"));
    }

    run.observed(0);
    assert_eq!(
        run.weir.program_on("eth0").unwrap(),
        before,
        "and out again"
    );
    // The second one need not load it.
    let capture = run.capture(
        "again.pcapng",
        &["--vip", "web-v4", "-c", "5", "--as", "left"],
    );
    assert_eq!(run.weir.program_on("eth0").unwrap(), during);
    run.answering(10);
    done(capture);
    let packets = run.read("again.pcapng");
    assert!(packets.len() == 5 && packets.iter().all(|packet| packet.which == "left"));
    run.observed(0);
    let metrics = run.status()["observed"].clone();
    assert!(metrics["captured"].as_u64() >= Some(65), "{metrics}");
}

#[test]
fn a_capture_shows_outer_headers() {
    for forward in ["ipip", "gue"] {
        let run = Run::start(forward, &PLAN);
        let capture = run.capture("tunnel.pcapng", &["--vip", "web-v4", "-c", "30"]);
        run.answering(30);
        done(capture);
        let packets = run.read("tunnel.pcapng");
        assert_eq!(packets.len(), 60);
        for pair in packets.chunks(2) {
            let [came, left] = pair else {
                panic!("{pair:?}")
            };
            assert_eq!(came.ip, VIP_V4.to_string());
            // Wireshark reads GUE only where it is told to.
            let outer = left.ip.split(',').next().unwrap();
            assert_eq!(outer, left.told("backend"), "{forward}");
            let overhead = if forward == "ipip" { 20 } else { 28 };
            assert_eq!(left.length, came.length + overhead, "{forward}");
        }
    }
}

/// Frames that leave by another interface than they came by.
#[test]
fn a_capture_shows_the_interface_that_packets_leave_by() {
    let plan = Plan {
        near: 1,
        far: 1,
        routed: 0,
    };
    let run = Run::start("l2", &plan);
    let (near, far) = (
        run.weir.program_on("eth0").unwrap(),
        run.weir.program_on("eth1").unwrap(),
    );
    assert_eq!(near, far);
    let capture = run.capture("far.pcapng", &["--vip", "web-v4", "-c", "60"]);
    assert_eq!(
        run.weir.program_on("eth0").unwrap(),
        run.weir.program_on("eth1").unwrap(),
        "on both"
    );
    assert_eq!(run.answering(60), run.topology.backend_names());
    done(capture);
    let far = run.topology.backends[1].v4.to_string();
    let mut verdicts = BTreeMap::new();
    for packet in run.read("far.pcapng") {
        let is_far = packet.told("backend") == far;
        let verdict = packet.told("verdict").to_owned();
        assert_eq!(verdict, if is_far { "redirect" } else { "tx" });
        let leaves = if is_far && packet.which == "left" {
            "eth1"
        } else {
            "eth0"
        };
        assert_eq!(packet.interface, leaves);
        *verdicts.entry(verdict).or_insert(0) += 1;
    }
    assert_eq!(verdicts.len(), 2, "{verdicts:?}");
    run.observed(0);
    assert_eq!(run.weir.program_on("eth1").unwrap(), near);
}

#[test]
fn drops_and_passes_are_captured_with_their_reasons_and_leave_nothing() {
    let run = Run::start("l2", &PLAN);
    let client = run.topology.client.v4.to_string();
    run.weir
        .ask(&["block", &client, "--vip", "web-v4"])
        .unwrap();
    let denied = run.capture("denied.pcapng", &["--reason", "denied", "-c", "3"]);
    let passed = run.spawn(&[
        "capture",
        "-w",
        &run.file("passed.pcapng").display().to_string(),
        "--reason",
        "pass",
        "--to",
        &run.topology.lb.v4.to_string(),
        "-c",
        "2",
    ]);
    run.observed(2);
    let port: u16 = 4000;
    run.topology
        .client
        .namespace
        .inside(|| {
            let socket = FrameSocket::open("eth0")?;
            for _ in 0..3 {
                socket.send(&run.datagram(port))?;
            }
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..2 {
                socket.send_to(b"to nobody", (run.topology.lb.v4, 5000))?;
            }
            Ok(())
        })
        .unwrap();
    for (child, count) in [(denied, 3), (passed, 2)] {
        assert_eq!(tally(&done(child)), (count, 0));
    }
    let packets = run.read("denied.pcapng");
    assert_eq!(packets.len(), 3);
    for packet in packets {
        let what = ["vip", "backend", "reason", "verdict"].map(|key| packet.told(key).to_owned());
        assert_eq!(what, ["web-v4", "-", "denied", "drop"]);
        assert_eq!(packet.which, "came");
    }
    let packets = run.read("passed.pcapng");
    assert_eq!(packets.len(), 2);
    for packet in packets {
        let what = ["vip", "slot", "reason", "verdict"].map(|key| packet.told(key).to_owned());
        assert_eq!(what, ["-", "-", "not_vip", "pass"]);
        assert_eq!(packet.which, "came");
    }
    run.observed(0);
    // What cannot be is said, and leaves no file.
    for wrong in [["--vip", "nobody"], ["--reason", "nothing"]] {
        let file = run.file("none.pcapng");
        let child =
            run.spawn(&[&["capture", "-w", &file.display().to_string()], &wrong[..]].concat());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(wrong[1]));
        assert!(!file.exists());
    }
}

/// Ctrl-C leaves a file that is whole, and ends the watch.
#[test]
fn an_interrupted_capture_is_a_whole_file() {
    let run = Run::start("l2", &PLAN);
    let capture = run.capture("interrupted.pcapng", &["--vip", "web-v4", "-s", "60"]);
    run.answering(5);
    eventually("packets in the file", PATIENCE, || {
        let size = fs::metadata(run.file("interrupted.pcapng"))?.len();
        ensure!(size > 2000, "{size} bytes");
        Ok(())
    })
    .unwrap();
    signal(&capture, Signal::INT);
    let (captured, _) = tally(&done(capture));
    let packets = run.read("interrupted.pcapng");
    assert_eq!(packets.len() as u64, 2 * captured);
    assert!(
        packets.iter().any(|packet| packet.length > 60),
        "lengths are whole"
    );
    run.observed(0);
}

#[test]
fn a_daemon_that_is_killed_leaves_a_program_that_forwards_and_the_next_puts_the_normal_one_in() {
    let mut run = Run::start("l2", &PLAN);
    let mut capture = run.capture("killed.pcapng", &["--rate", "100000"]);
    let during = run.weir.program_on("eth0").unwrap();
    // Slots that move, which have steps of their own.
    let backend = run.topology.backends[0].address(VIP_V4).to_string();
    run.weir.ask(&["drain", "--all", &backend]).unwrap();
    run.weir.end_by(Signal::KILL).unwrap();
    capture.wait().unwrap();
    assert_eq!(run.weir.program_on("eth0").unwrap(), during);
    let serve = |run: &Run| {
        run.answering(100);
        let fragmented = run.topology.client.namespace.inside(fragmented_echoes);
        fragmented.unwrap_or_else(|error| panic!("{error:#}"));
    };
    serve(&run);
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert_ne!(run.weir.program_on("eth0").unwrap(), during);
    run.observed(0);
    serve(&run);
    assert_eq!(run.counted("table_missing"), 0);
    let steps = run.weir.pins_in_force().unwrap().join("steps");
    assert_eq!(
        fs::read_dir(steps).unwrap().count(),
        1,
        "one program's steps"
    );
    // What was written before the end can be read.
    run.read("killed.pcapng");

    // One that ends in its own time puts the normal program in itself.
    let capture = run.capture("ended.pcapng", &[]);
    let during = run.weir.program_on("eth0").unwrap();
    run.weir.terminate().unwrap();
    done(capture);
    assert_ne!(run.weir.program_on("eth0").unwrap(), during);
    serve(&run);
}

/// Queries that take three fragments each way.
fn fragmented_echoes() -> Result<()> {
    for _ in 0..10 {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect(Topology::udp(VIP_V4))?;
        socket.send(&[b'x'; 4000])?;
        let mut buffer = [0; 8192];
        let len = socket.recv(&mut buffer).context("wait for the echo")?;
        ensure!(len > 4000, "{len} bytes came back");
    }
    Ok(())
}

/// Bursts at full speed, with a capture that may tell a few hundred packets a second of all that come.
#[test]
fn a_flood_loses_nothing_to_a_capture_which_says_what_it_skipped() {
    const FRAMES: u64 = 20_000;
    /// At once at full speed: no more than the lab's queues take, since weir never sees what they lose.
    const BURST: usize = 200;
    let run = Run::start("l2", &PLAN);
    let capture = run.capture("flood.pcapng", &["--vip", "web-v4", "--rate", "200"]);
    let before = run.counted("forwarded");
    let client = &run.topology.client.namespace;
    let socket = client.inside(|| FrameSocket::open("eth0")).unwrap();
    let frames: Vec<_> = (1..=1000).map(|port| run.datagram(port)).collect();
    let mut sent = 0;
    for burst in frames.chunks(BURST).cycle() {
        for frame in burst {
            socket.send(frame).unwrap();
        }
        sent += burst.len() as u64;
        eventually("all frames forwarded", PATIENCE, || {
            let forwarded = run.counted("forwarded") - before;
            ensure!(forwarded == sent, "{forwarded} of {sent}");
            Ok(())
        })
        .unwrap();
        if sent >= FRAMES {
            break;
        }
    }
    eventually("all frames told or skipped", PATIENCE, || {
        let observed = run.status()["observed"].clone();
        let count = |key: &str| observed[key].as_u64().unwrap();
        ensure!(count("captured") + count("skipped") == FRAMES, "{observed}");
        Ok(())
    })
    .unwrap();
    // The capture tells once a second what it has skipped.
    let statistics = || -> Result<usize> {
        let file = fs::read(run.file("flood.pcapng"))?;
        let text = b"packets captured";
        Ok(file.windows(text.len()).filter(|part| part == text).count())
    };
    let before = statistics().unwrap();
    eventually("newer statistics", PATIENCE, || {
        ensure!(statistics()? >= before + 2, "none yet");
        Ok(())
    })
    .unwrap();
    signal(&capture, Signal::INT);
    let (captured, skipped) = tally(&done(capture));
    assert_eq!(captured + skipped, FRAMES);
    assert!(
        captured >= 200 && skipped > captured,
        "{captured} captured, {skipped} skipped"
    );
    assert_eq!(run.read("flood.pcapng").len() as u64, 2 * captured);
}

#[test]
fn sampled_packets_are_told_as_lines() {
    let run = Run::start("l2", &PLAN);
    let mut follower = run.spawn(&[
        "events",
        "--packets",
        "1/1",
        "--vip",
        "web-v4",
        "-o",
        "json",
    ]);
    run.observed(1);
    run.answering(5);
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let names = run.topology.backend_names();
    for line in lines.take(10) {
        let packet: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(packet["vip"], "web-v4");
        assert_eq!(
            (&packet["verdict"], &packet["reason"]),
            (&"tx".into(), &"forwarded".into())
        );
        assert_eq!(packet["source"], run.topology.client.v4.to_string());
        assert_eq!(packet["destination"], VIP_V4.to_string());
        assert_eq!(packet["destination_port"], 80);
        assert_eq!(
            (&packet["protocol"], &packet["sample"]),
            (&"tcp".into(), &1.into())
        );
        let backend: IpAddr = packet["backend"].as_str().unwrap().parse().unwrap();
        let host = run.topology.backends.iter().find(|host| host.v4 == backend);
        assert!(names.contains(&host.unwrap().namespace.host().to_owned()));
        assert!(packet["length_bytes"].as_u64() >= Some(54));
    }
    signal(&follower, Signal::TERM);
    follower.wait().unwrap();
    run.observed(0);
}

/// Whoever may read is told of packets, and captures none.
#[test]
fn a_capture_is_for_those_who_may_write() {
    let mut run = Run::start("l2", &PLAN);
    let text = fs::read_to_string(run.weir.config()).unwrap();
    let text = text.replacen("[node]\n", "[node]\napi_group = \"daemon\"\n", 1);
    assert_eq!(
        run.lab.write("lb-1.toml", &text).unwrap(),
        run.weir.config()
    );
    run.weir.terminate().unwrap();
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    let as_reader = |arguments: &[&str]| -> Child {
        let socket = run.weir.socket().display().to_string();
        let mut command = run.topology.lb.namespace.command("setpriv");
        command.args([
            "--reuid", "65534", "--regid", "65534", "--groups", "1", "--",
        ]);
        command.arg(run.weir.binary()).args(arguments);
        command.args(["--socket", &socket]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let refused = as_reader(&["capture", "-w", "-"])
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("403"), "{said}");
    let mut follower = as_reader(&["events", "--packets", "1/1", "--vip", "web-v4"]);
    run.observed(1);
    run.answering(2);
    let mut line = String::new();
    let mut lines = BufReader::new(follower.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("tcp"), "{line}");
    signal(&follower, Signal::TERM);
    follower.wait().unwrap();
    run.observed(0);
}
