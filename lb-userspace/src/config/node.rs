//! Reads `[node]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    EncapSource, Node, OnExit, Secret, XdpMode, address, control, encap,
    load::{DEFAULT_API_SOCKET, DEFAULT_PIN_PATH, Scope},
    section::{Field, Section},
    source::Report,
    vip::checked_address,
};

const DEFAULT_METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9407);

/// Longest path that a Unix socket can have (`sun_path` without its final NUL).
const LONGEST_SOCKET_PATH: usize = 107;

/// 91 MiB in three maps, at the 121 bytes an entry that docs/tables.md measured.
const DEFAULT_MAX_PINS: u32 = 262_144;

/// How many sources are remembered where it is not written.
const DEFAULT_MAX_SOURCES: u32 = 262_144;

/// A file with a secret is a line of text; more than this is not one.
const LARGEST_SECRET_FILE: u64 = 64 * 1024;

/// An interface's name and the byte offset where it stands.
pub(super) type NamedInterface = (String, String, usize);

/// What is read of `[node]`.
pub(super) struct Settings {
    /// The node, if all of it is valid.
    pub(super) node: Option<Node>,
    /// Where its interfaces stand in the file.
    pub(super) interfaces: Vec<NamedInterface>,
    /// Sources of outer headers, if they are valid.
    pub(super) encap_source: Option<EncapSource>,
}

/// The node's settings.
pub(super) fn read(
    section: &Section<'_>,
    directory: &Path,
    scope: Scope,
    report: &mut Report<'_>,
) -> Settings {
    let interfaces = interfaces(section, report);
    let places = interfaces.clone().unwrap_or_default();
    let name = name(section, report);
    let xdp_mode = match section.field("xdp_mode") {
        Some(field) => field.word(
            &[
                ("auto", XdpMode::Auto),
                ("native", XdpMode::Native),
                ("generic", XdpMode::Generic),
            ],
            &[],
            report,
        ),
        None => Some(XdpMode::Auto),
    };
    let on_exit = match section.field("on_exit") {
        Some(field) => field.word(
            &[("keep", OnExit::Keep), ("detach", OnExit::Detach)],
            &[],
            report,
        ),
        None => Some(OnExit::Keep),
    };
    let metrics_listen = match section.field("metrics_listen") {
        Some(field) => field.parse(
            "an address and a port",
            "write `metrics_listen = \"127.0.0.1:9407\"`, or `\"[::1]:9407\"` for IPv6",
            report,
            |text| text.parse().ok(),
        ),
        None => Some(DEFAULT_METRICS_LISTEN),
    };
    let seed = seed(section, directory, scope, report);
    let pin_path = pin_path(section, report);
    let api_socket = api_socket(section, report);
    let encap_source = encap::source(section, report);
    let gue_port = encap::gue_port(section, report);
    let peers = peers(section, report);
    let max_pins = max_pins(section, report);
    let max_sources = max_sources(section, report);
    let state_file = control::state_file(section, report);
    let groups = control::groups(section, scope, report);

    let node = || {
        let groups = groups?;
        Some(Node {
            name: name?,
            interfaces: interfaces?.into_iter().map(|(name, ..)| name).collect(),
            xdp_mode: xdp_mode?,
            seed: seed?,
            pin_path: pin_path?,
            api_socket: api_socket?,
            metrics_listen: metrics_listen?,
            on_exit: on_exit?,
            encap_source: encap_source?,
            gue_port: gue_port?,
            peers: peers?,
            max_pins: max_pins?,
            max_sources: max_sources?,
            state_file: state_file?,
            api_group: groups.readers,
            api_admin_group: groups.admins,
        })
    };
    Settings {
        node: node(),
        interfaces: places,
        encap_source,
    }
}

/// `pin_path`, or its default.
pub(super) fn pin_path(section: &Section<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    match section.field("pin_path") {
        Some(field) => field.path(
            &format!("write a directory on a bpffs, as in `pin_path = \"{DEFAULT_PIN_PATH}\"`"),
            report,
        ),
        None => Some(PathBuf::from(DEFAULT_PIN_PATH)),
    }
}

/// `api_socket`, or its default.
pub(super) fn api_socket(section: &Section<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let Some(field) = section.field("api_socket") else {
        return Some(PathBuf::from(DEFAULT_API_SOCKET));
    };
    let help = format!("write `api_socket = \"{DEFAULT_API_SOCKET}\"`");
    let path = field.path(&help, report)?;
    if path.as_os_str().len() > LONGEST_SOCKET_PATH {
        let wanted = format!("at most {LONGEST_SOCKET_PATH} bytes, as Unix sockets take");
        field.refuse(&wanted, &help, report);
        return None;
    }
    Some(path)
}

fn name(section: &Section<'_>, report: &mut Report<'_>) -> Option<String> {
    let Some(field) = section.field("name") else {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        return Some(if name.is_empty() { "localhost" } else { name }.to_owned());
    };
    field.parse(
        "a name of 1 to 253 characters without spaces",
        "write `name = \"lb-1\"`, or take the key out to use the host's name",
        report,
        |text| {
            let is_plain = text.chars().all(|c| c.is_ascii_graphic());
            (is_plain && (1..=253).contains(&text.len())).then(|| text.to_owned())
        },
    )
}

fn interfaces(section: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<NamedInterface>> {
    const WANTED: &str = "a list of one or more interfaces";
    const HELP: &str = "write `interfaces = [\"eth0\"]`; `ip -br link` lists what there is";
    let field = section.required("interfaces", WANTED, HELP, report)?;
    let items = field.items(WANTED, HELP, report)?;
    if items.is_empty() {
        report.add(field.offset, &field.path, "an empty list", WANTED, HELP);
        return None;
    }
    let mut seen = BTreeMap::new();
    let mut names = Vec::new();
    let count = items.len();
    for item in items {
        let wanted = "an interface's name: 1 to 15 characters without `/` or spaces";
        let Some(name) = item.parse(wanted, HELP, report, interface_name) else {
            continue;
        };
        if let Some(first) = seen.insert(name.clone(), item.path.clone()) {
            item.refuse(
                "every interface once",
                &format!("take it out: {first} names it already"),
                report,
            );
            continue;
        }
        names.push((name, item.path, item.offset));
    }
    (names.len() == count).then_some(names)
}

/// `peers`: each address once, whatever the order.
fn peers(section: &Section<'_>, report: &mut Report<'_>) -> Option<BTreeSet<IpAddr>> {
    const WANTED: &str = "a list of addresses of other nodes of the fleet";
    const HELP: &str = "write `peers = [\"10.0.0.2\"]`: the nodes that serve what they balance, on this node's segment";
    let Some(field) = section.field("peers") else {
        return Some(BTreeSet::new());
    };
    let items = field.items(WANTED, HELP, report)?;
    let read = |item: Field<'_>| {
        let wanted = "a unicast address of another node";
        checked_address(&item, wanted, HELP, address::unfit_for_backend, report)
    };
    let peers: Vec<_> = items.into_iter().map(read).collect();
    peers.into_iter().collect()
}

/// `max_pins`, or its default.
fn max_pins(section: &Section<'_>, report: &mut Report<'_>) -> Option<u32> {
    const HELP: &str = "write `max_pins = 262144`: as many flows are remembered in each of three maps, about 121 bytes each";
    map_size(
        section,
        ("max_pins", DEFAULT_MAX_PINS),
        "flows",
        HELP,
        report,
    )
}

/// `max_sources`, or its default.
fn max_sources(section: &Section<'_>, report: &mut Report<'_>) -> Option<u32> {
    const HELP: &str = "write `max_sources = 262144`: as many sources of VIPs that limit them are remembered, 64 bytes each";
    map_size(
        section,
        ("max_sources", DEFAULT_MAX_SOURCES),
        "sources",
        HELP,
        report,
    )
}

/// How many entries fit into a map.
fn map_size(
    section: &Section<'_>,
    (key, usual): (&str, u32),
    what: &str,
    help: &str,
    report: &mut Report<'_>,
) -> Option<u32> {
    let wanted = format!("a number of {what} from 1024 to 16777216");
    let Some(field) = section.field(key) else {
        return Some(usual);
    };
    let count = field.number(&wanted, help, report)?;
    if !(1024..=1 << 24).contains(&count) {
        field.refuse(&wanted, help, report);
        return None;
    }
    Some(count)
}

fn interface_name(text: &str) -> Option<String> {
    let is_plain = text
        .chars()
        .all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
    let is_name = is_plain && (1..=15).contains(&text.len()) && text != "." && text != "..";
    is_name.then(|| text.to_owned())
}

fn seed(
    section: &Section<'_>,
    directory: &Path,
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<Secret> {
    const WANTED: &str = "a secret string, the same on every node of the fleet";
    const HELP: &str =
        "write `seed_file = \"/etc/weir/seed\"` and fill that file with `openssl rand -hex 32`";
    match (section.field("seed"), section.field("seed_file")) {
        (Some(_), Some(file)) => {
            report.add(
                file.offset,
                &file.path,
                "both `seed` and `seed_file`",
                "exactly one of them",
                "take `seed` out, so that the secret stays out of this file",
            );
            None
        }
        (None, None) => {
            section.required("seed", WANTED, HELP, report);
            None
        }
        (Some(seed), None) => match seed.text() {
            Some(text) if !text.trim().is_empty() => Some(Secret::new(text.to_owned())),
            _ => {
                seed.refuse_unshown(WANTED, HELP, report);
                None
            }
        },
        (None, Some(file)) => seed_file(&file, directory, scope, report),
    }
}

/// The seed in a file whose path is relative to the configuration's directory.
fn seed_file(
    field: &Field<'_>,
    directory: &Path,
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<Secret> {
    const WANTED: &str = "a readable file that holds the seed";
    const HELP: &str = "make it with `(umask 077 && openssl rand -hex 32 > FILE)`, the same on every node of the fleet";
    let path = field.parse(WANTED, HELP, report, |text| {
        (!text.is_empty()).then(|| directory.join(text))
    })?;
    if scope == Scope::Offline {
        return Some(Secret::new(String::new()));
    }
    let shown = path.display().to_string();
    let found = match read_text(&path) {
        Ok(text) if !text.trim().is_empty() => return Some(Secret::new(text.trim().to_owned())),
        Ok(_) => format!("{shown:?}, which is empty"),
        Err(error) => format!("{shown:?} ({error})"),
    };
    report.add(field.offset, &field.path, found, WANTED, HELP);
    None
}

/// The text of a file that holds a secret.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(LARGEST_SECRET_FILE + 1)
        .read_to_string(&mut text)?;
    if read as u64 > LARGEST_SECRET_FILE {
        return Err(io::Error::other("larger than 64 KiB"));
    }
    Ok(text)
}
