//! What routes make of events: every step, between the services. What a step cannot make sense of
//! is parked as it came.

use std::collections::BTreeMap;

use eventferry::cli::event_file::{read_event, show_event};
use serde_json::{Value as Json, json};

use super::{Ferry, arrivals};
use crate::{clouds::shared, place::place};

/// What a route with these steps makes of an event.
struct Case {
    /// Also the event's type, by which the route takes it.
    name: &'static str,
    /// Between the shop and the next queue.
    there: &'static str,
    /// Between that queue and the far side; where it is empty, the event goes there directly.
    back: &'static str,
    event: Json,
    end: End,
}

enum End {
    /// What these events have is all there, at the far side. Null is what they must not have.
    Becomes(Vec<Json>),
    /// Parked as it came, with a reason of this class.
    Parked(&'static str),
    /// Settled and gone.
    Dropped,
}

fn case(name: &'static str, there: &'static str, event: Json, end: End) -> Case {
    Case { name, there, back: "", event, end }
}

fn becomes(event: Json) -> End {
    End::Becomes(vec![event])
}

/// A step that fails or drops comes with one that works.
fn changes() -> Vec<Case> {
    vec![
        case(
            "set",
            r#"[{ set: { key: "{{ data.customer }}", subject: "orders/{{ data.n }}", attributes.count: "{{ data.n }}", data.seen: true } }]"#,
            json!({"data": {"customer": "c-7", "n": 2}}),
            becomes(
                json!({"key": "c-7", "subject": "orders/2", "attributes": {"count": 2}, "data": {"customer": "c-7", "n": 2, "seen": true}}),
            ),
        ),
        case(
            "set-missing",
            r#"[{ set: { key: "{{ data.customer }}" } }]"#,
            json!({"key": "k", "data": {"n": 2}}),
            End::Parked("missing"),
        ),
        case(
            "remove-rename",
            "[{ rename: { data.tenant: attributes.tenant } }, { remove: [data.cost, subject] }]",
            json!({"subject": "x", "data": {"tenant": "acme", "cost": 7, "n": 1}}),
            becomes(json!({"subject": null, "attributes": {"tenant": "acme"}, "data": {"n": 1}})),
        ),
        case(
            "map",
            r#"[{ map: ".data.total = to_float!(.data.price) * 2; .subject = upcase(string!(.attributes.tenant)); del(.data.price)" }]"#,
            json!({"attributes": {"tenant": "acme"}, "data": {"price": "2.25"}}),
            becomes(
                json!({"subject": "ACME", "attributes": {"tenant": "acme"}, "data": {"total": 4.5}}),
            ),
        ),
        case(
            "map-fails",
            r#"[{ map: ".data.n = to_int!(.data.n)" }]"#,
            json!({"data": {"n": "two"}}),
            End::Parked("map"),
        ),
        case("map-aborts", "[{ map: abort }]", json!({"data": {}}), End::Dropped),
        case(
            "parse",
            "[{ parse: data.payload }]",
            json!({"data": {"payload": "{\"amount\":12}"}}),
            becomes(json!({"data": {"payload": {"amount": 12}}})),
        ),
        case(
            "parse-fails",
            "[{ parse: data }]",
            json!({"datacontenttype": "text/plain", "data": "hello"}),
            End::Parked("not_json"),
        ),
        case(
            "redact",
            "[{ redact: { paths: [data.card], detect: [email, ip] } }]",
            json!({"data": {"card": "4111 1111 1111 1111", "note": "jane@example.com from 10.0.0.1"}}),
            becomes(json!({"data": {"card": "****1111", "note": "j***@example.com from ***"}})),
        ),
        case(
            "split",
            r#"[{ split: { list: data.items, keep: true } }, { set: { key: "{{ data.items.sku }}" } }]"#,
            json!({"data": {"order": 7, "items": [{"sku": "a"}, {"sku": "b"}]}}),
            End::Becomes(vec![
                json!({"id": "split/0", "key": "a", "data": {"order": 7, "items": {"sku": "a"}}}),
                json!({"id": "split/1", "key": "b", "data": {"order": 7, "items": {"sku": "b"}}}),
            ]),
        ),
        case(
            "split-nothing",
            "[{ split: { list: data.items } }]",
            json!({"data": {"items": []}}),
            End::Dropped,
        ),
        case(
            "validate",
            VALIDATE,
            json!({"data": {"schema_version": "1", "id": "DE-7", "amount": 12.5}}),
            becomes(json!({
                "data": {"schema_version": "2", "id": "DE-7", "total": {"amount": 12.5, "currency": "EUR"}},
            })),
        ),
        case(
            "validate-fails",
            VALIDATE,
            json!({"data": {"schema_version": "2", "id": "DE-7"}}),
            End::Parked("invalid"),
        ),
    ]
}

/// Old orders are brought up to date. The type of the event is the name of its case.
const VALIDATE: &str = r#"
      - set: { type: order.placed, attributes.was: "{{ type }}" }
      - validate:
          schemas:
            order.placed:
              "1": schemas/order-placed.v1.json
              "2": schemas/order-placed.v2.json
          version: data.schema_version
          upgrade:
            order.placed:
              "1": |
                .data.total = { "amount": del(.data.amount), "currency": "EUR" }
                .data.schema_version = "2"
"#;

/// What is put on for the way and taken off again.
fn wrappings() -> Vec<Case> {
    let order = || json!({"subject": "o/7", "attributes": {"tenant": "acme"}, "data": {"n": 7}});
    let same =
        |name, there, back| Case { name, there, back, event: order(), end: becomes(order()) };
    vec![
        case(
            "wrap",
            "[{ wrap: event_bridge }]",
            order(),
            becomes(json!({"data": {
                "version": "0", "id": "wrap", "detail-type": "wrap", "source": "/example",
                "resources": ["o/7"], "detail": {"n": 7},
            }})),
        ),
        case(
            "unwrap",
            // One that is the whole body is taken off by the source.
            r#"[{ map: ".data = .data.envelope" }, { unwrap: sns }]"#,
            json!({"data": {"envelope": {"Type": "Notification", "MessageId": "unwrap", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:t", "Subject": "s", "Message": "{\"n\":7}"}}}),
            becomes(json!({"subject": "s", "data": {"n": 7}})),
        ),
        case(
            "unwrap-fails",
            "[{ unwrap: event_bridge }]",
            json!({"data": {"n": 7}}),
            End::Parked("unwrap"),
        ),
        same("cloud-events", "[{ wrap: cloud_events }]", "[{ unwrap: cloud_events }]"),
        case(
            "encode",
            "[{ encode: [gzip, base64] }]",
            order(),
            becomes(json!({
                "attributes": {"tenant": "acme", "content-encoding": "gzip"},
            })),
        ),
        same("decode", "[{ encode: [json, zstd, base64] }]", "[{ decode: [base64, zstd, json] }]"),
        case("decode-fails", "[{ decode: gzip }]", order(), End::Parked("decode")),
        same(
            "encrypt",
            r#"[{ encrypt: { key: new, keys: { new: "file:DIR/new" } } }]"#,
            r#"[{ decrypt: { keys: { new: "file:DIR/new", old: "file:DIR/old" } } }]"#,
        ),
        Case {
            name: "decrypt-fails",
            there: r#"[{ encrypt: { key: new, keys: { new: "file:DIR/new" } } }]"#,
            back: r#"[{ decrypt: { keys: { old: "file:DIR/old" } } }]"#,
            event: order(),
            end: End::Parked("unknown_key"),
        },
    ]
}

/// The routes of a case. Directly, or over the queue in the middle.
fn routes(Case { name, there, back, .. }: &Case, far: &str) -> String {
    let route = |leg: &str, from: &str, steps: &str, to: &str| {
        format!(
            "  - name: {name}{leg}\n    from: {from}\n    when: {{ type: [{name}] }}\n    transform: {steps}\n    to: {{ all: [{to}] }}\n"
        )
    };
    match *back {
        "" => route("", "shop", there, far),
        back => route("", "shop", there, "middle") + &route("-back", "middle", back, far),
    }
}

/// Whether all that `wanted` has is in `shown`.
fn has(shown: &Json, wanted: &Json) -> bool {
    match (shown, wanted) {
        (Json::Object(shown), Json::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| match shown.get(name) {
                Some(shown) => has(shown, wanted),
                None => wanted.is_null(),
            })
        }
        (shown, wanted) => shown == wanted,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_makes_of_an_event_what_it_says() {
    let _shared = shared().await;
    let (shop, middle) = (place("sqs").await, place("sqs").await);
    let (hub, topic, bin, parked) = (
        place("event_hubs").await,
        place("sns").await,
        place("storage_queue").await,
        place("sqs").await,
    );
    let keys = tempfile::tempdir().unwrap();
    for (name, digit) in [("new", "1"), ("old", "2")] {
        std::fs::write(keys.path().join(name), digit.repeat(64)).unwrap();
    }
    let cases: Vec<Case> = changes().into_iter().chain(wrappings()).collect();
    let far = ["hub", "topic", "bin"].into_iter().cycle();
    let file: String = cases.iter().zip(far).map(|(case, far)| routes(case, far)).collect();
    let file = file.replace("DIR", keys.path().to_str().unwrap());
    let ferry = Ferry::run(
        &[("shop", &shop), ("middle", &middle)],
        &[
            ("hub", &hub),
            ("topic", &topic),
            ("bin", &bin),
            ("parked", &parked),
            ("middle", &middle),
        ],
        &format!("routes:\n{file}"),
    )
    .await;
    let event = |case: &Case| {
        let mut event = case.event.clone();
        (event["id"], event["type"]) = (case.name.into(), case.name.into());
        read_event(event).unwrap()
    };
    shop.put(cases.iter().map(event).collect()).await;
    let ends = cases.iter().map(|case| match &case.end {
        End::Becomes(events) => events.len(),
        End::Parked(_) => 1,
        End::Dropped => 0,
    });
    let sinks = [("hub", &hub), ("topic", &topic), ("bin", &bin), ("parked", &parked)];
    let arrived = arrivals(&sinks, ends.sum()).await;
    ferry.end().await;

    let mut of = BTreeMap::<&str, Vec<_>>::new();
    for arrival in &arrived {
        let name = arrival.event.id.split('/').next().unwrap();
        of.entry(name).or_default().push(arrival);
    }
    let mut wrong = String::new();
    for case in &cases {
        let mut arrived = of.remove(case.name).unwrap_or_default();
        arrived.sort_by_key(|arrival| arrival.event.id.clone());
        let shown: Vec<_> = arrived.iter().map(|arrival| show_event(&arrival.event)).collect();
        let told: Vec<_> = arrived.iter().map(|arrival| arrival.told()).collect();
        let as_said = match &case.end {
            End::Dropped => arrived.is_empty(),
            End::Becomes(wanted) => {
                let far = arrived.iter().all(|arrival| arrival.sink != "parked");
                let all = shown.iter().zip(wanted).all(|(shown, wanted)| has(shown, wanted));
                far && all && shown.len() == wanted.len()
            }
            End::Parked(class) => {
                // In the middle, it came as the first steps have made it.
                let came = |shown| !case.back.is_empty() || has(shown, &case.event);
                let whole = shown.iter().all(came);
                whole && told == [format!("{} at parked: {class}", case.name)]
            }
        };
        if !as_said {
            wrong += &format!("{}: {told:?}\n  {shown:?}\n", case.name);
        }
    }
    assert!(wrong.is_empty() && of.is_empty(), "{wrong}{:?}", of.keys());
}
