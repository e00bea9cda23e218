//! The short form of `cargo xtask limits`.
#![forbid(unsafe_code)]

use std::time::Duration;

use xtask::{
    limits::{fleet, flood, sources},
    workspace::weir_binary,
};

#[test]
fn a_source_gets_its_limit_and_those_within_theirs_lose_nothing() {
    let rows = sources(&weir_binary().unwrap(), Duration::from_secs(2))
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row.crowd_forwarded, row.crowd, "{row:?}");
        assert!(row.forwarded <= row.most(), "{row:?}");
        // What lies between sending and judging is not known: a burst is what it may cost.
        assert!(row.forwarded + 50 >= row.expected, "{row:?}");
        // The source really sent more than it may.
        assert!(row.offered > 2 * row.expected, "{row:?}");
    }
}

#[test]
fn a_flood_from_many_sources_breaks_no_connection_and_pins_nothing() {
    let flood = flood(&weir_binary().unwrap(), 50, Duration::from_secs(2))
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(flood.broken.is_empty(), "{flood}: {:?}", flood.broken);
    assert!(flood.lines >= 50, "{flood}");
    assert!(flood.sent > 10_000 && flood.limited > 0, "{flood}");
    assert!(flood.limited <= flood.sent, "{flood}");
    assert_eq!(flood.pins, 0, "{flood}");
}

#[test]
fn a_fleet_keeps_one_limit_also_without_its_redis() {
    let seen = fleet(
        &weir_binary().unwrap(),
        2,
        Duration::from_secs(2),
        Duration::from_secs(3),
    )
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(seen.situations.len(), 8, "{seen}");
    for situation in &seen.situations {
        // Leases never sum above the limit; the burst may come on top of it once.
        assert!(situation.part() <= 1.1 + 0.05, "{situation}: {seen}");
        assert!(situation.part() >= 0.5, "{situation}: {seen}");
    }
    assert_eq!(seen.http.failed, 0, "{seen}: {:?}", seen.http.errors);
    assert!(seen.http.requests > 100, "{seen}");
    let is_told = |problem: &String| problem.contains("+evalsha +eval +get +set +time ~weir:*");
    assert!(seen.refused.iter().any(is_told), "{seen}");
}
