//! The name of a lab, which says who owns it.
//!
//! `<pid>-<start time of that process>-<number>`: a process id alone comes round again, with the start time
//! it does not. So any other run can tell whether a lab's owner is alive.

use std::{
    fmt, fs,
    path::PathBuf,
    process,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};

use super::labs;

/// Identifies one lab on this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabId {
    owner: u32,
    started: u64,
    number: u32,
}

impl LabId {
    /// The environment variable by which a process of a lab can be told.
    pub(super) const VARIABLE: &str = "WEIR_LAB";

    /// Returns an id that nobody else uses.
    pub(super) fn unused() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let owner = process::id();
        let started =
            start_time(owner).context("read the start time of this process from /proc")?;
        Ok(Self {
            owner,
            started,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Tells whether the process that made the lab still runs.
    #[must_use]
    pub fn owner_is_alive(&self) -> bool {
        start_time(self.owner) == Some(self.started)
    }

    /// Tells whether this process made the lab.
    #[must_use]
    pub fn is_mine(&self) -> bool {
        self.owner == process::id() && self.owner_is_alive()
    }

    /// Returns what the names of the lab's namespaces begin with.
    pub(super) fn prefix(&self) -> String {
        format!("weir-{self}-")
    }

    /// Returns the lab that a namespace of this name belongs to.
    pub(super) fn of_namespace(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("weir-")?.splitn(4, '-');
        let id = format!("{}-{}-{}", parts.next()?, parts.next()?, parts.next()?);
        parts.next()?;
        id.parse().ok()
    }

    /// Returns the lab's folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        labs().join(self.to_string())
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}-{}", self.owner, self.started, self.number)
    }
}

impl FromStr for LabId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('-').collect();
        let [owner, started, number] = parts.as_slice() else {
            bail!("{text:?} is not a lab's id")
        };
        Ok(Self {
            owner: owner.parse()?,
            started: u64::from_str_radix(started, 16)?,
            number: number.parse()?,
        })
    }
}

/// Returns when a process started, in clock ticks since boot; `None` for one that is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, so count from its end: state is field 3, the start time field 22.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_its_namespaces() {
        let id = LabId::unused().unwrap();
        assert_eq!(id.to_string().parse::<LabId>().unwrap(), id);
        assert_eq!(LabId::of_namespace(&format!("{}lb", id.prefix())), Some(id));
        assert_eq!(LabId::of_namespace("weir-1-2"), None);
        assert_eq!(LabId::of_namespace("somebody-else"), None);
    }

    #[test]
    fn ids_of_one_process_differ_and_are_alive() {
        let (one, two) = (LabId::unused().unwrap(), LabId::unused().unwrap());
        assert_ne!(one, two);
        assert!(one.owner_is_alive() && one.is_mine());
    }

    #[test]
    fn a_reused_process_id_is_not_the_owner() {
        let id = LabId::unused().unwrap();
        let before = LabId {
            started: id.started - 1,
            ..id
        };
        assert!(!before.owner_is_alive());
    }
}
