//! The API over a real socket, with a fake daemon's task behind it.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
};

use lb_userspace::api::{
    self, Access, Command, Event, Handle, Socket, What,
    client::{Client, ClientError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{broadcast, oneshot},
    task::JoinHandle,
};

struct Server {
    client: Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

fn start(path: &Path, handle: Handle) -> Server {
    let socket = Socket::bind(path, Access::default()).unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(api::serve(socket, handle, async {
        stopped.await.ok();
    }));
    Server {
        client: Client::new(path),
        stop,
        task,
    }
}

async fn raw(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn answers_status_and_detach_and_removes_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/weir.sock");
    let server = start(&path, common::reconciler(common::status()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    assert_eq!(server.client.status().await.unwrap(), common::status());
    let detached = server.client.detach().await.unwrap();
    assert_eq!(
        (detached.interfaces.as_slice(), detached.pins),
        (["eth0".to_owned()].as_slice(), 9)
    );

    // The task has ended with the detach: the server says so until it is told to end too.
    let error = server.client.status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { status: 503, .. }),
        "{error}"
    );
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(!path.exists());
    let error = server.client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::Away { .. }), "{error}");
}

#[tokio::test]
async fn answers_what_it_does_not_know_with_json() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    let _server = start(&path, common::reconciler(common::status()));
    let close = "HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n";

    let answer = raw(&path, &format!("GET /v1/nothing {close}")).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("application/json"), "{answer}");
    assert!(answer.ends_with(r#"{"error":"no such path"}"#), "{answer}");
    let answer = raw(&path, &format!("GET /v1/detach {close}")).await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(answer.contains(r#"{"error":"#), "{answer}");
}

#[tokio::test]
async fn passes_on_why_a_detach_failed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    let (handle, mut commands) = Handle::channel();
    let server = start(&path, handle);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            if let Command::Detach(answer) = command {
                answer
                    .send(Err("eth0: device or resource busy".to_owned()))
                    .unwrap();
            }
        }
    });
    let error = server.client.detach().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the daemon answered 500: eth0: device or resource busy"
    );
}

#[tokio::test]
async fn replaces_only_a_socket_that_nobody_listens_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file behind");
    let living = Socket::bind(&path, Access::default()).unwrap();

    let error = Socket::bind(&path, Access::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    drop(living);
    assert!(!path.exists());

    fs::write(&path, "not a socket").unwrap();
    let error = Socket::bind(&path, Access::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a socket");
}

#[tokio::test]
async fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    let server = start(&path, common::reconciler(common::status()));
    let mut silent = UnixStream::connect(&path).await.unwrap();
    silent.write_all(b"GET /v1/sta").await.unwrap();
    server.client.status().await.unwrap();
    server.stop.send(()).unwrap();
    let end = tokio::time::timeout(std::time::Duration::from_secs(10), server.task);
    end.await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn events_come_in_order_and_a_slow_reader_is_told_what_it_missed() {
    const KEPT: u64 = 4;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    let (handle, mut commands) = Handle::channel();
    let server = start(&path, handle);
    tokio::spawn(async move {
        let sender = broadcast::Sender::new(KEPT as usize);
        while let Some(command) = commands.recv().await {
            let Command::Events(answer) = command else {
                panic!("nobody asks for that")
            };
            answer.send(sender.subscribe()).unwrap();
            // All of them before the reader has its turn.
            for slots in 1..=10 {
                let vip = "web".to_owned();
                sender
                    .send(Event::now(What::Moving { vip, slots }))
                    .unwrap();
            }
        }
    });
    let mut events = server.client.events().await.unwrap();
    let mut next = async || events.next().await.unwrap().unwrap().what;
    assert_eq!(next().await, What::Missed { events: 10 - KEPT });
    for slots in 7..=10 {
        let vip = "web".to_owned();
        assert_eq!(next().await, What::Moving { vip, slots });
    }
}

#[test]
fn field_names_are_stable() {
    let json = serde_json::to_value(common::status()).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let sorted = |names: &str| -> Vec<String> {
        let mut names: Vec<String> = names.split(' ').map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(
        keys(&json),
        sorted(
            "ready node version commit generation config interfaces vips reasons access maps pins marks_kept programs fleet agreement observed kubernetes \
             drained announcements announcement_counts overrides problems"
        )
    );
    assert_eq!(
        keys(&json["config"]),
        sorted("file applied by time refused")
    );
    assert_eq!(keys(&json["agreement"]), sorted("by error nodes vips"));
    assert_eq!(
        keys(&json["agreement"]["nodes"]),
        sorted("agrees differs unreachable")
    );
    assert_eq!(keys(&json["agreement"]["vips"][0]), sorted("vip nodes"));
    assert_eq!(
        keys(&json["observed"]),
        sorted("active watchers captured skipped")
    );
    assert_eq!(
        keys(&json["interfaces"][0]),
        sorted("name state ifindex mode foreign")
    );
    assert_eq!(
        keys(&json["vips"][0]),
        sorted(
            "id name address port protocol table table_digest packets bytes new_connections slots slot_moves seconds_left \
             pins fails_open limits announce backends leaving dropped"
        )
    );
    assert_eq!(
        keys(&json["vips"][0]["announce"]),
        sorted("by announced wanted reason min_healthy")
    );
    assert_eq!(
        keys(&json["announcements"][0]),
        sorted("address by on because vips")
    );
    assert_eq!(
        keys(&json["announcement_counts"][0]),
        sorted("op result count")
    );
    assert_eq!(
        keys(&json["vips"][0]["dropped"][0]),
        sorted("reason packets")
    );
    assert_eq!(keys(&json["programs"][0]), sorted("program runs seconds"));
    assert_eq!(
        keys(&json["vips"][0]["backends"][0]),
        sorted(
            "id address weight configured_weight drained forward slots healthy health pins empty packets_per_second \
             drain_seconds_left resolved mac mtu packets bytes new_connections"
        )
    );
    assert_eq!(
        keys(&json["vips"][0]["backends"][0]["health"]),
        sorted(
            "check port via state since reason flaps in_a_row last_time last_seconds last_error passed failed timed_out \
             not_asked"
        )
    );
    assert_eq!(json["vips"][0]["backends"][1]["health"]["state"], "failed");
    assert_eq!(keys(&json["reasons"][0]), sorted("reason verdict packets"));
    assert_eq!(keys(&json["maps"][0]), sorted("map entries max_entries"));
    assert_eq!(
        keys(&json["pins"][0]),
        sorted("kind made removed swept evicted failed over_budget")
    );
    assert_eq!(
        keys(&json["access"]),
        sorted("in_force blocks refused_files lists counts")
    );
    assert_eq!(
        keys(&json["access"]["lists"][0]),
        sorted("vip list prefixes file")
    );
    assert_eq!(
        keys(&json["access"]["counts"][0]),
        sorted("vip list result packets")
    );
    assert_eq!(json["interfaces"][0]["mode"], "generic");
    assert_eq!(json["vips"][0]["protocol"], "tcp");
    assert_eq!(json["vips"][0]["backends"][0]["forward"], "l2");
}
