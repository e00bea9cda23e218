//! Which addresses are announced by L2, on the node's segments: commands, the cluster's owners, what is decided of health and node, and
//! what follows for the data plane and for what is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use tokio::sync::watch;

use super::{Reconciler, blocks::no_vip, until};
use crate::{
    announce::{
        Announcement, Because, Owned,
        l2::{Announcer, Interface, Wanted},
        on,
    },
    api::{Actor, AnnouncementStatus, Changed, Refusal, What},
    config::Announce,
    dataplane::DataPlane,
    neighbours::Snapshot,
};

/// How the announcements stand, as the data plane has them.
pub(super) struct Segments {
    announcer: Announcer,
    stand: BTreeMap<IpAddr, Announcement>,
    /// How often each address was turned on, so that it is told fast again.
    turns: BTreeMap<IpAddr, u64>,
    /// What was told as events.
    told: BTreeMap<IpAddr, bool>,
    /// Addresses of Services that this node is to announce, where it follows a cluster.
    owned: Option<watch::Receiver<Owned>>,
    /// Whether its share was being given away when the segments were last told.
    is_given_away: bool,
}

impl Segments {
    /// Nothing is announced yet.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub(super) fn start() -> Self {
        Self {
            announcer: Announcer::start(),
            stand: BTreeMap::new(),
            turns: BTreeMap::new(),
            told: BTreeMap::new(),
            owned: None,
            is_given_away: false,
        }
    }

    /// Follows who owns addresses of Services.
    pub(super) fn owned_by(&mut self, owned: watch::Receiver<Owned>) {
        self.owned = Some(owned);
    }

    /// What this node is to announce of Services.
    fn owned(&self) -> Owned {
        self.owned
            .as_ref()
            .map_or_else(Owned::default, |owned| owned.borrow().clone())
    }

    /// Whether something is announced because this node owns it.
    pub(super) fn is_owner(&self) -> bool {
        let mut stand = self.stand.values();
        stand.any(|stands| stands.is_on && stands.because == Because::Owner)
    }

    /// Whether it follows who owns addresses of Services.
    pub(super) const fn follows_owners(&self) -> bool {
        self.owned.is_some()
    }

    /// Ends when what this node owns is not what it announces: it owns others, its time is over, or it begins to give them away.
    pub(super) async fn other_owner(&mut self) {
        loop {
            // A Lease that is renewed says the same for longer, and changes nothing.
            let now = Instant::now();
            let owned = self.owned();
            if self.is_other(&owned, now) || owned.is_given_away != self.is_given_away {
                return;
            }
            let is_owner = self.is_owner();
            let Some(owned) = &mut self.owned else {
                return std::future::pending().await;
            };
            let end = owned.borrow().ends(now).filter(|_| is_owner);
            tokio::select! {
                changed = owned.changed() => if changed.is_err() {
                    // Nobody renews any more: what is owned ends when its time is over.
                    until(end).await;
                },
                () = until(end) => {}
            }
        }
    }

    /// How an address stands; `None` where it is never announced by L2.
    pub(super) fn get(&self, address: IpAddr) -> Option<&Announcement> {
        self.stand.get(&address)
    }

    /// Whether what a node owns is not what it announces.
    fn is_other(&self, owned: &Owned, now: Instant) -> bool {
        let mut of_services = self
            .stand
            .iter()
            .filter(|(_, stands)| stands.because == Because::Owner);
        of_services.any(|(address, stands)| stands.is_on != owned.has(*address, now))
    }

    /// Why neighbours are not told.
    pub(super) fn problem(&self) -> Option<String> {
        self.announcer.problem()
    }

    /// The data plane answers for these now: others are told of them.
    fn follow(
        &mut self,
        stand: BTreeMap<IpAddr, Announcement>,
        interfaces: BTreeMap<u32, Interface>,
    ) {
        for (address, new) in &stand {
            let was_on = self.stand.get(address).is_some_and(|old| old.is_on);
            if new.is_on && !was_on {
                *self.turns.entry(*address).or_default() += 1;
            }
        }
        self.turns.retain(|address, _| stand.contains_key(address));
        self.stand = stand;
        self.tell(interfaces);
    }

    fn tell(&mut self, interfaces: BTreeMap<u32, Interface>) {
        self.is_given_away = self.owned().is_given_away;
        self.announcer.want(Wanted {
            addresses: self.to_tell(),
            interfaces,
        });
    }

    /// The addresses that segments are told of, unasked.
    fn to_tell(&self) -> BTreeMap<IpAddr, u64> {
        // Whoever hears of an address that is given away would look for it here when it is gone.
        let is_kept =
            |stands: &Announcement| !self.is_given_away || stands.because != Because::Owner;
        let told = self.stand.iter();
        let told = told.filter(|(_, stands)| stands.is_on && is_kept(stands));
        let told = told.map(|(address, _)| {
            let turn = self.turns.get(address).copied();
            (*address, turn.unwrap_or_default())
        });
        told.collect()
    }

    /// Every address, for the status.
    pub(super) fn status(&self) -> Vec<AnnouncementStatus> {
        let all = self.stand.iter();
        all.map(|(address, stands)| AnnouncementStatus::new(*address, stands))
            .collect()
    }
}

impl<D: DataPlane> Reconciler<D> {
    /// How the announcements should stand.
    pub(super) fn stands(&self) -> BTreeMap<IpAddr, Announcement> {
        on::announcements(
            (&self.desired.config, self.desired.read().vips.len()),
            self.desired.announce(),
            &self.segments.owned(),
            &self.announcements.withheld(),
            Instant::now(),
        )
    }

    /// The data plane follows these now.
    pub(super) fn follow_announcements(
        &mut self,
        stand: BTreeMap<IpAddr, Announcement>,
        snapshot: &Snapshot,
    ) {
        let interfaces = self.segments_of(snapshot);
        self.segments.follow(stand, interfaces);
    }

    /// The interfaces that have the program.
    fn segments_of(&self, snapshot: &Snapshot) -> BTreeMap<u32, Interface> {
        let names = self.interfaces().iter();
        let attached = names.filter(|name| self.attachments.is_attached(name));
        let segments = attached.filter_map(|name| {
            let (ifindex, link) = snapshot.links.iter().find(|(_, link)| link.name == *name)?;
            let interface = Interface {
                name: name.clone(),
                mac: link.mac?,
                carrier: link.carrier,
            };
            Some((*ifindex, interface))
        });
        segments.collect()
    }

    /// Announces the address of a VIP, or lets nobody find it here any more.
    pub(super) fn announce_by_command(
        &mut self,
        name: &str,
        is_on: bool,
        by: Actor,
    ) -> Result<Changed, Refusal> {
        let vips = &self.desired.file().vips;
        let Some(place) = vips.iter().position(|vip| vip.name == name) else {
            return Err(no_vip(name));
        };
        let of_file = self.desired.read().vips.len();
        let vip = vips
            .get(place)
            .filter(|vip| vip.announce == Announce::L2)
            .ok_or_else(|| {
                Refusal::Malformed(format!(
                    "VIP {name} is not announced by L2: add `announce = \"l2\"` to it first (a node is taken off its routes by `weir drain-node`)"
                ))
            })?;
        if place >= of_file {
            return Err(Refusal::Malformed(format!(
                "VIP {name} is a Service's: the cluster's nodes agree on the one that announces it"
            )));
        }
        let address = vip.address;
        let mut commands = self.desired.announce().clone();
        if !commands.set(address, is_on) {
            if is_on {
                // Whoever says so again may know of somebody who has not heard it.
                *self.segments.turns.entry(address).or_default() += 1;
                let interfaces = self.segments_of(&self.snapshots.borrow());
                self.segments.tell(interfaces);
            }
            return Ok(Changed {
                changed: false,
                generation: self.generation,
            });
        }
        let next = self.desired.with_announce(commands);
        let changed = self.commit_command(next, by)?;
        let generation = changed.generation;
        tracing::info!(cause = %by, generation, vip = name, %address, on = is_on, "announcement set by command");
        self.events.tell(What::AnnounceSet {
            generation,
            by: by.to_string(),
            vip: name.to_owned(),
            address,
            on: is_on,
        });
        self.tell_changes();
        Ok(changed)
    }

    /// Tells of addresses that are announced now, or not any more.
    pub(super) fn tell_announced(&mut self) {
        let mut told = std::mem::take(&mut self.segments.told);
        let stand = &self.segments.stand;
        let mut changes = Vec::new();
        for (address, stands) in stand {
            let was_on = told.insert(*address, stands.is_on).unwrap_or(false);
            if was_on != stands.is_on {
                changes.push((*address, stands.is_on, stands.because));
            }
        }
        let gone: BTreeSet<_> = told
            .keys()
            .filter(|address| !stand.contains_key(address))
            .copied()
            .collect();
        told.retain(|address, _| !gone.contains(address));
        self.segments.told = told;
        for (address, on, because) in changes {
            tracing::info!(%address, on, because = because.as_str(), "announcement");
            self.events.tell(What::Announced {
                address,
                on,
                because,
            });
        }
    }

    /// No node may answer for what another may own by then: of Services nothing is announced any more.
    pub(super) fn disown(&mut self) {
        self.segments.owned = None;
        // Others take over what nobody here turns on any more.
        self.cluster.is_willing(false);
        if self.segments.is_owner() {
            self.follow("end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn segments_are_not_told_of_what_is_given_away() {
        let [own, file] = ["203.0.113.20", "203.0.113.10"].map(|text| text.parse().unwrap());
        let stands = |because| Announcement {
            by: Announce::L2,
            is_on: true,
            because,
            vips: Vec::new(),
        };
        let stand = BTreeMap::from([
            (own, stands(Because::Owner)),
            (file, stands(Because::Start)),
        ]);
        let (sender, owned) = watch::channel(Owned {
            until: BTreeMap::from([(own, Instant::now() + crate::announce::TERM)]),
            is_given_away: false,
        });
        let mut segments = Segments::start();
        segments.owned_by(owned);
        segments.follow(stand.clone(), BTreeMap::new());
        let told = |segments: &Segments| segments.to_tell().into_keys().collect::<Vec<_>>();
        assert_eq!(told(&segments), [file, own]);
        sender.send_modify(|owned| owned.is_given_away = true);
        // It is woken, though it answers for the same.
        segments.other_owner().await;
        segments.follow(stand, BTreeMap::new());
        assert_eq!(told(&segments), [file]);
        assert!(segments.is_owner());
    }
}
