use super::{
    super::testing::{balancer, config, level, of, status, vip},
    *,
};
use crate::{
    api::AnnounceStatus,
    doctor::{
        facts::{Rule, Speaker},
        finding::Level,
    },
};

const VIP: &str = "203.0.113.10";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn session(name: &str, is_established: bool, told: &[&str]) -> Session {
    Session {
        name: name.to_owned(),
        is_established,
        state: if is_established {
            "Established"
        } else {
            "Active"
        }
        .to_owned(),
        told: told.iter().map(|text| address(text)).collect(),
    }
}

/// What is found of a node whose one VIP is announced and told, but for a change.
fn checked(change: impl FnOnce(&mut Balancer, &mut Config)) -> Vec<Finding> {
    let (mut facts, mut config) = (balancer(), config());
    config.vips[0].announce = Announce::Route;
    facts.routing = Some(Routing {
        routes: Ok([address(VIP)].into()),
        rules: Ok(Vec::new()),
        speakers: vec![Speaker {
            name: "BIRD",
            said: Ok(vec![session("router4", true, &[VIP])]),
        }],
    });
    change(&mut facts, &mut config);
    check(&facts, &config)
}

fn routing(facts: &mut Balancer) -> &mut Routing {
    facts.routing.as_mut().unwrap()
}

fn says(facts: &mut Balancer, sessions: Vec<Session>) {
    routing(facts).speakers[0].said = Ok(sessions);
}

#[test]
fn nothing_is_wrong_with_a_node_that_is_told_of() {
    let findings = checked(|_, _| {});
    assert_eq!(findings.len(), 3);
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok),
        "{findings:?}"
    );
    let none = checked(|facts, _| facts.routing = None);
    assert!(none.is_empty());
}

#[test]
fn a_rule_that_leads_to_the_table_is_taken_away() {
    let findings = checked(|facts, _| {
        let rule = |is_v4, priority| Rule { is_v4, priority };
        routing(facts).rules = Ok(vec![rule(true, 100), rule(false, 200)]);
    });
    assert_eq!(level(&findings, "route-rule"), Level::Fail);
    assert_eq!(
        of(&findings, "route-rule")[0].commands,
        [
            "ip -4 rule del priority 100 table 4077",
            "ip -6 rule del priority 200 table 4077"
        ]
    );
    let findings = checked(|facts, _| routing(facts).rules = Err("no".to_owned()));
    assert_eq!(level(&findings, "route-rule"), Level::Warn);
}

#[test]
fn a_route_that_is_missing_hurts_where_it_is_wanted() {
    let missing = |daemon: Daemon| {
        let findings = checked(|facts, _| {
            routing(facts).routes = Ok(BTreeSet::new());
            facts.daemon = daemon;
        });
        // What is not in the table need not be told.
        assert_eq!(level(&findings, "bgp"), Level::Ok);
        level(&findings, "vip-routes")
    };
    let answers = |wanted| {
        let mut vip = vip(true, 65_536, false);
        vip.announce = Some(AnnounceStatus {
            by: "route".to_owned(),
            announced: false,
            wanted,
            reason: String::new(),
            min_healthy: 1,
        });
        let vips = vec![vip];
        Daemon::Answers(Box::new(Status { vips, ..status() }))
    };
    assert_eq!(missing(answers(true)), Level::Fail);
    assert_eq!(missing(answers(false)), Level::Note);
    assert_eq!(missing(Daemon::Away), Level::Note);
    let findings = checked(|facts, _| routing(facts).routes = Err("no".to_owned()));
    assert_eq!(level(&findings, "vip-routes"), Level::Warn);
}

#[test]
fn without_a_speaker_or_a_session_nobody_is_told() {
    let findings = checked(|facts, _| routing(facts).speakers.clear());
    assert_eq!(level(&findings, "bgp"), Level::Warn);
    let findings = checked(|facts, _| routing(facts).speakers[0].said = Err("no".to_owned()));
    assert_eq!(level(&findings, "bgp"), Level::Warn);
    for sessions in [vec![], vec![session("router4", false, &[])]] {
        let findings = checked(|facts, _| says(facts, sessions));
        assert_eq!(level(&findings, "bgp"), Level::Fail);
    }
    // One of two is there: what is lost is the other.
    let two = vec![
        session("router4", true, &[VIP]),
        session("other4", false, &[]),
    ];
    let findings = checked(|facts, _| says(facts, two));
    assert_eq!(level(&findings, "bgp"), Level::Warn);
}

/// As docs/fleet.md has it for FRR before 10.
#[test]
fn two_speakers_may_share_the_families() {
    const V6: &str = "2001:db8::10";
    let beside = |sessions: Result<Vec<Session>, String>| {
        let findings = checked(|facts, config| {
            let mut second = config.vips[0].clone();
            second.address = address(V6);
            config.vips.push(second);
            let routing = routing(facts);
            routing.routes = Ok([address(VIP), address(V6)].into());
            routing.speakers.push(Speaker {
                name: "FRR",
                said: sessions,
            });
        });
        let found = of(&findings, "bgp");
        found
            .iter()
            .map(|finding| finding.level)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        beside(Ok(vec![session("router6", true, &[V6])])),
        [Level::Ok, Level::Ok]
    );
    // Nobody tells of it.
    assert_eq!(beside(Ok(Vec::new())), [Level::Fail, Level::Note]);
    // Perhaps the one that does not answer does.
    assert_eq!(beside(Err("no".to_owned())), [Level::Ok, Level::Warn]);
}

#[test]
fn a_speaker_that_keeps_routes_to_itself_is_found() {
    let kept = |name: &'static str, table: u32, vip: &str| {
        let findings = checked(|facts, config| {
            config.announce.table = table;
            config.vips[0].address = address(vip);
            let routing = routing(facts);
            routing.routes = Ok([address(vip)].into());
            routing.speakers[0].name = name;
            routing.speakers[0].said = Ok(vec![session("router4", true, &["203.0.113.99"])]);
        });
        let found = of(&findings, "bgp");
        assert_eq!(found[0].level, Level::Fail, "{found:?}");
        found[0].remedy.clone().unwrap()
    };
    assert!(kept("BIRD", 4077, VIP).contains("kernel table 4077"));
    assert!(kept("FRR", 4077, VIP).contains("`table = 100`"));
    assert!(kept("FRR", 100, VIP).contains("ip import-table 100"));
    assert!(kept("FRR", 100, "2001:db8::10").contains("IPv4 tables only"));
}

#[test]
fn many_addresses_are_not_all_named() {
    let addresses = |count: u8| (1..=count).map(|last| IpAddr::from([192, 0, 2, last]));
    assert_eq!(
        named(&addresses(3).collect()),
        "192.0.2.1, 192.0.2.2, 192.0.2.3"
    );
    assert!(named(&addresses(5).collect()).ends_with("192.0.2.3 and 2 more"));
}
