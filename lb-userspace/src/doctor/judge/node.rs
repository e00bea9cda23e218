//! The node's own settings, held against the host.

use std::collections::BTreeSet;

use super::{whole, word};
use crate::{
    config::Config,
    doctor::{
        facts::{Balancer, Conf, Net},
        finding::Finding,
    },
};

/// A seed shorter than this can be tried out by whoever sees which backends flows go to.
const SHORT_SEED: usize = 16;

pub(super) fn check(facts: &Balancer, config: &Config) -> Vec<Finding> {
    let mut findings = vec![seed(config)];
    findings.extend(files(facts));
    findings.extend(metrics(facts, config));
    findings.extend(vips(&facts.net, config));
    findings.extend(sources(&facts.net, config));
    findings.extend(sysctls(&facts.net, config));
    findings
}

fn seed(config: &Config) -> Finding {
    const CHECK: &str = "seed";
    if config.node.seed.expose().len() >= SHORT_SEED {
        return Finding::ok(CHECK, Finding::HOST, "is set");
    }
    Finding::note(CHECK, Finding::HOST, format!("has fewer than {SHORT_SEED} characters"))
        .why("who guesses it can aim all connections at one backend")
        .remedy(
            "write a new one to a file, name that by `seed_file` on every node of the fleet, and apply it with \
             --force: a new seed moves every flow",
        )
        .command("(umask 077 && openssl rand -hex 32 > /etc/weir/seed)")
}

fn files(facts: &Balancer) -> Vec<Finding> {
    const CHECK: &str = "files";
    if facts.unwritable.is_empty() {
        return vec![Finding::ok(
            CHECK,
            Finding::HOST,
            "state_file and api_socket can be made",
        )];
    }
    let judge = |(key, directory): &(&str, std::path::PathBuf)| {
        let shown = directory.display();
        let why = match *key {
            "state_file" => {
                "drains and weights by command would not survive a restart: they are refused"
            }
            _ => "the daemon could not listen there, and would not start",
        };
        Finding::fail(
            CHECK,
            shown.to_string(),
            format!("{key} would lie here, and this process may not write here"),
        )
        .why(why)
        .remedy("if weir is to run as this user:")
        .command(format!(
            "sudo install -d -o \"$(id -u)\" {}",
            word(&shown.to_string())
        ))
    };
    facts.unwritable.iter().map(judge).collect()
}

fn metrics(facts: &Balancer, config: &Config) -> Option<Finding> {
    const CHECK: &str = "metrics-listen";
    let listen = config.node.metrics_listen;
    let error = facts.metrics.as_ref()?;
    let finding = Finding::fail(CHECK, listen, format!("cannot be listened on: {error}"));
    Some(
        finding
            .why("`weir run` would not start")
            .remedy("see who has it, or write another `metrics_listen`:")
            .command(format!("ss -ltnp 'sport = :{}'", listen.port())),
    )
}

/// VIPs that are this host's own addresses.
fn vips(net: &Net, config: &Config) -> Vec<Finding> {
    const CHECK: &str = "vip-local";
    let vips: BTreeSet<_> = config.vips.iter().map(|vip| vip.address).collect();
    let held = net.addresses.iter();
    let own: Vec<_> = held.filter(|held| vips.contains(&held.address)).collect();
    if own.is_empty() {
        return vec![Finding::ok(
            CHECK,
            Finding::HOST,
            "no VIP is an address of this host",
        )];
    }
    let judge = |held: &&crate::doctor::facts::Held| {
        Finding::warn(
            CHECK,
            held.address,
            format!("is a VIP, and an address of {} here", held.interface),
        )
        .why(
            "this host answers for it by itself: what it dials there stays here, what weir leaves to the kernel is \
             answered here, and its ARP tells the segment that the VIP is here",
        )
        .command(format!(
            "ip address del {}/{} dev {}",
            held.address,
            held.prefix,
            word(&held.interface)
        ))
    };
    own.iter().map(judge).collect()
}

/// Sources of outer headers that are not this host's addresses.
fn sources(net: &Net, config: &Config) -> Vec<Finding> {
    const CHECK: &str = "encap-source";
    let source = config.node.encap_source;
    let sources = [source.v4.map(Into::into), source.v6.map(Into::into)];
    let judge = |address: std::net::IpAddr| {
        if net.holds(address) {
            return Finding::ok(CHECK, address, "is an address of this host");
        }
        let interface = config
            .node
            .interfaces
            .first()
            .map_or("eth0", String::as_str);
        Finding::warn(CHECK, address, "is no address of this host")
            .why(
                "errors about tunnel packets (too big, unreachable) go to whoever has it, and networks drop packets \
                 from addresses that are not the sender's",
            )
            .remedy("write an address of this host into `encap_source`, or give it this one:")
            .command(format!(
                "ip address add {address}/{} dev {}",
                whole(address),
                word(interface)
            ))
    };
    sources.into_iter().flatten().map(judge).collect()
}

/// Settings that matter where packets come by several interfaces.
fn sysctls(net: &Net, config: &Config) -> Vec<Finding> {
    let interfaces = &config.node.interfaces;
    let several = interfaces.len() > 1;
    let mut findings = Vec::new();
    let any = |is_bad: fn(&Conf, &Conf) -> bool| {
        let nics = interfaces.iter().filter_map(|name| net.nics.get(name));
        let bad = nics.filter(|nic| is_bad(&net.all, &nic.conf));
        bad.map(|nic| nic.name.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let strict = any(|all, own| all.rp_filter.max(own.rp_filter) == Some(1));
    findings.push(if several && !strict.is_empty() {
        Finding::note("rp-filter", strict, "rp_filter is strict (1)")
            .why("answers to health checks that come by another interface than they left by are dropped; what weir forwards is not")
            .command("sysctl -w net.ipv4.conf.all.rp_filter=2")
    } else {
        Finding::ok("rp-filter", Finding::HOST, "does not get into the way of health checks")
    });
    let loud = any(|all, own| all.arp_ignore.max(own.arp_ignore) == Some(0));
    findings.push(if several && !loud.is_empty() {
        Finding::note("arp-ignore", loud, "arp_ignore is 0 on several interfaces")
            .why("where two of them are on one segment, either answers for the other's address, and packets come by the wrong one")
            .command("sysctl -w net.ipv4.conf.all.arp_ignore=1")
    } else {
        Finding::ok("arp-ignore", Finding::HOST, "each interface answers for itself")
    });
    findings
}

#[cfg(test)]
mod tests;
