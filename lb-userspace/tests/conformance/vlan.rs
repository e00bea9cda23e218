//! VLAN tags: kept, set by the backend, or stripped.

use lb_common::reason::Reason;
use lb_userspace::dataplane::bpf::Action;

use super::{
    case::{Case, forwards, passes},
    frame::{Tag, frame, sent, service as service_tag, vlan},
    ip::{FAMILIES, Family, tcp, tcp_to, udp},
    world::{self, WAYS, flow_hash, port},
};

const STACKS: [(&str, &[Tag]); 5] = [
    ("no tag", &[]),
    ("one tag", &[vlan(7)]),
    ("a tag with priority and drop eligible", &[vlan(0xf007)]),
    ("two tags", &[vlan(7), vlan(8)]),
    ("a service tag and a tag", &[service_tag(100), vlan(8)]),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (way, port) in WAYS {
            for (stack, tags) in &STACKS[1..] {
                let name = format!("{family:?} in {way:?}: {stack} stays");
                cases.push(forwards(name, tags, &tcp(family, port), port));
            }
        }
        for (port, set) in [
            (port::L2_UNTAGGED, [].as_slice()),
            (port::L2_TAG, &[vlan(0x2007)]),
            (port::L2_TWO_TAGS, &[service_tag(100), vlan(200)]),
            (port::IPIP4_TAG, &[vlan(0x2007)]),
            (port::GUE6_TWO_TAGS, &[service_tag(100), vlan(200)]),
        ] {
            for (stack, tags) in STACKS {
                let name = format!("{family:?}: {stack} in, the backend's {} out", set.len());
                let name = format!("{name} (port {port})");
                cases.push(leaves(name, family, port, tags, set, Action::Tx));
            }
        }
        for port in [port::L2_REDIRECT, port::IPIP4_REDIRECT] {
            for (stack, tags) in STACKS {
                let name = format!("{family:?}: {stack} ends where the interface does ({port})");
                cases.push(leaves(name, family, port, tags, &[], Action::Redirect));
            }
        }
        cases.push(passes(
            format!("{family:?}: a stranger's tag is left alone"),
            Reason::NotVip,
            frame(&[vlan(7)], &tcp_to(family, family.stranger(), port::L2, b"x")),
        ));
        cases.push(passes(
            format!("{family:?}: three tags are left to the kernel"),
            Reason::VlanTags,
            frame(&[vlan(7), vlan(8), vlan(9)], &tcp(family, port::L2)),
        ));
        cases.push(forwards(
            format!("{family:?}: a priority tag (VLAN 0) is a tag"),
            &[vlan(0)],
            &udp(family, port::GUE4),
            port::GUE4,
        ));
    }
    let mut cut = frame(&[vlan(7)], &tcp(Family::V4, port::L2));
    cut.truncate(17);
    cases.push(passes("a tag cut short", Reason::Truncated, cut));
    let mut other = frame(&[vlan(7)], &tcp(Family::V4, port::L2));
    other[16..18].copy_from_slice(&[0x88, 0xcc]);
    cases.push(passes("LLDP behind a tag", Reason::NotIp, other));
    cases
}

/// A segment that came with `tags` leaves with `set`.
fn leaves(
    name: String,
    family: Family,
    port: u16,
    tags: &[Tag],
    set: &[Tag],
    action: Action,
) -> Case {
    let ip = tcp(family, port);
    let service = world::service(family, 6, port, 0);
    let out = sent(&service, set, &ip, flow_hash(&ip, port));
    Case::new(name, (action, Reason::Forwarded), frame(tags, &ip), out)
}
