//! A number for each slot in as little memory as that takes: a node with a thousand VIPs holds thousands of such lists.

/// The number that means "none".
pub(super) const NONE: u16 = u16::MAX;

/// One number a slot: half a byte or a byte each, where all of them are small.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Places(Width);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Width {
    /// Two in each byte, the first one below; [`HALF`] is [`NONE`]. So many numbers, of which the last may have a byte of its own.
    Half(Box<[u8]>, usize),
    /// [`u8::MAX`] is [`NONE`].
    Byte(Box<[u8]>),
    Word(Box<[u16]>),
}

/// The largest half of a byte.
const HALF: u8 = 0xf;

impl Places {
    /// These numbers.
    #[must_use]
    pub(super) fn new(places: Vec<u16>) -> Self {
        let width = halves(&places)
            .or_else(|| bytes(&places))
            .unwrap_or_else(|| Width::Word(places.into()));
        Self(width)
    }

    /// The number of a slot; [`NONE`] where there is no such slot.
    #[must_use]
    pub(super) fn get(&self, slot: usize) -> u16 {
        match &self.0 {
            Width::Half(halves, len) => {
                let both = halves.get(slot / 2).copied().unwrap_or(u8::MAX);
                let half = if slot.is_multiple_of(2) {
                    both & HALF
                } else {
                    both >> 4
                };
                if half == HALF || slot >= *len {
                    NONE
                } else {
                    half.into()
                }
            }
            Width::Byte(bytes) => wide(bytes.get(slot).copied().unwrap_or(u8::MAX)),
            Width::Word(words) => words.get(slot).copied().unwrap_or(NONE),
        }
    }

    fn len(&self) -> usize {
        match &self.0 {
            Width::Half(_, len) => *len,
            Width::Byte(bytes) => bytes.len(),
            Width::Word(words) => words.len(),
        }
    }

    /// The numbers, by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        (0..self.len()).map(|slot| self.get(slot))
    }
}

/// The numbers, if each is less than `none` or is none, which then is `none`.
fn narrow(places: &[u16], none: u8) -> Option<Vec<u8>> {
    let narrow = |place: &u16| match u8::try_from(*place) {
        Ok(small) if small < none => Some(small),
        _ => (*place == NONE).then_some(none),
    };
    places.iter().map(narrow).collect()
}

fn halves(places: &[u16]) -> Option<Width> {
    let narrow = narrow(places, HALF)?;
    let both = narrow.chunks(2).map(|pair| match pair {
        [low, high] => low | (high << 4),
        [low] => low | (HALF << 4),
        _ => u8::MAX,
    });
    Some(Width::Half(both.collect(), narrow.len()))
}

fn bytes(places: &[u16]) -> Option<Width> {
    narrow(places, u8::MAX).map(|bytes| Width::Byte(bytes.into()))
}

const fn wide(byte: u8) -> u16 {
    if byte == u8::MAX { NONE } else { byte as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_whatever_they_take() {
        for (numbers, bits) in [
            (vec![0, 1, 14, NONE], 4),
            (vec![14, NONE, 3], 4),
            (vec![0, 15], 8),
            (vec![0, 1, 254, NONE], 8),
            (vec![0, 255], 16),
            (vec![NONE, 65_534], 16),
            (vec![], 4),
        ] {
            let places = Places::new(numbers.clone());
            let taken = match places.0 {
                Width::Half(..) => 4,
                Width::Byte(_) => 8,
                Width::Word(_) => 16,
            };
            assert_eq!(taken, bits, "{numbers:?}");
            assert_eq!(places.iter().collect::<Vec<_>>(), numbers);
            assert_eq!(places.len(), numbers.len());
            assert_eq!(places.get(numbers.len()), NONE);
        }
    }
}
