//! Headers that contradict themselves, and frames that end too early: the kernel's, untouched.

use lb_common::reason::Reason;

use super::{
    case::{Case, passes},
    frame::{frame, vlan},
    ip::{Family, Ip, tcp, udp},
    world::port,
};

/// A frame with some bytes changed.
fn edit(ip: &Ip, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = ip.frame();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

pub(crate) fn cases() -> Vec<Case> {
    let v4 = tcp(Family::V4, port::L2);
    let v4_udp = udp(Family::V4, port::L2);
    let v6 = tcp(Family::V6, port::L2);
    let v6_udp = udp(Family::V6, port::L2);
    let edits: [(&str, &Ip, usize, &[u8], Reason); 19] = [
        ("IPv4 with version 5", &v4, 14, &[0x55], Reason::MalformedIp),
        ("IPv4 with version 6", &v4, 14, &[0x65], Reason::MalformedIp),
        ("an IPv4 header of 16 bytes", &v4, 14, &[0x44], Reason::MalformedIp),
        ("an IPv4 header of no bytes", &v4, 14, &[0x40], Reason::MalformedIp),
        ("an IPv4 length of zero", &v4, 16, &[0, 0], Reason::MalformedIp),
        ("an IPv4 length below its header", &v4, 16, &[0, 19], Reason::MalformedIp),
        ("an IPv4 length of a header", &v4, 16, &[0, 20], Reason::MalformedTransport),
        ("an IPv4 length beyond the frame", &v4, 16, &[5, 0xdc], Reason::Truncated),
        ("an IPv4 length of 65,535", &v4, 16, &[0xff; 2], Reason::Truncated),
        ("an IPv4 length below TCP's header", &v4, 16, &[0, 39], Reason::MalformedTransport),
        ("IPv4: TCP with data offset 4", &v4, 46, &[0x40], Reason::MalformedTransport),
        ("IPv4: TCP's options beyond the packet", &v4, 46, &[0xf0], Reason::MalformedTransport),
        ("IPv4: a UDP length of 7", &v4_udp, 38, &[0, 7], Reason::MalformedTransport),
        ("IPv4: a UDP length beyond the packet", &v4_udp, 38, &[0, 23], Reason::MalformedTransport),
        ("IPv6 with version 4", &v6, 14, &[0x40], Reason::MalformedIp),
        ("an IPv6 length beyond the frame", &v6, 18, &[5, 0xdc], Reason::Truncated),
        ("an IPv6 length below TCP's header", &v6, 18, &[0, 19], Reason::MalformedTransport),
        ("an IPv6 length of zero (a jumbogram)", &v6, 18, &[0, 0], Reason::MalformedTransport),
        ("IPv6: a UDP length of zero", &v6_udp, 58, &[0, 0], Reason::MalformedTransport),
    ];
    let mut cases: Vec<Case> = edits
        .into_iter()
        .map(|(name, ip, offset, bytes, reason)| passes(name, reason, edit(ip, offset, bytes)))
        .collect();
    // Only headers cut: a packet cut in its data is longer than its frame, too.
    for (name, ip) in [("IPv4", &v4), ("IPv6", &v6), ("UDP", &v4_udp)] {
        let whole = ip.frame();
        for len in [14, 15, 33, 34, 41, 53, whole.len() - 1] {
            cases.push(passes(
                format!("{name}: a frame of {len} of {} bytes", whole.len()),
                Reason::Truncated,
                whole[..len].to_vec(),
            ));
        }
    }
    let tagged = frame(&[vlan(7), vlan(8)], &v4);
    for len in [15, 17, 19, 21, 22, 41] {
        cases.push(passes(
            format!("two tags: a frame of {len} bytes"),
            Reason::Truncated,
            tagged[..len].to_vec(),
        ));
    }
    cases
}
