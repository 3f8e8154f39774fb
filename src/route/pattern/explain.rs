//! Says why an event does not match.

use serde::Serialize;
use serde_json::json;

use super::{
    Field, Held, Pattern,
    fields::{Fields, Scalar},
    written,
};

/// A field of a pattern that an event fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Names from the top, joined by dots.
    pub path: String,
    /// What the event has there, as JSON: the first few values, long ones cut. Nothing where it
    /// has none.
    pub found: Vec<String>,
    /// The tests of which none holds, as JSON, and where it must hold.
    pub wanted: String,
}

const VALUES_MAX: usize = 5;
const CHARACTERS_MAX: usize = 80;

impl Pattern {
    /// The first field that does not match, of the way to match that gets furthest; `None` if the
    /// event matches.
    #[must_use]
    pub fn first_failure(&self, fields: &Fields<'_>) -> Option<Failed> {
        let mut furthest: Option<(usize, Failed)> = None;
        for way in &self.ways {
            let (passed, failed) = fails(way.iter().map(|field| &**field), fields)?;
            if furthest.as_ref().is_none_or(|(most, _)| passed > *most) {
                furthest = Some((passed, failed));
            }
        }
        furthest.map(|(_, failed)| failed)
    }
}

/// How many fields of a way match together, and the one after these.
fn fails<'f>(way: impl Iterator<Item = &'f Field>, fields: &Fields<'_>) -> Option<(usize, Failed)> {
    let mut places = Vec::new();
    for (passed, field) in way.enumerate() {
        let within = match field.holds(fields.slot(&field.path), fields) {
            Held::Free => continue,
            Held::No => return Some((passed, failed(field, fields, ""))),
            Held::Within(within) => within,
        };
        places.push(within);
        if places.len() > 1 && !fields.together(&places) {
            return Some((passed, failed(field, fields, TOGETHER)));
        }
    }
    None
}

const TOGETHER: &str = ", in the same list element as the fields before";

fn failed(field: &Field, fields: &Fields<'_>, r#where: &str) -> Failed {
    let tests: Vec<_> = field.tests.iter().map(|test| test.written().to_string()).collect();
    let mut leaves: Vec<_> =
        fields.slot(&field.path).into_iter().flat_map(|slot| fields.at(slot)).collect();
    leaves.reverse();
    let found = leaves.iter().take(VALUES_MAX).map(|leaf| shown(&leaf.value)).collect();
    let wanted = format!("{}{}", tests.join(" or "), r#where);
    Failed { path: field.path.to_string(), found, wanted }
}

fn shown(value: &Scalar<'_>) -> String {
    let whole = match value {
        Scalar::Null => "null".to_owned(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(number) => written::plain(*number).to_string(),
        Scalar::Text(text) => json!(text).to_string(),
        Scalar::Bytes => "bytes".to_owned(),
    };
    match whole.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &whole[..at]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use time::OffsetDateTime;

    use super::*;
    use crate::route::pattern::fields::Wanted;

    fn read(pattern: &Value) -> Pattern {
        Pattern::read(pattern.as_object().unwrap()).unwrap()
    }

    fn failure(pattern: &Value, event: &Value) -> Option<(String, String, String)> {
        let pattern = read(pattern);
        let mut wanted = Wanted::default();
        pattern.want(&mut wanted);
        let event = event.to_string();
        let mut fields = Fields::new(&wanted, OffsetDateTime::UNIX_EPOCH);
        assert!(fields.read_json(Wanted::TOP, event.as_bytes()));
        let Failed { path, found, wanted } = pattern.first_failure(&fields)?;
        Some((path, found.join(" "), wanted))
    }

    #[test]
    fn the_first_field_that_fails_is_told() {
        let pattern = json!({
            "a": ["x"], "b": [{"prefix": "y"}, 7], "c": {"d": [{"numeric": [">", 1, "<=", 2.5]}]},
        });
        let failed = |event| failure(&pattern, &event);
        let told = |path: &str, found: &str, wanted: &str| {
            Some((path.to_owned(), found.to_owned(), wanted.to_owned()))
        };
        assert_eq!(failed(json!({})), told("a", "", r#""x""#));
        let b = r#"{"prefix":"y"} or 7"#;
        assert_eq!(failed(json!({"a": "x", "b": [8, null, "x"]})), told("b", r#"8 null "x""#, b));
        let d = r#"{"numeric":[">",1,"<=",2.5]}"#;
        assert_eq!(failed(json!({"a": "x", "b": 7, "c": {"d": 1}})), told("c.d", "1", d));
        assert_eq!(failed(json!({"a": "x", "b": 7, "c": {"d": 2}})), None);
    }

    #[test]
    fn of_several_ways_the_one_that_gets_furthest_is_told() {
        let pattern = json!({"$or": [{"a": ["x"]}, {"b": ["y"], "c": ["z"]}, {"d": [1]}]});
        let (path, ..) = failure(&pattern, &json!({"b": "y"})).unwrap();
        assert_eq!(path, "c");
    }

    #[test]
    fn values_that_lie_apart_are_told_so() {
        let event = json!({"list": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]});
        let (path, found, wanted) =
            failure(&json!({"list": {"a": [1], "b": [2]}}), &event).unwrap();
        assert_eq!((path.as_str(), found.as_str()), ("list.b", "1 2"));
        assert_eq!(wanted, "2, in the same list element as the fields before");
    }

    #[test]
    fn what_is_shown_is_short() {
        let event = json!({"a": vec!["ü".repeat(1_000); 100]});
        let (_, found, _) = failure(&json!({"a": ["x"]}), &event).unwrap();
        assert_eq!(found.chars().count(), 5 * (CHARACTERS_MAX + 1) + 4);
    }

    #[test]
    fn every_test_is_shown_as_it_can_be_read_again() {
        let tests = json!([
            null, true, 7, -0.5, "x", {"prefix": "x"}, {"suffix": "x"},
            {"equals-ignore-case": "x"}, {"prefix": {"equals-ignore-case": "x"}},
            {"suffix": {"equals-ignore-case": "x"}}, {"wildcard": r"a*\*\\*b"},
            {"anything-but": ["x", "y"]}, {"anything-but": [1, 2]},
            {"anything-but": {"prefix": ["x", "y"]}}, {"anything-but": {"wildcard": ["x*"]}},
            {"numeric": ["=", 5]}, {"numeric": [">=", 5]}, {"numeric": [">", 0, "<", 1e300]},
            {"exists": true}, {"exists": false}, {"cidr": "10.0.0.0/8"}, {"newer_than": "1h 5m"},
            {"older_than": "90ms"},
            {"daily": {"from": "22:00", "to": "06:05", "zone": "Europe/Berlin", "days": ["fri"]}},
        ]);
        let pattern = read(&json!({ "a": tests }));
        let field = &pattern.ways[0][0];
        let written: Value = field.tests.iter().map(super::super::Test::written).collect();
        assert_eq!(read(&json!({ "a": written })), pattern, "{written}");
    }
}
