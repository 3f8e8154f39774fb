//! What is said about schemas when they are read.

use super::*;

/// What is said against this one schema at load.
fn refused(schema: Json) -> String {
    let folder = folder(&[("t.json", schema)]);
    let findings = compiled(json!({ "schemas": { "t": { "1": "t.json" } } }), &folder).unwrap_err();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].path.to_string(), "schemas.t.1");
    findings[0].text.replace(folder.path().to_str().unwrap(), "FOLDER")
}

#[test]
fn a_schema_file_that_is_none_is_found_at_its_place() {
    let folder = folder(&[("good.json", json!(true))]);
    fs::write(folder.path().join("bad.json"), "{\"type\": ").unwrap();
    let config = json!({ "schemas": {
        "a.b": { "1": "good.json", "2": "absent.json", "3": "bad.json" }, "c": {}
    } });
    let findings = compiled(config, &folder).unwrap_err();
    let shown: Vec<_> = findings.iter().map(|f| (f.path.to_string(), &*f.text)).collect();
    let [(two, absent), (three, bad), (c, empty)] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!([two, three, c], ["schemas.a.b.2", "schemas.a.b.3", "schemas.c"]);
    assert!(
        absent.contains("absent.json`; name the schema's file, relative to the folder"),
        "{absent}"
    );
    assert!(bad.contains("bad.json` is no JSON: EOF") && bad.contains("line 1"), "{bad}");
    assert!(empty.contains("name a version and its file"), "{empty}");
    let none = compiled(json!({ "schemas": {} }), &folder).unwrap_err();
    assert_eq!(none[0].path.to_string(), "schemas");
}

#[test]
fn what_is_no_schema_is_told_so() {
    for (schema, part) in [
        (json!({ "properties": { "a": { "type": "strin" } } }), "`properties.a.type` must "),
        (json!({ "type": 7 }), "is no valid schema: `type` must "),
        (json!({ "pattern": "(" }), "`pattern` must be a valid `regex` (format)"),
        (
            json!({ "$ref": "https://x.example/s.json" }),
            "`https://x.example/s.json` is not there: schemas are read neither from the network \
             nor from other folders; save it beside this one",
        ),
        (json!({ "$ref": "absent.json" }), "FOLDER/absent.json"),
        (json!({ "$ref": "../up.json" }), "from other folders"),
        (json!({ "$ref": "file:///etc/passwd" }), "from other folders"),
        (json!({ "$ref": "file:///schemas/../../etc/passwd" }), "from other folders"),
        (json!({ "$ref": "file:///schemas//etc/passwd" }), "from other folders"),
        (json!({ "$ref": "#/$defs/absent" }), "/$defs/absent"),
        (
            json!({ "$schema": "https://json-schema.org/draft/2099-01/schema" }),
            "https://json-schema.org/draft/2020-12/schema",
        ),
        (json!([]), "is no valid schema"),
    ] {
        let text = refused(schema.clone());
        assert!(text.contains(part), "{schema}: {text}");
    }
}

#[test]
fn references_lead_to_files_beside_the_schema() {
    for id in [None, Some("https://shop.example/schemas/t.json")] {
        let mut schema = json!({ "properties": {
            "a": { "$ref": "a.json" }, "b": { "$ref": "below/b.json#/$defs/b" }
        } });
        if let Some(id) = id {
            schema["$id"] = json!(id);
        }
        let folder = folder(&[
            ("in/t.json", schema),
            ("in/a.json", json!({ "type": "null" })),
            ("in/below/b.json", json!({ "$defs": { "b": { "$ref": "c.json" } } })),
            ("in/below/c.json", json!({ "type": "null" })),
        ]);
        let step = compiled(json!({ "schemas": { "t": { "1": "in/t.json" } } }), &folder).unwrap();
        let text = failure(&step, &json!({ "a": 1, "b": 1 }));
        let expected = "`data.a` must be null (type); `data.b` must be null (type)";
        assert!(text.ends_with(expected), "{id:?}: {text}");
    }
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let step = one(json!({
        "$ref": "#/$defs/a",
        "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }
    }));
    assert_eq!(step.apply(&mut event(&json!(1), &[])), Ok(()));
    let tree = one(json!({ "type": "object", "properties": { "child": { "$ref": "#" } } }));
    let text = failure(&tree, &json!({ "child": { "child": 1 } }));
    assert!(text.contains("`data.child.child` must be an object"), "{text}");
}

#[test]
fn the_draft_is_the_one_that_the_schema_names() {
    let items = json!([{ "type": "null" }]);
    let old = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "items": items });
    assert!(failure(&one(old), &json!([1])).contains("data[0]"));
    // In the default, a list of items is called `prefixItems`.
    assert!(refused(json!({ "items": items })).contains("`items` must be "));
}

#[test]
fn two_versions_with_one_id_are_refused() {
    let schema = json!({ "$id": "https://shop.example/t" });
    let folder = folder(&[("1.json", schema.clone()), ("2.json", schema)]);
    let config = json!({ "schemas": { "t": { "1": "1.json", "2": "2.json" } } });
    let findings = compiled(config, &folder).unwrap_err();
    assert_eq!(findings[0].path.to_string(), "schemas.t.2");
    assert!(findings[0].text.contains("the same `$id` as version `1`"));
}

#[test]
fn the_schemas_of_the_examples_are_schemas() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let config = json!({ "schemas": { "order.placed": {
        "1": "schemas/order-placed.v1.json", "2": "schemas/order-placed.v2.json"
    } } });
    serde_json::from_value::<Config>(config).unwrap().compile(&folder).unwrap();
}
