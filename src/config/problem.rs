//! What is wrong with a file, in words that say what to do.

use std::fmt;

use super::tree::{Path, Place};

/// One finding. Shows setting names and what the file says, never the value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting it is about.
    pub path: Path,
    /// Where that stands; `None` for the file as a whole.
    pub place: Option<Place>,
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// What is wrong, and what to do.
    pub text: String,
}

/// What is wrong with one part of the file, as found by those who know that part and not the file
/// around it: patterns, steps, programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Finding {
    /// The way there from the top of the part.
    pub path: Path,
    /// Line and column within the text that stands there, both from 1, where it is a program.
    pub at: Option<(usize, usize)>,
    /// What, and what to write instead.
    pub text: String,
}

impl Finding {
    /// One about the part as a whole.
    pub fn new(text: impl Into<String>) -> Self {
        Self { path: Path::default(), at: None, text: text.into() }
    }

    /// The same, seen from the mapping in which the part has this name.
    #[must_use]
    pub fn below(self, name: impl Into<String>) -> Self {
        Self { path: Path::default().name(name).join(&self.path), ..self }
    }

    /// The same, seen from the list in which the part has this place.
    #[must_use]
    pub fn below_item(self, index: usize) -> Self {
        Self { path: Path::default().index(index).join(&self.path), ..self }
    }
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can be used, and will probably not do what is wanted.
    Warning,
}

/// Everything that was found in one file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// Name of the file.
    pub file: String,
    /// What was found.
    pub all: Vec<Problem>,
}

impl Problems {
    /// Whether the file can be used.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.all.iter().filter(|problem| problem.severity == severity).count()
    }

    /// Puts them into the order of the file; what stands outside of it comes last.
    pub(super) fn sort(&mut self) {
        self.all.sort_by_key(|problem| match problem.place {
            Some(Place::File { line, column }) => (line, column),
            None => (0, 0),
            Some(Place::Variable(_)) => (u64::MAX, 0),
        });
    }
}

impl std::error::Error for Problems {}

/// One line for each, then the count.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Problem { path, place, severity, text } in &self.all {
            match place {
                None => write!(f, "{}  ", self.file)?,
                Some(Place::File { line, column }) => {
                    write!(f, "{}:{line}:{column}  ", self.file)?;
                }
                Some(Place::Variable(name)) => write!(f, "{name}  ")?,
            }
            if *severity == Severity::Warning {
                write!(f, "warning: ")?;
            }
            if !path.0.is_empty() {
                write!(f, "{path}: ")?;
            }
            writeln!(f, "{text}")?;
        }
        let count = |number: usize, what: &str| match number {
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        match (errors, warnings) {
            (0, warnings) => writeln!(f, "{}", count(warnings, "warning")),
            (errors, 0) => writeln!(f, "{}", count(errors, "problem")),
            _ => writeln!(f, "{}, {}", count(errors, "problem"), count(warnings, "warning")),
        }
    }
}

/// What to say about a name that is not there: the nearest one that is, or all of them.
pub(crate) fn suggestion<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = wrong.to_lowercase();
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1.max(name.chars().count() / 3));
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "there is none".to_owned(),
        None => format!("there is {}", listed(&known)),
    }
}

/// Names as a person lists them.
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
