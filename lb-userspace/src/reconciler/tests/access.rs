//! Blocks by command, and lists of the configuration.

use lb_common::{
    access::{self, Access, List},
    flow::Address,
};
use tokio::time::{Instant as Clock, sleep};

use super::*;
use crate::api::{BlockStatus, NewBlock};

const CLIENT: Address = Address::from_v4([192, 0, 2, 7]);

fn block(prefix: &str, vip: Option<&str>, seconds: Option<f64>) -> Change {
    Change::Block(NewBlock {
        prefix: prefix.parse().unwrap(),
        vip: vip.map(str::to_owned),
        seconds,
        reason: Some("scans".to_owned()),
    })
}

fn unblock(prefix: &str, vip: Option<&str>) -> Change {
    Change::Unblock(crate::model::blocks::BlockName {
        prefix: prefix.parse().unwrap(),
        vip: vip.map(str::to_owned),
    })
}

impl Running {
    async fn blocked(&self) -> Vec<BlockStatus> {
        self.handle.blocks(PATIENCE).await.unwrap().blocks
    }

    /// Waits until the status is as wanted.
    async fn comes_to(&self, is_so: impl Fn(&Status) -> bool) -> Status {
        let deadline = Clock::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return status;
            }
            assert!(Clock::now() < deadline, "{status:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Who may send to the VIPs 0 and 1, in this order.
fn judged(plane: &Memory, client: Address) -> [Access; 2] {
    [0, 1].map(|vip| access::judge(plane, vip, client))
}

#[tokio::test]
async fn a_block_is_in_the_maps_when_it_is_answered_and_holds_over_restarts() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    let base = Base::Generation(1);
    let done = running
        .change(base, block("192.0.2.0/24", None, None))
        .await;
    assert_eq!(done.unwrap().generation, 2);
    // The same once more is no change; another reason would be.
    let done = running
        .change(Base::Any, block("192.0.2.0/24", None, None))
        .await;
    assert!(!done.unwrap().changed);
    let done = running
        .change(Base::Any, block("2001:db8::/32", Some("web"), None))
        .await;
    assert!(matches!(done, Err(Refusal::Malformed(_))), "{done:?}");
    let done = running
        .change(Base::Any, block("192.0.2.7", Some("nobody"), None))
        .await;
    assert!(matches!(done, Err(Refusal::Unknown(_))), "{done:?}");
    let done = running
        .change(Base::Any, block("192.0.2.7", None, Some(0.0)))
        .await;
    assert!(matches!(done, Err(Refusal::Malformed(_))), "{done:?}");
    let plane = running.end().await;
    assert_eq!(judged(&plane, CLIENT), [Access::Denied; 2]);
    assert_eq!(plane.access_counter(0, List::NodeBlock).unwrap(), 1);

    let running = node.start(&node.text("")).await;
    let blocked = running.blocked().await;
    assert_eq!(blocked.len(), 1);
    assert_eq!(blocked[0].by, "uid 7");
    let status = running.status().await;
    assert_eq!(status.access.blocks, 1);
    let error = running
        .change(Base::Any, unblock("192.0.2.7", None))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("192.0.2.0/24 for all VIPs"),
        "{error}"
    );
    running
        .change(Base::Any, unblock("192.0.2.0/24", None))
        .await
        .unwrap();
    assert_eq!(running.blocked().await, []);
    let plane = running.end().await;
    assert_eq!(judged(&plane, CLIENT), [Access::Allowed; 2]);
    assert!(plane.block_keys().unwrap().is_empty());
    assert!(plane.block_scopes().unwrap().is_empty());
}

#[tokio::test]
async fn a_block_ends_by_itself_also_while_no_daemon_runs() {
    let node = Node::new();
    let running = node.start(&node.text("")).await;
    for vip in [None, Some("web")] {
        let change = block("192.0.2.0/24", vip, Some(0.3));
        running.change(Base::Any, change).await.unwrap();
    }
    running
        .change(Base::Any, block("192.0.2.7", Some("tls"), Some(3600.0)))
        .await
        .unwrap();
    running.comes_to(|status| status.access.blocks == 1).await;
    let plane = running.end().await;
    assert_eq!(judged(&plane, CLIENT), [Access::Allowed, Access::Denied]);

    let running = node.start(&node.text("")).await;
    let left = running.blocked().await[0].seconds_left.unwrap();
    assert!((3500.0..3600.0).contains(&left), "{left}");
    running
        .change(Base::Any, block("192.0.2.7", Some("tls"), Some(0.05)))
        .await
        .unwrap();
    let end = std::time::SystemTime::now() + Duration::from_millis(50);
    drop(running.end().await);
    while std::time::SystemTime::now() <= end {
        sleep(Duration::from_millis(5)).await;
    }
    let running = node.start(&node.text("")).await;
    assert_eq!(running.blocked().await, []);
    let plane = running.end().await;
    assert_eq!(judged(&plane, CLIENT), [Access::Allowed; 2]);
}

#[tokio::test]
async fn lists_follow_the_configuration_and_files_that_change() {
    let node = Node::new();
    let feed = node.directory.path().join("feed.txt");
    fs::write(&feed, "192.0.2.0/24\n").unwrap();
    let lists = format!("[access]\ndeny_file = \"{}\"\n", feed.display());
    let running = node.start(&node.text(&lists)).await;
    // Before the first packet came.
    let status = running.status().await;
    assert!(status.access.in_force);
    assert_eq!(status.access.lists[0].prefixes, 1);

    fs::write(&feed, "192.0.2.1/24\n").unwrap();
    let status = running
        .comes_to(|status| status.access.refused_files == 1)
        .await;
    let problems = status.problems.join("\n");
    assert!(
        problems.contains("feed.txt:1:1: prefix: found \"192.0.2.1/24\""),
        "{problems}"
    );
    fs::write(&feed, "192.0.2.0/24\n198.51.100.0/24\n").unwrap();
    let is_so = |status: &Status| status.access.lists[0].prefixes == 2 && status.access.in_force;
    let status = running.comes_to(is_so).await;
    assert_eq!(status.access.refused_files, 0);
    assert_eq!(status.generation, 1, "nobody has commanded anything");
    let other = Address::from_v4([198, 51, 100, 7]);

    let own = node
        .text("")
        .replacen("port = 443", "port = 443\nallow = [\"192.0.2.7\"]", 1);
    running.apply(Base::Any, &own, false).await.unwrap();
    running.comes_to(|status| status.access.in_force).await;
    let plane = running.end().await;
    assert_eq!(judged(&plane, CLIENT), [Access::Allowed; 2]);
    assert_eq!(judged(&plane, other), [Access::Allowed, Access::Denied]);
    assert_eq!(plane.access_counter(1, List::Unlisted).unwrap(), 1);
}
