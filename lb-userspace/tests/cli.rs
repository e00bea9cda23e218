//! The built binary: exit codes, and what goes to which stream.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use lb_userspace::{
    api::{self, Access, LeavingStatus, OverrideStatus, SlotsStatus, Socket, Status, VipStatus},
    doctor::{Level, Report, Role},
};
use tokio::sync::oneshot;

fn weir(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(args).stdin(Stdio::null());
    command.env_remove("RUST_LOG").env_remove("NO_COLOR");
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn config(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/configs")
        .join(path);
    path.to_str().unwrap().to_owned()
}

fn write(directory: &Path, text: &str) -> String {
    let path: PathBuf = directory.join("weir.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_takes_a_valid_file() {
    let output = weir(&["check", "--offline", &config("good/design.toml")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        out(&output).ends_with(
            "design.toml: valid: node lb-1, 1 VIP, 2 backends, 256 KiB of lookup tables\n"
        ),
        "{}",
        out(&output)
    );
    assert_eq!(err(&output), "");
}

#[test]
fn check_on_the_host_wants_its_interfaces_and_seed_file() {
    let directory = tempfile::tempdir().unwrap();
    let good = write(
        directory.path(),
        "[node]\ninterfaces = [\"lo\"]\nseed = \"secret\"\n",
    );
    assert_eq!(code(&weir(&["check", &good])), 0);

    let bad = write(
        directory.path(),
        "[node]\ninterfaces = [\"no-such-if0\"]\nseed_file = \"nowhere\"\n",
    );
    let output = weir(&["check", &bad]);
    assert_eq!(code(&output), 1);
    assert_eq!(out(&output), "");
    let said = err(&output);
    assert!(said.contains("weir.toml:2:15: node.interfaces[0]: found \"no-such-if0\", which this host does not have"), "{said}");
    assert!(
        said.contains("weir.toml:3:13: node.seed_file: found"),
        "{said}"
    );
    assert!(said.contains("  help: "), "{said}");
    assert!(said.ends_with("weir.toml: 2 errors\n"), "{said}");
    assert_eq!(code(&weir(&["check", "--offline", &bad])), 0);
    assert_eq!(code(&weir(&["check", "--no-host", &bad])), 0);

    fs::write(directory.path().join("nowhere"), " \n").unwrap();
    let output = weir(&["check", &bad]);
    assert!(
        err(&output).contains("nowhere\", which is empty, wanted a readable file"),
        "{}",
        err(&output)
    );

    // `run` refuses the same before it touches anything.
    let output = weir(&["run", "--config", &bad]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("no-such-if0"), "{}", err(&output));
}

#[test]
fn check_refuses_what_is_broken_or_away() {
    let output = weir(&[
        "check",
        "--offline",
        &config("broken/vip_port_out_of_range.toml"),
    ]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).ends_with(
            "vip_port_out_of_range.toml:8:8: vip[0].port: found 70000, wanted a port from 0 to 65535\n  \
             help: write `port = 443`, or 0 for every port\n"
        ),
        "{}",
        err(&output)
    );
    let output = weir(&["check", "/no/such/weir.toml"]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("/no/such/weir.toml: cannot be read"),
        "{}",
        err(&output)
    );
}

#[test]
fn usage_errors_exit_with_2() {
    for args in [
        &[][..],
        &["check"],
        &["frobnicate"],
        &["status", "-o", "yaml"],
        &["run", "--log-format", "xml"],
    ] {
        let output = weir(args);
        assert_eq!(code(&output), 2, "{args:?}");
        assert_eq!(out(&output), "", "{args:?}");
        assert!(
            err(&output).contains("--help") || err(&output).contains("Usage: weir"),
            "{args:?}: {}",
            err(&output)
        );
    }
}

/// An address that no test gives to this host.
const NOBODYS_VIP: &str = "198.51.100.199:65001";

#[test]
fn doctor_tells_people_and_programs_the_same_and_exits_with_3() {
    let of = |form: &str| weir(&["doctor", "--backend", "--vip", NOBODYS_VIP, "-o", form]);
    let json = of("json");
    assert_eq!(code(&json), 3, "{}", err(&json));
    let report: Report = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((report.role, report.level), (Role::Backend, Level::Fail));
    let found = |check: &str| {
        let mut findings = report.findings.iter();
        findings.find(|finding| finding.check == check).unwrap()
    };
    let vip = found("vip-address");
    assert_eq!(
        (vip.level, vip.subject.as_str()),
        (Level::Fail, "198.51.100.199")
    );
    assert_eq!(vip.commands, ["ip address add 198.51.100.199/32 dev lo"]);
    assert_eq!(found("listening").subject, "198.51.100.199:65001/tcp");

    let table = of("table");
    assert_eq!(code(&table), 3);
    for line in out(&table).lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert_eq!(line.trim_end(), line, "trailing spaces");
    }
    assert!(out(&table).starts_with("LEVEL CHECK"), "{}", out(&table));
    for text in [&vip.commands[0], "no server takes tcp there", " fail, "] {
        assert!(out(&table).contains(text), "{text} in\n{}", out(&table));
    }
}

#[test]
fn doctor_of_a_load_balancer_needs_its_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(
        directory.path(),
        &format!(
            "[node]\ninterfaces = [\"no-such-if0\"]\nseed = \"secret\"\npin_path = \"{0}/pins\"\n\
             api_socket = \"{0}/weir.sock\"\nmetrics_listen = \"127.0.0.1:0\"\n",
            directory.path().display()
        ),
    );
    let output = weir(&["doctor", "--config", &file, "-o", "json"]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert!(!out(&output).contains("secret"), "{}", out(&output));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    let link = report.findings.iter().find(|f| f.check == "link").unwrap();
    assert_eq!(
        (link.level, link.subject.as_str()),
        (Level::Fail, "no-such-if0")
    );

    let broken = config("broken/vip_port_out_of_range.toml");
    for args in [
        &["doctor", "--config", &broken][..],
        &["doctor", "--backend", "--config", &broken],
        &["doctor", "--config", "/no/such/weir.toml"],
    ] {
        let output = weir(args);
        assert_eq!(code(&output), 1, "{args:?}");
        assert_eq!(out(&output), "", "{args:?}");
        assert!(err(&output).contains(".toml"), "{}", err(&output));
    }
    for args in [
        &["doctor", "--backend"][..],
        &["doctor", "--vip", "203.0.113.10"],
        &["doctor", "--backend", "--vip", "web"],
        &[
            "doctor",
            "--backend",
            "--vip",
            "203.0.113.10",
            "--config",
            &file,
        ],
        &["doctor", "--backend", "--config", &file, "--forward", "gue"],
        &["doctor", "--interface", "eth0"],
    ] {
        let output = weir(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
    }
}

#[test]
fn help_and_version_are_data() {
    let output = weir(&["-V"]);
    assert_eq!((code(&output), out(&output)), (0, "weir 0.1.0\n"));
    let output = weir(&["--version"]);
    let keys = out(&output).lines().map(|line| line.split(':').next());
    let keys: Vec<_> = keys.flatten().collect();
    let wanted = [
        "weir 0.1.0",
        "commit",
        "profile",
        "target",
        "compiler",
        "features",
    ];
    assert_eq!((code(&output), keys.as_slice()), (0, wanted.as_slice()));
    for verb in [
        "run",
        "check",
        "plan",
        "apply",
        "status",
        "vip",
        "backend",
        "drain",
        "undrain",
        "drain-node",
        "undrain-node",
        "watchdog",
        "weight",
        "trace",
        "flows",
        "events",
        "doctor",
        "detach",
        "import",
        "completions",
        "man",
    ] {
        let output = weir(&[verb, "--help"]);
        assert_eq!(code(&output), 0);
        let help = out(&output);
        assert!(
            help.contains(&format!("Examples:\n  weir {verb}")),
            "{help}"
        );
    }
}

#[test]
fn prints_completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let output = weir(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(out(&output).contains("detach"), "{shell}");
    }
    let output = weir(&["man"]);
    assert!(out(&output).contains(".TH weir 1"), "{}", out(&output));

    let directory = tempfile::tempdir().unwrap();
    let output = weir(&["man", directory.path().to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for page in ["weir.1", "weir-run.1", "weir-status.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
}

#[test]
fn status_without_a_daemon_is_degraded() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("weir.sock");
    let output = weir(&["status", "--socket", socket.to_str().unwrap()]);
    assert_eq!(code(&output), 3);
    assert_eq!(out(&output), "");
    assert!(
        err(&output).contains("the daemon is away"),
        "{}",
        err(&output)
    );
}

/// Runs `weir` with `--socket` of a daemon whose state is `status`.
async fn ask(status: Status, args: &'static [&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    let socket = Socket::bind(&path, Access::default()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(api::serve(socket, common::reconciler(status), async {
        stopped.await.ok();
    }));
    let output = tokio::task::spawn_blocking(move || {
        let mut args = args.to_vec();
        args.extend(["--socket", path.to_str().unwrap()]);
        weir(&args)
    });
    let output = output.await.unwrap();
    drop(stop);
    server.await.unwrap().unwrap();
    output
}

#[tokio::test]
async fn status_is_a_table_of_80_columns_without_colour_in_a_pipe() {
    let output = ask(common::status(), &["status"]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let table = out(&output);
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert_eq!(line.trim_end(), line, "trailing spaces");
    }
    assert!(!table.contains('\u{1b}'), "{table}");
    for text in [
        "VIP web\n",
        "tcp 203.0.113.10:443",
        "[2001:db8::10]:443",
        "02:00:00:00:00:01",
        "unresolved",
        "50.0%",
        "1.2G",
        "not_vip",
        "problem: ",
    ] {
        assert!(table.contains(text), "{text} in\n{table}");
    }
}

#[tokio::test]
async fn status_is_json_with_the_apis_own_fields() {
    let output = ask(common::status(), &["status", "-o", "json"]).await;
    assert_eq!(code(&output), 0);
    let status: Status = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status, common::status());
}

#[tokio::test]
async fn a_vip_that_reaches_nobody_is_degraded() {
    let mut status = common::status();
    for backend in &mut status.vips[1].backends {
        backend.resolved = false;
    }
    let output = ask(status, &["status"]).await;
    assert_eq!(code(&output), 3);
    assert!(
        out(&output).contains("VIP web.v6: no backend takes packets"),
        "{}",
        out(&output)
    );

    let mut status = common::status();
    status.ready = false;
    assert_eq!(code(&ask(status, &["status"]).await), 3);
}

#[tokio::test]
async fn detach_asks_the_daemon_first() {
    let output = ask(common::status(), &["detach"]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(err(&output), "detached from eth0; 9 pins removed\n");
}

/// A status in which a command has drained a backend of `web`.
fn drained() -> Status {
    let mut status = common::status();
    let vip = status.vips.first_mut().unwrap();
    let backend = vip.backends.first_mut().unwrap();
    (backend.weight, backend.slots, backend.drained) = (0, 0, true);
    status.overrides.push(OverrideStatus {
        vip: "web".to_owned(),
        backend: backend.address,
        drained: true,
        weight: Some(7),
        configured: true,
    });
    status.config.applied = "/tmp/new.toml".into();
    status
}

#[tokio::test]
async fn how_far_a_drain_and_a_move_have_come_is_shown() {
    let mut status = drained();
    let show = async |status: &Status| {
        let list = ask(status.clone(), &["backend", "list"]).await;
        let vip = ask(status.clone(), &["vip", "show", "web"]).await;
        (out(&list).to_owned(), out(&vip).to_owned())
    };
    status.vips[0].backends[0].pins = 12;
    status.vips[0].backends[0].empty = Some(false);
    status.vips[0].backends[0].packets_per_second = Some(3.25);
    let (list, vip) = show(&status).await;
    assert!(list.contains("drained, 12 flows"), "{list}");
    let ebb = "\n  10.0.0.11 of web drains; 3.2 packets/s still come\n";
    assert!(list.contains(ebb) && vip.contains(ebb), "{list}{vip}");
    let slots = "slots: 65000 stable, 536 moving, the next change in 12 s; 7 flows remembered";
    assert!(vip.contains(slots), "{vip}");

    status.vips[0].backends[0].pins = 0;
    status.vips[0].backends[0].empty = Some(true);
    status.vips[0].slots = SlotsStatus {
        stable: 65_536,
        ..SlotsStatus::default()
    };
    status.vips[0].leaving.push(LeavingStatus {
        id: 9,
        address: "10.0.0.19".parse().unwrap(),
        alive: true,
        health: Some(common::health(true)),
        packets: 1234,
        bytes: 123_400,
        new_connections: 12,
        packets_per_second: Some(0.0),
        pins: 3,
        drain_seconds_left: Some(239.7),
    });
    let (list, vip) = show(&status).await;
    assert!(
        list.contains("drained, empty") && !list.contains(" drains;"),
        "{list}"
    );
    assert!(!vip.contains("slots:"), "{vip}");
    let leaving = "10.0.0.19 (id 9): leaving; 3 flows remembered, 1234 packets; \
                   0.0 packets/s still come; 240 s left\n";
    assert!(vip.contains(leaving), "{vip}");
    let row = list.lines().find(|line| line.contains("10.0.0.19"));
    let row: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(
        row.join(" "),
        "web 10.0.0.19 leaving, 3 flows - - 1234",
        "{list}"
    );
    let json = ask(status, &["backend", "list", "-o", "json"]).await;
    assert!(!out(&json).contains("10.0.0.19"), "{}", out(&json));
}

#[tokio::test]
async fn how_health_checks_do_is_shown() {
    let mut status = common::status();
    let backends = &mut status.vips[0].backends;
    backends[1].resolved = true;
    let long = "the answer is 500 Internal Server Error, and so on and so forth for many words";
    backends[1].health.as_mut().unwrap().reason = Some(long.to_owned());
    let shaky = backends[0].health.as_mut().unwrap();
    (shaky.flaps, shaky.in_a_row) = (0, 1);
    shaky.last_error = Some("no answer within 1s".to_owned());
    status.vips[1].backends[0].health = None;
    status.vips[1].backends[0].healthy = None;
    let list = ask(status.clone(), &["backend", "list"]).await;
    let state = |address: &str| -> String {
        let row = out(&list).lines().find(|line| line.contains(address));
        row.unwrap().split_whitespace().nth(2).unwrap().to_owned()
    };
    assert_eq!(
        (state("10.0.0.11"), state("10.0.0.12")),
        ("ok".to_owned(), "failed".to_owned())
    );
    let shown = ask(status.clone(), &["status"]).await;
    let table = out(&shown);
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for text in [
        "HEALTH",
        "  10.0.0.11: healthy, but failed 1 in a row: no answer within 1s\n",
        "  10.0.0.12: failed at 2026-11-23T21:14:12 (3 flaps): the answer is 500 Interna…\n",
    ] {
        assert!(table.contains(text), "{text} in\n{table}");
    }
    // Where nothing is checked there is no such column.
    let of_v6 = ask(status.clone(), &["vip", "show", "web.v6"]).await;
    assert!(!out(&of_v6).contains("HEALTH"), "{}", out(&of_v6));

    status.vips[0].fails_open = true;
    let shown = ask(status, &["vip", "show", "web"]).await;
    let text = "VIP web: too many backends fail their checks, so all are used\n";
    assert!(out(&shown).contains(text), "{}", out(&shown));
}

#[tokio::test]
async fn what_commands_have_changed_is_shown_everywhere() {
    let output = ask(drained(), &["status"]).await;
    for text in [
        "configuration /tmp/new.toml, by start\n",
        "by command: 10.0.0.11 of VIP web: drained, weight 7\n",
        "  0* ",
    ] {
        assert!(out(&output).contains(text), "{text} in\n{}", out(&output));
    }
    let output = ask(drained(), &["backend", "list"]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let lines: Vec<&str> = out(&output).lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(
        lines[1].contains("10.0.0.11") && lines[1].contains("drained"),
        "{lines:?}"
    );
    assert!(lines[2].contains("unresolved"), "{lines:?}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{lines:?}"
    );
}

#[tokio::test]
async fn listings_are_tables_or_json() {
    let output = ask(common::status(), &["vip", "list"]).await;
    assert_eq!(out(&output).lines().count(), 3, "{}", out(&output));
    assert!(out(&output).contains("203.0.113.10:443"));
    let output = ask(common::status(), &["vip", "list", "-o", "json"]).await;
    let vips: Vec<VipStatus> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(vips, common::status().vips);
    let output = ask(common::status(), &["vip", "show", "web", "-o", "json"]).await;
    let vip: VipStatus = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(vip, common::status().vips[0]);
    let output = ask(common::status(), &["vip", "show", "nothing"]).await;
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("`weir vip list`"), "{}", err(&output));
    let output = ask(
        common::status(),
        &["backend", "show", "10.0.0.12", "-o", "json"],
    )
    .await;
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(
        (&rows[0]["vip"], &rows[0]["id"]),
        (&"web".into(), &2.into())
    );
    let output = ask(common::status(), &["backend", "show", "10.0.0.99"]).await;
    assert_eq!(code(&output), 1);
}

const WAIT: &[&str] = &[
    "drain-node",
    "--wait",
    "--quiet",
    "1s",
    "--timeout",
    "1s",
    "-o",
    "json",
];

#[tokio::test]
async fn changes_say_what_became_of_them() {
    let output = ask(common::status(), &["drain", "web", "10.0.0.11"]).await;
    assert_eq!(code(&output), 0);
    assert_eq!(out(&output), "");
    assert_eq!(
        err(&output),
        "10.0.0.11 of VIP web takes no new flows (generation 4)\n"
    );
    let output = ask(common::status(), &["drain-node"]).await;
    assert_eq!(
        (code(&output), err(&output)),
        (
            0,
            "the node is drained: it announces no VIP (generation 4)\n"
        )
    );
    // This daemon says that it announces one all the same.
    let output = ask(common::status(), WAIT).await;
    assert_eq!(code(&output), 1);
    let waited: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&waited["quiet"], &waited["announced"]),
        (&false.into(), &true.into())
    );
    let output = ask(
        common::status(),
        &["weight", "web", "10.0.0.11", "5", "-o", "json"],
    )
    .await;
    let changed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        changed,
        serde_json::json!({ "changed": true, "generation": 4 })
    );
    let output = ask(
        common::status(),
        &["undrain", "--all", "10.0.0.11", "--generation", "2"],
    )
    .await;
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("based on generation 2, and the daemon is at 3"),
        "{}",
        err(&output)
    );
}

#[test]
fn changes_without_a_daemon_or_with_wrong_words_fail() {
    let nowhere = ["--socket", "/no/such/weir.sock"];
    for args in [
        &["drain", "web", "10.0.0.11"][..],
        &["weight", "web", "10.0.0.11", "5"],
        &["vip", "list"],
        &["events"],
        &["status", "--watch"],
    ] {
        let output = weir(&[args, &nowhere].concat());
        assert_eq!(code(&output), 1, "{args:?}");
        assert!(
            err(&output).contains("no daemon listens on"),
            "{args:?}: {}",
            err(&output)
        );
    }
    for args in [
        &["drain", "10.0.0.11"][..],
        &["drain", "web", "backend"],
        &["drain", "--all", "web", "10.0.0.11"],
        &["weight", "web", "10.0.0.11"],
        &["weight", "web", "10.0.0.11", "65536"],
        &["weight", "web", "10.0.0.11", "5", "--reset"],
        &["apply", "--max-move", "200%"],
        &["plan"],
    ] {
        let output = weir(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
    }
    // What the file alone tells needs no daemon.
    let broken = config("broken/vip_port_out_of_range.toml");
    let output = weir(&["plan", &broken, "--socket", "/no/such/weir.sock"]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("vip[0].port: found 70000"),
        "{}",
        err(&output)
    );
}
