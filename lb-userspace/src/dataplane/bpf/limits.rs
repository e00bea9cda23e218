//! The maps of rate limits.

use anyhow::Context as _;
use aya::{
    maps::{MapError, PerCpuValues},
    util::nr_cpus,
};
use lb_common::{
    gcra::{MAX_DEPTH, Ticks},
    limit::{Kind, Limits, OwnRate, Share, Source, SourceKey, Totals},
};

use super::{object::Object, value::Value};
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
pub(super) fn source(object: &Object, key: &SourceKey) -> anyhow::Result<Option<Source>> {
    match object.sources.get(Value::from_ref(key), 0) {
        Ok(Value(source)) => Ok(Some(source)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).context("reading a source"),
    }
}

/// Gives a source limits of its own. What packets change of its entry in that moment is lost: a cell or two.
pub(super) fn set_own_rates(
    object: &mut Object,
    key: &SourceKey,
    packets: OwnRate,
    connections: OwnRate,
) -> anyhow::Result<()> {
    // One that is forgotten has none when it comes back.
    let Some(mut source) = source(object, key)? else {
        return Ok(());
    };
    if (source.own_packets, source.own_connections) == (packets, connections) {
        return Ok(());
    }
    (source.own_packets, source.own_connections) = (packets, connections);
    let written = object
        .sources
        .insert(Value::from_ref(key), Value(source), 0);
    written.context("writing a source's limits")
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
