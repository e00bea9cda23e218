//! The Internet checksum (RFC 1071), and its incremental update (RFC 1624).
//!
//! Sums are of 16-bit words as numbers in network order; a sum is unfolded until [`fold`] makes it a checksum.

use crate::flow::Address;

/// Folds a sum into 16 bits, adding the carries around the end.
#[must_use]
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum as u16
}

/// The checksum of a sum, as it stands in the header.
#[must_use]
#[inline(always)]
pub const fn finish(sum: u32) -> [u8; 2] {
    (!fold(sum)).to_be_bytes()
}

/// The sum of some bytes, of which there must be an even number.
#[must_use]
#[inline(always)]
pub fn sum<const N: usize>(bytes: &[u8; N]) -> u32 {
    let mut sum = 0u32;
    for word in bytes.as_chunks::<2>().0 {
        sum = sum.wrapping_add(u32::from(u16::from_be_bytes(*word)));
    }
    sum
}

/// The sum of a 32-bit number's two words.
#[must_use]
#[inline(always)]
pub const fn sum_u32(number: u32) -> u32 {
    (number >> 16).wrapping_add(number & 0xffff)
}

/// The sum of an address's eight words.
#[must_use]
#[inline(always)]
pub const fn sum_address(address: Address) -> u32 {
    let high = u64::from_be(address.high);
    let low = u64::from_be(address.low);
    sum_u32((high >> 32) as u32)
        .wrapping_add(sum_u32(high as u32))
        .wrapping_add(sum_u32((low >> 32) as u32))
        .wrapping_add(sum_u32(low as u32))
}

/// The checksum after one 16-bit word went from `old` to `new` (RFC 1624, equation 3).
#[must_use]
#[inline(always)]
pub const fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = (!u16::from_be_bytes(checksum)) as u32;
    let sum = sum
        .wrapping_add(!u16::from_be_bytes(old) as u32)
        .wrapping_add(u16::from_be_bytes(new) as u32);
    finish(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(
            update([0xdd, 0x2f], [0x55, 0x55], [0x32, 0x85]),
            [0x00, 0x00]
        );
    }

    /// An echo request's first word goes from 0x0800 to 0: the carry must go around the end.
    #[test]
    fn updating_equals_summing_again_for_every_checksum() {
        // A message of nothing but zeros is the one case where the two zeros of one's complement differ.
        for rest in 1..=0xffffu16 {
            let old = finish(u32::from(rest) + 0x0800);
            assert_eq!(
                fold(u32::from(rest) + u32::from(u16::from_be_bytes(update(old, [8, 0], [0, 0])))),
                0xffff
            );
        }
    }
}
