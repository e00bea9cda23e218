//! What operators rely on when they look into a daemon: logs without secrets, one line an event, under the names that the
//! handbook lists; and profiles.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod three_backends;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use three_backends::Run;
use xtask::{
    lab::{Process, eventually},
    workspace,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// What must never be told.
const SECRETS: [&str; 3] = [
    "seed-that-nobody-tells",
    "password-that-nobody-tells",
    "user-that-nobody-tells",
];

/// A configuration with secrets in it, whose Redis does not answer.
fn with_secrets(text: &str) -> String {
    let text = text.replace(
        "seed           = \"lab\"",
        &format!("seed = {:?}", SECRETS[0]),
    );
    let redis = format!(
        "[redis]\nurl = \"redis://{}:{}@127.0.0.1:1\"\nfleet = \"lab\"\n\n[node]",
        SECRETS[2], SECRETS[1]
    );
    let limit = "[vip.limit]\npackets_per_source = \"1000/s\"\nburst = 100\ncluster = true\n[[vip.backend]]";
    text.replacen("[node]", &redis, 1)
        .replacen("[[vip.backend]]", limit, 1)
}

/// The daemon's log of a start at debug level, commands, and reloads good and bad.
fn log_of(format: &str) -> String {
    let mut run = Run::start();
    run.weir.terminate().unwrap();
    // Another seed wants a start that takes over nothing.
    run.weir.detach().unwrap();
    let good = with_secrets(&fs::read_to_string(run.weir.config()).unwrap());
    fs::write(run.weir.config(), &good).unwrap();
    let log = run.lab.folder().join("talkative.log");
    let mut command = run
        .weir
        .command(&["run", "--log-format", format, "--config"]);
    command
        .arg(run.weir.config())
        .env("RUST_LOG", "debug")
        .env("NO_COLOR", "1");
    let mut daemon = Process::start(&run.topology.lb.namespace, "talkative", &mut command).unwrap();
    let says = |what: &str| {
        eventually(&format!("the log to say {what}"), PATIENCE, || {
            let text = fs::read_to_string(&log)?;
            ensure!(text.contains(what), "{text}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    };
    says("ready");
    says("no answer of Redis");
    let backend = run.topology.backends.first().unwrap().v4.to_string();
    run.weir.ask(&["drain", "web-v4", &backend]).unwrap();
    run.weir
        .ask(&["block", "192.0.2.0/24", "--for", "1h", "--reason", "a test"])
        .unwrap();
    // Each is refused, and the daemon says why; none of them may say what the secrets are.
    let bad_url = good.replace("redis://", "nonsense://");
    let bad_key = good.replace(
        "fleet = \"lab\"",
        "fleet = \"lab\"\nnonsense = 1\nmore_nonsense = 2",
    );
    let other_seed = good.replace("seed =", "seed_file = \"/nowhere\"\nseed =");
    let broken = good.replace("fleet = \"lab\"", "fleet = \"lab");
    let bad = [bad_url, bad_key, other_seed, broken];
    for (before, text) in bad.into_iter().enumerate() {
        fs::write(run.weir.config(), text).unwrap();
        daemon.signal(Signal::HUP).unwrap();
        eventually("another refusal", PATIENCE, || {
            let text = fs::read_to_string(&log)?;
            let lines = text
                .lines()
                .filter(|line| line.contains("configuration refused"));
            ensure!(lines.count() > before, "{text}");
            Ok(())
        })
        .unwrap();
    }
    fs::write(run.weir.config(), &good).unwrap();
    daemon.signal(Signal::HUP).unwrap();
    says("configuration applied");
    daemon.end_by(Signal::TERM, PATIENCE).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    // The file of the one that cannot start.
    fs::write(
        run.weir.config(),
        good.replace("[node]", "[node]\nnonsense = 1"),
    )
    .unwrap();
    let mut command = run
        .weir
        .command(&["run", "--log-format", format, "--config"]);
    let output = command
        .arg(run.weir.config())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nonsense"), "{said}");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
        assert!(!said.contains(secret), "{secret} is in\n{said}");
    }
    if format == "json" { text + &said } else { text }
}

/// The fields that the handbook promises.
fn promised() -> BTreeSet<String> {
    let page = fs::read_to_string(workspace::root().join("docs/OPERATIONS.md")).unwrap();
    let (_, section) = page.split_once("\n## Logs\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split('|').next());
    let names = cells.flat_map(|cell| cell.split(','));
    names
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect()
}

#[test]
fn a_log_of_json_has_one_object_an_event_and_no_secret() {
    let promised = promised();
    let mut levels = BTreeSet::new();
    for line in log_of("json").lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let fields = event.as_object().unwrap();
        for name in ["timestamp", "level", "target", "message"] {
            assert!(fields.contains_key(name), "no {name}: {line}");
        }
        // What other libraries say at debug level has names of its own.
        if event["target"]
            .as_str()
            .unwrap()
            .starts_with("lb_userspace")
        {
            levels.insert(event["level"].as_str().unwrap().to_owned());
            for name in fields.keys() {
                assert!(
                    promised.contains(name),
                    "docs/OPERATIONS.md does not list {name}: {line}"
                );
            }
        }
    }
    for level in ["ERROR", "WARN", "INFO"] {
        assert!(levels.contains(level), "{levels:?}");
    }
}

#[test]
fn a_log_of_text_has_one_line_an_event_and_no_secret() {
    for line in log_of("text").lines() {
        let time = line.split_whitespace().next().unwrap_or_default();
        assert!(
            time.len() > 20 && time.ends_with('Z'),
            "no event begins so: {line}"
        );
    }
}

/// GET over the API's socket: the status line and the body.
fn get(socket: &Path, path: &str) -> Result<(String, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: weir\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("no head")?;
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default().to_owned();
    Ok((status, body.get(4..).unwrap_or_default().to_vec()))
}

/// The fields of a protobuf message that are themselves messages or text: number and bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first().unwrap();
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        match key & 7 {
            0 => drop(varint(&mut message)),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                let (field, rest) = message.split_at(length);
                fields.push((key >> 3, field));
                message = rest;
            }
            other => panic!("no field of a profile is of type {other}"),
        }
    }
    fields
}

#[test]
fn a_busy_daemon_tells_what_it_is_busy_with() {
    let run = Run::start();
    let socket = run.weir.socket();
    let end = AtomicBool::new(false);
    let names = thread::scope(|scope| {
        // Two that keep it busy, for as long as samples are taken.
        for _ in 0..2 {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    get(&socket, "/v1/status").unwrap();
                }
            });
        }
        let taken = eventually("samples", PATIENCE, || {
            let (status, profile) = get(&socket, "/debug/pprof/profile?seconds=1")?;
            ensure!(
                status.ends_with(" 200 OK"),
                "{status}: {}",
                String::from_utf8_lossy(&profile)
            );
            let fields = fields(&profile);
            let samples = fields.iter().filter(|(number, _)| *number == 2).count();
            ensure!(samples > 0, "no sample");
            let names = fields.iter().filter(|(number, _)| *number == 6);
            let names = names.map(|(_, name)| String::from_utf8_lossy(name).into_owned());
            let names: Vec<_> = names.collect();
            ensure!(
                names.iter().any(|name| name.contains("lb_userspace")),
                "{names:?}"
            );
            Ok(names)
        });
        end.store(true, Ordering::Relaxed);
        taken.unwrap()
    });
    assert_eq!(names.first().map(String::as_str), Some(""));
    for text in ["samples", "count", "cpu", "nanoseconds", "thread"] {
        assert!(names.iter().any(|name| name == text), "{text}: {names:?}");
    }
    // It goes on as before.
    assert_eq!(run.answering(20).len(), 3);
    let (status, _) = get(&socket, "/debug/pprof/profile?minutes=1").unwrap();
    assert!(status.contains(" 400 "), "{status}");
}
