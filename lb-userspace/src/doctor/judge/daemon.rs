//! What a running daemon says of itself.

use crate::{
    api::{InterfaceState, Status},
    doctor::{
        facts::{Balancer, Daemon},
        finding::Finding,
    },
};

pub(super) fn check(facts: &Balancer) -> Vec<Finding> {
    const CHECK: &str = "daemon";
    match &facts.daemon {
        Daemon::Answers(status) => running(status),
        Daemon::Unknown(error) => vec![
            Finding::warn(CHECK, Finding::HOST, format!("cannot be asked: {error}"))
                .why("what it knows of backends and flows is missing from this report")
                .remedy("ask as root, or as a member of `api_group`"),
        ],
        Daemon::Away => {
            let mut findings = vec![away(facts)];
            findings.extend(facts.unhealthy.iter().map(|(backend, error)| {
                unhealthy(backend, &format!("fails its health check: {error}"))
            }));
            findings
        }
    }
}

/// No daemon: that is an accident only where its program is attached.
fn away(facts: &Balancer) -> Finding {
    const CHECK: &str = "daemon";
    let mut nics = facts.net.nics.values();
    let is_left = nics.any(|nic| nic.xdp.as_ref().is_some_and(|xdp| xdp.is_weirs));
    if is_left {
        return Finding::warn(
            CHECK,
            Finding::HOST,
            "no daemon runs, and its program forwards without it",
        )
        .why("backends that fail keep their share, neighbours that move are not followed, and nothing is counted for Prometheus")
        .command("systemctl start weir");
    }
    Finding::note(CHECK, Finding::HOST, "no daemon runs")
        .why("this is what one would find; nothing is forwarded")
}

fn running(status: &Status) -> Vec<Finding> {
    const CHECK: &str = "daemon";
    let mut findings = Vec::new();
    if status.ready {
        let (node, version) = (&status.node, &status.version);
        findings.push(Finding::ok(
            CHECK,
            Finding::HOST,
            format!("node {node} runs weir {version} and is ready"),
        ));
    } else {
        findings.push(
            Finding::fail(CHECK, Finding::HOST, "is not ready")
                .why("its program is on no interface, or its maps do not hold the configuration")
                .remedy("see its log:")
                .command("journalctl -u weir -n 50"),
        );
    }
    let own = env!("CARGO_PKG_VERSION");
    if status.version != own {
        findings.push(
            Finding::note(
                CHECK,
                Finding::HOST,
                format!("runs weir {}, and this is weir {own}", status.version),
            )
            .why("the new version takes over at the next start, without a gap")
            .command("systemctl restart weir"),
        );
    }
    for interface in &status.interfaces {
        if interface.state == InterfaceState::Refused {
            findings.push(
                Finding::fail(
                    CHECK,
                    &interface.name,
                    "the kernel refuses the program on it",
                )
                .why("packets that come by it are not forwarded")
                .remedy("see why in its log:")
                .command("journalctl -u weir -n 50"),
            );
        }
    }
    for problem in &status.problems {
        findings.push(
            Finding::warn(CHECK, Finding::HOST, format!("says: {problem}"))
                .why("it shows in `weir status` until it is mended"),
        );
    }
    for vip in &status.vips {
        if vip.fails_open {
            findings.push(
                Finding::warn(
                    "health",
                    &vip.name,
                    "so many backends fail their checks that all are used",
                )
                .why("connections go to backends that are down")
                .command(format!("weir vip show {}", super::word(&vip.name))),
            );
        }
        if !vip.is_served() {
            findings.push(
                Finding::fail("health", &vip.name, "no backend takes packets")
                    .why("clients of this VIP get no answer")
                    .command(format!("weir vip show {}", super::word(&vip.name))),
            );
        }
        for backend in &vip.backends {
            if backend.healthy == Some(false) {
                let text = format!("fails its health checks for VIP {}", vip.name);
                findings.push(unhealthy(&backend.address.to_string(), &text));
            }
        }
    }
    findings
}

fn unhealthy(backend: &str, what: &str) -> Finding {
    Finding::warn("health", backend, what)
        .why("it takes no new connections, and the others carry its share")
        .remedy("on that host, see that the service runs and answers; `weir doctor --backend` checks its settings")
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{balancer, carried, level, of, status, vip},
        *,
    };
    use crate::{
        api::{AttachMode, InterfaceStatus},
        doctor::finding::Level::{Fail, Note, Ok as Fine, Warn},
    };

    fn checked(change: impl FnOnce(&mut Status)) -> Vec<Finding> {
        let mut status = status();
        change(&mut status);
        running(&status)
    }

    #[test]
    fn a_daemon_that_is_well_is_all_right() {
        let findings = checked(|status| status.vips = vec![vip(true, 65_536, false)]);
        assert_eq!(
            (findings.len(), findings[0].level),
            (1, Fine),
            "{findings:?}"
        );
    }

    #[test]
    fn what_ails_a_daemon_is_told() {
        assert_eq!(
            level(&checked(|status| status.ready = false), "daemon"),
            Fail
        );
        let told = checked(|status| status.problems.push("a drain was lost".to_owned()));
        assert_eq!(level(&told, "daemon"), Warn);
        let other = checked(|status| status.version = "0.0.1".to_owned());
        assert_eq!(level(&other, "daemon"), Note);
        let refused = checked(|status| {
            status.interfaces.push(InterfaceStatus {
                name: "eth0".to_owned(),
                state: InterfaceState::Refused,
                ifindex: Some(2),
                mode: None,
                foreign: None,
            });
        });
        assert_eq!(level(&refused, "daemon"), Fail);
    }

    #[test]
    fn sick_backends_are_told() {
        let sick = checked(|status| status.vips = vec![vip(false, 65_536, false)]);
        assert_eq!(level(&sick, "health"), Warn);
        let open = checked(|status| status.vips = vec![vip(true, 65_536, true)]);
        assert_eq!(level(&open, "health"), Warn);
        let alone = checked(|status| status.vips = vec![vip(true, 0, false)]);
        assert_eq!(level(&alone, "health"), Fail);
    }

    #[test]
    fn a_program_without_its_daemon_is_warned_of() {
        let mut facts = balancer();
        assert_eq!(level(&check(&facts), "daemon"), Note);
        let nic = facts.net.nics.get_mut("eth0").unwrap();
        nic.xdp = Some(carried(false, AttachMode::Native));
        assert_eq!(level(&check(&facts), "daemon"), Note);
        let nic = facts.net.nics.get_mut("eth0").unwrap();
        nic.xdp = Some(carried(true, AttachMode::Native));
        assert_eq!(level(&check(&facts), "daemon"), Warn);
    }

    #[test]
    fn failed_checks_count_without_a_daemon_too() {
        let mut facts = balancer();
        assert!(of(&check(&facts), "health").is_empty());
        facts.unhealthy = vec![("10.0.0.11:443".to_owned(), "connect: refused".to_owned())];
        assert_eq!(level(&check(&facts), "health"), Warn);
    }

    #[test]
    fn a_daemon_that_cannot_be_asked_is_warned_of() {
        let mut facts = balancer();
        facts.daemon = Daemon::Unknown("permission denied".to_owned());
        assert_eq!(level(&check(&facts), "daemon"), Warn);
    }
}
