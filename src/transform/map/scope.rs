//! What a program sees as `.`: as much of the event as it names; and what it changed of that.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::value::RawValue;
use vrl::{
    compiler::{SecretTarget, Target},
    path,
    path::{OwnedSegment, OwnedTargetPath, PathPrefix},
    value::{KeyString, ObjectMap, Value},
};

use super::{
    Draft, Failure, attributes,
    body::{self, Body, Members},
};
use crate::{
    event::Event,
    transform::path::{ATTRIBUTES, DATA, OWN, Own},
};

/// A set of what stands at the top of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tops(u16);

impl Tops {
    /// What the path lies in: everything, if that is not one of them.
    fn of(path: &OwnedTargetPath) -> Self {
        match path.path.segments.first() {
            Some(OwnedSegment::Field(name)) => Self::named(name),
            _ => Self(u16::MAX),
        }
    }

    /// The one of this name; nothing if there is none.
    fn named(name: &str) -> Self {
        Self(names().position(|known| known == name).map_or(0, |at| 1 << at))
    }

    fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }

    fn has(self, name: &str) -> bool {
        self.0 & Self::named(name).0 != 0
    }
}

/// What a program names of an event.
#[derive(Debug)]
pub(super) struct Wanted {
    tops: Tops,
    members: Members,
}

impl Wanted {
    /// What these paths lie in.
    pub(super) fn of<'p>(paths: impl Iterator<Item = &'p OwnedTargetPath>) -> Self {
        let mut tops = Tops::default();
        let mut members = Some(BTreeSet::new());
        for path in paths {
            tops.add(Tops::of(path));
            match path.path.segments.as_slice() {
                [OwnedSegment::Field(top), ..] if top.as_str() != DATA => {}
                [_, OwnedSegment::Field(name), ..] => {
                    members.as_mut().map(|names| names.insert(name.clone()));
                }
                _ => members = None,
            }
        }
        Self { tops, members }
    }

    /// The body of the draft, if it is to be looked at.
    pub(super) fn body(&self, draft: &mut Draft) -> Bytes {
        if self.tops.has(DATA) { draft.bytes().clone() } else { Bytes::new() }
    }
}

/// The names of what stands at the top of an event.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|(name, _)| *name).chain([ATTRIBUTES, DATA])
}

/// The event as an object, and what of it was touched.
#[derive(Debug)]
pub(super) struct Scope<'b> {
    event: Value,
    /// Members of the body that the program does not name.
    rest: Vec<(KeyString, &'b RawValue)>,
    touched: Tops,
    /// The program put something into a body that has no inside.
    lost_body: bool,
}

impl<'b> Scope<'b> {
    /// What `wanted` says of the event, which has this body.
    ///
    /// # Errors
    /// The language cannot hold the body.
    pub(super) fn of(event: &Event, body: &'b Bytes, wanted: &'b Wanted) -> Result<Self, Failure> {
        let Wanted { tops, members } = wanted;
        let mut top = ObjectMap::new();
        for (name, own) in OWN {
            if tops.has(name)
                && let Some(value) = read(event, own)
            {
                top.insert(name.into(), value);
            }
        }
        if tops.has(ATTRIBUTES) {
            top.insert(ATTRIBUTES.into(), attributes::to_object(&event.attributes));
        }
        let mut body = body::read(body, members)?;
        if let Some(value) = body.value.take() {
            top.insert(DATA.into(), value);
        }
        let touched = Tops::default();
        Ok(Self { event: Value::Object(top), rest: body.rest, touched, lost_body: false })
    }

    /// Gives the event what the program changed: all of it, or nothing where that fails.
    ///
    /// # Errors
    /// The event cannot have what the program left.
    pub(super) fn write_back(self, draft: &mut Draft) -> Result<(), Failure> {
        if self.lost_body {
            return Err(Failure::new(
                "map",
                "the program sets something inside of `.data`, but the body is no JSON object or \
                 list that could have it; say `.data = {}` first to replace the body",
            ));
        }
        let Self { event: Value::Object(mut top), rest, touched, .. } = self else {
            return Err(cannot("`.` must stay an object"));
        };
        if touched == Tops::default() {
            return Ok(());
        }
        if top.keys().any(|name| !names().any(|known| known == name.as_str())) {
            return Err(cannot(
                "it leaves at the top what no event has; put it below `.data` or `.attributes`",
            ));
        }
        let mut event = draft.event().clone();
        for (name, own) in OWN {
            if touched.has(name) {
                write(&mut event, name, own, top.remove(name))?;
            }
        }
        if touched.has(ATTRIBUTES) {
            match top.remove(ATTRIBUTES) {
                None | Some(Value::Null) => event.attributes = crate::event::Attributes::default(),
                Some(Value::Object(left)) => attributes::write_back(&mut event.attributes, left)?,
                Some(_) => return Err(cannot("`.attributes` must be an object")),
            }
        }
        let body = match touched.has(DATA) {
            true => {
                let body = Body { value: top.remove(DATA), rest };
                Some(body::write(body, event.content_type.as_deref(), draft.bytes())?)
            }
            false => None,
        };
        *draft.event_mut() = event;
        if let Some(body) = body {
            draft.set_bytes(body);
        }
        Ok(())
    }
}

fn read(event: &Event, own: Own) -> Option<Value> {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(Value::from);
    match own {
        Own::Id => Some(Value::from(&*event.id)),
        Own::Source => Some(Value::from(&*event.source)),
        Own::Type => text(&event.kind),
        Own::Subject => text(&event.subject),
        Own::DataContentType => text(&event.content_type),
        Own::Key => text(&event.key),
        Own::Time => event.time.map(attributes::from_time),
    }
}

fn write(event: &mut Event, name: &str, own: Own, value: Option<Value>) -> Result<(), Failure> {
    if value == read(event, own) {
        return Ok(());
    }
    let value = value.unwrap_or(Value::Null);
    if own == Own::Time {
        event.time = match &value {
            Value::Null => None,
            time => Some(attributes::to_time(time).ok_or_else(|| {
                cannot("`.time` must be a timestamp up to the year 9999, or null")
            })?),
        };
        return Ok(());
    }
    let text = match &value {
        Value::Bytes(_) | Value::String(_) => {
            let text = value.to_str_lossy().unwrap_or_default();
            Some(std::sync::Arc::<str>::from(&*text))
        }
        Value::Null => None,
        other => {
            let kind = other.kind_str();
            return Err(cannot(&format!("`.{name}` must be a string, but is of type {kind}")));
        }
    };
    match (own, text) {
        (Own::Id | Own::Source, None) => {
            return Err(cannot(&format!("`.{name}` must be a string: every event has one")));
        }
        (Own::Id | Own::Source, Some(text)) if text.is_empty() => {
            return Err(cannot(&format!("`.{name}` must not be empty")));
        }
        (Own::Id, Some(text)) => event.id = text,
        (Own::Source, Some(text)) => event.source = text,
        (Own::Type, text) => event.kind = text,
        (Own::Subject, text) => event.subject = text,
        (Own::DataContentType, text) => event.content_type = text,
        (Own::Key | Own::Time, text) => event.key = text,
    }
    Ok(())
}

fn cannot(text: &str) -> Failure {
    Failure::new("map", format!("after the program: {text}"))
}

/// Whether the path is the body or what that lies in.
fn is_whole_body(path: &OwnedTargetPath) -> bool {
    match path.path.segments.as_slice() {
        [] => true,
        [OwnedSegment::Field(top)] => top.as_str() == DATA,
        _ => false,
    }
}

impl Target for Scope<'_> {
    fn target_insert(&mut self, path: &OwnedTargetPath, value: Value) -> Result<(), String> {
        within(path)?;
        self.touched.add(Tops::of(path));
        if is_whole_body(path) {
            self.rest.clear();
        }
        // The language would replace what is in the way, and the producer's text with it.
        self.lost_body |= match path.path.segments.as_slice() {
            [OwnedSegment::Field(top), inside, ..] if top.as_str() == DATA => {
                match (self.event.get(path!(DATA)), inside) {
                    (None | Some(Value::Null), _)
                    | (Some(Value::Object(_)), OwnedSegment::Field(_))
                    | (Some(Value::Array(_)), OwnedSegment::Index(_)) => false,
                    (Some(_), _) => true,
                }
            }
            _ => false,
        };
        self.event.insert(&path.path, value);
        Ok(())
    }

    fn target_get(&self, path: &OwnedTargetPath) -> Result<Option<&Value>, String> {
        within(path)?;
        Ok(self.event.get(&path.path))
    }

    fn target_get_mut(&mut self, path: &OwnedTargetPath) -> Result<Option<&mut Value>, String> {
        within(path)?;
        self.touched.add(Tops::of(path));
        Ok(self.event.get_mut(&path.path))
    }

    fn target_remove(
        &mut self,
        path: &OwnedTargetPath,
        prune: bool,
    ) -> Result<Option<Value>, String> {
        within(path)?;
        let removed = self.event.remove(&path.path, prune);
        if removed.is_some() {
            self.touched.add(Tops::of(path));
            if is_whole_body(path) {
                self.rest.clear();
            } else if !self.rest.is_empty() && !self.event.contains(path!(DATA)) {
                // Pruned for being empty, which it is not.
                self.event.insert(path!(DATA), ObjectMap::new());
            }
        }
        Ok(removed)
    }
}

/// There is no metadata beside the event; the check refuses programs that name it.
fn within(path: &OwnedTargetPath) -> Result<(), String> {
    match path.prefix {
        PathPrefix::Event => Ok(()),
        PathPrefix::Metadata => Err("there is no metadata".to_owned()),
    }
}

/// A program sees no secrets.
impl SecretTarget for Scope<'_> {
    fn get_secret(&self, _: &str) -> Option<&str> {
        None
    }

    fn insert_secret(&mut self, _: &str, _: &str) {}

    fn remove_secret(&mut self, _: &str) {}
}
