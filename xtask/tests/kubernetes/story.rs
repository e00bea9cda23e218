//! A Service from its beginning to its end, while the API server is away in between and the node that writes dies.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rustix::process::Signal;
use serde_json::{Value, json};
use xtask::{
    lab::{Topology, VIP_V4, eventually},
    traffic::client,
};

use crate::{
    cluster::{pool, service},
    run::{
        Is::{Draining, Ready},
        NODES, PATIENCE, Run, WEB,
    },
};

/// How long the API server is away.
const PARTITION: Duration = Duration::from_secs(30);

#[test]
fn a_service_is_made_scaled_drained_and_deleted_by_l2() {
    story("l2");
}

#[test]
fn a_service_is_made_scaled_drained_and_deleted_by_ipip() {
    story("ipip");
}

fn story(forward: &'static str) {
    let mut run = Run::start(forward);
    run.serve_web();
    run.place(&[(1, Ready), (2, Ready)]);
    made(&run);
    scaled(&run);
    drained(&run);
    cut_off(&run);
    taken_over(&mut run);
    deleted(&run);
}

fn ingress(run: &Run, name: &str) -> Value {
    let service = run.server.get("services", "default", name).unwrap();
    service["status"]["loadBalancer"]["ingress"].clone()
}

/// Which serving nodes there are, by their servers' names.
fn names(nodes: impl IntoIterator<Item = u8>) -> BTreeSet<String> {
    let name = |node| format!("backend-{node}");
    nodes.into_iter().map(name).collect()
}

/// Waits until both nodes have exactly these serve.
fn served_by(run: &Run, wanted: &BTreeSet<String>) {
    for weir in 0..2 {
        let what = format!("{wanted:?} to answer by lb-{}", weir + 1);
        eventually(&what, PATIENCE, || {
            let summary = run.answers_by(weir, 64);
            let found: BTreeSet<_> = summary.by_backend.into_keys().collect();
            ensure!(found == *wanted, "{found:?}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn made(run: &Run) {
    eventually("the status to be written", PATIENCE, || {
        ensure!(!ingress(run, "web").is_null());
        Ok(())
    })
    .unwrap();
    let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 7000, "protocol": "TCP"}]);
    let written = json!([{"ip": VIP_V4.to_string(), "ipMode": "VIP", "ports": ports}]);
    assert_eq!(ingress(run, "web"), written);
    run.come_to(&[(1, 1), (2, 1)]);
    served_by(run, &names([1, 2]));
    assert_eq!(run.digests(0), run.digests(1));
}

fn scaled(run: &Run) {
    run.place(&[
        (1, Ready),
        (1, Ready),
        (1, Ready),
        (2, Ready),
        (3, Ready),
        (4, Ready),
    ]);
    run.come_to(&[(1, 3), (2, 1), (3, 1), (4, 1)]);
    served_by(run, &names(1..=NODES));
    let summary = run.answers_by(0, 600);
    for name in summary.by_backend.keys() {
        println!("{name}: {:.1} % of the requests", summary.share(name));
    }
}

/// An endpoint that terminates and still serves keeps its connections, and gets no others.
fn drained(run: &Run) {
    run.dial_by(0);
    let mut all = run.connect(48);
    let kept = all.iter().filter(|lasting| lasting.server == "backend-1");
    let kept = kept.count();
    assert!(kept > 0, "nobody reached backend-1");
    run.place(&[
        (1, Draining),
        (1, Draining),
        (2, Ready),
        (3, Ready),
        (4, Ready),
    ]);
    run.come_to(&[(1, 0), (2, 1), (3, 1), (4, 1)]);
    let others = names(2..=NODES);
    for weir in 0..2 {
        let what = format!("backend-1 to get nothing new by lb-{}", weir + 1);
        eventually(&what, PATIENCE, || {
            run.dial_by(0);
            all.iter_mut().for_each(crate::run::Lasting::lives);
            let summary = run.answers_by(weir, 64);
            let found: BTreeSet<_> = summary.by_backend.into_keys().collect();
            ensure!(found == others, "{found:?}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
    // Gone from the cluster's lists: who has a connection keeps it for as long as the server does.
    run.place(&[(2, Ready), (3, Ready), (4, Ready)]);
    run.come_to(&[(2, 1), (3, 1), (4, 1)]);
    run.dial_by(0);
    all.iter_mut().for_each(crate::run::Lasting::lives);
    println!(
        "{} connections went on, {kept} of them on the node that drained",
        all.len()
    );
}

/// Nobody reaches the API server: nothing changes.
fn cut_off(run: &Run) {
    let before = [run.digests(0), run.digests(1)];
    let generations = [0, 1].map(|weir| run.status(weir).unwrap()["generation"].clone());
    run.dial_by(1);
    let began = Instant::now();
    let answered = run.under_traffic(|| {
        run.api.namespace.ip("link set eth0 down").unwrap();
        for weir in 0..2 {
            let is_away = |told: &Value| told["connected"] == false && told["writer"] == false;
            run.stands(weir, "to tell that the API server is away", is_away);
        }
        // Long enough for every watch, every request and every Lease to have ended.
        thread::sleep(PARTITION.saturating_sub(began.elapsed()));
        assert_eq!([run.digests(0), run.digests(1)], before);
        run.api.namespace.ip("link set eth0 up").unwrap();
        for weir in 0..2 {
            let is_back = |told: &Value| told["connected"] == true && told["synced"] == true;
            run.stands(weir, "to be back", is_back);
        }
        eventually("one to write", PATIENCE, || writers(run).map(drop)).unwrap();
    });
    println!(
        "{answered} requests were answered in the {:.1} s that the API server was away",
        began.elapsed().as_secs_f64()
    );
    assert_eq!([run.digests(0), run.digests(1)], before);
    let after = [0, 1].map(|weir| run.status(weir).unwrap()["generation"].clone());
    assert_eq!(after, generations);
}

/// The one node that writes, and the other.
fn writers(run: &Run) -> anyhow::Result<(usize, usize)> {
    let is_writer =
        |weir| -> anyhow::Result<bool> { Ok(run.status(weir)?["kubernetes"]["writer"] == true) };
    match (is_writer(0)?, is_writer(1)?) {
        (true, false) => Ok((0, 1)),
        (false, true) => Ok((1, 0)),
        both => anyhow::bail!("who writes: {both:?}"),
    }
}

/// The node that writes dies: the other one writes, and packets know nothing of it.
fn taken_over(run: &mut Run) {
    let (writer, other) = writers(run).unwrap();
    run.weirs[writer].end_by(Signal::KILL).unwrap();
    let began = Instant::now();
    run.server
        .put("vippools", pool("second", "203.0.113.64/28"));
    run.server
        .put("services", service("second", "weir.dev/xdp"));
    run.dial_by(writer);
    run.under_traffic(|| {
        run.stands(other, "to write", |told| told["writer"] == true);
        eventually("the second Service's status", PATIENCE, || {
            ensure!(!ingress(run, "second").is_null());
            Ok(())
        })
        .unwrap();
    });
    println!("taken over in {:.1} s", began.elapsed().as_secs_f64());
    let holder = run.server.get("leases", "weir", "weir-writer").unwrap();
    assert_eq!(
        holder["spec"]["holderIdentity"],
        format!("lb-{}", other + 1)
    );
    run.weirs[writer].restart().unwrap();
    run.server.remove("services", "default", "second");
    run.come_to(&[(2, 1), (3, 1), (4, 1)]);
}

/// No balanced Service any more: its status goes, and nothing is forwarded.
fn deleted(run: &Run) {
    run.server.edit("services", "default", "web", |web| {
        web["spec"]["type"] = json!("ClusterIP");
        let spec = web["spec"].as_object_mut().unwrap();
        spec.remove("loadBalancerClass");
    });
    eventually("the status to go", PATIENCE, || {
        ensure!(ingress(run, "web").is_null());
        Ok(())
    })
    .unwrap();
    run.server.remove("services", "default", "web");
    for weir in 0..2 {
        eventually("the VIP to go", PATIENCE, || {
            let status = run.weirs[weir].status()?;
            ensure!(status.vip(WEB).is_err());
            Ok(())
        })
        .unwrap();
        run.dial_by(weir);
        let before = run.weirs[weir].status().unwrap().forwarded();
        let asked = run.topology.client.namespace.inside(|| {
            thread::scope(|scope| {
                let ask = || client::ask(Topology::http(VIP_V4)).is_err();
                let asked = scope.spawn(ask).join();
                Ok(asked.unwrap_or(false))
            })
        });
        assert!(asked.unwrap(), "somebody answered");
        assert_eq!(run.weirs[weir].status().unwrap().forwarded(), before);
    }
}
