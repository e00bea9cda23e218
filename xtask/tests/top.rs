//! `weir top` on a real terminal, over real traffic.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use xtask::{
    lab::{Terminal, Topology, VIP_V4, VIP_V6, eventually},
    traffic::steady::Steady,
};

mod three_backends;
use three_backends::Run;

const PATIENCE: Duration = Duration::from_secs(20);

/// The traffic sends no more datagrams a second; the double leaves room for samples that came late.
const MOST_DATAGRAMS: f64 = 200.0;

/// Of the last VIP of the lab's configuration, `echo-v6`.
const LIMITS: &str =
    "[[vip.limit]]\npackets = \"1k/s\"\n[[vip.limit]]\npackets_per_source = \"500/s\"\n";

fn start() -> Run {
    let run = Run::start();
    let mut config = File::options()
        .append(true)
        .open(run.weir.config())
        .unwrap();
    config.write_all(LIMITS.as_bytes()).unwrap();
    run.weir.reload().unwrap();
    run
}

/// However the work ends, the traffic ends with it.
struct End<'a>(&'a Steady);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Does something while HTTP goes to `web-v4` and datagrams to `echo-v6`.
fn under_traffic(run: &Run, work: impl FnOnce()) {
    let traffic = Steady::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            let send = || {
                traffic.run(Topology::http(VIP_V4), Topology::udp(VIP_V6));
                Ok(())
            };
            run.topology.client.namespace.inside(send).unwrap();
        });
        let _end = End(&traffic);
        work();
    });
    let total = traffic.total();
    assert_eq!(total.failed, 0, "{:?}", total.errors);
}

/// Where the process id of `weir top` is written.
fn pid_file(run: &Run) -> PathBuf {
    run.lab.folder().join("top.pid")
}

/// Runs `weir top` on a terminal of 80×24.
fn on_a_terminal(run: &Run, environment: &str, arguments: &str) -> Terminal {
    let terminal = Terminal::open(&run.lab, 80, 24).unwrap();
    shows(&terminal, &["ready>"]);
    let weir = run.weir.binary().display().to_string();
    let socket = run.weir.socket().display().to_string();
    let pid = pid_file(run).display().to_string();
    let command = format!(
        "{environment} sh -c 'echo $$ >{pid}; exec {weir} top --socket {socket} {arguments}'; echo it ended with $?"
    );
    terminal.write(&command).unwrap();
    terminal.press("Enter").unwrap();
    terminal
}

/// Waits until the screen is as it should be, and returns it.
fn look(terminal: &Terminal, what: &str, is_so: impl Fn(&str) -> bool) -> String {
    let screen = eventually(what, PATIENCE, || {
        let screen = terminal.screen()?;
        anyhow::ensure!(is_so(&screen), "the screen:\n{screen}");
        Ok(screen)
    });
    screen.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Waits until all of these are on the screen.
fn shows(terminal: &Terminal, texts: &[&str]) -> String {
    look(terminal, &format!("{texts:?}"), |screen| {
        texts.iter().all(|text| screen.contains(text))
    })
}

/// The words of the line that begins with one, whether it is the chosen one or not.
fn row<'a>(screen: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let mut rows = screen.lines().map(|line| {
        let words = line.trim_start_matches('>').split_whitespace();
        words.collect::<Vec<_>>()
    });
    rows.find(|words| words.first() == Some(&name))
}

/// A row's number in a column from the right; `None` where it is not known.
fn number(screen: &str, name: &str, from_the_right: usize) -> Option<f64> {
    let row = row(screen, name)?;
    let word = row.iter().rev().nth(from_the_right)?;
    let (digits, scale) = match word.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => match word.strip_suffix('M') {
            Some(digits) => (digits, 1e6),
            None => (*word, 1.0),
        },
    };
    Some(digits.parse::<f64>().ok()? * scale)
}

/// Packets a second of a VIP on the screen.
fn packets(screen: &str, vip: &str) -> Option<f64> {
    number(screen, vip, 3)
}

/// Which of the rows comes first.
fn place(screen: &str, name: &str) -> Option<usize> {
    let begins = |line: &str| line.trim_start_matches(['>', ' ']).starts_with(name);
    screen.lines().position(begins)
}

/// The shell is there again as it was: its screen, its cursor, its line editing.
fn is_restored(terminal: &Terminal, exit_code: u8) {
    shows(terminal, &[&format!("it ended with {exit_code}")]);
    assert_eq!(terminal.modes().unwrap(), (false, true));
    terminal.write("stty -a | tr ' ;' '\\n\\n' | grep -xE -- '-?(icanon|echo|isig|opost)' | xargs echo modes").unwrap();
    terminal.press("Enter").unwrap();
    let screen = shows(terminal, &["\nmodes "]);
    let modes = screen
        .lines()
        .find(|line| line.starts_with("modes "))
        .unwrap();
    let mut modes: Vec<_> = modes.split_whitespace().skip(1).collect();
    modes.sort_unstable();
    assert_eq!(modes, ["echo", "icanon", "isig", "opost"], "{screen}");
}

#[test]
fn vips_and_backends_are_on_the_screen_with_what_was_sent() {
    let run = start();
    under_traffic(&run, || {
        let terminal = on_a_terminal(&run, "", "--interval 0.5");
        let all = look(&terminal, "rates", |screen| {
            packets(screen, "echo-v6") > Some(1.0) && packets(screen, "web-v4") > Some(1.0)
        });
        for vip in [
            "203.0.113.10:80/tcp",
            "[2001:db8::10]:9000/udp",
            "web-v6",
            "lb-1:",
            "3/3",
        ] {
            assert!(all.contains(vip), "{vip}:\n{all}");
        }
        assert!(packets(&all, "echo-v6") < Some(MOST_DATAGRAMS), "{all}");
        assert_eq!(packets(&all, "echo-v4"), Some(0.0), "{all}");
        terminal.write("?").unwrap();
        shows(&terminal, &["weir top: help", "Ctrl-C"]);
        terminal.write("x").unwrap();

        // By name, and the other way round.
        terminal.write("n").unwrap();
        look(&terminal, "order by name", |screen| {
            place(screen, "echo-v4") < place(screen, "web-v4") && screen.contains("by name")
        });
        terminal.write("r").unwrap();
        look(&terminal, "the other order", |screen| {
            place(screen, "web-v6") < place(screen, "echo-v4") && screen.contains("reversed")
        });

        terminal.write("/echo-v6").unwrap();
        shows(&terminal, &["filter: echo-v6"]);
        terminal.press("Enter").unwrap();
        look(&terminal, "one VIP", |screen| {
            row(screen, "echo-v6").is_some() && row(screen, "web-v4").is_none()
        });

        // Into the VIP: who takes how much of it, and how near it is to its limits.
        terminal.press("Enter").unwrap();
        terminal.write("l").unwrap();
        let addresses: Vec<_> = run
            .topology
            .backends
            .iter()
            .map(|host| host.v6.to_string())
            .collect();
        let inside = look(&terminal, "backends and limits", |screen| {
            let has_rates = |address: &String| number(screen, address, 2) > Some(0.0);
            addresses.iter().all(has_rates)
                && ["packets_per_source", "1k/s", "500/s"]
                    .iter()
                    .all(|text| screen.contains(text))
        });
        assert!(
            inside.contains("33.3%") && !inside.contains("web-v4"),
            "{inside}"
        );
        // Sources: exact where a limit tells them apart, and sampled.
        terminal.write("s").unwrap();
        let client = run.topology.client.v6.to_string();
        let sources = ["sampled 1 of 1,", "fd77::/64", "exact"];
        let sources = look(&terminal, "both kinds of sources", |screen| {
            sources.iter().all(|text| screen.contains(text))
                && number(screen, &client, 4) > Some(1.0)
        });
        assert!(
            number(&sources, &client, 4) < Some(MOST_DATAGRAMS),
            "{sources}"
        );

        // A larger terminal has more columns.
        terminal.resize(132, 43).unwrap();
        shows(&terminal, &["TRAFFIC #, SLOTS |"]);
        terminal.resize(80, 24).unwrap();
        look(&terminal, "the small screen", |screen| {
            !screen.contains("TRAFFIC #")
        });
        terminal.press("Escape").unwrap();
        shows(&terminal, &["VIPs: 4 by name"]);

        terminal.write("q").unwrap();
        is_restored(&terminal, 0);
    });
}

#[test]
fn a_daemon_that_dies_and_comes_back_makes_no_rates_of_its_absence() {
    let mut run = start();
    let terminal = on_a_terminal(&run, "NO_COLOR=1", "--interval 0.2");
    shows(&terminal, &["echo-v6", "ready"]);
    run.weir.end_by(Signal::KILL).unwrap();
    let away = shows(&terminal, &["no answer from the daemon since", "web-v4"]);
    assert!(!has_colours(&terminal.coloured_screen().unwrap()), "{away}");
    // What is forwarded meanwhile is no jump of the rate.
    let requests = 3000;
    run.answering(requests);
    run.weir.restart().unwrap();
    let back = |screen: &str| !screen.contains("no answer") && packets(screen, "web-v4").is_some();
    let screen = look(&terminal, "the daemon's answer", |screen| {
        let shown = packets(screen, "web-v4");
        // A lower bound of what a jump would be: all of it within ten samples.
        assert!(shown < Some(f64::from(requests) / 2.0), "{screen}");
        back(screen)
    });
    let is_negative = |word: &str| word.len() > 1 && word.starts_with('-');
    assert!(!screen.split_whitespace().any(is_negative), "{screen}");
    terminal.press("C-c").unwrap();
    is_restored(&terminal, 0);
    drop(terminal);

    // Ended by a signal; and a screen in colours where they are wanted.
    let terminal = on_a_terminal(&run, "", "--vip web-v4 --interval 0.2");
    shows(
        &terminal,
        &["VIP web-v4", &run.topology.backends[2].v4.to_string()],
    );
    assert!(has_colours(&terminal.coloured_screen().unwrap()));
    let pid = fs::read_to_string(pid_file(&run)).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    is_restored(&terminal, 0);
}

/// Whether there is a sequence that sets a colour (ECMA-48, SGR 30 to 38).
fn has_colours(screen: &str) -> bool {
    screen.split("\u{1b}[").skip(1).any(|sequence| {
        let parameters = sequence.split('m').next().unwrap_or_default();
        parameters
            .split(';')
            .any(|one| matches!(one.parse(), Ok(30..=38_u8)))
    })
}

#[test]
fn once_tells_what_was_counted_between_its_samples() {
    let run = start();
    under_traffic(&run, || {
        let before = run.weir.status().unwrap();
        let told = run
            .weir
            .ask(&["top", "--once", "--interval", "2", "-o", "json"])
            .unwrap();
        let after = run.weir.status().unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        let seconds = told["seconds"].as_f64().unwrap();
        for name in ["web-v4", "echo-v6"] {
            let mut vips = told["vips"].as_array().unwrap().iter();
            let vip = vips.find(|vip| vip["name"] == name).unwrap();
            let packets = vip["packets_per_second"].as_f64().unwrap() * seconds;
            let all = after.vip(name).unwrap().packets - before.vip(name).unwrap().packets;
            let all = u32::try_from(all).unwrap();
            // What is counted is a part of what came meanwhile, and whole packets.
            assert!(
                packets > 1.0 && packets < f64::from(all) + 0.5,
                "{name}: {packets} of {all}"
            );
            assert!(
                (packets - packets.round()).abs() < 1e-3,
                "{name}: {packets}"
            );
            let backends = vip["backends"].as_array().unwrap();
            let sum = |field: &str| {
                backends
                    .iter()
                    .map(|one| one[field].as_f64().unwrap())
                    .sum::<f64>()
            };
            assert!((sum("traffic_share") - 1.0).abs() < 1e-6, "{vip}");
            // Both are read while packets come.
            assert!(
                (sum("packets_per_second") * seconds - packets).abs() < 20.0,
                "{vip}"
            );
        }
        let table = run
            .weir
            .ask(&["top", "--once", "--vip", "echo-v6"])
            .unwrap();
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        for text in [
            "BACKEND OF echo-v6",
            "packets_per_source",
            "SOURCE OF echo-v6",
            "fd77::/64",
        ] {
            assert!(table.contains(text), "{text}: {table}");
        }
        let unknown = run
            .weir
            .output(&[
                "top",
                "--once",
                "--vip",
                "none",
                "--socket",
                &run.weir.socket().display().to_string(),
            ])
            .unwrap();
        assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    });
}
