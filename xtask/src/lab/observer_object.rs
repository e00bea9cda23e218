//! The observer's program.
//!
//! In C: `if (u64 *n = lookup(&counts, source_address(frame))) (*n)++; return XDP_PASS;`

use super::bpf_object::{BpfObject, Instruction};

/// The program's name.
pub(super) const PROGRAM: &str = "weir_observe";
/// The map's name.
pub(super) const MAP: &str = "counts";

/// `BPF_MAP_TYPE_HASH`, key size, value size, entries, flags.
const MAP_DEFINITION: [u32; 5] = [1, 16, 8, 64, 0];

// Where the jumps go, and where the map's address is, in instructions from the beginning.
const IPV4: i16 = 20;
const LOOKUP: i16 = 25;
const MAP_ADDRESS: u64 = 27;
const PASS: i16 = 33;

/// Returns the program with its map.
pub(super) fn object() -> BpfObject {
    BpfObject {
        program: PROGRAM,
        instructions: program(),
        map: MAP,
        definition: MAP_DEFINITION,
        map_address: MAP_ADDRESS,
    }
}

/// Returns the program. Ethertypes are compared as a little-endian host loads them.
fn program() -> Vec<Instruction> {
    let to = |from: i16, target: i16| target - from - 1;
    vec![
        (0x61, 2, 1, 0, 0),                               //  0 r2 = data
        (0x61, 3, 1, 4, 0),                               //  1 r3 = data_end
        (0xbf, 4, 2, 0, 0),                               //  2 r4 = r2
        (0x07, 4, 0, 0, 34),                              //  3 r4 += Ethernet + IPv4
        (0x2d, 4, 3, to(4, PASS), 0),                     //  4 if r4 > r3 goto PASS
        (0x69, 5, 2, 12, 0),                              //  5 r5 = ethertype
        (0x15, 5, 0, to(6, IPV4), 0x0008),                //  6 if r5 == IPv4 goto IPV4
        (0x55, 5, 0, to(7, PASS), 0xdd86),                //  7 if r5 != IPv6 goto PASS
        (0xbf, 4, 2, 0, 0),                               //  8 r4 = r2
        (0x07, 4, 0, 0, 54),                              //  9 r4 += Ethernet + IPv6
        (0x2d, 4, 3, to(10, PASS), 0),                    // 10 if r4 > r3 goto PASS
        (0x61, 4, 2, 22, 0),                              // 11 key = source address, in four words
        (0x63, 10, 4, -16, 0),                            // 12
        (0x61, 4, 2, 26, 0),                              // 13
        (0x63, 10, 4, -12, 0),                            // 14
        (0x61, 4, 2, 30, 0),                              // 15
        (0x63, 10, 4, -8, 0),                             // 16
        (0x61, 4, 2, 34, 0),                              // 17
        (0x63, 10, 4, -4, 0),                             // 18
        (0x05, 0, 0, to(19, LOOKUP), 0),                  // 19 goto LOOKUP
        (0x62, 10, 0, -16, 0),                            // 20 IPV4: key = ::ffff:source address
        (0x62, 10, 0, -12, 0),                            // 21
        (0x62, 10, 0, -8, 0xffff_0000_u32.cast_signed()), // 22
        (0x61, 4, 2, 26, 0),                              // 23
        (0x63, 10, 4, -4, 0),                             // 24
        (0xbf, 2, 10, 0, 0),                              // 25 LOOKUP: r2 = &key
        (0x07, 2, 0, 0, -16),                             // 26
        (0x18, 1, 0, 0, 0),                               // 27 r1 = &counts, in two slots
        (0x00, 0, 0, 0, 0),                               // 28
        (0x85, 0, 0, 0, 1),                               // 29 r0 = bpf_map_lookup_elem(r1, r2)
        (0x15, 0, 0, to(30, PASS), 0),                    // 30 if r0 == 0 goto PASS
        (0xb7, 1, 0, 0, 1),                               // 31 r1 = 1
        (0xdb, 0, 1, 0, 0),                               // 32 lock *r0 += r1
        (0xb7, 0, 0, 0, 2),                               // 33 PASS: r0 = XDP_PASS
        (0x95, 0, 0, 0, 0),                               // 34 exit
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_land_where_their_names_say() {
        let program = program();
        assert_eq!(program.len(), 35);
        assert_eq!(
            program[usize::try_from(IPV4).unwrap()],
            (0x62, 10, 0, -16, 0)
        );
        assert_eq!(
            program[usize::try_from(LOOKUP).unwrap()],
            (0xbf, 2, 10, 0, 0)
        );
        assert_eq!(program[usize::try_from(PASS).unwrap()], (0xb7, 0, 0, 0, 2));
        assert_eq!(program[usize::try_from(MAP_ADDRESS).unwrap()].0, 0x18);
    }
}
