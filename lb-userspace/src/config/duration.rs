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
    let (wanted, help) = (range.wanted(), range.help(field));
    field.parse(&wanted, &help, report, |text| range.parse(text))
}

/// A length of time, or none at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Timeout {
    Off,
    After(Duration),
}

impl From<Timeout> for Option<Duration> {
    fn from(timeout: Timeout) -> Self {
        match timeout {
            Timeout::Off => None,
            Timeout::After(time) => Some(time),
        }
    }
}

/// Reads a length of time within a range, or `"off"`.
pub(super) fn read_or_off(
    field: &Field<'_>,
    range: &Range,
    report: &mut Report<'_>,
) -> Option<Timeout> {
    let wanted = format!("{}, or \"off\"", range.wanted());
    let help = format!("{}; or `{} = \"off\"`", range.help(field), field.key);
    field.parse(&wanted, &help, report, |text| match text {
        "off" => Some(Timeout::Off),
        text => range.parse(text).map(Timeout::After),
    })
}

impl Range {
    fn wanted(&self) -> String {
        format!("a time from {} to {}", text(self.least), text(self.most))
    }

    fn help(&self, field: &Field<'_>) -> String {
        format!(
            "write `{} = \"{}\"`: a string of numbers with units, as \"500ms\", \"2s\", \"15min\" or \"2h 15min\"",
            field.key, self.example
        )
    }

    fn parse(&self, text: &str) -> Option<Duration> {
        let time = humantime::parse_duration(text).ok()?;
        (self.least..=self.most).contains(&time).then_some(time)
    }
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
        read_by(value, read)
    }

    fn read_by<T>(
        value: &str,
        read: impl Fn(&Field<'_>, &Range, &mut Report<'_>) -> Option<T>,
    ) -> Result<T, String> {
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

    #[test]
    fn off_is_offered_where_it_is_taken() {
        assert_eq!(read_by("\"off\"", read_or_off), Ok(Timeout::Off));
        let time = Duration::from_secs(2);
        assert_eq!(read_by("\"2s\"", read_or_off), Ok(Timeout::After(time)));
        for value in ["\"of\"", "\"1ms\"", "0"] {
            let said = read_by(value, read_or_off).unwrap_err();
            assert!(said.contains("from 100ms to 3h, or \"off\""), "{said}");
            assert!(said.contains("or `interval = \"off\"`"), "{said}");
        }
        assert!(read_text("\"off\"").is_err());
    }
}
