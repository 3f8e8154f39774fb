//! Where the characters of a scalar stand in the file, however it is quoted, folded or indented.

use serde_saphyr::Location;

/// The scalar's text beside the file: a mark wherever the one goes on and the other does not.
#[derive(Debug, Clone)]
pub(in crate::config) struct Written(Vec<Mark>);

/// This place of the text is that place of the file, and so is what follows in the line.
#[derive(Debug, Clone, Copy)]
struct Mark {
    text: Spot,
    file: Spot,
}

/// Line and column, from 1.
type Spot = (u64, u64);

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Block,
    Double,
    Single,
    Plain,
}

impl Written {
    /// Walks `text` and the part of `file` that it was read from side by side. `at` is what the
    /// parser says: the first character of a plain scalar, the quote of a quoted one, and of a
    /// block the first character in the first line that is not blank.
    pub(super) fn find(text: &str, at: &Location, file: &str) -> Option<Self> {
        let from = usize::try_from(at.span().byte_offset()?).ok()?;
        let style = style(file.get(..from)?, file.get(from..)?);
        let mut file = Walk { rest: file.get(from..)?, at: (at.line(), at.column()) };
        let mut marks = Vec::new();
        let mut here = (1, 1);
        let mut text = text.chars().peekable();
        match style {
            Style::Double | Style::Single => file.skip(1),
            Style::Block => {
                // The blank lines at its top.
                let blank = text.clone().take_while(|c| *c == '\n').count();
                let first = file.at.0.checked_sub(u64::try_from(blank).ok()?)?;
                while text.next_if_eq(&'\n').is_some() {
                    marks.push(Mark { text: here, file: (first + here.0 - 1, 1) });
                    here = (here.0 + 1, 1);
                }
            }
            Style::Plain => {}
        }
        marks.push(Mark { text: here, file: file.at });
        for c in text {
            let escape = file.find(c, style)?;
            let last = marks.last()?;
            if along(*last, here) != Some(file.at) {
                marks.push(Mark { text: here, file: file.at });
            }
            file.skip(escape);
            here = next(here, c);
            if c == '\n' {
                marks.push(Mark { text: here, file: file.at });
            }
        }
        Some(Self(marks))
    }

    /// The place in the file of this place in the text.
    pub(super) fn place(&self, line: u64, column: u64) -> Option<Spot> {
        let before = self.0.iter().rev().find(|mark| mark.text <= (line, column))?;
        along(*before, (line, column))
    }
}

/// Where `text` is in the file if nothing comes between it and the mark.
fn along(mark: Mark, text: Spot) -> Option<Spot> {
    let further = text.1.checked_sub(mark.text.1)?;
    (text.0 == mark.text.0).then_some((mark.file.0, mark.file.1 + further))
}

fn next((line, column): Spot, c: char) -> Spot {
    if c == '\n' { (line + 1, 1) } else { (line, column + 1) }
}

/// How a scalar is written that begins between these two.
fn style(before: &str, here: &str) -> Style {
    let (above, in_line) = before.rsplit_once('\n').unwrap_or(("", before));
    let above = above.lines().rev().find(|line| !line.trim().is_empty());
    match here.chars().next() {
        _ if in_line.trim().is_empty() && above.is_some_and(opens_block) => Style::Block,
        Some('"') => Style::Double,
        Some('\'') => Style::Single,
        _ => Style::Plain,
    }
}

/// Whether a line ends with the mark of a block: `|`, `>-`, `|2+ # with a comment`.
fn opens_block(line: &str) -> bool {
    let line = line.split_once(" #").map_or(line, |(code, _)| code).trim();
    let mark = line.trim_end_matches(|c: char| matches!(c, '+' | '-') || c.is_ascii_digit());
    !line.starts_with('#') && mark.ends_with(['|', '>'])
}

/// The file from some place on.
struct Walk<'f> {
    rest: &'f str,
    at: Spot,
}

impl Walk<'_> {
    /// Goes to where `c` is written, over what the text has nothing of: indentation, the ends of
    /// folded lines. How many characters it is written in; `None` if it is not there.
    fn find(&mut self, c: char, style: Style) -> Option<usize> {
        loop {
            let first = self.rest.chars().next()?;
            match (style, first) {
                (Style::Double, '\\') => {
                    let second = self.rest.chars().nth(1)?;
                    if !matches!(second, '\r' | '\n') {
                        return Some(escape_length(second));
                    }
                }
                (Style::Single, '\'') => return Some(2),
                _ if first == c => return Some(1),
                // A folded line end is a space of the text.
                (_, '\n') if c == ' ' => return Some(1),
                _ if !first.is_whitespace() => return None,
                _ => {}
            }
            self.skip(1);
        }
    }

    fn skip(&mut self, characters: usize) {
        for _ in 0..characters {
            let mut rest = self.rest.chars();
            let Some(c) = rest.next() else { return };
            (self.rest, self.at) = (rest.as_str(), next(self.at, c));
        }
    }
}

/// How long the escape is in which this follows the backslash.
fn escape_length(second: char) -> usize {
    match second {
        'x' => 4,
        'u' => 6,
        'U' => 10,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Node, Path, Place};

    /// Where each `@` of the text at `path` is, which must be an `@` of the file.
    fn ats(yaml: &str, path: &Path) -> Vec<(u64, u64)> {
        let tree = Node::parse(yaml).unwrap();
        let super::super::Value::Scalar(text) = &tree.find(path).unwrap().value else { panic!() };
        let mut found = Vec::new();
        for (line, written) in text.split('\n').enumerate() {
            for (column, _) in written.chars().enumerate().filter(|(_, c)| *c == '@') {
                let place = tree.place_within(path, line + 1, column + 1);
                let Some(Place::File { line, column }) = place else { panic!("{yaml}: {place:?}") };
                let there = yaml.split('\n').nth(line as usize - 1).unwrap();
                let c = there.chars().nth(column as usize - 1);
                assert_eq!(c, Some('@'), "{yaml}at {line}:{column}");
                found.push((line, column));
            }
        }
        found
    }

    fn a() -> Path {
        Path::default().name("a")
    }

    #[test]
    fn a_block_in_a_list_of_a_list() {
        let yaml = "routes:\n  - name: x\n    steps:\n      - map: |\n          one @\n            .two = @3\n\n          @\n      - b\n";
        let path = Path::default().name("routes").index(0).name("steps").index(0).name("map");
        assert_eq!(ats(yaml, &path), [(5, 15), (6, 20), (8, 11)]);
        let tree = Node::parse(yaml).unwrap();
        // Line 3 of the text is blank, and there the file has nothing, either.
        assert_eq!(tree.place_within(&path, 3, 1), Some(Place::File { line: 7, column: 1 }));
        assert_eq!(tree.place_within(&path, 0, 1), None);
        assert_eq!(tree.place_within(&path.name("no"), 1, 1), None);
    }

    #[test]
    fn blocks_of_every_kind() {
        for (yaml, places) in [
            ("a: |-\n\n\n  @\n  x@\n", vec![(4, 3), (5, 4)]),
            ("a: |2 # note\n    @\n   @\n", vec![(2, 5), (3, 4)]),
            ("a: |+ # a | b\n  \"@\" ü@\n\n", vec![(2, 4), (2, 8)]),
            ("a: |\r\n  @\r\n  x@\r\n", vec![(2, 3), (3, 4)]),
            ("a: &b !!str |\n  @\n", vec![(2, 3)]),
            (
                "a: >\n  one\n  t@o\n\n\n  @three\n   four @\n  @\n",
                vec![(3, 4), (6, 3), (7, 9), (8, 3)],
            ),
            ("a: >-\n\n  one\n  @ @\n", vec![(4, 3), (4, 5)]),
        ] {
            assert_eq!(ats(yaml, &a()), places, "{yaml}");
        }
    }

    #[test]
    fn an_alias_is_written_where_its_anchor_is() {
        let path = Path::default().index(1).name("a");
        assert_eq!(ats("- &b |\n  x @\n- a: *b\n", &path), [(2, 5)]);
    }

    #[test]
    fn quoted_and_plain_scalars() {
        for (yaml, places) in [
            ("a: x@ @\n", vec![(1, 5), (1, 7)]),
            ("a:\n  x\n  y @\n\n  z@\n", vec![(3, 5), (5, 4)]),
            ("a: \"@\"\n", vec![(1, 5)]),
            (
                "a: \"\\u00fc \\\"@\\\" \\\n    @ \\n@\n   @\"\n",
                vec![(1, 14), (2, 5), (2, 9), (3, 4)],
            ),
            ("a: 'it''s @\n\n   @ ''@'\n", vec![(1, 11), (3, 4), (3, 8)]),
            ("a:\n  # note |\n  '@'\n", vec![(3, 4)]),
            ("{ b: '|', a: '@' }\n", vec![(1, 15)]),
        ] {
            assert_eq!(ats(yaml, &a()), places, "{yaml}");
        }
    }

    proptest! {
        /// Whatever a block holds, each of its marks is found where it is.
        #[test]
        fn a_block_of_any_lines(
            lines in prop::collection::vec("[ a-z@\"'|>#:é\\\\]{0,12}", 1..8),
            indent in 1usize..6,
            mark in prop::sample::select(vec!["|", "|-", "|+", ">", ">-"]),
        ) {
            let body: String =
                lines.iter().map(|line| format!("{:indent$}{line}\n", "")).collect();
            let yaml = format!("a: {mark}{indent}\n{body}b: 1\n");
            // The parser refuses few of these.
            if Node::parse(&yaml).is_ok_and(|tree| tree.find(&a()).is_some_and(|node| matches!(node.value, super::super::Value::Scalar(_)))) {
                let count = body.matches('@').count();
                prop_assert_eq!(ats(&yaml, &a()).len(), count, "{}", yaml);
            }
        }
    }
}
