//! A number for each slot in as little memory as that takes: a node with a thousand VIPs holds thousands of such lists.

/// The number that means "none".
pub(super) const NONE: u16 = u16::MAX;

/// One number a slot: a byte each, where all of them are small.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Places(Width);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Width {
    /// [`u8::MAX`] is [`NONE`].
    Byte(Box<[u8]>),
    Word(Box<[u16]>),
}

impl Places {
    /// These numbers.
    #[must_use]
    pub(super) fn new(places: Vec<u16>) -> Self {
        let byte = |place: &u16| match u8::try_from(*place) {
            Ok(small) if small != u8::MAX => Some(small),
            _ => (*place == NONE).then_some(u8::MAX),
        };
        let bytes: Option<Box<[u8]>> = places.iter().map(byte).collect();
        Self(match bytes {
            Some(bytes) => Width::Byte(bytes),
            None => Width::Word(places.into()),
        })
    }

    /// The number of a slot; [`NONE`] where there is no such slot.
    #[must_use]
    pub(super) fn get(&self, slot: usize) -> u16 {
        match &self.0 {
            Width::Byte(bytes) => wide(bytes.get(slot).copied().unwrap_or(u8::MAX)),
            Width::Word(words) => words.get(slot).copied().unwrap_or(NONE),
        }
    }

    fn len(&self) -> usize {
        match &self.0 {
            Width::Byte(bytes) => bytes.len(),
            Width::Word(words) => words.len(),
        }
    }

    /// The numbers, by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        (0..self.len()).map(|slot| self.get(slot))
    }
}

const fn wide(byte: u8) -> u16 {
    if byte == u8::MAX { NONE } else { byte as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_whatever_they_take() {
        for (numbers, is_small) in [
            (vec![0, 1, 254, NONE], true),
            (vec![0, 255], false),
            (vec![NONE, 65_534], false),
            (vec![], true),
        ] {
            let places = Places::new(numbers.clone());
            assert_eq!(matches!(places.0, Width::Byte(_)), is_small, "{numbers:?}");
            assert_eq!(places.iter().collect::<Vec<_>>(), numbers);
            assert_eq!(places.len(), numbers.len());
            assert_eq!(places.get(numbers.len()), NONE);
        }
    }
}
