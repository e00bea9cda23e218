//! Values as people read them.

/// A value in a unit of Grafana's, in few digits.
pub(super) fn show(unit: &str, value: f64) -> String {
    match unit {
        "pps" => scaled(value, "p/s"),
        "bps" => scaled(value, "b/s"),
        "cps" => scaled(value, "/s"),
        "percentunit" => format!("{} %", digits(value * 100.0)),
        "bytes" => binary(value),
        "s" => seconds(value),
        _ => scaled(value, ""),
    }
}

fn scaled(value: f64, unit: &str) -> String {
    let (scale, prefix) = match value.abs() {
        size if size >= 1e9 => (1e9, "G"),
        size if size >= 1e6 => (1e6, "M"),
        size if size >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let text = digits(value / scale);
    match (prefix, unit) {
        ("", "" | "/s") => text + unit,
        _ => format!("{text} {prefix}{unit}"),
    }
}

fn binary(value: f64) -> String {
    let (scale, unit) = match value.abs() {
        size if size >= 1024.0 * 1024.0 * 1024.0 => (1024.0 * 1024.0 * 1024.0, "GiB"),
        size if size >= 1024.0 * 1024.0 => (1024.0 * 1024.0, "MiB"),
        size if size >= 1024.0 => (1024.0, "KiB"),
        _ => (1.0, "B"),
    };
    format!("{} {unit}", digits(value / scale))
}

fn seconds(value: f64) -> String {
    let (scale, unit) = match value.abs() {
        0.0 => (1.0, "s"),
        size if size >= 3600.0 => (3600.0, "h"),
        size if size >= 120.0 => (60.0, "min"),
        size if size >= 1.0 => (1.0, "s"),
        size if size >= 1e-3 => (1e-3, "ms"),
        size if size >= 1e-6 => (1e-6, "µs"),
        _ => (1e-9, "ns"),
    };
    format!("{} {unit}", digits(value / scale))
}

/// Three digits at most, and no zeros at the end of a fraction.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    if text == "-0" { "0" } else { text }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        for (unit, value, text) in [
            ("pps", 1234.5, "1.23 kp/s"),
            ("pps", 0.0, "0 p/s"),
            ("bps", 2_500_000.0, "2.5 Mb/s"),
            ("bps", 12.0, "12 b/s"),
            ("cps", 400.0, "400/s"),
            ("cps", 2400.0, "2.4 k/s"),
            ("percentunit", 0.255, "25.5 %"),
            ("percentunit", -0.0, "0 %"),
            ("bytes", 31.0 * 1024.0 * 1024.0, "31 MiB"),
            ("s", 0.000_000_312, "312 ns"),
            ("s", 0.0025, "2.5 ms"),
            ("s", 90.0, "90 s"),
            ("short", 65536.0, "65.5 k"),
            ("short", 3.0, "3"),
        ] {
            assert_eq!(show(unit, value), text);
        }
    }
}
