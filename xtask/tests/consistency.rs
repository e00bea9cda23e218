//! Connections survive every change: the soak of `cargo xtask soak`, shortened.
#![forbid(unsafe_code)]

use xtask::soak::{self, BreakRule, Options};

#[test]
fn no_connection_breaks_while_everything_changes() {
    assert_nothing_breaks(1);
}

#[test]
fn flows_go_from_node_to_node_while_no_slot_moves() {
    assert_nothing_breaks(2);
}

/// The soak can fail: where a rule is broken on purpose it finds connections that break, and says so.
#[test]
fn a_rule_broken_on_purpose_breaks_connections() {
    let options = Options {
        changes: 3,
        break_rule: Some(BreakRule::ForgetPins),
        ..shortened()
    };
    let findings = soak::soak(&options).unwrap_or_else(|error| panic!("{error:#}"));
    let complaints = findings.complaints();
    let tells = |words| complaints.iter().any(|complaint| complaint.contains(words));
    assert!(
        tells(" connections broke, such as "),
        "{findings}\n{complaints:#?}"
    );
    assert!(!tells("sees nothing"), "{findings}\n{complaints:#?}");
}

fn shortened() -> Options {
    Options {
        connections: 200,
        changes: 12,
        minutes: None,
        nodes: 1,
        seed: None,
        break_rule: None,
        built: true,
    }
}

fn assert_nothing_breaks(nodes: u8) {
    let options = Options {
        nodes,
        ..shortened()
    };
    let findings = soak::soak(&options).unwrap_or_else(|error| panic!("{error:#}"));
    let complaints = findings.complaints();
    assert!(
        complaints.is_empty(),
        "{findings}\n{}",
        complaints.join("\n")
    );
}
