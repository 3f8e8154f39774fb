use std::sync::Mutex;

use super::*;

/// A log in which event 10 was taken at second 10, and so on, and what was moved in it.
struct Fake {
    standings: Vec<Standing>,
    moved: Mutex<Vec<(String, i64)>>,
}

#[async_trait]
impl Positions for Fake {
    async fn standings(&self) -> Result<Vec<Standing>, Fault> {
        Ok(self.standings.clone())
    }
    async fn first_since(&self, _: &str, time: OffsetDateTime) -> Result<Option<i64>, Fault> {
        let number = time.unix_timestamp();
        Ok((number <= 19).then_some(number.max(5)))
    }
    async fn go_on_with(&self, partition: &str, sequence: i64) -> Result<(), Fault> {
        self.moved.lock().unwrap().push((partition.to_owned(), sequence));
        Ok(())
    }
}

/// Keeps 5 to 19, and everything up to 14 is settled.
fn standing(partition: &str) -> Standing {
    Standing {
        partition: partition.to_owned(),
        checkpoint: Some(Checkpoint { sequence: 14, offset: "x".to_owned(), hub_made: None }),
        first: 5,
        last: 19,
        last_enqueued: Some(OffsetDateTime::from_unix_timestamp(19).unwrap()),
        owner: None,
    }
}

async fn asked(standings: Vec<Standing>, json: serde_json::Value) -> (String, Vec<(String, i64)>) {
    let fake = Fake { standings, moved: Mutex::default() };
    let wish: Rewind = serde_json::from_value(json).unwrap();
    let text = match rewind(&fake, &wish).await {
        Ok(all) => all
            .iter()
            .map(|Rewound { partition, to, repeats, gone, refused, .. }| {
                let refused = refused.clone().unwrap_or_default();
                format!("{partition}: to {to:?}, repeats {repeats}, gone {gone} {refused}")
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Err(refused) => format!("error: {refused}"),
    };
    (text.trim_end().to_owned(), fake.moved.into_inner().unwrap())
}

fn second(number: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(number).unwrap();
    time.format(&time::format_description::well_known::Rfc3339).unwrap()
}

#[tokio::test]
async fn a_rewind_repeats_what_lies_between_and_moves_the_checkpoint_there() {
    use serde_json::json;
    let one = || vec![standing("3")];
    for (to, told, moved) in [
        (json!({ "sequence_number": 10 }), "3: to Some(10), repeats 5, gone 0", Some(10)),
        (json!({ "sequence_number": 14 }), "3: to Some(14), repeats 1, gone 0", Some(14)),
        (json!({ "sequence_number": 15 }), "3: to None, repeats 0, gone 0", None),
        (json!({ "sequence_number": 2 }), "3: to Some(5), repeats 10, gone 3", Some(5)),
        (json!("earliest"), "3: to Some(5), repeats 10, gone 0", Some(5)),
        (json!({ "time": second(12) }), "3: to Some(12), repeats 3, gone 0", Some(12)),
        (json!({ "time": second(17) }), "3: to None, repeats 0, gone 0", None),
        (json!({ "time": second(99) }), "3: to None, repeats 0, gone 0", None),
    ] {
        let done = asked(one(), json!({ "partition": "3", "to": to })).await;
        let moved: Vec<_> = moved.into_iter().map(|to| ("3".to_owned(), to)).collect();
        assert_eq!(done, (told.to_owned(), moved));
        let dry = asked(one(), json!({ "partition": "3", "to": to, "dry_run": true })).await;
        assert_eq!(dry, (told.to_owned(), Vec::new()));
    }
}

#[tokio::test]
async fn what_cannot_be_gone_back_to_is_refused_and_nothing_is_moved() {
    use serde_json::json;
    let theirs = Owner { name: "eventferry-2".into(), is_us: false };
    let standings =
        || vec![standing("0"), Standing { owner: Some(theirs.clone()), ..standing("1") }];
    let mut told = Vec::new();
    for wish in [
        json!({ "partition": "0", "to": { "sequence_number": 16 } }),
        json!({ "partition": "1", "to": "earliest" }),
        json!({ "partition": "7", "to": "earliest" }),
        json!({ "to": { "sequence_number": 3 } }),
        json!({ "partition": "0", "to": { "sequence_number": -1 } }),
        json!({ "to": { "time": "2999-01-01T00:00:00Z" } }),
    ] {
        let (text, moved) = asked(standings(), wish).await;
        assert_eq!(moved, []);
        told.push(text);
    }
    insta::assert_snapshot!(told.join("\n"));
    let (text, moved) = asked(standings(), json!({ "to": "earliest" })).await;
    insta::assert_snapshot!(text);
    assert_eq!(moved, [("0".to_owned(), 5)]);
}

#[tokio::test]
async fn a_partition_without_a_checkpoint_has_nothing_to_repeat() {
    let fresh = Standing { checkpoint: None, ..standing("0") };
    assert_eq!((fresh.lag(), standing("0").lag()), (15, 5));
    let gone = Standing { first: 18, ..standing("0") };
    assert_eq!(gone.lag(), 2, "what is gone does not wait");
    let (text, moved) = asked(vec![fresh, gone], serde_json::json!({ "to": "earliest" })).await;
    assert_eq!(text, "0: to None, repeats 0, gone 0 \n0: to None, repeats 0, gone 0");
    assert_eq!(moved, []);
}

#[tokio::test]
async fn a_hub_that_does_not_bring_what_it_has_is_no_hub_without_it() {
    let last_enqueued = Some(OffsetDateTime::from_unix_timestamp(30).unwrap());
    let slow = Standing { last_enqueued, ..standing("3") };
    let (text, moved) =
        asked(vec![slow], serde_json::json!({ "to": { "time": second(25) } })).await;
    assert_eq!(text, "error: partition 3 did not bring what it has since; try again");
    assert_eq!(moved, []);
}
