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
