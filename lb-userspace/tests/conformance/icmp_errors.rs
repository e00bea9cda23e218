//! ICMP errors about a VIP's flow: they reach the flow's own backend.

use lb_common::reason::Reason;
use lb_userspace::dataplane::bpf::Action;

use super::{
    case::{Case, passes},
    extensions::{DESTINATION, HOP_BY_HOP, PADDING},
    frame::{frame, icmp, sent, vlan},
    ip::{CLIENT_PORT, FAMILIES, Family, Host, Ip},
    world::{self, WAYS, port, spread},
};

/// A router on the way to the client.
fn router(family: Family) -> Host {
    match family {
        Family::V4 => Host::V4([192, 0, 2, 1]),
        Family::V6 => Host::v6(1, 0xee),
    }
}

/// What the router quotes: the head of the VIP's packet to the client, with 8 bytes of its payload.
pub(crate) fn quote(family: Family, protocol: u8, port: u16) -> Ip {
    let [s0, s1] = port.to_be_bytes();
    let [d0, d1] = CLIENT_PORT.to_be_bytes();
    Ip::new(family, protocol, vec![s0, s1, d0, d1, 0, 0, 0, 9])
        .from(family.vip())
        .to(family.client())
}

fn error(family: Family, kind: u8, code: u8, quote: &[u8]) -> Ip {
    let rest = [0, 0, 0x05, 0x00];
    icmp(router(family), family.vip(), kind, code, rest, quote)
}

/// The usual error: the path's MTU.
pub(crate) fn too_big(family: Family, quote: &[u8]) -> Ip {
    match family {
        Family::V4 => error(family, 3, 4, quote),
        Family::V6 => error(family, 2, 0, quote),
    }
}

/// `error`, in a frame with `tags`, goes to the backend `which` of the flow to `port`.
pub(crate) fn steered(
    name: String,
    tags: &[super::frame::Tag],
    error: &Ip,
    protocol: u8,
    port: u16,
) -> Case {
    let family = super::case::family(error);
    let client = Ip::new(family, protocol, Vec::new());
    let hash = world::flow_hash(&client, port);
    let which = if port == port::SPREAD { spread(hash) } else { 0 };
    let service = world::service(family, protocol, port, which);
    let out = sent(&service, tags, error, hash);
    let verdict = (Action::Tx, Reason::IcmpError);
    Case::new(name, verdict, frame(tags, error), out)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let name = |what: &str| format!("{family:?}: {what}");
        for (way, port) in WAYS {
            for protocol in [6, 17] {
                let error = too_big(family, &quote(family, protocol, port).bytes());
                let name = name(&format!("8 bytes of protocol {protocol}, in {way:?}"));
                cases.push(steered(name, &[], &error, protocol, port));
            }
        }
        let kinds: &[(u8, u8)] = match family {
            Family::V4 => &[(3, 15), (11, 1), (12, 2)],
            Family::V6 => &[(1, 7), (2, 0), (3, 1), (4, 2)],
        };
        for (kind, codes) in kinds {
            for code in 0..=*codes {
                let error = error(family, *kind, code, &quote(family, 6, port::L2).bytes());
                let name = name(&format!("type {kind}, code {code}"));
                cases.push(steered(name, &[], &error, 6, port::L2));
            }
        }
        let error = too_big(family, &quote(family, 6, port::SPREAD).bytes());
        cases.push(steered(name("the flow's own backend of four"), &[], &error, 6, port::SPREAD));
        cases.push(steered(
            name("behind two tags"),
            &[vlan(7), vlan(8)],
            &error,
            6,
            port::SPREAD,
        ));
        let mut long = quote(family, 17, port::SPREAD);
        long.payload.extend([0x33; 400]);
        let error = too_big(family, &long.bytes());
        cases.push(steered(name("a long quote"), &[], &error, 17, port::SPREAD));
        let ttl = quote(family, 6, port::L2).ttl(0).tos(0xff);
        let error = too_big(family, &ttl.bytes());
        cases.push(steered(name("a quote whose TTL is spent"), &[], &error, 6, port::L2));
        cases.extend(first_fragment(family));
        cases.extend(kernels(family));
        cases.extend(cut(family));
    }
    cases.extend(quoted_headers());
    cases
}

fn first_fragment(family: Family) -> Vec<Case> {
    let part = |offset, more| {
        let mut whole = quote(family, 17, port::SPREAD);
        whole.payload.extend([0; 16]);
        whole.fragment(5, offset, 8, more).bytes()
    };
    vec![
        steered(
            format!("{family:?}: the quote is a first fragment"),
            &[],
            &too_big(family, &part(0, true)),
            17,
            port::SPREAD,
        ),
        passes(
            format!("{family:?}: the quote is a later fragment, without ports"),
            Reason::IcmpOther,
            too_big(family, &part(8, false)).frame(),
        ),
    ]
}

/// Options and extension headers inside and outside.
fn quoted_headers() -> Vec<Case> {
    let mut cases = Vec::new();
    for options in [[1, 1, 1, 0].as_slice(), &[0; 40]] {
        let quote = quote(Family::V4, 6, port::L2).options(options);
        let error = too_big(Family::V4, &quote.bytes());
        let name = format!("the quote has {} bytes of IPv4 options", options.len());
        cases.push(steered(name, &[], &error, 6, port::L2));
    }
    let plain = too_big(Family::V4, &quote(Family::V4, 6, port::L2).bytes());
    cases.push(steered(
        "the error itself has IPv4 options".into(),
        &[],
        &plain.options(&[0x94, 4, 0, 0]),
        6,
        port::L2,
    ));
    for count in 1..=4 {
        let quote = (0..count).fold(quote(Family::V6, 6, port::L2), |quote, i| {
            let kind = if i == 0 { HOP_BY_HOP } else { DESTINATION };
            quote.extension(kind, &PADDING)
        });
        let error = too_big(Family::V6, &quote.bytes());
        let name = format!("the quote has {count} extension headers");
        cases.push(steered(name, &[], &error, 6, port::L2));
    }
    let many = (0..5).fold(quote(Family::V6, 6, port::L2), |quote, _| {
        quote.extension(DESTINATION, &PADDING)
    });
    cases.push(passes(
        "a quote with five extension headers is the kernel's",
        Reason::IcmpOther,
        too_big(Family::V6, &many.bytes()).frame(),
    ));
    let plain = too_big(Family::V6, &quote(Family::V6, 6, port::L2).bytes());
    cases.push(steered(
        "the error itself has destination options".into(),
        &[],
        &plain.extension(DESTINATION, &PADDING),
        6,
        port::L2,
    ));
    cases
}

/// Errors that are not about a VIP's flow.
fn kernels(family: Family) -> Vec<Case> {
    let of = |quote: Ip| too_big(family, &quote.bytes()).frame();
    let right = || quote(family, 6, port::L2);
    let name = |what: &str| format!("{family:?}: {what}");
    let mut version = right().bytes();
    version[0] ^= 0x10;
    let to_stranger = too_big(family, &right().bytes()).to(family.stranger());
    let redirect = if family == Family::V4 { 5 } else { 137 };
    let redirect = error(family, redirect, 0, &right().bytes());
    vec![
        passes(
            name("the quote is of another host's packet"),
            Reason::IcmpOther,
            of(right().from(family.stranger())),
        ),
        passes(
            name("the quote is of a closed port"),
            Reason::IcmpOther,
            of(quote(family, 6, port::CLOSED)),
        ),
        passes(
            name("the quote is of GRE"),
            Reason::IcmpOther,
            of(quote(family, 47, port::L2)),
        ),
        passes(
            name("the quote is of a ping"),
            Reason::IcmpOther,
            of(quote(family, if family == Family::V4 { 1 } else { 58 }, port::L2)),
        ),
        passes(
            name("the quote is of another IP version"),
            Reason::MalformedIcmp,
            too_big(family, &version).frame(),
        ),
        passes(
            name("an error for a stranger"),
            Reason::NotVip,
            to_stranger.frame(),
        ),
        passes(name("a redirect"), Reason::IcmpOther, redirect.frame()),
    ]
}

/// A quote cut at every length before the ports and the sequence number are there.
fn cut(family: Family) -> Vec<Case> {
    let whole = quote(family, 6, port::L2).bytes();
    let cut = |len: usize| {
        passes(
            format!("{family:?}: a quote of {len} bytes"),
            Reason::MalformedIcmp,
            too_big(family, &whole[..len]).frame(),
        )
    };
    (0..whole.len()).map(cut).collect()
}
