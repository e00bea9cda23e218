//! The recorder's program.
//!
//! In C: `char copy[256] = {}; load_bytes(ctx, 0, copy, min(length, 256)); output(&frames, copy, ..); return XDP_PASS;`

use super::bpf_object::{BpfObject, Instruction};

/// The program's name.
pub(super) const PROGRAM: &str = "weir_record";
/// The map's name.
pub(super) const MAP: &str = "frames";
/// How much of a frame is recorded.
pub(super) const RECORDED: i32 = 256;

/// `BPF_MAP_TYPE_RINGBUF`, no keys and no values, bytes, flags.
const MAP_DEFINITION: [u32; 5] = [27, 0, 0, 1 << 20, 0];
/// The shortest frame that is recorded: an Ethernet header.
const SHORTEST: i32 = 14;

// Helpers of linux/bpf.h.
const XDP_LOAD_BYTES: i32 = 189;
const RINGBUF_OUTPUT: i32 = 130;

/// Returns the program with its map.
pub(super) fn object() -> BpfObject {
    let (copy, output) = (copy(), output());
    // What a refused copy skips: the output alone.
    let skip = i16::try_from(output.len()).unwrap_or(i16::MAX);
    let mut instructions = vec![
        (0xbf, 6, 1, 0, 0),        // r6 = context
        (0x61, 2, 1, 0, 0),        // r2 = data
        (0x61, 7, 1, 4, 0),        // r7 = data_end
        (0x1f, 7, 2, 0, 0),        // r7 -= r2: the length
        (0xb5, 7, 0, 1, RECORDED), // if r7 > RECORDED
        (0xb7, 7, 0, 0, RECORDED), //   r7 = RECORDED
    ];
    let to_pass = i16::try_from(copy.len() + 1)
        .unwrap_or(i16::MAX)
        .saturating_add(skip);
    instructions.push((0xa5, 7, 0, to_pass, SHORTEST)); // if r7 < SHORTEST goto PASS
    instructions.extend(copy);
    instructions.push((0x55, 0, 0, skip, 0)); // if r0 != 0 goto PASS
    let map_address = instructions.len() as u64;
    instructions.extend(output);
    instructions.push((0xb7, 0, 0, 0, 2)); // PASS: r0 = XDP_PASS
    instructions.push((0x95, 0, 0, 0, 0)); // exit
    BpfObject {
        program: PROGRAM,
        instructions,
        map: MAP,
        definition: MAP_DEFINITION,
        map_address,
    }
}

/// r0 = `bpf_xdp_load_bytes`(r6, 0, stack, r7), over zeros: older kernels let nobody read a stack that nobody wrote.
fn copy() -> Vec<Instruction> {
    let zeros = (-RECORDED..0).step_by(8);
    let mut instructions: Vec<Instruction> = zeros
        .map(|offset| (0x7a, 10, 0, offset as i16, 0))
        .collect();
    instructions.extend([
        (0xbf, 1, 6, 0, 0),
        (0xb7, 2, 0, 0, 0),
        (0xbf, 3, 10, 0, 0),
        (0x07, 3, 0, 0, -RECORDED),
        (0xbf, 4, 7, 0, 0),
        (0x85, 0, 0, 0, XDP_LOAD_BYTES),
    ]);
    instructions
}

/// `bpf_ringbuf_output`(map, stack, r7, 0); begins with the load of the map's address.
fn output() -> Vec<Instruction> {
    vec![
        (0x18, 1, 0, 0, 0),
        (0x00, 0, 0, 0, 0),
        (0xbf, 2, 10, 0, 0),
        (0x07, 2, 0, 0, -RECORDED),
        (0xbf, 3, 7, 0, 0),
        (0xb7, 4, 0, 0, 0),
        (0x85, 0, 0, 0, RINGBUF_OUTPUT),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_land_on_the_pass() {
        let object = object();
        let pass = object.instructions.len() - 2;
        assert_eq!(object.instructions[pass], (0xb7, 0, 0, 0, 2));
        let far = |opcode: u8| {
            let at = object
                .instructions
                .iter()
                .position(|instruction| instruction.0 == opcode)
                .unwrap();
            at + 1 + usize::try_from(object.instructions[at].3).unwrap()
        };
        assert_eq!((far(0xa5), far(0x55)), (pass, pass));
        let address = usize::try_from(object.map_address).unwrap();
        assert_eq!(object.instructions[address].0, 0x18);
    }
}
