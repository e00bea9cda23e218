//! Reload, commands and crowds end to end: the daemon in a lab, its servers, its file, and real HTTP past it.
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
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use three_backends::Run;
use xtask::{
    lab::{Process, Topology, VIP_V4, eventually, until},
    traffic::client,
};

const PATIENCE: Duration = Duration::from_secs(10);

impl Run {
    /// Runs a verb against the daemon: exit code, standard output, standard error.
    fn weir(&self, arguments: &[&str]) -> (i32, String, String) {
        let socket = self.weir.socket().display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--socket", &socket]);
        let output = self.weir.output(&all).unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// Waits until these backends and no others answer new connections: slots that move hold for a handshake first.
    fn comes_to(&self, names: &[String]) {
        eventually("the backends that answer", PATIENCE, || {
            let answering = self.answering(300);
            anyhow::ensure!(answering == names, "{answering:?} instead of {names:?}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.weir(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out + &err
    }

    fn generation(&self) -> u64 {
        self.weir.status().unwrap().generation
    }

    /// The configuration file with a change of its text.
    fn changed(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let text = fs::read_to_string(self.weir.config()).unwrap();
        self.lab.write(name, &change(text)).unwrap()
    }

    /// The address of a backend, as the configuration has it.
    fn backend(&self, index: usize) -> String {
        self.topology.backends[index].address(VIP_V4).to_string()
    }

    /// Rewrites a configuration so that a backend is in no VIP.
    fn without(&self, index: usize, text: &str) -> String {
        let host = &self.topology.backends[index];
        let mut text = text.to_owned();
        for address in [host.v4, host.v6] {
            let entry = format!("[[vip.backend]]\naddress = \"{address}\"\nweight  = 100\n");
            text = text.replace(&entry, "");
        }
        text
    }
}

#[test]
fn a_drained_backend_takes_no_new_flows_over_a_kill_until_it_is_undone() {
    let mut run = Run::start();
    let names = run.topology.backend_names();
    run.comes_to(&names);
    let backend = run.backend(0);
    let before = run.generation();
    let said = run.done(&["drain", "--all", &backend]);
    assert!(said.contains("takes no new flows"), "{said}");
    assert_eq!(run.generation(), before + 1);
    run.comes_to(&names[1..]);
    // Once more: so already.
    let said = run.done(&["drain", "--all", &backend]);
    assert!(said.contains("so already"), "{said}");
    assert_eq!(run.generation(), before + 1);

    run.weir.end_by(Signal::KILL).unwrap();
    assert_eq!(run.answering(100), names[1..]);
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    run.comes_to(&names[1..]);
    let status = run.weir.status().unwrap();
    let shown = status.vip("web-v4").unwrap().backends[0].clone();
    assert_eq!((shown.weight, shown.drained, shown.slots), (0, true, 0));
    let table = run.done(&["backend", "show", &backend]);
    assert!(table.contains("drained"), "{table}");
    let file = run.weir.config().display().to_string();
    let plan = run.done(&["plan", &file]);
    assert!(
        plan.contains(&format!("{backend} of VIP web-v4: drained")),
        "{plan}"
    );
    assert!(plan.starts_with("nothing would change"), "{plan}");

    // What was based on the past is refused, and changes nothing.
    let (code, _, err) = run.weir(&["undrain", "--all", &backend, "--generation", "1"]);
    assert_eq!(code, 1);
    assert!(err.contains("412") && err.contains("generation 1"), "{err}");
    run.comes_to(&names[1..]);
    run.done(&["undrain", "web-v4", &backend]);
    run.comes_to(&names);
    run.done(&["weight", "web-v4", &backend, "0"]);
    run.comes_to(&names[1..]);
    run.done(&["weight", "web-v4", &backend, "--reset"]);
    run.comes_to(&names);
}

#[test]
fn sighup_and_apply_take_a_file_as_a_whole_or_not_at_all() {
    let run = Run::start();
    let names = run.topology.backend_names();
    let file = run.weir.config().to_owned();
    let whole = fs::read_to_string(&file).unwrap();
    let two = run.without(2, &whole);
    assert_ne!(two, whole);

    // By SIGHUP, from the file itself.
    fs::write(&file, &two).unwrap();
    run.weir.signal(Signal::HUP).unwrap();
    until("the reload", PATIENCE, || Ok(run.generation() == 2)).unwrap();
    run.comes_to(&names[..2]);

    // A bad file: nothing changes, and the status says so.
    let bad = whole.replacen("port     = ", "port     = 9", 1) + "[[vip]]\nname = 7\n";
    let bad = bad.replacen("protocol = \"tcp\"", "protocol = \"sctp\"", 1);
    fs::write(&file, &bad).unwrap();
    run.weir.signal(Signal::HUP).unwrap();
    let problems = eventually("the refusal", PATIENCE, || {
        let problems = run.weir.status()?.problems.join("\n");
        anyhow::ensure!(problems.contains("was refused"), "{problems}");
        Ok(problems)
    });
    assert!(problems.unwrap().contains("\"sctp\""));
    assert_eq!(run.generation(), 2);
    run.comes_to(&names[..2]);
    let (code, out, err) = run.weir(&["apply"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("lb-1.toml:") && err.contains("help:"), "{err}");
    assert!(err.contains("vip[0].protocol: found \"sctp\""), "{err}");
    assert_eq!(run.generation(), 2);
    fs::write(&file, &two).unwrap();

    // What only the daemon can refuse is refused by it, with the same words.
    let moved = run.changed("moved.toml", |text| text.replace("9407", "9408"));
    let (code, _, err) = run.weir(&["apply", &moved.display().to_string()]);
    assert_eq!(code, 1);
    assert!(
        err.contains("moved.toml:")
            && err.contains("node.metrics_listen: found \"127.0.0.1:9408\""),
        "{err}"
    );
    assert!(err.contains("restart the daemon"), "{err}");
    let seed = run.changed("seed.toml", |text| text.replace("\"lab\"", "\"sesame\""));
    let seed = seed.display().to_string();
    let (code, _, err) = run.weir(&["apply", &seed]);
    assert_eq!(code, 1);
    assert!(err.contains("--force") && !err.contains("sesame"), "{err}");
    assert_eq!(run.generation(), 2);

    // By apply, from another file; no more than was allowed.
    let three = run.changed("three.toml", |_| whole.clone());
    let three = three.display().to_string();
    let plan = run.done(&["plan", &three]);
    let added = format!("+ backend {}", run.backend(2));
    assert!(
        plan.contains("~ VIP web-v4: ") && plan.contains(&added),
        "{plan}"
    );
    let (code, _, err) = run.weir(&["apply", &three, "--max-move", "5%"]);
    assert_eq!(code, 1);
    assert!(err.contains("of VIP web-v4") && err.contains("5%"), "{err}");
    assert_eq!(run.generation(), 2);
    run.done(&["apply", &three, "--max-move", "50%"]);
    assert_eq!(run.generation(), 3);
    run.comes_to(&names);
    let problems = run.weir.status().unwrap().problems.join("\n");
    assert!(
        problems.contains("a restart or SIGHUP goes back to"),
        "{problems}"
    );
    run.done(&["apply", &seed, "--force"]);
    run.comes_to(&names[..2]);
}

#[test]
fn a_hundred_reloads_under_traffic_lose_no_request() {
    let run = Run::start();
    let options = client::Options::new(Topology::http(VIP_V4), 3000);
    let summary = std::thread::scope(|scope| {
        let client = &run.topology.client.namespace;
        let traffic = scope.spawn(|| client.inside(|| client::fetch(&options)));
        for _ in 0..100 {
            run.weir.signal(Signal::HUP).unwrap();
            run.weir.status().unwrap();
        }
        traffic.join().unwrap().unwrap()
    });
    assert_eq!(
        (summary.failed, summary.answered()),
        (0, 3000),
        "{:?}",
        summary.errors
    );
    assert!(run.generation() > 2);
    assert_eq!(run.weir.status().unwrap().problems, Vec::<String>::new());
}

#[test]
fn events_are_told_as_they_happen() {
    let run = Run::start();
    let socket = run.weir.socket().display().to_string();
    let mut command = run
        .weir
        .command(&["events", "-o", "json", "--socket", &socket]);
    let events = Process::start(&run.topology.lb.namespace, "events", &mut command).unwrap();
    // Nobody tells when the stream has begun: drain and undrain until it has.
    let backend = run.backend(0);
    let first = eventually("an event", PATIENCE, || {
        run.done(&["drain", "web-v4", &backend]);
        run.done(&["undrain", "web-v4", &backend]);
        let text = fs::read_to_string(events.log())?;
        let first = text
            .lines()
            .next()
            .map(serde_json::from_str::<serde_json::Value>);
        anyhow::Context::context(first, "no event yet")?.map_err(Into::into)
    });
    let first = first.unwrap();
    assert!(
        ["drained", "undrained"].contains(&first["type"].as_str().unwrap()),
        "{first}"
    );
    assert_eq!(first["vip"], "web-v4");
    assert_eq!(first["backend"], backend);
    assert!(
        first["by"].as_str().unwrap().starts_with("uid 0, pid "),
        "{first}"
    );
}

/// The connections that a server takes of those who may only read (docs/api.md).
const PLACES: usize = 1024;

const METRICS: &str = "127.0.0.1:9407";

/// What the metrics' server answers on a connection of its own.
fn scrape() -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(METRICS)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_crowd_keeps_out_nobody_but_those_behind_it() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).unwrap();
    let run = Run::start();
    let names = run.topology.backend_names();
    let lb = &run.topology.lb.namespace;
    let crowd: Vec<TcpStream> = lb
        .inside(|| {
            let crowd = (0..PLACES).map(|_| {
                let mut stream = TcpStream::connect(METRICS)?;
                // A head that never ends.
                stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ")?;
                Ok(stream)
            });
            crowd.collect()
        })
        .unwrap();
    eventually("the next one to be refused", PATIENCE, || {
        let answer = lb.inside(scrape)?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let text = r#"{"error":"there are 1024 connections already: try again later"}"#;
        anyhow::ensure!(answer.ends_with(text), "{answer}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));

    // As many at the API, by one who may change things and so needs no place.
    let socket = run.weir.socket();
    let waiting: std::io::Result<Vec<UnixStream>> = (0..=PLACES)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket)?;
            stream.write_all(b"GET /v1/status HTTP/1.1\r\n")?;
            Ok(stream)
        })
        .collect();
    let waiting = waiting.unwrap();
    assert_eq!(run.answering(300), names);
    let status = run.weir.status().unwrap();
    assert!(status.ready, "{status:?}");

    drop(waiting);
    drop(crowd);
    eventually("the metrics to be served again", PATIENCE, || {
        let answer = lb.inside(scrape)?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        anyhow::ensure!(
            answer.contains("\nweir_reconciles_total{result=\"ok\"} "),
            "{answer}"
        );
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
}
