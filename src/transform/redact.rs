//! Takes what is sensitive out of an event: by place, and by what it looks like.
//!
//! An event that cannot be searched fails, so that nothing passes unseen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value as Json};

use super::{
    Draft, Failure,
    path::{FieldPath, Own, Place, to_json},
};
use crate::{
    config::{problem::Finding, secret::Secret},
    event::Value,
};

mod body;
mod card;
mod conceal;
mod detect;
mod email;
mod iban;
mod ip;
mod key;
mod phone;
mod reach;
#[cfg(test)]
mod tests;

use conceal::{Conceal, Cover};
pub use detect::Detector;

/// The class of its failures.
const CLASS: &str = "redact";

/// Takes sensitive values out of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redact")]
pub struct Config {
    /// Places whose values go, whatever they are: `data.customer.ssn`, `data.cards[*].number`,
    /// `attributes.token`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<FieldPath>,
    /// What to look for in the texts of the body, the attributes and the subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detect: Vec<Detector>,
    /// Where detectors look: at these places and below them, and nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<FieldPath>,
    /// What becomes of a value: `mask`, `remove`, or `hash` with a salt.
    #[serde(default)]
    pub with: With,
}

/// What becomes of a sensitive value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Redaction")]
pub enum With {
    /// Stars; of a card number the last four digits stay, of an e-mail address the first letter
    /// and the domain.
    #[default]
    Mask,
    /// Nothing: the member is removed, what is found in a text is cut out of it.
    Remove,
    /// HMAC-SHA-256 with a salt: equal values stay equal, and cannot be guessed without the salt.
    Hash(Hash),
}

/// How to hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RedactionHash")]
pub struct Hash {
    /// The secret that goes into every hash, of at least 16 bytes: `${NAME}` or `file:PATH`.
    pub salt: Secret,
}

impl Config {
    /// Makes the step. Its salt is still to be read: see [`Redact::unlock`].
    ///
    /// # Errors
    /// All settings that cannot be followed.
    pub fn compile(&self) -> Result<Redact, Vec<Finding>> {
        let mut wrong = Vec::new();
        if self.paths.is_empty() && self.detect.is_empty() {
            wrong.push(Finding::new("say what to redact: with `paths`, `detect` or both"));
        }
        if self.detect.is_empty() && !self.within.is_empty() {
            let text = "says where detectors look, and there is none; add `detect`";
            wrong.push(Finding::new(text).below("within"));
        }
        for (index, path) in self.paths.iter().enumerate() {
            if let Some(text) = self.with.cannot_take(path) {
                wrong.push(Finding::new(text).below_item(index).below("paths"));
            }
        }
        for (index, path) in self.within.iter().enumerate() {
            if matches!(path, FieldPath::Own(own) if !matches!(own, Own::Subject | Own::Key)) {
                let text = format!("detectors do not look into `{path}`; name it in `paths`");
                wrong.push(Finding::new(text).below_item(index).below("within"));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        // What lies deeper goes first: a path never meets what another has left.
        let mut paths = self.paths.clone();
        paths.sort_by_key(|path| match path {
            FieldPath::Data(place) => std::cmp::Reverse(place.0.len()),
            _ => std::cmp::Reverse(0),
        });
        Ok(Redact {
            paths,
            detect: self.detect.clone(),
            within: self.within.clone(),
            conceal: Conceal::new(&self.with),
        })
    }
}

impl With {
    /// Why this place cannot be treated so.
    fn cannot_take(&self, path: &FieldPath) -> Option<String> {
        let FieldPath::Own(own) = path else { return None };
        match (own, self) {
            (Own::Id | Own::Source, Self::Remove) => {
                Some(format!("every event has to have `{path}`; use `with: {{ hash: ... }}`"))
            }
            (Own::Id, Self::Mask) => {
                Some("events are told apart by `id`; use `with: { hash: ... }`".to_owned())
            }
            (Own::Time, Self::Mask | Self::Hash(_)) => {
                Some("`time` has to stay a time; use `with: remove`".to_owned())
            }
            _ => None,
        }
    }
}

/// The step.
#[derive(Debug, Clone)]
pub struct Redact {
    /// The deepest first.
    paths: Vec<FieldPath>,
    detect: Vec<Detector>,
    /// Everything where it is empty.
    within: Vec<FieldPath>,
    conceal: Conceal,
}

impl Redact {
    /// Reads the salt, where there is one. To be called once, before the first event.
    ///
    /// # Errors
    /// It cannot be read, or is too short.
    pub fn unlock(&mut self) -> Result<(), Finding> {
        self.conceal.unlock().map_err(|finding| finding.below("salt").below("hash").below("with"))
    }

    /// Redacts an event.
    ///
    /// # Errors
    /// Class `redact`: something in it cannot be searched, or a path leads through something that
    /// is not what the path says; or the step has not been unlocked. The draft is then of no use.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let pass = Pass { step: self, cover: self.conceal.open()? };
        pass.paths_around(draft)?;
        pass.texts_around(draft)?;
        pass.body(draft)
    }

    /// Whether detectors look at a place that is not in the body.
    fn looks_at(&self, path: &FieldPath) -> bool {
        !self.detect.is_empty() && (self.within.is_empty() || self.within.contains(path))
    }

    /// Where in the body detectors look.
    fn places(&self) -> Vec<Place> {
        if self.detect.is_empty() {
            return Vec::new();
        }
        if self.within.is_empty() {
            return vec![Place::default()];
        }
        let place = |path: &FieldPath| match path {
            FieldPath::Data(place) => Some(place.clone()),
            _ => None,
        };
        self.within.iter().filter_map(place).collect()
    }
}

/// One event's way through the step, with the salt at hand.
struct Pass<'s> {
    step: &'s Redact,
    cover: Cover<'s>,
}

impl Pass<'_> {
    /// What `paths` names outside of the body.
    fn paths_around(&self, draft: &mut Draft) -> Result<(), Failure> {
        for path in &self.step.paths {
            match path {
                FieldPath::Own(own) => {
                    let Some(old) = own.get(draft.event()) else { continue };
                    let new = self.cover.whole(&Json::String(old));
                    own.set(draft.event_mut(), new.map_or(Json::Null, Json::String))
                        .map_err(|failure| Failure::new(CLASS, failure.text))?;
                }
                FieldPath::Attribute(name) => {
                    let attributes = &mut draft.event_mut().attributes;
                    let Some(old) = attributes.get(name) else { continue };
                    let new = match plain(old) {
                        Value::Binary(bytes) => self.cover.whole_bytes(bytes),
                        plain => self.cover.whole(&to_json(plain)),
                    };
                    match new.map(|text| relabelled(old, text)) {
                        Some(new) => attributes.set(name.as_str(), new),
                        None => drop(attributes.remove(name)),
                    }
                }
                FieldPath::Data(_) => {}
            }
        }
        Ok(())
    }

    /// What detectors find outside of the body.
    fn texts_around(&self, draft: &mut Draft) -> Result<(), Failure> {
        for own in [Own::Subject, Own::Key] {
            // A key is what events are ordered by, and changed only on request.
            let path = FieldPath::Own(own);
            if !self.step.looks_at(&path) || own == Own::Key && !self.step.within.contains(&path) {
                continue;
            }
            let new = own.get(draft.event()).and_then(|text| self.text("", &text));
            if let Some(text) = new {
                own.set(draft.event_mut(), filled(text).map_or(Json::Null, Json::String))?;
            }
        }
        let mut changes = Vec::new();
        for (name, value) in draft.event().attributes.iter() {
            if self.step.looks_at(&FieldPath::Attribute(name.to_string()))
                && let Some(text) = self.attribute(name, value)?
            {
                changes.push((name.clone(), filled(text).map(|text| relabelled(value, text))));
            }
        }
        let attributes = &mut draft.event_mut().attributes;
        for (name, value) in changes {
            match value {
                Some(value) => attributes.set(name, value),
                None => drop(attributes.remove(&name)),
            }
        }
        Ok(())
    }

    /// An attribute without what detectors find in it, where they do.
    fn attribute(&self, name: &str, value: &Value) -> Result<Option<String>, Failure> {
        Ok(match plain(value) {
            Value::String(text) | Value::Number(text) => self.text(name, text),
            Value::Binary(bytes) => {
                let text = readable(bytes).ok_or_else(|| {
                    Failure::new(CLASS, format!("attribute `{name}` is no UTF-8 text, and detectors cannot look into it; put it into `paths`, or say with `within` where they look"))
                })?;
                self.text(name, text)
            }
            plain @ (Value::Long(_) | Value::ULong(_) | Value::Double(_)) => {
                to_json(plain).as_number().and_then(|number| self.number(number))
            }
            _ => None,
        })
    }

    /// A text without what detectors find in it, where they do. What it is called can give it away.
    fn text(&self, name: &str, text: &str) -> Option<String> {
        let found = detect::find(&self.step.detect, name, text);
        if found.is_empty() {
            return None;
        }
        let mut new = String::with_capacity(text.len());
        let mut done = 0;
        for detect::Found { range, what } in found {
            new.push_str(&text[done..range.start]);
            new.push_str(&self.cover.found(what, &text[range.clone()]));
            done = range.end;
        }
        new.push_str(&text[done..]);
        Some(new)
    }

    /// What stands for a number that is a card number; nothing where cards are not looked for.
    fn number(&self, number: &Number) -> Option<String> {
        if !self.step.detect.contains(&Detector::CardNumber) {
            return None;
        }
        let digits = card::digits_of(number)?;
        self.text("", &digits)
    }
}

/// A value without its label.
fn plain(mut value: &Value) -> &Value {
    while let Value::Labelled(_, inner) = value {
        value = inner;
    }
    value
}

/// A text with the label that a former value had.
fn relabelled(old: &Value, text: String) -> Value {
    match old {
        Value::Labelled(label, _) => Value::Labelled(label.clone(), Box::new(Value::string(text))),
        _ => Value::string(text),
    }
}

/// Nothing of an empty text: services refuse empty attributes.
fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Bytes as text. UTF-16 and most of what is binary has a zero byte in it: detectors would see
/// nothing there.
fn readable(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}
