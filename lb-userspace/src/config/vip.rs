//! Reads `[[vip]]`.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Affinity, Announce, EncapSource, ForwardMode, Protocol, TableAlgorithm, Vip, address, backend,
    encap::Needs,
    flows, health, keys, limits,
    list_file::Files,
    lists,
    load::Needed,
    section::{Field, Section},
    source::Report,
};

/// VIPs that the data plane has room for.
const MAX_VIPS: usize = lb_common::vip::MAX_VIPS;

/// Backends of all VIPs together: ids are 16 bits wide, and three of them mean something else.
const MAX_BACKENDS: usize = 65_533;

/// How the network learns where an address is, on which all of its VIPs must agree: ARP and routes know no ports.
#[derive(Clone, Copy, PartialEq)]
struct Announced {
    by: Announce,
    at_start: bool,
}

/// What the VIPs that were read so far have taken.
struct Taken {
    names: BTreeMap<String, usize>,
    services: BTreeMap<(IpAddr, u16, Protocol), (String, usize)>,
    announced: BTreeMap<IpAddr, (Announced, usize)>,
    backends: usize,
    needs: Needs,
    /// Whether the fleet has a Redis.
    has_redis: bool,
    /// Whether the VIPs are held against the host that reads them.
    is_on_this_host: bool,
}

/// Reads every `[[vip]]`.
pub(super) fn read_all(
    file: &Section<'_>,
    encap_source: Option<EncapSource>,
    (has_redis, needed): (bool, Needed),
    (around, files): (&lists::Around<'_>, &mut Files),
    report: &mut Report<'_>,
) -> Option<Vec<Vip>> {
    const WANTED: &str = "`[[vip]]` sections";
    const HELP: &str = "begin each VIP with a line `[[vip]]`";
    let Some(field) = file.field("vip") else {
        return Some(Vec::new());
    };
    let items = field.items(WANTED, HELP, report)?;
    if let Some(first) = items.get(MAX_VIPS) {
        report.add(
            first.offset,
            &first.path,
            format!("{} VIPs", items.len()),
            format!("at most {MAX_VIPS}"),
            "spread the VIPs over several groups of nodes",
        );
        return None;
    }
    let mut taken = Taken {
        names: BTreeMap::new(),
        services: BTreeMap::new(),
        announced: BTreeMap::new(),
        backends: 0,
        needs: Needs::new(encap_source),
        has_redis,
        is_on_this_host: needed != Needed::None,
    };
    let mut vips = Some(Vec::with_capacity(items.len()));
    for item in items {
        let vip = item
            .section(WANTED, HELP, &keys::VIP, report)
            .and_then(|section| read(&section, &mut taken, (around, files), report));
        vips = vips.zip(vip).map(|(mut vips, vip)| {
            vips.push(vip);
            vips
        });
    }
    vips
}

fn read(
    section: &Section<'_>,
    taken: &mut Taken,
    (around, files): (&lists::Around<'_>, &mut Files),
    report: &mut Report<'_>,
) -> Option<Vip> {
    let name = name(section, taken, report);
    let address = vip_address(section, report);
    let port = port(section, report);
    let protocol = section
        .required(
            "protocol",
            "\"tcp\" or \"udp\"",
            "write `protocol = \"tcp\"`",
            report,
        )
        .and_then(|field| {
            let words = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
            field.word(&words, &[], report)
        });
    let table = table(section, report);
    let affinity = match section.field("affinity") {
        Some(field) => field.word(
            &[("flow", Affinity::Flow), ("source", Affinity::Source)],
            &[],
            report,
        ),
        None => Some(Affinity::Flow),
    };
    let forward = forward(section, report);
    let announced = announced(section, address, taken, report);
    let min_healthy = min_healthy(section, report);
    let flows = flows::read(section, protocol, report);
    let access = lists::read(section, address, around, files, report);
    let of = health::Of {
        address,
        port,
        protocol,
        is_on_this_host: taken.is_on_this_host,
    };
    let health = health::read(section, of, report);
    if let (Some(address), Some(port), Some(protocol)) = (address, port, protocol) {
        take_service(section, (address, port, protocol), taken, report);
    }
    let limits = limits::read(section, protocol, taken.has_redis, report);
    let backends = backends(section, address, forward, taken, report);

    Some(Vip {
        name: name?,
        address: address?,
        port: port?,
        protocol: protocol?,
        table: table?,
        affinity: affinity?,
        announce: announced?.by,
        announce_at_start: announced?.at_start,
        min_healthy: min_healthy?,
        flows: flows?,
        access: access?,
        health: health.ok()?,
        limits: limits?,
        backends: backends?,
    })
}

/// `table` of a VIP; `maglev` where it is not written.
pub(super) fn table(section: &Section<'_>, report: &mut Report<'_>) -> Option<TableAlgorithm> {
    let words = [
        ("maglev", TableAlgorithm::Maglev),
        ("ring", TableAlgorithm::Ring),
    ];
    match section.field("table") {
        Some(field) => field.word(&words, &[], report),
        None => Some(TableAlgorithm::Maglev),
    }
}

/// `forward` of a VIP or a backend; `l2` where it is not written.
pub(super) fn forward(section: &Section<'_>, report: &mut Report<'_>) -> Option<ForwardMode> {
    match section.field("forward") {
        Some(field) => field.word(
            &[
                ("l2", ForwardMode::L2),
                ("ipip", ForwardMode::Ipip),
                ("gue", ForwardMode::Gue),
            ],
            &[],
            report,
        ),
        None => Some(ForwardMode::L2),
    }
}

/// `min_healthy`, or its default.
fn min_healthy(section: &Section<'_>, report: &mut Report<'_>) -> Option<u16> {
    const WANTED: &str = "a number of backends from 0 to 65535";
    const HELP: &str = "write `min_healthy = 1`: with fewer backends that pass their checks, the address is not announced for this VIP; 0 announces it always";
    let field = section.field("min_healthy");
    field.map_or(Some(1), |field| field.u16(WANTED, HELP, report))
}

/// `announce` of Services, which is by no route.
pub(super) fn announce_of_services(field: &Field<'_>, report: &mut Report<'_>) -> Option<Announce> {
    let words = [Announce::None, Announce::L2];
    field.word(&words.map(|word| (word.as_str(), word)), &["route"], report)
}

/// `announce` and `announce_at_start`.
fn announced(
    section: &Section<'_>,
    address: Option<IpAddr>,
    taken: &mut Taken,
    report: &mut Report<'_>,
) -> Option<Announced> {
    let field = section.field("announce");
    let by = match &field {
        Some(field) => {
            let words = [Announce::None, Announce::L2, Announce::Route];
            field.word(&words.map(|word| (word.as_str(), word)), &[], report)?
        }
        None => Announce::None,
    };
    let start = section.field("announce_at_start");
    let at_start = match &start {
        Some(start) => start.bool(
            "write `announce_at_start = false` to be silent until `weir announce on` says otherwise",
            report,
        )?,
        None => true,
    };
    if let Some(start) = &start
        && by != Announce::L2
    {
        start.refuse(
            "no such key, where the VIP is not announced by L2",
            "add `announce = \"l2\"`, or take `announce_at_start` out",
            report,
        );
        return None;
    }
    let announced = Announced { by, at_start };
    let at = |field: Option<Field<'_>>| {
        field
            .or_else(|| section.field("address"))
            .map_or(section.offset(), |field| field.offset)
    };
    let (announce_at, start_at) = (at(field), at(start));
    let (line, _) = report.place(announce_at);
    let (first, first_line) = *taken.announced.entry(address?).or_insert((announced, line));
    let (key, at, found, wanted) = if first.by != by {
        let quoted = |by: Announce| format!("\"{}\"", by.as_str());
        ("announce", announce_at, quoted(by), quoted(first.by))
    } else if first.at_start != at_start {
        let of = |at_start: bool| at_start.to_string();
        (
            "announce_at_start",
            start_at,
            of(at_start),
            of(first.at_start),
        )
    } else {
        return Some(announced);
    };
    let (line, _) = report.place(at);
    report.add(
        at,
        section.path_of(key),
        found,
        format!("{wanted}, as in the other VIP of this address on line {first_line}"),
        format!(
            "write the same `{key}` on line {line} and on line {first_line}: the network asks for \
             addresses, not for ports"
        ),
    );
    None
}

fn name(section: &Section<'_>, taken: &mut Taken, report: &mut Report<'_>) -> Option<String> {
    const WANTED: &str =
        "a name of 1 to 63 characters out of a-z, 0-9, `.` and `-`, the first a letter or digit";
    const HELP: &str = "write `name = \"web\"`";
    let field = section.required("name", WANTED, HELP, report)?;
    let name = field.parse(WANTED, HELP, report, |text| {
        let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_name = text.starts_with(is_alphanumeric)
            && text.len() <= 63
            && text
                .chars()
                .all(|c| is_alphanumeric(c) || c == '.' || c == '-');
        is_name.then(|| text.to_owned())
    })?;
    let (line, _) = report.place(field.offset);
    if let Some(first) = taken.names.get(&name) {
        let help = format!("rename it: line {first} has a VIP of that name");
        field.refuse("a name that no other VIP has", &help, report);
        return None;
    }
    taken.names.insert(name.clone(), line);
    Some(name)
}

fn vip_address(section: &Section<'_>, report: &mut Report<'_>) -> Option<IpAddr> {
    const WANTED: &str = "an IPv4 or IPv6 address that clients can dial";
    const HELP: &str = "write `address = \"203.0.113.10\"`, without a port or prefix length";
    let field = section.required("address", WANTED, HELP, report)?;
    checked_address(&field, WANTED, HELP, address::unfit_for_vip, report)
}

/// An address that a rule finds nothing against.
pub(super) fn checked_address(
    field: &Field<'_>,
    wanted: &str,
    help: &str,
    unfit: fn(IpAddr) -> Option<&'static str>,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    let address = field.parse(wanted, help, report, |text| text.parse().ok())?;
    if let Some(what) = unfit(address) {
        let found = format!("{address}, {what}");
        report.add(field.offset, &field.path, found, wanted, help);
        return None;
    }
    Some(address)
}

fn port(section: &Section<'_>, report: &mut Report<'_>) -> Option<u16> {
    const WANTED: &str = "a port from 0 to 65535";
    const HELP: &str = "write `port = 443`, or 0 for every port";
    let field = section.required("port", WANTED, HELP, report)?;
    field.u16(WANTED, HELP, report)
}

/// Two VIPs cannot have one address, port and protocol.
fn take_service(
    section: &Section<'_>,
    service: (IpAddr, u16, Protocol),
    taken: &mut Taken,
    report: &mut Report<'_>,
) {
    let at = section
        .field("address")
        .map_or(section.offset(), |field| field.offset);
    let (address, port, protocol) = service;
    if let Some((path, line)) = taken.services.get(&service) {
        report.add(
            at,
            section.path_of("address"),
            format!("{address}, port {port}, {} again", protocol.as_str()),
            "an address, port and protocol that no other VIP has",
            format!("take this VIP out, or change it: {path} on line {line} has the same"),
        );
        return;
    }
    let (line, _) = report.place(at);
    taken
        .services
        .insert(service, (section.path_of("address"), line));
}

fn backends(
    section: &Section<'_>,
    vip: Option<IpAddr>,
    forward: Option<ForwardMode>,
    taken: &mut Taken,
    report: &mut Report<'_>,
) -> Option<Vec<super::Backend>> {
    const WANTED: &str = "`[[vip.backend]]` sections";
    const HELP: &str = "begin each backend with a line `[[vip.backend]]`";
    let Some(field) = section.field("backend") else {
        return Some(Vec::new());
    };
    let items = field.items(WANTED, HELP, report)?;
    let before = taken.backends;
    taken.backends += items.len();
    if let Some(first) = MAX_BACKENDS
        .checked_sub(before)
        .and_then(|room| items.get(room))
    {
        report.add(
            first.offset,
            &first.path,
            format!("backend number {} of this file", MAX_BACKENDS + 1),
            format!("at most {MAX_BACKENDS} backends in all VIPs together"),
            "spread the VIPs over several groups of nodes",
        );
        return None;
    }
    let mut seen = BTreeMap::new();
    let mut backends = Some(Vec::with_capacity(items.len()));
    for item in items {
        let backend = item
            .section(WANTED, HELP, &keys::BACKEND, report)
            .and_then(|section| {
                backend::read(&section, vip, forward, &mut seen, &mut taken.needs, report)
            });
        backends = backends.zip(backend).map(|(mut backends, backend)| {
            backends.push(backend);
            backends
        });
    }
    backends
}
