//! A server of VIPs: whether it takes what weir sends, and answers from the VIP without saying that it has it.

use super::{nic, tunnel, whole, word};
use crate::doctor::{
    Dialled,
    facts::{Conf, Held, Net, Nic, Server, Wanted},
    finding::{Finding, Report, Role},
};

/// Judges a server.
pub(in crate::doctor) fn judge(facts: &Server, wanted: &Wanted) -> Report {
    let net = &facts.net;
    let mut findings = Vec::new();
    if wanted.is_stranger {
        findings.push(
            Finding::fail(
                "backend",
                Finding::HOST,
                "no backend of the configuration is an address of this host",
            )
            .why("weir sends nothing here; what follows holds for every VIP of the configuration")
            .remedy("give the configuration that names this host, or give this host the address"),
        );
    }
    findings.extend(links(facts));
    let mut addresses: Vec<_> = wanted.vips.iter().map(|vip| vip.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    for address in &addresses {
        findings.extend(vip(*address, facts));
    }
    for name in &facts.facing {
        let Some(nic) = net.nics.get(name) else {
            continue;
        };
        if addresses.iter().any(std::net::IpAddr::is_ipv4) {
            findings.push(arp_ignore(net.all, nic));
            findings.push(arp_announce(net.all, nic));
            findings.push(rp_filter(net.all, nic));
        }
        if addresses.iter().any(std::net::IpAddr::is_ipv6) {
            findings.push(ipv6(nic));
        }
    }
    findings.extend(tunnel::check(facts, wanted));
    findings.extend(wanted.vips.iter().filter_map(|vip| listening(vip, facts)));
    Report::new(Role::Backend, findings)
}

fn links(facts: &Server) -> Vec<Finding> {
    const CHECK: &str = "link";
    let nics = &facts.net.nics;
    let mut findings = Vec::new();
    if nics.get("lo").is_some_and(|lo| !lo.is_up) {
        findings.push(
            Finding::fail(CHECK, "lo", "is down")
                .why("the VIPs on it are no addresses of this host")
                .command("ip link set dev lo up"),
        );
    }
    if facts.facing.is_empty() {
        findings.push(
            Finding::fail(
                CHECK,
                Finding::HOST,
                "no interface is known by which weir's packets come",
            )
            .why("none is up with an address")
            .remedy("name it: `--interface eth0`"),
        );
    }
    for name in &facts.facing {
        findings.push(match nics.get(name) {
            Some(found) => nic::link(found),
            None => nic::absent(name, &[]),
        });
    }
    findings
}

/// Whether an interface's addresses are not told to a segment by ARP.
fn is_quiet(net: &Net, held: &Held) -> bool {
    let nic = net.nics.get(&held.interface);
    nic.is_some_and(|nic| nic.is_loopback || nic.kind.as_deref() == Some("dummy"))
}

fn vip(address: std::net::IpAddr, facts: &Server) -> Vec<Finding> {
    const CHECK: &str = "vip-address";
    let nodad = if address.is_ipv4() { "" } else { " nodad" };
    let add = format!("ip address add {address}/{} dev lo{nodad}", whole(address));
    let held: Vec<_> = facts
        .net
        .addresses
        .iter()
        .filter(|held| held.address == address)
        .collect();
    if held.is_empty() {
        return vec![
            Finding::fail(CHECK, address, "is no address of this host")
                .why("the kernel drops, or routes on, what weir sends here for it")
                .command(add),
        ];
    }
    let is_on_lo = held
        .iter()
        .any(|held| held.interface == "lo" && held.prefix == whole(address));
    let judge = |held: &&Held| {
        let (interface, prefix) = (&held.interface, held.prefix);
        let del = format!("ip address del {address}/{prefix} dev {}", word(interface));
        if held.is_tentative {
            return Finding::fail(
                CHECK,
                address,
                format!("waits on {interface} for duplicates, or has found one"),
            )
            .why("until then, and for good if another host has it, the kernel does not use it")
            .command(del)
            .command(add.clone());
        }
        if !is_quiet(&facts.net, held) {
            let finding = Finding::fail(CHECK, address, format!("is on {interface}, which answers for it"))
                .why("the segment learns that the VIP is here, and sends its packets past the load balancer")
                .command(del);
            return if is_on_lo {
                finding
            } else {
                finding.command(add.clone())
            };
        }
        if prefix != whole(address) {
            return Finding::warn(CHECK, address, format!("is on {interface} as a network of /{prefix}"))
                .why("the kernel takes all of that network for its own: nothing of it can be reached from here")
                .command(del)
                .command(add.clone());
        }
        Finding::ok(CHECK, address, format!("is on {interface}"))
    };
    held.iter().map(judge).collect()
}

fn arp_ignore(all: Conf, nic: &Nic) -> Finding {
    const CHECK: &str = "arp-ignore";
    match all.arp_ignore.max(nic.conf.arp_ignore) {
        Some(0) => Finding::fail(CHECK, &nic.name, "arp_ignore is 0")
            .why("this host answers ARP for VIPs that are on lo: the segment sends their packets here, past the load balancer")
            .command("sysctl -w net.ipv4.conf.all.arp_ignore=1"),
        Some(value) => Finding::ok(CHECK, &nic.name, format!("arp_ignore is {value}")),
        None => unreadable(CHECK, nic),
    }
}

fn arp_announce(all: Conf, nic: &Nic) -> Finding {
    const CHECK: &str = "arp-announce";
    match all.arp_announce.max(nic.conf.arp_announce) {
        Some(0) => Finding::fail(CHECK, &nic.name, "arp_announce is 0")
            .why("this host asks by ARP in the name of the VIP, and the router learns that the VIP is here")
            .command("sysctl -w net.ipv4.conf.all.arp_announce=2"),
        Some(1) => Finding::note(CHECK, &nic.name, "arp_announce is 1")
            .why("it keeps VIPs out of ARP only where they are in no network of the interface")
            .command("sysctl -w net.ipv4.conf.all.arp_announce=2"),
        Some(value) => Finding::ok(CHECK, &nic.name, format!("arp_announce is {value}")),
        None => unreadable(CHECK, nic),
    }
}

pub(super) fn rp_filter(all: Conf, nic: &Nic) -> Finding {
    const CHECK: &str = "rp-filter";
    match all.rp_filter.max(nic.conf.rp_filter) {
        Some(1) => Finding::warn(CHECK, &nic.name, "rp_filter is strict (1)")
            .why("packets are dropped without a word from clients to whom the way back is not the interface they came by")
            .command("sysctl -w net.ipv4.conf.all.rp_filter=2"),
        Some(value) => Finding::ok(CHECK, &nic.name, format!("rp_filter is {value}")),
        None => unreadable(CHECK, nic),
    }
}

fn unreadable(check: &str, nic: &Nic) -> Finding {
    Finding::note(check, &nic.name, "the setting cannot be read")
        .remedy("see that /proc/sys/net is mounted")
}

fn ipv6(nic: &Nic) -> Finding {
    const CHECK: &str = "ipv6";
    if !nic.conf.no_ipv6 {
        return Finding::ok(CHECK, &nic.name, "IPv6 is on");
    }
    // sysctl takes a slash for a dot in a name.
    let key = nic.name.replace('.', "/");
    Finding::fail(CHECK, &nic.name, "IPv6 is switched off")
        .why("packets for IPv6 VIPs are dropped")
        .command(format!(
            "sysctl -w {}",
            word(&format!("net.ipv6.conf.{key}.disable_ipv6=0"))
        ))
}

/// Whether a server is there; `None` where no port is known.
fn listening(vip: &Dialled, facts: &Server) -> Option<Finding> {
    const CHECK: &str = "listening";
    let port = vip.port.filter(|port| *port > 0)?;
    let is_tcp = vip.protocol == crate::config::Protocol::Tcp;
    let takes = |address: std::net::IpAddr| {
        let is_every = address.is_unspecified()
            && (address.is_ipv4() == vip.address.is_ipv4()
                || address.is_ipv6() && !facts.is_v6_only);
        is_every || address == vip.address
    };
    let mut sockets = facts.sockets.iter();
    let found = sockets.any(|s| s.is_tcp == is_tcp && s.port == port && takes(s.address));
    let protocol = vip.protocol.as_str();
    if found {
        return Some(Finding::ok(
            CHECK,
            vip,
            format!("a server takes {protocol}"),
        ));
    }
    let finding = Finding::fail(CHECK, vip, format!("no server takes {protocol} there"));
    Some(
        finding
            .why("the kernel refuses connections to it, and clients see that; ports are not translated")
            .remedy("start the server, on the VIP or on every address; what listens:")
            .command(if is_tcp { "ss -ltn" } else { "ss -lun" }),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{held, level, of, server},
        *,
    };
    use crate::doctor::{
        facts::Listening,
        finding::Level::{Fail, Note, Ok as Fine, Warn},
    };

    fn wanted() -> Wanted {
        Wanted {
            vips: ["203.0.113.10", "2001:db8:a::10"]
                .map(|vip| vip.parse().unwrap())
                .into(),
            gue_port: 6080,
            ..Wanted::default()
        }
    }

    fn checked(change: impl FnOnce(&mut Server)) -> Vec<Finding> {
        let mut facts = server();
        change(&mut facts);
        judge(&facts, &wanted()).findings
    }

    fn conf(facts: &mut Server) -> &mut Conf {
        &mut facts.net.nics.get_mut("eth0").unwrap().conf
    }

    #[test]
    fn a_good_server_is_all_right() {
        let findings = checked(|_| {});
        assert!(findings.iter().all(|f| f.level == Fine), "{findings:?}");
        for check in [
            "link",
            "vip-address",
            "arp-ignore",
            "arp-announce",
            "rp-filter",
            "ipv6",
        ] {
            assert!(!of(&findings, check).is_empty(), "{check}");
        }
    }

    #[test]
    fn a_configuration_of_others_is_told() {
        let wanted = Wanted {
            is_stranger: true,
            ..wanted()
        };
        assert_eq!(level(&judge(&server(), &wanted).findings, "backend"), Fail);
    }

    #[test]
    fn links_must_be_there_and_up() {
        let down = checked(|facts| facts.net.nics.get_mut("lo").unwrap().is_up = false);
        assert_eq!(of(&down, "link")[0].commands, ["ip link set dev lo up"]);
        assert_eq!(level(&checked(|facts| facts.facing.clear()), "link"), Fail);
        let other = checked(|facts| facts.facing = vec!["eth7".to_owned()]);
        assert_eq!(level(&other, "link"), Fail);
    }

    #[test]
    fn a_vip_must_be_on_lo_alone() {
        let missing = checked(|facts| facts.net.addresses.truncate(2));
        let commands: Vec<_> = of(&missing, "vip-address")
            .iter()
            .flat_map(|f| &f.commands)
            .collect();
        assert_eq!(
            commands,
            [
                "ip address add 203.0.113.10/32 dev lo",
                "ip address add 2001:db8:a::10/128 dev lo nodad"
            ]
        );
        let loud = checked(|facts| facts.net.addresses[2] = held("203.0.113.10", 24, "eth0"));
        assert_eq!(level(&loud, "vip-address"), Fail);
        assert_eq!(
            of(&loud, "vip-address")[0].commands,
            [
                "ip address del 203.0.113.10/24 dev eth0",
                "ip address add 203.0.113.10/32 dev lo"
            ]
        );
        let both = checked(|facts| facts.net.addresses.push(held("203.0.113.10", 24, "eth0")));
        assert_eq!(
            of(&both, "vip-address")[0].commands,
            ["ip address del 203.0.113.10/24 dev eth0"]
        );
        let wide = checked(|facts| facts.net.addresses[2].prefix = 24);
        assert_eq!(level(&wide, "vip-address"), Warn);
        let waiting = checked(|facts| facts.net.addresses[3].is_tentative = true);
        assert_eq!(level(&waiting, "vip-address"), Fail);
        let dummy = checked(|facts| {
            let dummy = Nic {
                name: "dummy0".to_owned(),
                kind: Some("dummy".to_owned()),
                ..Nic::default()
            };
            facts.net.nics.insert("dummy0".to_owned(), dummy);
            facts.net.addresses[2].interface = "dummy0".to_owned();
        });
        assert_eq!(level(&dummy, "vip-address"), Fine);
    }

    #[test]
    fn arp_must_keep_vips_secret_and_the_larger_setting_counts() {
        let loud = checked(|facts| conf(facts).arp_ignore = Some(0));
        assert_eq!(level(&loud, "arp-ignore"), Fail);
        assert_eq!(
            of(&loud, "arp-ignore")[0].commands,
            ["sysctl -w net.ipv4.conf.all.arp_ignore=1"]
        );
        let asks = checked(|facts| conf(facts).arp_announce = Some(0));
        assert_eq!(level(&asks, "arp-announce"), Fail);
        let halfway = checked(|facts| conf(facts).arp_announce = Some(1));
        assert_eq!(level(&halfway, "arp-announce"), Note);
        let by_all = checked(|facts| {
            *conf(facts) = Conf {
                rp_filter: Some(1),
                arp_ignore: Some(0),
                arp_announce: Some(0),
                no_ipv6: false,
            };
            facts.net.all = Conf {
                rp_filter: Some(2),
                arp_ignore: Some(1),
                arp_announce: Some(2),
                no_ipv6: false,
            };
        });
        assert!(by_all.iter().all(|f| f.level == Fine), "{by_all:?}");
        let unknown = checked(|facts| conf(facts).arp_ignore = None);
        assert_eq!(level(&unknown, "arp-ignore"), Note);
    }

    #[test]
    fn a_strict_filter_is_warned_of() {
        let strict = checked(|facts| conf(facts).rp_filter = Some(1));
        assert_eq!(level(&strict, "rp-filter"), Warn);
        assert_eq!(
            of(&strict, "rp-filter")[0].commands,
            ["sysctl -w net.ipv4.conf.all.rp_filter=2"]
        );
    }

    #[test]
    fn ipv6_must_be_on() {
        let off = checked(|facts| conf(facts).no_ipv6 = true);
        assert_eq!(level(&off, "ipv6"), Fail);
        assert_eq!(
            of(&off, "ipv6")[0].commands,
            ["sysctl -w net.ipv6.conf.eth0.disable_ipv6=0"]
        );
    }

    #[test]
    fn a_server_must_listen_on_the_vip() {
        let judge = |dialled: &str, sockets: &[(bool, &str, u16)], is_v6_only: bool| {
            let sockets = sockets.iter().map(|(is_tcp, address, port)| Listening {
                is_tcp: *is_tcp,
                address: address.parse().unwrap(),
                port: *port,
            });
            let facts = Server {
                sockets: sockets.collect(),
                is_v6_only,
                ..server()
            };
            listening(&dialled.parse().unwrap(), &facts).map(|found| found.level)
        };
        let web = "203.0.113.10:443";
        assert_eq!(judge("203.0.113.10", &[], false), None);
        assert_eq!(judge(web, &[], false), Some(Fail));
        assert_eq!(
            judge(web, &[(true, "203.0.113.10", 443)], false),
            Some(Fine)
        );
        assert_eq!(judge(web, &[(true, "0.0.0.0", 443)], false), Some(Fine));
        assert_eq!(judge(web, &[(true, "::", 443)], false), Some(Fine));
        assert_eq!(judge(web, &[(true, "::", 443)], true), Some(Fail));
        assert_eq!(judge(web, &[(true, "127.0.0.1", 443)], false), Some(Fail));
        assert_eq!(judge(web, &[(true, "0.0.0.0", 80)], false), Some(Fail));
        assert_eq!(judge(web, &[(false, "0.0.0.0", 443)], false), Some(Fail));
        assert_eq!(
            judge("203.0.113.10:443/udp", &[(false, "0.0.0.0", 443)], false),
            Some(Fine)
        );
        assert_eq!(
            judge("[2001:db8:a::10]:53/udp", &[(false, "0.0.0.0", 53)], false),
            Some(Fail)
        );
    }
}
