//! From version to version.

use super::*;

/// Versions 1, 2 and 10 of `t`, whose `v` is an object with one more field in each.
fn chain(config: Json) -> Result<Validate, Vec<Finding>> {
    let with = |fields: &[&str], id: Json| json!({ "$id": id, "properties": { "v": { "required": fields, "maxProperties": fields.len() } } });
    let id = |name: &str| json!(format!("https://shop.example/{name}"));
    let folder = folder(&[
        ("1.json", with(&["a"], id("one"))),
        ("2.json", with(&["a", "b"], id("two"))),
        ("10.json", with(&["a", "b", "c"], id("ten"))),
        ("other.json", json!(true)),
    ]);
    let mut all = json!({
        "schemas": {
            "t": { "1": "1.json", "2": "2.json", "10": "10.json" },
            "other": { "1": "other.json" }
        },
        "version": "attributes.version"
    });
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    compiled(all, &folder)
}

fn programs(one: &str, two: &str) -> Json {
    json!({ "upgrade": { "t": { "1": one, "2": two } } })
}

fn steps() -> Json {
    programs(".data.v.b = 2", ".data.v.c = 3\n.attributes.version = \"10\"")
}

fn to(version: &str) -> Json {
    let mut config = steps();
    config["to"] = json!(version);
    config
}

/// The body and the attribute after the step.
fn through(step: &Validate, body: &Json, attribute: (&str, &str)) -> (Json, Option<String>) {
    let mut draft = event(body, &[attribute]);
    step.apply(&mut draft).unwrap();
    let left = draft.event().attributes.text(attribute.0).map(str::to_owned);
    (draft.json().unwrap().clone(), left)
}

#[test]
fn every_step_on_the_way_is_taken() {
    let a = json!({ "v": { "a": 1 } });
    let ab = json!({ "v": { "a": 1, "b": 2 } });
    let abc = json!({ "v": { "a": 1, "b": 2, "c": 3 } });
    for (config, version, before, after) in [
        (steps(), "1", &a, &abc),
        (steps(), "2", &ab, &abc),
        (steps(), "10", &abc, &abc),
        (to("latest"), "1", &a, &abc),
        (to("2"), "1", &a, &ab),
        (to("2"), "2", &ab, &ab),
        // Newer than what is asked for.
        (to("2"), "10", &abc, &abc),
        (to("1"), "1", &a, &a),
        (json!({}), "1", &a, &a),
    ] {
        let step = chain(config.clone()).unwrap();
        assert_eq!(&through(&step, before, ("version", version)).0, after, "{config} {version}");
    }
    let (_, version) = through(&chain(steps()).unwrap(), &a, ("version", "1"));
    assert_eq!(version.as_deref(), Some("10"), "the program sets attributes, too");
}

#[test]
fn a_failure_on_the_way_names_the_version_and_leaves_the_event() {
    let body = json!({ "v": { "a": 1 } });
    for (config, class, expected) in [
        (
            programs(".data.v.x = 1", "."),
            "invalid",
            "upgrade of `t` from version `1` to `2`: \
             no valid `t` of version `2`: `data.v` must have `b` (required)",
        ),
        (
            programs(".data.v.b = 1", ".data.v.b = 2"),
            "invalid",
            "upgrade of `t` from version `2` to `10`: \
             no valid `t` of version `10`: `data.v` must have `c` (required)",
        ),
        (
            programs("abort", "."),
            "invalid",
            "upgrade of `t` from version `1` to `2`: the program aborts; an upgrade may not",
        ),
        (
            programs(".data.v.b = to_int!(\"x\")", "."),
            "map",
            "upgrade of `t` from version `1` to `2`: ",
        ),
    ] {
        let before = event(&body, &[("version", "1")]);
        let mut draft = before.clone();
        let failure = chain(config).unwrap().apply(&mut draft).unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.text.starts_with(expected), "{failure}");
        assert_eq!(draft.finish(), before.finish());
    }
}

#[test]
fn what_is_not_valid_is_not_upgraded() {
    let step = chain(steps()).unwrap();
    let body = json!({ "v": { "a": 1, "z": 1 } });
    let error = step.apply(&mut event(&body, &[("version", "1")])).unwrap_err();
    assert!(error.text.starts_with("no valid `t` of version `1`: "), "{error}");
}

#[test]
fn dataschema_goes_with_the_version() {
    let step = chain(steps()).unwrap();
    let body = json!({ "v": { "a": 1 } });
    for (before, after) in [
        ("https://shop.example/one", "https://shop.example/ten"),
        ("https://registry.example/t/1", "https://registry.example/t/10"),
        ("https://registry.example/t/1.json", "https://registry.example/t/10.json"),
    ] {
        for name in ["dataschema", "ce_dataschema"] {
            assert_eq!(through(&step, &body, (name, before)).1.as_deref(), Some(after));
        }
        let event = |schema: &str, data: Json| {
            json!({
                "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "extra": 7,
                "dataschema": schema, "data": data
            })
        };
        let (upgraded, _) = through(&step, &event(before, body.clone()), ("x", "y"));
        assert_eq!(upgraded, event(after, json!({ "v": { "a": 1, "b": 2, "c": 3 } })));
    }
}

#[test]
fn a_program_may_set_dataschema_itself() {
    let own = ".data.v.b = 2\n.attributes.dataschema = \"urn:mine\"";
    let step = chain(programs(own, ".data.v.c = 3")).unwrap();
    let attribute = ("dataschema", "https://shop.example/one");
    let (_, left) = through(&step, &json!({ "v": { "a": 1 } }), attribute);
    assert_eq!(left.as_deref(), Some("urn:mine"));
}

#[test]
fn what_cannot_lead_there_is_found_at_load() {
    let upgrade = |programs: Json| json!({ "upgrade": programs });
    for (config, path, part) in [
        (json!({ "to": "2" }), "to", "there is no `upgrade` that would lead there"),
        (to("3"), "to", "`t` has no such version; there is `1`, `2` and `10`"),
        (upgrade(json!({ "tt": {} })), "upgrade.tt", "no schemas for it; did you mean `t`?"),
        (
            upgrade(json!({ "t": { "2": "." } })),
            "upgrade.t",
            "nothing leads on from `1`; write a program, `.` where nothing has to change",
        ),
        (
            upgrade(json!({ "t": { "1": ".", "2": ".", "3": "." } })),
            "upgrade.t.3",
            "no schema for this version; there is `1`, `2` and `10`",
        ),
        (
            upgrade(json!({ "t": { "1": ".", "2": ".", "10": "." } })),
            "upgrade.t.10",
            "there is no later version",
        ),
    ] {
        let findings = chain(config).unwrap_err();
        let shown: Vec<_> = findings.iter().map(|f| (f.path.to_string(), &*f.text)).collect();
        let [(found, text)] = &shown[..] else { panic!("{shown:?}") };
        assert_eq!(found, path);
        assert!(text.contains(part), "{text}");
    }
    let findings = chain(programs("\n.data.v = (", ".")).unwrap_err();
    assert_eq!(findings[0].path.to_string(), "upgrade.t.1");
    assert_eq!(findings[0].at.map(|(line, _)| line), Some(2));
}
