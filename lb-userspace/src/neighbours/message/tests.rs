use rtnetlink::packet_route::link::InfoKind;

use super::*;

fn link_of(attributes: Vec<LinkAttribute>) -> Link {
    let mut message = LinkMessage::default();
    message.header.link_layer_type = LinkLayerType::Ether;
    message.header.index = 7;
    message.attributes = attributes;
    let (ifindex, link) = link(&message);
    assert_eq!(ifindex, 7);
    link
}

fn vlan_device(protocol: VlanProtocol) -> Vec<LinkAttribute> {
    vec![
        LinkAttribute::IfName("eth0.100".to_owned()),
        LinkAttribute::Mtu(1496),
        LinkAttribute::Link(2),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![
                InfoVlan::Protocol(protocol),
                InfoVlan::Id(100),
            ])),
        ]),
    ]
}

#[test]
fn reads_vlan_devices() {
    for (protocol, is_service) in [
        (VlanProtocol::Ieee8021Q, false),
        (VlanProtocol::Ieee8021Ad, true),
    ] {
        let link = link_of(vlan_device(protocol));
        let vlan = Vlan {
            lower: Some(2),
            id: 100,
            is_service,
        };
        assert_eq!((link.mtu, link.vlan), (1496, Some(vlan)));
    }
}

#[test]
fn the_lower_interface_of_another_namespace_is_none_of_ours() {
    let mut attributes = vlan_device(VlanProtocol::Ieee8021Q);
    attributes.push(LinkAttribute::LinkNetNsId(0));
    assert_eq!(link_of(attributes).vlan.unwrap().lower, None);
}

#[test]
fn a_link_to_the_other_end_makes_no_vlan_device_and_large_mtus_are_capped() {
    let link = link_of(vec![
        LinkAttribute::Link(2),
        LinkAttribute::Mtu(65_536),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ]);
    assert_eq!((link.mtu, link.vlan), (u16::MAX, None));
}

#[test]
fn reads_the_mtu_of_a_route() {
    let to = IpAddr::from([10, 0, 0, 11]);
    let mut message = RouteMessage::default();
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(2));
    let plain = Route {
        hop: (2, to),
        mtu: None,
    };
    assert_eq!(route(&message, to), Ok(plain));
    for (bytes, mtu) in [(1400, Some(1400)), (0, None), (100_000, Some(u16::MAX))] {
        let mut message = message.clone();
        let metrics = vec![RouteMetric::Advmss(1360), RouteMetric::Mtu(bytes)];
        message.attributes.push(RouteAttribute::Metrics(metrics));
        assert_eq!(route(&message, to), Ok(Route { mtu, ..plain }));
    }
}
