//! `parse`: JSON out of text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    Draft, Failure, NOT_JSON,
    path::{FieldPath, Place},
};
use crate::config::{names::Names, problem::Finding};

/// Places whose text is JSON: one, or a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Parse")]
pub struct Config(pub Names);

/// The step.
#[derive(Debug, Clone, PartialEq)]
pub struct Parse(Vec<Place>);

impl Config {
    /// # Errors
    /// A place is not in the body.
    pub fn compile(&self) -> Result<Parse, Vec<Finding>> {
        let (mut places, mut findings) = (Vec::new(), Vec::new());
        for (index, text) in self.0.0.iter().enumerate() {
            let wrong = match text.parse() {
                Ok(FieldPath::Data(place)) => {
                    places.push(place);
                    continue;
                }
                Ok(_) => "only the body can be parsed: `data`, or a place below it".to_owned(),
                Err(error) => error,
            };
            findings.push(Finding::new(wrong).below_item(index));
        }
        if places.is_empty() && findings.is_empty() {
            findings.push(Finding::new("name at least one place, such as `data`"));
        }
        if findings.is_empty() { Ok(Parse(places)) } else { Err(findings) }
    }
}

impl Parse {
    /// Makes JSON of them. What is not there is left alone; what is no text is JSON already.
    ///
    /// # Errors
    /// The body, or the text in one of the places, is no JSON.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let body = draft.json()?;
        for place in &self.0 {
            let mut failed = false;
            place.each(body, &mut |value| {
                let Json::String(text) = value else { return };
                match serde_json::from_str(text) {
                    Ok(json) => *value = json,
                    Err(_) => failed = true,
                }
            });
            if failed {
                let path = FieldPath::Data(place.clone());
                return Err(Failure::new(NOT_JSON, format!("the text in `{path}` is no JSON")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{event::Event, transform::tests::event};

    fn parse(body: &str, places: &[&str]) -> Result<Json, Failure> {
        let names = Names(places.iter().map(|&place| place.to_owned()).collect());
        let mut draft = Draft::new(Event { body: body.to_owned().into(), ..event() });
        Config(names).compile().unwrap().apply(&mut draft)?;
        Ok(draft.json()?.clone())
    }

    #[test]
    fn text_becomes_json() {
        assert_eq!(parse(r#"{"a": 1}"#, &["data"]).unwrap(), json!({"a": 1}));
        assert_eq!(parse(r#""{\"a\": 1}""#, &["data"]).unwrap(), json!({"a": 1}));
        let body = r#"{"p": ["[1]", "2", 3], "q": "x"}"#;
        assert_eq!(
            parse(body, &["data.p[*]", "data.none"]).unwrap(),
            json!({"p": [[1], 2, 3], "q": "x"})
        );
    }

    #[test]
    fn what_is_no_json_fails_and_names_the_place() {
        assert_eq!(parse("x", &["data"]).unwrap_err().class, "not_json");
        let failure = parse(r#"{"q": "x"}"#, &["data.q"]).unwrap_err();
        assert_eq!(failure.text, "the text in `data.q` is no JSON");
        assert!(Config(Names(vec!["type".into()])).compile().is_err());
        assert!(Config(Names(vec![])).compile().is_err());
    }
}
