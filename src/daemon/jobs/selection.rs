//! Which dead letters are meant, as somebody writes it down.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::{
    cli::dead_letters::moment,
    redrive::{filter::Filter, reading::Via},
    route::When,
};

/// Which dead letters are meant, and how they are dealt with. All that is given has to hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// In these dead-letter sinks; in all without it.
    pub sinks: Vec<String>,
    /// The SQS queue to read in place of a dead-letter sink that is an SNS topic.
    pub queue: Option<String>,
    /// The consumer group to read a dead-letter sink with that is an event hub.
    pub consumer_group: Option<String>,
    /// That this route gave up.
    pub route: Option<String>,
    /// Of this class of cause.
    pub class: Option<String>,
    /// Of the event of this id.
    pub id: Option<String>,
    /// Given up at this time or later: RFC 3339, or how long ago, as in `2h`.
    pub since: Option<String>,
    /// Given up before this time.
    pub until: Option<String>,
    /// Whose events match this pattern, as in a route's `when`.
    pub pattern: Option<Map<String, Json>>,
    /// So many at most.
    pub max: Option<usize>,
    /// To be sent into this sink as they are; each through its own route without it.
    pub to: Option<String>,
    /// To be sent at so many in a second at most.
    pub rate: Option<u32>,
    /// Not to ask what has been delivered before, on routes with `dedup`.
    pub without_dedup: bool,
}

impl Selection {
    /// How the sinks are read.
    #[must_use]
    pub fn via(&self) -> Via {
        Via { queue: self.queue.clone(), consumer_group: self.consumer_group.clone() }
    }

    /// What it lets through.
    ///
    /// # Errors
    /// What of it cannot be understood, and what to write instead.
    pub fn filter(&self) -> Result<Filter, String> {
        if self.rate == Some(0) {
            return Err("`rate` is a number from 1 on".to_owned());
        }
        let time = |name: &str, text: &Option<String>| {
            let time = text.as_deref().map(moment).transpose();
            time.map_err(|error| format!("`{name}`: {error}"))
        };
        let when = self.pattern.as_ref().map(When::read).transpose().map_err(|findings| {
            let lines = findings.iter().map(|it| format!("`pattern.{}`: {it}", it.path));
            lines.collect::<Vec<_>>().join("; ")
        })?;
        Ok(Filter {
            route: self.route.clone(),
            class: self.class.clone(),
            id: self.id.clone(),
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            when: when.unwrap_or_default(),
            among: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (selection, told) in [
            (json!({ "since": "soon" }), "`since`: `soon` is no time"),
            (json!({ "rate": 0 }), "`rate` is a number from 1 on"),
            (json!({ "pattern": { "tpye": ["x"] } }), "`pattern.tpye`"),
        ] {
            let selection: Selection = serde_json::from_value(selection).unwrap();
            let error = selection.filter().unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let all: Selection = serde_json::from_value(json!({})).unwrap();
        assert!(all.filter().unwrap().is_all());
    }
}
