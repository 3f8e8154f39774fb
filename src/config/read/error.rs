//! An error that knows where it happened.

use std::fmt;

use serde::de::{self, Unexpected};

use crate::config::{problem::suggestion, tree::Step};

/// What is wrong at one place, as serde reports it.
#[derive(Debug)]
pub(super) struct ReadError {
    /// From the inside out.
    pub(super) path: Vec<Step>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Missing(&'static str),
    Unknown { name: String, known: &'static [&'static str] },
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "`{name}` is missing"),
            Self::Unknown { name, known } => {
                let suggestion = suggestion(name, known.iter().copied());
                write!(f, "`{name}` is not known here; {suggestion}")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl ReadError {
    pub(super) fn below(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// Takes what a reference was resolved to out of the text again.
    pub(super) fn redacted(mut self, resolved: &str, shown: &str) -> Self {
        let redact = |text: &str| replace_words(text, resolved, shown);
        match &mut self.kind {
            Kind::Unknown { name, .. } => *name = redact(name),
            Kind::Other(text) => *text = redact(text),
            Kind::Missing(_) => {}
        }
        self
    }
}

/// Replaces `old` wherever it stands by itself: a short one is part of many a word.
fn replace_words(text: &str, old: &str, new: &str) -> String {
    let mut result = String::new();
    let mut copied = 0;
    for (start, _) in text.match_indices(old).filter(|_| !old.is_empty()) {
        let end = start + old.len();
        let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
        if is_edge(text[..start].chars().next_back()) && is_edge(text[end..].chars().next()) {
            result.push_str(&text[copied..start]);
            result.push_str(new);
            copied = end;
        }
    }
    result.push_str(&text[copied..]);
    result
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { path: Vec::new(), kind: Kind::Other(text.to_string()) }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        match found {
            Unexpected::UnitVariant => {
                Self::custom("this takes settings of its own; write `name: { ... }`")
            }
            found => Self::custom(format!("expected {expected}, but this is {found}")),
        }
    }

    fn missing_field(name: &'static str) -> Self {
        Self { path: Vec::new(), kind: Kind::Missing(name) }
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self { path: Vec::new(), kind: Kind::Unknown { name: name.to_owned(), known } }
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::unknown_field(name, known)
    }
}
