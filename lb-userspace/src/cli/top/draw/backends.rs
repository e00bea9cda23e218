//! One VIP: its backends, and what each takes against what it should.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::Line,
    widgets::{Cell, Row, TableState},
};

use super::{
    View, WIDE, bar, forwarded, order,
    text::{elided, number, rate, room, share, table},
};
use crate::cli::{
    limits::si,
    top::{
        look::Look,
        model::{Backend, BackendState, Top, Vip},
        rates::float,
    },
};

const OTHERS: [(&str, u16); 7] = [
    ("STATE", 10),
    ("WEIGHT", 6),
    ("SLOTS", 6),
    ("TRAFFIC", 7),
    ("PACKETS/S", 9),
    ("BITS/S", 7),
    ("NEW/S", 6),
];

/// Where there is room.
const MORE: [(&str, u16); 2] = [("FLOWS", 7), ("TRAFFIC #, SLOTS |", 22)];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, top: &Top) {
    let rows = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [bar_area, vip_area, area, detail] = Layout::vertical(rows).areas(area);
    let Some(vip) = view.state.drilled(top) else {
        let name = view.state.vip.as_deref().unwrap_or_default();
        let text = format!("there is no VIP {name} (any more); Esc goes back");
        frame.render_widget(Line::raw(text), vip_area);
        return;
    };
    let backends = view.state.backends(vip);
    let order = order(view, backends.len(), vip.backends.len());
    let text = format!("VIP {} {}: backends: {order}", vip.name, vip.dialled());
    frame.render_widget(bar(&text, bar_area), bar_area);
    frame.render_widget(Line::raw(vip_line(vip)), vip_area);
    if backends.is_empty() {
        let text = if vip.backends.is_empty() {
            "it has no backend"
        } else {
            "no backend matches the filter (Esc clears it)"
        };
        frame.render_widget(Line::raw(text), area);
        return;
    }
    let mut others = OTHERS.to_vec();
    if area.width >= WIDE {
        others.extend(MORE);
    }
    let address = room(area.width, &others, 1);
    let mut columns = vec![("BACKEND", address)];
    columns.extend(others);
    let shares = backends
        .iter()
        .map(|one| one.traffic_share.unwrap_or_default().max(one.slots_share));
    let most = shares.fold(0.0, f64::max);
    let rows = backends.iter().map(|one| {
        let traffic = one.traffic_share.map_or_else(|| "-".to_owned(), share);
        let mut cells = vec![
            Cell::from(elided(&one.address.to_string(), address.into())),
            state(one, view.look),
            number(one.weight.to_string()),
            number(share(one.slots_share)),
            number(traffic),
            number(rate(one.rates.packets_per_second)),
            number(rate(one.rates.bits_per_second)),
            number(rate(one.rates.new_connections_per_second)),
        ];
        if area.width >= WIDE {
            cells.push(number(si(float(one.pins))));
            cells.push(Cell::from(compared(one, most)));
        }
        let is_old = view.away.is_some();
        Row::new(cells).style(if is_old { Look::old() } else { Style::new() })
    });
    let table = table(rows.collect(), &columns, 2, view.look);
    let index = view.state.chosen(Some(top));
    let mut chosen = TableState::new().with_selected(index);
    frame.render_stateful_widget(table, area, &mut chosen);
    if let Some(backend) = backends.get(index) {
        let line = elided(&detail_line(backend), detail.width.into());
        frame.render_widget(Line::raw(line), detail);
    }
}

fn vip_line(vip: &Vip) -> String {
    let changing = match vip.slots_changing {
        0 => String::new(),
        slots => format!("; {slots} slots change hands"),
    };
    let state = vip.state.as_str();
    format!("{state}; {}{changing}", forwarded(&vip.rates))
}

/// What the table has no room for, of the backend that is chosen.
fn detail_line(backend: &Backend) -> String {
    let mode = backend.mode.map(|mode| format!(", {mode}"));
    let error = backend.last_error.as_ref();
    let error = error.map(|error| format!("; last check: {error}"));
    format!(
        "{}{}: by weight {}, {} flows remembered{}",
        backend.address,
        mode.unwrap_or_default(),
        share(backend.weight_share),
        si(float(backend.pins)),
        error.unwrap_or_default()
    )
}

fn state(backend: &Backend, look: Look) -> Cell<'static> {
    let style = match backend.state {
        BackendState::Failed | BackendState::Unresolved | BackendState::Dead => look.bad(),
        BackendState::Leaving | BackendState::Drained | BackendState::Unchecked => look.unusual(),
        BackendState::Ok => Style::new(),
    };
    Cell::from(backend.state.as_str()).style(style)
}

/// Its share of the packets as a bar, with a mark at its share of the slots; the largest share has all the room.
fn compared(backend: &Backend, most: f64) -> String {
    let width = f64::from(MORE[1].1) - 1.0;
    let place = |share: f64| {
        if most > 0.0 {
            (share / most * width).round()
        } else {
            0.0
        }
    };
    let traffic = place(backend.traffic_share.unwrap_or_default());
    let slots = place(backend.slots_share);
    (0..MORE[1].1)
        .map(f64::from)
        .map(|at| match at {
            at if (at - slots).abs() < 0.5 => '|',
            at if at < traffic => '#',
            _ => ' ',
        })
        .collect()
}
