//! Text with stars, each of which stands for any characters, also none.

use std::sync::Arc;

/// The pieces of text between stars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wildcard {
    /// At least one; the first and the last are at the ends of the text.
    pieces: Vec<Arc<str>>,
}

/// EventBridge refuses a text with so many stars that it would cost too much to match. It counts
/// otherwise; what it refuses in its own examples has more than this.
const STARS_MAX: usize = 5;

impl Wildcard {
    /// Reads `\*` and `\\` as the character itself.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut piece = String::new();
        let mut after_star = false;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' if after_star => return Err("has two stars in a row, where one does the same"),
                '*' => pieces.push(std::mem::take(&mut piece).into()),
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '\\')) => piece.push(escaped),
                    _ => return Err("has a `\\` that is not before a star or another `\\`"),
                },
                other => piece.push(other),
            }
            after_star = character == '*';
        }
        if pieces.len() > STARS_MAX {
            return Err("has too many stars; five are allowed");
        }
        pieces.push(piece.into());
        Ok(Self { pieces })
    }

    /// The text between stars, all of which is in any text of this form.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pieces.iter().filter(|piece| !piece.is_empty())
    }

    /// As it can be read again.
    pub(super) fn written(&self) -> String {
        let piece = |piece: &Arc<str>| piece.replace('\\', r"\\").replace('*', r"\*");
        self.pieces.iter().map(piece).collect::<Vec<_>>().join("*")
    }

    /// Whether `text` is of this form. Each piece is looked for once, from left to right.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return text.is_empty() };
        let Some((last, middle)) = rest.split_last() else { return **first == *text };
        let Some(mut text) = text.strip_prefix(&**first) else { return false };
        for piece in middle {
            let Some(at) = text.find(&**piece) else { return false };
            text = &text[at + piece.len()..];
        }
        text.ends_with(&**last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(wildcard: &str, text: &str) -> bool {
        Wildcard::read(wildcard).unwrap().matches(text)
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (wildcard, text) in [
            ("", ""),
            ("*", ""),
            ("*", "abc"),
            ("a*c", "ac"),
            ("a*c", "abbc"),
            ("*b*", "abc"),
            ("a*a", "aa"),
            ("*ab*ab", "abab"),
            ("*/dir/*", "x/dir/y"),
            (r"\**\\", r"*x\"),
            ("ü*ß", "ü🚢ß"),
        ] {
            assert!(matches(wildcard, text), "{wildcard} {text}");
        }
        for (wildcard, text) in
            [("", "a"), ("a*a", "a"), ("a*c", "acb"), ("*ab*ab", "ab"), ("a", "A"), (r"\*", "x")]
        {
            assert!(!matches(wildcard, text), "{wildcard} {text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wildcard in ["**", "a**", r"a\b", r"a\", "*a*b*c*d*e*"] {
            assert!(Wildcard::read(wildcard).is_err(), "{wildcard}");
        }
    }
}
