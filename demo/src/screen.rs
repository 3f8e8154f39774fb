//! The terminal: lines that stay, and below them a table that is drawn again and again.

use std::io::{IsTerminal, Write, stdout};

/// Takes down what was drawn and everything below: up by so many lines, then erase.
fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// Lines longer than the terminal is wide must not wrap, or `erase` would miss some of them.
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";

/// Standard output.
pub(crate) struct Screen {
    is_terminal: bool,
    drawn: usize,
}

impl Screen {
    /// The one there is.
    pub(crate) fn new() -> Self {
        Self { is_terminal: stdout().is_terminal(), drawn: 0 }
    }

    /// Whether a table can be drawn in place.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Draws `text` where it was drawn before. For a terminal only.
    pub(crate) fn draw(&mut self, text: &str) {
        let back = erase(self.drawn);
        put(&format!("{back}{WRAP_OFF}{text}{WRAP_ON}"));
        self.drawn = text.lines().count();
    }

    /// Prints `text` for good, above what is drawn.
    pub(crate) fn say(&mut self, text: &str) {
        put(&format!("{}{text}", erase(self.drawn)));
        self.drawn = 0;
    }
}

/// A reader that has gone away, such as `head`, is no reason to stop half-way.
fn put(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
