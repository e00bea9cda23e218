//! `weir limits`

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use comfy_table::Cell;

use super::{Outcome, change::converse, output, status::Form, table};
use crate::{
    api::{DEFAULT_SECONDS, DEFAULT_TOP, LimitFilter, Limits, Sources, VipLimits, client::Client},
    config::DEFAULT_API_SOCKET,
};

const EXAMPLES: &str = "\
Examples:
  weir limits                              every limit, and how near its VIP and sources come to it
  weir limits --vip web --top 50           the 50 busiest sources of one VIP
  weir limits --seconds 10 -o json | jq '.vips[] | {vip, limits}'
  weir limits suggest --seconds 60         limits that what is seen now would stay within

Exit codes: 0 done; 1 failed, or there is no such VIP; 2 usage";

const SUGGEST_EXAMPLES: &str = "\
Examples:
  weir limits suggest                      measure for 10 s
  weir limits suggest --vip web --seconds 300

Sources are told apart only where a limit does so. One that only counts is enough:

  [vip.limit]
  packets_per_source = \"1M/s\"
  action = \"observe\"

Exit codes: 0 done; 1 failed, or there is no such VIP; 2 usage";

/// How long is measured for a suggestion, in seconds.
const SUGGEST_SECONDS: u64 = 10;

/// Show rate limits, what became of packets at them, and the busiest sources
///
/// What comes is measured while the command runs (docs/limits.md).
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    what: What,
    /// List so many sources of a VIP
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TOP)]
    top: usize,
    /// Measure for so many seconds, 300 at most
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_SECONDS)]
    seconds: u64,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Suggest(Suggest),
}

/// Suggest limits that what is seen now would stay within
///
/// A limit of sources is twice what 99.9 % of the active sources stay below, one in total twice what came.
#[derive(Debug, clap::Args)]
#[command(after_long_help = SUGGEST_EXAMPLES)]
struct Suggest {
    #[command(flatten)]
    what: What,
    /// Measure for so many seconds, 300 at most
    #[arg(long, value_name = "SECONDS", default_value_t = SUGGEST_SECONDS)]
    seconds: u64,
}

#[derive(Debug, clap::Args)]
struct What {
    /// Only this VIP
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    if let Some(Verb::Suggest(args)) = &args.verb {
        let limits = measure(&args.what, args.seconds, 0)?;
        let suggested = suggestions(&limits);
        output::listing(args.what.output, &suggested, || suggestion_text(&suggested))?;
        return Ok(Outcome::Done);
    }
    let limits = measure(&args.what, args.seconds, args.top)?;
    output::listing(args.what.output, &limits, || text(&limits))?;
    Ok(Outcome::Done)
}

fn measure(what: &What, seconds: u64, top: usize) -> anyhow::Result<Limits> {
    let filter = LimitFilter {
        vip: what.vip.clone(),
        top: Some(top),
        seconds: Some(seconds),
    };
    if filter.time() > Duration::from_secs(2) {
        output::message(format_args!(
            "measuring for {} s ...",
            filter.time().as_secs()
        ));
    }
    Ok(converse(Client::new(&what.socket).limits(&filter))??)
}

fn text(limits: &Limits) -> String {
    let limited: Vec<_> = limits
        .vips
        .iter()
        .filter(|vip| !vip.limits.is_empty())
        .collect();
    if limited.is_empty() {
        return "no VIP has a limit ([vip.limit] in the configuration)\n".to_owned();
    }
    let mut table = table::table(
        &["VIP", "LIMIT", "RATE", "BURST", "USED", "PASS/S", "OVER/S"],
        2,
    );
    for vip in &limited {
        for limit in &vip.limits {
            let is_dropped = limit.status.action == "drop";
            let note = if is_dropped { "" } else { " (observed)" };
            table.add_row([
                Cell::new(&vip.vip),
                Cell::new(format!("{}{note}", limit.status.limit)),
                table::number(limit_rate(&limit.status.limit, limit.status.per_second)),
                table::number(table::count(limit.status.burst)),
                table::number(format!("{:.0}%", limit.used * 100.0)),
                table::number(si(limit.allowed_per_second)),
                table::number(si(limit.over_per_second)),
            ]);
        }
    }
    let mut text = format!("{}\n", table.trim_fmt());
    for vip in limited {
        if let Some(sources) = &vip.sources {
            sources_text(&mut text, vip, sources);
        }
    }
    text
}

fn sources_text(text: &mut String, vip: &VipLimits, sources: &Sources) {
    // Writing to a string cannot fail.
    writeln!(
        text,
        "\n{}: {} active sources; packets/s: median {}, 99% below {}, most {}",
        vip.vip,
        sources.active,
        si(sources.packets.p50),
        si(sources.packets.p99),
        si(sources.packets.max)
    )
    .ok();
    if sources.top.is_empty() {
        return;
    }
    let mut table = table::table(&["SOURCE", "PACKETS/S", "NEW/S", "OVER/S"], 1);
    for source in &sources.top {
        table.add_row([
            Cell::new(&source.source),
            table::number(si(source.packets_per_second)),
            table::number(si(source.new_connections_per_second)),
            table::number(si(source.over_per_second)),
        ]);
    }
    writeln!(text, "{}", table.trim_fmt()).ok();
}

/// A limit's rate as one writes it in the configuration.
pub(super) fn limit_rate(limit: &str, per_second: f64) -> String {
    if limit == "bytes" {
        format!("{}bit/s", si(per_second * 8.0))
    } else if per_second < 1.0 {
        format!("{}/min", si(per_second * 60.0))
    } else {
        format!("{}/s", si(per_second))
    }
}

/// A number with three digits and a unit: `950`, `1.25k`, `2M`.
pub(super) fn si(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 999_500_000_000.0 => (v / 1e12, "T"),
        v if v >= 999_500_000.0 => (v / 1e9, "G"),
        v if v >= 999_500.0 => (v / 1e6, "M"),
        v if v >= 999.5 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = match scaled {
        s if s >= 99.95 || s == 0.0 => 0,
        s if s >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// A limit that what was seen stays within.
#[derive(Debug, PartialEq, serde::Serialize)]
struct Suggestion {
    vip: String,
    limit: &'static str,
    /// What was seen, a second: in total, or of the source that 99.9 % do not exceed.
    seen_per_second: f64,
    /// The most that one source sent, a second; none for limits in total.
    busiest_per_second: Option<f64>,
    /// The limit as one writes it.
    rate: String,
}

fn suggestions(limits: &Limits) -> Vec<Suggestion> {
    let of_vip = |vip: &VipLimits| {
        let total = |limit, seen: f64, scale: f64, unit: &str| {
            (seen > 0.0).then(|| Suggestion {
                vip: vip.vip.clone(),
                limit,
                seen_per_second: seen,
                busiest_per_second: None,
                rate: format!("{}{unit}/s", round_up(2.0 * seen * scale)),
            })
        };
        let per_source = |limit, seen: f64, max: f64| {
            (seen > 0.0).then(|| Suggestion {
                vip: vip.vip.clone(),
                limit,
                seen_per_second: seen,
                busiest_per_second: Some(max),
                rate: format!("{}/s", round_up(2.0 * seen)),
            })
        };
        let sources = vip.sources.clone().unwrap_or_default();
        [
            total("packets", vip.packets_per_second, 1.0, ""),
            total("bytes", vip.bytes_per_second, 8.0, "bit"),
            total("new_connections", vip.new_connections_per_second, 1.0, ""),
            per_source(
                "packets_per_source",
                sources.packets.p999,
                sources.packets.max,
            ),
            per_source(
                "new_connections_per_source",
                sources.new_connections.p999,
                sources.new_connections.max,
            ),
        ]
    };
    limits.vips.iter().flat_map(of_vip).flatten().collect()
}

/// Two digits, rounded up, as the configuration takes it: `54`, `1200`, `35k`, `2M`.
fn round_up(value: f64) -> String {
    let value = value.max(1.0).ceil();
    let step = 10_f64.powf((value.log10().floor() - 1.0).max(0.0));
    let rounded = (value / step).ceil() * step;
    match rounded {
        v if v >= 1e10 => format!("{:.0}G", v / 1e9),
        v if v >= 1e7 => format!("{:.0}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

fn suggestion_text(suggested: &[Suggestion]) -> String {
    if suggested.is_empty() {
        return "nothing came: there is nothing to suggest limits from\n".to_owned();
    }
    let mut table = table::table(&["VIP", "LIMIT", "SEEN/S", "BUSIEST/S", "SUGGESTED"], 2);
    for one in suggested {
        table.add_row([
            Cell::new(&one.vip),
            Cell::new(one.limit),
            table::number(si(one.seen_per_second)),
            table::number(one.busiest_per_second.map_or_else(String::new, si)),
            table::number(one.rate.clone()),
        ]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    if !suggested.iter().any(|one| one.busiest_per_second.is_some()) {
        text.push_str("sources are not told apart: see `weir limits suggest --help`\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LimitStatus, LimitUse, SourceStatus, Spread};

    fn limits() -> Limits {
        let limit = |name: &str, per_second, action: &str, used| LimitUse {
            status: LimitStatus {
                limit: name.to_owned(),
                per_second,
                burst: 50,
                action: action.to_owned(),
                allowed: 1,
                dropped: 2,
                observed: 3,
            },
            allowed_per_second: 1234.0,
            over_per_second: 0.0,
            used,
        };
        Limits {
            seconds: 1.0,
            vips: vec![VipLimits {
                vip: "web".to_owned(),
                packets_per_second: 51_234.0,
                bytes_per_second: 6e6,
                new_connections_per_second: 0.0,
                limits: vec![
                    limit("bytes", 1.25e9, "drop", 0.048),
                    limit("packets_per_source", 500.0, "observe", 2.4),
                ],
                sources: Some(Sources {
                    active: 1000,
                    packets: Spread {
                        p50: 10.0,
                        p90: 20.0,
                        p99: 40.0,
                        p999: 60.0,
                        max: 1200.0,
                    },
                    new_connections: Spread::default(),
                    top: vec![SourceStatus {
                        source: "2001:db8:ffff:ffff::/64".to_owned(),
                        packets_per_second: 1200.0,
                        new_connections_per_second: 1.0,
                        over_per_second: 700.0,
                    }],
                }),
            }],
        }
    }

    #[test]
    fn limits_and_sources_fit_80_columns() {
        let shown = text(&limits());
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
        for part in [
            "10Gbit/s",
            "5%",
            "packets_per_source (observed)",
            "240%",
            "1000 active sources",
            "2001:db8:ffff:ffff::/64",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(text(&Limits::default()).starts_with("no VIP has a limit"));
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.5, "0.5"),
            (9.999, "10"),
            (950.0, "950"),
            (999.7, "1k"),
            (1_250.0, "1.25k"),
            (2e6, "2M"),
            (10e9, "10G"),
        ];
        for (value, text) in cases {
            assert_eq!(si(value), text);
        }
    }

    #[test]
    fn what_is_suggested_is_twice_what_was_seen_rounded_up() {
        let suggested = suggestions(&limits());
        let rates: Vec<_> = suggested
            .iter()
            .map(|one| (one.limit, one.rate.as_str()))
            .collect();
        assert_eq!(
            rates,
            [
                ("packets", "110k/s"),
                ("bytes", "96Mbit/s"),
                ("packets_per_source", "120/s")
            ]
        );
        assert!(suggestion_text(&suggested).contains("1.2k"));
        assert!(suggestion_text(&[]).starts_with("nothing came"));
        for (value, text) in [
            (0.2, "1"),
            (54.1, "55"),
            (1_234.0, "1300"),
            (34_500.0, "35k"),
        ] {
            assert_eq!(round_up(value), text);
        }
    }
}
