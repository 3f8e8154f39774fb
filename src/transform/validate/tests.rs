//! What passes, and by which version.

use std::{fs, sync::LazyLock};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::event::{Attributes, Event, Trace, Value};

mod load;
#[cfg(feature = "vrl")]
mod upgrade;
mod violations;

const _: fn() = || {
    fn can_be_shared<T: Send + Sync>() {}
    can_be_shared::<Validate>();
};

/// A folder with these files.
fn folder(files: &[(&str, Json)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, schema) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, schema.to_string()).unwrap();
    }
    folder
}

fn compiled(config: Json, folder: &TempDir) -> Result<Validate, Vec<Finding>> {
    serde_json::from_value::<Config>(config).unwrap().compile(folder.path())
}

/// The step with one schema, for events of type `t`.
fn one(schema: Json) -> Validate {
    let folder = folder(&[("t.json", schema)]);
    compiled(json!({ "schemas": { "t": { "1": "t.json" } } }), &folder).unwrap()
}

/// Three versions that tell each other apart by the type of `v`.
fn three(config: Json) -> Validate {
    let versioned = |id: &str, kind: &str| {
        json!({
            "$id": format!("https://shop.example/{id}"), "type": "object", "required": ["v"],
            "properties": { "v": { "type": kind }, "extra": { "type": "boolean" } }
        })
    };
    let folder = folder(&[
        ("1.json", versioned("one", "integer")),
        ("2.json", versioned("two", "number")),
        ("10.json", versioned("ten", "string")),
    ]);
    let mut all = json!({ "schemas": { "t": { "1": "1.json", "2": "2.json", "10": "10.json" } } });
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    compiled(all, &folder).unwrap()
}

fn event(body: &Json, attributes: &[(&str, &str)]) -> Draft {
    Draft::new(Event {
        id: "1".into(),
        source: "/s".into(),
        kind: Some("t".into()),
        subject: None,
        time: None,
        content_type: None,
        key: None,
        trace: Trace::default(),
        hops: 0,
        attributes: attributes
            .iter()
            .map(|(name, value)| (*name, Value::string(*value)))
            .collect::<Attributes>(),
        body: body.to_string().into(),
        dead_letter: None,
        fitted: None,
    })
}

/// What is said against this data.
fn failure(step: &Validate, data: &Json) -> String {
    let failure = step.apply(&mut event(data, &[])).unwrap_err();
    assert_eq!(failure.class, "invalid");
    failure.text
}

#[test]
fn the_version_is_read_where_it_stands() {
    let step = three(json!({ "version": "data.schema_version" }));
    for (body, expected) in [
        (json!({ "schema_version": "1", "v": 1 }), None),
        (json!({ "schema_version": 1, "v": 1 }), None),
        (
            json!({ "schema_version": "10", "v": 1 }),
            Some("version `10`: `data.v` must be a string"),
        ),
        (
            json!({ "schema_version": "SECRET", "v": 1 }),
            Some(
                "`data.schema_version` names no version of `t` that has a schema; \
                 there is `1`, `2` and `10`",
            ),
        ),
        (json!({ "schema_version": ["1"], "v": 1 }), Some("names no version")),
        // It does not say: the latest that lets it pass.
        (json!({ "schema_version": null, "v": 1 }), None),
        (json!({ "v": 1 }), None),
        (json!({ "v": null }), Some("version `10`: `data.v` must be a string (type)")),
    ] {
        match (step.apply(&mut event(&body, &[])), expected) {
            (Ok(()), None) => {}
            (Err(failure), Some(part)) => assert!(failure.text.contains(part), "{}", failure.text),
            (other, _) => panic!("{body}: {other:?}"),
        }
    }
    let step = three(json!({ "version": "attributes.version" }));
    let error = step.apply(&mut event(&json!({ "v": 1 }), &[("version", "10")])).unwrap_err();
    assert!(error.text.contains("version `10`"), "{error}");
}

#[test]
fn without_a_version_the_latest_that_lets_it_pass_is_taken() {
    let step = three(json!({}));
    let kind = &step.kinds["t"];
    for (v, expected) in [(json!(1), "2"), (json!(1.5), "2"), (json!("x"), "10")] {
        let at = step.check(kind, &mut event(&json!({ "v": v }), &[])).unwrap();
        assert_eq!(kind.versions[at].name, expected, "{v}");
    }
    let text = failure(&step, &json!({ "v": null, "extra": 1 }));
    let expected = "no valid `t` of version `10`: `data.extra` must be a boolean (type); \
                    `data.v` must be a string (type)";
    assert_eq!(text, expected);
}

#[test]
fn dataschema_goes_before_the_version() {
    let step = three(json!({ "version": "data.schema_version" }));
    let body = json!({ "schema_version": "10", "v": 1 });
    for uri in [
        "https://shop.example/one",
        "https://shop.example/one#",
        "https://registry.example/schemas/t/1",
        "https://registry.example/schemas/t/1.json",
        "urn:shop:t/1",
        "t/1",
    ] {
        for name in [
            "dataschema",
            "cloudEvents_dataschema",
            "cloudEvents:dataschema",
            "ce_dataschema",
            "ce-dataschema",
        ] {
            assert_eq!(step.apply(&mut event(&body, &[(name, uri)])), Ok(()), "{name}: {uri}");
        }
    }
    for uri in
        ["https://shop.example/SECRET", "https://r.example/at/1", "https://r.example/t/3", "1", ""]
    {
        let error = step.apply(&mut event(&body, &[("dataschema", uri)])).unwrap_err();
        assert!(error.text.starts_with("`dataschema` names no version of `t` "), "{uri}: {error}");
        assert!(!error.text.contains("SECRET"), "{error}");
    }
}

#[test]
fn of_a_structured_cloud_event_the_data_is_judged() {
    let step = three(json!({ "version": "data.schema_version" }));
    let envelope = |data: Json, schema: &str| {
        json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": "t",
            "dataschema": schema, "data": data
        })
    };
    let ten = "https://shop.example/ten";
    assert_eq!(step.apply(&mut event(&envelope(json!({ "v": "x" }), ten), &[])), Ok(()));
    let text = failure(&step, &envelope(json!({ "v": 1 }), ten));
    assert_eq!(text, "no valid `t` of version `10`: `data.v` must be a string (type)");
    let mut unnamed = envelope(json!({ "v": 1, "schema_version": "10" }), ten);
    unnamed.as_object_mut().unwrap().remove("dataschema");
    assert!(failure(&step, &unnamed).contains("version `10`"));
    unnamed.as_object_mut().unwrap().remove("data");
    assert!(failure(&step, &unnamed).contains("has no `data`"));
}

#[test]
fn types_without_a_schema_fail_or_pass() {
    let schema = || folder(&[("t.json", json!(true))]);
    let config =
        |unknown: &str| json!({ "schemas": { "t": { "1": "t.json" } }, "unknown": unknown });
    let mut other = event(&json!({}), &[]);
    other.event_mut().kind = Some("other".into());
    let mut none = other.clone();
    none.event_mut().kind = None;
    let fail = compiled(config("fail"), &schema()).unwrap();
    assert_eq!(
        compiled(json!({ "schemas": { "t": { "1": "t.json" } } }), &schema()).unwrap().unknown,
        Unknown::Fail
    );
    let text = |draft: &mut Draft| fail.apply(draft).unwrap_err().text;
    assert_eq!(
        text(&mut other),
        "events of type `other` have no schema; give them one, or let them by with `unknown: pass`"
    );
    assert!(text(&mut none).starts_with("events without a type have no schema"));
    let pass = compiled(config("pass"), &schema()).unwrap();
    assert_eq!(pass.apply(&mut other), Ok(()));
    assert_eq!(pass.apply(&mut none), Ok(()));
}

#[test]
fn a_body_that_is_no_json_fails() {
    let mut draft = event(&json!({}), &[]);
    draft.set_bytes("SECRET".into());
    let failure = one(json!(true)).apply(&mut draft).unwrap_err();
    assert_eq!(failure.class, "not_json");
    assert!(!failure.text.contains("SECRET"));
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec(("v|schema_version|specversion|[a-z]{1,2}", inner), 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

static VERSIONED: LazyLock<Validate> =
    LazyLock::new(|| three(json!({ "version": "data.schema_version" })));

proptest! {
    #[test]
    fn what_is_valid_passes_unchanged(
        extra in any_json(), v in prop_oneof![any_json(), ".{0,4}".prop_map(Json::from)],
        version in prop::option::of("1|2|10"),
    ) {
        let mut body = json!({ "v": v, "x": extra });
        if let Some(version) = version {
            body["schema_version"] = json!(version);
        }
        let before = event(&body, &[("tenant", "acme")]);
        let mut draft = before.clone();
        if VERSIONED.apply(&mut draft).is_ok() {
            prop_assert_eq!(draft.finish(), before.finish());
        }
    }

    #[test]
    fn no_event_makes_it_panic(body in any_json(), uri in prop::option::of(".{0,12}")) {
        let attributes: Vec<_> = uri.iter().map(|uri| ("dataschema", &**uri)).collect();
        let _ = VERSIONED.apply(&mut event(&body, &attributes));
    }
}
