//! Changes and their persistence, over a data plane in memory. Every backend has a `mac`, so nothing is asked of
//! this host's network.

mod access;
mod announce;
#[cfg(feature = "kubernetes")]
mod services;

use std::{fs, path::PathBuf};

use lb_common::{
    slot::{Slot, State},
    tables::Tables as _,
};

use super::*;
use crate::{
    api::{Apply, Base, Change, Changed, Handle, Refusal, Request, Status, Target, VipStatus},
    dataplane::memory::Memory,
};

const PATIENCE: Duration = Duration::from_secs(10);
const WEB: &str = "10.0.0.11";
const OTHER: &str = "10.0.0.12";

/// A directory with the state file, and the file of the configuration.
struct Node {
    directory: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("weir.toml")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state/weir.json")
    }

    /// Two VIPs, both served by [`WEB`], and `more`.
    fn text(&self, more: &str) -> String {
        let state = self.state();
        let vip = |name: &str, port: u16, more: &str| {
            format!(
                "[[vip]]\nname = \"{name}\"\naddress = \"203.0.113.10\"\nport = {port}\nprotocol = \"tcp\"\n\
                 [[vip.backend]]\naddress = \"{WEB}\"\nmac = \"02:00:00:00:00:11\"\n{more}"
            )
        };
        let other =
            format!("[[vip.backend]]\naddress = \"{OTHER}\"\nmac = \"02:00:00:00:00:12\"\n");
        format!(
            "[node]\ninterfaces = [\"lo\"]\nseed = \"x\"\nstate_file = \"{}\"\n{}{}{more}",
            state.display(),
            vip("web", 80, &other),
            vip("tls", 443, ""),
        )
    }

    async fn start(&self, text: &str) -> Running {
        let config = Config::parse(text, "weir.toml").unwrap();
        let (neighbours, snapshots) = Neighbours::start().await.unwrap();
        let plane = Memory::default();
        let mut reconciler = Reconciler::new(
            config,
            &self.file(),
            plane,
            Past::Kept,
            neighbours,
            snapshots,
        )
        .unwrap();
        reconciler.start().await.unwrap();
        let (handle, mut commands) = Handle::channel();
        let task = tokio::spawn(async move {
            reconciler.run(&mut commands).await;
            reconciler.plane
        });
        Running { handle, task }
    }
}

struct Running {
    handle: Handle,
    task: tokio::task::JoinHandle<Memory>,
}

impl Running {
    async fn change(&self, base: Base, change: Change) -> Result<Changed, Refusal> {
        let by = Actor::User { uid: 7, pid: None };
        let request = Request { base, by, change };
        self.handle.change(request, PATIENCE).await.unwrap()
    }

    async fn apply(&self, base: Base, text: &str, force: bool) -> Result<Changed, Refusal> {
        let apply = Apply {
            config: Config::parse(text, "new.toml").unwrap(),
            text: text.to_owned(),
            file: PathBuf::from("/new.toml"),
            force,
            max_move_percent: None,
        };
        self.change(base, Change::Apply(Box::new(apply))).await
    }

    async fn status(&self) -> Status {
        self.handle.status(PATIENCE).await.unwrap()
    }

    /// Weight and slots of each backend, VIP by VIP.
    async fn weights(&self) -> Vec<Vec<(u16, u32)>> {
        let vips = self.status().await.vips;
        let backends = |vip: &VipStatus| vip.backends.iter().map(|b| (b.weight, b.slots)).collect();
        vips.iter().map(backends).collect()
    }

    async fn end(self) -> Memory {
        drop(self.handle);
        self.task.await.unwrap()
    }
}

fn drain(vip: &str, is_drained: bool) -> Change {
    let target = Target::OfVip(vip.to_owned(), WEB.parse().unwrap());
    Change::Drain(target, is_drained)
}

#[tokio::test]
async fn a_drain_holds_over_restarts_and_reloads_until_it_is_undone() {
    let node = Node::new();
    let text = node.text("");
    let running = node.start(&text).await;
    assert_eq!(running.status().await.generation, 1);
    let before = running.weights().await;
    let done = running
        .change(Base::Generation(1), drain("web", true))
        .await
        .unwrap();
    assert_eq!((done.changed, done.generation), (true, 2));
    let drained = [vec![(0, 0), (100, 65_536)], vec![(100, 65_536)]];
    assert_eq!(running.weights().await, drained);
    // Once more: nothing changes, also no generation.
    let done = running
        .change(Base::Generation(2), drain("web", true))
        .await
        .unwrap();
    assert_eq!((done.changed, done.generation), (false, 2));

    let done = running.apply(Base::Any, &text, false).await.unwrap();
    assert_eq!(done.generation, 3);
    assert_eq!(running.weights().await, drained);
    let plane = running.end().await;
    let table = plane.slots(0).unwrap();
    // The drained one keeps its slots for the time of a handshake.
    let (held, others): (Vec<Slot>, Vec<Slot>) = table
        .slots
        .iter()
        .partition(|slot| slot.state() == State::Holding);
    assert!(!held.is_empty() && held.iter().all(|slot| *slot == held[0]));
    assert!(
        others
            .iter()
            .all(|slot| *slot == others[0] && slot.is_stable())
    );
    assert_ne!(held[0].current, others[0].current);

    let running = node.start(&text).await;
    let status = running.status().await;
    assert_eq!(status.generation, 4, "older changes are stale");
    assert_eq!(running.weights().await, drained);
    let backend = &status.vips[0].backends[0];
    assert_eq!((backend.drained, backend.configured_weight), (true, 100));
    assert_eq!(status.overrides.len(), 1);
    running
        .change(Base::Any, drain("web", false))
        .await
        .unwrap();
    assert_eq!(running.weights().await, before);
    assert_eq!(running.status().await.overrides, []);
}

#[tokio::test]
async fn a_weight_is_set_and_given_back_and_all_vips_drain_as_one() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    let weight = |weight| Change::Weight("web".to_owned(), OTHER.parse().unwrap(), weight);
    running.change(Base::Any, weight(Some(300))).await.unwrap();
    assert_eq!(running.weights().await[0], [(100, 16_384), (300, 49_152)]);
    running.change(Base::Any, weight(None)).await.unwrap();
    let all = |is_drained| Change::Drain(Target::OfAll(WEB.parse().unwrap()), is_drained);
    let done = running.change(Base::Any, all(true)).await.unwrap();
    assert_eq!(done.generation, 4, "one change for both VIPs");
    let weights = running.weights().await;
    assert_eq!((weights[0][0], weights[1][0]), ((0, 0), (0, 0)));
    running
        .change(Base::Any, drain("tls", false))
        .await
        .unwrap();
    assert_eq!(running.weights().await[1], [(100, 65_536)]);
}

#[tokio::test]
async fn what_is_based_on_the_past_or_names_nothing_is_refused() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    running
        .change(Base::Generation(1), drain("web", true))
        .await
        .unwrap();
    let before = running.status().await;
    for change in [drain("web", false), drain("tls", true)] {
        let refusal = running
            .change(Base::Generation(1), change)
            .await
            .unwrap_err();
        assert!(
            matches!(refusal, Refusal::Stale { base: 1, now: 2 }),
            "{refusal}"
        );
    }
    let refusal = running
        .apply(Base::Generation(1), &node.text(""), false)
        .await;
    assert!(matches!(refusal, Err(Refusal::Stale { .. })), "{refusal:?}");

    let unknown = "10.9.9.9".parse().unwrap();
    for (change, text) in [
        (drain("nothing", true), "no VIP nothing"),
        (
            Change::Drain(Target::OfVip("web".to_owned(), unknown), true),
            "VIP web has no backend 10.9.9.9",
        ),
        (
            Change::Drain(Target::OfAll(unknown), false),
            "no VIP has a backend 10.9.9.9",
        ),
        (
            Change::Weight("tls".to_owned(), OTHER.parse().unwrap(), Some(1)),
            "VIP tls has no backend",
        ),
    ] {
        let refusal = running.change(Base::Any, change).await.unwrap_err();
        assert!(refusal.to_string().contains(text), "{refusal}");
    }
    assert_eq!(running.status().await, before);
}

#[tokio::test]
async fn a_new_configuration_is_in_force_as_a_whole_or_not_at_all() {
    let node = Node::new();
    let text = node.text("");
    let running = node.start(&text).await;
    let before = running.status().await;
    assert_eq!(
        (&before.config.file, &before.config.applied),
        (&node.file(), &node.file())
    );

    // Another VIP, and what cannot change: refused, the VIP too.
    let more =
        "[[vip]]\nname = \"dns\"\naddress = \"203.0.113.10\"\nport = 53\nprotocol = \"udp\"\n";
    let fixed = node
        .text(more)
        .replace("seed =", "xdp_mode = \"native\"\nseed =");
    let refusal = running.apply(Base::Any, &fixed, true).await.unwrap_err();
    assert_eq!(refusal.findings().len(), 1);
    let said = refusal.to_string();
    assert!(
        said.starts_with("error: /new.toml:3:12: node.xdp_mode: found \"native\", wanted \"auto\""),
        "{said}"
    );
    assert!(said.contains("restart the daemon"), "{said}");
    assert_eq!(running.status().await, before);

    let done = running
        .apply(Base::Generation(1), &node.text(more), false)
        .await
        .unwrap();
    assert_eq!(done.generation, 2);
    let status = running.status().await;
    let names: Vec<_> = status.vips.iter().map(|vip| vip.name.as_str()).collect();
    assert_eq!(names, ["web", "tls", "dns"]);
    assert_eq!(
        (status.config.by.as_str(), status.config.applied),
        ("uid 7", PathBuf::from("/new.toml"))
    );
    assert!(
        status
            .problems
            .iter()
            .any(|p| p.contains("a restart or SIGHUP goes back")),
        "{:?}",
        status.problems
    );
    let digest = |status: &Status| status.vips[0].table_digest.clone();
    assert_eq!(status.vips[0].table_digest, digest(&before));
    running.apply(Base::Any, &text, false).await.unwrap();
    assert_eq!(running.status().await.vips, before.vips);
}

#[tokio::test]
async fn a_new_seed_wants_force() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    let before = running.status().await;
    let text = node.text("").replace("seed = \"x\"", "seed = \"secret-y\"");
    let refusal = running.apply(Base::Any, &text, false).await.unwrap_err();
    let said = refusal.to_string();
    assert!(
        said.contains("node.seed") && said.contains("--force"),
        "{said}"
    );
    assert!(!said.contains("secret-y"), "{said}");
    assert_eq!(running.status().await, before);
    running.apply(Base::Any, &text, true).await.unwrap();
    let after = running.status().await;
    assert_ne!(after.vips[0].table_digest, before.vips[0].table_digest);
}

#[tokio::test]
async fn a_command_that_cannot_be_kept_is_refused() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    let before = running.weights().await;
    let folder = node.state().parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let refusal = running
        .change(Base::Any, drain("web", true))
        .await
        .unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Failed(text) if text.contains("keep state in")),
        "{refusal}"
    );
    assert_eq!(running.weights().await, before);
    // A configuration needs nothing kept but its number.
    running
        .apply(Base::Any, &node.text(""), false)
        .await
        .unwrap();
    let problems = running.status().await.problems;
    assert!(
        problems.iter().any(|p| p.contains("commands are refused")),
        "{problems:?}"
    );
    fs::remove_file(&folder).unwrap();
    running.change(Base::Any, drain("web", true)).await.unwrap();
    let problems = running.status().await.problems;
    assert!(
        !problems.iter().any(|p| p.contains("commands are refused")),
        "{problems:?}"
    );
}

#[tokio::test]
async fn changes_are_told_to_whoever_listens() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    let mut events = running.handle.events(PATIENCE).await.unwrap();
    running.change(Base::Any, drain("web", true)).await.unwrap();
    running.change(Base::Any, drain("web", true)).await.unwrap();
    running
        .apply(Base::Any, &node.text(""), false)
        .await
        .unwrap();
    let fixed = node.text("").replace("[\"lo\"]", "[\"eth7\"]");
    running.apply(Base::Any, &fixed, false).await.unwrap_err();
    let without = node.text("").replace(OTHER, "10.0.0.13");
    running.apply(Base::Any, &without, false).await.unwrap();
    let back = node.text("");
    running.apply(Base::Any, &back, false).await.unwrap();
    running.end().await;
    let mut told = Vec::new();
    while let Ok(event) = events.recv().await {
        told.push(serde_json::to_value(event).unwrap());
    }
    let types: Vec<_> = told
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "drained", "moving", "applied", "refused", "applied", "leaving", "applied", "leaving",
            "left"
        ]
    );
    assert_eq!(told[0]["vip"], "web");
    assert_eq!(told[0]["backend"], WEB);
    assert_eq!(told[0]["by"], "uid 7");
    assert_eq!(told[2]["generation"], 3);
    // The drained one's slots; nothing else moves yet.
    assert_eq!(told[1]["vip"], "web");
    let slots = told[1]["slots"].as_u64().unwrap();
    assert!((30_000..36_000).contains(&slots), "{slots}");
    for (index, backend) in [(5, OTHER), (7, "10.0.0.13"), (8, OTHER)] {
        assert_eq!(
            (&told[index]["vip"], &told[index]["backend"]),
            (&"web".into(), &backend.into())
        );
    }
    assert_eq!(
        (&told[5]["alive"], &told[5]["id"]),
        (&true.into(), &told[8]["id"])
    );
}

#[tokio::test]
async fn a_drained_backend_that_the_configuration_loses_stays_drained() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    running.change(Base::Any, drain("web", true)).await.unwrap();
    let without = "[node]\ninterfaces = [\"lo\"]\nseed = \"x\"\n".to_owned()
        + &format!("state_file = \"{}\"\n", node.state().display());
    running.apply(Base::Any, &without, false).await.unwrap();
    let status = running.status().await;
    assert_eq!(
        (status.vips.len(), status.overrides[0].configured),
        (0, false)
    );
    assert!(
        status
            .problems
            .iter()
            .any(|p| p.contains("VIP web has no such backend"))
    );
    running
        .apply(Base::Any, &node.text(""), false)
        .await
        .unwrap();
    assert_eq!(running.weights().await[0][0], (0, 0));
}
