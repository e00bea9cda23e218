//! ARP and neighbour solicitations for VIPs, announced by L2 or not.

use etherparse::{ArpEthIpv4Packet, ArpOperation};
use lb_common::reason::Reason;

use super::{
    case::{Case, answers, passes},
    frame::{NODE, ROUTER, Tag, ethernet, icmp, vlan},
    ip::{Family, Host, Ip},
};

const BROADCAST: [u8; 6] = [0xff; 6];
/// Who asks.
const NEIGHBOUR_V4: [u8; 4] = [203, 0, 113, 1];
const NEIGHBOUR_V6: Host = Host::V6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const UNSPECIFIED: Host = Host::V6([0; 16]);

pub(crate) fn cases() -> Vec<Case> {
    [arp(), solicitations(), unsound()].concat()
}

fn octets(host: Host) -> [u8; 4] {
    match host {
        Host::V4(octets) => octets,
        Host::V6(_) => panic!("ARP is for IPv4"),
    }
}

fn asks(sender: [u8; 4], target: Host) -> ArpEthIpv4Packet {
    ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: ROUTER,
        sender_ipv4: sender,
        target_mac: [0; 6],
        target_ipv4: octets(target),
    }
}

fn arp_frame(to: [u8; 6], from: [u8; 6], tags: &[Tag], packet: &ArpEthIpv4Packet) -> Vec<u8> {
    ethernet(to, from, tags, 0x0806, &packet.to_bytes())
}

/// A request is answered to whom it names as its sender.
fn told(name: &str, tags: &[Tag], request: &ArpEthIpv4Packet, destination: [u8; 6]) -> Case {
    let reply = ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: NODE,
        sender_ipv4: request.target_ipv4,
        target_mac: request.sender_mac,
        target_ipv4: request.sender_ipv4,
    };
    answers(
        format!("ARP: {name}"),
        Reason::NeighbourAnswered,
        arp_frame(destination, ROUTER, tags, request),
        arp_frame(ROUTER, NODE, tags, &reply),
    )
}

fn arp() -> Vec<Case> {
    let (vip, quiet) = (Family::V4.vip(), Family::V4.quiet());
    let request = asks(NEIGHBOUR_V4, vip);
    let not_told = |name: &str, packet: &ArpEthIpv4Packet| {
        let frame = arp_frame(BROADCAST, ROUTER, &[], packet);
        passes(format!("ARP: {name}"), Reason::NotIp, frame)
    };
    let edited = |name: &str, offset: usize, byte: u8| {
        let mut frame = arp_frame(BROADCAST, ROUTER, &[], &request);
        frame[14 + offset] = byte;
        passes(format!("ARP: {name}"), Reason::NotIp, frame)
    };
    let mut padded = told("a frame padded to 60 bytes", &[], &request, BROADCAST);
    padded.frame.resize(60, 0);
    padded.out.resize(60, 0);
    let mut short = arp_frame(BROADCAST, ROUTER, &[], &request);
    short.truncate(41);
    vec![
        told("who has the VIP?", &[], &request, BROADCAST),
        told("asked of this node alone", &[], &request, NODE),
        told("behind a tag", &[vlan(7)], &request, BROADCAST),
        told("behind two tags", &[vlan(7), vlan(8)], &request, BROADCAST),
        told("a probe (RFC 5227)", &[], &asks([0; 4], vip), BROADCAST),
        padded,
        not_told("a VIP that is not announced", &asks(NEIGHBOUR_V4, quiet)),
        not_told(
            "a stranger's address",
            &asks(NEIGHBOUR_V4, Family::V4.stranger()),
        ),
        not_told("an announcement (gratuitous)", &asks(octets(vip), vip)),
        not_told(
            "a reply",
            &ArpEthIpv4Packet {
                operation: ArpOperation::REPLY,
                ..request.clone()
            },
        ),
        edited("another kind of hardware", 1, 6),
        edited("another protocol", 2, 0x86),
        edited("hardware addresses of eight bytes", 4, 8),
        edited("protocol addresses of six bytes", 5, 6),
        edited("a reverse request", 7, 3),
        passes("ARP: one byte short", Reason::NotIp, short),
    ]
}

fn target(host: Host) -> Vec<u8> {
    host.octets().to_vec()
}

/// Option with a link-layer address: 1 of the source, 2 of the target.
fn option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [[kind, 1].as_slice(), &mac].concat()
}

/// The solicited-node multicast address of an address, and its MAC address.
fn solicited_node(host: Host) -> (Host, [u8; 6]) {
    let [.., a, b, c] = *host.octets() else {
        panic!("an address is longer")
    };
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    (Host::V6(group), [0x33, 0x33, 0xff, a, b, c])
}

fn solicitation(source: Host, destination: Host, whose: Host, option: &[u8]) -> Ip {
    let body = [target(whose), option.to_vec()].concat();
    icmp(source, destination, 135, 0, [0; 4], &body).ttl(255)
}

fn advertisement(destination: Host, whose: Host, flags: u8) -> Ip {
    let body = [target(whose), option(2, NODE)].concat();
    let ip = icmp(whose, destination, 136, 0, [flags, 0, 0, 0], &body).ttl(255);
    Ip {
        flow_label: 0,
        ..ip
    }
}

fn v6_frame(to: [u8; 6], from: [u8; 6], tags: &[Tag], ip: &Ip) -> Vec<u8> {
    ethernet(to, from, tags, 0x86dd, &ip.bytes())
}

fn solicitations() -> Vec<Case> {
    let vip = Family::V6.vip();
    let (group, group_mac) = solicited_node(vip);
    let answer = advertisement(NEIGHBOUR_V6, vip, 0x60);
    let told = |name: &str, tags: &[Tag], to: Host, mac: [u8; 6], option: &[u8]| {
        answers(
            format!("ND: {name}"),
            Reason::NeighbourAnswered,
            v6_frame(mac, ROUTER, tags, &solicitation(NEIGHBOUR_V6, to, vip, option)),
            v6_frame(ROUTER, NODE, tags, &answer),
        )
    };
    let with_address = option(1, ROUTER);
    let all_nodes = Host::V6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let probe = solicitation(UNSPECIFIED, group, vip, &[]);
    let all_nodes_mac = [0x33, 0x33, 0, 0, 0, 1];
    let not_told = |name: &str, whose: Host| {
        let (group, mac) = solicited_node(whose);
        let ip = solicitation(NEIGHBOUR_V6, group, whose, &option(1, ROUTER));
        let frame = v6_frame(mac, ROUTER, &[], &ip);
        passes(format!("ND: {name}"), Reason::NotVip, frame)
    };
    let strays = advertisement(vip, NEIGHBOUR_V6, 0x60);
    vec![
        told("who has the VIP?", &[], group, group_mac, &with_address),
        told("is the VIP still there?", &[], vip, NODE, &with_address),
        told("without an option", &[], vip, NODE, &[]),
        told("behind a tag", &[vlan(7)], group, group_mac, &with_address),
        told("behind two tags", &[vlan(7), vlan(8)], vip, NODE, &[]),
        answers(
            "ND: an address probe is answered to all (RFC 4862)",
            Reason::NeighbourAnswered,
            v6_frame(group_mac, ROUTER, &[], &probe),
            v6_frame(all_nodes_mac, NODE, &[], &advertisement(all_nodes, vip, 0x20)),
        ),
        not_told("a VIP that is not announced", Family::V6.quiet()),
        not_told("a stranger's address", Family::V6.stranger()),
        passes(
            "ND: an advertisement to the VIP",
            Reason::IcmpOther,
            v6_frame(NODE, ROUTER, &[], &strays),
        ),
    ]
}

/// Solicitations that RFC 4861, section 7.1.1, says are to be discarded: the kernel's to judge.
fn unsound() -> Vec<Case> {
    let vip = Family::V6.vip();
    let (group, mac) = solicited_node(vip);
    let right = || solicitation(NEIGHBOUR_V6, group, vip, &option(1, ROUTER));
    let unsound = |name: &str, ip: &Ip| {
        let frame = v6_frame(mac, ROUTER, &[], ip);
        passes(format!("ND: {name}"), Reason::MalformedIcmp, frame)
    };
    let mut checksum = right();
    checksum.payload[2] ^= 1;
    let with_code = {
        let body = [target(vip), option(1, ROUTER)].concat();
        icmp(NEIGHBOUR_V6, group, 135, 1, [0; 4], &body).ttl(255)
    };
    let mut no_length = option(1, ROUTER);
    no_length[1] = 0;
    vec![
        unsound("from beyond a router (hop limit 254)", &right().ttl(254)),
        unsound("a wrong checksum", &checksum),
        unsound("a code", &with_code),
        unsound(
            "an option of length zero",
            &solicitation(NEIGHBOUR_V6, group, vip, &no_length),
        ),
        unsound(
            "a probe that tells an address",
            &solicitation(UNSPECIFIED, group, vip, &option(1, ROUTER)),
        ),
        unsound(
            "an odd length",
            &solicitation(NEIGHBOUR_V6, group, vip, &[1, 1, 2]),
        ),
    ]
}
