//! The client: many HTTP requests, each over a connection of its own, and a count of who answered.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

/// How long one request may take, from connecting to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to ask, how often, and how many at a time.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Whom to ask, as ADDRESS:PORT.
    pub target: SocketAddr,
    /// How many requests to make, each over a new connection.
    #[arg(long, default_value_t = 1)]
    pub requests: u32,
    /// How many requests may be open at a time.
    #[arg(long, default_value_t = 16)]
    pub concurrency: u32,
}

impl Options {
    /// Asks `target` for `requests` answers.
    #[must_use]
    pub fn new(target: SocketAddr, requests: u32) -> Self {
        Self {
            target,
            requests,
            concurrency: 16,
        }
    }
}

/// Who answered.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Answers by the name that a backend gave.
    pub by_backend: BTreeMap<String, u32>,
    /// Requests without a proper answer.
    pub failed: u32,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u32>,
    /// Wall time of the whole run.
    pub duration_ms: u64,
}

impl Summary {
    /// Returns the number of answers.
    #[must_use]
    pub fn answered(&self) -> u32 {
        self.by_backend.values().sum()
    }

    /// Returns the percentage of the answers that came from a backend.
    #[must_use]
    pub fn share(&self, backend: &str) -> f64 {
        let answers = self.by_backend.get(backend).copied().unwrap_or(0);
        100.0 * f64::from(answers) / f64::from(self.answered().max(1))
    }

    fn add(&mut self, other: Self) {
        for (name, count) in other.by_backend {
            *self.by_backend.entry(name).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.failed += other.failed;
    }
}

/// Makes the requests.
pub fn fetch(options: &Options) -> Result<Summary> {
    let started = Instant::now();
    let next = AtomicU32::new(0);
    let mut total = Summary::default();
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..options.concurrency.clamp(1, 256))
            .map(|_| scope.spawn(|| work(options, &next)))
            .collect();
        for worker in workers {
            let Ok(part) = worker.join() else {
                bail!("a client thread panicked")
            };
            total.add(part);
        }
        Ok(())
    })?;
    total.duration_ms = u64::try_from(started.elapsed().as_millis())?;
    Ok(total)
}

/// One worker: takes the next request until none is left.
fn work(options: &Options, next: &AtomicU32) -> Summary {
    let mut part = Summary::default();
    while next.fetch_add(1, Ordering::Relaxed) < options.requests {
        match ask(options.target) {
            Ok(name) => *part.by_backend.entry(name).or_default() += 1,
            Err(error) => {
                part.failed += 1;
                *part.errors.entry(format!("{error:#}")).or_default() += 1;
            }
        }
    }
    part
}

/// Makes one request and returns the backend's name.
pub fn ask(target: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .context("send the request")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    parse(&answer)
}

/// Takes the backend's name out of an answer.
fn parse(answer: &str) -> Result<String> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without an end of its head")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("answered {}", head.lines().next().unwrap_or_default());
    }
    let name = body.trim();
    if name.is_empty() {
        bail!("an answer without a name");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_good_answer_names_a_backend() {
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nb1\n").unwrap(),
            "b1"
        );
        assert!(parse("HTTP/1.1 503 Busy\r\n\r\nb1\n").is_err());
        assert!(parse("HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse("HTTP/1.1 200 OK\r\nContent-").is_err());
    }

    #[test]
    fn every_refused_connection_is_a_failure() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let summary = fetch(&Options::new(closed, 5)).unwrap();
        assert_eq!((summary.failed, summary.answered()), (5, 0));
        assert_eq!(summary.errors.values().sum::<u32>(), 5);
    }

    #[test]
    fn shares_are_percentages_of_the_answers() {
        let by_backend = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 3)]);
        let summary = Summary {
            by_backend,
            ..Summary::default()
        };
        assert!((summary.share("b") - 75.0).abs() < f64::EPSILON);
        assert!(summary.share("c").abs() < f64::EPSILON);
    }
}
