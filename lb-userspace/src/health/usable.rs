//! Which backends of a VIP the tables may use. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Check, Verdict};
use crate::config::Vip;

/// What the verdicts make of a VIP's backends.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Usable {
    /// The backends that the tables may use: those that have not failed, or all where weir fails open.
    pub addresses: BTreeSet<IpAddr>,
    /// How many backends with a weight are known to be healthy, or are not checked: what `min_healthy` counts.
    pub passing: usize,
    /// How many backends with a weight may pass: nobody has asked them yet.
    pub unknown: usize,
    /// Whether so many have failed that all are used.
    pub fails_open: bool,
}

/// The backends of a VIP that may be used, after what is known of each check.
///
/// A backend of which nothing is known yet is used: new flows are held back from new backends for a moment anyway
/// (DESIGN.md, section 4), and on the start of a node there is nobody better. Backends of weight 0 are asked,
/// but do not count for the share that has failed: they take no new flows, so they cannot relieve the others.
#[must_use]
pub fn usable(vip: &Vip, verdict: impl Fn(&Check) -> Verdict) -> Usable {
    let all = || vip.backends.iter().map(|backend| backend.address);
    let weighted = vip.backends.iter().filter(|backend| backend.weight > 0);
    let weighted: BTreeSet<IpAddr> = weighted.map(|backend| backend.address).collect();
    let Some(health) = &vip.health else {
        return Usable {
            addresses: all().collect(),
            passing: weighted.len(),
            unknown: 0,
            fails_open: false,
        };
    };
    let mut usable = Usable::default();
    let mut failed = 0;
    for backend in &vip.backends {
        let address = backend.address;
        let counts = usize::from(weighted.contains(&address));
        match verdict(&Check::new(health, address, backend.forward)) {
            Verdict::Failed => {
                failed += counts;
                continue;
            }
            Verdict::Healthy => usable.passing += counts,
            Verdict::Unknown => usable.unknown += counts,
        }
        usable.addresses.insert(address);
    }
    let threshold = usize::from(health.panic_threshold) * weighted.len();
    if failed > 0 && failed * 100 >= threshold {
        usable.addresses = all().collect();
        usable.fails_open = true;
    }
    usable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// A VIP whose backends 10.0.0.1, 10.0.0.2, … have these weights.
    fn vip(health: &str, weights: &[u16]) -> Vip {
        let backends = weights.iter().zip(1..).map(|(weight, host)| {
            format!("[[vip.backend]]\naddress = \"10.0.0.{host}\"\nweight = {weight}\n")
        });
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n[[vip]]\nname = \"web\"\n\
             address = \"203.0.113.1\"\nport = 443\nprotocol = \"tcp\"\n{health}\n{}",
            backends.collect::<String>()
        );
        Config::parse(&text, "f").unwrap().vips.remove(0)
    }

    /// The hosts that are used, how many pass, and whether it fails open, with a verdict a host.
    fn used(vip: &Vip, verdicts: &[Verdict]) -> (Vec<u8>, usize, bool) {
        let host = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => panic!("no such backend"),
        };
        let usable = usable(vip, |check| {
            verdicts[usize::from(host(check.target.ip())) - 1]
        });
        let hosts = usable.addresses.into_iter().map(host).collect();
        (hosts, usable.passing, usable.fails_open)
    }

    const TCP: &str = "health = { type = \"tcp\" }";
    const HALF: &str = "health = { type = \"tcp\", panic_threshold = \"50%\" }";

    use Verdict::{Failed, Healthy, Unknown};

    #[test]
    fn failed_backends_are_left_out() {
        let vip = vip(TCP, &[100, 100, 100]);
        assert_eq!(
            used(&vip, &[Healthy, Failed, Healthy]),
            (vec![1, 3], 2, false)
        );
        assert_eq!(used(&vip, &[Healthy, Failed, Failed]), (vec![1], 1, false));
    }

    #[test]
    fn unknown_backends_are_used_but_do_not_pass() {
        let vip = vip(TCP, &[100, 100]);
        assert_eq!(used(&vip, &[Unknown, Unknown]), (vec![1, 2], 0, false));
        assert_eq!(used(&vip, &[Unknown, Failed]), (vec![1], 0, false));
    }

    #[test]
    fn all_are_used_when_all_have_failed() {
        let vip = vip(TCP, &[100, 100]);
        assert_eq!(used(&vip, &[Failed, Failed]), (vec![1, 2], 0, true));
    }

    #[test]
    fn all_are_used_from_the_threshold_on() {
        let four = vip(HALF, &[1, 1, 1, 1]);
        assert_eq!(
            used(&four, &[Failed, Healthy, Healthy, Healthy]),
            (vec![2, 3, 4], 3, false)
        );
        assert_eq!(
            used(&four, &[Failed, Failed, Healthy, Healthy]),
            (vec![1, 2, 3, 4], 2, true)
        );
        let three = vip(HALF, &[1, 1, 1]);
        assert_eq!(
            used(&three, &[Failed, Healthy, Healthy]),
            (vec![2, 3], 2, false)
        );
    }

    #[test]
    fn drained_backends_neither_pass_nor_weigh() {
        let vip = vip(TCP, &[100, 0]);
        assert_eq!(used(&vip, &[Healthy, Failed]), (vec![1], 1, false));
        assert_eq!(used(&vip, &[Failed, Healthy]), (vec![1, 2], 0, true));
        assert_eq!(used(&vip, &[Healthy, Healthy]), (vec![1, 2], 1, false));
    }

    #[test]
    fn a_failed_backend_stays_out_where_all_others_are_drained() {
        let vip = vip(TCP, &[0, 0]);
        assert_eq!(used(&vip, &[Failed, Healthy]), (vec![2], 0, false));
    }

    #[test]
    fn without_checks_all_are_used_and_pass() {
        let vip = vip("", &[100, 0, 100]);
        assert_eq!(used(&vip, &[]), (vec![1, 2, 3], 2, false));
    }
}
