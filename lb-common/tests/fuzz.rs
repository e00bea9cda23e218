//! What the cargo-fuzz target does, over the frames of the conformance suite: the target itself needs another toolchain, and nobody would see
//! that it no longer compiles.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "../fuzz/world.rs"]
mod world;

#[test]
fn the_frames_of_the_conformance_suite_pass_the_fuzz_target() {
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../lb-userspace/tests/conformance/corpus"
    );
    let mut frames = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let digits = line.as_bytes().chunks_exact(2);
            let frame: Option<Vec<u8>> = digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect();
            world::judge(&frame.unwrap());
            frames += 1;
        }
    }
    assert!(frames > 100, "{frames}");
}
