use std::time::Duration;

use crossterm::event::KeyCode;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Color};

use super::*;
use crate::cli::top::testing;

const SIZES: [(u16, u16); 2] = [(80, 24), (132, 43)];

fn state(keys: &str) -> State {
    let mut state = State::new(None, Pane::Drops, Duration::from_secs(2));
    for key in keys.chars() {
        let key = match key {
            '\n' => KeyCode::Enter,
            'v' => KeyCode::Down,
            letter => KeyCode::Char(letter),
        };
        state.key(key.into(), Some(&testing::top()));
    }
    state
}

fn drawn(view: &View<'_>, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|area| frame(area, view)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width).map(|line| {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

/// Draws at both sizes, and holds the pictures against what they were.
fn snapshots(name: &str, state: &State, top: Option<&Top>, away: Option<&Away>) {
    for size in SIZES {
        let look = Look::default();
        let view = View {
            state,
            top,
            away,
            look,
        };
        testing::snapshot(
            &format!("{name}-{}x{}", size.0, size.1),
            &text(&drawn(&view, size)),
        );
    }
}

#[test]
fn vips_with_drops() {
    snapshots("vips", &state(""), Some(&testing::top()), None);
}

#[test]
fn backends_of_a_vip_with_its_limits() {
    snapshots("backends", &state("\nhvl"), Some(&testing::top()), None);
}

#[test]
fn top_sources() {
    snapshots("sources", &state("s"), Some(&testing::top()), None);
}

#[test]
fn help_tells_every_key() {
    snapshots("help", &state("?"), Some(&testing::top()), None);
    let view = View {
        state: &state("?"),
        top: None,
        away: None,
        look: Look::default(),
    };
    // All of it is there at 80×24.
    assert!(text(&drawn(&view, (80, 24))).contains("without the FCS"));
}

#[test]
fn a_filter_while_it_is_written() {
    snapshots("filter", &state("/we"), Some(&testing::top()), None);
}

#[test]
fn a_daemon_that_does_not_answer() {
    let away = Away {
        since: "21:14:13".to_owned(),
        error: "no daemon listens on /run/weir/weir.sock: Connection refused".to_owned(),
    };
    snapshots("away", &state(" "), Some(&testing::top()), Some(&away));
    snapshots("never", &state(""), None, Some(&away));
}

#[test]
fn a_vip_that_has_gone_and_samples_that_there_are_not() {
    let mut top = testing::top();
    let state = state("\ns");
    top.vips.remove(0);
    let sampled = top.sampled_sources.as_mut().unwrap();
    sampled.unavailable = Some("this daemon does not sample packets".to_owned());
    sampled.top.clear();
    top.problems = vec!["the maps are full".to_owned(), "so it is".to_owned()];
    top.interfaces[0].state = "absent";
    snapshots("gone", &state, Some(&top), None);
}

#[test]
fn no_size_is_too_small() {
    let top = testing::top();
    let away = Away {
        since: "21:14:13".to_owned(),
        error: "nobody".to_owned(),
    };
    for keys in ["", "\n", "s", "l", "\ns", "?", "/x"] {
        let state = state(keys);
        for width in [0, 1, 2, 7, 20, 79, 300] {
            for height in [0, 1, 2, 5, 15, 16, 100] {
                let view = View {
                    state: &state,
                    top: Some(&top),
                    away: Some(&away),
                    look: Look::default(),
                };
                drawn(&view, (width, height));
            }
        }
    }
}

#[test]
fn many_vips_are_scrolled_to_the_chosen_one() {
    let mut top = testing::top();
    let vip = top.vips[0].clone();
    top.vips = (0..500)
        .map(|number| {
            let mut vip = vip.clone();
            vip.name = format!("vip-{number:03}");
            vip
        })
        .collect();
    let mut state = State::new(None, Pane::Drops, Duration::from_secs(1));
    state.key(KeyCode::End.into(), Some(&top));
    let view = View {
        state: &state,
        top: Some(&top),
        away: None,
        look: Look::default(),
    };
    let shown = text(&drawn(&view, (80, 24)));
    assert!(
        shown.contains(">vip-499") && !shown.contains("vip-000"),
        "{shown}"
    );
}

#[test]
fn colours_are_there_only_where_they_are_wanted_and_change_no_word() {
    let (top, state) = (testing::top(), state("\nl"));
    let [plain, coloured] = [false, true].map(|has_colours| {
        let view = View {
            state: &state,
            top: Some(&top),
            away: None,
            look: Look { has_colours },
        };
        drawn(&view, (80, 24))
    });
    let has = |buffer: &Buffer| {
        buffer
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!has(&plain) && has(&coloured));
    assert_eq!(text(&plain), text(&coloured));
}
