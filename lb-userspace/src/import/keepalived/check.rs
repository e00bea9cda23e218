//! Reads the checks of a real server.

use std::{net::SocketAddr, time::Duration};

use super::{
    super::{
        report::Report,
        service::{Health, Probe},
    },
    server::seconds,
    tree::Node,
};

/// Between one check and the next, where keepalived is not told.
const DELAY_LOOP: Duration = Duration::from_mins(1);

/// How long a check may take, where keepalived is not told.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What weir takes of an interval: 100 ms to 1 h.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(1));

/// What weir takes of a number of probes in a row.
const MOST_IN_A_ROW: u16 = 1000;

/// What a virtual server or a real server says for its checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Usual {
    pub(super) host: Option<String>,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    retry: Option<u16>,
    port: Option<u16>,
}

impl Usual {
    /// Takes a keyword that says when checks are made; `false` where it is none.
    pub(super) fn takes(&mut self, keyword: &str, node: &Node, report: &mut Report) -> bool {
        match keyword {
            "delay_loop" => self.interval = seconds(node, report).or(self.interval),
            "connect_timeout" => self.timeout = seconds(node, report).or(self.timeout),
            "retry" | "nb_get_retry" => self.retry = node.value().parse().ok().or(self.retry),
            "connect_port" => self.port = node.value().parse().ok().or(self.port),
            "delay_before_retry" => {
                let why = "weir asks a failing backend again after the interval";
                let help = "shorten `interval` if failures are to be found sooner";
                report.changed(&node.line, why, help);
            }
            "warmup" => {
                let why = "weir spreads the first checks over an interval by itself";
                report.changed(&node.line, why, "nothing");
            }
            _ => return false,
        }
        true
    }
}

/// What weir can check of what a block checks; `None` where that is nothing.
pub(super) fn read(
    node: &Node,
    usual: &Usual,
    (vip, real_port): (SocketAddr, u16),
    report: &mut Report,
) -> Option<Health> {
    let keyword = node.keyword();
    let (why, help) = match keyword {
        "HTTP_GET" | "SSL_GET" | "TCP_CHECK" | "DNS_CHECK" => {
            return known(node, usual, (vip, real_port), report);
        }
        "MISC_CHECK" => (
            "weir starts no programs to check a backend",
            "have the server answer for it: `[vip.health]` with `type = \"http\"` (docs/health.md)",
        ),
        "SMTP_CHECK" => (
            "weir does not speak SMTP",
            "write `[vip.health]` with `type = \"tcp\"`",
        ),
        "UDP_CHECK" => (
            "weir wants to know what to send and what to expect",
            "write `[vip.health]` with `type = \"udp\"`, `send` and `expect` (docs/health.md)",
        ),
        "PING_CHECK" => (
            "weir does not check by echo requests: they tell nothing of the service",
            "write `[vip.health]` with `type = \"tcp\"`",
        ),
        _ => (
            "weir has no check like it",
            "write a `[vip.health]` of one of weir's types (docs/health.md)",
        ),
    };
    super::left_block(node, why, help, report);
    None
}

fn known(
    node: &Node,
    usual: &Usual,
    (vip, real_port): (SocketAddr, u16),
    report: &mut Report,
) -> Option<Health> {
    let mut own = usual.clone();
    // Retries of TCP_CHECK and of the others, where keepalived is not told.
    let retries = if node.keyword() == "TCP_CHECK" { 1 } else { 3 };
    let mut url = Url::default();
    let mut has_url = false;
    let mut query = ".".to_owned();
    for child in node.children() {
        match child.keyword() {
            "url" if has_url => super::left_block(
                child,
                "weir asks for one URL, and another one stands before this",
                "have the server answer for all of it at one path",
                report,
            ),
            "url" => {
                has_url = true;
                url = read_url(child, report);
            }
            "virtualhost" => own.host = Some(child.value().to_owned()),
            "enable_sni" => {}
            "name" => child.value().clone_into(&mut query),
            "type" if child.value() == "A" => {}
            keyword if own.takes(keyword, child, report) => {}
            "http_protocol" => report.changed(&child.line, "weir asks by HTTP/1.1", "nothing"),
            _ => super::left_block(
                child,
                "weir's checks have nothing like it",
                "see docs/health.md for what they have",
                report,
            ),
        }
    }
    let probe = match node.keyword() {
        "HTTP_GET" | "SSL_GET" => Probe::Http {
            tls: node.keyword() == "SSL_GET",
            path: url.path.unwrap_or_else(|| "/".to_owned()),
            host: url.host.or(own.host),
            expect_status: url.status.unwrap_or_else(|| "200-299".to_owned()),
        },
        "DNS_CHECK" => Probe::Dns { query },
        _ => Probe::Tcp,
    };
    let port = own.port.unwrap_or(real_port);
    if port == 0 {
        let why = "a VIP of every port has none that could be asked";
        super::left_block(node, why, "write `[vip.health]` with a `port`", report);
        return None;
    }
    let (least, most) = INTERVAL;
    let interval = own.interval.unwrap_or(DELAY_LOOP).clamp(least, most);
    Some(Health {
        probe,
        port: (port != vip.port()).then_some(port),
        interval,
        timeout: own
            .timeout
            .unwrap_or(CONNECT_TIMEOUT)
            .clamp(Duration::from_millis(10), interval),
        fall: own
            .retry
            .unwrap_or(retries)
            .saturating_add(1)
            .min(MOST_IN_A_ROW),
    })
}

/// What is asked for by HTTP.
#[derive(Default)]
struct Url {
    path: Option<String>,
    host: Option<String>,
    status: Option<String>,
}

fn read_url(node: &Node, report: &mut Report) -> Url {
    let mut url = Url::default();
    for child in node.children() {
        // A block on one line is one statement: its words are keywords and values in turn.
        let mut words = child.words.iter().map(String::as_str).peekable();
        while let Some(keyword) = words.next() {
            match keyword {
                "path" => url.path = words.next().map(str::to_owned),
                "virtualhost" => url.host = words.next().map(str::to_owned),
                "status_code" => {
                    let is_status = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
                    let mut statuses = Vec::new();
                    while let Some(status) = words.next_if(is_status) {
                        statuses.push(status);
                    }
                    url.status = statuses_of(&statuses, child, report);
                }
                "digest" | "regex" | "regex_no_match" | "regex_options" | "regex_stack"
                | "regex_min_offset" | "regex_max_offset" => {
                    report.left(
                        &child.line,
                        "weir looks at the status of an answer, not at its body",
                        "have the server say by its status whether all is well",
                    );
                    break;
                }
                _ => {
                    report.left(
                        &child.line,
                        "weir's checks have nothing like it",
                        "see docs/health.md for what they have",
                    );
                    break;
                }
            }
        }
    }
    url
}

/// Statuses and ranges of them, as far as weir takes them: 200 to 599.
fn statuses_of(words: &[&str], node: &Node, report: &mut Report) -> Option<String> {
    let mut taken = Vec::new();
    for word in words {
        let (from, to) = word.split_once('-').unwrap_or((word, word));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if 200 <= from && from <= to && to <= 599 => taken.push(*word),
            _ => report.left(
                &node.line,
                format!("{word} is no status, or range of them, from 200 to 599"),
                "write `expect_status` in `[vip.health]`",
            ),
        }
    }
    (!taken.is_empty()).then(|| taken.join(", "))
}
