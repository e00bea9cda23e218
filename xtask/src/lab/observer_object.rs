//! The observer's ELF object, assembled by hand: 35 instructions need no compiler, and so no build step.
//!
//! In C: `if (u64 *n = lookup(&counts, source_address(frame))) (*n)++; return XDP_PASS;`

use anyhow::{Context as _, Result};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection},
};

/// The program's name.
pub(super) const PROGRAM: &str = "weir_observe";
/// The map's name.
pub(super) const MAP: &str = "counts";

/// `BPF_MAP_TYPE_HASH`, key size, value size, entries, flags.
const MAP_DEFINITION: [u32; 5] = [1, 16, 8, 64, 0];
/// `R_BPF_64_64`: the address of a map, in a two-slot load.
const R_BPF_64_64: u32 = 1;

// Where the jumps go, and where the map's address is, in instructions from the beginning.
const IPV4: i16 = 20;
const LOOKUP: i16 = 25;
const MAP_ADDRESS: u64 = 27;
const PASS: i16 = 33;

/// One instruction: opcode, destination and source register, offset, immediate.
type Instruction = (u8, u8, u8, i16, i32);

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

/// Writes the object.
pub(super) fn write() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let maps = object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data);
    let definition: Vec<u8> = MAP_DEFINITION
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let map = add(&mut object, maps, MAP, SymbolKind::Data, &definition);

    let text = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    let code: Vec<u8> = program().iter().flat_map(encode).collect();
    add(&mut object, text, PROGRAM, SymbolKind::Text, &code);
    let flags = object::RelocationFlags::Elf {
        r_type: R_BPF_64_64,
    };
    let relocation = Relocation {
        offset: MAP_ADDRESS * 8,
        symbol: map,
        addend: 0,
        flags,
    };
    object
        .add_relocation(text, relocation)
        .context("write the observer's relocation")?;

    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"Dual MIT/GPL\0", 1);
    object.write().context("write the observer's object")
}

/// Puts bytes with a name into a section.
fn add(
    object: &mut Object<'_>,
    section: SectionId,
    name: &str,
    kind: SymbolKind,
    bytes: &[u8],
) -> SymbolId {
    let symbol = object.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: 0,
        kind,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    });
    object.add_symbol_data(symbol, section, bytes, 8);
    symbol
}

/// Encodes an instruction as the kernel of a little-endian machine reads it.
fn encode(&(opcode, destination, source, offset, immediate): &Instruction) -> [u8; 8] {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    [opcode, source << 4 | destination, o0, o1, i0, i1, i2, i3]
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

    #[test]
    fn object_is_little_endian_bpf() {
        let elf = write().unwrap();
        assert_eq!(&elf[..6], b"\x7fELF\x02\x01");
        assert_eq!(u16::from_le_bytes([elf[18], elf[19]]), 247);
    }
}
