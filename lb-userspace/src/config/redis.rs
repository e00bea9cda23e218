//! Reads `[redis]`.

use std::{path::Path, time::Duration};

use super::{
    Endpoint, Redis, Secret, duration, keys,
    load::Scope,
    node,
    section::{Field, Section},
    source::Report,
};

const PERIOD: duration::Range = duration::Range {
    least: Duration::from_millis(50),
    most: Duration::from_secs(10),
    example: "100ms",
};

const DEFAULT_PERIOD: Duration = Duration::from_millis(100);

/// What an answer may take unless the file says otherwise; half the period where that is shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);

const LEAST_TIMEOUT: Duration = Duration::from_millis(5);

const HELP: &str = "write `url = \"redis://127.0.0.1:6379\"`, `\"rediss://user:password@host\"` for TLS or `\"redis+sentinel://host1,host2/master\"`; in `url_file`, the same in a file";

/// A file that is right in this, with or without the section.
pub(super) struct Place(pub(super) Option<Redis>);

/// The section, if there is one.
pub(super) fn read(
    top: &Section<'_>,
    directory: &Path,
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<Place> {
    const WANTED: &str = "a section `[redis]`";
    let Some(field) = top.field("redis") else {
        return Some(Place(None));
    };
    let help = "write `[redis]` on a line of its own, and its keys below";
    let section = field.section(WANTED, help, &keys::REDIS, report)?;
    let url = url(&section, directory, scope, report);
    let fleet = fleet(&section, report);
    let period = match section.field("period") {
        Some(field) => duration::read(&field, &PERIOD, report),
        None => Some(DEFAULT_PERIOD),
    };
    let timeout = timeout(&section, period, report);
    let (url, endpoint) = url?;
    Some(Place(Some(Redis {
        url,
        endpoint,
        fleet: fleet?,
        period: period?,
        timeout: timeout?,
    })))
}

fn url(
    section: &Section<'_>,
    directory: &Path,
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<(Secret, Endpoint)> {
    match (section.field("url"), section.field("url_file")) {
        (Some(_), Some(file)) => {
            report.add(
                file.offset,
                &file.path,
                "both `url` and `url_file`",
                "exactly one of them",
                "take `url` out, so that a password in it stays out of this file",
            );
            None
        }
        (None, None) => {
            section.required("url", Endpoint::WANTED, HELP, report);
            None
        }
        (Some(url), None) => {
            let Some(text) = url.text() else {
                url.refuse_unshown(Endpoint::WANTED, HELP, report);
                return None;
            };
            endpoint(text, "", &url, report)
        }
        (None, Some(file)) => url_file(&file, directory, scope, report),
    }
}

/// The URL in a file whose path is relative to the configuration's directory.
fn url_file(
    field: &Field<'_>,
    directory: &Path,
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<(Secret, Endpoint)> {
    const WANTED: &str = "a readable file that holds the URL of Redis";
    const HELP: &str = "write the URL into it, on a line of its own, readable by root alone";
    let path = field.parse(WANTED, HELP, report, |text| {
        (!text.is_empty()).then(|| directory.join(text))
    })?;
    let shown = path.display().to_string();
    if scope == Scope::Offline {
        return endpoint("redis://localhost", &shown, field, report);
    }
    let found = match node::read_text(&path) {
        Ok(text) if !text.trim().is_empty() => {
            return endpoint(text.trim(), &shown, field, report);
        }
        Ok(_) => format!("{shown:?}, which is empty"),
        Err(error) => format!("{shown:?} ({error})"),
    };
    report.add(field.offset, &field.path, found, WANTED, HELP);
    None
}

/// Reads a URL, from a file if one is named. What is wrong with it is told without it.
fn endpoint(
    text: &str,
    file: &str,
    field: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<(Secret, Endpoint)> {
    match Endpoint::parse(text) {
        Ok(endpoint) => Some((Secret::new(text.to_owned()), endpoint)),
        Err(wrong) => {
            let found = if file.is_empty() {
                format!("a URL with {wrong}")
            } else {
                format!("{file:?}, which holds a URL with {wrong}")
            };
            report.add(field.offset, &field.path, found, Endpoint::WANTED, HELP);
            None
        }
    }
}

fn fleet(section: &Section<'_>, report: &mut Report<'_>) -> Option<String> {
    const WANTED: &str =
        "a name of 1 to 63 letters, digits, `.`, `_` and `-`, the same on every node of the fleet";
    const HELP: &str = "write `fleet = \"edge\"`; fleets of different names can share a Redis without sharing limits";
    let field = section.required("fleet", WANTED, HELP, report)?;
    field.parse(WANTED, HELP, report, |text| {
        let is_plain = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        (is_plain && (1..=63).contains(&text.len())).then(|| text.to_owned())
    })
}

/// At most the period.
fn timeout(
    section: &Section<'_>,
    period: Option<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let Some(field) = section.field("timeout") else {
        return period.map(|period| DEFAULT_TIMEOUT.min(period / 2));
    };
    let range = duration::Range {
        least: LEAST_TIMEOUT,
        most: period.unwrap_or(PERIOD.most),
        example: "50ms",
    };
    duration::read(&field, &range, report)
}
