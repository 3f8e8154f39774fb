//! What routing by pattern costs: one event of 1 KiB against 10 to 10,000 routes, from its bytes
//! and from its fields, and how many events a core routes in a second.
//!
//! `cargo bench --bench match`

use std::hint::black_box;

use eventferry::route::{
    self, When,
    pattern::{fields::Wanted, index::Index},
};
use serde_json::{Value, json};
use time::macros::datetime;

mod gauge;
mod order;

use gauge::measure;

const NOW: time::OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
const COUNTRIES: [&str; 8] = ["de", "fr", "it", "es", "pl", "nl", "at", "se"];
const STAGES: [&str; 5] = ["placed", "paid", "packed", "shipped", "returned"];

/// The pattern of a route: each kind of test that people write, over few fields and many values.
/// Whatever their number, the same few of them take the order.
fn pattern(at: usize) -> Value {
    let (round, of) = (at / 20, at % 20);
    // The first round takes part in the order's own tenant, the others belong to others.
    let tenant = format!("tenant-{:04}", if round == 0 { 17 } else { 1000 + round });
    let country = COUNTRIES[round % 8];
    let kind = |stage: usize| format!("order.{}", STAGES[stage % 5]);
    match of {
        0 => json!({"type": [kind(round)], "data": {"tenant": [tenant]}}),
        1 => json!({"data": {"tenant": [tenant, format!("{tenant}-test")], "urgent": [true]}}),
        2 => json!({"attributes": {"tenant": [tenant]}, "type": [{"prefix": "order."}]}),
        3 => json!({"type": [{"prefix": format!("invoice.{round}.")}]}),
        4 => {
            json!({"source": [{"prefix": format!("/shop/{round:04}")}], "type": [kind(1), kind(2)]})
        }
        5 => json!({"subject": [{"suffix": format!("-{round:06}.pdf")}]}),
        6 => json!({"subject": [{"wildcard": format!("orders/*/{round}/*")}]}),
        7 => json!({
            "data": {"order": {"total": [{"numeric": [">=", 1000 + round, "<", 1001 + round]}]}}
        }),
        8 => json!({
            "type": [kind(round)],
            "data": {"order": {"total": [{"numeric": [">", 300 + round]}]}, "tenant": [tenant]},
        }),
        9 => json!({"data": {"customer": {"country": [country], "tier": ["gold"], "id": [round]}}}),
        10 => json!({
            "type": [format!("device.{round}")], "data": {"note": [{"exists": false}]},
        }),
        11 => json!({
            "data": {"tenant": [tenant], "channel": [{"anything-but": ["web", "app"]}]},
        }),
        12 => json!({
            "$or": [
                {"type": [format!("refund.{round}")]},
                {"data": {"order": {"id": [{"prefix": format!("R-{round}-")}]}}},
            ],
        }),
        13 => {
            json!({"data": {"client": {"ip": [{"cidr": format!("10.{}.{}.0/24", 1 + round / 250, round % 250)}]}}})
        }
        14 => {
            json!({"data": {"items": {"sku": [format!("SKU-{:05}", 100 + round)], "count": [2]}}})
        }
        15 => {
            json!({"data": {"customer": {"email": [{"suffix": format!("@customer{round}.example")}]}}})
        }
        16 => json!({"data": {"tenant": [{"equals-ignore-case": format!("Tenant-X{round}")}]}}),
        17 => json!({"data": {"ship_to": {"zip": [{"prefix": format!("{:05}", 20_000 + round)}]}}}),
        18 => json!({
            "time": [{"older_than": "1h"}], "data": {"tenant": [tenant]},
        }),
        _ => json!({
            "type": [{"anything-but": {"prefix": "test."}}], "source": ["/shop/berlin"],
            "data": {"client": {"path": [{"wildcard": format!("/shop/*/{round}/*")}]}},
        }),
    }
}

fn routes(count: usize) -> Vec<When> {
    // Ten are of every second kind.
    let at = |at| if count < 20 { at * 2 } else { at };
    let read = |at| When::read(pattern(at).as_object().expect("a mapping")).expect("a pattern");
    (0..count).map(|number| read(at(number))).collect()
}

fn matching() {
    let event = order::event();
    let mut of_bytes = Vec::new();
    for count in [10, 100, 1_000, 10_000] {
        let routes = routes(count);
        let index = Index::new(routes.iter().map(When::pattern));
        let fields = route::fields(&event, index.wanted(), NOW);
        let matching = index.matches(&fields);
        let one_by_one: Vec<_> = (0..count)
            .filter(|route| routes[*route].accepts(&event, &fields).unwrap_or_default())
            .collect();
        assert_eq!(matching[..], one_by_one);
        println!("\n{} of {count} routes take it", matching.len());
        measure(&format!("{count} routes, from its fields"), || index.matches(black_box(&fields)));
        of_bytes.push(measure(&format!("{count} routes, from its bytes"), || {
            let fields = route::fields(black_box(&event), index.wanted(), NOW);
            index.matches(&fields)
        }));
        if count <= 1_000 {
            measure(&format!("{count} routes, one after the other"), || {
                let fields = black_box(&fields);
                routes
                    .iter()
                    .filter(|route| route.accepts(&event, fields).unwrap_or_default())
                    .count()
            });
        }
    }
    if let [few, .., many] = of_bytes[..] {
        println!("\n10,000 routes cost {:.2} times what 10 do", many.div_duration_f64(few));
    }
}

/// The usual case: few routes, by type and one or two fields.
fn routing() {
    let event = order::event();
    let routes = [
        json!({"type": ["order.placed", "order.paid"], "data": {"order": {"total": [{"numeric": [">", 100]}]}}}),
        json!({"type": [{"prefix": "invoice."}]}),
        json!({"type": ["order.placed"], "data": {"customer": {"country": ["de", "at", "ch"]}}}),
    ];
    let routes = routes
        .map(|pattern| When::read(pattern.as_object().expect("a mapping")).expect("a pattern"));
    let index = Index::new(routes.iter().map(When::pattern));
    let nothing = Wanted::default();
    println!();
    measure("three routes by type and body", || {
        let fields = route::fields(black_box(&event), index.wanted(), NOW);
        index.matches(&fields)
    });
    measure("one route by type alone", || {
        let fields = route::fields(black_box(&event), &nothing, NOW);
        routes[1].accepts(&event, &fields).unwrap_or_default()
    });
    measure("for comparison: serde_json passes over the body", || {
        serde_json::from_slice::<serde::de::IgnoredAny>(black_box(&event.body)).is_ok()
    });
    measure("for comparison: serde_json makes a tree of it", || {
        serde_json::from_slice::<Value>(black_box(&event.body)).is_ok()
    });
}

fn main() {
    matching();
    routing();
}
