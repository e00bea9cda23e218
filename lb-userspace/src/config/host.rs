//! What a configuration says about this host, held against the host.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use super::{keys, load::Needed, node::NamedInterface, source::Report};

/// How many interfaces a remedy names.
const LISTED: usize = 12;

/// Reports every interface that this host does not have, where `needed` are missing.
pub(super) fn check(wanted: &[NamedInterface], needed: Needed, report: &mut Report<'_>) {
    if needed == Needed::None {
        return;
    }
    match interfaces() {
        Ok(present) if needed == Needed::One && has_one(wanted, &present) => {}
        Ok(present) => compare(wanted, &present, report),
        Err(error) => tracing::debug!(%error, "the host's interfaces cannot be listed"),
    }
}

fn has_one(wanted: &[NamedInterface], present: &[String]) -> bool {
    wanted.iter().any(|(name, ..)| present.contains(name))
}

fn compare(wanted: &[NamedInterface], present: &[String], report: &mut Report<'_>) {
    let mut list: Vec<String> = present
        .iter()
        .filter(|name| *name != "lo")
        .cloned()
        .collect();
    list.sort();
    let more = list.len().saturating_sub(LISTED);
    list.truncate(LISTED);
    let mut list = keys::one_of(list.into_iter().map(|name| format!("`{name}`")));
    if more > 0 {
        list = format!("{list} ({more} more: `ip -br link`)");
    }
    for (name, path, offset) in wanted {
        if present.contains(name) {
            continue;
        }
        let help = if list.is_empty() {
            "this host has none but `lo`; make it first, or check with `--offline`".to_owned()
        } else {
            format!("write one that this host has: {list}")
        };
        let found = format!("{name:?}, which this host does not have");
        report.add(*offset, path, found, "an existing interface", help);
    }
}

/// The interfaces of the calling thread's network namespace. (`/sys/class/net` shows those of the
/// namespace in which sysfs was mounted, which may be another one.)
fn interfaces() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    Ok(parse_dev(&text))
}

fn parse_dev(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// Whether an address is this node's own, by what the kernel would do.
pub(super) fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Nothing is sent: for a destination of its own the kernel chooses that very address as the source.
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(SocketAddr::new(address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    source().is_ok_and(|source| source == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_hosts_addresses() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(is_own(Ipv6Addr::LOCALHOST.into()));
        assert!(!is_own(Ipv4Addr::new(203, 0, 113, 10).into()));
    }

    #[test]
    fn reads_the_kernels_list() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0:1 2\n";
        assert_eq!(parse_dev(text), ["lo", "eth0"]);
        assert!(interfaces().unwrap().contains(&"lo".to_owned()));
    }

    #[test]
    fn names_what_the_host_has_instead() {
        let mut report = Report::new("f", "interfaces = [\"eth7\"]");
        let wanted = [("eth7".to_owned(), "node.interfaces[0]".to_owned(), 14)];
        compare(&wanted, &["lo".to_owned(), "eth0".to_owned()], &mut report);
        let errors = report.finish(Some(())).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "error: f:1:15: node.interfaces[0]: found \"eth7\", which this host does not have, \
             wanted an existing interface\n  help: write one that this host has: `eth0`"
        );
    }
}
