//! Finds what no event can match: patterns whose fields contradict each other, or what every event
//! is.

use crate::{config::problem::Finding, event::is_json};

use super::{
    Field, Literal, Pattern, Test, Text,
    clock::{self, Clock},
    fields::Scalar,
};

/// What is text in every event that has it.
const TEXTS: [&str; 7] = ["type", "source", "subject", "id", "time", "key", "datacontenttype"];
/// What every event has.
const ALWAYS: [&str; 2] = ["source", "id"];

impl Pattern {
    /// Why no event can match, at the fields that say so; nothing where one can. Of `$or`, none of
    /// the branches can then.
    #[must_use]
    pub fn can_never_match(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        for way in &self.ways {
            let way: Vec<_> = way.iter().map(|field| &**field).collect();
            let found = contradictions(&way);
            if found.is_empty() {
                return Vec::new();
            }
            for finding in found {
                if !all.contains(&finding) {
                    all.push(finding);
                }
            }
        }
        all
    }
}

pub(super) fn contradictions(way: &[&Field]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, field) in way.iter().enumerate() {
        let mut find = |text: String| found.push(finding(&field.path, text));
        if let Some(why) = field.fails_every_event() {
            find(why);
        }
        let again = way[..at].iter().filter(|other| other.path == field.path);
        if again.into_iter().any(|other| field.excludes(other)) {
            find(format!(
                "no value of `{}` passes both what is asked of it here and there",
                field.path
            ));
        }
        if is_data(&field.path) && !field.may_be_absent() && way.iter().any(|f| f.is_no_json()) {
            let text = "asks for a field of the body, and `datacontenttype` for a body that is no \
                        JSON and so has none";
            find(text.to_owned());
        }
    }
    found
}

/// The path may be written nested or with dots: it leads to the nearest that is there.
fn finding(path: &str, text: String) -> Finding {
    path.rsplit('.').fold(Finding::new(text), Finding::below)
}

fn is_data(path: &str) -> bool {
    path == "data" || path.starts_with("data.")
}

impl Field {
    fn may_be_absent(&self) -> bool {
        self.tests.iter().any(|test| matches!(test, Test::Exists(false)))
    }

    fn fails_every_event(&self) -> Option<String> {
        let path = &*self.path;
        if let Some((top, _)) = path.split_once('.')
            && TEXTS.contains(&top)
        {
            let text = || format!("`{top}` is text and has no fields below it");
            return (!self.may_be_absent()).then(text);
        }
        if !TEXTS.contains(&path) || self.tests.iter().any(|test| test.can_hold_of(path)) {
            return None;
        }
        Some(
            match path {
                "time" => {
                    "`time` is text such as `2026-11-21T08:00:00Z`, which passes none of these"
                }
                path if ALWAYS.contains(&path) => "is text, and every event has it: none passes",
                _ => "is text, which passes none of these",
            }
            .to_owned(),
        )
    }

    /// Whether it holds only for a media type that is not JSON.
    fn is_no_json(&self) -> bool {
        &*self.path == "datacontenttype"
            && self.tests.iter().all(|test| match test {
                Test::Equals(Literal::Text(text)) => !is_json(Some(text)),
                Test::Text(Text::Equal(text)) => !is_json(Some(text)),
                test => !test.can_hold_of("datacontenttype"),
            })
    }

    /// Whether no event passes both. What may be a list can have one value for each, unless it is
    /// asked whether it is there.
    fn excludes(&self, other: &Self) -> bool {
        let is_one = TEXTS.contains(&&*self.path);
        let excludes = |one: &Test, other: &Test| {
            let asks = [one, other].iter().any(|test| matches!(test, Test::Exists(_)));
            (is_one || asks) && one.excludes(other)
        };
        self.tests.iter().all(|one| other.tests.iter().all(|other| excludes(one, other)))
    }
}

impl Test {
    /// Whether a text at this path, or its absence, can pass.
    fn can_hold_of(&self, path: &str) -> bool {
        match self {
            Self::Equals(Literal::Text(text)) => path != "time" || clock::time(text).is_some(),
            Self::Equals(_) | Self::Numeric(_) => false,
            Self::Exists(false) => !ALWAYS.contains(&path),
            _ => true,
        }
    }

    /// Whether it is certain that no value passes both.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exists(one), Self::Exists(other)) => one != other,
            (Self::Exists(exists), _) | (_, Self::Exists(exists)) => !exists,
            (Self::Equals(one), other) | (other, Self::Equals(one)) => !other.may_hold(one),
            (Self::Text(one), Self::Text(other)) => one.excludes(other),
            (Self::Clock(Clock::NewerThan(newer)), Self::Clock(Clock::OlderThan(older)))
            | (Self::Clock(Clock::OlderThan(older)), Self::Clock(Clock::NewerThan(newer))) => {
                newer <= older
            }
            _ => false,
        }
    }

    /// Whether the value passes, at some time.
    pub(super) fn may_hold(&self, value: &Literal) -> bool {
        let scalar = match value {
            Literal::Null => Scalar::Null,
            Literal::Bool(value) => Scalar::Bool(*value),
            Literal::Number(number) => Scalar::Number(*number),
            Literal::Text(text) => Scalar::Text((&**text).into()),
        };
        match self {
            Self::Clock(_) => scalar.text().and_then(clock::time).is_some(),
            // No other test looks at the clock.
            other => other.holds(&scalar, time::OffsetDateTime::UNIX_EPOCH),
        }
    }
}

impl Text {
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix(one), Self::Prefix(other)) => {
                !one.starts_with(&**other) && !other.starts_with(&**one)
            }
            (Self::Suffix(one), Self::Suffix(other)) => {
                !one.ends_with(&**other) && !other.ends_with(&**one)
            }
            (Self::Equal(one), Self::Equal(other)) => one != other,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(pattern: &Value) -> Vec<String> {
        let pattern = Pattern::read(pattern.as_object().unwrap()).unwrap();
        let found = pattern.can_never_match();
        found.iter().map(|finding| format!("{}: {finding}", finding.path)).collect()
    }

    #[test]
    fn what_contradicts_is_found_where_it_stands() {
        for (pattern, at) in [
            (json!({"type": [7]}), "type: is text"),
            (json!({"type": {"x": ["y"]}}), "type.x: `type` is text and"),
            (json!({"id": [{"exists": false}]}), "id: is text, and every"),
            (json!({"time": ["yesterday"]}), "time: `time` is text such as"),
            (
                json!({"subject": [{"prefix": "ab"}], "$or": [
                    {"subject": ["b", "c"]}, {"subject": [{"prefix": "ac"}]},
                ]}),
                "subject: no value",
            ),
            (json!({"data": {"a": [{"exists": false}]}, "data.a": [2]}), "data.a: no value"),
            (
                json!({"time": [{"newer_than": "1h"}], "$or": [
                    {"time": [{"older_than": "1h"}]}, {"time": [{"older_than": "2h"}]},
                ]}),
                "time: no value",
            ),
            (json!({"datacontenttype": ["text/plain"], "data": {"a": [1]}}), "data.a: asks"),
        ] {
            let found = found(&pattern);
            assert!(found.len() == 1 && found[0].starts_with(at), "{pattern}: {found:?}");
        }
    }

    #[test]
    fn what_can_match_is_let_be() {
        for pattern in [
            json!({"type": [7, "x"], "subject": [{"exists": false}]}),
            json!({"time": ["2026-11-21T08:00:00Z", {"prefix": "2026"}]}),
            json!({"data": {"a": [1, 2]}, "data.a": [2]}),
            // A list may have one for each.
            json!({"data": {"tags": ["urgent"]}, "$or": [
                {"data": {"tags": ["eu"]}}, {"data": {"tags": ["uk"]}},
            ]}),
            json!({"attributes": {"a": ["x"]}, "attributes.a": ["y"]}),
            json!({"data": {"a": [{"numeric": [">", 10]}]}, "data.a": [{"numeric": ["<", 10]}]}),
            json!({"data": {"a": [{"prefix": "xy"}]}, "data.a": [{"prefix": "x"}]}),
            json!({"data": {"a": [{"numeric": [">=", 10]}]}, "data.a": [{"numeric": ["<=", 10]}]}),
            json!({"datacontenttype": ["text/plain", "text/json"], "data": {"a": [1]}}),
            json!({"datacontenttype": ["text/plain"], "data": {"a": [{"exists": false}]}}),
            // An object is no value, and its fields are there.
            json!({"data": {"a": [{"exists": false}]}, "data.a.b": [1]}),
            // One branch is enough.
            json!({"type": ["x"], "$or": [{"type": ["y"]}, {"data": {"a": [1]}}]}),
        ] {
            assert_eq!(found(&pattern), Vec::<String>::new(), "{pattern}");
        }
    }
}
