//! `set`, `remove` and `rename`: the common changes, without a program.

use std::{cmp::Reverse, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Draft, Failure, NOT_JSON, path::FieldPath};
use crate::config::problem::Finding;

/// Values by the place that they are put in. Texts can hold `{{ PATH }}`; one that is nothing else
/// gives the value with its type, and `{{ PATH? }}` is null, or nothing in a text, where there is
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetConfig(pub BTreeMap<String, Json>);

impl JsonSchema for SetConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Set".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Values by the place that they are put in, such as `type`, \
                `attributes.tenant` or `data.seen`. Texts can hold `{{ PATH }}`.",
            "type": "object",
        })
    }
}

/// Puts values into places, all of them taken from the event as it was before the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Set(Vec<(FieldPath, Template)>);

/// Takes places out.
#[derive(Debug, Clone, PartialEq)]
pub struct Remove(pub Vec<FieldPath>);

/// Moves what is in a place to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Rename(Vec<(FieldPath, FieldPath)>);

/// A value, part of which may come from the event.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// Always the same.
    Fixed(Json),
    /// What is in a place, with its type.
    Field(Reference),
    /// Text with what is in places.
    Text(Vec<Piece>),
    /// A list or an object whose values are templates themselves.
    List(Vec<Self>),
    /// The same.
    Object(Vec<(String, Self)>),
}

/// A place that a template names.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    path: FieldPath,
    optional: bool,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// As it is written.
    Fixed(String),
    /// From the event.
    Field(Reference),
}

impl SetConfig {
    /// Reads the paths and templates.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn compile(&self) -> Result<Set, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut set = Vec::new();
        for (name, value) in &self.0 {
            match (name.parse(), Template::compile(value)) {
                (Ok(path), Ok(template)) => set.push((path, template)),
                (path, template) => {
                    let errors = [path.err(), template.err()].into_iter().flatten();
                    findings.extend(errors.map(|text| Finding::new(text).below(name)));
                }
            }
        }
        if set.is_empty() && findings.is_empty() {
            findings.push(Finding::new("name at least one place and its value"));
        }
        if findings.is_empty() { Ok(Set(set)) } else { Err(findings) }
    }
}

impl Set {
    /// Sets all of them.
    ///
    /// # Errors
    /// A template names what is not there, or the event can have no such value.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let values: Vec<Json> =
            self.0.iter().map(|(_, template)| template.fill(draft)).collect::<Result<_, _>>()?;
        self.0.iter().zip(values).try_for_each(|((path, _), value)| path.set(draft, value))
    }
}

impl Remove {
    /// Removes all of them; what is not there is no error.
    ///
    /// # Errors
    /// Every event has to have it, or the body is no JSON.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        remove_all(self.0.iter().collect(), draft)
    }
}

/// Reads the pairs of a `rename`.
///
/// # Errors
/// What is wrong with them.
pub fn compile_rename(pairs: &BTreeMap<String, FieldPath>) -> Result<Rename, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut moves = Vec::new();
    for (from, to) in pairs {
        match from.parse() {
            Ok(FieldPath::Data(place)) if place.is_many() => {
                let text = "one value can be moved, and `[*]` is many; use `map`";
                findings.push(Finding::new(text).below(from));
            }
            Ok(from) => moves.push((from, to.clone())),
            Err(text) => findings.push(Finding::new(text).below(from)),
        }
    }
    if moves.is_empty() && findings.is_empty() {
        findings.push(Finding::new("name at least one place and where it goes"));
    }
    if findings.is_empty() { Ok(Rename(moves)) } else { Err(findings) }
}

impl Rename {
    /// Moves all of them at once, so that two can change places; what is not there is no error,
    /// and leaves alone what is at the new place.
    ///
    /// # Errors
    /// It cannot be taken from there, or put there.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let mut taken = Vec::with_capacity(self.0.len());
        for (from, to) in &self.0 {
            if let Some(value) = from.get(draft)? {
                taken.push((from, to, value));
            }
        }
        remove_all(taken.iter().map(|(from, ..)| *from).collect(), draft)?;
        taken.into_iter().try_for_each(|(_, to, value)| to.set(draft, value))
    }
}

/// Takes out what is there, all of it as it is at first: an item of a list that is gone would move
/// the ones behind it, so the deepest go first, and of these the last.
fn remove_all(mut paths: Vec<&FieldPath>, draft: &mut Draft) -> Result<(), Failure> {
    paths.sort_by_key(|path| Reverse(path.depth()));
    let mut gone = Vec::with_capacity(paths.len());
    paths.into_iter().try_for_each(|path| {
        // What stands there now is another, where it is named twice.
        if gone.contains(&path) {
            return Ok(());
        }
        gone.push(path);
        path.remove(draft).map(drop)
    })
}

impl Template {
    /// Reads a value.
    ///
    /// # Errors
    /// A reference in it is no path.
    pub fn compile(value: &Json) -> Result<Self, String> {
        Ok(match value {
            Json::String(text) => Self::text(text)?,
            Json::Array(items) if !items.is_empty() => {
                Self::List(items.iter().map(Self::compile).collect::<Result<_, _>>()?)
            }
            Json::Object(members) if !members.is_empty() => {
                let member =
                    |(name, value): (&String, _)| Ok((name.clone(), Self::compile(value)?));
                Self::Object(members.iter().map(member).collect::<Result<_, String>>()?)
            }
            other => Self::Fixed(other.clone()),
        })
    }

    fn text(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (path, behind) = after.split_once("}}").ok_or("`{{` without its `}}`")?;
            if !before.is_empty() {
                pieces.push(Piece::Fixed(before.to_owned()));
            }
            let path = path.trim();
            let (path, optional) = match path.strip_suffix('?') {
                Some(path) => (path, true),
                None => (path, false),
            };
            pieces.push(Piece::Field(Reference { path: path.parse()?, optional }));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Fixed(rest.to_owned()));
        }
        Ok(match pieces.as_mut_slice() {
            [] => Self::Fixed(Json::String(String::new())),
            [Piece::Fixed(text)] => Self::Fixed(Json::String(std::mem::take(text))),
            [Piece::Field(reference)] => Self::Field(reference.clone()),
            _ => Self::Text(pieces),
        })
    }

    /// The value for an event.
    ///
    /// # Errors
    /// It names what is not there.
    pub fn fill(&self, draft: &mut Draft) -> Result<Json, Failure> {
        Ok(match self {
            Self::Fixed(value) => value.clone(),
            Self::Field(reference) => reference.get(draft)?,
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Fixed(fixed) => text.push_str(fixed),
                        Piece::Field(reference) => match reference.get(draft)? {
                            Json::Null => {}
                            Json::String(value) => text.push_str(&value),
                            other => text.push_str(&other.to_string()),
                        },
                    }
                }
                Json::String(text)
            }
            Self::List(items) => {
                Json::Array(items.iter().map(|item| item.fill(draft)).collect::<Result<_, _>>()?)
            }
            Self::Object(members) => {
                let member =
                    |(name, value): &(String, Self)| Ok((name.clone(), value.fill(draft)?));
                Json::Object(members.iter().map(member).collect::<Result<_, Failure>>()?)
            }
        })
    }
}

impl Reference {
    fn get(&self, draft: &mut Draft) -> Result<Json, Failure> {
        let found = match self.path.get(draft) {
            // A body that is no JSON has nothing at any place.
            Err(failure) if self.optional && failure.class == NOT_JSON => None,
            found => found?,
        };
        match found {
            Some(value) => Ok(value),
            None if self.optional => Ok(Json::Null),
            None => Err(Failure::new("missing", format!("`{}` is not there", self.path))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{event::Event, transform::tests::event};

    fn draft() -> Draft {
        let body = r#"{"order":{"id":7,"lines":[1,2]},"customer":"c-1"}"#;
        Draft::new(Event { body: body.into(), ..event() })
    }

    fn set(values: Json) -> Result<Set, Vec<Finding>> {
        serde_json::from_value::<SetConfig>(values).unwrap().compile()
    }

    #[test]
    fn values_and_templates_are_set_with_their_types() {
        let mut draft = draft();
        let set = set(json!({
            "type": "order.{{ data.order.id }}",
            "key": "{{ data.customer }}",
            "attributes.lines": "{{ data.order.lines }}",
            "attributes.n": "{{ data.order.id }}",
            "data.order.copy": {"of": ["{{ data.order.id }}", true]},
            "data.none": "{{ data.absent? }}",
        }));
        set.unwrap().apply(&mut draft).unwrap();
        assert_eq!(
            *draft.json().unwrap(),
            json!({"order": {"id": 7, "lines": [1, 2], "copy": {"of": [7, true]}}, "customer": "c-1", "none": null})
        );
        let event = draft.finish();
        assert_eq!(event.kind.as_deref(), Some("order.7"));
        assert_eq!(event.key.as_deref(), Some("c-1"));
        assert_eq!(event.attributes.text("lines"), Some("[1,2]"));
        assert_eq!(event.attributes.text("n"), Some("7"));
    }

    #[test]
    fn items_of_a_list_are_those_it_has_before_the_step() {
        let list = |items: &[usize]| json!({ "a": items, "b": [[0, 1, 2], [3, 4, 5]] });
        let draft_of = |json: Json| Draft::new(Event { body: json.to_string().into(), ..event() });
        let all: Vec<usize> = (0..12).collect();
        let mut moved = draft_of(list(&all));
        rename(&[("data.a[2]", "data.x"), ("data.a[10]", "data.y")])
            .unwrap()
            .apply(&mut moved)
            .unwrap();
        let mut expected = list(&[0, 1, 3, 4, 5, 6, 7, 8, 9, 11]);
        (expected["x"], expected["y"]) = (json!(2), json!(10));
        assert_eq!(*moved.json().unwrap(), expected);

        let mut removed = draft_of(list(&all[..4]));
        let paths =
            ["data.a[0]", "data.b[*][1]", "data.a[1]", "data.b[0]", "data.b[1][2]", "data.a[0]"];
        Remove(paths.map(|path| path.parse().unwrap()).to_vec()).apply(&mut removed).unwrap();
        assert_eq!(*removed.json().unwrap(), json!({ "a": [2, 3], "b": [[3]] }));
    }

    #[test]
    fn what_is_not_there_fails_unless_it_is_optional() {
        let failure = set(json!({"key": "{{ data.absent }}"})).unwrap().apply(&mut draft());
        assert_eq!(failure.unwrap_err().to_string(), "`data.absent` is not there");
        let mut draft = draft();
        draft.event_mut().key = Some("old".into());
        set(json!({"key": "{{ data.absent? }}"})).unwrap().apply(&mut draft).unwrap();
        assert_eq!(draft.event().key, None);
    }

    #[test]
    fn all_values_are_of_the_event_before() {
        let mut draft = draft();
        let swap =
            json!({"data.customer": "{{ data.order.id }}", "data.order.id": "{{ data.customer }}"});
        set(swap).unwrap().apply(&mut draft).unwrap();
        assert_eq!(draft.json().unwrap()["customer"], json!(7));
        assert_eq!(draft.json().unwrap()["order"]["id"], json!("c-1"));
    }

    #[test]
    fn places_are_moved_and_taken_out() {
        let mut draft = draft();
        let pairs = [
            ("data.customer".to_owned(), "attributes.customer".parse().unwrap()),
            ("data.absent".to_owned(), "subject".parse().unwrap()),
        ];
        compile_rename(&BTreeMap::from(pairs)).unwrap().apply(&mut draft).unwrap();
        let remove = ["data.order.lines", "data.absent", "attributes.absent"];
        Remove(remove.map(|path| path.parse().unwrap()).to_vec()).apply(&mut draft).unwrap();
        assert_eq!(*draft.json().unwrap(), json!({"order": {"id": 7}}));
        assert_eq!(draft.event().attributes.text("customer"), Some("c-1"));
        let id = Remove(vec!["id".parse().unwrap()]).apply(&mut draft).unwrap_err();
        assert_eq!(id.to_string(), "`id` cannot be nothing");
    }

    fn rename(pairs: &[(&str, &str)]) -> Result<Rename, Vec<Finding>> {
        let pair = |(from, to): &(&str, &str)| ((*from).to_owned(), to.parse().unwrap());
        compile_rename(&pairs.iter().map(pair).collect())
    }

    #[test]
    fn what_is_moved_to_a_place_is_not_moved_on_from_there() {
        let mut draft = draft();
        let swap = [("data.customer", "data.order"), ("data.order", "data.customer")];
        rename(&swap).unwrap().apply(&mut draft).unwrap();
        let swapped = json!({"order": "c-1", "customer": {"id": 7, "lines": [1, 2]}});
        assert_eq!(*draft.json().unwrap(), swapped);
    }

    #[test]
    fn what_is_wrong_is_found_at_load() {
        assert!(rename(&[("data.cards[*].number", "data.number")]).is_err());
        let findings = set(json!({"tpye": 1, "data.x": "{{ data.x", "data.y": "{{ dat.x }}"}));
        let findings: Vec<_> =
            findings.unwrap_err().iter().map(|f| format!("{}: {f}", f.path)).collect();
        assert_eq!(findings[0], "data.x: `{{` without its `}}`");
        assert!(findings[1].ends_with("did you mean `data`?"), "{findings:?}");
        assert!(findings[2].ends_with("did you mean `type`?"), "{findings:?}");
        assert!(set(json!({})).is_err());
    }
}
