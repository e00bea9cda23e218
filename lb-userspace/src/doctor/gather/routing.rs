//! Routes of VIPs, and the BGP speakers that may tell routers of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    net::IpAddr,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::TryStreamExt as _;
use procfs::process::{Process, all_processes};
use rtnetlink::{IpVersion, packet_route::rule::RuleAttribute};
use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use crate::{
    announce::{Place, Routes},
    config::{Announce, Config},
    doctor::facts::{Routing, Rule, Session, Speaker},
};

/// How long a speaker may take for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything, where a VIP is announced by a route.
pub(super) async fn routing(config: &Config) -> Option<Routing> {
    let mut vips = config.vips.iter();
    if !vips.any(|vip| vip.announce == Announce::Route) {
        return None;
    }
    let place = Place::from(&config.announce);
    let (routes, rules, speakers) = tokio::join!(routes(place), rules(place.table), speakers());
    let told = |error: anyhow::Error| format!("{error:#}");
    Some(Routing {
        routes: routes.map_err(told),
        rules: rules.map_err(told),
        speakers,
    })
}

async fn routes(place: Place) -> anyhow::Result<BTreeSet<IpAddr>> {
    let routes = Routes::open(place).context("opening a netlink socket")?;
    routes.list().await.context("asking for routes")
}

/// The rules that lead packets to a table.
async fn rules(table: u32) -> anyhow::Result<Vec<Rule>> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("opening a netlink socket")?;
    let connection = tokio::spawn(connection);
    let mut rules = Vec::new();
    for is_v4 in [true, false] {
        let version = if is_v4 { IpVersion::V4 } else { IpVersion::V6 };
        let found = handle.rule().get(version).execute().try_collect::<Vec<_>>();
        let found = match found.await {
            // A kernel without IPv6 has no rules of it.
            Err(_) if !is_v4 => Vec::new(),
            found => found.context("asking for rules")?,
        };
        for message in found {
            let (mut leads_to, mut priority) = (u32::from(message.header.table), 0);
            for attribute in message.attributes {
                match attribute {
                    RuleAttribute::Table(number) => leads_to = number,
                    RuleAttribute::Priority(number) => priority = number,
                    _ => {}
                }
            }
            if leads_to == table {
                rules.push(Rule { is_v4, priority });
            }
        }
    }
    connection.abort();
    Ok(rules)
}

/// BIRD and FRR, where they run in this network namespace, and what they say.
async fn speakers() -> Vec<Speaker> {
    let mut speakers = Vec::new();
    for (program, arguments) in running() {
        let speaker = match program.as_str() {
            "bird" => Speaker {
                name: "BIRD",
                said: bird(&arguments).await.map_err(|error| format!("{error:#}")),
            },
            _ => Speaker {
                name: "FRR",
                said: frr(&arguments).await.map_err(|error| format!("{error:#}")),
            },
        };
        speakers.push(speaker);
    }
    speakers
}

/// The users that BGP speakers run as. What others call their processes says nothing, and their arguments are not followed.
fn users() -> Vec<u32> {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = known.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let is_speakers = matches!(fields.next()?, "bird" | "frr");
        is_speakers.then(|| fields.nth(1)?.parse().ok())?
    });
    std::iter::once(0).chain(known).collect()
}

/// The processes of BGP speakers in this network namespace: program and arguments.
fn running() -> Vec<(String, Vec<String>)> {
    let Ok(processes) = all_processes() else {
        return Vec::new();
    };
    let network = |process: &Process| {
        Some(
            process
                .namespaces()
                .ok()?
                .0
                .get(OsStr::new("net"))?
                .identifier,
        )
    };
    let own = Process::myself().ok().and_then(|me| network(&me));
    let users = users();
    let found = processes.flatten().filter_map(|process| {
        let program = process.stat().ok()?.comm;
        let is_speaker = matches!(program.as_str(), "bird" | "bgpd");
        (is_speaker && network(&process) == own).then_some(())?;
        users.contains(&process.uid().ok()?).then_some(())?;
        Some((program, process.cmdline().ok()?))
    });
    found.collect()
}

/// What follows a word among arguments.
fn after<'a>(arguments: &'a [String], word: &str) -> Option<&'a str> {
    let mut arguments = arguments.iter().skip_while(|argument| *argument != word);
    arguments.nth(1).map(String::as_str)
}

/// What a program prints.
async fn ask(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output())
        .await
        .with_context(|| format!("{program}: no answer in {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn bird(arguments: &[String]) -> anyhow::Result<Vec<Session>> {
    // `-r`: nothing can be changed.
    let mut words = vec!["-r"];
    if let Some(socket) = after(arguments, "-s") {
        words.extend(["-s", socket]);
    }
    let birdc =
        async |question: &[&str]| ask("birdc", &[words.as_slice(), question].concat()).await;
    let mut sessions = bird_sessions(&birdc(&["show", "protocols"]).await?);
    for session in sessions.iter_mut().filter(|session| session.is_established) {
        let exported = birdc(&["show", "route", "export", &session.name]).await?;
        session.told = bird_routes(&exported);
    }
    Ok(sessions)
}

/// The BGP sessions of `show protocols`: name, protocol, table, state, since when, and more.
fn bird_sessions(text: &str) -> Vec<Session> {
    let sessions = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "BGP" && is_plain(name)).then_some(())?;
        let words: Vec<_> = words.skip(1).collect();
        let is_time = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let state = words.iter().copied().filter(|word| !is_time(word));
        Some(Session {
            name: name.to_owned(),
            is_established: words.contains(&"Established"),
            state: state
                .collect::<Vec<_>>()
                .join(" ")
                .replace(|c: char| c.is_control(), ""),
            told: BTreeSet::new(),
        })
    });
    sessions.collect()
}

/// Whether a session's name is one: a word that goes back into a question as it is.
fn is_plain(name: &str) -> bool {
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || "_.:%-".contains(c);
    !name.is_empty() && name.chars().all(is_of_names)
}

/// The addresses that routes of `show route` are for, where they are for one address.
fn bird_routes(text: &str) -> BTreeSet<IpAddr> {
    let prefixes = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    prefixes.filter_map(address).collect()
}

/// The address of a prefix that is one address.
fn address(prefix: &str) -> Option<IpAddr> {
    let (address, bits) = prefix.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    (bits == if address.is_ipv4() { 32 } else { 128 }).then_some(address)
}

async fn frr(arguments: &[String]) -> anyhow::Result<Vec<Session>> {
    let mut words = Vec::new();
    if let Some(folder) = after(arguments, "--vty_socket") {
        words.extend(["--vty_socket", folder]);
    }
    let vtysh = async |question: &str| {
        let question = ["-c", question];
        ask("vtysh", &[words.as_slice(), &question].concat()).await
    };
    let mut sessions = frr_sessions(&vtysh("show bgp summary json").await?)?;
    for (family, session) in sessions
        .iter_mut()
        .filter(|(_, session)| session.is_established)
    {
        let name = &session.name;
        let question = format!("show bgp {family} unicast neighbors {name} advertised-routes json");
        session.told = frr_routes(&vtysh(&question).await?)?;
    }
    Ok(sessions.into_iter().map(|(_, session)| session).collect())
}

#[derive(Deserialize)]
struct Family {
    #[serde(default)]
    peers: BTreeMap<String, Peer>,
}

#[derive(Deserialize)]
struct Peer {
    state: String,
}

/// The sessions of `show bgp summary json`, with their families.
fn frr_sessions(text: &str) -> anyhow::Result<Vec<(&'static str, Session)>> {
    let families: BTreeMap<String, Family> =
        serde_json::from_str(text).context("understanding `show bgp summary json`")?;
    let mut sessions = Vec::new();
    for (key, family) in [("ipv4Unicast", "ipv4"), ("ipv6Unicast", "ipv6")] {
        let peers = families.get(key).map(|family| &family.peers);
        for (name, peer) in peers.into_iter().flatten() {
            if !is_plain(name) {
                continue;
            }
            let session = Session {
                name: name.clone(),
                is_established: peer.state == "Established",
                state: peer.state.chars().filter(|c| !c.is_control()).collect(),
                told: BTreeSet::new(),
            };
            sessions.push((family, session));
        }
    }
    Ok(sessions)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Advertised {
    #[serde(default)]
    advertised_routes: serde_json::Map<String, serde_json::Value>,
}

fn frr_routes(text: &str) -> anyhow::Result<BTreeSet<IpAddr>> {
    let advertised: Advertised =
        serde_json::from_str(text).context("understanding `advertised-routes json`")?;
    let prefixes = advertised.advertised_routes.keys();
    Ok(prefixes.filter_map(|prefix| address(prefix)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As BIRD 2.0.12 answers, in both of its formats of time.
    #[test]
    fn understands_bird() {
        let text = "BIRD 2.0.12 ready.\nAccess restricted\n\
            Name       Proto      Table      State  Since         Info\n\
            device1    Device     ---        up     03:52:17.651  \n\
            weir_routes4 Kernel     weir4      up     03:52:17.651  \n\
            router4    BGP        ---        up     03:52:18.477  Established   \n\
            router6    BGP        ---        start  2026-11-28 03:52:18  Active        Socket: Connection refused\n";
        let sessions = bird_sessions(text);
        let told: Vec<_> = sessions
            .iter()
            .map(|session| {
                (
                    session.name.as_str(),
                    session.is_established,
                    session.state.as_str(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("router4", true, "up Established"),
                ("router6", false, "start Active Socket: Connection refused")
            ]
        );
        let text = "BIRD 2.0.12 ready.\nAccess restricted\nTable weir4:\n\
            203.0.113.10/32      blackhole [weir_routes4 03:52:17.653] * (10)\n\
            198.51.100.0/24      unicast [router4 03:52:17.653] * (100)\n\
            \tvia 192.0.2.1 on eth0\nTable weir6:\n\
            2001:db8::10/128     blackhole [weir_routes6 03:52:17.653] * (10)\n";
        let wanted = ["203.0.113.10", "2001:db8::10"].map(|text| text.parse().unwrap());
        assert_eq!(bird_routes(text), wanted.into());
    }

    /// As FRR 8.4.4 answers, shortened.
    #[test]
    fn understands_frr() {
        let text = r#"{
            "ipv4Unicast": {"routerId": "192.0.2.11", "as": 65001, "peers": {
                "192.0.2.1": {"remoteAs": 65000, "state": "Established", "pfxSnt": 1}}, "failedPeers": 0},
            "ipv6Unicast": {"peers": {"2001:db8:1::1": {"state": "Active"}}}
        }"#;
        let sessions = frr_sessions(text).unwrap();
        let told: Vec<_> = sessions
            .iter()
            .map(|(family, session)| (*family, session.name.as_str(), session.is_established))
            .collect();
        assert_eq!(
            told,
            [
                ("ipv4", "192.0.2.1", true),
                ("ipv6", "2001:db8:1::1", false)
            ]
        );
        assert!(frr_sessions("{}").unwrap().is_empty());
        // What would be a second command, and what would be the terminal's.
        let text = r#"{"ipv4Unicast": {"peers": {"x\nstart-shell": {"state": "Established"},
            "192.0.2.1": {"state": "\u001b[2JActive"}}}}"#;
        let sessions = frr_sessions(text).unwrap();
        let told: Vec<_> = sessions.iter().map(|(_, session)| session).collect();
        assert_eq!((told.len(), told[0].state.as_str()), (1, "[2JActive"));
        let text = r#"{"bgpTableVersion": 1, "advertisedRoutes": {
            "203.0.113.10/32": {"addrPrefix": "203.0.113.10", "prefixLen": 32}, "198.51.100.0/24": {}}}"#;
        assert_eq!(
            frr_routes(text).unwrap(),
            ["203.0.113.10".parse().unwrap()].into()
        );
        assert!(frr_routes("{}").unwrap().is_empty());
    }

    #[test]
    fn finds_what_follows_a_word() {
        let arguments = ["bird", "-f", "-s", "/run/b.ctl"].map(str::to_owned);
        assert_eq!(after(&arguments, "-s"), Some("/run/b.ctl"));
        assert_eq!(after(&arguments, "/run/b.ctl"), None);
        assert_eq!(after(&arguments, "-c"), None);
    }
}
