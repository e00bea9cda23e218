//! `weir doctor`

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use comfy_table::{Attribute, Cell, Color};
use tokio::time::timeout;

use super::{Outcome, change::converse, decap, output, status::Form, table};
use crate::{
    config::{Config, DEFAULT_GUE_PORT, Errors, ForwardMode},
    dataplane::bpf::decap::IpPrefix,
    doctor::{self, Dialled, Finding, Level, Report, Server, Serves},
};

const EXAMPLES: &str = "\
Examples:
  weir doctor                            the load balancer of /etc/weir/weir.toml
  weir doctor --config weir.toml -o json | jq -r '.findings[] | select(.level == \"fail\").commands[]'
  weir doctor --backend --vip 203.0.113.10:443 --vip '[2001:db8::10]:53/udp'
  weir doctor --backend --vip 203.0.113.10:443 --forward gue --from 10.0.0.1
  weir doctor --backend --config weir.toml    with a copy of the load balancers' file

Looks and changes nothing; the commands that it prints are for you to run. Without a daemon it makes one health
check of each backend, and asks the segment for backends' MAC addresses. docs/doctor.md explains every check.

Exit codes: 0 all is well, notes aside; 1 could not look; 2 usage; 3 degraded: something is to be mended";

/// Find out what will not work, why, and the command that mends it
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("serves").args(["vip", "config"])))]
pub(super) struct Args {
    /// Configuration file of the load balancer [default: /etc/weir/weir.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Examine this host as one that serves VIPs
    #[arg(long, requires = "serves")]
    backend: bool,
    /// VIP that it serves: ADDRESS, ADDRESS:PORT or ADDRESS:PORT/udp; repeat it for more
    #[arg(long, value_name = "VIP", requires = "backend")]
    vip: Vec<Dialled>,
    /// How weir's packets come
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "vip",
        conflicts_with = "config"
    )]
    forward: Forward,
    /// Address or prefix that tunnels come from: the load balancers' `encap_source`; repeat it for more
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "vip",
        conflicts_with = "config"
    )]
    from: Vec<IpPrefix>,
    /// UDP port that GUE comes to
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_GUE_PORT, requires = "vip", conflicts_with = "config",
          value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,
    /// Interface by which weir's packets come; repeat it for more [default: those with addresses of their own]
    #[arg(short, long, value_name = "NAME", requires = "backend")]
    interface: Vec<String>,
    /// Directory of the pins of `weir decap`
    #[arg(long, value_name = "DIR", default_value = decap::DEFAULT_PIN_PATH, requires = "backend")]
    decap_pin_path: PathBuf,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How long nobody wonders.
const PATIENCE: Duration = Duration::from_secs(2);

/// How packets come to a server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Forward {
    /// As the client sent them
    #[default]
    L2,
    /// IP in IP
    Ipip,
    /// In UDP
    Gue,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let report = match examine(args) {
        Ok(report) => report?,
        Err(errors) => {
            output::message(&errors);
            return Ok(Outcome::Refused);
        }
    };
    output::listing(args.output, &report, || render(&report))?;
    Ok(if report.is_well() {
        Outcome::Done
    } else {
        Outcome::Degraded
    })
}

fn examine(args: &Args) -> Result<anyhow::Result<Report>, Errors> {
    if !args.backend {
        let config = read(args, Config::parse)?;
        return Ok(converse(patiently(doctor::balancer(&config))).flatten());
    }
    let serves = if args.vip.is_empty() {
        // A copy of another host's file: what that host has need not be here.
        Serves::Config(Box::new(read(args, Config::parse_offline)?))
    } else {
        Serves::Told {
            vips: args.vip.clone(),
            forward: match args.forward {
                Forward::L2 => ForwardMode::L2,
                Forward::Ipip => ForwardMode::Ipip,
                Forward::Gue => ForwardMode::Gue,
            },
            sources: args.from.clone(),
            gue_port: args.gue_port,
        }
    };
    let asked = Server {
        serves,
        interfaces: args.interface.clone(),
        has_own_pins: args.decap_pin_path.as_os_str() != decap::DEFAULT_PIN_PATH,
        decap_pins: args.decap_pin_path.clone(),
    };
    Ok(converse(doctor::server(&asked)).flatten())
}

/// Says what takes so long, where somebody waits at a terminal.
async fn patiently<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(PATIENCE, &mut work).await {
        return done;
    }
    if io::stderr().is_terminal() {
        output::message("the kernel is verifying weir's program …");
    }
    work.await
}

fn read(args: &Args, parse: fn(&str, &str) -> Result<Config, Errors>) -> Result<Config, Errors> {
    let file = args.config.clone();
    let file = file.unwrap_or_else(|| PathBuf::from("/etc/weir/weir.toml"));
    let text = fs::read_to_string(&file).map_err(|source| Errors::Read {
        path: file.clone(),
        source,
    })?;
    parse(&text, &file.display().to_string())
}

/// Width of the column of findings in a table of 80: what remains beside the others.
const FINDING_WIDTH: usize = 58;

fn render(report: &Report) -> String {
    let mut table = table::table(&["LEVEL", "CHECK", "FINDING"], 3);
    for finding in &report.findings {
        let level = Cell::new(finding.level.as_str());
        let level = match finding.level {
            Level::Ok => level.fg(Color::Green),
            Level::Note => level,
            Level::Warn => level.fg(Color::Yellow),
            Level::Fail => level.fg(Color::Red).add_attribute(Attribute::Bold),
        };
        table.add_row([level, Cell::new(&finding.check), Cell::new(text(finding))]);
    }
    format!("{}\n\n{}\n", table.trim_fmt(), summary(report))
}

fn text(finding: &Finding) -> String {
    let mut lines = vec![format!("{}: {}", finding.subject, finding.what)];
    lines.extend(finding.why.iter().map(|why| format!("Why: {why}.")));
    lines.extend(
        finding
            .remedy
            .iter()
            .map(|remedy| format!("Mend: {remedy}")),
    );
    let mark = if finding.remedy.is_none() {
        "Mend:"
    } else {
        ""
    };
    if !finding.commands.is_empty() && !mark.is_empty() {
        lines.push(mark.to_owned());
    }
    lines.extend(finding.commands.iter().map(|command| broken(command)));
    lines.join("\n")
}

/// A command on lines that fit, as a shell takes it: broken only between words, behind a backslash.
fn broken(command: &str) -> String {
    const INDENT: &str = "  ";
    // What is quoted stays as it is.
    if command.contains(['\'', '"', '(']) {
        return format!("{INDENT}{command}");
    }
    let mut text = INDENT.to_owned();
    let mut width = INDENT.len();
    for (index, word) in command.split(' ').enumerate() {
        if index > 0 && width + word.len() + 3 > FINDING_WIDTH {
            text.push_str(" \\\n    ");
            width = 4;
        } else if index > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += word.len();
    }
    text
}

fn summary(report: &Report) -> String {
    let levels = [Level::Fail, Level::Warn, Level::Note, Level::Ok];
    let counts = levels.map(|level| format!("{} {}", report.count(level), level.as_str()));
    let verdict = if report.is_well() {
        "nothing to mend"
    } else {
        "to be mended, from the top"
    };
    format!("{}: {verdict}", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Role;

    fn finding(commands: &[&str]) -> Finding {
        Finding {
            check: "arp-announce".to_owned(),
            level: Level::Fail,
            subject: "eth0".to_owned(),
            what: "a rather long sentence that says what was found, and does not fit on a line"
                .to_owned(),
            why: Some(
                "another long sentence about the reason for which it hurts, longer than a line"
                    .to_owned(),
            ),
            remedy: None,
            commands: commands
                .iter()
                .map(|command| (*command).to_owned())
                .collect(),
        }
    }

    #[test]
    fn a_report_fits_80_columns_and_its_commands_are_a_shells() {
        let long = "weir decap attach --interface eth0 --from 10.0.0.0/24 --from 2001:db8::/64 --gue-port 16080";
        let report = Report::new(Role::Backend, vec![finding(&["sysctl -w a.b=1", long])]);
        let text = render(&report);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains("  sysctl -w a.b=1\n"), "{text}");
        assert!(
            text.ends_with("\n1 fail, 0 warn, 0 note, 0 ok: to be mended, from the top\n"),
            "{text}"
        );
        let command: String = broken(long).replace("\\\n", "");
        let words: Vec<_> = command.split_whitespace().collect();
        assert_eq!(words.join(" "), long);
        // As it stands in the table, broken where the command was.
        for line in broken(long).lines() {
            assert!(text.contains(line.trim()), "{line} in\n{text}");
        }
    }

    #[test]
    fn what_is_quoted_is_not_broken() {
        let command = "(umask 077 && openssl rand -hex 32 > /etc/weir/seed) and much more than fits on a line of it";
        assert_eq!(broken(command), format!("  {command}"));
    }
}
