//! Whom commands block, and when that ends.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::Reconciler;
use crate::{
    api::{Actor, BlockList, Changed, NewBlock, Refusal, What, is_configured, time_text},
    dataplane::DataPlane,
    model::blocks::{Block, BlockName, Blocks},
};

/// Blocks end by the wall clock, which may be set: it is looked at so often.
const LOOK: Duration = Duration::from_mins(1);

impl<D: DataPlane> Reconciler<D> {
    /// Blocks a prefix, or blocks it as said now.
    pub(super) fn block(&mut self, new: &NewBlock, by: Actor) -> Result<Changed, Refusal> {
        let time = new.time().map_err(Refusal::Malformed)?;
        let reason = new.reason().map_err(Refusal::Malformed)?;
        let name = BlockName {
            vip: new.vip.clone(),
            prefix: new.prefix,
        };
        self.can_block(&name)?;
        let now = SystemTime::now();
        let block = Block {
            since: now,
            until: time.map(|time| now + time),
            reason: reason.clone(),
            by: by.to_string(),
        };
        let mut blocks = Blocks::clone(self.desired.blocks());
        // Without an end, the same once more changes nothing.
        let is_same = |old: &Block| old.until.is_none() && time.is_none() && old.reason == reason;
        if blocks.get(&name).is_some_and(is_same) {
            return Ok(Changed {
                changed: false,
                generation: self.generation,
            });
        }
        let until = block.until;
        blocks
            .set(name.clone(), block)
            .map_err(|full| Refusal::TooMuch(full.to_string()))?;
        let changed = self.adopt_blocks(blocks, by)?;
        tracing::info!(
            cause = %by,
            generation = changed.generation,
            prefix = %name.prefix,
            vip = name.vip,
            until = until.map(time_text),
            reason,
            "blocked by command"
        );
        self.events.tell(What::Blocked {
            generation: changed.generation,
            by: by.to_string(),
            prefix: name.prefix,
            vip: name.vip,
            until: until.map(time_text),
            reason,
        });
        Ok(changed)
    }

    /// Whether a block makes sense.
    fn can_block(&self, name: &BlockName) -> Result<(), Refusal> {
        let Some(of) = &name.vip else {
            return Ok(());
        };
        let vips = &self.desired.file().vips;
        let Some(vip) = vips.iter().find(|vip| vip.name == *of) else {
            return Err(no_vip(of));
        };
        if vip.address.is_ipv4() != name.prefix.is_v4() {
            return Err(Refusal::Malformed(format!(
                "VIP {of} has the address {}: no client of {} can reach it",
                vip.address, name.prefix
            )));
        }
        Ok(())
    }

    /// Lets a prefix send again.
    pub(super) fn unblock(&mut self, name: &BlockName, by: Actor) -> Result<Changed, Refusal> {
        let mut blocks = Blocks::clone(self.desired.blocks());
        if blocks.remove(name).is_none() {
            return Err(self.not_blocked(name));
        }
        let changed = self.adopt_blocks(blocks, by)?;
        self.tell_unblocked(name, &by.to_string());
        Ok(changed)
    }

    /// That nothing is blocked under this name, and what is that may have been meant.
    fn not_blocked(&self, name: &BlockName) -> Refusal {
        let of = |name: &BlockName| match &name.vip {
            Some(vip) => format!("{} for VIP {vip}", name.prefix),
            None => format!("{} for all VIPs", name.prefix),
        };
        let near: Vec<_> = self.desired.blocks().near(name).take(3).map(of).collect();
        let same = self.desired.blocks().iter().map(|(name, _)| name);
        let same = same.filter(|other| other.prefix == name.prefix).map(of);
        let meant: Vec<_> = same.take(3).chain(near).collect();
        let hint = if meant.is_empty() {
            "`weir block list` lists what is".to_owned()
        } else {
            format!("what is: {}", meant.join(", "))
        };
        Refusal::Unknown(format!("{} is not blocked by command; {hint}", of(name)))
    }

    /// Makes the maps follow, as a whole or not at all, and keeps it before it is told.
    fn adopt_blocks(&mut self, blocks: Blocks, by: Actor) -> Result<Changed, Refusal> {
        let next = self.desired.with_blocks(Arc::new(blocks));
        self.commit_command(next, by)
    }

    /// Lets go of what has ended. The maps follow with the next reconciliation.
    pub(super) fn expire_blocks(&mut self) {
        let now = SystemTime::now();
        let blocks = self.desired.blocks();
        if blocks.first_end().is_none_or(|end| end > now) {
            return;
        }
        let mut blocks = Blocks::clone(blocks);
        let ended = blocks.expire(now);
        self.desired = self.desired.with_blocks(Arc::new(blocks));
        self.save_state();
        for name in &ended {
            self.tell_unblocked(name, "time");
        }
    }

    fn tell_unblocked(&mut self, name: &BlockName, by: &str) {
        let BlockName { vip, prefix } = name;
        let generation = self.generation;
        tracing::info!(cause = by, generation, %prefix, vip, "blocked no longer");
        self.events.tell(What::Unblocked {
            generation,
            by: by.to_owned(),
            prefix: *prefix,
            vip: vip.clone(),
        });
    }

    /// When to look for the next one that ends.
    pub(super) fn block_deadline(&self) -> Option<Instant> {
        let end = self.desired.blocks().first_end()?;
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        Some(Instant::now() + left.min(LOOK))
    }

    /// Everything that is blocked.
    pub(super) fn block_list(&self) -> BlockList {
        BlockList::new(
            self.desired.blocks(),
            self.desired.file(),
            SystemTime::now(),
        )
    }

    /// Blocks of VIPs that there are not, in sentences.
    pub(super) fn idle_blocks(&self) -> impl Iterator<Item = String> {
        let file = self.desired.file();
        let all = self.desired.blocks().iter().map(|(name, _)| name);
        let idle = all.filter(|name| !is_configured(name, file));
        idle.map(|BlockName { vip, prefix }: &BlockName| {
            let vip = vip.as_deref().unwrap_or_default();
            format!("{prefix}: blocked for VIP {vip}, which there is not")
        })
    }
}

/// That there is no such VIP.
pub(super) fn no_vip(vip: &str) -> Refusal {
    Refusal::Unknown(format!(
        "there is no VIP {vip}: `weir vip list` lists those that there are"
    ))
}
