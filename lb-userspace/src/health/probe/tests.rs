use std::{net::Ipv4Addr, sync::Mutex};

use tokio::net::TcpListener;

use super::*;
use crate::config::ForwardMode;

#[test]
fn what_this_node_lacks_is_no_failure_of_the_backend() {
    let of = |errno: Errno| failure("connect", &io::Error::from(errno));
    assert_eq!(
        of(Errno::CONNREFUSED),
        Failure::Failed("connect: connection refused".to_owned())
    );
    for errno in [Errno::MFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL] {
        assert!(matches!(of(errno), Failure::NotAsked(_)), "{errno}");
    }
}

/// A way for probes that is no way of its own: what is sent to the VIP goes to whoever holds it here.
#[derive(Debug, Default)]
struct Way {
    aimed: Mutex<Vec<(IpAddr, Through)>>,
    deafness: Option<String>,
}

impl Forwarding for Way {
    fn aim(&self, vip: IpAddr, through: Through) -> BoxFuture<'_, Result<Aim, Failure>> {
        self.aimed.lock().unwrap().push((vip, through));
        Box::pin(async {
            Ok(Aim {
                mark: None,
                source: Some(Ipv4Addr::new(127, 0, 0, 9).into()),
            })
        })
    }

    fn deafness(&self, _: IpAddr, _: Through) -> BoxFuture<'_, Option<String>> {
        let deafness = self.deafness.clone();
        Box::pin(async { deafness })
    }
}

const VIP: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const BACKEND: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 2);
const TIMEOUT: Duration = Duration::from_millis(400);

/// Who listens on both addresses; those of nobody refuse.
struct Lab {
    way: Arc<Way>,
    check: Check,
    vip: Option<TcpListener>,
    backend: Option<TcpListener>,
}

impl Lab {
    async fn new(deafness: Option<String>, probe: Probe) -> Self {
        let vip = TcpListener::bind((VIP, 0)).await.unwrap();
        let port = vip.local_addr().unwrap().port();
        let backend = TcpListener::bind((BACKEND, port)).await.unwrap();
        let through = Through {
            backend: BACKEND.into(),
            forward: ForwardMode::L2,
        };
        Self {
            way: Arc::new(Way {
                deafness,
                ..Way::default()
            }),
            check: Check {
                target: (VIP, port).into(),
                through: Some(through),
                probe,
                interval: TIMEOUT,
                timeout: TIMEOUT,
                rise: 2,
                fall: 2,
            },
            vip: Some(vip),
            backend: Some(backend),
        }
    }

    async fn probe(&self) -> Result<(), Failure> {
        let way = Arc::clone(&self.way);
        let sockets = Sockets::over(way);
        sockets.probe(&self.check).await
    }

    async fn says(&self) -> String {
        self.probe().await.unwrap_err().to_string()
    }
}

/// Connects and then says nothing: by its first question, whoever only listens is silent.
fn http() -> Probe {
    let text = "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n[[vip]]\nname = \"web\"\naddress = \"203.0.113.1\"\n\
                port = 80\nprotocol = \"tcp\"\nhealth = { type = \"http\" }\n";
    let mut config = crate::config::Config::parse(text, "f").unwrap();
    config.vips.remove(0).health.unwrap().probe
}

#[tokio::test]
async fn the_vip_is_asked_from_where_the_way_says_and_nobody_else() {
    let lab = Lab::new(None, Probe::Tcp).await;
    lab.probe().await.unwrap();
    let (_, from) = lab.vip.as_ref().unwrap().accept().await.unwrap();
    assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 9]));
    let unasked = timeout(
        Duration::from_millis(20),
        lab.backend.as_ref().unwrap().accept(),
    );
    assert!(unasked.await.is_err(), "the backend itself was asked");
    let aimed = lab.way.aimed.lock().unwrap().clone();
    assert_eq!(aimed, [(VIP.into(), lab.check.through.unwrap())]);
}

#[tokio::test]
async fn who_serves_at_its_own_address_alone_does_not_accept_the_vip() {
    let mut lab = Lab::new(None, Probe::Tcp).await;
    lab.vip = None;
    let itself = lab.check.backend();
    assert_eq!(
        lab.says().await,
        format!(
            "does not accept the VIP: connect: connection refused, while {itself} answers as it should"
        )
    );
}

#[tokio::test]
async fn who_serves_nowhere_is_down() {
    let mut lab = Lab::new(None, Probe::Tcp).await;
    (lab.vip, lab.backend) = (None, None);
    assert_eq!(lab.says().await, "connect: connection refused");
    // Silent for the VIP and gone at its own address: both are told, within the time of one probe.
    let mut lab = Lab::new(None, http()).await;
    lab.backend = None;
    let began = Instant::now();
    let itself = lab.check.backend();
    let said = lab.says().await;
    assert_eq!(
        said,
        format!("no answer within 400ms; {itself} itself: connect: connection refused")
    );
    assert!(began.elapsed() < 2 * TIMEOUT);
}

#[tokio::test]
async fn who_serves_is_not_blamed_for_what_this_node_throws_away() {
    for (deafness, wanted) in [
        (
            None,
            "does not accept the VIP: no answer within 400ms, while ",
        ),
        (Some("rp_filter".to_owned()), "not asked: rp_filter"),
    ] {
        let lab = Lab::new(deafness, http()).await;
        let serve = async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = lab.backend.as_ref().unwrap().accept().await.unwrap();
            let mut question = [0; 1024];
            assert!(stream.read(&mut question).await.unwrap() > 0);
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        };
        let (said, ()) = tokio::join!(lab.says(), serve);
        assert!(said.starts_with(wanted), "{said}");
    }
}
