//! The maps of rate limits.

use anyhow::Context as _;
use aya::{maps::PerCpuValues, util::nr_cpus};
use lb_common::{
    flow::HashKeys,
    gcra::{MAX_DEPTH, Ticks},
    limit::{
        Kind, Limits, OwnRates, Share, Source, SourceKey, Totals,
        source::{self, SETS},
    },
};

use super::{inner::ignore_absent, object::Object, value::Value};
use crate::dataplane::Judged;

/// Writes a VIP's limits.
pub(super) fn set(object: &mut Object, vip: u32, limits: &Limits) -> anyhow::Result<()> {
    let set = object.limits.set(vip, Value::from_ref(limits), 0);
    set.with_context(|| format!("writing the limits of VIP {vip}"))
}

/// Lets no TAT be further ahead than the burst takes: a packet that was dear under a small share would hold up a larger one. What
/// packets pay in that moment is lost.
pub(super) fn forgive(
    object: &mut Object,
    vip: u32,
    limits: &Limits,
    now: Ticks,
) -> anyhow::Result<()> {
    let failed = || format!("what was used of the limits of VIP {vip}");
    let Value(held) = object.limit_totals.get(&vip, 0).with_context(failed)?;
    let mut totals = held;
    for (tat, rate) in totals.tats.iter_mut().zip(&limits.rates).take(Kind::TOTALS) {
        let ahead = tat.wrapping_sub(now);
        if rate.interval != 0 && ahead <= MAX_DEPTH && ahead > rate.depth {
            *tat = now.wrapping_add(rate.depth);
        }
    }
    if totals == held {
        return Ok(());
    }
    let written = object.limit_totals.set(vip, Value(totals), 0);
    written.with_context(failed)
}

/// Forgets a VIP's limits, what CPUs took of them, and what was counted. Sources are forgotten as others come.
pub(super) fn clear(object: &mut Object, vip: u32) -> anyhow::Result<()> {
    let failed = || format!("clearing the limits of VIP {vip}");
    set(object, vip, &Limits::default())?;
    object
        .limit_totals
        .set(vip, Value::from_ref(&Totals::default()), 0)
        .with_context(failed)?;
    let cpus = nr_cpus().map_err(|(_, error)| error).with_context(failed)?;
    let none = PerCpuValues::try_from(vec![Value(Share::default()); cpus]).with_context(failed)?;
    object.limit_shares.set(vip, none, 0).with_context(failed)
}

/// What is known of a source.
pub(super) fn source(
    object: &Object,
    keys: &HashKeys,
    key: &SourceKey,
) -> anyhow::Result<Option<Source>> {
    let tag = key.tag(keys);
    let sets = object.sources.len().saturating_mul(SETS as u32);
    let set = source::set(tag, sets);
    let block = object.sources.get(&(set / SETS as u32), 0);
    let Value(block) = block.context("reading a source")?;
    let places = block.sets.get(set as usize % SETS);
    let found = places.and_then(|places| places.iter().find(|place| place.tag == tag));
    Ok(found.copied())
}

/// Gives a source limits of its own, or takes them back.
pub(super) fn set_own_rates(
    object: &mut Object,
    key: &SourceKey,
    rates: &OwnRates,
) -> anyhow::Result<()> {
    let key = Value::from_ref(key);
    let written = if *rates == OwnRates::default() {
        ignore_absent(object.own_rates.remove(key))
    } else {
        object.own_rates.insert(key, Value::from_ref(rates), 0)
    };
    written.context("writing a source's limits")
}

/// The sources that have limits of their own.
pub(super) fn own_rate_keys(object: &Object) -> anyhow::Result<Vec<SourceKey>> {
    let keys = object.own_rates.keys().map(|key| key.map(|Value(key)| key));
    keys.collect::<Result<_, _>>()
        .context("reading which sources have limits of their own")
}

/// What became of a VIP's packets at its limits.
pub(super) fn judged(object: &Object, vip: u32) -> anyhow::Result<Judged> {
    let shares = object.limit_shares.get(&vip, 0);
    let shares = shares.with_context(|| format!("reading the counts of VIP {vip}'s limits"))?;
    let mut sums = Judged::default();
    for Value(share) in shares.iter() {
        sums.bytes = sums.bytes.wrapping_add(share.bytes);
        for (sums, counts) in sums.packets.iter_mut().zip(&share.judged) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.wrapping_add(*count);
            }
        }
    }
    Ok(sums)
}
