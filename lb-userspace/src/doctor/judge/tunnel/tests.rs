use super::{
    super::testing::{carried, held, level, of, server},
    *,
};
use crate::{
    dataplane::bpf::decap::DecapSettings,
    doctor::{
        facts::{Conf, Listening},
        finding::Level::{Fail, Ok as Fine, Warn},
    },
    model::attached::AttachMode,
};

fn wanted(forward: ForwardMode) -> Wanted {
    Wanted {
        vips: vec!["203.0.113.10".parse().unwrap()],
        tunnels: [Tunnel {
            forward,
            is_outer_v4: true,
            is_inner_v4: true,
        }]
        .into(),
        sources: vec!["10.0.0.1".parse().unwrap()],
        gue_port: 6080,
        own: vec!["10.0.0.11".parse().unwrap()],
        is_stranger: false,
    }
}

fn attached(change: impl FnOnce(&mut DecapSettings)) -> Server {
    let mut settings = DecapSettings {
        from: vec!["10.0.0.0/24".parse().unwrap()],
        local: vec!["10.0.0.11".parse().unwrap()],
        gue_ports: vec![6080],
        vips: Vec::new(),
    };
    change(&mut settings);
    let decap = Decap {
        interface: "eth0".to_owned(),
        is_attached: true,
        settings,
    };
    Server {
        decap: Ok(vec![decap]),
        ..server()
    }
}

fn gue(facts: &Server) -> Vec<Finding> {
    check(facts, &wanted(ForwardMode::Gue))
}

#[test]
fn l2_needs_no_tunnel() {
    assert!(check(&server(), &wanted(ForwardMode::L2)).is_empty());
}

#[test]
fn without_decap_and_tunnels_the_command_to_attach_is_printed() {
    let findings = gue(&server());
    assert_eq!(level(&findings, "decap"), Fail);
    assert_eq!(
        of(&findings, "decap")[0].commands,
        ["weir decap attach --interface eth0 --from 10.0.0.1/32"]
    );
    let nowhere = Wanted {
        sources: Vec::new(),
        ..wanted(ForwardMode::Gue)
    };
    let findings = check(&server(), &nowhere);
    let found = of(&findings, "decap")[0];
    assert!(
        found.commands.is_empty() && found.remedy.is_some(),
        "{found:?}"
    );
    let mut facts = server();
    facts.net.nics.get_mut("eth0").unwrap().xdp = Some(carried(false, AttachMode::Native));
    let found = gue(&facts);
    let remedy = of(&found, "decap")[0].remedy.as_ref().unwrap();
    assert!(remedy.contains("id 7, name other"), "{remedy}");
}

#[test]
fn decap_must_be_told_what_comes() {
    let findings = gue(&attached(|_| {}));
    assert!(findings.iter().all(|f| f.level == Fine), "{findings:?}");
    let mend = |change: fn(&mut DecapSettings)| {
        let findings = gue(&attached(change));
        assert_eq!(level(&findings, "decap"), Fail);
        of(&findings, "decap")[0].commands[0].clone()
    };
    assert_eq!(
        mend(|told| told.from = vec!["192.0.2.0/24".parse().unwrap()]),
        "weir decap attach --interface eth0 --from 192.0.2.0/24 --from 10.0.0.1/32"
    );
    assert_eq!(
        mend(|told| told.gue_ports = vec![16080]),
        "weir decap attach --interface eth0 --from 10.0.0.0/24 --gue-port 16080 --gue-port 6080"
    );
    assert_eq!(
        mend(|told| told.vips = vec!["203.0.113.9".parse().unwrap()]),
        "weir decap attach --interface eth0 --from 10.0.0.0/24 --vip 203.0.113.9 --vip 203.0.113.10"
    );
    assert_eq!(
        mend(|told| told.local = vec!["192.0.2.1".parse().unwrap()]),
        "weir decap attach --interface eth0 --from 10.0.0.0/24 --local 192.0.2.1 --local 10.0.0.11"
    );
}

#[test]
fn decap_that_went_or_cannot_be_asked_is_told() {
    let mut facts = attached(|_| {});
    facts.decap.as_mut().unwrap()[0].is_attached = false;
    facts.decap_pins = Some("/run/pins".into());
    let findings = gue(&facts);
    assert_eq!(
        of(&findings, "decap")[0].commands,
        ["weir decap attach --interface eth0 --from 10.0.0.0/24 --pin-path /run/pins"]
    );
    facts.decap = Err("permission denied".to_owned());
    let findings = gue(&facts);
    assert_eq!(level(&findings, "decap"), Warn);
}

#[test]
fn outer_headers_want_room() {
    let mut facts = attached(|_| {});
    facts.net.nics.get_mut("eth0").unwrap().mtu = 1500;
    let findings = gue(&facts);
    assert_eq!(level(&findings, "mtu"), Warn);
    assert_eq!(
        of(&findings, "mtu")[0].commands,
        ["ip link set dev eth0 mtu 1528"]
    );
}

fn with_device(kind: &str, rp_filter: u8) -> Server {
    let mut facts = server();
    let nic = Nic {
        name: "tunl0".to_owned(),
        is_up: true,
        kind: Some(kind.to_owned()),
        conf: Conf {
            rp_filter: Some(rp_filter),
            ..Conf::default()
        },
        ..Nic::default()
    };
    facts.net.nics.insert("tunl0".to_owned(), nic);
    facts.net.addresses.push(held("10.0.0.11", 24, "eth0"));
    facts
}

#[test]
fn the_kernels_tunnels_do_as_well() {
    let ipip = |facts: &Server| check(facts, &wanted(ForwardMode::Ipip));
    assert_eq!(level(&ipip(&with_device("ipip", 0)), "decap"), Fine);
    assert_eq!(level(&ipip(&with_device("sit", 0)), "decap"), Fail);
    let strict = ipip(&with_device("ipip", 1));
    let found = of(&strict, "rp-filter");
    assert_eq!((found[0].subject.as_str(), found[0].level), ("tunl0", Warn));
    // GUE wants a receiver too.
    let mut facts = with_device("ipip", 0);
    assert_eq!(level(&gue(&facts), "decap"), Fail);
    facts.sockets.push(Listening {
        is_tcp: false,
        address: "0.0.0.0".parse().unwrap(),
        port: 6080,
    });
    assert_eq!(level(&gue(&facts), "decap"), Fine);
}
