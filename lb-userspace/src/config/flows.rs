//! Reads how a VIP's flows outlive changes: `move_window`, `flow_idle`, `drain_timeout` and `slow_start`.

use std::time::Duration;

use super::{
    Flows, Protocol,
    duration::{self, Range},
    section::Section,
    source::Report,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// The keys, or what is usual for the protocol.
pub(super) fn read(
    section: &Section<'_>,
    protocol: Option<Protocol>,
    report: &mut Report<'_>,
) -> Option<Flows> {
    let usual = Flows::usual(protocol.unwrap_or(Protocol::Tcp));
    let move_window = match section.field("move_window") {
        Some(field) => {
            let range = Range {
                least: SECOND,
                most: WEEK,
                example: "15min",
            };
            duration::read(&field, &range, report)
        }
        None => Some(usual.move_window),
    };
    let flow_idle = match section.field("flow_idle") {
        Some(field) => {
            let range = Range {
                least: 10 * SECOND,
                most: WEEK,
                example: "2h 15min",
            };
            duration::read(&field, &range, report)
        }
        None => Some(usual.flow_idle),
    };
    let drain_timeout = match section.field("drain_timeout") {
        Some(field) if field.text() == Some("off") => Some(None),
        Some(field) => {
            let range = Range {
                least: SECOND,
                most: WEEK,
                example: "5min",
            };
            duration::read(&field, &range, report).map(Some)
        }
        None => Some(usual.drain_timeout),
    };
    let slow_start = match section.field("slow_start") {
        Some(field) => {
            let range = Range {
                least: SECOND,
                most: HOUR,
                example: "30s",
            };
            duration::read(&field, &range, report).map(Some)
        }
        None => Some(None),
    };
    Some(Flows {
        move_window: move_window?,
        flow_idle: flow_idle?,
        drain_timeout: drain_timeout?,
        slow_start: slow_start?,
    })
}

impl Flows {
    /// What is usual for a protocol.
    #[must_use]
    pub const fn usual(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self {
                move_window: Duration::from_secs(15 * 60),
                // Past TCP's keep-alive of two hours.
                flow_idle: Duration::from_secs(135 * 60),
                drain_timeout: None,
                slow_start: None,
            },
            Protocol::Udp => Self {
                move_window: MINUTE,
                flow_idle: Duration::from_secs(3 * 60),
                drain_timeout: Some(Duration::from_secs(5 * 60)),
                slow_start: None,
            },
        }
    }
}
