//! What a route makes of an event before it is sent: steps, one after the other. Pure.
//!
//! A step is handed a [`Draft`] and answers with what became of it. The body of a draft is bytes or
//! the JSON that they hold, whichever the last step needed: it is parsed once at most, and written
//! once at most.

use bytes::Bytes;
use serde_json::Value as Json;

use crate::event::Event;

pub mod map;
pub mod path;
pub mod validate;

/// An event on its way through the steps of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its body here is out of date while there is a tree.
    event: Event,
    tree: Option<Json>,
}

/// Why an event cannot pass a step. It is dead-lettered with this as its cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// A short stable name, for metrics and dead letters.
    pub class: &'static str,
    /// What is wrong, without a word of the payload.
    pub text: String,
}

impl Failure {
    /// One of this class.
    pub fn new(class: &'static str, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }
}

impl Draft {
    /// An event as it came.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self { event, tree: None }
    }

    /// The event, whose body may be out of date: see [`Draft::bytes`] and [`Draft::json`].
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The event, to change anything but its body.
    pub fn event_mut(&mut self) -> &mut Event {
        &mut self.event
    }

    /// The body as bytes.
    pub fn bytes(&mut self) -> &Bytes {
        if let Some(tree) = self.tree.take() {
            self.event.body = write(&tree);
        }
        &self.event.body
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn json(&mut self) -> Result<&mut Json, Failure> {
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => serde_json::from_slice(&self.event.body)
                .map_err(|error| Failure::new("not_json", not_json(&error)))?,
        };
        Ok(self.tree.insert(tree))
    }

    /// Gives it another body.
    pub fn set_bytes(&mut self, body: Bytes) {
        self.tree = None;
        self.event.body = body;
    }

    /// Gives it another body.
    pub fn set_json(&mut self, body: Json) {
        self.tree = Some(body);
    }

    /// The event with its body.
    #[must_use]
    pub fn finish(mut self) -> Event {
        self.bytes();
        self.event
    }
}

/// JSON as text, without white space.
fn write(tree: &Json) -> Bytes {
    // A tree of JSON always serializes.
    serde_json::to_vec(tree).unwrap_or_default().into()
}

/// What the parser found, without the text that it found.
fn not_json(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Eof => format!("the body is no JSON: it ends at {place}"),
        _ => format!("the body is no JSON: wrong at {place}"),
    }
}
