//! VIPs that are announced by routes: whether the table has them, and whether a BGP speaker tells routers.

use std::{collections::BTreeSet, net::IpAddr};

use super::count;
use crate::{
    api::Status,
    config::{Announce, Config},
    doctor::{
        facts::{Balancer, Daemon, Routing, Session},
        finding::Finding,
    },
};

/// The largest table that FRR 8 and 9 import.
const FRR_TABLE: u32 = 252;

/// How many addresses a finding names.
const MOST: usize = 3;

/// Everything, where VIPs are announced by routes.
pub(super) fn check(facts: &Balancer, config: &Config) -> Vec<Finding> {
    let Some(routing) = &facts.routing else {
        return Vec::new();
    };
    let vips = config.vips.iter();
    let vips = vips.filter(|vip| vip.announce == Announce::Route);
    let vips: BTreeSet<IpAddr> = vips.map(|vip| vip.address).collect();
    let table = config.announce.table;
    let mut findings = vec![rules(routing, table)];
    match &routing.routes {
        Ok(present) => {
            let present: BTreeSet<_> = present.intersection(&vips).copied().collect();
            findings.push(routes(&vips, &present, &facts.daemon, table));
            findings.extend(bgp(routing, &present, table));
        }
        Err(error) => findings.push(Finding::warn(
            "vip-routes",
            format!("table {table}"),
            format!("cannot be read: {error}"),
        )),
    }
    findings
}

/// Whether a rule leads packets to the table.
fn rules(routing: &Routing, table: u32) -> Finding {
    const CHECK: &str = "route-rule";
    let subject = format!("table {table}");
    match &routing.rules {
        Err(error) => Finding::warn(CHECK, subject, format!("rules cannot be read: {error}")),
        Ok(rules) if rules.is_empty() => Finding::ok(CHECK, subject, "no rule leads packets to it"),
        Ok(rules) => {
            let text = format!(
                "{} to it",
                if rules.len() == 1 {
                    "a rule leads packets"
                } else {
                    "rules lead packets"
                }
            );
            let finding = Finding::fail(CHECK, subject, text).why(
                "its routes are blackholes, there for the BGP speaker alone: what the kernel sends or forwards to a VIP by them is dropped",
            );
            rules.iter().fold(finding, |finding, rule| {
                let family = if rule.is_v4 { "-4" } else { "-6" };
                finding.command(format!(
                    "ip {family} rule del priority {} table {table}",
                    rule.priority
                ))
            })
        }
    }
}

/// Whether the table has the routes that it should.
fn routes(
    vips: &BTreeSet<IpAddr>,
    present: &BTreeSet<IpAddr>,
    daemon: &Daemon,
    table: u32,
) -> Finding {
    const CHECK: &str = "vip-routes";
    let subject = format!("table {table}");
    let absent: BTreeSet<_> = vips.difference(present).copied().collect();
    if absent.is_empty() {
        let text = format!("has {}: one for each address", count(vips.len(), "route"));
        return Finding::ok(CHECK, subject, text);
    }
    let what = format!("has no route for {}", named(&absent));
    let Daemon::Answers(status) = daemon else {
        return Finding::note(CHECK, subject, what)
            .why("no daemon answers, and a route is made by one that sees backends pass");
    };
    let wanted: BTreeSet<_> = absent
        .iter()
        .filter(|address| is_wanted(status, **address))
        .copied()
        .collect();
    if wanted.is_empty() {
        return Finding::note(CHECK, subject, what).why(
            "they are withdrawn: `announce.reason` of each VIP in `weir status -o json` says why",
        );
    }
    Finding::fail(
        CHECK,
        subject,
        format!(
            "has no route for {}, which should be announced",
            named(&wanted)
        ),
    )
    .why("no router is told of them by this node")
    .remedy("`weir status` says what the kernel has against them; they are tried every second")
    .command("weir status")
}

fn is_wanted(status: &Status, address: IpAddr) -> bool {
    let mut vips = status.vips.iter().filter(|vip| vip.address == address);
    vips.any(|vip| {
        vip.announce
            .as_ref()
            .is_some_and(|announce| announce.wanted)
    })
}

/// Whether somebody tells routers of what is in the table.
fn bgp(routing: &Routing, present: &BTreeSet<IpAddr>, table: u32) -> Vec<Finding> {
    const CHECK: &str = "bgp";
    if routing.speakers.is_empty() {
        return vec![
            Finding::warn(CHECK, Finding::HOST, "neither BIRD nor FRR is seen to run in this network namespace")
                .why(format!("routes in table {table} are for a BGP speaker: without one no router hears of the VIPs"))
                .remedy("set one up: deploy/bird/weir.conf and deploy/frr/frr.conf are whole configurations; another speaker is not looked for"),
        ];
    }
    let sessions = || {
        let speakers = routing.speakers.iter();
        speakers.flat_map(|speaker| speaker.said.iter().flatten())
    };
    let is_any = sessions().any(|session| session.is_established);
    // One speaker may have the neighbours of IPv4 and another those of IPv6; others may have nothing to do with weir.
    let told: BTreeSet<_> = sessions()
        .filter(|session| session.is_established)
        .flat_map(|session| &session.told)
        .copied()
        .collect();
    let untold: BTreeSet<_> = present.difference(&told).copied().collect();
    let is_all_known = routing.speakers.iter().all(|speaker| speaker.said.is_ok());
    let mut findings = Vec::new();
    for speaker in &routing.speakers {
        let sessions = match &speaker.said {
            Ok(sessions) => sessions,
            Err(error) => {
                let text = format!("runs, and cannot be asked: {error}");
                findings.push(Finding::warn(CHECK, speaker.name, text));
                continue;
            }
        };
        let (established, others): (Vec<_>, Vec<_>) =
            sessions.iter().partition(|session| session.is_established);
        if established.is_empty() {
            findings.push(silent(speaker.name, &others, !is_any && is_all_known));
            continue;
        }
        findings.extend(others.into_iter().map(|session| {
            let text = format!(
                "session {} is not established: {}",
                session.name, session.state
            );
            let finding =
                Finding::warn(CHECK, speaker.name, text).why("that router sends nothing here");
            finding.remedy(NEIGHBOUR).command(sessions_of(speaker.name))
        }));
        findings.push(if untold.is_empty() || !is_all_known {
            let here: BTreeSet<_> = established
                .iter()
                .flat_map(|session| &session.told)
                .collect();
            let text = format!(
                "tells {} of {}",
                count(established.len(), "neighbour"),
                count(
                    present.iter().filter(|route| here.contains(route)).count(),
                    "route"
                )
            );
            Finding::ok(CHECK, speaker.name, text)
        } else {
            unread(speaker.name, &untold, table)
        });
    }
    findings
}

/// Where a session that does not come up is to be looked at.
const NEIGHBOUR: &str =
    "look at addresses, AS numbers and the way to the neighbour (TCP port 179), here and there:";

/// The command that shows a speaker's sessions.
fn sessions_of(speaker: &str) -> &'static str {
    if speaker == "BIRD" {
        "birdc show protocols"
    } else {
        "vtysh -c 'show bgp summary'"
    }
}

/// A speaker without a session. That hurts where it is the only one that could have one.
fn silent(name: &str, sessions: &[&Session], is_alone: bool) -> Finding {
    let states: Vec<_> = sessions
        .iter()
        .map(|session| format!("{} {}", session.name, session.state))
        .collect();
    let text = if states.is_empty() {
        "has no BGP session".to_owned()
    } else {
        format!(
            "has no BGP session that is established: {}",
            states.join("; ")
        )
    };
    if !is_alone {
        return Finding::note("bgp", name, text).why("another speaker has, or could not be asked");
    }
    Finding::fail("bgp", name, text)
        .why("no router hears of the VIPs")
        .remedy(NEIGHBOUR)
        .command(sessions_of(name))
}

/// A speaker that keeps routes to itself.
fn unread(name: &str, untold: &BTreeSet<IpAddr>, table: u32) -> Finding {
    let text = format!(
        "tells no neighbour of {}, which table {table} has",
        named(untold)
    );
    let finding = Finding::fail("bgp", name, text).why("no router hears of them");
    if name == "BIRD" {
        return finding
            .remedy(format!(
                "let it read the table (`kernel table {table}; learn;`) and export what it reads to the neighbours of that family, \
                 as deploy/bird/weir.conf does:"
            ))
            .command("birdc show route table all")
            .command("birdc show protocols all");
    }
    let remedy = if table > FRR_TABLE {
        format!(
            "FRR before 10 imports tables up to {FRR_TABLE}: write `table = 100` into [announce], and let FRR read it as deploy/frr/frr.conf does:"
        )
    } else if untold.iter().all(IpAddr::is_ipv6) {
        "FRR before 10 imports IPv4 tables only: announce IPv6 by BIRD (deploy/bird/weir.conf)"
            .to_owned()
    } else {
        format!(
            "let it read the table (`ip import-table {table}`, `redistribute table {table}`) and export what it reads, as deploy/frr/frr.conf does:"
        )
    };
    finding
        .remedy(remedy)
        .command("vtysh -c 'show running-config'")
}

/// The first of some addresses, and how many there are besides.
fn named(addresses: &BTreeSet<IpAddr>) -> String {
    let first: Vec<_> = addresses
        .iter()
        .take(MOST)
        .map(ToString::to_string)
        .collect();
    let first = first.join(", ");
    match addresses.len().checked_sub(MOST).filter(|more| *more > 0) {
        Some(more) => format!("{first} and {more} more"),
        None => first,
    }
}

#[cfg(test)]
mod tests;
