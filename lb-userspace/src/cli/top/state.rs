//! What the screen is about, and what keys make of it. Pure.

use std::{cmp::Ordering, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Backend, Top, Vip};

/// Intervals that `+` and `-` go through, in ms.
const INTERVALS: [u64; 9] = [200, 500, 1000, 2000, 3000, 5000, 10_000, 30_000, 60_000];

/// How many rows a page has.
const PAGE: usize = 10;

/// What the screen is about.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The VIP whose backends are shown; all VIPs where there is none.
    pub(super) vip: Option<String>,
    pub(super) mode: Mode,
    pub(super) pane: Pane,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) is_paused: bool,
    pub(super) interval: Duration,
    /// Of the VIPs, and of the backends of one.
    vips: List,
    backends: List,
}

/// What keys mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Browse,
    /// They write the filter.
    Filter,
    /// Any leaves the help.
    Help,
}

/// What is below the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pane {
    Drops,
    Limits,
    Sources,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sort {
    Packets,
    Bits,
    Connections,
    Name,
    /// The worst state.
    Health,
    /// Of VIPs what is nearest to its limit, of backends whose packets are furthest from its slots.
    Use,
}

impl Sort {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bits => "bits",
            Self::Connections => "connections",
            Self::Name => "name",
            Self::Health => "health",
            Self::Use => "use",
        }
    }
}

/// Rows of a table: which one is chosen, by its name, and which are shown.
#[derive(Clone, Debug, Default)]
struct List {
    chosen: Option<String>,
    filter: String,
}

/// What is to be done beyond what the state says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    None,
    Quit,
    /// The shell is to come back until it says otherwise.
    Suspend,
}

impl State {
    pub(super) fn new(vip: Option<String>, pane: Pane, interval: Duration) -> Self {
        Self {
            vip,
            mode: Mode::Browse,
            pane,
            sort: Sort::Packets,
            is_reversed: false,
            is_paused: false,
            interval,
            vips: List::default(),
            backends: List::default(),
        }
    }

    fn list(&self) -> &List {
        if self.vip.is_some() {
            &self.backends
        } else {
            &self.vips
        }
    }

    fn list_mut(&mut self) -> &mut List {
        if self.vip.is_some() {
            &mut self.backends
        } else {
            &mut self.vips
        }
    }

    pub(super) fn filter(&self) -> &str {
        &self.list().filter
    }

    /// The VIPs that are shown, in order.
    pub(super) fn vips<'a>(&self, top: &'a Top) -> Vec<&'a Vip> {
        let wanted = self.vips.filter.to_lowercase();
        let mut vips: Vec<_> = top
            .vips
            .iter()
            .filter(|vip| {
                let dialled = vip.dialled();
                let state = vip.state.as_str();
                let own = [vip.name.as_str(), &dialled, state];
                let addresses = vip.backends.iter().map(|one| one.address.to_string());
                own.iter().any(|text| text.to_lowercase().contains(&wanted))
                    || addresses.into_iter().any(|text| text.contains(&wanted))
            })
            .collect();
        vips.sort_by(|a, b| {
            let order = match self.sort {
                Sort::Packets => more(a.rates.packets_per_second, b.rates.packets_per_second),
                Sort::Bits => more(a.rates.bits_per_second, b.rates.bits_per_second),
                Sort::Connections => more(
                    a.rates.new_connections_per_second,
                    b.rates.new_connections_per_second,
                ),
                Sort::Name => a.name.cmp(&b.name),
                Sort::Health => health(a).cmp(&health(b)),
                Sort::Use => more(a.limit_used, b.limit_used),
            };
            self.directed(order)
        });
        vips
    }

    /// The backends that are shown, in order.
    pub(super) fn backends<'a>(&self, vip: &'a Vip) -> Vec<&'a Backend> {
        let wanted = self.backends.filter.to_lowercase();
        let mut backends: Vec<_> = vip
            .backends
            .iter()
            .filter(|one| {
                let text = format!("{} {}", one.address, one.state.as_str());
                text.contains(&wanted)
            })
            .collect();
        backends.sort_by(|a, b| {
            let order = match self.sort {
                Sort::Packets => more(a.rates.packets_per_second, b.rates.packets_per_second),
                Sort::Bits => more(a.rates.bits_per_second, b.rates.bits_per_second),
                Sort::Connections => more(
                    a.rates.new_connections_per_second,
                    b.rates.new_connections_per_second,
                ),
                Sort::Name => a.address.cmp(&b.address),
                Sort::Health => a.state.cmp(&b.state),
                Sort::Use => more(a.skew(), b.skew()),
            };
            self.directed(order)
        });
        backends
    }

    fn directed(&self, order: Ordering) -> Ordering {
        if self.is_reversed {
            order.reverse()
        } else {
            order
        }
    }

    /// The VIP that is drilled into, if it is still there.
    pub(super) fn drilled<'a>(&self, top: &'a Top) -> Option<&'a Vip> {
        let name = self.vip.as_ref()?;
        top.vips.iter().find(|vip| vip.name == *name)
    }

    /// Names of the rows, as they are shown.
    fn rows(&self, top: Option<&Top>) -> Vec<String> {
        let Some(top) = top else {
            return Vec::new();
        };
        if self.vip.is_none() {
            return self.vips(top).iter().map(|vip| vip.name.clone()).collect();
        }
        let backends = self.drilled(top).map(|vip| self.backends(vip));
        let backends = backends.unwrap_or_default();
        backends.iter().map(|one| row_name(one)).collect()
    }

    /// Which of the rows is chosen: the first, until one is.
    pub(super) fn chosen(&self, top: Option<&Top>) -> usize {
        let rows = self.rows(top);
        let chosen = self.list().chosen.as_ref();
        let index = chosen.and_then(|name| rows.iter().position(|row| row == name));
        index.unwrap_or_default()
    }

    /// What a key makes of it, with what is on the screen.
    pub(super) fn key(&mut self, key: KeyEvent, top: Option<&Top>) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Effect::Quit,
                KeyCode::Char('z') => return Effect::Suspend,
                KeyCode::Char('u') if self.mode == Mode::Filter => self.list_mut().filter.clear(),
                _ => {}
            }
            return Effect::None;
        }
        match self.mode {
            Mode::Help => self.mode = Mode::Browse,
            Mode::Filter => self.write_filter(key.code),
            Mode::Browse => return self.browse(key.code, top),
        }
        Effect::None
    }

    fn write_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(letter) => self.list_mut().filter.push(letter),
            KeyCode::Backspace => {
                self.list_mut().filter.pop();
            }
            KeyCode::Enter => self.mode = Mode::Browse,
            KeyCode::Esc => {
                self.list_mut().filter.clear();
                self.mode = Mode::Browse;
            }
            _ => {}
        }
    }

    fn browse(&mut self, key: KeyCode, top: Option<&Top>) -> Effect {
        match key {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('+') => self.interval = longer(self.interval),
            KeyCode::Char('-') => self.interval = shorter(self.interval),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('p') => self.sort = Sort::Packets,
            KeyCode::Char('b') => self.sort = Sort::Bits,
            KeyCode::Char('c') => self.sort = Sort::Connections,
            KeyCode::Char('n') => self.sort = Sort::Name,
            KeyCode::Char('h') => self.sort = Sort::Health,
            KeyCode::Char('u') => self.sort = Sort::Use,
            KeyCode::Char('d') => self.pane = Pane::Drops,
            KeyCode::Char('l') => self.toggle(Pane::Limits),
            KeyCode::Char('s') => self.toggle(Pane::Sources),
            KeyCode::Up | KeyCode::Char('k') => self.choose(top, |at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(top, |at, _| at + 1),
            KeyCode::PageUp => self.choose(top, |at, _| at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.choose(top, |at, _| at + PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.choose(top, |_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.choose(top, |_, last| last),
            KeyCode::Enter | KeyCode::Right if self.vip.is_none() => {
                let rows = self.rows(top);
                self.vip = rows.into_iter().nth(self.chosen(top));
                self.vips.chosen.clone_from(&self.vip);
                self.backends = List::default();
            }
            KeyCode::Esc if !self.filter().is_empty() => self.list_mut().filter.clear(),
            KeyCode::Esc | KeyCode::Left => self.vip = None,
            _ => {}
        }
        Effect::None
    }

    fn toggle(&mut self, pane: Pane) {
        self.pane = if self.pane == pane { Pane::Drops } else { pane };
    }

    fn choose(&mut self, top: Option<&Top>, to: impl Fn(usize, usize) -> usize) {
        let rows = self.rows(top);
        let last = rows.len().saturating_sub(1);
        let at = to(self.chosen(top), last).min(last);
        self.list_mut().chosen = rows.into_iter().nth(at);
    }
}

/// An address may be there twice: as it leaves, and as it comes back.
fn row_name(backend: &Backend) -> String {
    format!("{} {}", backend.address, backend.id)
}

/// The worst of a VIP and its backends.
fn health(vip: &Vip) -> impl Ord {
    let worst = vip.backends.iter().map(|one| one.state).min();
    (vip.state, worst.is_none(), worst)
}

/// The larger first, then what is not known.
fn more(a: Option<f64>, b: Option<f64>) -> Ordering {
    let value = |rate: Option<f64>| rate.unwrap_or(-1.0);
    value(b).total_cmp(&value(a))
}

fn longer(interval: Duration) -> Duration {
    let mut steps = INTERVALS.into_iter().map(Duration::from_millis);
    steps.find(|step| *step > interval).unwrap_or(interval)
}

fn shorter(interval: Duration) -> Duration {
    let steps = INTERVALS.into_iter().rev().map(Duration::from_millis);
    let mut steps = steps.skip_while(|step| *step >= interval);
    steps.next().unwrap_or(interval)
}

#[cfg(test)]
mod tests;
