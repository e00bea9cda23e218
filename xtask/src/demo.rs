//! `cargo xtask demo`: a client, a switch, weir and three backends, and real HTTP through all of it.

mod findings;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;

use self::findings::{Family, Findings};
use crate::{
    lab::{self, Lab, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig},
    progress::{run_visibly, step, verdict},
    root, setup,
    traffic::client,
    workspace,
};

/// What the backends weigh: one of them takes half.
const WEIGHTS: [u32; 3] = [100, 100, 200];

/// How the demo runs.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// HTTP requests over each of IPv4 and IPv6, each over a connection of its own.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Leave the lab up afterwards, and say how to look around in it.
    #[arg(long)]
    keep: bool,
    /// Remove the labs that `--keep` left up, and do nothing else.
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
    /// The binaries are built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
    built: bool,
}

/// Runs the demo; the exit code is 0 only if everything that it shows is as it should be.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built && !options.clean {
        setup::run()?;
        step("build weir and its XDP program", || {
            run_visibly(workspace::cargo().args(["build", "-p", "lb-userspace"]))
        })?;
    }
    if !root::is_root() {
        root::again_as_root("the demo", &options.arguments())?;
    }
    if options.clean {
        return clean();
    }

    // First, so that a missing binary is told before anything is made.
    let weir = workspace::weir_binary()?;
    println!("==> weir is {}", weir.display());
    let lab = step(
        "make six hosts: client, switch, load balancer, three backends",
        Lab::new,
    )?;
    let topology = Topology::build(&lab, &Plan::default())?;
    let config = WeirConfig::for_topology(&topology, &WEIGHTS);
    let weir = step("start weir", || {
        Weir::start(&lab, &topology.lb.namespace, &config)
    })?;
    println!(
        "    config {}, log {}",
        weir.config().display(),
        weir.log().display()
    );

    let findings = observe(&topology, &weir, options.requests)?;
    println!("\n{}", findings.table());
    let mut complaints = findings.complaints();
    if options.keep {
        lab.keep()?;
        println!("{}", how_to_look_around(&topology, &weir)?);
    } else {
        let id = lab.id().clone();
        step("remove the lab", || {
            drop(lab);
            Ok(())
        })?;
        let left = lab::leftovers(&id)?;
        if !left.is_empty() {
            complaints.push(format!("left behind: {}", left.join("; ")));
        }
    }
    Ok(verdict(&complaints))
}

/// Sends the requests and gathers what everybody saw.
fn observe(topology: &Topology, weir: &Weir, requests: u32) -> Result<Findings> {
    let mut families = Vec::new();
    for (name, vip, service) in [("IPv4", VIP_V4, "web-v4"), ("IPv6", VIP_V6, "web-v6")] {
        let target = Topology::http(vip);
        let answers = step(&format!("{requests} HTTP requests to {target}"), || {
            let options = client::Options::new(target, requests);
            topology.client.namespace.inside(|| client::fetch(&options))
        })?;
        families.push(Family {
            name,
            vip,
            service,
            answers,
            ..Family::default()
        });
    }
    // The last acknowledgements may still be on their way when the last answer is here.
    let mut findings = count(topology, weir, families)?;
    let settled = lab::until("the counters to settle", Duration::from_secs(2), || {
        findings = count(topology, weir, std::mem::take(&mut findings.families))?;
        Ok(findings.counters_agree())
    });
    // Where they do not, the findings themselves complain.
    drop(settled);
    Ok(findings)
}

/// Reads the counters of weir and of the switch.
fn count(topology: &Topology, weir: &Weir, mut families: Vec<Family>) -> Result<Findings> {
    let status = weir.status()?;
    for family in &mut families {
        let backends = &status.vip(family.service)?.backends;
        family.packets = backends.iter().map(|backend| backend.packets).collect();
        family.sent_for_client = topology.sent_by_lb(topology.client.address(family.vip))?;
        family.sent_from_vip = topology.sent_by_lb(family.vip)?;
    }
    let interface = status
        .interfaces
        .first()
        .context("weir is attached to no interface")?;
    Ok(Findings {
        families,
        backends: topology.backend_names(),
        weights: WEIGHTS.to_vec(),
        interface: format!(
            "{} ({})",
            interface.name,
            interface.mode.as_deref().unwrap_or("not attached")
        ),
        forwarded: status.forwarded(),
    })
}

fn clean() -> Result<ExitCode> {
    lab::sweep()?;
    let kept = lab::kept()?;
    if kept.is_empty() {
        println!("==> no lab was left up");
    }
    for id in kept {
        step(&format!("remove lab {id}"), || lab::remove(&id))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn how_to_look_around(topology: &Topology, weir: &Weir) -> Result<String> {
    let enter = |host: &lab::Namespace| format!("nsenter --net={}", host.path());
    let (client, lb) = (
        enter(&topology.client.namespace),
        enter(&topology.lb.namespace),
    );
    let backend = topology
        .backends
        .first()
        .map(|host| enter(&host.namespace))
        .unwrap_or_default();
    let (xtask, binary) = (workspace::xtask_binary()?, workspace::weir_binary()?);
    let (xtask, binary, socket) = (xtask.display(), binary.display(), weir.socket());
    Ok(format!(
        "\nThe lab stays up (as root):\n  \
         {client} {xtask} lab-fetch {} --requests 1000   # more requests\n  \
         {binary} status --socket {}                     # what weir counts\n  \
         {lb} ip link show eth0                          # the XDP program\n  \
         {backend} ip address                            # a backend, with the VIP on lo\n  \
         less {} {}\n\
         Remove it by\n  cargo xtask demo --clean\n",
        Topology::http(VIP_V4),
        socket.display(),
        weir.config().display(),
        weir.log().display(),
    ))
}

impl Options {
    /// Returns these options as words, for the run as root.
    fn arguments(&self) -> Vec<OsString> {
        let mut words = vec![
            "demo".to_owned(),
            "--built".to_owned(),
            format!("--requests={}", self.requests),
        ];
        words.extend(self.keep.then(|| "--keep".to_owned()));
        words.extend(self.clean.then(|| "--clean".to_owned()));
        words.into_iter().map(OsString::from).collect()
    }
}
