//! What the maps hold of the configuration's access lists, and the way from one state of them to the next.

use std::{cmp::Ordering, collections::BTreeMap, iter::Peekable, sync::Arc};

use lb_common::{
    access::{List, NODE, PrefixKey, blocks, lists, verdict},
    vip::VipKey,
};

use crate::config::{Config, Entry, Lists, Prefix, Vip};

/// The access lists of a node, as the maps are to hold them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Prefixes by scope: a VIP's id, or [`NODE`].
    pub scopes: BTreeMap<u32, Arc<[Entry]>>,
    /// What is to be looked up for each VIP, by its id. VIPs that no list concerns are not in it.
    pub vips: BTreeMap<u32, ListedVip>,
}

/// What is to be looked up for a VIP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListedVip {
    /// Who it is: another one may come to have its id. `None` where an earlier daemon wrote it.
    pub key: Option<VipKey>,
    /// [`lists`].
    pub scopes: u32,
}

impl Listed {
    /// What a configuration wants. `id` gives the number and key of a VIP.
    pub fn new(config: &Config, mut id: impl FnMut(&Vip) -> Option<(u32, VipKey)>) -> Self {
        let mut listed = Self::default();
        listed.add(NODE, &config.access);
        for vip in &config.vips {
            let scopes = scopes(vip, &config.access);
            let Some((id, key)) = id(vip).filter(|_| scopes != 0) else {
                continue;
            };
            listed.add(id, &vip.access);
            let key = Some(key);
            listed.vips.insert(id, ListedVip { key, scopes });
        }
        listed
    }

    fn add(&mut self, scope: u32, lists: &Lists) {
        if !lists.entries.is_empty() {
            self.scopes.insert(scope, Arc::clone(&lists.entries));
        }
    }

    /// How many prefixes there are.
    #[must_use]
    pub fn prefixes(&self) -> usize {
        self.scopes.values().map(|entries| entries.len()).sum()
    }

    /// What is to be looked up for a VIP.
    #[must_use]
    pub fn scopes_of(&self, vip: u32) -> u32 {
        self.vips.get(&vip).map_or(0, |vip| vip.scopes)
    }

    /// Whether two are the same lists: told by where they lie, not by what they hold.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<[Entry]>, &Arc<[Entry]>)| Arc::ptr_eq(a, b);
        self.vips == other.vips
            && self.scopes.keys().eq(other.scopes.keys())
            && self.scopes.values().zip(other.scopes.values()).all(same)
    }

    /// What was read back from the maps.
    #[must_use]
    pub fn adopt(
        prefixes: impl IntoIterator<Item = (PrefixKey, u32)>,
        scopes: impl IntoIterator<Item = (u32, u32)>,
    ) -> Self {
        let mut found: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
        for (key, verdict) in prefixes {
            found.entry(key.owner()).or_default().push(Entry {
                prefix: Prefix::of_key(&key),
                is_denied: verdict != verdict::ALLOWED,
            });
        }
        let sorted = |(scope, mut entries): (u32, Vec<Entry>)| {
            entries.sort_unstable();
            (scope, entries.into())
        };
        let vip = |(id, scopes)| (id, ListedVip { key: None, scopes });
        Self {
            scopes: found.into_iter().map(sorted).collect(),
            vips: scopes.into_iter().map(vip).collect(),
        }
    }
}

/// The lists that may decide on packets to a VIP, where these blocks and lists are looked up.
pub fn concerning(blocks: u32, lists: u32) -> impl Iterator<Item = List> {
    let has = move |list: &List| match list {
        List::VipBlock => blocks & blocks::OF_VIP != 0,
        List::NodeBlock => blocks & blocks::OF_NODE != 0,
        List::VipAllow | List::VipDeny => lists & lists::OF_VIP != 0,
        List::NodeAllow | List::NodeDeny => lists & lists::OF_NODE != 0,
        List::Unlisted => lists & lists::CLOSED != 0,
    };
    List::ALL.into_iter().filter(has)
}

/// What is to be looked up in the lists for a VIP's packets.
#[must_use]
pub fn scopes(vip: &Vip, node: &Lists) -> u32 {
    let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    bit(!vip.access.entries.is_empty(), lists::OF_VIP)
        | bit(!node.entries.is_empty(), lists::OF_NODE)
        | bit(
            vip.access.allow.is_given() || node.allow.is_given(),
            lists::CLOSED,
        )
}

/// A difference between two states of one scope's lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference {
    /// The prefix has this verdict ([`verdict`]) from now on.
    Set(Prefix, u32),
    /// The prefix is no longer listed.
    Gone(Prefix),
}

/// The differences from `old` to `new`, both sorted, in order.
pub fn differences<'a>(
    old: &'a [Entry],
    new: &'a [Entry],
) -> impl Iterator<Item = Difference> + 'a {
    Differences {
        old: old.iter().peekable(),
        new: new.iter().peekable(),
    }
}

struct Differences<'a, I: Iterator<Item = &'a Entry>> {
    old: Peekable<I>,
    new: Peekable<I>,
}

impl<'a, I: Iterator<Item = &'a Entry>> Iterator for Differences<'a, I> {
    type Item = Difference;

    fn next(&mut self) -> Option<Difference> {
        loop {
            let order = match (self.old.peek(), self.new.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.prefix.cmp(&new.prefix),
            };
            match order {
                Ordering::Less => return Some(Difference::Gone(self.old.next()?.prefix)),
                Ordering::Greater => return self.new.next().map(set),
                Ordering::Equal => {
                    let (old, new) = (self.old.next()?, self.new.next()?);
                    if old.is_denied != new.is_denied {
                        return Some(set(new));
                    }
                }
            }
        }
    }
}

const fn set(entry: &Entry) -> Difference {
    let verdict = if entry.is_denied {
        verdict::DENIED
    } else {
        verdict::ALLOWED
    };
    Difference::Set(entry.prefix, verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(texts: &[&str]) -> Vec<Entry> {
        let entry = |text: &&str| {
            let (word, prefix) = text.split_once(' ').unwrap();
            Entry {
                prefix: prefix.parse().unwrap(),
                is_denied: word == "deny",
            }
        };
        let mut entries: Vec<_> = texts.iter().map(entry).collect();
        entries.sort();
        entries
    }

    #[test]
    fn only_what_differs_is_written() {
        let old = entries(&["deny 10.0.0.0/8", "allow 10.1.0.0/16", "deny 2001:db8::/32"]);
        let new = entries(&["deny 9.0.0.0/8", "deny 10.0.0.0/8", "deny 10.1.0.0/16"]);
        let found: Vec<_> = differences(&old, &new).collect();
        let prefix = |text: &str| text.parse().unwrap();
        assert_eq!(
            found,
            [
                Difference::Set(prefix("9.0.0.0/8"), verdict::DENIED),
                Difference::Set(prefix("10.1.0.0/16"), verdict::DENIED),
                Difference::Gone(prefix("2001:db8::/32")),
            ]
        );
        assert_eq!(differences(&new, &new).count(), 0);
        assert_eq!(differences(&old, &[]).count(), 3);
    }

    #[test]
    fn vips_look_up_what_concerns_them() {
        let config = |rest: &str| {
            let text = format!(
                "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n{rest}\n[[vip]]\nname = \"b\"\naddress = \"203.0.113.11\"\nport = 80\nprotocol = \"tcp\"\n"
            );
            Config::parse(&text, "f").unwrap()
        };
        let of = |config: &Config| {
            let mut next = 0;
            let id = |_: &Vip| {
                next += 1;
                Some((next, VipKey::default()))
            };
            let listed = Listed::new(config, id);
            let scopes: Vec<_> = listed
                .vips
                .iter()
                .map(|(id, vip)| (*id, vip.scopes))
                .collect();
            (listed.prefixes(), scopes)
        };
        let vip =
            "[[vip]]\nname = \"a\"\naddress = \"203.0.113.10\"\nport = 80\nprotocol = \"tcp\"\n";
        assert_eq!(of(&config(vip)), (0, vec![]));
        assert_eq!(
            of(&config(&format!("{vip}deny = [\"10.0.0.0/8\"]"))),
            (1, vec![(1, lists::OF_VIP)])
        );
        assert_eq!(
            of(&config(&format!(
                "[access]\nallow = [\"10.0.0.0/8\"]\n{vip}deny = [\"10.0.0.0/8\"]"
            ))),
            (
                2,
                vec![
                    (1, lists::OF_VIP | lists::OF_NODE | lists::CLOSED),
                    (2, lists::OF_NODE | lists::CLOSED)
                ]
            )
        );
    }

    #[test]
    fn what_was_written_is_adopted_without_a_difference() {
        let own = entries(&["deny 10.0.0.0/8", "allow 10.1.0.0/16", "deny 2001:db8::/32"]);
        let keys = own.iter().rev().map(|entry| {
            let Difference::Set(prefix, verdict) = set(entry) else {
                panic!("gone");
            };
            (prefix.key(NODE), verdict)
        });
        let adopted = Listed::adopt(keys, [(3, lists::OF_NODE)]);
        assert_eq!(adopted.scopes[&NODE].to_vec(), own);
        assert_eq!(adopted.vips[&3].scopes, lists::OF_NODE);
    }
}
