//! Reports through Redis: every node writes its own, and reads those of the others that have changed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    By, Heard, LARGEST, MOST_NODES, Node, PATIENCE, PERIOD, Report, report::is_hexadecimal,
};
use crate::{
    config::Endpoint,
    limits::fleet::redis::{Connection, Error, Script},
};

/// The script's text. It needs the right to run `GET`, `SET` and `TIME`, on keys that begin with `weir:`.
pub const SCRIPT: &str = include_str!("roster.lua");

/// The text of the script that reads a report. It needs the right to run `GET`.
pub const READING: &str = include_str!("report.lua");

/// After so long Redis forgets a node that tells nothing more: it was taken out of the fleet.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// An entry of the same name that is so old is one of this node's own, from before a restart: it missed a turn.
const RESTARTED: Duration = PERIOD.saturating_mul(2);

/// The nodes that write into a Redis.
pub(super) struct Roster {
    connection: Connection,
    fleet: String,
    script: Script,
    reading: Script,
    /// By instance.
    nodes: BTreeMap<String, Entry>,
    /// How many more there are.
    more: u64,
    error: Option<String>,
    /// Whether it was said that Redis answers, or else that it does not.
    told: Option<bool>,
}

/// Another node.
struct Entry {
    /// The tag of the report that was read.
    tag: String,
    node: Node,
}

/// What the roster says of another node: instance, milliseconds since it told of itself, tag of its report.
type Line = (String, u64, String);

impl Roster {
    pub(super) fn new(endpoint: Endpoint, fleet: String) -> Self {
        Self {
            connection: Connection::new(endpoint, PATIENCE),
            fleet,
            script: Script::new(SCRIPT),
            reading: Script::new(READING),
            nodes: BTreeMap::new(),
            more: 0,
            error: Some("not asked yet".to_owned()),
            told: None,
        }
    }

    /// Writes this node's report, and reads what is new of the others.
    pub(super) async fn turn(&mut self, own: &Report) {
        let result = self.exchange(own).await;
        let is_new = self.told.replace(result.is_ok()) != Some(result.is_ok());
        match &result {
            Ok(()) if is_new => tracing::info!("fleet agreement: Redis answers"),
            Ok(()) => {}
            Err(error) if is_new => tracing::warn!(
                class = error.class(),
                %error,
                "fleet agreement: no answer of Redis; tables are not compared, and nothing else follows from it"
            ),
            Err(error) => tracing::debug!(%error, "fleet agreement: no answer of Redis"),
        }
        self.error = result.err().map(|error| error.to_string());
    }

    /// What is known of the nodes.
    pub(super) fn heard(&self) -> Heard {
        let nodes = self.nodes.values().map(|entry| entry.node.clone());
        Heard {
            by: By::Redis,
            error: self.error.clone(),
            nodes: nodes.collect(),
            more: self.more,
        }
    }

    async fn exchange(&mut self, own: &Report) -> Result<(), Error> {
        let (json, tag) = own.to_json();
        let milliseconds = |time: Duration| time.as_millis().to_string();
        let keys = [self.key("roster"), self.report_key(&own.instance)];
        let arguments = [
            own.instance.clone(),
            own.node.clone(),
            tag,
            json,
            milliseconds(RESTARTED),
            milliseconds(FORGOTTEN),
            MOST_NODES.to_string(),
        ];
        let answer = self.connection.run(&self.script, &keys, &arguments).await?;
        let (count, mut lines): (u64, Vec<Line>) = answer;
        self.count(count);
        // As the script tells them; but by the instance a key is named.
        lines.retain(|(instance, ..)| is_hexadecimal(instance, 16));
        lines.truncate(MOST_NODES);
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.nodes);
        let mut changed = Vec::new();
        for (instance, age, tag) in lines {
            let mut entry = before
                .remove(&instance)
                .unwrap_or_else(|| Entry::of(&instance));
            let heard = now.checked_sub(Duration::from_millis(age));
            if entry.tag == tag {
                entry.node.heard = heard;
            } else {
                // It is heard of once its report is read: the one before says nothing of now.
                changed.push((instance.clone(), tag, heard));
            }
            self.nodes.insert(instance, entry);
        }
        // One after the other: they may be large. A byte more than the largest tells that one is larger.
        let most = [(LARGEST + 1).to_string()];
        for (instance, tag, heard) in changed {
            if now.elapsed() >= PERIOD {
                // The rest is for the next turn: in between, this node has to tell of itself.
                break;
            }
            let key = [self.report_key(&instance)];
            let json: Option<Vec<u8>> = self.connection.run(&self.reading, &key, &most).await?;
            if let Some(entry) = self.nodes.get_mut(&instance) {
                entry.read(tag, heard, json.as_deref());
            }
        }
        Ok(())
    }

    /// Takes down how many other nodes there are in Redis.
    fn count(&mut self, count: u64) {
        let more = count.saturating_sub(MOST_NODES as u64);
        if more > 0 && self.more == 0 {
            tracing::warn!(
                nodes = count,
                "fleet agreement: more other nodes write into Redis than are compared"
            );
        }
        self.more = more;
    }

    /// A key of the fleet's. All are in one slot of a Redis cluster; the number is that of the values' format.
    fn key(&self, name: &str) -> String {
        format!("weir:{{{}}}:agreement:1:{name}", self.fleet)
    }

    fn report_key(&self, instance: &str) -> String {
        self.key(&format!("report:{instance}"))
    }
}

impl Entry {
    fn of(instance: &str) -> Self {
        Self {
            tag: String::new(),
            node: Node {
                called: instance.escape_debug().to_string(),
                ..Node::default()
            },
        }
    }

    fn read(&mut self, tag: String, heard: Option<Instant>, json: Option<&[u8]>) {
        let node = &mut self.node;
        match json.map(Report::from_json) {
            Some(Ok(report)) => {
                self.tag = tag;
                node.heard = heard;
                node.error = None;
                node.report = Some(Arc::new(report));
            }
            Some(Err(error)) => node.error = Some(error.to_string()),
            None => node.error = Some("its report is not in Redis".to_owned()),
        }
    }
}
