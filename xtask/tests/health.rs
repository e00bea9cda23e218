//! Health checks end to end: a backend whose server answers, but not as it should, is out after `fall` checks and
//! back after `rise`; real traffic follows, and so do status, events and metrics.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

#[path = "../../lb-userspace/tests/health/server.rs"]
#[expect(dead_code, reason = "the unit tests of the checks use the rest")]
mod server;
mod three_backends;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::ensure;
use serde_json::Value;
use server::{Mood, Server};
use three_backends::Run;
use tokio::sync::mpsc;
use xtask::lab::{Namespace, Process, VIP_V4, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where backends answer health checks.
const PORT: u16 = 8080;

const RISE: u64 = 2;
const FALL: u64 = 3;

/// Which server, and what is written of it in the configuration.
#[derive(Clone, Copy)]
enum Kind {
    Http,
    Https,
    Grpc,
}

impl Kind {
    async fn start(self, address: SocketAddr) -> Server {
        let server = match self {
            Self::Http => Server::http().await,
            Self::Https => Server::https(server::tls()).await,
            Self::Grpc => Server::grpc(None).await,
        };
        server.moved_to(address).await
    }

    fn section(self) -> String {
        let own = match self {
            Self::Http => "type = \"http\"\npath = \"/healthz\"".to_owned(),
            Self::Https => "type = \"https\"\nhost = \"www.example.com\"".to_owned(),
            Self::Grpc => format!("type = \"grpc\"\nservice = \"{}\"", server::SERVICE),
        };
        format!(
            "move_window = \"2s\"\nflow_idle = \"10s\"\n[vip.health]\n{own}\nport = {PORT}\ninterval = \"300ms\"\n\
             timeout = \"250ms\"\nrise = {RISE}\nfall = {FALL}\n"
        )
    }
}

/// Starts a server inside a host, and returns how its mood is changed. It ends when that is dropped.
fn serve(host: &Namespace, kind: Kind, address: IpAddr) -> mpsc::UnboundedSender<Mood> {
    let (moods, mut changes) = mpsc::unbounded_channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    // The thread, and what it opens, belong to the host.
    let start = || {
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut server = kind.start((address, PORT).into()).await;
                ready.send(()).unwrap();
                while let Some(mood) = changes.recv().await {
                    server.set(mood).await;
                }
            });
        });
        Ok(())
    };
    host.inside(start).unwrap();
    is_ready.recv_timeout(PATIENCE).unwrap();
    moods
}

/// Three backends with health servers, all of them healthy.
struct Checked {
    // Dropped in order: whatever listens in the lab's hosts ends before the lab does.
    servers: Vec<mpsc::UnboundedSender<Mood>>,
    events: Process,
    run: Run,
}

impl Checked {
    fn start(kind: Kind) -> Self {
        let run = Run::start();
        let backends = run.topology.backends.iter();
        let servers = backends.map(|host| serve(&host.namespace, kind, host.address(VIP_V4)));
        let servers = servers.collect();
        let socket = run.weir.socket().display().to_string();
        let mut follow = run
            .weir
            .command(&["events", "-o", "json", "--socket", &socket]);
        let events = Process::start(&run.topology.lb.namespace, "events", &mut follow).unwrap();
        let checked = Self {
            servers,
            events,
            run,
        };
        let text = fs::read_to_string(checked.run.weir.config()).unwrap();
        let (name, key) = ("name     = \"web-v4\"", "[[vip.backend]]");
        let (head, rest) = text.split_once(name).unwrap();
        let rest = rest.replacen(key, &format!("{}{key}", kind.section()), 1);
        let file = checked
            .run
            .lab
            .write("checked.toml", &format!("{head}{name}{rest}"))
            .unwrap();
        // Whoever listens late misses the beginning.
        eventually("the events to be followed", PATIENCE, || {
            checked.weir(&["drain", "web-v4", &checked.address(0)]);
            checked.weir(&["undrain", "web-v4", &checked.address(0)]);
            ensure!(!checked.events().is_empty(), "no event");
            Ok(())
        })
        .unwrap();
        checked.weir(&["apply", &file.display().to_string()]);
        checked.until("healthy backends", |vip| {
            (0..3).all(|at| vip["backends"][at]["health"]["state"] == "healthy")
        });
        checked
    }

    fn weir(&self, arguments: &[&str]) -> String {
        let said = self.run.weir.ask(arguments);
        said.unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn address(&self, backend: usize) -> String {
        self.run.topology.backends[backend]
            .address(VIP_V4)
            .to_string()
    }

    fn set(&self, mood: Mood) {
        self.servers[0].send(mood).unwrap();
    }

    fn vip(&self) -> Value {
        serde_json::from_str(&self.weir(&["vip", "show", "web-v4", "-o", "json"])).unwrap()
    }

    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, || {
            let vip = self.vip();
            ensure!(is_so(&vip), "{vip}");
            Ok(vip)
        })
        .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Waits for a verdict on the first backend, and sees to it that it does not come before its time.
    fn turns(&self, state: &str, after: u64) -> Value {
        let health = |vip: &Value| vip["backends"][0]["health"].clone();
        let vip = self.until(state, |vip| {
            let health = health(vip);
            let has_turned = health["state"] == state;
            let in_a_row = health["in_a_row"].as_u64().unwrap();
            // Not the first verdict, and as soon as there are so many.
            assert!(!has_turned || in_a_row >= after, "{vip}");
            has_turned
        });
        health(&vip)
    }

    /// The events so far.
    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.events.log()).unwrap();
        // A line may still be written.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// Waits until the events of these types about the first backend end so, with that state first.
    fn told(&self, types: &[&str], state: &str) -> Vec<Value> {
        let address = self.address(0);
        eventually(&format!("{types:?}"), PATIENCE, || {
            let own = self.events().into_iter().filter(|event| {
                let is_own = event["vip"] == "web-v4" && event["backend"] == *address;
                is_own && types.contains(&event["type"].as_str().unwrap())
            });
            let own: Vec<_> = own.collect();
            let last = own.get(own.len().saturating_sub(types.len())..);
            let last = last.unwrap_or_default().to_vec();
            let found = last.iter().map(|event| event["type"].as_str().unwrap());
            ensure!(found.eq(types.iter().copied()), "{own:?}");
            ensure!(last[0]["state"] == state, "{own:?}");
            Ok(last)
        })
        .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The samples of a metric that name the first backend.
    fn samples(&self, metric: &str) -> Vec<String> {
        let answer = self.run.weir.metrics().unwrap();
        let backend = format!("backend=\"{}\"", self.address(0));
        let lines = answer.text().lines();
        let lines = lines.filter(|line| line.starts_with(metric) && line.contains(&backend));
        lines.map(str::to_owned).collect()
    }
}

/// Real traffic leaves a backend whose server falls ill in each of these ways, and comes back when it is well.
fn follows(checked: &Checked, illnesses: &[(Mood, &str)]) {
    let names = checked.run.topology.backend_names();
    assert_eq!(checked.run.answering(300), names);
    for (round, (mood, reason)) in (1_u64..).zip(illnesses) {
        checked.set(*mood);
        let health = checked.turns("failed", FALL);
        let said = health["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
        assert_eq!(health["flaps"], 2 * round - 1, "{health}");
        // From the next table on, since nobody waits for the dead.
        checked.until("its slots to be others'", |vip| {
            vip["backends"][0]["slots"] == 0
        });
        assert_eq!(checked.run.answering(300), names[1..]);
        let list = checked.weir(&["backend", "list"]);
        let row = list.lines().find(|line| line.contains(&checked.address(0)));
        assert!(row.is_some_and(|row| row.contains("failed")), "{list}");

        checked.set(Mood::Well);
        let health = checked.turns("healthy", RISE);
        assert_eq!(health["flaps"], 2 * round, "{health}");
        eventually("traffic to be back", PATIENCE, || {
            ensure!(checked.run.answering(300) == names);
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn http_that_answers_500_or_nothing() {
    let checked = Checked::start(Kind::Http);
    let illnesses = [
        (Mood::Wrong, "the answer is 503 Service Unavailable"),
        (Mood::Silent, "no answer within 250ms"),
    ];
    follows(&checked, &illnesses);

    // One more fall, as events and metrics tell it.
    checked.set(Mood::Wrong);
    let told = checked.told(&["health"], "failed");
    assert_eq!(told[0]["reason"], "the answer is 503 Service Unavailable");
    let id = checked.vip()["backends"][0]["id"].clone();
    checked.set(Mood::Well);
    // It comes back under another id, and what is left of the dead one waits for its id to be free.
    let told = checked.told(&["health", "leaving"], "healthy");
    assert_eq!(told[0]["reason"], Value::Null);
    assert_eq!((&told[1]["id"], &told[1]["alive"]), (&id, &false.into()));
    let flaps = checked.samples("weir_health_flaps_total");
    assert!(flaps[0].ends_with(" 6"), "{flaps:?}");
    let failed = checked.vip()["backends"][0]["health"]["failed"]
        .as_u64()
        .unwrap();
    assert!(failed >= 2 * FALL, "{failed}");
    let results = checked.samples("weir_health_checks_total");
    assert_eq!(results.len(), 3, "{results:?}");
    // A backend that is gone leaves no series behind.
    let text = fs::read_to_string(checked.run.weir.config()).unwrap();
    let entry = format!(
        "[[vip.backend]]\naddress = \"{}\"\nweight  = 100\n",
        checked.address(0)
    );
    let file = checked
        .run
        .lab
        .write("less.toml", &text.replace(&entry, ""))
        .unwrap();
    checked.weir(&["apply", &file.display().to_string()]);
    for metric in [
        "weir_health_",
        "weir_backend_weight",
        "weir_backend_healthy",
    ] {
        assert_eq!(checked.samples(metric), Vec::<String>::new());
    }
    // But what it was sent, for as long as its last flows may be: in the VIP whose slots were at rest and now move, that is a minute.
    // Whether those of the other one move already depends on how long all this took.
    let mut counts = checked.samples("weir_backend_");
    counts.retain(|sample| sample.contains("vip=\"echo-v4\""));
    assert_eq!(counts.len(), 3, "{counts:?}");
}

#[test]
fn https_that_answers_500_or_cannot_shake_hands() {
    let checked = Checked::start(Kind::Https);
    let illnesses = [
        (Mood::Wrong, "the answer is 503 Service Unavailable"),
        (Mood::Garbage, "TLS: "),
    ];
    follows(&checked, &illnesses);
}

#[test]
fn grpc_that_does_not_serve_or_speaks_something_else() {
    let checked = Checked::start(Kind::Grpc);
    let illnesses = [
        (Mood::Wrong, "the answer is NOT_SERVING"),
        (Mood::Garbage, "ask: "),
    ];
    follows(&checked, &illnesses);
}
