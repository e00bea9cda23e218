//! From facts to findings: pure, so that every finding can be provoked in a test.

pub(super) mod balancer;
mod cluster;
mod daemon;
mod host;
mod nic;
mod node;
mod routing;
pub(super) mod server;
#[cfg(test)]
mod testing;
mod tunnel;
mod ways;

/// A word for a shell, quoted where it must be.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.:/@%+=,-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `1 thing`, `2 things`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The length of the prefix that is one address.
const fn whole(address: std::net::IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// What clients on the internet send at most, in bytes: what should go through in one piece.
const USUAL_PACKET: u32 = 1500;

/// How many bytes the outer headers of a mode take.
const fn overhead(forward: crate::config::ForwardMode, is_outer_v4: bool) -> u32 {
    use crate::config::ForwardMode;
    let ip = if is_outer_v4 { 20 } else { 40 };
    match forward {
        ForwardMode::L2 => 0,
        ForwardMode::Ipip => ip,
        ForwardMode::Gue => ip + 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ForwardMode;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(word("eth0.100"), "eth0.100");
        assert_eq!(word("a b'c"), r"'a b'\''c'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn every_check_is_documented() {
        let docs = include_str!("../../../../docs/doctor.md");
        let balancer = balancer::judge(&testing::balancer(), &testing::config());
        let wanted = crate::doctor::facts::Wanted {
            vips: vec!["203.0.113.10:443".parse().unwrap()],
            ..Default::default()
        };
        let server = server::judge(&testing::server(), &wanted);
        let checks = [
            "strict-arp",
            "cluster-mtu",
            "route-rule",
            "vip-routes",
            "bgp",
        ];
        let checks = checks.map(str::to_owned);
        let findings = balancer.findings.iter().chain(&server.findings);
        let found = findings.map(|finding| finding.check.clone());
        for check in found.chain(checks) {
            assert!(docs.contains(&format!("`{check}`")), "{check}");
        }
    }

    /// docs/backends.md has these numbers.
    #[test]
    fn outer_headers_have_the_documented_sizes() {
        let all = [ForwardMode::L2, ForwardMode::Ipip, ForwardMode::Gue];
        assert_eq!(all.map(|mode| overhead(mode, true)), [0, 20, 28]);
        assert_eq!(all.map(|mode| overhead(mode, false)), [0, 40, 48]);
    }
}
