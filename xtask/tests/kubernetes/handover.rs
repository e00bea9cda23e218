//! A Service's address on the segment: one node announces it, and hands it over without a request that fails.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use xtask::lab::{Host, VIP_V4, eventually};

use crate::run::{Is::Ready, PATIENCE, Run};

/// Whether a node announces the Service's address.
fn announces(run: &Run, weir: usize) -> Result<bool> {
    let status = run.status(weir)?;
    let on = status.pointer("/announcements/0/on");
    on.and_then(serde_json::Value::as_bool)
        .context("no announcement")
}

fn host(run: &Run, weir: usize) -> &Host {
    if weir == 0 {
        &run.topology.lb
    } else {
        run.hosts.first().unwrap()
    }
}

/// Waits until one node announces the address, and the others, the client among them, know of nobody else.
fn is_at(run: &Run, weir: usize) {
    let client = &run.topology.client;
    let mac = host(run, weir).nic.mac_bytes().unwrap();
    eventually(&format!("the address at lb-{}", weir + 1), PATIENCE, || {
        ensure!(
            client.knows(VIP_V4)? == Some(mac),
            "the client knows of another"
        );
        ensure!(announces(run, weir)?, "it is silent");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
}

fn falls_silent(run: &Run, weir: usize) {
    eventually(&format!("lb-{} to be silent", weir + 1), PATIENCE, || {
        ensure!(!announces(run, weir)?);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// Has the client ask anew who has the address; there must be an answer, and by that node.
fn answers(run: &Run, weir: usize) {
    let client = &run.topology.client;
    client
        .namespace
        .ip(&format!("neigh flush to {VIP_V4} dev eth0"))
        .unwrap();
    is_at(run, weir);
}

#[test]
fn an_address_moves_from_a_drained_node_and_from_one_that_ends() {
    let mut run = Run::start_with("l2", "announce = \"l2\"\n");
    run.serve_web();
    run.place(&[(1, Ready), (2, Ready)]);
    run.come_to(&[(1, 1), (2, 1)]);
    run.topology.client.reach_on_segment(VIP_V4).unwrap();
    let both = [0, 1];
    let owner = eventually("one node to announce it", PATIENCE, || {
        let on: Vec<_> = both
            .iter()
            .map(|weir| announces(&run, *weir))
            .collect::<Result<_>>()?;
        for weir in both {
            let status = run.status(weir)?;
            ensure!(status["kubernetes"]["announcers"] == serde_json::json!(["lb-1", "lb-2"]));
        }
        ensure!(on.iter().filter(|on| **on).count() == 1, "{on:?}");
        Ok(usize::from(on == [false, true]))
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    let other = 1 - owner;
    let requests = run.under_traffic(|| {
        is_at(&run, owner);
        let began = Instant::now();
        run.weirs[owner].ask(&["drain-node"]).unwrap();
        is_at(&run, other);
        println!("drained: at the other after {:?}", began.elapsed());
        falls_silent(&run, owner);
        println!("drained: silent after {:?}", began.elapsed());
        answers(&run, other);

        // It takes its share again; whoever knows the way goes on meanwhile.
        run.weirs[owner].ask(&["undrain-node"]).unwrap();
        is_at(&run, owner);
        falls_silent(&run, other);
        answers(&run, owner);
    });
    println!("{requests} requests, none failed");

    // Told to end: the others have the address before it is silent.
    let requests = run.under_traffic(|| {
        let began = Instant::now();
        run.weirs[owner].signal(Signal::TERM).unwrap();
        is_at(&run, other);
        println!("ended: at the other after {:?}", began.elapsed());
        eventually("the daemon to end", PATIENCE, || {
            ensure!(run.status(owner).is_err(), "it answers");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
        println!("ended: after {:?}", began.elapsed());
        answers(&run, other);
    });
    println!("{requests} requests, none failed");
    assert!(run.weirs[owner].terminate().unwrap().success());

    // The last one is drained as it is told, and its status says what that means.
    run.weirs[other].ask(&["drain-node"]).unwrap();
    falls_silent(&run, other);
    run.stands(other, "to tell that nobody announces", |told| {
        told["problems"]
            .to_string()
            .contains("nobody announces Services")
    });
}
