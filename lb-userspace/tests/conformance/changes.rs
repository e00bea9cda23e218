//! Slots that change hands: which owner a packet goes to, by the state of its slot and what came before.
//!
//! What is remembered meanwhile, and what time and death do to it, is in [`super::pins`].

use lb_common::reason::Reason;
use lb_userspace::dataplane::bpf::Action;

use super::{
    case::{Case, answers, drops, family},
    extensions::{HOP_BY_HOP, PADDING},
    frame::{Tag, back, frame, icmp, sent, vlan},
    icmp_errors::quote,
    ip::{FAMILIES, Family, Host, Ip, tcp, udp, udp_to},
    too_big::{sized, told},
    world::{self, MTU, port},
};

/// The owner that a slot goes to.
pub(crate) const NEW: u16 = 0;
/// The owner before.
pub(crate) const OLD: u16 = 1;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// The first sequence number of every connection here.
pub(crate) const FIRST: u32 = 1000;
/// How far behind it a packet still fits it.
const WINDOW: u32 = 0x1_0000;

/// A segment of a client's.
pub(crate) fn segment(family: Family, port: u16, client: u16, control: u8, sequence: u32) -> Ip {
    let mut ip = tcp(family, port);
    ip.payload[..2].copy_from_slice(&client.to_be_bytes());
    ip.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
    ip.payload[13] = control;
    ip
}

/// A datagram of a client's.
pub(crate) fn datagram(family: Family, port: u16, client: u16) -> Ip {
    let mut ip = udp(family, port);
    ip.payload[..2].copy_from_slice(&client.to_be_bytes());
    ip
}

/// `ip` goes to the owner `which` of the slots of `port`.
fn goes(name: String, tags: &[Tag], ip: &Ip, port: u16, which: u16) -> Case {
    let service = world::service(family(ip), ip.protocol, port, which);
    // No outer header here: the hash is seen nowhere.
    let out = sent(&service, tags, ip, 0);
    Case::new(name, (Action::Tx, Reason::Forwarded), frame(tags, ip), out)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        cases.extend(unknown(family));
        cases.extend(known(family));
        cases.extend(nobody(family));
        cases.extend(shapes(family));
        cases.extend(fragments(family));
        cases.extend(errors(family));
        let ip = sized(family, port::IPIP4_MOVING, MTU);
        cases.push(answers(
            format!("{family:?}: a packet too big for the outer header is answered"),
            Reason::TooBigAnswered,
            ip.frame(),
            back(&[], &told(&ip, family, MTU - 20)),
        ));
    }
    cases
}

/// The first packet that is seen of a flow.
fn unknown(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut client = 41000;
    for (port, state, of_syn, of_others) in [
        (port::HOLDING, "Holding", NEW, NEW),
        (port::MOVING, "Moving", NEW, OLD),
        (port::SETTLING, "Settling", NEW, NEW),
    ] {
        for (control, word, which) in [
            (SYN, "a SYN", of_syn),
            (SYN | 0xc0, "a SYN that offers ECN", of_syn),
            (ACK, "a bare ACK", of_others),
            (SYN | ACK, "a SYN with ACK", of_others),
            (SYN | FIN, "a SYN with FIN", of_others),
            (SYN | RST, "a SYN with RST", of_others),
            (RST, "a RST", of_others),
            (FIN | ACK, "a FIN", of_others),
            (0, "a segment without flags", of_others),
        ] {
            client += 1;
            let ip = segment(family, port, client, control, FIRST);
            let name = format!("{family:?}, {state}: {word} of a flow that is not known");
            cases.push(goes(name, &[], &ip, port, which));
        }
        let ip = datagram(family, port, client);
        let name = format!("{family:?}, {state}: a datagram of a flow that is not known");
        cases.push(goes(name, &[], &ip, port, of_others));
    }
    cases
}

/// What comes before, as (control, sequence); what comes then; and where it goes, in a Moving slot.
type Story = (&'static str, &'static [(u8, u32)], (u8, u32), u16);

const STORIES: [Story; 19] = [
    ("the same SYN again", &[(SYN, FIRST)], (SYN, FIRST), NEW),
    ("the handshake's end", &[(SYN, FIRST)], (ACK, FIRST + 1), NEW),
    ("data before it", &[(SYN, FIRST)], (ACK, FIRST + 1400), NEW),
    ("the last that fits", &[(SYN, FIRST)], (ACK, FIRST + WINDOW), NEW),
    ("one beyond", &[(SYN, FIRST)], (ACK, FIRST + WINDOW + 1), OLD),
    ("one before", &[(SYN, FIRST)], (ACK, FIRST - 1), OLD),
    (
        "a sequence number that wraps",
        &[(SYN, u32::MAX)],
        (ACK, 0),
        NEW,
    ),
    (
        "a proven flow, wherever its numbers are",
        &[(SYN, FIRST), (ACK, FIRST + 1)],
        (ACK, FIRST.wrapping_add(0x8000_0000)),
        NEW,
    ),
    (
        "a proven flow's port anew",
        &[(SYN, FIRST), (ACK, FIRST + 1)],
        (SYN, 77_000_000),
        NEW,
    ),
    (
        "a later SYN renews the number",
        &[(SYN, FIRST), (SYN, 77_000_000)],
        (ACK, 77_000_001),
        NEW,
    ),
    (
        "the first number is forgotten then",
        &[(SYN, FIRST), (SYN, 77_000_000)],
        (ACK, FIRST + 1),
        OLD,
    ),
    ("an old flow again", &[(ACK, 5)], (ACK, 6), OLD),
    ("a SYN of an old flow", &[(ACK, 5)], (SYN, FIRST), OLD),
    (
        "a forger's SYN does not move an old flow",
        &[(ACK, 5), (SYN, FIRST)],
        (ACK, 6),
        OLD,
    ),
    (
        "a RST that answers a challenge to the SYN",
        &[(SYN, FIRST)],
        (RST, 77_000_000),
        NEW,
    ),
    (
        "the SYN after that RST",
        &[(SYN, FIRST), (RST, 77_000_000)],
        (SYN, FIRST),
        NEW,
    ),
    (
        "the same where an old flow is remembered",
        &[(ACK, 5), (FIN | ACK, 6), (SYN, FIRST)],
        (RST, 77_000_000),
        NEW,
    ),
    (
        "a RST with ACK ends an old flow whose SYN was forged",
        &[(SYN, FIRST)],
        (RST | ACK, 77_000_000),
        OLD,
    ),
    (
        "one that fits no SYN was old, and stays so",
        &[(SYN, FIRST), (ACK, 5), (ACK, 6)],
        (ACK, 7),
        OLD,
    ),
];

fn known(family: Family) -> Vec<Case> {
    let stories = STORIES.iter().zip(42000..);
    let mut cases: Vec<Case> = stories
        .map(|((name, before, (control, sequence), which), client)| {
            let one = |control, sequence| segment(family, port::MOVING, client, control, sequence);
            let name = format!("{family:?}, Moving: {name}");
            let before = before.iter().map(|(c, s)| one(*c, *s).frame()).collect();
            goes(name, &[], &one(*control, *sequence), port::MOVING, *which).after(before)
        })
        .collect();
    let ip = datagram(family, port::MOVING, 42100);
    let name = format!("{family:?}, Moving: a datagram of a known flow");
    cases.push(goes(name, &[], &ip, port::MOVING, OLD).after(vec![ip.frame()]));
    cases
}

/// There is no owner to go to.
fn nobody(family: Family) -> Vec<Case> {
    let at = |port, client, control| segment(family, port, client, control, FIRST);
    let name = |what: &str| format!("{family:?}: {what}");
    vec![
        drops(
            name("a SYN in a slot that moves to nobody"),
            Reason::NoBackend,
            at(port::LOST, 43000, SYN).frame(),
        ),
        goes(
            name("a bare ACK in a slot that moves to nobody"),
            &[],
            &at(port::LOST, 43001, ACK),
            port::LOST,
            OLD,
        ),
        drops(
            name("a bare ACK in a slot that has moved to nobody"),
            Reason::NoBackend,
            at(port::GONE, 43002, ACK).frame(),
        ),
    ]
}

/// Tags, options and extension headers.
fn shapes(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut client = 44000;
    for (control, which) in [(SYN, NEW), (ACK, OLD)] {
        for tags in [[vlan(7)].as_slice(), &[vlan(7), vlan(8)]] {
            client += 1;
            let ip = segment(family, port::MOVING, client, control, FIRST);
            let name = format!("{family:?}, Moving: {} tags, flags {control}", tags.len());
            cases.push(goes(name, tags, &ip, port::MOVING, which));
        }
        client += 1;
        let ip = segment(family, port::MOVING, client, control, FIRST);
        let ip = match family {
            Family::V4 => ip.options(&[0x94, 4, 0, 0]),
            Family::V6 => ip.extension(HOP_BY_HOP, &PADDING),
        };
        let name = format!("{family:?}, Moving: options, flags {control}");
        cases.push(goes(name, &[], &ip, port::MOVING, which));
    }
    cases
}

fn fragments(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let data = [0x77; 64];
    let whole = udp_to(family, family.vip(), port::MOVING, &data);
    let syn = {
        let mut ip = segment(family, port::MOVING, 45000, SYN, FIRST);
        ip.payload.extend(data);
        ip
    };
    for (whole, id, kind, which) in [(whole, 700, "datagram", OLD), (syn, 701, "SYN", NEW)] {
        let first = whole.clone().fragment(id, 0, 40, true);
        let later = whole.clone().fragment(id, 40, 16, true);
        cases.push(goes(
            format!("{family:?}, Moving: the first fragment of a {kind}"),
            &[],
            &first,
            port::MOVING,
            which,
        ));
        cases.push(
            goes(
                format!("{family:?}, Moving: a later fragment follows the first of a {kind}"),
                &[],
                &later,
                port::MOVING,
                which,
            )
            .after(vec![first.frame()]),
        );
    }
    cases
}

/// ICMP errors reach the flow's owner.
fn errors(family: Family) -> Vec<Case> {
    let error = |client: u16| {
        let mut quote = quote(family, 6, port::MOVING);
        quote.payload[2..4].copy_from_slice(&client.to_be_bytes());
        let (router, kind, code) = match family {
            Family::V4 => (Host::V4([192, 0, 2, 1]), 3, 4),
            Family::V6 => (Host::v6(1, 0xee), 2, 0),
        };
        let rest = [0, 0, 5, 0];
        icmp(router, family.vip(), kind, code, rest, &quote.bytes())
    };
    let about = |name: &str, client: u16, before: &[(u8, u32)], which| {
        let error = error(client);
        let service = world::service(family, 6, port::MOVING, which);
        let before = before
            .iter()
            .map(|(c, s)| segment(family, port::MOVING, client, *c, *s).frame());
        Case::new(
            format!("{family:?}, Moving: an ICMP error about {name}"),
            (Action::Tx, Reason::IcmpError),
            error.frame(),
            sent(&service, &[], &error, 0),
        )
        .after(before.collect())
    };
    let proven = [(SYN, FIRST), (ACK, FIRST + 1)];
    vec![
        about("a flow that is not known", 46000, &[], OLD),
        about("an old flow", 46001, &[(ACK, 5)], OLD),
        about("a flow that begins", 46002, &[(SYN, FIRST)], NEW),
        about("a proven flow", 46003, &proven, NEW),
        about("a flow whose SYN may be forged", 46004, &[(SYN, FIRST), (ACK, 5)], OLD),
    ]
}
