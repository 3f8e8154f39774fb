//! What a terminal is shown: colours, and texts that do nothing to it.

use std::{
    fmt::{self, Display},
    io::IsTerminal,
};

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// For a person at a terminal.
    Colour,
    /// For a file, a pipe, or somebody who set `NO_COLOR`.
    Plain,
}

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Strong,
    Weak,
    Good,
    Bad,
}

/// A text in its colour.
pub(super) struct Painted<T>(Paint, Tone, T);

impl Paint {
    /// What fits this output. <https://no-color.org>
    #[must_use]
    pub fn for_output(output: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if output.is_terminal() && !unwanted { Self::Colour } else { Self::Plain }
    }

    pub(super) fn in_tone<T: Display>(self, tone: Tone, text: T) -> Painted<T> {
        Painted(self, tone, text)
    }

    pub(super) fn strong<T: Display>(self, text: T) -> Painted<T> {
        Painted(self, Tone::Strong, text)
    }

    pub(super) fn weak<T: Display>(self, text: T) -> Painted<T> {
        Painted(self, Tone::Weak, text)
    }

    pub(super) fn good<T: Display>(self, text: T) -> Painted<T> {
        Painted(self, Tone::Good, text)
    }

    pub(super) fn bad<T: Display>(self, text: T) -> Painted<T> {
        Painted(self, Tone::Bad, text)
    }
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(paint, tone, text) = self;
        if *paint == Paint::Plain {
            return text.fmt(f);
        }
        let code = match tone {
            Tone::Strong => 1,
            Tone::Weak => 2,
            Tone::Good => 32,
            Tone::Bad => 31,
        };
        write!(f, "\x1b[{code}m{text}\x1b[0m")
    }
}

/// A text from outside, for a terminal: in one line, without control characters, and cut.
pub(super) fn clean(text: &str, max: usize) -> String {
    let mut shown: String =
        text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_gets_colours() {
        assert_eq!(Paint::Colour.bad("x").to_string(), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint::Plain.bad("x").to_string(), "x");
        assert_eq!(Paint::for_output(&tempfile::tempfile().unwrap()), Paint::Plain);
    }
}
