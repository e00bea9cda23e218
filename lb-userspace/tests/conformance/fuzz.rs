//! A fuzzer that needs nothing but a stable toolchain: cases, changed at random, through program and host.
//!
//! `WEIR_FUZZ_PACKETS` and `WEIR_FUZZ_SEED` say how many and which; `cargo xtask fuzz` sets them.

use std::time::Instant;

use super::{all, differential::Differential};

/// Frames in an ordinary test run.
const PACKETS: u64 = 100_000;

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Bytes that mean something somewhere.
const TELLING: [u8; 16] = [
    0, 1, 4, 6, 8, 17, 41, 43, 44, 58, 60, 0x45, 0x60, 0x7f, 0x80, 0xff,
];

/// Changes a frame: some bytes of its headers, its length, or a piece of another frame.
fn mutate(frame: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..random.below(4) {
        let at = random.below(frame.len().min(120));
        match random.below(8) {
            0 => frame[at] ^= 1 << random.below(8),
            1 => frame[at] = random.next() as u8,
            2 | 3 => frame[at] = TELLING[random.below(TELLING.len())],
            4 => frame[at] = frame[at].wrapping_add(1),
            5 => {
                let len = random.below(16).min(other.len()).min(frame.len() - at);
                let from = random.below(other.len() - len + 1);
                frame[at..at + len].copy_from_slice(&other[from..from + len]);
            }
            6 => frame.truncate(14 + random.below(frame.len())),
            _ => frame.extend((0..random.below(16)).map(|byte| byte as u8)),
        }
        if frame.len() < 14 {
            frame.resize(14, 0);
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

#[test]
fn random_frames_meet_the_same_fate_in_the_program_and_on_the_host() {
    let packets = setting("WEIR_FUZZ_PACKETS", PACKETS);
    let seed = setting("WEIR_FUZZ_SEED", 1);
    // Long frames cost time and differ from short ones in little.
    let bases: Vec<Vec<u8>> = all()
        .into_iter()
        .flat_map(|case| case.before.into_iter().chain([case.frame]))
        .filter(|frame| frame.len() <= 2000)
        .collect();
    let mut random = Random(seed);
    let mut differential = Differential::new();
    let started = Instant::now();
    let mut frame = Vec::new();
    for done in 0..packets {
        frame.clear();
        if random.below(16) == 0 {
            frame.extend((0..14 + random.below(120)).map(|_| random.next() as u8));
        } else {
            let other = random.below(bases.len());
            frame.extend(&bases[random.below(bases.len())]);
            mutate(&mut frame, &bases[other], &mut random);
        }
        differential.push(&frame);
        if done % 1_000_000 == 999_999 {
            println!(
                "{} frames, {:.0} s",
                done + 1,
                started.elapsed().as_secs_f64()
            );
        }
    }
    differential.finish();
    let seconds = started.elapsed().as_secs_f64();
    for (reason, count) in &differential.reasons {
        println!("{count:10} {reason}");
    }
    println!(
        "{packets} frames in {seconds:.1} s ({:.0} a second), seed {seed}, {}: no difference, no abort",
        f64::from(u32::try_from(packets).unwrap()) / seconds,
        if differential.has_kernel() {
            "program and host"
        } else {
            "host alone"
        }
    );
}
