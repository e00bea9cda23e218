//! Connections survive every change: the soak of `cargo xtask soak`, shortened.
#![forbid(unsafe_code)]

use xtask::soak::{self, Options};

#[test]
fn no_connection_breaks_while_everything_changes() {
    assert_nothing_breaks(1);
}

#[test]
fn flows_go_from_node_to_node_while_no_slot_moves() {
    assert_nothing_breaks(2);
}

fn assert_nothing_breaks(nodes: u8) {
    let options = Options {
        connections: 200,
        changes: 12,
        nodes,
        seed: None,
        built: true,
    };
    let findings = soak::soak(&options).unwrap_or_else(|error| panic!("{error:#}"));
    let complaints = findings.complaints();
    assert!(
        complaints.is_empty(),
        "{findings}\n{}",
        complaints.join("\n")
    );
}
