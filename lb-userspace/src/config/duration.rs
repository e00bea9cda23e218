//! Lengths of time, as `"500ms"`, `"2s"`, `"15min"` or `"2h 15min"`.

use std::time::Duration;

use super::{section::Field, source::Report};

/// What a key takes, and an example of it.
pub(super) struct Range {
    /// The shortest.
    pub(super) least: Duration,
    /// The longest.
    pub(super) most: Duration,
    /// A value that is right, as one writes it.
    pub(super) example: &'static str,
}

/// Reads a length of time within a range.
pub(super) fn read(field: &Field<'_>, range: &Range, report: &mut Report<'_>) -> Option<Duration> {
    let Range {
        least,
        most,
        example,
    } = *range;
    let wanted = format!("a time from {} to {}", text(least), text(most));
    let help = format!(
        "write `{} = \"{example}\"`: a string of numbers with units, as \"500ms\", \"2s\", \"15min\" or \"2h 15min\"",
        field.key
    );
    field.parse(&wanted, &help, report, |text| {
        let time = humantime::parse_duration(text).ok()?;
        (least..=most).contains(&time).then_some(time)
    })
}

/// A length of time as it could be written in the file.
pub(super) fn text(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{keys::Keys, section::Section};
    use toml::de::DeTable;

    const KEYS: Keys = Keys {
        known: &["interval"],
        later: &[],
    };

    fn read_text(value: &str) -> Result<Duration, String> {
        let text = format!("interval = {value}");
        let document = DeTable::parse(&text).unwrap();
        let mut report = Report::new("f", &text);
        let section = Section::new(String::new(), 0, document.get_ref(), &KEYS, &mut report);
        let range = Range {
            least: Duration::from_millis(100),
            most: Duration::from_hours(3),
            example: "2s",
        };
        let time = read(&section.field("interval").unwrap(), &range, &mut report);
        report.finish(time).map_err(|errors| errors.to_string())
    }

    #[test]
    fn reads_numbers_with_units() {
        for (text, milliseconds) in [
            ("100ms", 100),
            ("2s", 2000),
            ("1.5s", 1500),
            ("15min", 900_000),
            ("15m", 900_000),
            ("2h 15min", 8_100_000),
            ("2h15min", 8_100_000),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(read_text(&format!("{text:?}")), Ok(time), "{text}");
        }
    }

    #[test]
    fn refuses_all_else_with_an_example() {
        for value in [
            "2",
            "2.0",
            "\"\"",
            "\"2\"",
            "\"-2s\"",
            "\"2 parsecs\"",
            "\"99ms\"",
            "\"3h 1ms\"",
            "\"99999999999999999999y\"",
        ] {
            let said = read_text(value).unwrap_err();
            assert!(said.contains("a time from 100ms to 3h"), "{said}");
            assert!(said.contains("write `interval = \"2s\"`"), "{said}");
        }
    }
}
