//! The cases' frames as a corpus for fuzzers: one frame a line, in hex.
//!
//! `WEIR_UPDATE_CORPUS=1 cargo test -p lb-userspace --test conformance corpus` writes it anew.

use std::{collections::BTreeSet, fs, path::Path};

use super::{case::hex, subjects};

#[test]
fn the_corpus_is_that_of_the_cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/corpus");
    for (subject, cases) in subjects() {
        let frames: BTreeSet<String> = cases
            .into_iter()
            .map(|case| case.frame)
            // What fuzzers find, they find in headers.
            .filter(|frame| frame.len() <= 256)
            .map(|frame| hex(&frame) + "\n")
            .collect();
        let text: String = frames.into_iter().collect();
        let file = folder.join(format!("{subject}.hex"));
        if std::env::var_os("WEIR_UPDATE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, text).unwrap();
        } else {
            let committed = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                committed == text,
                "{subject}: the corpus is not that of the cases: run this test with WEIR_UPDATE_CORPUS=1"
            );
        }
    }
}
