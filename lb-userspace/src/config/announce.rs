//! Reads `[announce]`: how routes for VIPs are published to the host's routing daemon.

use std::{path::Path, time::Duration};

use super::{
    Announcing, Config,
    duration::{self, Range},
    error::Errors,
    keys,
    load::document,
    section::{Field, Section},
    source::Report,
};

/// The kernel's own tables: `default`, `main` and `local`. Routes there would lead packets.
const KERNELS_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

/// Protocol numbers that the kernel and other programs have (rtnetlink(7), iproute2's `rt_protos`, FRR): each takes the
/// routes of its own number for its own, and removes those that it does not know.
const TAKEN_PROTOCOLS: &[u8] = &[
    0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 42, 99, 186, 187, 188, 189, 192, 193,
    194, 195, 196, 197, 198,
];

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

impl Default for Announcing {
    fn default() -> Self {
        Self {
            table: 4077,
            protocol: 201,
            hold_down: Duration::from_secs(10),
            dead_daemon_hold: Some(10 * MINUTE),
            withdraw_delay: None,
        }
    }
}

/// The section, or its defaults.
pub(super) fn read(top: &Section<'_>, report: &mut Report<'_>) -> Option<Announcing> {
    const WANTED: &str = "a section `[announce]`";
    const HELP: &str = "write `[announce]` on a line of its own, and its keys below";
    let usual = Announcing::default();
    let Some(field) = top.field("announce") else {
        return Some(usual);
    };
    let section = field.section(WANTED, HELP, &keys::ANNOUNCE, report)?;
    let table = section
        .field("table")
        .map_or(Some(usual.table), |field| table(&field, report));
    let protocol = section
        .field("protocol")
        .map_or(Some(usual.protocol), |field| protocol(&field, report));
    let hold_down = section
        .field("hold_down")
        .map_or(Some(usual.hold_down), |field| {
            let range = Range {
                least: Duration::ZERO,
                most: 60 * MINUTE,
                example: "10s",
            };
            duration::read(&field, &range, report)
        });
    let or_off = |key, usual: Option<Duration>, range: Range, report: &mut Report<'_>| {
        section.field(key).map_or(Some(usual), |field| {
            duration::read_or_off(&field, &range, report).map(Into::into)
        })
    };
    let dead_daemon_hold = or_off(
        "dead_daemon_hold",
        usual.dead_daemon_hold,
        Range {
            least: Duration::ZERO,
            most: DAY,
            example: "10min",
        },
        report,
    );
    let withdraw_delay = or_off(
        "withdraw_delay",
        usual.withdraw_delay,
        Range {
            least: Duration::ZERO,
            most: 10 * MINUTE,
            example: "15s",
        },
        report,
    );
    Some(Announcing {
        table: table?,
        protocol: protocol?,
        hold_down: hold_down?,
        dead_daemon_hold: dead_daemon_hold?,
        withdraw_delay: withdraw_delay?,
    })
}

fn table(field: &Field<'_>, report: &mut Report<'_>) -> Option<u32> {
    const WANTED: &str =
        "the number of a routing table that nothing else uses, and not 253, 254 or 255";
    const HELP: &str = "write `table = 4077`, and the same number in the routing daemon's file; FRR takes no number above 252";
    let number = field.number(WANTED, HELP, report)?;
    if number == 0 || KERNELS_TABLES.contains(&number) {
        field.refuse(WANTED, HELP, report);
        return None;
    }
    Some(number)
}

fn protocol(field: &Field<'_>, report: &mut Report<'_>) -> Option<u8> {
    const WANTED: &str = "a routing protocol's number from 5 to 255 that no other program has";
    const HELP: &str = "write `protocol = 201`; /etc/iproute2/rt_protos lists those that are taken";
    let number = field.number(WANTED, HELP, report)?;
    if TAKEN_PROTOCOLS.contains(&number) {
        field.refuse(WANTED, HELP, report);
        return None;
    }
    Some(number)
}

/// Refuses `next` where its routes would be elsewhere than a running daemon's: those would stay behind.
pub(super) fn allows(running: &Config, next: &Config, text: &str, report: &mut Report<'_>) {
    const HELP: &str = "restart the daemon after `weir drain-node`; or write the old value back";
    for (key, running, found) in [
        ("table", running.announce.table, next.announce.table),
        (
            "protocol",
            running.announce.protocol.into(),
            next.announce.protocol.into(),
        ),
    ] {
        if running != found {
            let wanted = format!("{running}, which cannot change while the daemon runs");
            report.add(
                place(text, key),
                format!("announce.{key}"),
                found.to_string(),
                wanted,
                HELP,
            );
        }
    }
}

/// Where a key of the section stands; else where the section begins, or the file.
fn place(text: &str, key: &str) -> usize {
    let Ok((document, _)) = document(text, "") else {
        return 0;
    };
    let Some(section) = document.get("announce") else {
        return 0;
    };
    let value = section
        .get_ref()
        .as_table()
        .and_then(|table| table.get(key));
    value.map_or(section.span().start, |value| value.span().start)
}

impl Announcing {
    /// What a file says of where routes are, whatever else is in it; the defaults where it says nothing that can be used.
    ///
    /// # Errors
    /// The file cannot be read, or is not TOML.
    pub fn of_file(path: &Path) -> Result<Self, Errors> {
        let text = std::fs::read_to_string(path).map_err(|source| Errors::Read {
            path: path.to_owned(),
            source,
        })?;
        let file = path.display().to_string();
        let (document, _) = document(&text, &file)?;
        let mut unheeded = Report::new(&file, &text);
        let top = Section::new(String::new(), 0, &document, &keys::FILE, &mut unheeded);
        Ok(read(&top, &mut unheeded).unwrap_or_default())
    }
}
