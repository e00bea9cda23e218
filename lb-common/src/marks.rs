//! Marks: which flows may have a pin that is proven or old, so that a SYN of a flow which has none need not look for it.
//!
//! A SYN that is to be pinned must not displace what is known of its flow ([`crate::pin::route`]), and looking for what is not there
//! costs most: each of two maps of millions of entries has its bucket somewhere else in memory. A filter (B. Bloom, 1970) in
//! one word of memory says "no" instead. It may say "yes" of a flow that has no pin, and never "no" of one that has: a flow
//! is marked before it is pinned, and marks are taken back all at once, when no slot changes hands and no such pin is left
//! (docs/decisions/0005-marks.md).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of a flow's hash that choose the word.
const WORD_BITS: u32 = 20;

/// The marks of all flows, 8 MiB. Host order.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Marks {
    /// Whether all flows that have such a pin are marked: not so from the start.
    pub is_kept: u64,
    /// Zero: keeps the words in cache lines of their own.
    reserved: [u64; 7],
    /// By [`Mark::index`].
    pub words: [u64; 1 << WORD_BITS],
}

impl Marks {
    /// Whether the flow of this hash may have a pin that is proven or old.
    #[must_use]
    #[inline(always)]
    pub fn may_hold(&self, hash: u32) -> bool {
        let mark = Mark::of(hash);
        let word = self.words.get(mark.index);
        self.is_kept == 0 || word.is_none_or(|word| word & mark.bits == mark.bits)
    }
}

/// A flow's mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// Which of the words, below 2²⁰.
    pub index: usize,
    /// Its bits in the word: one or two.
    pub bits: u64,
}

impl Mark {
    /// By the flow's hash. What chooses the slot chooses bits rather than the word, so that the flows of one slot lie in words
    /// of their own.
    #[must_use]
    #[inline(always)]
    pub const fn of(hash: u32) -> Self {
        Self {
            index: (hash >> (u32::BITS - WORD_BITS)) as usize,
            bits: (1 << (hash & 63)) | (1 << (hash >> 6 & 63)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::finalise;
    use zerocopy::FromZeros as _;

    #[test]
    fn a_flow_that_is_marked_may_be_held_and_few_others_may() {
        let mut marks = Marks::new_box_zeroed().unwrap();
        assert!(marks.may_hold(7), "nothing is known before marks are kept");
        marks.is_kept = 1;
        let marked = 1_000_000;
        for number in 0..marked {
            assert!(Mark::of(finalise(number)).index < marks.words.len());
            let mark = Mark::of(finalise(number));
            marks.words[mark.index] |= mark.bits;
        }
        assert!((0..marked).all(|number| marks.may_hold(finalise(number))));
        let others = marked..2 * marked;
        let wrong = others.filter(|number| marks.may_hold(finalise(*number)));
        // A million flows: two bits of some three that are set among 64.
        assert!(wrong.count() < 10_000);
    }

    #[test]
    fn flows_of_one_slot_have_words_of_their_own() {
        let mut marks = Marks::new_box_zeroed().unwrap();
        marks.is_kept = 1;
        for upper in (0..1 << 16).step_by(2) {
            let mark = Mark::of(upper << 16 | 0x1234);
            marks.words[mark.index] |= mark.bits;
        }
        let wrong = (1..1 << 16)
            .step_by(2)
            .filter(|upper| marks.may_hold(upper << 16 | 0x1234));
        assert_eq!(wrong.count(), 0);
    }
}
