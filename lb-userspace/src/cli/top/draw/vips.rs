//! The table of all VIPs.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::Line,
    widgets::{Cell, Row, TableState},
};

use super::{
    View, WIDE, bar, order,
    text::{elided, longest, number, rate, room, table, used},
};
use crate::cli::{
    limits::si,
    top::{
        look::Look,
        model::{Top, Vip, VipState},
        rates::float,
    },
};

/// What a name leaves to what clients dial, at least.
const DIALLED: u16 = 12;

const NUMBERS: [(&str, u16); 5] = [
    ("UP", 5),
    ("PACKETS/S", 9),
    ("BITS/S", 7),
    ("NEW/S", 6),
    ("LIMIT", 5),
];

/// Where there is room.
const MORE: [(&str, u16); 2] = [("MOVING", 6), ("FLOWS", 7)];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, top: &Top) {
    let [bar_area, area] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let vips = view.state.vips(top);
    let text = format!("VIPs: {}", order(view, vips.len(), top.vips.len()));
    frame.render_widget(bar(&text, bar_area), bar_area);
    if vips.is_empty() {
        let text = if top.vips.is_empty() {
            "there is no VIP"
        } else {
            "no VIP matches the filter (Esc clears it)"
        };
        frame.render_widget(Line::raw(text), area);
        return;
    }
    let mut others = vec![("STATE", 10)];
    others.extend(NUMBERS);
    if area.width >= WIDE {
        others.extend(MORE);
    }
    let names = room(area.width, &others, 2);
    let name = longest(vips.iter().map(|vip| vip.name.chars().count()));
    let name = name.clamp(3, names.saturating_sub(DIALLED).max(3));
    let dialled = names.saturating_sub(name);
    let mut columns = vec![("VIP", name), ("DIALLED", dialled)];
    columns.extend(others);
    let rows = vips.iter().map(|vip| {
        let mut cells = vec![
            Cell::from(elided(&vip.name, name.into())),
            Cell::from(elided(&vip.dialled(), dialled.into())),
            state(vip, view.look),
            number(format!("{}/{}", vip.backends_in_use, vip.configured())),
            number(rate(vip.rates.packets_per_second)),
            number(rate(vip.rates.bits_per_second)),
            number(rate(vip.rates.new_connections_per_second)),
            limit(vip, view.look),
        ];
        if area.width >= WIDE {
            cells.push(number(vip.slots_changing.to_string()));
            cells.push(number(si(float(vip.pins))));
        }
        let is_old = view.away.is_some();
        Row::new(cells).style(if is_old { Look::old() } else { Style::new() })
    });
    let table = table(rows.collect(), &columns, 3, view.look);
    let mut chosen = TableState::new().with_selected(view.state.chosen(Some(top)));
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn state(vip: &Vip, look: Look) -> Cell<'static> {
    let style = match vip.state {
        VipState::NoBackend => look.bad(),
        VipState::FailsOpen => look.unusual(),
        VipState::Ok => Style::new(),
    };
    Cell::from(vip.state.as_str()).style(style)
}

fn limit(vip: &Vip, look: Look) -> Cell<'static> {
    let style = match vip.limit_used {
        Some(used) if used >= 1.0 => look.bad(),
        Some(used) if used >= 0.8 => look.unusual(),
        _ => Style::new(),
    };
    Cell::from(Line::raw(used(vip.limit_used)).right_aligned()).style(style)
}
