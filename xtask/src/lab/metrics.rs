//! What the daemon's metrics say, as Prometheus reads them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Namespace;

/// How long a scrape may take, as Prometheus gives up then.
const PATIENCE: Duration = Duration::from_secs(10);

/// The labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    text: String,
    series: BTreeMap<(String, Labels), f64>,
}

impl Metrics {
    /// Scrapes what is told at an address of a host.
    pub fn scrape(host: &Namespace, at: SocketAddr) -> Result<Self> {
        Self::read(&Self::ask(host, at)?)
    }

    /// The same, as the daemon tells it.
    pub fn ask(host: &Namespace, at: SocketAddr) -> Result<String> {
        let answer = host.inside(|| {
            let mut stream = TcpStream::connect(at)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.context("ask for the metrics")?;
        match answer.split_once("\r\n\r\n") {
            Some((head, text)) if head.starts_with("HTTP/1.1 200 ") => Ok(text.to_owned()),
            _ => bail!("the metrics are not told: {answer}"),
        }
    }

    /// Reads a scrape. A series that is told twice is an error, as Prometheus takes none of either.
    pub fn read(text: &str) -> Result<Self> {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let read = || {
                let (key, value) = line.rsplit_once(' ')?;
                let (name, labels) = match key.split_once('{') {
                    Some((name, labels)) => (name, read_labels(labels.strip_suffix('}')?)?),
                    None => (key, Labels::new()),
                };
                Some(((name.to_owned(), labels), value.parse().ok()?))
            };
            let (key, value) = read().with_context(|| format!("{line:?} is no sample"))?;
            let before = series.insert(key, value);
            ensure!(before.is_none(), "told twice: {line}");
        }
        Ok(Self {
            text: text.to_owned(),
            series,
        })
    }

    /// Returns the scrape as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns every series.
    pub fn series(&self) -> impl Iterator<Item = (&str, &Labels, f64)> {
        let series = self.series.iter();
        series.map(|((name, labels), value)| (name.as_str(), labels, *value))
    }

    /// Returns the sum over the series of a metric with these labels and any others; `None` where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |found: &Labels| {
            let mut labels = labels.iter();
            labels.all(|(label, value)| found.get(*label).is_some_and(|found| found == value))
        };
        let found = self.series().filter(|(n, l, _)| *n == name && has(l));
        found.map(|(_, _, value)| value).reduce(|a, b| a + b)
    }

    /// Returns the name and the type of every metric, with its help.
    #[must_use]
    pub fn families(&self) -> BTreeMap<&str, (&str, &str)> {
        let mut families: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for line in self.text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                    families.entry(name).or_default().1 = help;
                }
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    families.entry(name).or_default().0 = kind;
                }
                _ => {}
            }
        }
        families
    }
}

/// Reads `a="b",c="d"`.
fn read_labels(text: &str) -> Option<Labels> {
    let mut labels = Labels::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => value.push(match characters.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.insert(name.to_owned(), value);
        rest = characters.as_str();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_daemon_tells() {
        let text = "# HELP weir_a_total How \"many\".\n# TYPE weir_a_total counter\n\
                    weir_a_total{backend=\"10.0.0.1\",vip=\"a\\\"b, c\\\\\"} 3\n\
                    weir_a_total{backend=\"10.0.0.2\",vip=\"web\"} 4.5\nweir_b 0\n";
        let metrics = Metrics::read(text).unwrap();
        let odd = [("vip", "a\"b, c\\")];
        assert_eq!(metrics.sum("weir_a_total", &odd), Some(3.0));
        assert_eq!(metrics.sum("weir_a_total", &[]), Some(7.5));
        assert_eq!(metrics.sum("weir_b", &[]), Some(0.0));
        assert_eq!(metrics.sum("weir_b", &odd), None);
        let families = metrics.families();
        assert_eq!(families["weir_a_total"], ("counter", "How \"many\"."));
        assert_eq!(families.len(), 1);
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        for (text, why) in [
            ("a 1\na 2\n", "told twice: a 2"),
            ("a{b=\"c\"\n", "is no sample"),
            ("a{b=\"c} 1\n", "is no sample"),
            ("a one\n", "is no sample"),
        ] {
            let error = Metrics::read(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
