//! VIPs of Services beside those of the configuration.

use super::*;
use crate::{announce::Owned, api::KubernetesStatus, config::Reader};

/// VIPs of Services: name, address, last byte of the backend's; `more` keys of each.
pub(super) fn services(text: &str, vips: &[(&str, &str, u8)], more: &str) -> Services {
    let reader = Reader::new(&Config::parse(text, "weir.toml").unwrap());
    let read = |(name, address, host): &(&str, &str, u8)| {
        let text = format!(
            "[[vip]]\nname = \"{name}\"\naddress = \"{address}\"\nport = 80\nprotocol = \"tcp\"\n{more}\
             [[vip.backend]]\naddress = \"10.0.1.{host}\"\nmac = \"02:00:00:00:01:{host:02x}\"\n"
        );
        Arc::new(reader.read(&text).unwrap().unwrap())
    };
    Services::new(vips.iter().map(read))
}

async fn serve(running: &Running, services: Services) {
    running
        .handle
        .serve(services, PATIENCE)
        .await
        .unwrap()
        .unwrap();
}

fn names(status: &Status) -> Vec<&str> {
    status.vips.iter().map(|vip| vip.name.as_str()).collect()
}

#[tokio::test]
async fn they_come_and_go_and_no_generation_passes() {
    let node = Node::new();
    let text = node.text("");
    let running = node.start(&text).await;
    let before = running.status().await.generation;
    serve(
        &running,
        services(&text, &[("a.b.80-tcp", "203.0.113.20", 21)], ""),
    )
    .await;
    let status = running.status().await;
    assert_eq!(names(&status), ["web", "tls", "a.b.80-tcp"]);
    assert_eq!(status.vips[2].backends[0].slots, 65_536);
    assert_eq!(status.generation, before);
    // Commands and reloads know them.
    running
        .change(Base::Any, drain("a.b.80-tcp", true))
        .await
        .unwrap_err();
    let target = Target::OfVip("a.b.80-tcp".to_owned(), "10.0.1.21".parse().unwrap());
    running
        .change(Base::Any, Change::Drain(target, true))
        .await
        .unwrap();
    let plan = running.handle.plan_basis(PATIENCE).await.unwrap();
    let same = Config::parse(&text, "weir.toml").unwrap();
    let plan = plan.plan(&same, &text, &node.file()).unwrap();
    assert!(plan.preview.vips.is_empty(), "{:?}", plan.preview);
    running.apply(Base::Any, &text, false).await.unwrap();
    let status = running.status().await;
    assert_eq!(names(&status), ["web", "tls", "a.b.80-tcp"]);
    assert!(status.vips[2].backends[0].drained);
    serve(&running, Services::default()).await;
    assert_eq!(names(&running.status().await), ["web", "tls"]);
    running.end().await;
}

#[tokio::test]
async fn the_file_comes_first() {
    let node = Node::new();
    let text = node.text("");
    let running = node.start(&text).await;
    let two = [
        ("a.a.80-tcp", "203.0.113.10", 21),
        ("a.b.80-tcp", "203.0.113.20", 22),
    ];
    serve(&running, services(&text, &two, "")).await;
    let status = running.status().await;
    assert_eq!(names(&status), ["web", "tls", "a.b.80-tcp"]);
    let problems = status.problems.join("; ");
    assert!(
        problems.contains("VIP a.a.80-tcp of a Service is not served: 203.0.113.10"),
        "{problems}"
    );
    // So does one that comes later.
    let more =
        "[[vip]]\nname = \"new\"\naddress = \"203.0.113.20\"\nport = 81\nprotocol = \"tcp\"\n";
    running
        .apply(Base::Any, &node.text(more), false)
        .await
        .unwrap();
    assert_eq!(names(&running.status().await), ["web", "tls", "new"]);
    running.apply(Base::Any, &text, false).await.unwrap();
    assert_eq!(names(&running.status().await), ["web", "tls", "a.b.80-tcp"]);
    running.end().await;
}

#[tokio::test]
async fn a_start_with_them_serves_them_at_once_and_tells_of_the_files_addresses() {
    let node = Node::new();
    let text = node.text("");
    let config = Config::parse(&text, "weir.toml").unwrap();
    let (neighbours, snapshots) = Neighbours::start().await.unwrap();
    let plane = Memory::default();
    let mut reconciler = Reconciler::new(
        config,
        &node.file(),
        plane,
        Past::Kept,
        neighbours,
        snapshots,
    )
    .unwrap();
    let (_status, told) = watch::channel(KubernetesStatus::default());
    let (_owned, receiver) = watch::channel(Owned::default());
    let before = services(&text, &[("a.b.80-tcp", "203.0.113.20", 21)], "");
    let (mut addresses, willing) = reconciler.begin_with(before, (told, receiver));
    assert_eq!(addresses.borrow_and_update().len(), 1);
    reconciler.start().await.unwrap();
    let status = reconciler.status();
    assert_eq!(names(&status), ["web", "tls", "a.b.80-tcp"]);
    assert_eq!(status.kubernetes, Some(KubernetesStatus::default()));
    // The program is attached, and nothing speaks against announcing Services, until the daemon is to end.
    assert!(*willing.borrow());
    assert_eq!(reconciler.leave(), None);
    assert!(!*willing.borrow());
}
