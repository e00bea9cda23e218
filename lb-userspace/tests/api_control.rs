//! The API's paths that change something, as bytes on the socket: what is sent wrongly is refused with a clear text
//! and never reaches the daemon's task.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    sync::{Arc, Mutex},
};

use lb_userspace::api::{
    self, Access, Actor, Base, Change, Changed, Command, Handle, Refusal, Socket, Target,
    client::{Client, ClientError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// A served socket, and what came to the daemon's task.
struct Daemon {
    path: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
}

impl Daemon {
    fn start(access: Access) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Other users are to reach the socket.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("weir.sock");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (handle, mut commands) = Handle::channel();
        let socket = Socket::bind(&path, access).unwrap();
        tokio::spawn(api::serve(socket, handle, std::future::pending()));
        let task = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Generation(answer) => answer.send(7).unwrap(),
                    Command::Change(request, answer) => {
                        let Actor::User { uid, .. } = request.by else {
                            panic!("{:?} came by the API", request.by);
                        };
                        let told = match &request.change {
                            Change::Apply(apply) => format!("apply {}", apply.file.display()),
                            other => format!("{other:?}"),
                        };
                        task.lock()
                            .unwrap()
                            .push(format!("{uid} {:?} {told}", request.base));
                        let result = match request.base {
                            Base::Generation(base) if base != 7 => {
                                Err(Refusal::Stale { base, now: 7 })
                            }
                            Base::Any | Base::Generation(_) => Ok(Changed {
                                changed: true,
                                generation: 8,
                            }),
                        };
                        answer.send(result).unwrap();
                    }
                    other => panic!("nobody asks for {other:?}"),
                }
            }
        });
        Self {
            path,
            asked,
            _directory: directory,
        }
    }

    /// Status line and body of an answer.
    async fn send(&self, request: &str, headers: &str, body: &str) -> (String, String) {
        let text = format!(
            "{request} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        // The server may answer, and close, before it has read all.
        stream.write_all(text.as_bytes()).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.lines().next().unwrap().trim_start_matches("HTTP/1.1 ");
        (status.to_owned(), body.to_owned())
    }

    /// Each request (with headers and body) gets a status and a text, and none comes to the daemon's task.
    async fn refuses(&self, requests: &[(&str, &str, &str, &str, &str)]) {
        for &(request, headers, body, status, text) in requests {
            let (got, answer) = self.send(request, headers, body).await;
            let start: String = body.chars().take(40).collect();
            assert!(
                got.starts_with(status),
                "{request} {headers} {start}: {got} {answer}"
            );
            assert!(
                answer.contains(text),
                "{request} {headers} {start}: {answer}"
            );
            let error: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert!(
                error.get("error").is_some_and(serde_json::Value::is_string),
                "{answer}"
            );
        }
        assert_eq!(self.asked(), Vec::<String>::new());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

const WEIGHT: &str = "PUT /v1/vips/web/backends/10.0.0.11/weight";
const DRAIN: &str = "PUT /v1/vips/web/backends/10.0.0.11/drain";
const CONFIG: &str = "PUT /v1/config";
const MATCH: &str = "If-Match: \"7\"\r\n";

#[tokio::test]
async fn what_is_put_wrongly_is_refused_and_goes_no_further() {
    let daemon = Daemon::start(Access::default());
    let deep = "[".repeat(100_000);
    daemon
        .refuses(&[
            (WEIGHT, MATCH, "", "400", "the JSON that this path takes"),
            (WEIGHT, MATCH, "{", "400", "EOF while parsing"),
            (WEIGHT, MATCH, "{}", "400", "missing field `weight`"),
            (WEIGHT, MATCH, r#"{"weight":-1}"#, "400", "u16"),
            (WEIGHT, MATCH, r#"{"weight":65536}"#, "400", "u16"),
            (
                WEIGHT,
                MATCH,
                r#"{"weight":1,"more":2}"#,
                "400",
                "unknown field `more`",
            ),
            (
                WEIGHT,
                MATCH,
                "\u{1}\u{2}",
                "400",
                "the JSON that this path takes",
            ),
            (
                WEIGHT,
                MATCH,
                &" ".repeat(5000),
                "413",
                "larger than 4096 bytes",
            ),
            (WEIGHT, "", r#"{"weight":1}"#, "428", "If-Match"),
            (
                WEIGHT,
                "If-Match: W/x\r\n",
                r#"{"weight":1}"#,
                "400",
                "wanted a generation",
            ),
            (
                WEIGHT,
                "If-Match: \"-7\"\r\n",
                r#"{"weight":1}"#,
                "400",
                "wanted a generation",
            ),
            ("GET /v1/flows?limit=many", "", "", "400", "limit"),
            ("GET /v1/flows?backend=web", "", "", "400", "backend"),
            (
                "GET /v1/flows?client=1",
                "",
                "",
                "400",
                "unknown field `client`",
            ),
            (CONFIG, MATCH, &deep, "400", "the JSON that this path takes"),
            (
                CONFIG,
                MATCH,
                r#"{"file":"x","text":""}"#,
                "400",
                "must be absolute",
            ),
            (
                CONFIG,
                MATCH,
                r#"{"file":"/x","text":""}"#,
                "422",
                "/x:1:1: node: found nothing",
            ),
        ])
        .await;
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_refused_and_go_no_further() {
    let daemon = Daemon::start(Access::default());
    daemon
        .refuses(&[
            (
                "PUT /v1/vips/web/backends/nobody/drain",
                MATCH,
                "",
                "400",
                "where the address of a backend is wanted",
            ),
            ("PUT /v1/vips/web/backends/%ff/drain", MATCH, "", "400", ""),
            (
                "PUT /v1/backends/10.0.0.256/drain",
                MATCH,
                "",
                "400",
                "where the address of a backend is wanted",
            ),
            (
                "POST /v1/backends/10.0.0.1/drain",
                MATCH,
                "",
                "405",
                "no such method",
            ),
            (
                "PUT /v1/backend/10.0.0.1/drain",
                MATCH,
                "",
                "404",
                "no such path",
            ),
            (DRAIN, "", "", "428", "GET /v1/generation"),
        ])
        .await;
}

#[tokio::test]
async fn a_huge_body_is_refused_before_it_is_read() {
    let daemon = Daemon::start(Access::default());
    // More than there is: the length alone is enough to refuse it.
    let text =
        format!("{CONFIG} HTTP/1.1\r\nHost: weir\r\n{MATCH}Content-Length: 99999999999\r\n\r\n{{");
    let mut stream = UnixStream::connect(&daemon.path).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");

    // And one that does not tell its length.
    let mut stream = UnixStream::connect(&daemon.path).await.unwrap();
    let head =
        format!("{CONFIG} HTTP/1.1\r\nHost: weir\r\n{MATCH}Transfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move {
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    let mut answer = vec![0; 12];
    reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    drop(reader);
    flood.await.unwrap();
    assert_eq!(daemon.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn changes_come_through_with_who_and_on_what() {
    let daemon = Daemon::start(Access::default());
    let client = Client::new(&daemon.path);
    assert_eq!(client.generation().await.unwrap(), 7);
    let address = "2001:db8::11".parse().unwrap();
    let of_vip = Target::OfVip("web".to_owned(), address);
    let done = client
        .drain(Base::Generation(7), &of_vip, true)
        .await
        .unwrap();
    assert_eq!((done.changed, done.generation), (true, 8));
    client
        .drain(Base::Any, &Target::OfAll(address), false)
        .await
        .unwrap();
    client
        .weight(Base::Any, "a b/../%", address, Some(3))
        .await
        .unwrap();
    client
        .weight(Base::Any, "web", address, None)
        .await
        .unwrap();
    let error = client
        .drain(Base::Generation(6), &of_vip, true)
        .await
        .unwrap_err();
    let ClientError::Refused {
        status: 412,
        message,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(
        message.contains("generation 6, and the daemon is at 7"),
        "{message}"
    );
    client.drain_node(Base::Generation(7), true).await.unwrap();
    let asked = daemon.asked();
    assert!(asked.iter().all(|line| line.starts_with("0 ")), "{asked:?}");
    assert_eq!(
        asked[0],
        "0 Generation(7) Drain(OfVip(\"web\", 2001:db8::11), true)"
    );
    assert_eq!(asked[1], "0 Any Drain(OfAll(2001:db8::11), false)");
    assert_eq!(
        asked[2],
        "0 Any Weight(\"a b/../%\", 2001:db8::11, Some(3))"
    );
    assert_eq!(asked[5], "0 Generation(7) DrainNode(true)");
    assert_eq!(asked.len(), 6);
}

/// Runs `weir` with the rights of another user: exit code and standard error.
fn as_user(daemon: &Daemon, groups: &str, arguments: &[&str]) -> (i32, String) {
    // Where it was built need not be open to others.
    let binary = daemon.path.with_file_name("weir");
    if !binary.exists() {
        fs::copy(env!("CARGO_BIN_EXE_weir"), &binary).unwrap();
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Process::new("setpriv");
    command.args(["--reuid=54321", "--regid=54321", groups]);
    command.arg(binary).args(arguments);
    command.arg("--socket").arg(&daemon.path);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_read_admins_change_and_others_do_neither() {
    let access = Access {
        readers: Some(54_400),
        admins: Some(54_500),
    };
    let daemon = Daemon::start(access);
    let metadata = fs::metadata(&daemon.path).unwrap();
    assert_eq!((metadata.gid(), metadata.mode() & 0o777), (54_400, 0o660));
    let drain = ["drain", "web", "10.0.0.11"];
    let apply = ["apply", "/dev/null"];

    // The socket's own mode keeps strangers out.
    let (code, said) = as_user(&daemon, "--clear-groups", &drain);
    assert_eq!(code, 1);
    assert!(said.contains("as a member of the socket's group"), "{said}");
    // Where somebody has opened it, the kernel still tells who they are.
    fs::set_permissions(&daemon.path, Permissions::from_mode(0o666)).unwrap();
    let (code, said) = as_user(&daemon, "--clear-groups", &drain);
    assert_eq!(code, 1);
    assert!(
        said.contains("403") && said.contains("user 54321 may not read"),
        "{said}"
    );

    // A reader gets as far as the question what there is, and no further.
    for verb in [&drain[..], &["undrain", "--all", "10.0.0.11"], &["detach"]] {
        let (code, said) = as_user(&daemon, "--groups=54400", verb);
        assert_eq!(code, 1, "{verb:?}");
        assert!(
            said.contains("403") && said.contains("`api_admin_group`"),
            "{said}"
        );
    }
    let (code, said) = as_user(&daemon, "--groups=54400", &apply);
    assert_eq!(code, 1, "{said}");
    assert_eq!(daemon.asked(), Vec::<String>::new());

    let (code, said) = as_user(&daemon, "--groups=54400,54500", &drain);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("takes no new flows (generation 8)"), "{said}");
    let asked = daemon.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("54321 Generation(7) "), "{asked:?}");
}

/// `WEIR_UPDATE_DOCS=1 cargo test -p lb-userspace --test api_control` writes the page anew.
#[test]
fn the_committed_openapi_document_is_the_types_own() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let made = serde_json::to_string_pretty(&api::document()).unwrap() + "\n";
    if std::env::var_os("WEIR_UPDATE_DOCS").is_some() {
        fs::write(&page, &made).unwrap();
    }
    let text = fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(
        text, made,
        "docs/openapi.json is old: WEIR_UPDATE_DOCS=1 cargo test -p lb-userspace --test api_control"
    );
}

#[tokio::test]
async fn what_the_document_promises_is_served() {
    let daemon = Daemon::start(Access::default());
    let (status, body) = daemon.send("GET /v1/openapi.json", "", "").await;
    assert!(status.starts_with("200"), "{status}");
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    let mut served = 0;
    for (path, calls) in document["paths"].as_object().unwrap() {
        let path = path.replace("{vip}", "web").replace("{backend}", "nobody");
        for method in calls.as_object().unwrap().keys() {
            // Those would wait for the daemon's task, or end it.
            if method == "get" || path == "/v1/detach" {
                continue;
            }
            let request = format!("{} {path}", method.to_uppercase());
            let (status, answer) = daemon.send(&request, MATCH, "").await;
            // All but those that need no more than their path lack something.
            let wanted = if path == "/v1/node/drain" || path.ends_with("/announcement") {
                "200"
            } else {
                "400"
            };
            assert!(status.starts_with(wanted), "{request}: {status} {answer}");
            served += 1;
        }
    }
    assert_eq!(served, 14);
    let names = document["components"]["schemas"]["Status"]["properties"].as_object();
    assert!(names.unwrap().contains_key("generation"));
}
