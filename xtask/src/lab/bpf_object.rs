//! ELF objects of BPF programs that are assembled by hand: a few dozen instructions need no compiler, and so no
//! build step.

use anyhow::{Context as _, Result};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection},
};

/// `R_BPF_64_64`: the address of a map, in a two-slot load.
const R_BPF_64_64: u32 = 1;

/// One instruction: opcode, destination and source register, offset, immediate.
pub(super) type Instruction = (u8, u8, u8, i16, i32);

/// An XDP program with one map.
pub(super) struct BpfObject {
    /// The program's name.
    pub(super) program: &'static str,
    /// The program.
    pub(super) instructions: Vec<Instruction>,
    /// The map's name.
    pub(super) map: &'static str,
    /// The map's type, key size, value size, entries, flags.
    pub(super) definition: [u32; 5],
    /// The two-slot load of the map's address, in instructions from the beginning.
    pub(super) map_address: u64,
}

impl BpfObject {
    /// Writes the object.
    pub(super) fn write(&self) -> Result<Vec<u8>> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let maps = object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data);
        let definition: Vec<u8> = self
            .definition
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let map = add(&mut object, maps, self.map, SymbolKind::Data, &definition);

        let text = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
        let code: Vec<u8> = self.instructions.iter().flat_map(encode).collect();
        add(&mut object, text, self.program, SymbolKind::Text, &code);
        let flags = object::RelocationFlags::Elf {
            r_type: R_BPF_64_64,
        };
        let relocation = Relocation {
            offset: self.map_address * 8,
            symbol: map,
            addend: 0,
            flags,
        };
        object
            .add_relocation(text, relocation)
            .context("write the relocation of a BPF object")?;

        let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
        object.append_section_data(license, b"Dual MIT/GPL\0", 1);
        object.write().context("write a BPF object")
    }
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
    fn object_is_little_endian_bpf() {
        let object = BpfObject {
            program: "pass",
            instructions: vec![(0xb7, 0, 0, 0, 2), (0x95, 0, 0, 0, 0)],
            map: "map",
            definition: [1, 4, 4, 1, 0],
            map_address: 0,
        };
        let elf = object.write().unwrap();
        assert_eq!(&elf[..6], b"\x7fELF\x02\x01");
        assert_eq!(u16::from_le_bytes([elf[18], elf[19]]), 247);
    }
}
