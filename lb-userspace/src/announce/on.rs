//! Which addresses are announced: the one place where that is decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::config::{Announce, Config};

/// What commands have said, by address: the last one counts, until there is another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Commands(BTreeMap<IpAddr, bool>);

impl Commands {
    /// What was said of an address, if anything was.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<bool> {
        self.0.get(&address).copied()
    }

    /// Says whether an address is announced. Returns whether that is another word than before.
    pub fn set(&mut self, address: IpAddr, is_on: bool) -> bool {
        self.0.insert(address, is_on) != Some(is_on)
    }

    /// Everything that was said, by address.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, bool)> {
        self.0.iter().map(|(address, is_on)| (*address, *is_on))
    }
}

/// How long a node that gives its share of the Services' addresses away answers for them on: until the others have seen that, or so long.
pub const HANDOVER: Duration = Duration::from_secs(3);

/// How long after its last renewal, and its last look, a node of a cluster owns what it does.
pub const TERM: Duration = Duration::from_secs(7);

/// Addresses of Services that this node owns among the nodes of its cluster, and until when: a node that cannot renew its
/// Lease owns nothing from then on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned {
    /// Until when, by address.
    pub until: BTreeMap<IpAddr, Instant>,
    /// Whether its share is given away, or about to be: it answers on for a while, and tells nobody of itself.
    pub is_given_away: bool,
}

impl Owned {
    /// Whether an address is owned at a moment.
    #[must_use]
    pub fn has(&self, address: IpAddr, now: Instant) -> bool {
        self.until.get(&address).is_some_and(|until| now < *until)
    }

    /// When it owns less by time alone.
    #[must_use]
    pub fn ends(&self, now: Instant) -> Option<Instant> {
        self.until
            .values()
            .filter(|until| now < **until)
            .min()
            .copied()
    }
}

/// Why an address is announced, or not.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Because {
    /// The configuration says so (`announce_at_start`), and no command has said anything.
    Start,
    /// A command said so.
    Command,
    /// It is a Service's, and one node of the cluster owns it: this one, or another. A drained one owns nothing.
    Owner,
    /// Too few backends pass their checks, or the node is drained: `announce.reason` of its VIPs says it.
    Withheld,
    /// What is known of backends and node, which alone decides on routes: `announce.reason` of its VIPs says it.
    Health,
}

impl Because {
    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Command => "command",
            Self::Owner => "owner",
            Self::Withheld => "withheld",
            Self::Health => "health",
        }
    }
}

/// How the announcement of an address stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// How it is announced.
    pub by: Announce,
    /// Whether it is.
    pub is_on: bool,
    /// Why.
    pub because: Because,
    /// The names of its VIPs, in the configuration's order.
    pub vips: Vec<String>,
}

/// How each address stands that is announced by L2 at all. The first `of_file` VIPs are the configuration's own, the others are
/// of Services. What is withheld ([`super::decide`]) is off, whoever wants it on, but for Services' owners.
#[must_use]
pub fn announcements(
    (config, of_file): (&Config, usize),
    commands: &Commands,
    owned: &Owned,
    withheld: &BTreeSet<IpAddr>,
    now: Instant,
) -> BTreeMap<IpAddr, Announcement> {
    let mut all: BTreeMap<IpAddr, Announcement> = BTreeMap::new();
    for (place, vip) in config.vips.iter().enumerate() {
        if vip.announce != Announce::L2 {
            continue;
        }
        let stands = || {
            let (is_on, because) = if place >= of_file {
                (owned.has(vip.address, now), Because::Owner)
            } else if let Some(is_on) = commands.get(vip.address) {
                (is_on, Because::Command)
            } else {
                (vip.announce_at_start, Because::Start)
            };
            // Whether backends pass is the same on every node, so nobody would announce what a Service's owner withholds; and a
            // drained node gives its share away, for which its owner is another then.
            let may_be_withheld = is_on && because != Because::Owner;
            let (is_on, because) = if may_be_withheld && withheld.contains(&vip.address) {
                (false, Because::Withheld)
            } else {
                (is_on, because)
            };
            Announcement {
                by: vip.announce,
                is_on,
                because,
                vips: Vec::new(),
            }
        };
        let announcement = all.entry(vip.address).or_insert_with(stands);
        announcement.vips.push(vip.name.clone());
    }
    all
}

/// The addresses that are not announced now, though they are to be at other times.
#[must_use]
pub fn silent(announcements: &BTreeMap<IpAddr, Announcement>) -> BTreeSet<IpAddr> {
    let off = announcements.iter().filter(|(_, stands)| !stands.is_on);
    off.map(|(address, _)| *address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "203.0.113.10";
    const SECOND: &str = "203.0.113.11";

    /// Two VIPs of one address that begin silent, one that does not, one that is not announced.
    fn config() -> Config {
        let vip = |name: &str, address: &str, port: u16, more: &str| {
            format!(
                "[[vip]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\nprotocol = \"tcp\"\n{more}\n"
            )
        };
        let silent = "announce = \"l2\"\nannounce_at_start = false";
        let text = [
            "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n".to_owned(),
            vip("web", FIRST, 80, silent),
            vip("tls", FIRST, 443, silent),
            vip("own", "203.0.113.12", 80, ""),
            vip("dns", SECOND, 53, "announce = \"l2\""),
        ];
        Config::parse(&text.concat(), "weir.toml").unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn stands(of_file: usize, commands: &Commands, owned: &Owned) -> Vec<(IpAddr, bool, Because)> {
        let none = BTreeSet::new();
        let all = announcements((&config(), of_file), commands, owned, &none, Instant::now());
        let stands = all.iter();
        stands.map(|(a, s)| (*a, s.is_on, s.because)).collect()
    }

    #[test]
    fn a_command_beats_the_start_and_acts_on_the_address() {
        let (first, second) = (address(FIRST), address(SECOND));
        let mut commands = Commands::default();
        let none = Owned::default();
        let stands_with = |commands: &Commands, withheld: &[IpAddr]| {
            let withheld = withheld.iter().copied().collect();
            announcements((&config(), 4), commands, &none, &withheld, Instant::now())
        };
        let all = stands_with(&commands, &[]);
        assert_eq!(all[&first].vips, ["web", "tls"]);
        assert_eq!(silent(&all), BTreeSet::from([first]));
        assert_eq!(
            stands(4, &commands, &none),
            [
                (first, false, Because::Start),
                (second, true, Because::Start)
            ]
        );
        assert!(commands.set(first, true));
        assert!(!commands.set(first, true));
        let all = stands_with(&commands, &[first]);
        assert_eq!(
            (all[&first].is_on, all[&first].because),
            (false, Because::Withheld)
        );
        commands.set(second, false);
        commands.set(address("192.0.2.99"), true);
        assert_eq!(
            stands(4, &commands, &none),
            [
                (first, true, Because::Command),
                (second, false, Because::Command)
            ]
        );
    }

    #[test]
    fn a_service_is_announced_by_its_owner_for_as_long_as_it_owns() {
        let second = address(SECOND);
        let mut commands = Commands::default();
        commands.set(second, true);
        let of = |owned: &Owned| stands(3, &commands, owned)[1];
        let owns = |address, until| Owned {
            until: BTreeMap::from([(address, until)]),
            is_given_away: false,
        };
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_mins(1));
        assert_eq!(of(&Owned::default()), (second, false, Because::Owner));
        let owned = owns(second, later);
        assert_eq!(of(&owned), (second, true, Because::Owner));
        assert_eq!(owned.ends(now), Some(later));
        let owned = owns(second, now);
        assert_eq!(of(&owned), (second, false, Because::Owner));
        assert_eq!(owned.ends(now), None);
        let owned = owns(address(FIRST), later);
        assert_eq!(of(&owned), (second, false, Because::Owner));
    }
}
