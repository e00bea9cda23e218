//! What the demo saw, as a table, and what is wrong with it.

use std::{fmt::Write as _, net::IpAddr};

use crate::traffic::client::Summary;

/// How far a share may be from its weight, in percentage points.
const TOLERANCE: f64 = 5.0;
/// With fewer answers, chance alone moves a share further than that.
const ENOUGH: u32 = 1000;

/// What one IP family's requests showed.
#[derive(Debug, Clone)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) vip: IpAddr,
    /// The VIP's name in weir's config.
    pub(super) service: &'static str,
    /// Who answered the client.
    pub(super) answers: Summary,
    /// Frames forwarded to each backend, by the XDP program's counters.
    pub(super) packets: Vec<u64>,
    /// Frames of the client that left the load balancer, counted at the switch.
    pub(super) sent_for_client: u64,
    /// Frames from the VIP that left the load balancer, counted at the switch.
    pub(super) sent_from_vip: u64,
}

/// Everything that the demo showed.
#[derive(Debug, Clone)]
pub(super) struct Findings {
    pub(super) families: Vec<Family>,
    pub(super) backends: Vec<String>,
    pub(super) weights: Vec<u32>,
    pub(super) interface: String,
    pub(super) forwarded: u64,
}

impl Default for Family {
    fn default() -> Self {
        Self {
            name: "",
            vip: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            service: "",
            answers: Summary::default(),
            packets: Vec::new(),
            sent_for_client: 0,
            sent_from_vip: 0,
        }
    }
}

impl Findings {
    fn on_the_wire(&self) -> u64 {
        self.families
            .iter()
            .map(|family| family.sent_for_client)
            .sum()
    }

    /// Tells whether every packet that the program counts as forwarded was seen on the wire, and no other.
    pub(super) fn counters_agree(&self) -> bool {
        self.forwarded == self.on_the_wire()
    }

    fn expected_share(&self, weight: u32) -> f64 {
        100.0 * f64::from(weight) / f64::from(self.weights.iter().sum::<u32>().max(1))
    }

    /// Returns the table that the person sees.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "family  backend      weight  wanted    got   requests   packets by XDP\n",
        );
        for family in &self.families {
            for ((backend, &weight), packets) in
                self.backends.iter().zip(&self.weights).zip(&family.packets)
            {
                let requests = family.answers.by_backend.get(backend).copied().unwrap_or(0);
                let (wanted, got) = (self.expected_share(weight), family.answers.share(backend));
                // Writing to a String cannot fail.
                let _infallible = writeln!(
                    text,
                    "{:<6}  {backend:<11}  {weight:>6}  {wanted:>5.1}%  {got:>5.1}%  {requests:>8}  {packets:>15}",
                    family.name
                );
            }
        }
        let _infallible = writeln!(
            text,
            "\nforwarded by the XDP program on {}: {} packets",
            self.interface, self.forwarded
        );
        for Family {
            name,
            vip,
            answers,
            sent_for_client,
            sent_from_vip,
            ..
        } in &self.families
        {
            let seconds =
                f64::from(u32::try_from(answers.duration_ms).unwrap_or(u32::MAX)) / 1000.0;
            let _infallible = writeln!(
                text,
                "{name}: {} answers, {} failures, {seconds:.1} s; the switch saw the load balancer send {sent_for_client} \
                 packets of the client's, and {sent_from_vip} from {vip}",
                answers.answered(),
                answers.failed,
            );
        }
        if self
            .families
            .iter()
            .any(|family| family.answers.answered() < ENOUGH)
        {
            let _infallible = writeln!(
                text,
                "fewer than {ENOUGH} answers: the shares are not judged"
            );
        }
        if self.complaints().is_empty() {
            text.push_str("every answer went from the backend straight to the client\n");
        }
        text
    }

    /// Returns what is not as it should be, in words.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<_> = self
            .families
            .iter()
            .flat_map(|family| self.complaints_of(family))
            .collect();
        if !self.counters_agree() {
            complaints.push(format!(
                "the program counts {} forwarded packets, the switch saw {}",
                self.forwarded,
                self.on_the_wire()
            ));
        }
        complaints
    }

    fn complaints_of(&self, family: &Family) -> Vec<String> {
        let Family {
            name,
            vip,
            service: _,
            answers,
            packets: _,
            sent_for_client,
            sent_from_vip,
        } = family;
        let mut complaints = Vec::new();
        if answers.failed > 0 {
            complaints.push(format!(
                "{name}: {} requests failed: {:?}",
                answers.failed, answers.errors
            ));
        }
        for (backend, &weight) in self.backends.iter().zip(&self.weights) {
            let (wanted, got) = (self.expected_share(weight), answers.share(backend));
            if answers.answered() >= ENOUGH && (wanted - got).abs() > TOLERANCE {
                complaints.push(format!(
                    "{name}: {backend} took {got:.1}% of the requests, {wanted:.1}% are its weight"
                ));
            }
        }
        if *sent_for_client == 0 {
            complaints.push(format!(
                "{name}: the load balancer forwarded nothing, so nothing is proven"
            ));
        }
        if *sent_from_vip > 0 {
            complaints.push(format!(
                "{name}: {sent_from_vip} packets from {vip} passed through the load balancer"
            ));
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn good() -> Findings {
        let by_backend = BTreeMap::from([("a".to_owned(), 480), ("b".to_owned(), 520)]);
        let family = Family {
            name: "IPv4",
            vip: [203, 0, 113, 10].into(),
            service: "web-v4",
            answers: Summary {
                by_backend,
                ..Summary::default()
            },
            packets: vec![2400, 2600],
            sent_for_client: 5000,
            sent_from_vip: 0,
        };
        Findings {
            families: vec![family],
            backends: vec!["a".to_owned(), "b".to_owned()],
            weights: vec![100, 100],
            interface: "eth0 (native)".to_owned(),
            forwarded: 5000,
        }
    }

    #[test]
    fn nothing_is_wrong_with_good_findings() {
        assert_eq!(good().complaints(), Vec::<String>::new());
        assert!(good().table().contains("straight to the client"));
    }

    #[test]
    fn complains_of_an_answer_through_the_load_balancer() {
        let mut findings = good();
        findings.families[0].sent_from_vip = 1;
        assert_eq!(findings.complaints().len(), 1);
        assert!(!findings.table().contains("straight to the client"));
    }

    #[test]
    fn complains_of_failures_shares_and_silence() {
        let mut failed = good();
        failed.families[0].answers.failed = 1;
        assert!(failed.complaints()[0].contains("1 requests failed"));

        let mut askew = good();
        askew.families[0]
            .answers
            .by_backend
            .insert("a".to_owned(), 2000);
        assert_eq!(askew.complaints().len(), 2);

        askew.families[0]
            .answers
            .by_backend
            .insert("a".to_owned(), 1);
        assert_eq!(askew.complaints(), Vec::<String>::new(), "too few to judge");

        let mut silent = good();
        silent.families[0].sent_for_client = 0;
        silent.forwarded = 0;
        assert!(silent.complaints()[0].contains("nothing is proven"));
    }

    #[test]
    fn complains_of_counters_that_disagree_with_the_wire() {
        let mut findings = good();
        findings.forwarded += 1;
        assert!(findings.complaints()[0].contains("counts 5001"));
    }
}
