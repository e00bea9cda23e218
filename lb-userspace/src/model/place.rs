//! Where a flow belongs: its VIP, and its slot there.

use lb_common::{flow::Flow, pin::Idle, slot::Slot, vip::VipEntry};

use super::{plan::Held, slots::Slots};

/// The slot of a flow.
pub struct Place<'a> {
    /// Its VIP.
    pub vip: &'a VipEntry,
    /// The VIP's slots.
    pub slots: &'a Slots,
    /// The slot's number.
    pub index: u16,
    /// How long the VIP's flows may be silent.
    pub idle: Idle,
}

impl<'a> Place<'a> {
    /// Where a flow belongs; `None` where it is no VIP's.
    #[must_use]
    pub fn of(flow: &Flow, held: &'a Held) -> Option<Self> {
        let vip = held.vips()?.table.find(flow)?;
        Some(Self {
            vip,
            slots: held.slots(vip.id)?,
            index: vip.hash(&held.node()?.hash_keys, flow) as u16,
            idle: *held.idle(vip.id)?,
        })
    }

    /// The slot itself.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slots.slot(self.index)
    }
}
