//! Ids of VIPs and backends: each belongs to one thing for as long as anything may name it.
//!
//! Packets name backends by 16-bit ids in slots (and later in pins), VIPs by the index of their lookup table. An id is free
//! again only when the caller releases it, and free ids are handed out in rotation, so that an id comes
//! back as late as can be.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    ops::RangeInclusive,
};

use lb_common::{
    backend::Backend,
    flow::Address,
    slot::NOBODY,
    vip::{MAX_VIPS, VipEntry, VipKey},
};

/// Backend ids that may be given: all but 0 ("nobody") and 0xfffe and 0xffff (states of a slot).
pub const BACKEND_IDS: RangeInclusive<u16> = 1..=0xfffd;

/// What a backend id belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct BackendKey {
    /// The VIP's id.
    pub vip: u32,
    /// The backend's address.
    pub address: Address,
    /// How packets reach it: [`lb_common::backend::mode`].
    pub mode: u8,
}

impl From<&Backend> for BackendKey {
    fn from(backend: &Backend) -> Self {
        Self {
            vip: u32::from(backend.vip),
            address: backend.address,
            mode: backend.mode,
        }
    }
}

/// Every id of a kind is taken; what leaves must be gone before more can come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("all {0} ids are taken")]
pub struct Exhausted(pub usize);

/// The ids of a node.
#[derive(Clone, Debug)]
pub struct Ids {
    vips: Pool<VipKey>,
    backends: Pool<BackendKey>,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            vips: Pool::new(0..=MAX_VIPS as u32 - 1),
            backends: Pool::new(u32::from(*BACKEND_IDS.start())..=u32::from(*BACKEND_IDS.end())),
        }
    }
}

impl Ids {
    /// The ids that a data plane names already: what it holds keeps its ids.
    ///
    /// A VIP id that only a backend names is taken, by a VIP that nobody knows any more.
    #[must_use]
    pub fn adopt(vips: &[VipEntry], backends: &[(u16, Backend)]) -> Self {
        let mut ids = Self::default();
        for vip in vips {
            ids.vips.adopt(vip.id, Some(vip.key));
        }
        // Where a dead backend came back under another id, the key is the living one's.
        let alive = backends.iter().filter(|(_, b)| b.is_alive());
        let dead = backends.iter().filter(|(_, b)| !b.is_alive());
        for (id, backend) in alive.chain(dead) {
            ids.vips.adopt(u32::from(backend.vip), None);
            if *id != NOBODY {
                ids.backends
                    .adopt(u32::from(*id), Some(BackendKey::from(backend)));
            }
        }
        ids
    }

    /// The id of a VIP: the one it has, or one that is free.
    ///
    /// # Errors
    /// [`Exhausted`] where all [`MAX_VIPS`] are taken.
    pub fn vip(&mut self, key: VipKey) -> Result<u32, Exhausted> {
        self.vips.assign(key)
    }

    /// The id of a backend: the one it has, or one that is free.
    ///
    /// # Errors
    /// [`Exhausted`] where all of [`BACKEND_IDS`] are taken.
    pub fn backend(&mut self, key: BackendKey) -> Result<u16, Exhausted> {
        self.backends.assign(key).map(|id| id as u16)
    }

    /// The id that a backend has, if it has one. `mode` is of [`lb_common::backend::mode`].
    #[must_use]
    pub fn known(&self, vip: &VipKey, address: Address, mode: u8) -> Option<u16> {
        let vip = *self.vips.by_key.get(vip)?;
        let key = BackendKey { vip, address, mode };
        self.backends.by_key.get(&key).map(|id| *id as u16)
    }

    /// Whoever has this backend id never gets it again: the next one like it has another. For a backend that died:
    /// what still names the id counts for nothing, and shall not come to count again.
    pub fn bury(&mut self, id: u16) {
        self.backends.bury(u32::from(id));
    }

    /// Frees the ids for which `vip` and `backend` are false. For an id that anything still names (a VIP entry,
    /// a slot, a pin, an entry of the backends' map) they must be true.
    pub fn retain(&mut self, vip: impl Fn(u32) -> bool, backend: impl Fn(u16) -> bool) {
        self.vips.retain(vip);
        self.backends.retain(|id| backend(id as u16));
    }
}

/// Ids of one kind.
#[derive(Clone, Debug)]
struct Pool<K> {
    range: RangeInclusive<u32>,
    /// Who has each id that is taken; `None`: somebody whom nobody can ask for it.
    by_id: BTreeMap<u32, Option<K>>,
    by_key: HashMap<K, u32>,
    /// Where to look for a free id first.
    next: u32,
}

impl<K: Clone + Eq + Hash> Pool<K> {
    fn new(range: RangeInclusive<u32>) -> Self {
        Self {
            next: *range.start(),
            range,
            by_id: BTreeMap::new(),
            by_key: HashMap::new(),
        }
    }

    fn adopt(&mut self, id: u32, key: Option<K>) {
        if !self.range.contains(&id) {
            return;
        }
        let holder = self.by_id.entry(id).or_default();
        if let Some(key) = key.filter(|key| holder.is_none() && !self.by_key.contains_key(key)) {
            *holder = Some(key.clone());
            self.by_key.insert(key, id);
        }
        self.next = self.next.max(self.after(id));
    }

    fn assign(&mut self, key: K) -> Result<u32, Exhausted> {
        if let Some(&id) = self.by_key.get(&key) {
            return Ok(id);
        }
        let start = *self.range.start();
        let id = (self.next..=*self.range.end())
            .chain(start..self.next)
            .find(|id| !self.by_id.contains_key(id))
            .ok_or(Exhausted(self.by_id.len()))?;
        self.next = self.after(id);
        self.by_id.insert(id, Some(key.clone()));
        self.by_key.insert(key, id);
        Ok(id)
    }

    fn bury(&mut self, id: u32) {
        if let Some(holder) = self.by_id.get_mut(&id)
            && let Some(key) = holder.take()
        {
            self.by_key.remove(&key);
        }
    }

    fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.by_id.retain(|id, _| keep(*id));
        self.by_key.retain(|_, id| keep(*id));
    }

    const fn after(&self, id: u32) -> u32 {
        if id >= *self.range.end() {
            *self.range.start()
        } else {
            id + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use lb_common::backend;

    use super::*;

    fn key(vip: u32, host: u8) -> BackendKey {
        BackendKey {
            vip,
            address: Address::from_v4([10, 0, 0, host]),
            mode: 1,
        }
    }

    fn entry(vip: u16, host: u8) -> Backend {
        Backend {
            vip,
            address: Address::from_v4([10, 0, 0, host]),
            mode: 1,
            ..Backend::default()
        }
    }

    #[test]
    fn a_freed_id_comes_back_last() {
        let mut ids = Ids::default();
        assert_eq!(ids.backend(key(0, 1)), Ok(1));
        assert_eq!(ids.backend(key(0, 2)), Ok(2));
        ids.retain(|_| true, |id| id != 1);
        assert_eq!(ids.backend(key(0, 3)), Ok(3));
        assert_eq!(ids.backend(key(0, 1)), Ok(4));
        assert_eq!(ids.backend(key(0, 2)), Ok(2));
    }

    #[test]
    fn adopted_backends_keep_their_ids() {
        let web = VipKey::new(Address::from_v4([203, 0, 113, 1]), [0, 80], 6);
        let vips = [VipEntry {
            key: web,
            id: 7,
            flags: 0,
        }];
        let held = [(5, entry(7, 1)), (9, entry(7, 2)), (0xffff, entry(3, 3))];
        let mut ids = Ids::adopt(&vips, &held);
        assert_eq!(ids.vip(web), Ok(7));
        assert_eq!(ids.backend(key(7, 2)), Ok(9));
        assert_eq!(ids.backend(key(7, 1)), Ok(5));
        assert_eq!(ids.backend(key(7, 3)), Ok(10));
    }

    #[test]
    fn a_vip_that_only_backends_name_keeps_its_id_from_others() {
        let mut ids = Ids::adopt(&[], &[(1, entry(0, 1))]);
        let vip = VipKey::new(Address::default(), [0; 2], 6);
        assert_eq!(ids.vip(vip), Ok(1));
    }

    #[test]
    fn one_thing_under_two_ids_blocks_both() {
        let mut ids = Ids::adopt(&[], &[(1, entry(0, 1)), (2, entry(0, 1))]);
        assert_eq!(ids.backend(key(0, 1)), Ok(1));
        assert_eq!(ids.backend(key(0, 2)), Ok(3));
    }

    #[test]
    fn what_is_buried_keeps_its_id_from_all_and_its_key_gets_another() {
        let mut ids = Ids::default();
        assert_eq!(ids.backend(key(0, 1)), Ok(1));
        ids.bury(1);
        assert_eq!(ids.backend(key(0, 1)), Ok(2));
        assert_eq!(ids.backend(key(0, 1)), Ok(2));
        // Whoever comes, as long as anything names it: id 1 is nobody's.
        for host in 2..=100 {
            assert_ne!(ids.backend(key(0, host)), Ok(1));
        }
        ids.bury(1);
        ids.bury(2);
        assert_eq!(ids.backend(key(0, 1)), Ok(102));
    }

    #[test]
    fn a_living_backend_has_its_key_whatever_the_dead_ones_id() {
        for dead in [1, 3] {
            let buried = Backend {
                flags: backend::flags::DEAD,
                ..entry(0, 1)
            };
            let mut ids = Ids::adopt(&[], &[(dead, buried), (2, entry(0, 1))]);
            assert_eq!(ids.backend(key(0, 1)), Ok(2), "dead as {dead}");
            assert_eq!(ids.backend(key(0, 2)), Ok(dead.max(2) + 1));
        }
    }

    #[test]
    fn all_ids_but_the_reserved_are_given_and_then_none() {
        let mut ids = Ids::default();
        for vip in 0..0xfffd {
            let id = ids.backend(key(vip, 1)).unwrap();
            assert!(BACKEND_IDS.contains(&id));
        }
        assert_eq!(ids.backend(key(0, 2)), Err(Exhausted(0xfffd)));
        ids.retain(|_| true, |id| id != 77);
        assert_eq!(ids.backend(key(0, 2)), Ok(77));
    }

    #[derive(Clone, Debug)]
    enum Action {
        Assign(u32, u8),
        Release(u16),
        Restart,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0u32..4, 0u8..16).prop_map(|(vip, host)| Action::Assign(vip, host)),
            2 => (1u16..80).prop_map(Action::Release),
            1 => Just(Action::Restart),
        ]
    }

    proptest! {
        #[test]
        fn an_id_never_names_two(actions in vec(action(), 0..200)) {
            let mut ids = Ids::default();
            let mut model: BTreeMap<u16, BackendKey> = BTreeMap::new();
            for action in actions {
                match action {
                    Action::Assign(vip, host) => {
                        let key = key(vip, host);
                        let id = ids.backend(key).unwrap();
                        let known = model.iter().find(|(_, k)| **k == key).map(|(id, _)| *id);
                        prop_assert!(known.is_none_or(|known| known == id));
                        prop_assert_eq!(*model.entry(id).or_insert(key), key);
                    }
                    Action::Release(id) => {
                        ids.retain(|_| true, |held| held != id);
                        model.remove(&id);
                    }
                    Action::Restart => {
                        let held: Vec<_> = model
                            .iter()
                            .map(|(id, key)| {
                                let backend = Backend {
                                    vip: key.vip as u16,
                                    address: key.address,
                                    mode: key.mode,
                                    ..Backend::default()
                                };
                                (*id, backend)
                            })
                            .collect();
                        ids = Ids::adopt(&[], &held);
                    }
                }
            }
        }
    }
}
