//! Changes of backends end to end: what health checks do to the tables, and a move that outlives its daemon.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod three_backends;

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::{
    net::{
        AddressFamily, SocketType, bind, connect, socket,
        sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout},
    },
    process::Signal,
};
use serde_json::Value;
use three_backends::Run;
use xtask::lab::{FlowTimes, Lab, Plan, Process, Topology, VIP_V4, Weir, WeirConfig, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// A flow that is remembered for one of the few slots that Maglev moves beyond need is let go a minute after its time.
const PATIENCE_WITH_FLOWS: Duration = Duration::from_mins(2);

/// A SYN is repeated after 1, 3 and 7 s.
const DIALLING: Duration = Duration::from_secs(10);

/// Keys of every VIP: moves that end within the test, and checks that find out soon.
const CHECKED: &str = "move_window = \"2s\"\nflow_idle = \"10s\"\n[vip.health]\ntype = \"tcp\"\n\
                       interval = \"300ms\"\ntimeout = \"200ms\"\nrise = 2\nfall = 3\n";

impl Run {
    /// The VIP of HTTP over IPv4, as the status has it.
    fn vip(&self) -> Value {
        let status: Value =
            serde_json::from_str(&self.weir.ask(&["status", "-o", "json"]).unwrap()).unwrap();
        let vips = status["vips"].as_array().unwrap();
        vips.iter()
            .find(|vip| vip["name"] == "web-v4")
            .unwrap()
            .clone()
    }

    fn comes_to(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.comes_within(PATIENCE, what, is_so)
    }

    fn comes_within(
        &self,
        patience: Duration,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, patience, || {
            let vip = self.vip();
            ensure!(is_so(&vip), "{vip}");
            Ok(vip)
        })
        .unwrap_or_else(|error| panic!("{error:#}"))
    }
}

#[test]
fn a_backend_that_fails_its_checks_is_out_and_comes_back_under_another_id() {
    let run = Run::start();
    let names = run.topology.backend_names();
    let text = fs::read_to_string(run.weir.config()).unwrap();
    let checked = text
        .split("[[vip]]")
        .map(|vip| vip.replacen("[[vip.backend]]", &format!("{CHECKED}[[vip.backend]]"), 1))
        .collect::<Vec<_>>()
        .join("[[vip]]");
    assert_ne!(checked, text);
    let checked = run.lab.write("checked.toml", &checked).unwrap();
    run.weir
        .ask(&["apply", &checked.display().to_string()])
        .unwrap();
    let socket = run.weir.socket().display().to_string();
    let mut follow = run
        .weir
        .command(&["events", "-o", "json", "--socket", &socket]);
    let events = Process::start(&run.topology.lb.namespace, "events", &mut follow).unwrap();
    let healthy = |vip: &Value, at: usize| vip["backends"][at]["healthy"] == true;
    let vip = run.comes_to("healthy backends", |vip| (0..3).all(|at| healthy(vip, at)));
    let id = vip["backends"][0]["id"].clone();
    assert_eq!(run.answering(300), names);

    run.topology.backends[0]
        .namespace
        .ip("link set eth0 down")
        .unwrap();
    run.comes_to("the failure", |vip| {
        vip["backends"][0]["healthy"] == false && vip["backends"][0]["slots"] == 0
    });
    // At once: nobody waits for the dead.
    assert_eq!(run.answering(300), names[1..]);

    run.topology.backends[0]
        .namespace
        .ip("link set eth0 up")
        .unwrap();
    // The verdict is told as soon as it is there, and the tables follow it.
    let vip = run.comes_to("the return", |vip| {
        healthy(vip, 0) && vip["backends"][0]["slots"] != 0
    });
    assert_ne!(vip["backends"][0]["id"], id);
    let vip = run.comes_within(PATIENCE_WITH_FLOWS, "the end of all moves", |vip| {
        vip["slots"]["stable"] == 65_536 && vip["leaving"] == Value::Array(Vec::new())
    });
    assert_eq!(vip["pins"], 0);
    // The events tell the same, in that order.
    eventually("all of it to be told", PATIENCE, || {
        let text = fs::read_to_string(events.log())?;
        let told = text.lines().filter_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let is_own = event["vip"] == "web-v4" && event["type"] != "health";
            is_own.then(|| event["type"].as_str().unwrap().to_owned())
        });
        let told: Vec<_> = told.collect();
        ensure!(
            told == ["moving", "leaving", "left", "settled"]
                || told == ["moving", "leaving", "settled", "left"],
            "{told:?}"
        );
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(run.answering(300), names);
}

#[test]
fn a_move_goes_on_where_a_killed_daemon_left_it() {
    let mut run = Run::start();
    let text = fs::read_to_string(run.weir.config()).unwrap();
    let timed = text.split("[[vip]]").map(|vip| {
        let timed = "drain_timeout = \"10min\"\n[[vip.backend]]";
        vip.replacen("[[vip.backend]]", timed, 1)
    });
    let timed = timed.collect::<Vec<_>>().join("[[vip]]");
    fs::write(run.weir.config(), timed).unwrap();
    run.weir.reload().unwrap();
    let backend = run.topology.backends[0].address(VIP_V4).to_string();
    run.weir.ask(&["drain", "web-v4", &backend]).unwrap();
    let before = run.comes_to("the move", |vip| vip["slots"]["moving"] != 0);
    let read = Instant::now();
    run.weir.end_by(Signal::KILL).unwrap();
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    let between = read.elapsed().as_secs_f64();
    let after = run.vip();
    assert_eq!(after["slots"], before["slots"]);
    assert_eq!(after["table_digest"], before["table_digest"]);
    let left = |vip: &Value| vip["seconds_left"].as_f64().unwrap();
    // The usual window is 15 min; it is not started again.
    assert!(left(&after) < left(&before), "{after} after {before}");
    // Nor is the time that the drained backend has; it is noted in whole seconds, rounded up.
    let left = |vip: &Value| vip["backends"][0]["drain_seconds_left"].as_f64().unwrap();
    let (after, before) = (left(&after), left(&before));
    assert!(
        before < 598.0 && after <= before - between + 1.0,
        "{before} s, and {after} s {between} s later"
    );
    assert_eq!(run.answering(300), run.topology.backend_names()[1..]);

    // What went into slots on the move is remembered, at the backends that served it; nothing else is.
    let arguments = ["flows", "--vip", "web-v4", "--limit", "5", "-o", "json"];
    let flows: Value = serde_json::from_str(&run.weir.ask(&arguments).unwrap()).unwrap();
    let (total, listed) = (
        flows["total"].as_u64().unwrap(),
        flows["flows"].as_array().unwrap(),
    );
    assert!(total > 5 && listed.len() == 5, "{flows}");
    for flow in listed {
        let (age, idle) = (&flow["age_seconds"], &flow["idle_seconds"]);
        // The test itself takes less than a minute; the last use is at the earliest when the flow began.
        assert!(age.as_f64().unwrap() < 60.0, "{flow}");
        assert!(idle.as_f64() <= age.as_f64(), "{flow}");
        assert_eq!(flow["slot_state"], "moving", "{flow}");
        assert_ne!(flow["backend"], backend.as_str(), "{flow}");
    }
    let table = run.weir.ask(&["flows", "--limit", "1"]).unwrap();
    assert!(table.contains(" more: --limit lists them"), "{table}");
    let none: Value = serde_json::from_str(
        &run.weir
            .ask(&["flows", "--backend", &backend, "-o", "json"])
            .unwrap(),
    )
    .unwrap();
    assert_eq!(none["total"], 0, "{none}");
}

/// A connection over a port of the client's own; whose it is, by the name that its server says first.
fn dial(run: &Run, port: u16) -> anyhow::Result<(TcpStream, String)> {
    let (from, to) = (
        SocketAddr::new(run.topology.client.v4, port),
        Topology::lasting(VIP_V4),
    );
    run.topology.client.namespace.inside(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_socket_timeout(&socket, Timeout::Send, Some(DIALLING))?;
        bind(&socket, &from)?;
        connect(&socket, &to).context("no answer")?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DIALLING))?;
        let mut name = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut name)?;
        Ok((stream, name.trim_end().to_owned()))
    })
}

#[test]
fn a_port_used_again_gets_through_to_a_server_that_was_taken_for_dead() {
    let lab = Lab::new().unwrap();
    let topology = Topology::build(&lab, &Plan::default()).unwrap();
    let hosts = topology.backends.iter();
    let mut checked: Vec<_> = hosts
        .map(|host| Topology::answer_checks(host).unwrap())
        .collect();
    let mut config = WeirConfig::for_topology(&topology, &[]);
    config.vips.truncate(1);
    let vip = &mut config.vips[0];
    assert_eq!((vip.name.as_str(), vip.address), ("web-v4", VIP_V4));
    vip.port = Topology::lasting(VIP_V4).port();
    vip.checked = Some(Topology::checked());
    // The slots still move when the ports are used again.
    vip.flows = Some(FlowTimes {
        move_window: 600,
        flow_idle: 600,
    });
    let weir = Weir::start(&lab, &topology.lb.namespace, &config)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let run = Run {
        weir,
        topology,
        lab,
    };
    run.comes_to("healthy backends", |vip| {
        (0..3).all(|at| vip["backends"][at]["healthy"] == true)
    });
    let names = run.topology.backend_names();
    let mut held: Vec<_> = (40_000..40_030)
        .map(|port| (port, dial(&run, port).unwrap()))
        .filter(|(_, (_, name))| *name == names[0])
        .collect();
    assert!(!held.is_empty());

    // It fails its checks, and its server holds the connections all the same: they break when the client is heard of elsewhere.
    checked[0].end_by(Signal::KILL, PATIENCE).unwrap();
    run.comes_to("the failure", |vip| vip["backends"][0]["slots"] == 0);
    for (port, (stream, _)) in &mut held {
        stream.write_all(b"who is there?\n").unwrap();
        let answer = stream.read(&mut [0; 64]);
        let reset = answer
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        assert!(reset, "{port}: {answer:?}");
    }
    let ports: Vec<u16> = held.into_iter().map(|(port, _)| port).collect();

    let _checked = Topology::answer_checks(&run.topology.backends[0]).unwrap();
    run.comes_to("the return", |vip| {
        vip["slots"]["moving"] != 0 && vip["slots"]["holding"] == 0
    });
    for port in ports {
        let (_stream, name) = dial(&run, port).unwrap_or_else(|error| panic!("{port}: {error:#}"));
        assert_eq!(name, names[0], "{port}");
    }
}
