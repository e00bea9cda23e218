//! Whatever is written into the file: no panic, and never the seed's value.

use lb_userspace::config::Config;
use proptest::prelude::*;

const GOOD: &str = include_str!("configs/good/design.toml");
const SECRET: &str = "fleet-secret";

/// The good file with one stretch of it replaced.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(String::new()),
        "[\\[\\]\"'=.,{}#\n0-9a-z -]{1,6}",
        any::<char>().prop_map(String::from),
        Just("[[vip]]\n".to_owned()),
        Just("\"\"\"".to_owned()),
    ];
    (any::<prop::sample::Index>(), 0..12_usize, piece).prop_map(|(at, length, piece)| {
        let chars: Vec<char> = GOOD.chars().collect();
        let at = at.index(chars.len());
        let (before, rest) = chars.split_at(at);
        let after = rest.get(length.min(rest.len())..).unwrap_or_default();
        let (before, after): (String, String) = (before.iter().collect(), after.iter().collect());
        before + &piece + &after
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_panics_and_never_shows_the_seed(text in mutated()) {
        let shown = match Config::parse(&text, "weir.toml") {
            Ok(config) => format!("{config:?}"),
            Err(errors) => {
                prop_assert!(!errors.findings().is_empty());
                format!("{errors}\n{errors:?}")
            }
        };
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }

    #[test]
    fn never_panics_on_anything(text in any::<String>()) {
        prop_assert!(Config::parse(&text, "weir.toml").is_err());
    }
}
