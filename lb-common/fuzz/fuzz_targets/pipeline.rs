//! Arbitrary bytes through the pipeline on the host: `cargo +nightly fuzz run pipeline` in lb-common.
//!
//! It must not panic; what passes or is dropped keeps its bytes; what is forwarded keeps its IP packet and what
//! follows it as the last bytes of the frame.
//!
//! Seeds, from the conformance suite:
//! `cat ../lb-userspace/tests/conformance/corpus/*.hex | while read -r frame; do
//! echo "$frame" | xxd -r -p > "fuzz/corpus/pipeline/$(echo "$frame" | sha1sum | cut -c1-40)"; done`
#![no_main]

#[path = "../world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| world::judge(frame));
