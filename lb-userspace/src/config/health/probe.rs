//! Reads what belongs to one type of check.

use hickory_proto::rr::Name;
use hyper::http::uri::{Authority, PathAndQuery};
use rustls::pki_types::ServerName;

use super::{
    super::{
        keys,
        section::{Field, Section},
        source::Report,
    },
    Dns, Grpc, Host, Http, Probe, Statuses, Tls, Udp,
    read::{Of, Refused},
};

/// What a plain web server answers when all is well, redirections included.
const DEFAULT_STATUSES: (u16, u16) = (200, 399);

/// The statuses that end a request; 1xx do not.
const FINAL_STATUSES: (u16, u16) = (200, 599);

/// Bytes that fit into one packet on every path that is worth a check.
const LONGEST_PAYLOAD: usize = 1400;

/// `type`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Tcp,
    Http,
    Https,
    Grpc,
    Udp,
    Dns,
    None,
}

impl Kind {
    const ALL: [(&str, Self); 7] = [
        ("tcp", Self::Tcp),
        ("http", Self::Http),
        ("https", Self::Https),
        ("grpc", Self::Grpc),
        ("udp", Self::Udp),
        ("dns", Self::Dns),
        ("none", Self::None),
    ];

    /// The keys that not every type has.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Tcp | Self::None => &[],
            Self::Http => &["path", "host", "expect_status"],
            Self::Https => &["path", "host", "expect_status", "tls_verify"],
            Self::Grpc => &["service", "host", "tls", "tls_verify"],
            Self::Udp => &["send", "expect"],
            Self::Dns => &["query"],
        }
    }
}

/// Reads `type`.
pub(super) fn kind(field: &Field<'_>, report: &mut Report<'_>) -> Option<Kind> {
    field.word(&Kind::ALL, &[], report)
}

/// Reads what a type has beyond what all have; nothing for none.
pub(super) fn read(
    section: &Section<'_>,
    kind: Kind,
    of: Of,
    report: &mut Report<'_>,
) -> Option<Probe> {
    refuse_keys_of_other_types(section, kind, report);
    match kind {
        Kind::None => None,
        Kind::Tcp => Some(Probe::Tcp),
        Kind::Http => http(section, Ok(None), of, report),
        Kind::Https => {
            let verify = tls_verify(section, report).ok_or(Refused);
            let tls = verify.map(|verify| Some(Tls { verify }));
            http(section, tls, of, report)
        }
        Kind::Grpc => {
            let tls = grpc_tls(section, report);
            let host = host(section, of, report);
            let service = match section.field("service") {
                Some(field) => service(&field, report),
                None => Some(String::new()),
            };
            Some(Probe::Grpc(Grpc {
                tls: tls.ok()?,
                host: host?,
                service: service?,
            }))
        }
        Kind::Udp => udp(section, report),
        Kind::Dns => dns(section, of, report),
    }
}

fn refuse_keys_of_other_types(section: &Section<'_>, kind: Kind, report: &mut Report<'_>) {
    let mut keys: Vec<&str> = Kind::ALL
        .iter()
        .flat_map(|(_, kind)| kind.keys())
        .copied()
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| !kind.keys().contains(key));
    let name_of = |wanted| {
        Kind::ALL
            .iter()
            .find(|(_, kind)| *kind == wanted)
            .map_or("", |(name, _)| name)
    };
    for field in keys.into_iter().filter_map(|key| section.field(key)) {
        let key = field.key.as_str();
        let types = Kind::ALL
            .iter()
            .filter(|(_, kind)| kind.keys().contains(&key));
        let types = keys::one_of(types.map(|(name, _)| format!("`type = \"{name}\"`")));
        let wanted = match kind.keys() {
            [] => "none of the keys of other types".to_owned(),
            keys => keys::one_of(keys.iter().map(|key| format!("`{key}`"))),
        };
        report.add(
            field.offset,
            &field.path,
            format!(
                "`{key}`, which `type = \"{}\"` does not have",
                name_of(kind)
            ),
            wanted,
            format!("take `{key}` out, or write {types}"),
        );
    }
}

fn http(
    section: &Section<'_>,
    tls: Result<Option<Tls>, Refused>,
    of: Of,
    report: &mut Report<'_>,
) -> Option<Probe> {
    let host = host(section, of, report);
    let path = match section.field("path") {
        Some(field) => field.parse(
            "a path that begins with `/`",
            "write `path = \"/healthz\"`, with what is not ASCII percent-encoded",
            report,
            |text| {
                let is_absolute = text.starts_with('/') && !text.contains('#');
                let path = PathAndQuery::try_from(text).ok().filter(|_| is_absolute)?;
                Some(path.as_str().to_owned())
            },
        ),
        None => Some("/".to_owned()),
    };
    let expect_status = match section.field("expect_status") {
        Some(field) => field.parse(
            "HTTP statuses from 200 to 599, or ranges of them",
            "write `expect_status = \"200-399\"`, or several as `\"200, 301-308\"`",
            report,
            statuses,
        ),
        None => Some(Statuses(vec![DEFAULT_STATUSES])),
    };
    Some(Probe::Http(Http {
        tls: tls.ok()?,
        host: host?,
        path: path?,
        expect_status: expect_status?,
    }))
}

/// `200`, `200-399`, `200, 301-308`.
fn statuses(text: &str) -> Option<Statuses> {
    let (least, most) = FINAL_STATUSES;
    let status = |text: &str| {
        let text = text.trim();
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let status: u16 = text.parse().ok().filter(|_| is_number)?;
        (least..=most).contains(&status).then_some(status)
    };
    let range = |text: &str| {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = (status(from)?, status(to)?);
        (from <= to).then_some((from, to))
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    let mut ranges = ranges?;
    ranges.sort_unstable();
    ranges.dedup();
    Some(Statuses(ranges))
}

fn host(section: &Section<'_>, of: Of, report: &mut Report<'_>) -> Option<Host> {
    let Some(field) = section.field("host") else {
        return of.address.map(Host::of_address);
    };
    field.parse(
        "a host name or address, and a port if need be",
        "write `host = \"www.example.com\"`, as it stands in a URL",
        report,
        |text| {
            let authority: Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
            let has_port =
                authority.port().is_some() == text.get(authority.host().len()..)?.contains(':');
            let name = authority
                .host()
                .trim_start_matches('[')
                .trim_end_matches(']');
            ServerName::try_from(name).ok().filter(|_| has_port)?;
            Some(Host {
                authority: text.to_owned(),
                name: name.to_owned(),
            })
        },
    )
}

/// What HTTP/2 carries; longer names are a mistake.
fn service(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    const LONGEST: usize = 255;
    field.parse(
        "the full name of a gRPC service, or nothing for the whole server",
        "write `service = \"shop.v1.Carts\"`, or take the key out",
        report,
        |text| {
            let is_name = |c: char| c.is_ascii_graphic();
            (text.len() <= LONGEST && text.chars().all(is_name)).then(|| text.to_owned())
        },
    )
}

fn tls_verify(section: &Section<'_>, report: &mut Report<'_>) -> Option<bool> {
    match section.field("tls_verify") {
        Some(field) => field.bool(
            "write `tls_verify = true` to have the certificate checked",
            report,
        ),
        None => Some(false),
    }
}

fn grpc_tls(section: &Section<'_>, report: &mut Report<'_>) -> Result<Option<Tls>, Refused> {
    let is_tls = match section.field("tls") {
        Some(field) => field.bool("write `tls = true` for gRPC over TLS", report),
        None => Some(false),
    };
    let verify = tls_verify(section, report);
    let (is_tls, verify) = is_tls.zip(verify).ok_or(Refused)?;
    if let Some(field) = section.field("tls_verify").filter(|_| verify && !is_tls) {
        field.refuse(
            "no check of certificates where there is no TLS",
            "add `tls = true`, or take `tls_verify` out",
            report,
        );
        return Err(Refused);
    }
    Ok(is_tls.then_some(Tls { verify }))
}

fn udp(section: &Section<'_>, report: &mut Report<'_>) -> Option<Probe> {
    const WANTED: &str =
        "the bytes to send: text, or hexadecimal digits after `hex:`, at most 1400 bytes";
    const HELP: &str =
        "write `send = \"PING\"` or `send = \"hex:00ff\"`, what a healthy server answers";
    let send = section
        .required("send", WANTED, HELP, report)
        .and_then(|field| field.parse(WANTED, HELP, report, payload));
    let expect = match section.field("expect") {
        Some(field) => field.parse(
            "how the answer begins: text, or hexadecimal digits after `hex:`, at most 1400 bytes",
            "write `expect = \"PONG\"` or `expect = \"hex:00ff\"`, or take the key out: any answer passes then",
            report,
            payload,
        ),
        None => Some(Vec::new()),
    };
    Some(Probe::Udp(Udp {
        send: send?,
        expect: expect?,
    }))
}

/// Text, or hexadecimal digits after `hex:`.
fn payload(text: &str) -> Option<Vec<u8>> {
    let bytes = match text.strip_prefix("hex:") {
        None => text.as_bytes().to_vec(),
        Some(digits) => {
            let digits: Option<Vec<u8>> = digits
                .chars()
                .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
                .collect();
            let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
            let (pairs, _) = digits.as_chunks::<2>();
            pairs.iter().map(|[high, low]| high << 4 | low).collect()
        }
    };
    (bytes.len() <= LONGEST_PAYLOAD).then_some(bytes)
}

fn dns(section: &Section<'_>, of: Of, report: &mut Report<'_>) -> Option<Probe> {
    const WANTED: &str = "a domain name";
    const HELP: &str = "write `query = \"example.com\"`, a name that a healthy server answers for";
    let field = section.required("query", WANTED, HELP, report)?;
    let query = field.parse(WANTED, HELP, report, |text| {
        let mut name = Name::from_utf8(text).ok().filter(|_| !text.is_empty())?;
        name.set_fqdn(true);
        Some(name)
    })?;
    Some(Probe::Dns(Dns {
        query,
        transport: of.protocol?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_statuses_and_ranges() {
        let both = statuses("301-308,200").unwrap();
        assert_eq!(both, statuses("200, 301 - 308, 200").unwrap());
        for (status, passes) in [
            (199, false),
            (200, true),
            (201, false),
            (301, true),
            (308, true),
            (309, false),
        ] {
            assert_eq!(both.contains(status), passes, "{status}");
        }
        for text in [
            "",
            "abc",
            "199",
            "600",
            "100-200",
            "300-200",
            "200-",
            "-200",
            "200,,300",
            "+200",
            "200-300-400",
        ] {
            assert_eq!(statuses(text), None, "{text}");
        }
    }

    #[test]
    fn reads_payloads_as_text_or_hexadecimal() {
        assert_eq!(payload("PING\n"), Some(b"PING\n".to_vec()));
        assert_eq!(payload("hex:00fF10"), Some(vec![0, 0xff, 0x10]));
        assert_eq!(payload("hex:"), Some(vec![]));
        assert_eq!(
            payload(&"x".repeat(1400)).map(|bytes| bytes.len()),
            Some(1400)
        );
        for text in ["hex:0", "hex:0g", "hex:00 ff", "hex:+1", &"x".repeat(1401)] {
            assert_eq!(payload(text), None, "{text}");
        }
    }

    #[test]
    fn writes_ipv6_hosts_in_brackets() {
        let host = Host::of_address("2001:db8::1".parse().unwrap());
        assert_eq!(
            (host.authority.as_str(), host.name.as_str()),
            ("[2001:db8::1]", "2001:db8::1")
        );
    }
}
