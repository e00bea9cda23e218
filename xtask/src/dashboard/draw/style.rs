//! Sizes and colours, after Grafana's dark theme.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// Width of a picture, in pixels.
pub(super) const WIDTH: u32 = 1200;
/// Width of a column of the grid.
pub(super) const COLUMN: u32 = WIDTH / 24;
/// Height of a line of the grid.
pub(super) const LINE: u32 = 30;
/// Height of the row's own title.
pub(super) const HEAD: u32 = 32;
/// Height of a panel's title.
pub(super) const TITLE: u32 = 28;
/// Between panels.
pub(super) const GAP: u32 = 8;

pub(super) const BACKGROUND: RGBColor = RGBColor(17, 18, 23);
pub(super) const PANEL: RGBColor = RGBColor(24, 27, 31);
pub(super) const GRID: RGBColor = RGBColor(46, 49, 56);
pub(super) const TEXT: RGBColor = RGBColor(204, 204, 220);
pub(super) const MUTED: RGBColor = RGBColor(142, 142, 156);

/// The colours of series, in order.
const PALETTE: [RGBColor; 12] = [
    RGBColor(115, 191, 105),
    RGBColor(242, 204, 12),
    RGBColor(138, 184, 255),
    RGBColor(255, 120, 10),
    RGBColor(242, 73, 92),
    RGBColor(87, 148, 242),
    RGBColor(184, 119, 217),
    RGBColor(112, 93, 160),
    RGBColor(55, 135, 45),
    RGBColor(250, 222, 42),
    RGBColor(68, 126, 188),
    RGBColor(193, 92, 23),
];

/// A colour by its name in the dashboard.
pub(super) fn colour(name: &str) -> RGBColor {
    match name {
        "green" => RGBColor(115, 191, 105),
        "orange" => RGBColor(255, 152, 48),
        "red" => RGBColor(242, 73, 92),
        "yellow" => RGBColor(250, 222, 42),
        _ => RGBColor(87, 148, 242),
    }
}

/// The colour of the series with this number.
pub(super) fn palette(number: usize) -> RGBColor {
    let colours = PALETTE.iter().cycle();
    colours.copied().nth(number).unwrap_or(TEXT)
}

/// A colour over the panel, so that nothing shines through.
pub(super) fn over_panel(colour: RGBColor, percent: u16) -> RGBColor {
    let mix = |over: u8, under: u8| {
        ((u16::from(over) * percent + u16::from(under) * (100 - percent)) / 100) as u8
    };
    RGBColor(
        mix(colour.0, PANEL.0),
        mix(colour.1, PANEL.1),
        mix(colour.2, PANEL.2),
    )
}

/// Text of a size, from its upper left corner.
pub(super) fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}

/// Text of a size, around a point.
pub(super) fn centred(size: u32, colour: RGBColor) -> TextStyle<'static> {
    text(size, colour).pos(Pos::new(HPos::Center, VPos::Center))
}

/// How wide text of a size is, about: the backend does not know the font.
pub(super) fn width_of(text: &str, size: u32) -> i32 {
    let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    pixels(characters.saturating_mul(size) * 11 / 20)
}

/// Text that fits into a width, cut if need be.
pub(super) fn fitting(text: &str, size: u32, width: i32) -> String {
    if width_of(text, size) <= width {
        return text.to_owned();
    }
    let mut cut = text.to_owned();
    while !cut.is_empty() && width_of(&cut, size) + width_of("…", size) > width {
        cut.pop();
    }
    cut + "…"
}

/// The time of labels, every half minute.
pub(super) fn ticks(seconds: f64) -> Vec<f64> {
    let all = (0..).map(|half| f64::from(half) * 30.0);
    all.take_while(|time| *time <= seconds).collect()
}

/// A time from the beginning.
pub(super) fn minutes(seconds: f64) -> String {
    let seconds = seconds.round();
    format!("{:.0}:{:02.0}", (seconds / 60.0).floor(), seconds % 60.0)
}

/// A length as a coordinate.
pub(super) fn pixels(length: u32) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}
