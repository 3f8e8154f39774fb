//! The body: JSON value by value, anything else as one text.

use bytes::Bytes;
use serde_json::Value as Json;

use super::{
    CLASS, Pass,
    reach::{Fate, reach},
    readable,
};
use crate::{
    event,
    transform::{Draft, Failure, path::FieldPath},
};

impl Pass<'_> {
    /// Redacts the body; one in which there was nothing to redact keeps its very bytes.
    pub(super) fn body(&self, draft: &mut Draft) -> Result<(), Failure> {
        let places = self.step.places();
        let paths: Vec<_> = self
            .step
            .paths
            .iter()
            .filter_map(|path| match path {
                FieldPath::Data(place) => Some((path, place)),
                _ => None,
            })
            .collect();
        let written = (!draft.changed).then(|| draft.event.body.clone());
        let empty = written.as_ref().is_some_and(Bytes::is_empty);
        if empty || places.is_empty() && paths.is_empty() {
            return Ok(());
        }

        let mut changed = false;
        for (path, place) in paths {
            if place.0.is_empty() {
                self.whole_body(draft);
                return Ok(());
            }
            let json = json(draft, path)?;
            let mut goes = |value: &mut Json| {
                changed = true;
                match self.cover.whole(value) {
                    Some(text) => *value = Json::String(text),
                    None => return Fate::Goes,
                }
                Fate::Stays
            };
            reach(&place.0, json, &mut goes).map_err(|_| blocked(path))?;
        }
        for place in places {
            if place.0.is_empty() && !is_json(draft) {
                return self.text_body(draft);
            }
            let path = FieldPath::Data(place.clone());
            let mut look = |value: &mut Json| {
                changed |= self.tree(value);
                Fate::Stays
            };
            reach(&place.0, json(draft, &path)?, &mut look).map_err(|_| blocked(&path))?;
        }
        if let Some(written) = written.filter(|_| !changed) {
            // A member that stands there twice was seen once.
            if draft.tree.as_ref().is_some_and(|tree| members(tree) == members_written(&written)) {
                draft.set_bytes(written);
            }
        }
        Ok(())
    }

    /// Redacts every text and number in a tree; whether there was something.
    fn tree(&self, top: &mut Json) -> bool {
        let mut changed = false;
        // A list of what is still to be seen, and no recursion: a tree may be deep.
        let mut ahead: Vec<(&str, &mut Json)> = vec![("", top)];
        while let Some((name, value)) = ahead.pop() {
            let new = match value {
                Json::String(text) => self.text(name, text).map(Json::String),
                Json::Number(number) => self.number(number).map(|text| match text.as_str() {
                    "" => Json::Null,
                    _ => Json::String(text),
                }),
                Json::Array(items) => {
                    ahead.extend(items.iter_mut().map(|item| (name, item)));
                    continue;
                }
                Json::Object(map) => {
                    ahead.extend(map.iter_mut().map(|(name, value)| (name.as_str(), value)));
                    continue;
                }
                Json::Null | Json::Bool(_) => None,
            };
            if let Some(new) = new {
                *value = new;
                changed = true;
            }
        }
        changed
    }

    /// Takes the whole body.
    fn whole_body(&self, draft: &mut Draft) {
        if is_json(draft) {
            if let Some(text) = draft.json().ok().and_then(|json| self.cover.whole(json)) {
                return draft.set_json(Json::String(text));
            }
        } else if let Some(text) = self.cover.whole_bytes(draft.bytes()) {
            return draft.set_bytes(text.into());
        }
        draft.set_bytes(Bytes::new());
    }

    /// Redacts a body that is no JSON.
    fn text_body(&self, draft: &mut Draft) -> Result<(), Failure> {
        let text = readable(draft.bytes()).ok_or_else(|| {
            Failure::new(CLASS, "the body is no UTF-8 text, and detectors cannot look into it; decode it before this step, or say with `within` where they look")
        })?;
        if let Some(text) = self.text("", text) {
            draft.set_bytes(text.into());
        }
        Ok(())
    }
}

/// Whether the body is JSON, and is to be taken as such. A text that reads like a number or a word
/// of JSON is one only where its content type does not say otherwise.
fn is_json(draft: &mut Draft) -> bool {
    if draft.tree.is_some() {
        return true;
    }
    let said = event::is_json(draft.event.content_type.as_deref());
    let first = draft.event.body.trim_ascii_start().first();
    (said || matches!(first, Some(b'{' | b'[' | b'"'))) && draft.look().is_ok()
}

/// How many members the objects in a tree have.
fn members(top: &Json) -> usize {
    let (mut count, mut ahead) = (0, vec![top]);
    while let Some(value) = ahead.pop() {
        match value {
            Json::Array(items) => ahead.extend(items),
            Json::Object(map) => {
                count += map.len();
                ahead.extend(map.values());
            }
            _ => {}
        }
    }
    count
}

/// How many members are written in JSON: each has one colon outside of texts.
fn members_written(json: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b':' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

/// The body as JSON, in which a path is to be found.
fn json<'d>(draft: &'d mut Draft, path: &FieldPath) -> Result<&'d mut Json, Failure> {
    draft.json().map_err(|failure| {
        Failure::new(CLASS, format!("`{path}` cannot be redacted: {}", failure.text))
    })
}

fn blocked(path: &FieldPath) -> Failure {
    Failure::new(
        CLASS,
        format!(
            "`{path}` cannot be redacted: something on the way there is no object or list as the path says; items of lists are `[*]`"
        ),
    )
}
