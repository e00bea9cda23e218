//! A Prometheus server inside a host, which scrapes the daemons under test.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Lab, namespace::Namespace, process::Process, wait};

/// Where it listens, inside its host alone.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// How long it may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Prometheus {
    host: Namespace,
    process: Process,
}

/// A series of an answer: its labels, and its values by time in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The labels, its name among them if it has one.
    pub labels: BTreeMap<String, String>,
    /// When, in seconds since 1970, and what.
    pub values: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts a server that scrapes `targets` every second as the job `weir`, and judges `rules` as often.
    pub fn start(lab: &Lab, host: &Namespace, targets: &[SocketAddr], rules: &str) -> Result<Self> {
        let rules = lab.write("rules.yml", rules)?;
        let targets: Vec<_> = targets.iter().map(SocketAddr::to_string).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs: [{{job_name: weir, static_configs: [{{targets: {targets:?}}}]}}]\n",
            rules.display()
        );
        let config = lab.write("prometheus.yml", &config)?;
        let data = lab.folder().join("prometheus");
        fs::create_dir_all(&data).context("make the folder of Prometheus")?;
        let mut command = host.command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let process = Process::start(host, "prometheus", &mut command)?;
        let server = Self {
            host: host.clone(),
            process,
        };
        let ready = wait::eventually("Prometheus to be ready", PATIENCE, || {
            server.get("/-/ready").map(drop)
        });
        ready.with_context(|| format!("its log ends:\n{}", server.process.log_tail()))?;
        Ok(server)
    }

    /// Asks the HTTP API, below `/api/v1/`, and returns `data` of the answer.
    pub fn ask(&self, path: &str) -> Result<Value> {
        let answer = self.get(&format!("/api/v1/{path}"))?;
        let mut answer: Value = serde_json::from_str(&answer).context("JSON of Prometheus")?;
        let data = answer.get_mut("data").map(Value::take);
        data.with_context(|| format!("no data in {answer}"))
    }

    /// What an expression is now.
    pub fn query(&self, expression: &str) -> Result<Vec<Series>> {
        let data = self.ask(&format!("query?query={}", encoded(expression)))?;
        series(&data).with_context(|| format!("the answer to {expression}"))
    }

    /// What an expression was from `start` to `end`, in seconds since 1970, every `step` seconds.
    pub fn query_range(
        &self,
        expression: &str,
        (start, end): (f64, f64),
        step: u32,
    ) -> Result<Vec<Series>> {
        let expression = encoded(expression);
        let path = format!("query_range?query={expression}&start={start}&end={end}&step={step}");
        series(&self.ask(&path)?).with_context(|| format!("the answer to {path}"))
    }

    /// The names of the alerts that fire now.
    pub fn firing(&self) -> Result<Vec<String>> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}")?;
        let names = alerts.into_iter();
        Ok(names
            .filter_map(|mut alert| alert.labels.remove("alertname"))
            .collect())
    }

    fn get(&self, path: &str) -> Result<String> {
        let answer = self.host.inside(|| {
            let mut stream = TcpStream::connect(ADDRESS).context("connect to Prometheus")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // Answers of HTTP/1.0 end with the connection and come in one piece.
            write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        let status = head.split_whitespace().nth(1);
        ensure!(status == Some("200"), "{path}: {head}\n{body}");
        Ok(body.to_owned())
    }
}

/// Text as a part of a URL.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

/// The series of an answer, be it a vector, a matrix or a scalar.
fn series(data: &Value) -> Result<Vec<Series>> {
    let result = data.get("result").context("no result")?;
    if data.get("resultType").and_then(Value::as_str) == Some("scalar") {
        return Ok(vec![Series {
            labels: BTreeMap::new(),
            values: vec![value(result)?],
        }]);
    }
    let all = result.as_array().context("no list of series")?;
    let series = all.iter().map(|one| {
        let labels = one.get("metric").cloned().unwrap_or_default();
        let values = match (
            one.get("value"),
            one.get("values").and_then(Value::as_array),
        ) {
            (Some(single), _) => vec![value(single)?],
            (None, Some(many)) => many.iter().map(value).collect::<Result<_>>()?,
            (None, None) => anyhow::bail!("a series without values"),
        };
        Ok(Series {
            labels: serde_json::from_value(labels)?,
            values,
        })
    });
    series.collect()
}

fn value(pair: &Value) -> Result<(f64, f64)> {
    let time = pair.get(0).and_then(Value::as_f64).context("a time")?;
    let value = pair.get(1).and_then(Value::as_str).context("a value")?;
    Ok((time, value.parse()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_vectors_matrices_and_scalars() {
        let labels = BTreeMap::from([("vip".to_owned(), "web".to_owned())]);
        let vector = json!({"resultType": "vector", "result": [{"metric": {"vip": "web"}, "value": [5.5, "+Inf"]}]});
        let read = series(&vector).unwrap();
        let infinite = Series {
            labels: labels.clone(),
            values: vec![(5.5, f64::INFINITY)],
        };
        assert_eq!(read, [infinite]);
        let matrix = json!({"resultType": "matrix", "result": [{"metric": {"vip": "web"}, "values": [[1, "2"], [3, "4.5"]]}]});
        let values = vec![(1.0, 2.0), (3.0, 4.5)];
        assert_eq!(series(&matrix).unwrap(), [Series { labels, values }]);
        let scalar = json!({"resultType": "scalar", "result": [1, "NaN"]});
        let [one] = series(&scalar).unwrap().try_into().unwrap();
        assert!(one.values.first().is_some_and(|(_, value)| value.is_nan()));
        assert!(series(&json!({"result": [{}]})).is_err());
    }

    #[test]
    fn encodes_what_urls_may_not_hold() {
        assert_eq!(
            encoded("a{b=\"c d\"} > 0"),
            "a%7Bb%3D%22c%20d%22%7D%20%3E%200"
        );
    }
}
