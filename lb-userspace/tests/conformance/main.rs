//! The conformance suite: packets in, verdict, reason and packets out, byte for byte.
//!
//! Every case runs through lb-common's pipeline on the host and, by `BPF_PROG_TEST_RUN`, through the real program;
//! both must do what the case says. Expected bytes are built by etherparse, which shares no code with lb-common;
//! only the flow hash is taken from there, to know a flow's backend, GUE port and flow label.
//!
//! One file per subject, each with a function `cases`. `WEIR_HOST_ONLY=1` leaves the real program out: no root is
//! needed then.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test, and its findings are for who runs it"
)]

mod case;
mod corpus;
mod differential;
mod frame;
mod fuzz;
mod ip;
mod pins;
mod planes;
mod properties;
mod world;

use std::collections::BTreeSet;

use crate::{case::Case, planes::World};

macro_rules! subjects {
    ($($subject:ident),+ $(,)?) => {
        $(mod $subject;)+

        /// Every subject by its name.
        fn subjects() -> Vec<(&'static str, Vec<Case>)> {
            vec![$((stringify!($subject), $subject::cases())),+]
        }

        /// One test per subject.
        mod conforms {
            $(#[test]
            fn $subject() {
                super::check(&super::$subject::cases());
            })+
        }
    };
}

subjects!(
    plain,
    encapsulation,
    too_big,
    options,
    extensions,
    fragments,
    vlan,
    icmp_echo,
    icmp_errors,
    neighbours,
    traceroute,
    not_for_us,
    malformed,
    limits,
    peers,
    changes,
    access,
);

fn check(cases: &[Case]) {
    let mut world = World::new();
    for case in cases {
        case.check(&mut world);
    }
}

/// The program that observes does with every packet what the normal one does, and tells of it byte for byte.
#[test]
fn the_program_that_observes_conforms_too() {
    let mut world = World::observed();
    for case in all() {
        case.check(&mut world);
    }
}

/// All cases.
fn all() -> Vec<Case> {
    subjects()
        .into_iter()
        .flat_map(|(_, cases)| cases)
        .collect()
}

#[test]
fn there_are_at_least_150_cases_and_each_has_its_own_name() {
    let mut count = 0;
    let mut names = BTreeSet::new();
    for (subject, cases) in subjects() {
        println!("{:5} {subject}", cases.len());
        count += cases.len();
        for case in cases {
            assert!(
                names.insert((subject, case.name.clone())),
                "{subject}: two cases are named {:?}",
                case.name
            );
        }
    }
    println!("{count:5} conformance cases in all");
    assert!(count >= 150, "only {count} cases");
}
