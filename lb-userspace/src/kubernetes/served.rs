//! From a port of a Service to a VIP: written as `weir.toml` would have it and read with the same rules, so that an
//! annotation means what the key of its name means, and is refused with the same words.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    PREFIX, digest,
    objects::{Family, Key, Port, Service},
    told::{Reason, Told},
};
use crate::config::{ForwardMode, Kubernetes, Reader, TableAlgorithm, Vip};

/// The longest name that a VIP may have.
const LONGEST_NAME: usize = 63;

/// Annotations that are about addresses, and no key of a VIP.
const OF_ADDRESSES: [&str; 3] = ["addresses", "pool", "sharing-key"];

/// Keys of `[[vip]]` that an annotation may set.
const OF_VIP: [&str; 7] = [
    "table",
    "forward",
    "affinity",
    "slow_start",
    "move_window",
    "flow_idle",
    "drain_timeout",
];

/// Keys whose values are strings, whatever they look like.
const STRINGS: [&str; 7] = [
    "path",
    "host",
    "service",
    "send",
    "expect",
    "query",
    "expect_status",
];

/// A VIP that is a Service's, as the file would have it: what is kept over a restart.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Served {
    /// The VIP's name.
    pub name: String,
    /// The Service: namespace and name.
    pub service: String,
    /// One `[[vip]]`.
    pub text: String,
}

/// Reads texts of VIPs, and remembers those of the last turn.
pub struct Texts {
    reader: Reader,
    forward: ForwardMode,
    table: TableAlgorithm,
    settings: Kubernetes,
    known: HashMap<String, Read>,
    last: HashMap<String, Read>,
}

type Read = Result<Arc<Vip>, Arc<Vec<(String, String)>>>;

/// One VIP, made of a Service.
pub struct Made {
    /// As the file would have it.
    pub served: Served,
    /// As it was read.
    pub vip: Arc<Vip>,
}

/// What a VIP is made of.
pub struct Part<'a> {
    /// The Service.
    pub of: (&'a Key, &'a Service),
    /// Its port.
    pub port: &'a Port,
    /// The VIP's address.
    pub address: IpAddr,
    /// The nodes that serve, and their weights.
    pub shares: BTreeMap<IpAddr, u16>,
}

impl Texts {
    /// For VIPs beside those of a configuration.
    #[must_use]
    pub fn new(reader: Reader, settings: Kubernetes) -> Self {
        Self {
            reader,
            forward: settings.forward,
            table: settings.table,
            settings,
            known: HashMap::new(),
            last: HashMap::new(),
        }
    }

    /// Begins a turn: what the one before last needed is forgotten.
    pub fn turn(&mut self) {
        self.last = std::mem::take(&mut self.known);
    }

    /// How packets reach the nodes of a Service.
    #[must_use]
    pub fn forward(&self, service: &Service) -> ForwardMode {
        match service.annotations.get("forward").map(String::as_str) {
            Some("l2") => ForwardMode::L2,
            Some("ipip") => ForwardMode::Ipip,
            Some("gue") => ForwardMode::Gue,
            // What is wrong with another word is told where it is read.
            Some(_) | None => self.forward,
        }
    }

    /// Reads what was kept.
    #[must_use]
    pub fn kept(&mut self, served: &Served) -> Option<Arc<Vip>> {
        self.read(&served.text).ok()
    }

    /// Makes a VIP. Annotations that are wrong are left out, one by one, since a slip of the pen must not take a Service
    /// off the network; what then is still wrong keeps the VIP from being served.
    pub fn make(&mut self, part: &Part<'_>, told: &mut Vec<Told>) -> Option<Made> {
        let name = name(part);
        let mut annotations = part.of.1.annotations.clone();
        annotations.retain(|key, _| !OF_ADDRESSES.contains(&key.as_str()));
        loop {
            let mut table = self.basis(part, &name);
            let unknown = annotate(&mut table, &annotations);
            if !unknown.is_empty() {
                for key in unknown {
                    annotations.remove(&key);
                    let text = format!("annotation {PREFIX}{key} is unknown, and not heeded");
                    told.push(Told::warning(part.of, Reason::InvalidAnnotation, text));
                }
                continue;
            }
            let mut whole = Table::new();
            whole.insert("vip".to_owned(), Value::Array(vec![Value::Table(table)]));
            let text = toml::to_string(&whole).ok()?;
            let findings = match self.read(&text) {
                Ok(vip) => {
                    let served = Served {
                        name,
                        service: part.of.0.to_string(),
                        text,
                    };
                    return Some(Made { served, vip });
                }
                Err(findings) => findings,
            };
            let before = annotations.len();
            for (path, sentence) in findings.iter() {
                let Some(key) = blamed(path, &annotations) else {
                    continue;
                };
                annotations.remove(&key);
                let text = format!("annotation {PREFIX}{key} is not heeded: {sentence}");
                told.push(Told::warning(part.of, Reason::InvalidAnnotation, text));
            }
            if annotations.len() == before {
                let sentences: Vec<_> = findings.iter().map(|(_, text)| text.as_str()).collect();
                let text = format!("{} is not served: {}", part.address, sentences.join("; "));
                told.push(Told::warning(part.of, Reason::NotServed, text));
                return None;
            }
        }
    }

    fn read(&mut self, text: &str) -> Read {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let read = self.last.remove(text).unwrap_or_else(|| {
            let read = self.reader.read(text);
            let wrong = |errors: crate::config::Errors| {
                let findings = errors.findings().iter().map(|finding| {
                    let (found, wanted) = (&finding.found, &finding.wanted);
                    (
                        finding.key.clone(),
                        format!("found {found}, wanted {wanted}"),
                    )
                });
                Arc::new(findings.collect())
            };
            let none = || Arc::new(vec![(String::new(), "there is no VIP".to_owned())]);
            read.map_err(wrong)
                .and_then(|vip| vip.map(Arc::new).ok_or_else(none))
        });
        self.known.insert(text.to_owned(), read.clone());
        read
    }

    /// What a VIP is without annotations.
    fn basis(&self, part: &Part<'_>, name: &str) -> Table {
        let (_, service) = part.of;
        let text = |text: &str| Value::String(text.to_owned());
        let mut table = Table::new();
        let mut set = |key: &str, value: Value| {
            table.insert(key.to_owned(), value);
        };
        set("name", text(name));
        set("address", text(&part.address.to_string()));
        set("port", Value::Integer(part.port.port.into()));
        set("protocol", text(&part.port.protocol.to_ascii_lowercase()));
        set("table", text(self.table.as_str()));
        set("forward", text(self.forward.as_str()));
        set("announce", text(self.settings.announce.as_str()));
        if service.is_sticky {
            set("affinity", text("source"));
        }
        let family = Family::of(part.address);
        if !service.sources.is_empty() {
            let is_v4 = |text: &str| !text.contains(':');
            let own = service.sources.iter().map(|source| source.trim());
            let own = own.filter(|source| is_v4(source) == (family == Family::V4));
            let own: Vec<_> = own.map(text).collect();
            // Whoever names sources of the other family alone means nobody of this one.
            if own.is_empty() {
                let all = if family == Family::V4 {
                    "0.0.0.0/0"
                } else {
                    "::/0"
                };
                set("deny", Value::Array(vec![text(all)]));
            } else {
                set("allow", Value::Array(own));
            }
        }
        if let Some(health) = self.health(service) {
            set("health", Value::Table(health));
        }
        let backends = part.shares.iter().map(|(address, weight)| {
            let mut backend = Table::new();
            backend.insert("address".to_owned(), text(&address.to_string()));
            backend.insert("weight".to_owned(), Value::Integer((*weight).into()));
            Value::Table(backend)
        });
        let backends: Vec<_> = backends.collect();
        if !backends.is_empty() {
            set("backend", Value::Array(backends));
        }
        table
    }

    /// How the nodes of a Service are checked: kube-proxy tells of the Service itself, or of the node.
    fn health(&self, service: &Service) -> Option<Table> {
        let port = match service.health_port {
            0 => self.settings.health.proxy_port?,
            port => port,
        };
        let times = self.settings.health.times;
        let time = |time| Value::String(humantime::format_duration(time).to_string());
        let health = [
            ("type", Value::String("http".to_owned())),
            ("port", Value::Integer(port.into())),
            ("path", Value::String("/healthz".to_owned())),
            ("interval", time(times.interval)),
            ("timeout", time(times.timeout)),
            ("rise", Value::Integer(times.rise.into())),
            ("fall", Value::Integer(times.fall.into())),
        ];
        let health = health
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Some(health.collect())
    }
}

/// Writes annotations as the keys of their names; returns those that are none.
fn annotate(table: &mut Table, annotations: &BTreeMap<String, String>) -> Vec<String> {
    let mut unknown = Vec::new();
    // What a Service says of its checks is said of all of them.
    if annotations.contains_key("health.type") {
        table.remove("health");
    }
    for (annotation, value) in annotations {
        let key = annotation.replace('-', "_");
        if key == "deny" {
            let denied = value
                .split(',')
                .map(|text| Value::String(text.trim().to_owned()));
            let denied = Value::Array(denied.collect());
            table.insert(key, denied);
            continue;
        }
        match key.split_once('.') {
            None if OF_VIP.contains(&key.as_str()) => {
                table.insert(key, Value::String(value.clone()));
            }
            Some((section @ ("limit" | "health"), key)) if !key.contains('.') => {
                let section = table
                    .entry(section)
                    .or_insert_with(|| Value::Table(Table::new()));
                if let Some(section) = section.as_table_mut() {
                    section.insert(key.to_owned(), scalar(key, value));
                }
            }
            _ => unknown.push(annotation.clone()),
        }
    }
    unknown
}

/// Annotations are strings; keys may want numbers and truth values.
fn scalar(key: &str, text: &str) -> Value {
    if STRINGS.contains(&key) {
        return Value::String(text.to_owned());
    }
    match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => Value::Integer(number),
        (_, Ok(truth)) => Value::Boolean(truth),
        _ => Value::String(text.to_owned()),
    }
}

/// The annotation that a finding is about.
fn blamed(path: &str, annotations: &BTreeMap<String, String>) -> Option<String> {
    let path = path.strip_prefix("vip[0].").unwrap_or(path);
    let names = |annotation: &&String| {
        let key = annotation.replace('-', "_");
        // A list's findings name its items; a section's may name no key that was written.
        path == key
            || path
                .strip_prefix(&key)
                .is_some_and(|rest| rest.starts_with('['))
    };
    if let Some(annotation) = annotations.keys().find(names) {
        return Some(annotation.clone());
    }
    let (section, _) = path.split_once('.').unwrap_or((path, ""));
    // A backend that cannot be reached the way that was asked for.
    if section.starts_with("backend[") {
        return annotations
            .contains_key("forward")
            .then(|| "forward".to_owned());
    }
    let prefix = format!("{section}.");
    annotations
        .keys()
        .find(|annotation| annotation.starts_with(&prefix))
        .cloned()
}

/// A VIP's name: that of its Service, and its port. No two parts make the same, since namespaces and Services have no dots.
fn name(part: &Part<'_>) -> String {
    let Key { namespace, name } = part.of.0;
    let family = match Family::of(part.address) {
        Family::V4 => "",
        Family::V6 => "-v6",
    };
    let protocol = part.port.protocol.to_ascii_lowercase();
    let end = format!("{}-{protocol}{family}", part.port.port);
    let whole = format!("{namespace}.{name}.{end}");
    if whole.len() <= LONGEST_NAME {
        return whole;
    }
    let end = format!("-{}.{end}", digest(&whole));
    let start: String = whole
        .chars()
        .take(LONGEST_NAME.saturating_sub(end.len()))
        .collect();
    format!("{}{end}", start.trim_end_matches(['.', '-']))
}
