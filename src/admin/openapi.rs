//! The description of the API, as OpenAPI 3.1 has it, made from the table that is served.

use std::sync::LazyLock;

use axum::{Json, http::Method, routing::get};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    answer::Refusal,
    endpoint::{Answer, Describe, Endpoint, describe},
};

/// What can be asked of the description.
pub(super) fn endpoints() -> Vec<Endpoint> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&super::endpoints()));
    let document = Endpoint::read(
        "/openapi.json",
        "openapi",
        "This description.",
        get(async || Json(&*DOCUMENT)),
    );
    vec![Endpoint { answer: Answer::Json(describe::<Map<String, Value>>), ..document }]
}

/// Describes these endpoints, and the two that everybody may ask.
#[must_use]
pub fn document(endpoints: &[Endpoint]) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|it| it.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for (path, name, summary) in [
        ("/livez", "alive", "200 as long as the process works."),
        ("/readyz", "ready", "200 when every source and sink works, else 503 and the reasons."),
    ] {
        let mut answers = json!({ "200": text("Yes.") });
        if name == "ready" {
            answers["503"] = text("No, a line for each reason.");
        }
        let probe = json!({ "operationId": name, "summary": summary, "responses": answers, "security": [] });
        paths.insert(path.to_owned(), json!({ "get": probe }));
    }
    for endpoint in endpoints {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_lowercase()] = operation(endpoint, &mut schemas);
    }
    let refusal = describe::<Refusal>(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The admin API of eventferry",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        // Any one of them, as the configuration says; none where it listens for its machine alone.
        "security": [{ "token": [] }, { "certificate": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
            "responses": {
                "Refusal": {
                    "description": "It was not done, and why.",
                    "content": { "application/problem+json": { "schema": refusal } },
                },
            },
            "schemas": schemas.take_definitions(true),
        },
    })
}

fn text(description: &str) -> Value {
    answered(description, "text/plain", json!({ "type": "string" }))
}

fn answered(description: &str, media_type: &str, schema: impl Into<Value>) -> Value {
    let content = json!({ media_type: { "schema": schema.into() } });
    json!({ "description": description, "content": content })
}

fn operation(endpoint: &Endpoint, schemas: &mut SchemaGenerator) -> Value {
    let answer = match endpoint.answer {
        Answer::Text => text("Done."),
        Answer::Json(it) => answered("Done.", "application/json", it(schemas)),
        // OpenAPI 3.1 has no word for what one event of a stream holds.
        Answer::Events(it) => {
            answered("The data of each event is this.", "text/event-stream", it(schemas))
        }
    };
    let refused = json!({ "$ref": "#/components/responses/Refusal" });
    let mut operation = json!({
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": parameters(endpoint, schemas),
        "responses": { "2XX": answer, "default": refused },
        "x-role": endpoint.needs,
        "x-scope": endpoint.scope,
    });
    if let Some(body) = endpoint.body {
        let schema = body(schemas);
        // No body says the same as an empty object, where that says anything.
        let of_type = resolved(&schema, schemas);
        let may_be_empty = of_type["type"] == "object" && of_type["required"].is_null();
        let required = !may_be_empty || endpoint.method == Method::PUT;
        let content = json!({ "application/json": { "schema": schema } });
        operation["requestBody"] = json!({ "required": required, "content": content });
    }
    operation
}

/// What stands in the path, and then in the query.
fn parameters(endpoint: &Endpoint, schemas: &mut SchemaGenerator) -> Vec<Value> {
    let named = endpoint.path.split('{').skip(1).filter_map(|it| it.split('}').next());
    let of_path = named.map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
    });
    of_path.chain(endpoint.query.into_iter().flat_map(|it| query(it, schemas))).collect()
}

/// What a schema says, if need be elsewhere.
fn resolved(schema: &Schema, schemas: &mut SchemaGenerator) -> Value {
    let named = schema.get("$ref").and_then(Value::as_str).and_then(|it| it.rsplit('/').next());
    match named {
        Some(name) => schemas.definitions().get(name).cloned().unwrap_or_default(),
        None => schema.clone().to_value(),
    }
}

/// A parameter for each field of the type that the query is read as.
fn query(describe: Describe, schemas: &mut SchemaGenerator) -> Vec<Value> {
    let described = describe(schemas);
    let of_type = resolved(&described, schemas);
    let required = of_type["required"].as_array().cloned().unwrap_or_default();
    let fields = of_type["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, schema): (String, Value)| {
        let is_required = required.iter().any(|it| *it == name);
        json!({ "name": name, "in": "query", "required": is_required, "schema": schema })
    };
    fields.into_iter().map(parameter).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::admin::endpoint::{Role, Scope};

    /// Every reference of the document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn everything_that_is_served_is_described_and_nothing_else() {
        let endpoints = crate::admin::endpoints();
        let document = document(&endpoints);
        let mut names = BTreeSet::new();
        for endpoint in &endpoints {
            let method = endpoint.method.as_str().to_lowercase();
            let operation = &document["paths"][endpoint.path][&method];
            assert_eq!(operation["operationId"], endpoint.name, "{}", endpoint.path);
            assert_eq!(operation["x-role"], endpoint.needs.as_str());
            assert_eq!(operation["requestBody"].is_object(), endpoint.body.is_some());
            assert!(names.insert(endpoint.name), "two are called {}", endpoint.name);
            let parameters = operation["parameters"].as_array().unwrap();
            let in_path = parameters.iter().filter(|it| it["in"] == "path").count();
            assert_eq!(in_path, endpoint.path.matches('{').count(), "{}", endpoint.path);
            let in_query = parameters.iter().filter(|it| it["in"] == "query").count();
            assert_eq!(in_query > 0, endpoint.query.is_some(), "{}", endpoint.path);
            let scoped = match endpoint.scope {
                Scope::Daemon => "",
                Scope::Route => "{route}",
                Scope::Source => "{source}",
                Scope::Sink => "{sink}",
            };
            assert!(endpoint.path.contains(scoped), "{} names no {scoped}", endpoint.path);
            assert!(
                !endpoint.changes || endpoint.needs > Role::Viewer,
                "{} changes something, and viewers may ask for it",
                endpoint.path
            );
            assert_eq!(endpoint.changes, endpoint.method != Method::GET, "{}", endpoint.path);
        }
        let described: usize = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|it| it.as_object().unwrap().len())
            .sum();
        assert_eq!(described, endpoints.len() + 2, "the probes beside them");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&crate::admin::endpoints());
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 5, "{found:?}");
        for reference in found {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some(), "{reference}");
        }
    }

    #[test]
    fn every_answer_has_its_media_type_and_bodies_are_asked_for_where_they_are_needed() {
        let document = document(&crate::admin::endpoints());
        let operations = || {
            let paths = document["paths"].as_object().unwrap().values();
            paths.flat_map(|path| path.as_object().unwrap().values())
        };
        for operation in operations() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let refused = answer["$ref"] == "#/components/responses/Refusal";
                let content = answer["content"].as_object();
                let said = content.is_some_and(|it| it.values().all(|it| !it["schema"].is_null()));
                assert!(refused || said, "{} says nothing of {status}", operation["operationId"]);
            }
        }
        let named = |wanted: &dyn Fn(&Value) -> bool| -> BTreeSet<_> {
            let chosen = operations().filter(|it| wanted(it));
            chosen.map(|it| it["operationId"].as_str().unwrap()).collect()
        };
        let live = |it: &Value| it["responses"]["2XX"]["content"]["text/event-stream"].is_object();
        assert_eq!(named(&live), ["tap", "traces", "watch_job", "watch_status"].into());
        let needed = |it: &Value| it["requestBody"]["required"] == true;
        let optional = |it: &Value| it["requestBody"]["required"] == false;
        let without = ["pause_route", "resume_route"];
        let with =
            ["discard", "limit_route", "limit_sink", "redrive", "rewind_source", "set_breaker"];
        assert_eq!(named(&needed), with.into());
        assert_eq!(named(&optional), without.into());
    }

    #[test]
    fn a_query_and_a_body_are_described_field_by_field() {
        #[derive(Deserialize, JsonSchema)]
        #[expect(dead_code, reason = "described only")]
        struct Wanted {
            /// How many.
            max: u32,
            route: Option<String>,
        }
        let endpoint = Endpoint {
            query: Some(describe::<Wanted>),
            body: Some(describe::<Wanted>),
            ..Endpoint::change(
                "/routes/{route}/it",
                "it",
                "Does it.",
                Role::Admin,
                Scope::Route,
                get(async || ()),
            )
        };
        let document = document(&[endpoint]);
        let operation = &document["paths"]["/routes/{route}/it"]["post"];
        let parameters: Vec<_> = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["name"].as_str().unwrap(), it["in"].as_str().unwrap(), &it["required"]))
            .collect();
        let yes = &json!(true);
        let expected =
            [("route", "path", yes), ("max", "query", yes), ("route", "query", &json!(false))];
        assert_eq!(parameters, expected);
        let reference = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(reference, "#/components/schemas/Wanted");
        assert!(document["components"]["schemas"]["Wanted"].is_object());
    }
}
