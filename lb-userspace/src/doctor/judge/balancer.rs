//! A load balancer as a whole.

use super::{cluster, daemon, host, nic, node, routing, ways};
use crate::{
    config::Config,
    doctor::{
        facts::Balancer,
        finding::{Finding, Report, Role},
    },
};

/// Judges a load balancer.
pub(in crate::doctor) fn judge(facts: &Balancer, config: &Config) -> Report {
    let mut findings = host::check(facts, config);
    for name in &config.node.interfaces {
        match facts.net.nics.get(name) {
            Some(found) => {
                findings.extend(nic::check(found, config.node.xdp_mode, facts.host.cpus));
            }
            None => findings.push(absent(name, facts)),
        }
    }
    findings.extend(ways::check(facts, config));
    findings.extend(node::check(facts, config));
    findings.extend(cluster::check(&facts.net, config));
    findings.extend(routing::check(facts, config));
    findings.extend(daemon::check(facts));
    Report::new(Role::Balancer, findings)
}

fn absent(name: &str, facts: &Balancer) -> Finding {
    let nics = facts.net.nics.values().filter(|nic| !nic.is_loopback);
    let present: Vec<_> = nics.map(|nic| nic.name.as_str()).collect();
    nic::absent(name, &present)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{balancer, config, level},
        *,
    };
    use crate::doctor::finding::Level;

    #[test]
    fn nothing_is_wrong_with_a_good_balancer() {
        let report = judge(&balancer(), &config());
        assert!(report.is_well(), "{report:?}");
        // That no daemon runs is worth a note.
        assert_eq!(report.level, Level::Note);
    }

    #[test]
    fn an_interface_that_is_missing_fails() {
        let mut config = config();
        config.node.interfaces.push("eth9".to_owned());
        let report = judge(&balancer(), &config);
        assert_eq!(level(&report.findings, "link"), Level::Fail);
    }
}
