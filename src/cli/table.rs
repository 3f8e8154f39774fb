//! Columns for a terminal.

use std::fmt::Display;

use super::paint::{Paint, Tone, clean};

/// What stands in one place.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Option<Tone>,
    /// Whether it ends where its column does.
    is_number: bool,
}

impl Cell {
    fn new(text: impl Display, tone: Option<Tone>) -> Self {
        Self { text: clean(&text.to_string(), usize::MAX), tone, is_number: false }
    }

    pub(super) fn plain(text: impl Display) -> Self {
        Self::new(text, None)
    }

    pub(super) fn strong(text: impl Display) -> Self {
        Self::new(text, Some(Tone::Strong))
    }

    pub(super) fn weak(text: impl Display) -> Self {
        Self::new(text, Some(Tone::Weak))
    }

    pub(super) fn bad(text: impl Display) -> Self {
        Self::new(text, Some(Tone::Bad))
    }

    pub(super) fn good(text: impl Display) -> Self {
        Self::new(text, Some(Tone::Good))
    }

    pub(super) fn number(text: impl Display) -> Self {
        Self { is_number: true, ..Self::new(text, None) }
    }
}

/// The rows, one under the other.
pub(super) fn table(rows: &[Vec<Cell>], paint: Paint) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    // The heads of columns of numbers stand over them.
    let has_numbers =
        |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|it| it.is_number));
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            // Padded before it is coloured, or the colour would count as width.
            let (it, wide) = (&cell.text, widths[column]);
            let padded = match has_numbers(column) {
                true => format!("{it:>wide$}"),
                false if column + 1 == row.len() => it.clone(),
                false => format!("{it:<wide$}"),
            };
            if column > 0 {
                line += "  ";
            }
            match cell.tone {
                Some(tone) => line += &paint.in_tone(tone, padded).to_string(),
                None => line += &padded,
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
