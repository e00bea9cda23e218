use super::{
    super::testing::{carried, level, nic, of},
    *,
};
use crate::doctor::{
    facts::{Carried, Queues, XdpFeatures},
    finding::Level::{self, Fail, Note, Ok as Fine, Warn},
};

fn checked(change: impl FnOnce(&mut Nic)) -> Vec<Finding> {
    let mut nic = nic();
    change(&mut nic);
    check(&nic, XdpMode::Auto, 2)
}

fn with(check: &str, change: impl FnOnce(&mut Nic)) -> Level {
    level(&checked(change), check)
}

#[test]
fn a_good_interface_is_all_right() {
    let findings = checked(|_| {});
    assert!(findings.iter().all(|f| f.level == Fine), "{findings:?}");
}

#[test]
fn a_link_must_be_ethernet_up_and_carried() {
    assert_eq!(with("link", |nic| nic.is_ethernet = false), Fail);
    assert_eq!(with("link", |nic| nic.has_carrier = false), Fail);
    let down = checked(|nic| nic.is_up = false);
    assert_eq!(of(&down, "link")[0].commands, ["ip link set dev eth0 up"]);
    let missing = absent("eth7", &["eth0"]);
    assert_eq!(missing.level, Fail);
    assert!(missing.what.contains("eth0"), "{}", missing.what);
}

fn of_mode(mode: XdpMode, carried: Option<Carried>, is_able: Option<bool>) -> Finding {
    let mut nic = nic();
    nic.xdp = carried;
    nic.can = is_able.map(|basic| XdpFeatures {
        basic,
        transmit: true,
        scatter: true,
    });
    xdp(&nic, mode)
}

#[test]
fn xdp_is_native_or_said_to_be_slow() {
    use AttachMode::{Generic as G, Native as N};
    for (mode, attached, is_able, expected) in [
        (XdpMode::Auto, Some(N), Some(true), Fine),
        (XdpMode::Auto, Some(G), Some(true), Warn),
        (XdpMode::Auto, Some(G), Some(false), Warn),
        (XdpMode::Generic, Some(G), Some(false), Note),
        (XdpMode::Auto, None, Some(true), Fine),
        (XdpMode::Auto, None, Some(false), Warn),
        (XdpMode::Native, None, Some(false), Fail),
        (XdpMode::Generic, None, Some(false), Note),
        (XdpMode::Auto, None, None, Note),
    ] {
        let attached = attached.map(|attached| carried(true, attached));
        let found = of_mode(mode, attached.clone(), is_able);
        assert_eq!(found.level, expected, "{mode:?} {attached:?} {is_able:?}");
    }
}

#[test]
fn somebody_elses_program_is_named() {
    let found = of_mode(
        XdpMode::Auto,
        Some(carried(false, AttachMode::Native)),
        None,
    );
    assert_eq!(found.level, Fail);
    assert!(found.what.contains("id 7, name other"), "{}", found.what);
    assert_eq!(found.commands, ["ip link set dev eth0 xdp off"]);
    let generic = of_mode(
        XdpMode::Auto,
        Some(carried(false, AttachMode::Generic)),
        None,
    );
    assert_eq!(generic.commands, ["ip link set dev eth0 xdpgeneric off"]);
    let mut decap = carried(false, AttachMode::Native);
    decap.program.name = Some("weir_decap".to_owned());
    let found = of_mode(XdpMode::Auto, Some(decap), None);
    assert_eq!(found.commands, ["weir decap detach --interface eth0"]);
}

#[test]
fn large_frames_want_several_buffers() {
    let jumbo = |scatter: bool| {
        with("frags", |nic| {
            nic.mtu = 9000;
            nic.can = Some(XdpFeatures {
                scatter,
                basic: true,
                transmit: true,
            });
        })
    };
    assert_eq!([true, false].map(jumbo), [Fine, Warn]);
    assert!(of(&checked(|_| {}), "frags").is_empty());
}

#[test]
fn queues_are_as_many_as_cpus_where_they_can_be() {
    let few = |max: u32, kind: Option<&str>| {
        checked(|nic| {
            nic.kind = kind.map(str::to_owned);
            nic.queues = Some(Queues {
                rx: 1,
                tx: 1,
                max_rx: max,
                max_tx: max,
                is_combined: kind.is_none(),
            });
        })
    };
    let physical = few(8, None);
    assert_eq!(level(&physical, "queues"), Warn);
    assert_eq!(
        of(&physical, "queues")[0].commands,
        ["ethtool -L eth0 combined 2"]
    );
    assert_eq!(level(&few(1, None), "queues"), Note);
    let veth = few(8, Some("veth"));
    assert_eq!(level(&veth, "queues"), Note);
    assert_eq!(
        of(&veth, "queues")[0].commands,
        ["ethtool -L eth0 rx 2 tx 2"]
    );
}

#[test]
fn small_rings_are_noted_where_they_can_grow() {
    assert_eq!(with("ring", |nic| nic.ring = Some((256, 4096))), Note);
    assert_eq!(with("ring", |nic| nic.ring = Some((256, 256))), Fine);
}

const ON: Option<Offload> = Some(Offload {
    is_on: true,
    is_fixed: false,
});

#[test]
fn offloads_that_merge_packets_are_warned_of() {
    let found = checked(|nic| nic.offloads.lro = ON);
    assert_eq!(level(&found, "lro"), Warn);
    assert_eq!(of(&found, "lro")[0].commands, ["ethtool -K eth0 lro off"]);
    let found = checked(|nic| nic.offloads.gro_hw = ON);
    assert_eq!(level(&found, "gro-hw"), Warn);
    assert_eq!(
        of(&found, "gro-hw")[0].commands,
        ["ethtool -K eth0 rx-gro-hw off"]
    );
    let fixed = Some(Offload {
        is_on: true,
        is_fixed: true,
    });
    let found = checked(|nic| nic.offloads.lro = fixed);
    assert!(of(&found, "lro")[0].commands.is_empty());
}

#[test]
fn tags_taken_by_the_nic_matter_where_there_are_vlans() {
    assert_eq!(with("vlan-offload", |nic| nic.offloads.vlan_rx = ON), Fine);
    let found = checked(|nic| {
        nic.offloads.vlan_rx = ON;
        nic.has_vlans = true;
    });
    assert_eq!(level(&found, "vlan-offload"), Warn);
    assert_eq!(
        of(&found, "vlan-offload")[0].commands,
        ["ethtool -K eth0 rxvlan off"]
    );
}

#[test]
fn a_veth_wants_a_program_at_its_other_end() {
    assert_eq!(with("veth", |nic| nic.kind = Some("veth".to_owned())), Note);
    assert!(of(&checked(|_| {}), "veth").is_empty());
}
