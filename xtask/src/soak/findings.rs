//! What a soak has shown.

use std::fmt;

use super::{death::Death, traffic::Traffic};
use crate::traffic::lasting::event::{Broken, Refused};

/// How many of the same are shown.
const SHOWN: usize = 10;

/// What a node has counted of all packets that it sent on to backends.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) node: String,
    /// By reason.
    pub(super) by_reason: u64,
    /// By VIP.
    pub(super) by_vip: u64,
}

/// What a soak has shown.
#[derive(Debug)]
pub struct Findings {
    pub(super) changes: u32,
    /// Frames of flows that nobody has, sent beside the connections.
    pub(super) strays: u64,
    /// What each node has counted, at the end.
    pub(super) counters: Vec<Counters>,
    /// The backend whose server was killed.
    pub(super) victim: Death,
    /// The backends that failed their checks.
    pub(super) flaps: Vec<Death>,
    /// Whether a rule was broken on purpose.
    pub(super) is_broken: bool,
    pub(super) traffic: Vec<Traffic>,
    /// Of each node's lookup table, at the end.
    pub(super) digests: Vec<String>,
    /// Of a daemon that knows nothing but the last config.
    pub(super) fresh: String,
}

impl Findings {
    fn all_broken(&self) -> impl Iterator<Item = &Broken> {
        self.traffic.iter().flat_map(|traffic| &traffic.broken)
    }

    /// Connections that broke and should not have: all but those of backends that died, from their death on.
    fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.all_broken()
            .filter(|broken| !self.deaths().any(|death| death.explains(broken)))
    }

    fn deaths(&self) -> impl Iterator<Item = &Death> {
        self.flaps.iter().chain([&self.victim])
    }

    /// How many connections broke with the killed backend.
    fn of_victim(&self) -> usize {
        let all = self.all_broken();
        all.filter(|broken| self.victim.explains(broken)).count()
    }

    /// How many connections broke because their backend failed its checks.
    fn of_flaps(&self) -> usize {
        let all = self.all_broken();
        all.filter(|broken| self.flaps.iter().any(|death| death.explains(broken)))
            .count()
    }

    /// New connections that failed, and not because a backend died just then.
    fn refused(&self) -> impl Iterator<Item = &Refused> {
        let all = self.traffic.iter().flat_map(|traffic| &traffic.refused);
        all.filter(|refused| !self.flaps.iter().any(|death| death.excuses(refused)))
    }

    /// Returns what should not be; nothing if all is well.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let count = self.broken().count();
        if count > 0 {
            let shown: Vec<_> = self.broken().take(SHOWN).collect();
            complaints.push(format!("{count} connections broke, such as {shown:#?}"));
        }
        if self.is_broken && count == 0 {
            let blind =
                "a rule was broken on purpose and no connection broke: this soak sees nothing";
            complaints.push(blind.to_owned());
        }
        if self.of_victim() == 0 {
            complaints.push(format!(
                "{} was killed and no connection broke: this soak would not see one that does",
                self.victim.backend
            ));
        }
        if !self.flaps.is_empty() && self.of_flaps() == 0 {
            complaints.push(format!(
                "{} backends failed their checks and no connection of theirs broke: they were not taken out",
                self.flaps.len()
            ));
        }
        let count = self.refused().count();
        if count > 0 {
            let shown: Vec<_> = self.refused().take(SHOWN).collect();
            complaints.push(format!(
                "{count} new connections failed, such as {shown:#?}"
            ));
        }
        for counters in &self.counters {
            if counters.by_reason != counters.by_vip || counters.by_vip == 0 {
                complaints.push(format!(
                    "{} counted {} packets by reason and {} by VIP",
                    counters.node, counters.by_reason, counters.by_vip
                ));
            }
        }
        if self.digests.iter().any(|digest| *digest != self.fresh) {
            complaints.push(format!(
                "the tables' digests are {:?}; one made from the last config alone has {}",
                self.digests, self.fresh
            ));
        }
        complaints
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&Traffic) -> u64| self.traffic.iter().map(of).sum::<u64>();
        writeln!(f, "changes                      {}", self.changes)?;
        writeln!(f, "strays sent                  {}", self.strays)?;
        writeln!(
            f,
            "packets forwarded            {}",
            self.counters.iter().map(|node| node.by_vip).sum::<u64>()
        )?;
        writeln!(
            f,
            "lines echoed                 {}",
            sum(|traffic| traffic.tally.messages)
        )?;
        writeln!(
            f,
            "connections come and gone    {}",
            sum(|traffic| traffic.tally.passed)
        )?;
        writeln!(f, "new connections that failed  {}", self.refused().count())?;
        let row = |f: &mut fmt::Formatter<'_>, what: &str, count| writeln!(f, "{what:<28} {count}");
        row(f, "broken connections", self.broken().count())?;
        row(
            f,
            &format!("broken by {} flaps", self.flaps.len()),
            self.of_flaps(),
        )?;
        let victim = format!("broken with {}", self.victim.backend);
        row(f, &victim, self.of_victim())
    }
}
