//! What a packet is to cost, in terms of the same run: ratios, and multiples of H, a lookup in a kernel hash with a 20-byte
//! key. H is told by a chain of lookups, since whatever a packet's program does next waits for what it has found; a processor
//! that goes on with the next packet meanwhile hides most of a lone one. They are printed beside what was measured and fail nothing: timings are noisy.

use lb_common::bench::LOOKUPS;
use serde::Serialize;

use crate::{
    cases::{
        HASH, HASHES, LRU, ONE, STEADY,
        sizes::{all_of, of_backends, one_of},
    },
    report::Case,
};

const SWAP: &str = "floor: parse and swap, v4";
const SWAP_V6: &str = "floor: parse and swap, v6";
const PUSH: &str = "floor: parse and push outer, v4";

/// One thing that was held against what it is to be.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Held {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// Not for everything is there a limit.
    pub(crate) at_most: Option<f64>,
}

/// Everything that the cases of this run allow to tell.
pub(crate) fn hold(cases: &[Case]) -> Vec<Held> {
    let run = Run { cases };
    let unit = run
        .hash_ns()
        .map(|ns| held("H, a lookup in a kernel hash", ns, "ns", None));
    unit.into_iter()
        .chain(run.above())
        .chain(run.ratios())
        .chain(run.pinned_syn())
        .collect()
}

fn held(what: &str, value: f64, unit: &'static str, at_most: Option<f64>) -> Held {
    Held {
        what: what.to_owned(),
        value,
        unit,
        at_most,
    }
}

struct Run<'a> {
    cases: &'a [Case],
}

impl Run<'_> {
    fn median(&self, name: &str) -> Option<f64> {
        let found = self.cases.iter().find(|case| case.name == name);
        found.filter(|case| case.is_calm).map(|case| case.median_ns)
    }

    /// What is told in H above a floor.
    fn above(&self) -> Vec<Held> {
        let above = [
            ("l2, v4 TCP, above its floor", ONE, SWAP, Some(1.0)),
            (
                "l2, v6 TCP, above its floor",
                "l2, v6 TCP, 1 flow",
                SWAP_V6,
                None,
            ),
            (
                "ipip, v4 TCP, above its floor",
                "ipip, v4 TCP in v4, 1 flow",
                PUSH,
                Some(1.2),
            ),
            (
                "gue, v4 TCP, above its floor",
                "gue, v4 TCP over v4, 1 flow",
                PUSH,
                Some(1.6),
            ),
            (
                "not a VIP, above its floor",
                "not a VIP, v4 TCP",
                SWAP,
                Some(0.5),
            ),
            (
                "a limit of packets of a source, 1,024 sources, above none",
                "limit, packets of a source, 1,024 sources",
                "l2, v4 TCP, 64k flows",
                Some(2.4),
            ),
        ];

        let told = above.into_iter().filter_map(|(what, case, floor, limit)| {
            let value = (self.median(case)? - self.median(floor)?) / self.hash_ns()?;
            Some(held(what, value, "H", limit))
        });
        told.collect()
    }

    /// What is told as one case against another.
    fn ratios(&self) -> Vec<Held> {
        let one_vip = one_of(1);
        let ratios = [
            (
                "l2, v6 against v4",
                "l2, v6 TCP, 1 flow".to_owned(),
                ONE.to_owned(),
                Some(1.3),
            ),
            (
                "ipip, v6 in v6 against v4 in v4",
                "ipip, v6 TCP in v6, 1 flow".to_owned(),
                "ipip, v4 TCP in v4, 1 flow".to_owned(),
                Some(1.3),
            ),
            (
                "l2, 64k flows against one",
                "l2, v4 TCP, 64k flows".to_owned(),
                ONE.to_owned(),
                Some(1.5),
            ),
            (
                "l2, 10,000,000 flows against one",
                STEADY.to_owned(),
                ONE.to_owned(),
                Some(1.5),
            ),
            (
                "ipip, 10,000,000 flows against one",
                "ipip, v4 TCP in v4, 10,000,000 flows".to_owned(),
                "ipip, v4 TCP in v4, 1 flow".to_owned(),
                Some(1.5),
            ),
            (
                "10,000 backends against three",
                of_backends(10_000),
                of_backends(3),
                Some(2.0),
            ),
            (
                "one of 500 VIPs against a single one",
                one_of(500),
                one_vip.clone(),
                Some(1.25),
            ),
            (
                "spread over 500 VIPs against a single one",
                all_of(500),
                one_vip,
                None,
            ),
            (
                "a flood of SYNs against a Stable packet",
                "l2, v4 TCP, SYN flood".to_owned(),
                "l2, v4 TCP, 64k flows".to_owned(),
                Some(1.5),
            ),
        ];

        let told = ratios.into_iter().filter_map(|(what, case, other, limit)| {
            let value = self.median(&case)? / self.median(&other)?;
            Some(held(what, value, "times", limit))
        });
        told.collect()
    }

    /// H, in ns.
    fn hash_ns(&self) -> Option<f64> {
        let more = f64::from(u32::try_from(LOOKUPS - 1).ok()?);
        Some((self.median(HASHES)? - self.median(HASH)?) / more)
    }

    /// A SYN that is pinned, against a Stable packet and two updates of an LRU hash.
    fn pinned_syn(&self) -> Option<Held> {
        let syn = self.median("Holding, SYN flood")?;
        let parts = self.median("l2, v4 TCP, SYN flood")? + 2.0 * self.median(LRU)?;
        Some(held(
            "a SYN that is pinned against a Stable one and two LRU updates",
            syn / parts,
            "times",
            Some(1.0),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_in_calm_is_held_against_anything() {
        let case = |name: &str, ns| Case::new(name.to_owned(), vec![ns]);
        let cases = [
            case(SWAP, 5.0),
            case(HASH, 10.0),
            case(HASHES, 330.0),
            case(ONE, 45.0),
            case("l2, v4 TCP, 64k flows", 54.0),
            case(STEADY, 54.0).beside_others(9, false),
        ];
        assert_eq!(
            hold(&cases),
            [
                held("H, a lookup in a kernel hash", 40.0, "ns", None),
                held("l2, v4 TCP, above its floor", 1.0, "H", Some(1.0)),
                held("l2, 64k flows against one", 1.2, "times", Some(1.5)),
            ]
        );
    }
}
