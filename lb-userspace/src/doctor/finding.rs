//! What a check says. Field names are stable: scripts read them.

use serde::{Deserialize, Serialize};

/// How bad it is. The order is that of badness.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    #[default]
    Ok,
    /// Worth knowing; nothing is lost by it.
    Note,
    /// Some packets or some machines suffer, or will.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Name of the check, one of those in docs/doctor.md.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was looked at: an interface, an address, a path; `host` for the host as a whole.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// Why it hurts; `null` where it does not.
    pub why: Option<String>,
    /// What mends it, where no command alone does.
    pub remedy: Option<String>,
    /// Commands that mend it, in order, each a line for a shell.
    pub commands: Vec<String>,
}

impl Finding {
    /// The subject of what concerns the whole host.
    pub(super) const HOST: &str = "host";

    /// A finding without remedy.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a name, an address or a path, borrowed or not"
    )]
    pub(super) fn new(
        level: Level,
        check: &str,
        subject: impl ToString,
        what: impl Into<String>,
    ) -> Self {
        Self {
            check: check.to_owned(),
            level,
            subject: subject.to_string(),
            what: what.into(),
            ..Self::default()
        }
    }

    pub(super) fn ok(check: &str, subject: impl ToString, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, subject, what)
    }

    pub(super) fn note(check: &str, subject: impl ToString, what: impl Into<String>) -> Self {
        Self::new(Level::Note, check, subject, what)
    }

    pub(super) fn warn(check: &str, subject: impl ToString, what: impl Into<String>) -> Self {
        Self::new(Level::Warn, check, subject, what)
    }

    pub(super) fn fail(check: &str, subject: impl ToString, what: impl Into<String>) -> Self {
        Self::new(Level::Fail, check, subject, what)
    }

    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }
}

/// What became of all checks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// What was examined.
    pub role: Role,
    /// The worst of all levels.
    pub level: Level,
    /// Every finding, the worst first.
    pub findings: Vec<Finding>,
}

/// What a host is to weir.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It runs weir.
    Balancer,
    /// It serves VIPs.
    Backend,
}

impl Report {
    /// Sorts findings by badness; those of a level stay in order.
    #[must_use]
    pub fn new(role: Role, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let level = findings.iter().map(|finding| finding.level).max();
        Self {
            role,
            level: level.unwrap_or_default(),
            findings,
        }
    }

    /// How many findings are of a level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        let of = self.findings.iter();
        of.filter(|finding| finding.level == level).count()
    }

    /// Whether nothing needs to be mended.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.level < Level::Warn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_counts() {
        let findings = vec![
            Finding::ok("a", "eth0", "fine"),
            Finding::fail("b", "eth0", "broken"),
            Finding::note("c", "eth0", "curious"),
        ];
        let report = Report::new(Role::Balancer, findings);
        let order: Vec<_> = report.findings.iter().map(|f| f.check.as_str()).collect();
        assert_eq!(order, ["b", "c", "a"]);
        assert_eq!((report.level, report.is_well()), (Level::Fail, false));
        assert_eq!(report.count(Level::Note), 1);
        let note = Report::new(Role::Backend, vec![Finding::note("c", "x", "y")]);
        assert!(note.is_well());
        assert!(Report::new(Role::Backend, Vec::new()).is_well());
    }

    #[test]
    fn field_names_are_stable() {
        let finding = Finding::fail("mtu", "eth0", "1500")
            .why("lost")
            .remedy("more")
            .command("ip link set dev eth0 mtu 1548");
        let json = serde_json::to_value(Report::new(Role::Backend, vec![finding])).unwrap();
        let expected = serde_json::json!({
            "role": "backend",
            "level": "fail",
            "findings": [{
                "check": "mtu",
                "level": "fail",
                "subject": "eth0",
                "what": "1500",
                "why": "lost",
                "remedy": "more",
                "commands": ["ip link set dev eth0 mtu 1548"],
            }],
        });
        assert_eq!(json, expected);
    }
}
