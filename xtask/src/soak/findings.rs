//! What a soak has shown.

use std::fmt;

use super::traffic::Traffic;
use crate::traffic::lasting::event::Broken;

/// How many of the same are shown.
const SHOWN: usize = 10;

/// What a soak has shown.
#[derive(Debug)]
pub struct Findings {
    pub(super) changes: u32,
    /// The backend whose server was killed.
    pub(super) victim: String,
    /// How many connections had broken before it was.
    pub(super) before_kill: usize,
    pub(super) traffic: Vec<Traffic>,
    /// Of each node's lookup table, at the end.
    pub(super) digests: Vec<String>,
    /// Of a daemon that knows nothing but the last config.
    pub(super) fresh: String,
}

impl Findings {
    /// Connections that broke and should not have: all but those of the killed backend, from its death on.
    fn broken(&self) -> impl Iterator<Item = &Broken> {
        let all = self.traffic.iter().flat_map(|traffic| &traffic.broken);
        let numbered = all
            .enumerate()
            .filter(|(number, broken)| *number < self.before_kill || broken.backend != self.victim);
        numbered.map(|(_, broken)| broken)
    }

    fn all_broken(&self) -> usize {
        self.traffic
            .iter()
            .map(|traffic| traffic.broken.len())
            .sum()
    }

    fn refused(&self) -> impl Iterator<Item = &String> {
        self.traffic.iter().flat_map(|traffic| &traffic.refused)
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
        if self.all_broken() == count {
            complaints.push(format!(
                "{} was killed and no connection broke: this soak would not see one that does",
                self.victim
            ));
        }
        let count = self.refused().count();
        if count > 0 {
            let shown: Vec<_> = self.refused().take(SHOWN).collect();
            complaints.push(format!(
                "{count} new connections failed, such as {shown:#?}"
            ));
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
        let broken = self.broken().count();
        let of_victim = self.all_broken() - broken;
        writeln!(f, "changes                      {}", self.changes)?;
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
        writeln!(f, "broken connections           {broken}")?;
        writeln!(f, "broken with {:<16} {}", self.victim, of_victim)
    }
}
