use super::{
    super::testing::{balancer, config, held, level, nic, of},
    *,
};
use crate::{
    config::Secret,
    doctor::finding::Level::{Fail, Note, Ok as Fine, Warn},
};

fn checked(change: impl FnOnce(&mut Balancer)) -> Vec<Finding> {
    let mut facts = balancer();
    change(&mut facts);
    check(&facts, &config())
}

#[test]
fn a_good_node_is_all_right() {
    let findings = checked(|_| {});
    assert!(findings.iter().all(|f| f.level == Fine), "{findings:?}");
}

#[test]
fn a_short_seed_is_noted_and_not_shown() {
    let mut config = config();
    config.node.seed = Secret::new("tiny".to_owned());
    let found = seed(&config);
    assert_eq!(found.level, Note);
    assert!(!format!("{found:?}").contains("tiny"), "{found:?}");
}

#[test]
fn files_that_cannot_be_made_fail() {
    let findings = checked(|facts| facts.unwritable = vec![("state_file", "/var/lib/weir".into())]);
    assert_eq!(level(&findings, "files"), Fail);
    let commands = &of(&findings, "files")[0].commands;
    assert_eq!(commands, &["sudo install -d -o \"$(id -u)\" /var/lib/weir"]);
}

#[test]
fn a_port_that_is_taken_fails() {
    let findings = checked(|facts| facts.metrics = Some("address in use".to_owned()));
    assert_eq!(level(&findings, "metrics-listen"), Fail);
    assert!(of(&checked(|_| {}), "metrics-listen").is_empty());
}

#[test]
fn a_vip_of_ones_own_is_warned_of() {
    let findings = checked(|facts| facts.net.addresses.push(held("203.0.113.10", 32, "lo")));
    assert_eq!(level(&findings, "vip-local"), Warn);
    let commands = &of(&findings, "vip-local")[0].commands;
    assert_eq!(commands, &["ip address del 203.0.113.10/32 dev lo"]);
}

#[test]
fn a_foreign_source_is_warned_of() {
    let findings = checked(|facts| facts.net.addresses.retain(|held| held.address.is_ipv6()));
    assert_eq!(level(&findings, "encap-source"), Warn);
    let commands = &of(&findings, "encap-source")[0].commands;
    assert_eq!(commands, &["ip address add 10.0.0.1/32 dev eth0"]);
}

#[test]
fn several_interfaces_want_loose_filters() {
    let mut facts = balancer();
    let mut config = config();
    let bad = Conf {
        rp_filter: Some(1),
        arp_ignore: Some(0),
        ..nic().conf
    };
    facts.net.nics.get_mut("eth0").unwrap().conf = bad;
    let one = sysctls(&facts.net, &config);
    assert!(one.iter().all(|f| f.level == Fine), "{one:?}");
    config.node.interfaces.push("eth1".to_owned());
    let two = sysctls(&facts.net, &config);
    assert_eq!(
        (level(&two, "rp-filter"), level(&two, "arp-ignore")),
        (Note, Note)
    );
    // The larger of both counts.
    facts.net.all.rp_filter = Some(2);
    facts.net.all.arp_ignore = Some(1);
    let mended = sysctls(&facts.net, &config);
    assert!(mended.iter().all(|f| f.level == Fine), "{mended:?}");
}
