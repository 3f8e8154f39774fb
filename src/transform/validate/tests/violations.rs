//! In which words an event fails.

use super::*;

#[test]
fn every_violation_is_listed_without_a_value() {
    let step = one(json!({
        "type": "object",
        "required": ["id", "currency"],
        "properties": {
            "amount": { "type": "number" },
            "lines": { "items": { "properties": { "sku": { "pattern": "^[A-Z]{3}$" } } } },
            "mail": { "format": "email" },
            "size": { "enum": ["S", "M"] }
        },
        "additionalProperties": false
    }));
    let secret = json!({
        "amount": "SECRET", "lines": [{ "sku": "ABC" }, { "sku": "SECRET" }],
        "mail": "SECRET", "size": "SECRET", "colour": "SECRET", "anna@x.example": 1
    });
    let text = failure(&step, &secret);
    assert!(!text.contains("SECRET") && !text.contains("anna"), "{text}");
    for part in [
        "no valid `t` of version `1`: ",
        "`data` must have `id` (required)",
        "`data` must have `currency` (required)",
        "`data.amount` must be a number (type)",
        "`data.lines[1].sku` must match `^[A-Z]{3}$` (pattern)",
        "`data.mail` must be a valid `email` (format)",
        "`data.size` must be one of `S`, `M` (enum)",
        "`data` must not have `…`, `colour` (additionalProperties)",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert_eq!(text.matches("; ").count(), 6, "{text}");
}

/// A value that fails each keyword, and what is said of it.
#[test]
fn no_keyword_shows_the_value() {
    let secret = "SECRET-4111111111111111";
    let is_text = json!({ "type": "string" });
    for (schema, data, expected) in [
        (
            json!({ "type": ["null", "integer"] }),
            json!(secret),
            "must be null or an integer (type)",
        ),
        (json!({ "const": 7 }), json!(secret), "must be 7 (const)"),
        (json!({ "maxLength": 3 }), json!(secret), "must have at most 3 characters (maxLength)"),
        (json!({ "minLength": 99 }), json!(secret), "must have at least 99 characters"),
        (json!({ "maximum": 5 }), json!(4111), "must be at most 5 (maximum)"),
        (json!({ "minimum": 9999 }), json!(4111), "must be at least 9999 (minimum)"),
        (json!({ "exclusiveMaximum": 5 }), json!(4111), "must be less than 5"),
        (json!({ "exclusiveMinimum": 9999 }), json!(4111), "must be greater than 9999"),
        (json!({ "multipleOf": 2 }), json!(4111), "must be a multiple of 2"),
        (json!({ "maxItems": 0 }), json!([secret]), "must have at most 0 items"),
        (json!({ "minItems": 2 }), json!([secret]), "must have at least 2 items"),
        (json!({ "uniqueItems": true }), json!([secret, secret]), "must have no item twice"),
        (json!({ "contains": { "type": "null" } }), json!([secret]), "lacks an item"),
        (json!({ "items": false }), json!([secret]), "[0]` must not be there"),
        (
            json!({ "prefixItems": [true], "unevaluatedItems": false }),
            json!([1, secret]),
            "must not have its last 1 item (unevaluatedItems)",
        ),
        (json!({ "maxProperties": 0 }), json!({ "a": secret }), "must have at most 0 fields"),
        (json!({ "minProperties": 2 }), json!({ "a": secret }), "must have at least 2 fields"),
        (
            json!({ "unevaluatedProperties": false }),
            json!({ "a": secret }),
            "must not have `a` (unevaluatedProperties)",
        ),
        (
            json!({ "propertyNames": { "maxLength": 3 } }),
            json!({ secret: 1 }),
            "has a field whose name must have at most 3 characters (propertyNames)",
        ),
        (json!({ "dependentRequired": { "a": ["b"] } }), json!({ "a": secret }), "must have `b`"),
        (
            json!({ "anyOf": [{ "type": "null" }, false] }),
            json!(secret),
            "one of 2 schemas (anyOf)",
        ),
        (
            json!({ "oneOf": [{ "type": "null" }, false] }),
            json!(secret),
            "one of 2 schemas (oneOf)",
        ),
        (json!({ "oneOf": [is_text, true] }), json!(secret), "must match only one of the schemas"),
        (json!({ "not": is_text }), json!(secret), "must not match the schema (not)"),
        (json!({ "additionalProperties": is_text }), json!({ "4111111111111111": 1 }), "data.…`"),
        (json!({ "format": "date-time" }), json!(secret), "must be a valid `date-time` (format)"),
        (json!(false), json!(secret), "`data` must not be there"),
        (
            json!({ "pattern": r"^(a|aa)+\1b$" }),
            json!(format!("{}!", "a".repeat(60))),
            "with its pattern (pattern)",
        ),
        (
            json!({
                "$schema": "http://json-schema.org/draft-07/schema#",
                "contentMediaType": "application/json"
            }),
            json!(secret),
            "must hold `application/json`",
        ),
    ] {
        let text = failure(&one(schema.clone()), &data);
        assert!(text.contains(expected), "{schema}: {text}");
        assert!(!text.contains("SECRET") && !text.contains("4111"), "{schema}: {text}");
    }
}

#[test]
fn after_twenty_violations_the_rest_is_counted() {
    let step = one(json!({ "items": { "type": "null" } }));
    let text = failure(&step, &json!(vec![1; 123]));
    assert!(text.contains("`data[19]` ") && !text.contains("`data[20]` "), "{text}");
    assert!(text.ends_with("; and 103 more"), "{text}");
}

#[test]
fn a_failure_is_short_whatever_the_event_and_the_schema_are_like() {
    let long: String = "x".repeat(1_000);
    let options: Vec<_> = (0..100).map(|i| format!("{long}{i}")).collect();
    let step = one(json!({
        "additionalProperties": false,
        "properties": { "a": { "enum": options, "pattern": format!("^{long}$") } }
    }));
    let mut data = json!({ "a": "no" });
    for i in 0..100 {
        data[format!("{long}{i}")] = json!(1);
        data[format!("b{i}")] = json!(1);
    }
    let text = failure(&step, &data);
    assert!(text.len() < 2_000, "{} characters", text.len());
    assert!(text.contains("and 192 more"), "{text}");
}

#[test]
fn a_body_of_a_mebibyte_is_judged() {
    let step = one(json!({ "items": { "maxLength": 4, "pattern": "^[a-z]*$" } }));
    let mut items = vec![json!("abcd"); 150_000];
    let mut draft = event(&json!(items), &[]);
    assert!(draft.bytes().len() > 1 << 20);
    assert_eq!(step.apply(&mut draft), Ok(()));
    items.push(json!("abcde"));
    let text = failure(&step, &json!(items));
    assert!(
        text.ends_with(": `data[150000]` must have at most 4 characters (maxLength)"),
        "{text}"
    );
}
