//! How things look. Colour only underlines what words say, and only where the terminal has colours.

use std::env;

use ratatui::style::{Color, Modifier, Style};

use crate::logging::no_colour;

/// Whether there are colours. The eight that every terminal with colours has, so that its own scheme holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) has_colours: bool,
}

impl Look {
    /// What the terminal and its user want.
    pub(super) fn of_terminal() -> Self {
        let term = env::var("TERM").unwrap_or_default();
        Self {
            has_colours: !no_colour() && has_colours(&term),
        }
    }

    fn coloured(self, colour: Color, style: Style) -> Style {
        if self.has_colours {
            style.fg(colour)
        } else {
            style
        }
    }

    /// Somebody should look.
    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red, Style::new().bold())
    }

    /// Unusual.
    pub(super) fn unusual(self) -> Style {
        self.coloured(Color::Yellow, Style::new())
    }

    /// Names of columns.
    pub(super) fn heading(self) -> Style {
        self.coloured(Color::Cyan, Style::new().bold())
    }

    /// The name of a part of the screen.
    pub(super) fn bar() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The row that is chosen.
    pub(super) fn chosen() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What was, and is not known any more.
    pub(super) fn old() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

/// Whether a terminal of this type has colours: those that have none say so by their names.
fn has_colours(term: &str) -> bool {
    let is_plain = ["dumb", "vt", "ansi-m", "linux-m"];
    !term.is_empty()
        && !is_plain.iter().any(|plain| term.starts_with(plain))
        && !term.contains("mono")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_without_colours_get_none() {
        for term in ["", "dumb", "vt100", "vt220", "ansi-m", "xterm-mono"] {
            assert!(!has_colours(term), "{term}");
        }
        for term in ["xterm-256color", "screen", "tmux-256color", "linux", "ansi"] {
            assert!(has_colours(term), "{term}");
        }
        assert_eq!(Look::default().bad().fg, None);
        let look = Look { has_colours: true };
        assert_eq!(look.bad().fg, Some(Color::Red));
    }
}
