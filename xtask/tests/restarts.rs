//! The short form of `cargo xtask restarts`.
#![forbid(unsafe_code)]

use xtask::restarts::{Options, through};

#[test]
fn kills_reloads_and_an_upgrade_under_traffic_lose_nothing() {
    let options = Options {
        away: 2,
        reloads: 20,
        upgrade_to: None,
        built: true,
    };
    let report = through(&options).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(report.complaints(), Vec::<String>::new(), "{report}");
    assert!(
        report.traffic.requests > 500 && report.traffic.datagrams > 100,
        "{report}"
    );
}
