//! Announcements: by command, over restarts and reloads, and by owner.

use std::collections::BTreeMap;

use lb_common::{flow::Address, tables::Tables, vip::flags::ANNOUNCE_L2};

use super::*;
use crate::announce::Because;
#[cfg(feature = "kubernetes")]
use crate::{
    announce::{Owned, TERM},
    api::KubernetesStatus,
};

const ADDRESS: Address = Address::from_v4([203, 0, 113, 10]);

/// Two VIPs of one address that are announced, and `more` keys of both.
fn announced(node: &Node, more: &str) -> String {
    let text = node.text("");
    let key = "protocol = \"tcp\"\n";
    text.replace(key, &format!("{key}announce = \"l2\"\n{more}"))
}

fn announce(vip: &str, is_on: bool) -> Change {
    Change::Announce(vip.to_owned(), is_on)
}

/// Whether the data plane answers for the VIPs' address.
fn answers(plane: &Memory) -> bool {
    let vip = Tables::vips(plane).unwrap().find_address(ADDRESS).unwrap();
    vip.flags & ANNOUNCE_L2 != 0
}

impl Running {
    /// Whether the address is announced, and why.
    async fn stands(&self) -> (bool, Because) {
        let status = self.status().await;
        let stands = &status.announcements[0];
        assert_eq!(stands.vips, ["web", "tls"]);
        let announced = |vip: &VipStatus| vip.announce.as_ref().map(|announce| announce.announced);
        assert!(
            status
                .vips
                .iter()
                .all(|vip| announced(vip) == Some(stands.on))
        );
        (stands.on, stands.because)
    }
}

#[tokio::test]
async fn the_last_command_holds_over_restarts_and_acts_on_every_vip_of_the_address() {
    let node = Node::new();
    let text = announced(&node, "");
    let running = node.start(&text).await;
    assert_eq!(running.stands().await, (true, Because::Start));
    let done = running.change(Base::Generation(1), announce("tls", false));
    assert_eq!(
        done.await.unwrap(),
        Changed {
            changed: true,
            generation: 2
        }
    );
    assert_eq!(running.stands().await, (false, Because::Command));
    let done = running.change(Base::Any, announce("web", false)).await;
    assert!(!done.unwrap().changed);
    assert!(!answers(&running.end().await));

    let running = node.start(&text).await;
    assert_eq!(running.stands().await, (false, Because::Command));
    running
        .change(Base::Any, announce("web", true))
        .await
        .unwrap();
    assert_eq!(running.stands().await, (true, Because::Command));
    // What the configuration says of the start counts for nothing any more.
    let silent = announced(&node, "announce_at_start = false\n");
    running.apply(Base::Any, &silent, false).await.unwrap();
    assert_eq!(running.stands().await, (true, Because::Command));
    assert!(answers(&running.end().await));
}

#[tokio::test]
async fn an_address_that_begins_silent_waits_for_a_command() {
    let node = Node::new();
    let text = announced(&node, "announce_at_start = false\n");
    let running = node.start(&text).await;
    assert_eq!(running.stands().await, (false, Because::Start));
    assert!(!answers(&running.end().await));
    let running = node.start(&text).await;
    running
        .change(Base::Any, announce("web", true))
        .await
        .unwrap();
    assert!(answers(&running.end().await));
}

#[tokio::test]
async fn what_is_not_announced_at_all_takes_no_command() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    let refusal = running.change(Base::Any, announce("web", true)).await;
    let text = refusal.unwrap_err().to_string();
    assert!(text.contains("add `announce = \"l2\"`"), "{text}");
    let refusal = running.change(Base::Any, announce("nobody", true)).await;
    assert!(matches!(refusal, Err(Refusal::Unknown(_))));
    let status = running.status().await;
    assert_eq!((status.announcements, status.generation), (vec![], 1));
}

#[cfg(feature = "kubernetes")]
const SERVICE: &str = "203.0.113.20";

/// A node with a Service, which says what it owns.
#[cfg(feature = "kubernetes")]
struct Owning {
    reconciler: Reconciler<Memory>,
    owned: watch::Sender<Owned>,
    willing: watch::Receiver<bool>,
    /// Tells of the network, as long as it is there.
    network: watch::Sender<Arc<Snapshot>>,
    _status: watch::Sender<KubernetesStatus>,
}

#[cfg(feature = "kubernetes")]
impl Owning {
    async fn start(node: &Node) -> Self {
        let text = node.text("");
        let config = Config::parse(&text, "weir.toml").unwrap();
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        let snapshot = snapshots.wait_for(|snapshot| !snapshot.links.is_empty());
        let snapshot = Arc::clone(&*snapshot.await.unwrap());
        let (network, snapshots) = watch::channel(snapshot);
        let (plane, past) = (Memory::default(), Past::Kept);
        let mut reconciler =
            Reconciler::new(config, &node.file(), plane, past, neighbours, snapshots).unwrap();
        let (status, told) = watch::channel(KubernetesStatus::default());
        let (owned, receiver) = watch::channel(Owned::default());
        let vips = [("a.b.80-tcp", SERVICE, 21)];
        let vips = services::services(&text, &vips, "announce = \"l2\"\n");
        let (_, willing) = reconciler.begin_with(vips, (told, receiver));
        reconciler.start().await.unwrap();
        Self {
            reconciler,
            owned,
            willing,
            network,
            _status: status,
        }
    }

    /// Goes on until the Service is announced.
    async fn announces(&mut self, commands: &mut mpsc::Receiver<Command>) {
        self.owned.send_replace(own(Duration::from_mins(1)));
        let deadline = Instant::now() + PATIENCE;
        while !self.reconciler.segments.is_owner() {
            assert!(Instant::now() < deadline, "not announced");
            let run = self.reconciler.run(commands);
            let ended = tokio::time::timeout(Duration::from_millis(20), run).await;
            assert!(ended.is_err());
        }
    }
}

/// The Service is owned for so long.
#[cfg(feature = "kubernetes")]
fn own(left: Duration) -> Owned {
    let until = Instant::now() + left;
    Owned {
        until: BTreeMap::from([(SERVICE.parse().unwrap(), until)]),
        is_given_away: false,
    }
}

#[cfg(feature = "kubernetes")]
#[tokio::test]
async fn a_daemon_that_ends_goes_on_until_others_have_its_share() {
    let node = Node::new();
    let mut owning = Owning::start(&node).await;
    let (_handle, mut commands) = Handle::channel();
    owning.announces(&mut commands).await;
    assert!(*owning.willing.borrow());
    assert_eq!(owning.reconciler.leave(), Some(TERM));
    assert!(!*owning.willing.borrow());
    // For as long as nobody says that it is another's.
    let run = owning.reconciler.run(&mut commands);
    let ended = tokio::time::timeout(Duration::from_millis(200), run).await;
    assert!(ended.is_err());
    assert!(owning.reconciler.segments.is_owner());
    owning.owned.send_replace(Owned::default());
    let run = owning.reconciler.run(&mut commands);
    let ended = tokio::time::timeout(TERM / 2, run).await;
    assert!(matches!(ended, Ok(End::Left)), "{ended:?}");
}

#[cfg(feature = "kubernetes")]
#[tokio::test]
async fn who_no_longer_follows_the_network_announces_no_service_and_takes_no_share() {
    let node = Node::new();
    let mut owning = Owning::start(&node).await;
    let (handle, mut commands) = Handle::channel();
    owning.announces(&mut commands).await;
    let Owning {
        mut reconciler,
        willing,
        network,
        owned: _owned,
        _status,
    } = owning;
    let task = tokio::spawn(async move {
        reconciler.run(&mut commands).await;
        reconciler.plane
    });
    let running = Running { handle, task };
    assert!(running.status().await.announcements[0].on);
    drop(network);
    let deadline = Instant::now() + PATIENCE;
    while *willing.borrow() {
        assert!(Instant::now() < deadline, "still willing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = running.status().await;
    assert!(!status.announcements[0].on);
    let is_told = |text: &String| text.contains("the network is no longer watched");
    assert!(status.problems.iter().any(is_told), "{:?}", status.problems);
    // Nor after a command that decides anew who announces.
    for is_drained in [true, false] {
        running
            .change(Base::Any, Change::DrainNode(is_drained))
            .await
            .unwrap();
        assert!(!*willing.borrow());
    }
    running.end().await;
}

#[cfg(feature = "kubernetes")]
#[tokio::test]
async fn a_service_is_announced_while_it_is_owned_and_not_a_moment_longer() {
    let node = Node::new();
    let owning = Owning::start(&node).await;
    let (mut reconciler, owned, _network) = (owning.reconciler, owning.owned, owning.network);
    let (handle, mut commands) = Handle::channel();
    let task = tokio::spawn(async move {
        reconciler.run(&mut commands).await;
        reconciler.plane
    });
    let running = Running { handle, task };
    let is_on = async || running.status().await.announcements[0].on;
    let comes_to = async |wanted: bool| {
        let deadline = Instant::now() + PATIENCE;
        while is_on().await != wanted {
            assert!(Instant::now() < deadline, "still not {wanted}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(!is_on().await);
    let refusal = running
        .change(Base::Any, announce("a.b.80-tcp", true))
        .await;
    let text = refusal.unwrap_err().to_string();
    assert!(text.contains("is a Service's"), "{text}");
    owned.send_replace(own(Duration::from_mins(1)));
    comes_to(true).await;
    owned.send_replace(Owned::default());
    comes_to(false).await;
    // Nobody says that it is over.
    let until = Instant::now() + Duration::from_millis(1500);
    owned.send_replace(own(Duration::from_millis(1500)));
    comes_to(true).await;
    comes_to(false).await;
    assert!(Instant::now() >= until);
    // Nobody is there to say anything.
    owned.send_replace(own(Duration::from_millis(1500)));
    comes_to(true).await;
    drop(owned);
    comes_to(false).await;
}
