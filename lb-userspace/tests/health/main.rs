//! Health checks of every type, against servers on the loopback interface that fall ill and get well.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test panics where it fails"
)]

mod server;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv6Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use lb_userspace::{
    config::Config,
    health::{Check, Health, Snapshot, State, Verdict},
};
use server::{Mood, Server};
use tokio::{sync::watch, time::timeout};

/// Far more than any of it takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// The check of a server by a `[vip.health]` section.
fn check(protocol: &str, section: &str, server: SocketAddr) -> Check {
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n[[vip]]\nname = \"web\"\naddress = \"203.0.113.10\"\n\
         port = {}\nprotocol = \"{protocol}\"\n[vip.health]\ninterval = \"200ms\"\nrise = 2\nfall = 2\n{section}\n",
        server.port()
    );
    let config = Config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}"));
    Check::new(config.vips[0].health.as_ref().unwrap(), server.ip())
}

struct Checker {
    check: Check,
    _health: Health,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Checker {
    fn new(check: Check) -> Self {
        let (health, snapshots) = Health::start().unwrap();
        health.watch(BTreeMap::from([(check.clone(), Verdict::Unknown)]));
        Self {
            check,
            _health: health,
            snapshots,
        }
    }

    async fn until(&mut self, verdict: Verdict) -> State {
        let is_so = |snapshot: &Arc<Snapshot>| snapshot.verdict(&self.check) == verdict;
        let waited = timeout(PATIENCE, self.snapshots.wait_for(is_so)).await;
        let found = waited.map(|snapshot| snapshot.unwrap().states[&self.check].clone());
        if let Ok(state) = found {
            return state;
        }
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let state = snapshot.states.get(&self.check);
        let results = state.map(|state| state.record.read());
        panic!("not {verdict:?}: {results:?}");
    }

    /// Healthy; then failed for each reason, and healthy again after each.
    async fn follows(&mut self, server: &mut Server, moods: &[(Mood, &str)]) {
        let state = self.until(Verdict::Healthy).await;
        assert_eq!(state.flaps, 0);
        for (round, (mood, reason)) in (1..).zip(moods) {
            server.set(*mood).await;
            let state = self.until(Verdict::Failed).await;
            let said = state.reason.unwrap();
            assert!(said.contains(reason), "{said}");
            server.set(Mood::Well).await;
            let state = self.until(Verdict::Healthy).await;
            assert_eq!((state.flaps, state.reason), (2 * round, None));
        }
        let results = self.snapshots.borrow().states[&self.check].record.read();
        let rounds = moods.len() as u64;
        assert!(results.passed > 2 * rounds, "{results:?}");
        assert!(
            results.failed + results.timed_out >= 2 * rounds,
            "{results:?}"
        );
        assert_eq!((results.not_asked, results.last_error), (0, None));
    }
}

const REFUSED: (Mood, &str) = (Mood::Gone, "connection refused");
const SILENT: (Mood, &str) = (Mood::Silent, "no answer within 200ms");

#[tokio::test]
async fn tcp() {
    let mut server = Server::tcp().await;
    let check = check("tcp", "type = \"tcp\"", server.address());
    Checker::new(check).follows(&mut server, &[REFUSED]).await;
}

#[tokio::test]
async fn http() {
    let mut server = Server::http().await;
    let section = "type = \"http\"\npath = \"/healthz?deep=1\"\nexpect_status = \"200, 204\"";
    let check = check("tcp", section, server.address());
    let moods = [
        (Mood::Wrong, "the answer is 503 Service Unavailable"),
        SILENT,
        (Mood::Garbage, "ask: "),
        (Mood::BreaksOff, "read the answer: "),
        REFUSED,
    ];
    Checker::new(check).follows(&mut server, &moods).await;
    assert_eq!(server.asked(), ["GET /healthz?deep=1 203.0.113.10"]);
}

#[tokio::test]
async fn https() {
    let mut server = Server::https(server::tls()).await;
    let section = "type = \"https\"\nhost = \"www.example.com:8443\"\nexpect_status = \"200-299\"";
    let check = check("tcp", section, server.address());
    let moods = [
        (Mood::Wrong, "the answer is 503 Service Unavailable"),
        SILENT,
        (Mood::Garbage, "TLS: "),
        REFUSED,
    ];
    Checker::new(check).follows(&mut server, &moods).await;
    assert_eq!(server.asked(), ["GET / www.example.com:8443"]);
    assert_eq!(server.names(), ["www.example.com"]);
}

/// Where the test below finds the certificate and key that it made for itself.
const CERTIFICATE: &str = "WEIR_TEST_CERTIFICATE";

/// Roots are those of the process, so this runs itself again as one that trusts a certificate of its own.
#[tokio::test]
async fn https_verified() {
    if let Some(folder) = std::env::var_os(CERTIFICATE) {
        return verify(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["www.example.com".to_owned()]).unwrap();
    let pem = folder.path().join("certificate.pem");
    fs::write(&pem, signed.cert.pem()).unwrap();
    fs::write(folder.path().join("certificate"), signed.cert.der()).unwrap();
    fs::write(
        folder.path().join("key"),
        signed.signing_key.serialize_der(),
    )
    .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "https_verified", "--nocapture"])
        .env(CERTIFICATE, folder.path())
        .env("SSL_CERT_FILE", &pem)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

async fn verify(folder: &Path) {
    let read = |name| fs::read(folder.join(name)).unwrap();
    let trusted = || server::tls_with(read("certificate").into(), read("key"));
    let section = |host| format!("type = \"https\"\ntls_verify = true\nhost = \"{host}\"");
    let server = Server::https(trusted()).await;
    let good = check("tcp", &section("www.example.com"), server.address());
    Checker::new(good).until(Verdict::Healthy).await;
    let other_name = check("tcp", &section("example.com"), server.address());
    let state = Checker::new(other_name).until(Verdict::Failed).await;
    let reason = state.reason.unwrap();
    assert!(reason.contains("not valid for name"), "{reason}");

    let stranger = Server::https(server::tls()).await;
    let section = section("somebody.example.net");
    let unknown = check("tcp", &section, stranger.address());
    let state = Checker::new(unknown).until(Verdict::Failed).await;
    let reason = state.reason.unwrap();
    // The stranger's has the same issuer's name on it, by another key.
    assert!(reason.contains("BadSignature"), "{reason}");
}

#[tokio::test]
async fn grpc() {
    let mut server = Server::grpc(None).await;
    let section = format!("type = \"grpc\"\nservice = \"{}\"", server::SERVICE);
    let check = check("tcp", &section, server.address());
    let moods = [
        (Mood::Wrong, "the answer is NOT_SERVING"),
        SILENT,
        (Mood::Garbage, "ask: "),
        REFUSED,
    ];
    Checker::new(check).follows(&mut server, &moods).await;
}

#[tokio::test]
async fn grpc_over_tls() {
    let mut server = Server::grpc(Some(server::tls())).await;
    let check = check("tcp", "type = \"grpc\"\ntls = true", server.address());
    Checker::new(check)
        .follows(&mut server, &[(Mood::Garbage, "TLS: "), REFUSED])
        .await;
}

#[tokio::test]
async fn grpc_of_a_service_that_the_server_does_not_know() {
    let server = Server::grpc(None).await;
    let section = "type = \"grpc\"\nservice = \"shop.v1.Carts\"";
    let state = Checker::new(check("tcp", section, server.address()))
        .until(Verdict::Failed)
        .await;
    let reason = state.reason.unwrap();
    assert_eq!(&*reason, "the server does not know \"shop.v1.Carts\"");
}

#[tokio::test]
async fn udp() {
    let mut server = Server::udp(|question| {
        assert_eq!(question, b"PING");
        b"PONG 1".to_vec()
    })
    .await;
    let section = "type = \"udp\"\nsend = \"PING\"\nexpect = \"hex:504f4e47\"";
    let check = check("udp", section, server.address());
    let moods = [
        (
            Mood::Wrong,
            "the answer begins with \"\\xff\\xff\\xff\\xff\", not \"PONG\"",
        ),
        SILENT,
        REFUSED,
    ];
    Checker::new(check).follows(&mut server, &moods).await;
}

#[tokio::test]
async fn udp_over_ipv6() {
    let answerer = |question: &[u8]| question.to_vec();
    let server = Server::udp(answerer).await;
    let mut server = server.moved_to((Ipv6Addr::LOCALHOST, 0).into()).await;
    let section = "type = \"udp\"\nsend = \"PING\"";
    let check = check("udp", section, server.address());
    Checker::new(check).follows(&mut server, &[REFUSED]).await;
}

#[tokio::test]
async fn dns_over_udp() {
    let mut server = Server::udp(|question| server::dns_answer(question, "example.com.")).await;
    let section = "type = \"dns\"\nquery = \"example.com\"";
    let check = check("udp", section, server.address());
    let moods = [(Mood::Wrong, "read the answer: "), SILENT, REFUSED];
    Checker::new(check).follows(&mut server, &moods).await;
}

#[tokio::test]
async fn dns_over_tcp() {
    let mut server = Server::dns_tcp("example.com.").await;
    let section = "type = \"dns\"\nquery = \"example.com\"";
    let check = check("tcp", section, server.address());
    let moods = [(Mood::Wrong, "read the answer: "), SILENT, REFUSED];
    Checker::new(check).follows(&mut server, &moods).await;
}

#[tokio::test]
async fn dns_of_a_name_that_the_server_does_not_know() {
    let server = Server::udp(|question| server::dns_answer(question, "example.com.")).await;
    let section = "type = \"dns\"\nquery = \"example.net\"";
    let state = Checker::new(check("udp", section, server.address()))
        .until(Verdict::Failed)
        .await;
    assert_eq!(&*state.reason.unwrap(), "the answer is Non-Existent Domain");
}

#[tokio::test]
async fn a_change_of_one_backend_leaves_the_others_alone() {
    let mut servers = Vec::new();
    for _ in 0..20 {
        servers.push(Server::tcp().await);
    }
    let of = |server: &Server| check("tcp", "type = \"tcp\"", server.address());
    let checks: Vec<Check> = servers.iter().map(of).collect();
    let (health, mut snapshots) = Health::start().unwrap();
    let unknown = checks.iter().map(|check| (check.clone(), Verdict::Unknown));
    health.watch(unknown.collect());
    let all = |snapshot: &Arc<Snapshot>, failed: usize| {
        let verdict = |index| match index {
            _ if index < failed => Verdict::Failed,
            _ => Verdict::Healthy,
        };
        let mut pairs = checks.iter().enumerate();
        pairs.all(|(index, check)| snapshot.verdict(check) == verdict(index))
    };
    let healthy = timeout(PATIENCE, snapshots.wait_for(|snapshot| all(snapshot, 0)));
    drop(healthy.await.unwrap().unwrap());
    servers[0].set(Mood::Gone).await;
    let failed = timeout(PATIENCE, snapshots.wait_for(|snapshot| all(snapshot, 1)));
    drop(failed.await.unwrap().unwrap());
}
