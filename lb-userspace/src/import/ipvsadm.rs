//! Reads what `ipvsadm -Sn` prints: a service or a server of one a line.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

use super::{
    report::{Line, Report},
    service::{GRANULARITY, PERSISTENCE, Real, Service, UNHEEDED_WEIGHTS, Way, scheduler},
};
use crate::config::{Affinity, ForwardMode, Protocol};

const NUMERIC: &str = "save it with numbers: `ipvsadm -Sn`";

/// The services of a text, in its order.
pub(super) fn read(text: &str, file: &str, report: &mut Report) -> Vec<Service> {
    let file: Rc<str> = file.into();
    let mut services: Vec<Known> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = Line {
            file: Rc::clone(&file),
            number: index + 1,
            text: line.into(),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["-A" | "--add-service", rest @ ..] => add_service(&at, rest, &mut services, report),
            ["-a" | "--add-server", rest @ ..] => add_server(&at, rest, &mut services, report),
            [
                "-C" | "--clear" | "-Z" | "--zero" | "--start-daemon" | "--stop-daemon" | "--set",
                ..,
            ] => report.left(
                &at,
                "a command to IPVS, and no service",
                "nothing: weir needs none like it",
            ),
            _ => report.left(
                &at,
                "neither a service (-A) nor a server of one (-a)",
                NUMERIC,
            ),
        }
    }
    services
        .into_iter()
        .filter_map(|known| known.service)
        .collect()
}

/// A service that a line named, be it carried over or not: servers name theirs by it.
struct Known {
    name: (String, String),
    is_equal: bool,
    service: Option<Service>,
}

/// An option and its value; most of them have one.
struct Choice<'t> {
    name: &'t str,
    value: Option<&'t str>,
}

/// Splits words into options: long ones, and their short forms.
fn options<'t>(words: &[&'t str]) -> Vec<Choice<'t>> {
    let mut options: Vec<Choice<'t>> = Vec::new();
    for word in words {
        if word.len() > 1 && word.starts_with('-') {
            options.push(Choice {
                name: word,
                value: None,
            });
        } else if let Some(last) = options.last_mut().filter(|last| last.value.is_none()) {
            last.value = Some(word);
        } else {
            options.push(Choice {
                name: word,
                value: None,
            });
        }
    }
    options
}

/// How a service is named, by its short option and value.
fn service_name(options: &[Choice<'_>]) -> Option<(String, String)> {
    options.iter().find_map(|option| {
        let short = match option.name {
            "-t" | "--tcp-service" => "-t",
            "-u" | "--udp-service" => "-u",
            "--sctp-service" => "--sctp-service",
            "-f" | "--fwmark-service" => "-f",
            _ => return None,
        };
        Some((short.to_owned(), option.value?.to_owned()))
    })
}

fn add_service(at: &Line, words: &[&str], services: &mut Vec<Known>, report: &mut Report) {
    let options = options(words);
    let Some(name) = service_name(&options) else {
        report.left(at, "no address of a service (-t, -u)", NUMERIC);
        return;
    };
    let protocol = match name.0.as_str() {
        "-t" => Some(Protocol::Tcp),
        "-u" => Some(Protocol::Udp),
        "-f" => {
            report.left(
                at,
                "a firewall mark: weir's VIPs are addresses and ports, which the program reads itself",
                "write a `[[vip]]` for each address and port that the firewall marks so, or one with `port = 0` for all ports",
            );
            None
        }
        _ => {
            report.left(
                at,
                "SCTP: weir balances TCP and UDP",
                "keep IPVS for this service",
            );
            None
        }
    };
    let address = protocol.and_then(|_| endpoint(&name.1));
    if protocol.is_some() && address.is_none() {
        report.left(at, format!("{} is no address with a port", name.1), NUMERIC);
    }
    let mut known = Known {
        name,
        is_equal: false,
        service: None,
    };
    if let Some((protocol, address)) = protocol.zip(address) {
        let mut service = Service {
            line: at.clone(),
            address,
            protocol,
            affinity: Affinity::Flow,
            health: None,
            reals: Vec::new(),
        };
        known.is_equal = service_options(&mut service, &options, report);
        known.service = Some(service);
    }
    services.push(known);
}

/// What else is said of a service. Returns whether the scheduler pays no heed to weights.
fn service_options(service: &mut Service, options: &[Choice<'_>], report: &mut Report) -> bool {
    let at = service.line.clone();
    let flags: BTreeSet<&str> = options
        .iter()
        .filter(|option| matches!(option.name, "-b" | "--sched-flags"))
        .flat_map(|option| option.value.unwrap_or_default().split(','))
        .collect();
    // IPVS's own default.
    let mut name = "wlc";
    let mut is_persistent = false;
    for option in options {
        let value = option.value.unwrap_or_default();
        match option.name {
            "-t" | "--tcp-service" | "-u" | "--udp-service" | "-b" | "--sched-flags" => {}
            "-s" | "--scheduler" => name = value,
            "-p" | "--persistent" => {
                is_persistent = true;
                report.changed(&at, PERSISTENCE.0, PERSISTENCE.1);
            }
            "-M" | "--netmask" => {
                if !matches!(value, "255.255.255.255" | "128") {
                    report.left(&at, format!("{value}: {}", GRANULARITY.0), GRANULARITY.1);
                }
            }
            "-o" | "--ops" => report.changed(
                &at,
                "weir has no one-packet scheduling: packets of a flow go to one backend, and nothing is remembered of it",
                "nothing, where clients change their ports",
            ),
            other => report.left(
                &at,
                format!("weir has nothing like {other}{}", shown(option.value)),
                "take the service as it is, or keep IPVS for it",
            ),
        }
    }
    let scheduler = scheduler(name, &flags);
    if let Some((why, help)) = scheduler.lost {
        report.left(&at, format!("{name}: {why}"), help);
    }
    service.affinity = if is_persistent {
        Affinity::Source
    } else {
        scheduler.affinity
    };
    name == "rr"
}

fn add_server(at: &Line, words: &[&str], services: &mut [Known], report: &mut Report) {
    let options = options(words);
    let name = service_name(&options);
    let Some(known) = services
        .iter_mut()
        .find(|known| Some(&known.name) == name.as_ref())
    else {
        report.left(at, "no line before it adds its service", NUMERIC);
        return;
    };
    let Some(service) = &mut known.service else {
        report.left(
            at,
            "its service is not carried over",
            "see what is said of the service",
        );
        return;
    };
    let Some(real) = server(at, &options, service.address, report) else {
        return;
    };
    let first = service.reals.first();
    if known.is_equal && first.is_some_and(|first| first.weight != real.weight) {
        report.changed(at, UNHEEDED_WEIGHTS.0, UNHEEDED_WEIGHTS.1);
    }
    service.reals.push(real);
}

fn server(at: &Line, options: &[Choice<'_>], vip: SocketAddr, report: &mut Report) -> Option<Real> {
    let mut real: Option<(IpAddr, u16)> = None;
    // As ipvsadm takes it where nothing is written.
    let (mut weight, mut way) = (1, Way::Forward(ForwardMode::L2));
    for option in options {
        let value = option.value.unwrap_or_default();
        match option.name {
            // The service; and details of a tunnel, which its type is told with.
            "-t" | "--tcp-service" | "-u" | "--udp-service" | "--tun-port" | "--tun-nocsum"
            | "--tun-csum" | "--tun-remcsum" => {}
            "-r" | "--real-server" => {
                real = endpoint(value)
                    .map(|address| (address.ip(), address.port()))
                    .or_else(|| Some((bare(value)?, vip.port())));
                if real.is_none() {
                    report.left(at, format!("{value} is no address"), NUMERIC);
                    return None;
                }
            }
            "-w" | "--weight" => {
                let Ok(number) = value.parse() else {
                    report.left(
                        at,
                        format!("weight {value} is more than 65535"),
                        "divide all weights of the service by one number",
                    );
                    return None;
                };
                weight = number;
            }
            "-g" | "--gatewaying" => way = Way::Forward(ForwardMode::L2),
            "-i" | "--ipip" => way = Way::Forward(ForwardMode::Ipip),
            "-m" | "--masquerading" => way = Way::Nat,
            "--tun-type" => match value {
                "ipip" => {}
                "gue" => {
                    way = Way::Forward(ForwardMode::Gue);
                    report.changed(
                        at,
                        "the port of GUE is one for the whole node",
                        "see `gue_port` in `[node]`; the outer checksum is zero unless IPv6 carries it (docs/forwarding.md)",
                    );
                }
                other => report.left(
                    at,
                    format!("weir has no {other} tunnels: it is `ipip` here"),
                    "take IP in IP on the server, by `weir decap` or a tunnel of the kernel",
                ),
            },
            "-x" | "--u-threshold" | "-y" | "--l-threshold" => {
                if value != "0" {
                    report.left(
                        at,
                        format!("weir counts no connections of a server: {} {value}", option.name),
                        "limit the VIP by `[vip.limit]` (docs/limits.md), or have the server refuse",
                    );
                }
            }
            other => report.left(
                at,
                format!("weir has nothing like {other}{}", shown(option.value)),
                "take the server as it is, or keep IPVS for its service",
            ),
        }
    }
    let Some((address, port)) = real else {
        report.left(at, "no address of a server (-r)", NUMERIC);
        return None;
    };
    Some(Real {
        line: at.clone(),
        address,
        port,
        weight,
        way,
    })
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`.
fn endpoint(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// An address alone, in brackets or without.
fn bare(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" {value}"))
}
