//! `split`: one event becomes many, which are settled together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    Draft, Failure,
    path::{FieldPath, Place},
    write,
};
use crate::config::{problem::Finding, units::Size};

/// Most events that one can become: more would be a batch job, and not an event.
pub const EVENTS_MAX: usize = 10_000;
/// Most bytes that copies of what `keep` keeps may have: one event of a megabyte could ask for ten
/// gigabytes of them.
pub const COPIED_BYTES_MAX: usize = 16 << 20;

/// Makes one event of each item of a list in the body. Their ids are the event's own with `/` and
/// the place in the list, so that a second try makes the same ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Split")]
pub struct Config {
    /// Where the list is, such as `data.items`.
    pub list: FieldPath,
    /// Whether the rest of the body stays, with the item in the place of the list. Without, the
    /// item is the body.
    #[serde(default)]
    pub keep: bool,
}

/// The step.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    place: Place,
    keep: bool,
}

impl Config {
    /// # Errors
    /// The list is not in the body, or not one.
    pub fn compile(&self) -> Result<Split, Vec<Finding>> {
        match &self.list {
            FieldPath::Data(place) if place.is_many() => {
                let text = "one list can be split, and `[*]` is many; split the outer list first, \
                            then the inner one by another `split`";
                Err(vec![Finding::new(text).below("list")])
            }
            FieldPath::Data(place) => Ok(Split { place: place.clone(), keep: self.keep }),
            _ => {
                let text = "only a list in the body can be split, such as `data.items`";
                Err(vec![Finding::new(text).below("list")])
            }
        }
    }
}

impl Split {
    /// The events; none of an empty list.
    ///
    /// # Errors
    /// There is no list, it is too long, or more than `room` bytes would be copied.
    pub fn apply(&self, mut draft: Draft, room: &mut usize) -> Result<Vec<Draft>, Failure> {
        let no_list = || {
            let path = FieldPath::Data(self.place.clone());
            Failure::new("split", format!("`{path}` is no list"))
        };
        let body = draft.json()?;
        let Some(Json::Array(items)) = self.place.get(body) else { return Err(no_list()) };
        if items.len() > EVENTS_MAX {
            let text = format!("the list has {} items; {EVENTS_MAX} are allowed", items.len());
            return Err(Failure::new("split", text));
        }
        let items = items.clone();
        // What is copied for every item should not be the whole list.
        if !self.place.set(body, Json::Null) {
            return Err(no_list());
        }
        if self.keep {
            let copied = write(body).len().saturating_mul(items.len());
            *room = room.checked_sub(copied).ok_or_else(|| {
                let most = Size(COPIED_BYTES_MAX);
                let text = format!("to keep the rest of the body for each item takes over {most}");
                Failure::new("split", text)
            })?;
        }
        let one = |(index, item)| {
            let mut one = draft.clone();
            one.place.push(index);
            let event = one.event_mut();
            event.id = format!("{}/{index}", event.id).into();
            match self.keep {
                false => one.set_json(item),
                true if self.place.set(one.json()?, item) => {}
                true => return Err(no_list()),
            }
            Ok(one)
        };
        items.into_iter().enumerate().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{event::Event, transform::tests::event};

    fn split(body: &str, keep: bool) -> Result<Vec<(String, Json)>, Failure> {
        let config = Config { list: "data.items".parse().unwrap(), keep };
        let draft = Draft::new(Event { id: "e".into(), body: body.to_owned().into(), ..event() });
        let drafts = config.compile().unwrap().apply(draft, &mut COPIED_BYTES_MAX.clone())?;
        let seen = |mut draft: Draft| (draft.event().id.to_string(), draft.json().unwrap().clone());
        Ok(drafts.into_iter().map(seen).collect())
    }

    #[test]
    fn every_item_becomes_an_event() {
        let body = r#"{"order": 1, "items": [{"sku": "a"}, 7]}"#;
        let items = [("e/0".to_owned(), json!({"sku": "a"})), ("e/1".to_owned(), json!(7))];
        assert_eq!(split(body, false).unwrap(), items);
        let kept = split(body, true).unwrap();
        assert_eq!(kept[1].1, json!({"order": 1, "items": 7}));
        assert_eq!(split(r#"{"items": []}"#, false).unwrap(), []);
    }

    #[test]
    fn what_is_no_list_fails() {
        for body in [r#"{"items": {}}"#, "{}", "x", ""] {
            assert!(split(body, false).is_err(), "{body}");
        }
        for list in ["attributes.x", "data.orders[*].items"] {
            let config = Config { list: list.parse().unwrap(), keep: false };
            assert!(config.compile().is_err(), "{list}");
        }
        let long = json!({"items": vec![0; EVENTS_MAX + 1]}).to_string();
        assert!(split(&long, false).unwrap_err().text.contains("10001 items"));
    }

    #[test]
    fn what_is_kept_is_not_copied_without_end() {
        let body =
            |items| json!({"kept": "x".repeat(1 << 19), "items": vec![0; items]}).to_string();
        assert_eq!(split(&body(30), true).unwrap().len(), 30);
        assert_eq!(split(&body(5000), false).unwrap().len(), 5000);
        assert!(split(&body(33), true).unwrap_err().text.ends_with("takes over 16MiB"));
    }
}
