//! Addresses: ranges of them, who may have which, and who gets which.
//!
//! What a status has is kept (a restart, another writer or a pool that goes moves no VIP), then come addresses that are
//! asked for, then those that nobody chose. Each step takes the Services by age, so that whoever was first stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use super::{
    objects::{Family, Key, Pool, Service, World},
    told::{Reason, Told},
    vip_pool::PoolStatus,
};

/// As far as JSON counts.
const MOST: u128 = 1 << 53;

/// Kubernetes' selector of labels.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels and their values; all must be so.
    pub match_labels: BTreeMap<String, String>,
    /// What else must be so of labels.
    pub match_expressions: Vec<Requirement>,
}

/// What must be so of a label.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Of `In` and `NotIn`.
    pub values: Vec<String>,
}

impl Selector {
    /// Whether labels are as they must be. An operator that is unknown selects nobody.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        let meets = |need: &Requirement| {
            let value = labels.get(&need.key);
            let is_in = value.is_some_and(|value| need.values.contains(value));
            match need.operator.as_str() {
                "In" => is_in,
                "NotIn" => !is_in,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(has) && self.match_expressions.iter().all(meets)
    }
}

const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

const fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// First and last address of a prefix. Host bits must be 0.
#[must_use]
pub fn cidr(text: &str, avoid_first_last: bool) -> Option<(IpAddr, IpAddr)> {
    let (first, length) = text.split_once('/')?;
    let first: IpAddr = first.parse().ok()?;
    let length: u32 = length.parse().ok()?;
    let width: u32 = if first.is_ipv4() { 32 } else { 128 };
    let hosts = width.checked_sub(length)?;
    let mask = if hosts == 128 {
        u128::MAX
    } else {
        (1 << hosts) - 1
    };
    let start = number(first);
    if start & mask != 0 {
        return None;
    }
    let family = Family::of(first);
    let end = start | mask;
    if avoid_first_last && family == Family::V4 && hosts > 1 {
        return Some((address(family, start + 1), address(family, end - 1)));
    }
    Some((first, address(family, end)))
}

/// A range, if it is one.
#[must_use]
pub fn range(first: &str, last: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last))
}

impl Pool {
    fn has(&self, address: IpAddr) -> bool {
        let mut ranges = self.ranges.iter();
        // Comparing families first, IPv4 before IPv6, keeps the two apart.
        ranges.any(|(first, last)| (*first..=*last).contains(&address))
    }

    /// Why a Service may have no address of it.
    fn refuses(&self, key: &Key, service: &Service) -> Option<&'static str> {
        if !self.namespaces.is_empty() && !self.namespaces.contains(&key.namespace) {
            Some("namespaces")
        } else if !self.selector.matches(&service.labels) {
            Some("serviceSelector")
        } else {
            None
        }
    }
}

/// Who has which addresses.
#[derive(Debug, Default)]
pub struct Book<'w> {
    holders: BTreeMap<IpAddr, Vec<(&'w Key, &'w Service)>>,
    /// What each Service has, and may serve.
    pub has: BTreeMap<&'w Key, BTreeMap<Family, IpAddr>>,
}

/// Why a Service may not have an address that others have.
fn stands_against(
    (key, service): (&Key, &Service),
    (other_key, other): (&Key, &Service),
) -> Option<String> {
    let sharing = |service: &Service| service.annotations.get("sharing-key").cloned();
    let (own, others) = (sharing(service), sharing(other));
    if own.is_none() || own != others {
        return Some(format!(
            "rule sharing-key: Service {other_key} has it, and the two do not carry the same annotation weir.dev/sharing-key"
        ));
    }
    let taken = |port: &&super::objects::Port| {
        other
            .ports
            .iter()
            .any(|p| p.port == port.port && p.protocol == port.protocol)
    };
    if let Some(port) = service.ports.iter().find(taken) {
        return Some(format!(
            "rule ports: Service {other_key} has port {}/{} of it",
            port.port, port.protocol
        ));
    }
    let are_cluster = !service.is_local && !other.is_local;
    let is_same_selector = key.namespace == other_key.namespace
        && service.selector == other.selector
        && service.is_local == other.is_local;
    (!are_cluster && !is_same_selector).then(|| {
        format!(
            "rule externalTrafficPolicy: Service {other_key} has it, and the two are neither both Cluster nor of one selector"
        )
    })
}

impl<'w> Book<'w> {
    /// Whether a Service may have an address, as far as others have it.
    fn allows(&self, of: (&Key, &Service), address: IpAddr) -> Result<(), String> {
        let holders = self.holders.get(&address).into_iter().flatten();
        let mut others = holders.filter(|(key, _)| *key != of.0);
        others
            .find_map(|other| stands_against(of, *other))
            .map_or(Ok(()), Err)
    }

    fn give(&mut self, (key, service): (&'w Key, &'w Service), address: IpAddr) {
        let family = Family::of(address);
        let before = self.has.entry(key).or_default().insert(family, address);
        if let Some(before) = before.filter(|before| *before != address)
            && let Some(holders) = self.holders.get_mut(&before)
        {
            holders.retain(|(other, _)| *other != key);
        }
        let holders = self.holders.entry(address).or_default();
        if !holders.iter().any(|(other, _)| *other == key) {
            holders.push((key, service));
        }
    }

    fn of(&self, key: &Key, family: Family) -> Option<IpAddr> {
        self.has.get(key)?.get(&family).copied()
    }

    fn is_taken(&self, address: IpAddr) -> bool {
        self.holders.get(&address).is_some_and(|h| !h.is_empty())
    }
}

/// Keeps what statuses have. `services` are weir's, by age; `foreign` are addresses that are others'.
pub fn adopt<'w>(
    services: &[(&'w Key, &'w Service)],
    foreign: &BTreeMap<IpAddr, &'static str>,
    told: &mut Vec<Told>,
) -> Book<'w> {
    let mut book = Book::default();
    for (key, service) in services {
        for ingress in &service.ingress {
            let Ok(address) = ingress.ip.parse::<IpAddr>() else {
                continue;
            };
            let family = Family::of(address);
            if !service.families.contains(&family) || book.of(key, family).is_some() {
                continue;
            }
            if let Some(whose) = foreign.get(&address) {
                let text = format!("{address} is not served: rule foreign: it is {whose}");
                told.push(Told::warning((key, service), Reason::AddressInUse, text));
                continue;
            }
            match book.allows((key, service), address) {
                Ok(()) => book.give((key, service), address),
                Err(rule) => {
                    let text = format!(
                        "{address} is in the status and not served: {rule}. Change one of the two, or delete this Service"
                    );
                    told.push(Told::warning((key, service), Reason::AddressInUse, text));
                }
            }
        }
    }
    book
}

/// Gives addresses to whoever has none, or asks for another. What has an unserved address in its status keeps that.
pub fn assign<'w>(
    world: &'w World,
    services: &[(&'w Key, &'w Service)],
    foreign: &BTreeMap<IpAddr, &'static str>,
    book: &mut Book<'w>,
    told: &mut Vec<Told>,
) {
    let mut asked: BTreeSet<(&Key, Family)> = BTreeSet::new();
    for of in services {
        for (family, address) in requests(*of, told) {
            asked.insert((of.0, family));
            if book.of(of.0, family) == Some(address) {
                continue;
            }
            match grant(world, *of, address, foreign, book) {
                Ok(()) => {
                    book.give(*of, address);
                    told.push(Told::assigned(*of, address, "as asked for"));
                }
                Err((reason, text)) => told.push(Told::warning(*of, reason, text)),
            }
        }
    }
    let mut cursors = BTreeMap::new();
    for (key, service) in services {
        for family in &service.families {
            let is_held = service.ingress.iter().any(|ingress| {
                let address = ingress.ip.parse::<IpAddr>();
                address.is_ok_and(|address| Family::of(address) == *family)
            });
            if book.of(key, *family).is_some() || is_held || asked.contains(&(key, *family)) {
                continue;
            }
            let of = (*key, *service);
            let shared = shared(world, of, *family, foreign, book);
            match shared.map_or_else(|| free(world, of, *family, foreign, book, &mut cursors), Ok) {
                Ok((address, from)) => {
                    book.give(of, address);
                    told.push(Told::assigned(of, address, &from));
                }
                Err((reason, text)) => told.push(Told::warning(of, reason, text)),
            }
        }
    }
}

type Refused = (Reason, String);

/// The addresses that a Service asks for, by family.
fn requests((key, service): (&Key, &Service), told: &mut Vec<Told>) -> BTreeMap<Family, IpAddr> {
    let mut wanted = BTreeMap::new();
    let annotation = service.annotations.get("addresses");
    let Some(text) = annotation.or(service.requested.as_ref()) else {
        return wanted;
    };
    for item in text.split(',').map(str::trim) {
        let problem = match item.parse::<IpAddr>() {
            Err(_) => Some(format!("{item:?} is no address")),
            Ok(address) if !service.families.contains(&Family::of(address)) => Some(format!(
                "{address} is of a family that spec.ipFamilies does not have"
            )),
            Ok(address) => wanted
                .insert(Family::of(address), address)
                .map(|first| format!("{first} and {address} are of one family")),
        };
        if let Some(problem) = problem {
            let text = format!("the addresses {text:?} that are asked for: {problem}");
            told.push(Told::warning(
                (key, service),
                Reason::InvalidAddresses,
                text,
            ));
        }
    }
    wanted
}

/// Whether a Service may have the address that it asks for.
fn grant(
    world: &World,
    (key, service): (&Key, &Service),
    address: IpAddr,
    foreign: &BTreeMap<IpAddr, &'static str>,
    book: &Book<'_>,
) -> Result<(), Refused> {
    let refuse = |reason, rule: String| Err((reason, format!("{address} is refused: {rule}")));
    let only = service.annotations.get("pool");
    let mut pools = world
        .pools
        .iter()
        .filter(|(name, pool)| pool.has(address) && only.is_none_or(|only| only == *name));
    let mut refusal = None;
    let is_in_pool = pools.any(|(name, pool)| {
        let refused = pool.refuses(key, service);
        refusal = refused.map(|by| format!("rule {by}: pool {name} is not for this Service"));
        refused.is_none()
    });
    if !is_in_pool {
        let rule = refusal.unwrap_or_else(|| "rule pool: no VipPool has it".to_owned());
        return refuse(Reason::AddressNotInPool, rule);
    }
    if let Some(whose) = foreign.get(&address) {
        return refuse(Reason::AddressInUse, format!("rule foreign: it is {whose}"));
    }
    let allowed = book.allows((key, service), address);
    allowed.or_else(|rule| refuse(Reason::AddressInUse, rule))
}

/// An address that Services of the same sharing key have, if the rules allow one.
fn shared(
    world: &World,
    of: (&Key, &Service),
    family: Family,
    foreign: &BTreeMap<IpAddr, &'static str>,
    book: &Book<'_>,
) -> Option<(IpAddr, String)> {
    of.1.annotations.get("sharing-key")?;
    let held = book
        .holders
        .iter()
        .filter(|(_, holders)| !holders.is_empty());
    let mut held = held.filter(|(address, _)| Family::of(**address) == family);
    held.find_map(|(address, holders)| {
        grant(world, of, *address, foreign, book).ok()?;
        let (with, _) = holders.first()?;
        Some((*address, format!("shared with {with}")))
    })
}

/// The lowest free address of the first pool that has one.
fn free<'w>(
    world: &'w World,
    (key, service): (&Key, &Service),
    family: Family,
    foreign: &BTreeMap<IpAddr, &'static str>,
    book: &Book<'_>,
    cursors: &mut BTreeMap<(&'w str, usize), u128>,
) -> Result<(IpAddr, String), Refused> {
    let only = service.annotations.get("pool");
    let mut full = Vec::new();
    for (name, pool) in &world.pools {
        let is_meant = only.map_or(pool.is_automatic, |only| only == name);
        if !is_meant || pool.refuses(key, service).is_some() {
            continue;
        }
        let ranges = pool.ranges.iter().enumerate();
        let mut ranges = ranges
            .filter(|(_, (first, _))| Family::of(*first) == family)
            .peekable();
        if ranges.peek().is_none() {
            continue;
        }
        for (index, (first, last)) in ranges {
            let cursor = cursors.entry((name, index)).or_insert(number(*first));
            while *cursor <= number(*last) {
                let next = address(family, *cursor);
                if !book.is_taken(next) && !foreign.contains_key(&next) {
                    return Ok((next, format!("from pool {name}")));
                }
                let Some(after) = cursor.checked_add(1) else {
                    break;
                };
                *cursor = after;
            }
        }
        full.push(name.as_str());
    }
    let family = family.as_str();
    if full.is_empty() {
        let rule = match only {
            Some(only) => format!(
                "rule pool: VipPool {only} is not there, not for this Service, or has no {family} addresses"
            ),
            None => format!(
                "rule autoAssign: no VipPool that assigns by itself has {family} addresses for this Service"
            ),
        };
        return Err((Reason::NoPool, format!("no {family} address: {rule}")));
    }
    Err((
        Reason::PoolExhausted,
        format!(
            "no {family} address: rule free: every address of {} is in use",
            full.join(", ")
        ),
    ))
}

/// What each pool's status should say.
#[must_use]
pub fn statuses(
    world: &World,
    foreign: &BTreeMap<IpAddr, &'static str>,
    held: &BTreeSet<IpAddr>,
) -> BTreeMap<String, PoolStatus> {
    let mut all = BTreeMap::new();
    for (name, pool) in &world.pools {
        let mut conflicts = pool.wrong.clone();
        for (other_name, other) in world.pools.iter().filter(|(other, _)| *other != name) {
            let mut pairs = pool
                .ranges
                .iter()
                .flat_map(|a| other.ranges.iter().map(move |b| (a, b)));
            if let Some((a, b)) = pairs.find(|(a, b)| a.0 <= b.1 && b.0 <= a.1) {
                let (first, last) = (a.0.max(b.0), a.1.min(b.1));
                conflicts.push(format!(
                    "has {first} to {last} together with pool {other_name}"
                ));
            }
        }
        // Ranges of one pool may overlap too: what two have counts once.
        let mut ranges: Vec<_> = pool.ranges.clone();
        ranges.sort_unstable();
        let mut joined: Vec<(IpAddr, IpAddr)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        let sizes = joined
            .iter()
            .map(|(first, last)| (number(*last) - number(*first)).saturating_add(1));
        let size = sizes.fold(0_u128, u128::saturating_add);
        let used = held.iter().filter(|address| pool.has(**address)).count() as u128;
        let lost = foreign
            .keys()
            .filter(|a| pool.has(**a) && !held.contains(a))
            .count() as u128;
        let json = |number: u128| i64::try_from(number.min(MOST)).unwrap_or(i64::MAX);
        all.insert(
            name.clone(),
            PoolStatus {
                used: json(used),
                free: json(size.saturating_sub(used).saturating_sub(lost)),
                conflicts,
            },
        );
    }
    all
}
