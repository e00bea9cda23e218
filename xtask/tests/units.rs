//! What systemd makes of the units, and what the daemon tells it.
//!
//! systemd is not the first process here: it judges the units, and the daemon is started as they say.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod three_backends;

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::ensure;
use rustix::process::Signal;
use three_backends::Run;
use xtask::{
    lab::{Process, eventually},
    workspace,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn units() -> PathBuf {
    workspace::root().join("deploy/systemd")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

/// Copies the files of a folder, and no folders.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn systemd_takes_the_units_and_finds_them_bounded() {
    // A root of its own, with this host's units and what weir's package installs.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let system = root.join("usr/lib/systemd/system");
    copy_files(Path::new("/usr/lib/systemd/system"), &system);
    copy_files(&units(), &system);
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(workspace::weir_binary().unwrap(), bin.join("weir")).unwrap();
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/kill", root.join("bin/kill")).unwrap();
    let man = folder.path().join("man");
    let pages = man.join("man1");
    let made = Command::new(bin.join("weir"))
        .arg("man")
        .arg(&pages)
        .status();
    assert!(made.unwrap().success());

    for unit in ["weir", "weir-watchdog"] {
        let file = units().join(format!("{unit}.service"));
        let output = Command::new("systemd-analyze")
            .arg("verify")
            .arg(format!("--root={}", root.display()))
            .arg(format!("{unit}.service"))
            .env("MANPATH", &man)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output), "", "{unit}");
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=30", "--no-pager"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        eprintln!("{}", said(&output).lines().last().unwrap_or_default());
    }
}

/// What the unit has behind a key.
fn of_unit(key: &str) -> String {
    let text = fs::read_to_string(units().join("weir.service")).unwrap();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap().to_owned()
}

/// Waits until the daemon serves, or tells how it ended.
fn serves(run: &Run, daemon: &mut Process) {
    let waited = eventually("weir to serve", PATIENCE, || {
        ensure!(daemon.ended()?.is_none(), "ended");
        let status = run.weir.status()?;
        let backends = || status.vips.iter().flat_map(|vip| &vip.backends);
        ensure!(
            status.ready && backends().all(|b| b.resolved && b.healthy != Some(false)),
            "{status:?}"
        );
        Ok(())
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log_tail()));
}

#[test]
fn the_daemon_forwards_with_the_capabilities_of_its_unit_alone() {
    let mut run = Run::start();
    let names = run.topology.backend_names();
    // The checks go through the forwarding path: veth, rules and TC programs are made, too.
    let text = fs::read_to_string(run.weir.config()).unwrap();
    let checked =
        "[vip.health]\ntype = \"http\"\nvia = \"dsr\"\ninterval = \"200ms\"\n[[vip.backend]]";
    assert!(text.contains("[[vip.backend]]"), "{text}");
    let text = text.replacen("[[vip.backend]]", checked, 1);
    fs::write(run.weir.config(), text).unwrap();
    run.weir.terminate().unwrap();
    run.weir.detach().unwrap();

    let names_of_unit = of_unit("CapabilityBoundingSet");
    let capabilities: Vec<String> = names_of_unit
        .split_whitespace()
        .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    assert_eq!(capabilities, ["+bpf", "+net_admin", "+perfmon", "+net_raw"]);
    let bounded = format!("--bounding-set=-all,{}", capabilities.join(","));
    let host = run.topology.lb.namespace.clone();
    let start = || {
        let mut command = host.command("setpriv");
        command
            .args([
                &bounded,
                "--inh-caps=-all",
                "--ambient-caps=-all",
                "--no-new-privs",
            ])
            .arg(run.weir.binary())
            .args(["run", "--config"])
            .arg(run.weir.config());
        Process::start(&host, "bounded", &mut command).unwrap()
    };
    // The first makes everything, the second takes over what it finds.
    for _ in 0..2 {
        let mut daemon = start();
        serves(&run, &mut daemon);
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            let bits = line.split_whitespace().nth(1).unwrap();
            // NET_ADMIN 12, NET_RAW 13, PERFMON 38, BPF 39.
            assert_eq!(
                u64::from_str_radix(bits, 16).unwrap(),
                (1 << 12) | (1 << 13) | (1 << 38) | (1 << 39),
                "{line}"
            );
        }
        assert_eq!(run.answering(300), names);
        assert!(run.weir.status().unwrap().forwarded() > 0);
        daemon.end_by(Signal::TERM, PATIENCE).unwrap();
    }
    // It can take away what it has made.
    let mut daemon = start();
    serves(&run, &mut daemon);
    run.weir.ask(&["detach"]).unwrap();
    assert!(!run.weir.xdp_on("eth0").unwrap());
}

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message within a time, or `None`.
    fn hear(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        match self.0.recv(&mut buffer) {
            Ok(length) => Some(
                String::from_utf8_lossy(buffer.get(..length).unwrap())
                    .trim()
                    .to_owned(),
            ),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message that begins so; signs of life may come before it.
    fn wait_for(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.hear(left.max(Duration::from_millis(1))) {
                Some(message) if message.starts_with(start) => return message,
                Some(message) => assert_eq!(message, "WATCHDOG=1", "instead of {start}"),
                None => break,
            }
        }
        panic!("{start} never came");
    }

    /// Waits until no sign of life has come for a time.
    fn wait_for_silence(&self, quiet: Duration) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.hear(quiet) {
            assert_eq!(message, "WATCHDOG=1");
            assert!(Instant::now() < deadline, "signs of life go on");
        }
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_life_and_end() {
    let mut run = Run::start();
    run.weir.terminate().unwrap();
    let path = run.lab.folder().join("notify.sock");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let host = run.topology.lb.namespace.clone();
    let mut command = run.weir.command(&["run", "--config"]);
    command
        .arg(run.weir.config())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "900000");
    let mut daemon = Process::start(&host, "notifying", &mut command).unwrap();
    manager.wait_for("READY=1");
    // Ready means that it serves: no waiting.
    assert!(run.weir.status().unwrap().ready);
    assert_eq!(run.answering(50).len(), 3);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }

    // A reload begins and ends, be the file good or not.
    let good = fs::read_to_string(run.weir.config()).unwrap();
    for text in [good.as_str(), "no = \"config\"", &good] {
        fs::write(run.weir.config(), text).unwrap();
        daemon.signal(Signal::HUP).unwrap();
        let message = manager.wait_for("RELOADING=1");
        assert!(message.contains("MONOTONIC_USEC="), "{message}");
        manager.wait_for("READY=1");
    }

    // The task that owns the maps hangs: it writes its state to a pipe that nobody reads. All else lives.
    let pipe = run.lab.folder().join("lb-1.state.json.new");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let backend = run.topology.backends.first().unwrap().v4.to_string();
    let socket = run.weir.socket().display().to_string();
    let mut drain = run
        .weir
        .command(&["drain", "--all", &backend, "--socket", &socket])
        .spawn()
        .unwrap();
    manager.wait_for_silence(Duration::from_secs(3));
    assert!(daemon.ended().unwrap().is_none());
    let hung = run.answering(50);
    assert!(!hung.is_empty(), "packets do not wait for the daemon");

    // Somebody reads: it goes on, and so do the signs of life.
    drop(fs::read(&pipe).unwrap());
    manager.wait_for("WATCHDOG=1");
    drain.wait().unwrap();
    daemon.signal(Signal::TERM).unwrap();
    manager.wait_for("STOPPING=1");
    eventually("the end", PATIENCE, || {
        ensure!(daemon.ended()?.is_some(), "it runs");
        Ok(())
    })
    .unwrap();
    assert!(run.weir.xdp_on("eth0").unwrap(), "the program stays");
}
