//! Combining the ECN fields of inner and outer header (RFC 6040, section 4.2).

/// The ECN field in the last two bits of a traffic class or type of service.
pub(super) const MASK: u8 = 3;

/// Not ECN-capable.
pub(super) const NOT_ECT: u8 = 0;
/// ECN-capable, code point 1; beside ECT(0), PCN uses it as a lesser mark (RFC 6660).
pub(super) const ECT_1: u8 = 1;
/// ECN-capable, code point 0.
pub(super) const ECT_0: u8 = 2;
/// Congestion experienced.
pub(super) const CE: u8 = 3;

/// The ECN field that the packet goes on with, or `None` where it must be dropped: a packet that is not
/// ECN-capable tells of congestion only by being lost.
#[inline(always)]
pub(super) const fn combine(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (ECT_0 | ECT_1, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of RFC 6040, row by row.
    #[test]
    fn the_table_of_rfc_6040() {
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, row) in rows {
            assert_eq!(outer.map(|outer| combine(inner, outer)), row, "{inner}");
        }
    }
}
