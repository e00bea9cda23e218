//! `profile.proto` of <https://github.com/google/pprof>, as far as it is filled in here.
//!
//! The profiler's own writer brings another version of prost and its compiler; these few messages are all that it writes.

use std::{collections::HashMap, time::UNIX_EPOCH};

use pprof::{Frames, Report, Symbol};
use prost::Message;

/// A whole profile. Text is kept once, in a table, and told by its place there.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub(super) sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub(super) sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    pub(super) location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub(super) function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub(super) string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

/// What a value of a sample is.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ValueType {
    #[prost(int64, tag = "1")]
    pub(super) kind: i64,
    #[prost(int64, tag = "2")]
    pub(super) unit: i64,
}

/// One stack, innermost first, and how often it was seen.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

/// More about a sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

/// A place in the code.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Location {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(message, repeated, tag = "4")]
    pub(super) line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Line {
    #[prost(uint64, tag = "1")]
    pub(super) function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Function {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(int64, tag = "2")]
    pub(super) name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// A report as the bytes of a profile.
pub(super) fn encode(report: &Report) -> Vec<u8> {
    let mut writer = Writer::default();
    // The table must begin so.
    writer.text("");
    let samples = writer.value_type("samples", "count");
    let cpu = writer.value_type("cpu", "nanoseconds");
    let period = 1_000_000_000 / i64::from(report.timing.frequency.max(1));
    for (frames, count) in &report.data {
        writer.sample(frames, i64::try_from(*count).unwrap_or(i64::MAX), period);
    }
    let nanoseconds = |nanoseconds: u128| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let began = report.timing.start_time.duration_since(UNIX_EPOCH);
    let profile = Profile {
        sample_type: vec![samples, cpu],
        time_nanos: nanoseconds(began.unwrap_or_default().as_nanos()),
        duration_nanos: nanoseconds(report.timing.duration.as_nanos()),
        period_type: Some(cpu),
        period,
        ..writer.profile
    };
    profile.encode_to_vec()
}

/// A profile that grows, and what it has already.
#[derive(Default)]
struct Writer {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<String, u64>,
    locations: HashMap<(u64, u32), u64>,
}

impl Writer {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let place = i64::try_from(self.texts.len()).unwrap_or(i64::MAX);
        self.texts.insert(text.to_owned(), place);
        self.profile.string_table.push(text.to_owned());
        place
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        let (kind, unit) = (self.text(kind), self.text(unit));
        ValueType { kind, unit }
    }

    fn sample(&mut self, frames: &Frames, count: i64, period: i64) {
        let symbols = frames.frames.iter().flatten();
        let location_id = symbols.map(|symbol| self.location(symbol)).collect();
        let key = self.text("thread");
        let text = self.text(&frames.thread_name_or_id());
        self.profile.sample.push(Sample {
            location_id,
            value: vec![count, count.saturating_mul(period)],
            label: vec![Label { key, text }],
        });
    }

    fn location(&mut self, symbol: &Symbol) -> u64 {
        let function_id = self.function(symbol);
        let place = (function_id, symbol.lineno());
        if let Some(known) = self.locations.get(&place) {
            return *known;
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.insert(place, id);
        let line = i64::from(symbol.lineno());
        self.profile.location.push(Location {
            id,
            line: vec![Line { function_id, line }],
        });
        id
    }

    fn function(&mut self, symbol: &Symbol) -> u64 {
        let system_name = symbol.sys_name();
        if let Some(known) = self.functions.get(system_name.as_ref()) {
            return *known;
        }
        let id = self.functions.len() as u64 + 1;
        let function = Function {
            id,
            name: self.text(&symbol.name()),
            system_name: self.text(&system_name),
            filename: self.text(&symbol.filename()),
        };
        self.functions.insert(system_name.into_owned(), id);
        self.profile.function.push(function);
        id
    }
}
