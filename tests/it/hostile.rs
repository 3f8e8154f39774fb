//! Bad input, into every kind of source, with healthy neighbours between: each message ends
//! delivered or dead-lettered with what it held, and costs its neighbours nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use aws_sdk_sns::types::MessageAttributeValue as OfSns;
use aws_sdk_sqs::{primitives::Blob, types::MessageAttributeValue as OfSqs};
use azure_storage_queue::{QueueClient, models::QueueMessage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use eventferry::{
    cloud::event_hubs::property,
    decode::{Format, decode, reference},
    delivery::{Claimed, Outcome, Received, Settled},
    event::{Event, Value},
    fault::Verdict,
    metadata::aws::data_type,
};
use eventhubs::client::{Auth, Client, EventData, Options, SharedAccessKey, Target};
use futures::{StreamExt as _, future::join_all};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, timeout_at};

mod corpus;

use corpus::{Case, End, corpus};

use crate::{
    clouds::{alone, azurite, localstack},
    daemon::Daemon,
    figures,
    place::{Place, place},
    rig::PATIENCE,
};

/// From each kind of source to two kinds of sinks that hold events in different ways.
const WAYS: [(&str, [&str; 2]); 4] = [
    ("sqs", ["storage_queue", "event_hubs"]),
    ("sns", ["event_hubs", "sqs"]),
    ("event_hubs", ["sns", "storage_queue"]),
    ("storage_queue", ["event_hubs", "sqs"]),
];
const AT_ONCE: usize = 8;
/// Each source is given at least so many that its service carries.
const EACH: usize = 200;
/// Nothing more comes of what has not come for so long.
const QUIET: Duration = Duration::from_secs(5);

/// What may be given to a source: a hostile message, or one between two of them.
fn neighbour(number: usize) -> Case {
    Case {
        name: format!("neighbour {number}"),
        body: format!(r#"{{"neighbour":{number}}}"#).into(),
        attributes: vec![("number".to_owned(), Value::string(number.to_string()))],
        amqp: Vec::new(),
        end: End::AsItIs,
    }
}

fn is_neighbour(case: &Case) -> bool {
    case.name.starts_with("neighbour")
}

/// An attribute as SQS and SNS write it: name, type, and text or bytes.
type InAws = (String, String, Option<String>, Option<Blob>);

/// None where they have nothing like one of the attributes.
fn in_aws(case: &Case) -> Option<Vec<InAws>> {
    fn written(value: &Value) -> Option<(Option<String>, Option<Blob>)> {
        match value {
            Value::String(text) | Value::Number(text) => Some((Some(text.to_string()), None)),
            Value::Binary(bytes) => Some((None, Some(Blob::new(bytes.to_vec())))),
            Value::Labelled(_, inner) => written(inner),
            _ => None,
        }
    }
    let attributes = case.attributes.iter().map(|(name, value)| {
        let (text, bytes) = written(value)?;
        Some((name.clone(), data_type(value), text, bytes))
    });
    attributes.collect::<Option<_>>().filter(|_| case.amqp.is_empty())
}

/// Where a foreign program puts messages in.
enum Door {
    Queue(aws_sdk_sqs::Client, String),
    Topic(aws_sdk_sns::Client, String),
    Hub(eventhubs::client::Sender),
    StorageQueue(QueueClient),
}

impl Door {
    async fn of(place: &Place) -> Self {
        let (kind, at) = place.source.as_object().unwrap().iter().next().unwrap();
        let name = |field: &str| at[field].as_str().unwrap();
        match &**kind {
            "sqs" => {
                let client = localstack::sqs().await;
                let url = client.get_queue_url().queue_name(name("queue")).send().await.unwrap();
                Self::Queue(client, url.queue_url.unwrap())
            }
            "sns" => Self::Topic(localstack::sns().await, topic_arn(place)),
            "storage_queue" => Self::StorageQueue(azurite::client(name("queue")).await),
            _ => {
                let auth = Auth::SharedAccessKey(SharedAccessKey::new("emulator", "emulator"));
                let endpoint = name("endpoint").parse().unwrap();
                let hub = Client::new(endpoint, auth, Options::default()).hub(name("hub"));
                Self::Hub(hub.sender(Default::default()))
            }
        }
    }

    /// Answers whether the service has taken it.
    async fn put(&self, case: &Case) -> bool {
        let text = String::from_utf8(case.body.to_vec());
        match self {
            Self::Queue(client, url) => {
                let (Some(attributes), Ok(text)) = (in_aws(case), text) else { return false };
                let mut request = client.send_message().queue_url(url).message_body(text);
                for (name, kind, text, bytes) in attributes {
                    let value = OfSqs::builder().data_type(kind).set_string_value(text);
                    let value = value.set_binary_value(bytes).build();
                    request = request.message_attributes(name, value.unwrap());
                }
                request.send().await.is_ok()
            }
            Self::Topic(client, arn) => {
                let (Some(attributes), Ok(text)) = (in_aws(case), text) else { return false };
                let mut request = client.publish().topic_arn(arn).message(text);
                for (name, kind, text, bytes) in attributes {
                    let value = OfSns::builder().data_type(kind).set_string_value(text);
                    let value = value.set_binary_value(bytes).build();
                    request = request.message_attributes(name, value.unwrap());
                }
                request.send().await.is_ok()
            }
            Self::Hub(sender) => {
                let own = case.attributes.iter();
                let own = own.map(|(name, value)| (name.clone(), property(value)));
                let properties = own.chain(case.amqp.iter().cloned()).collect();
                let event = EventData { properties, ..EventData::from(case.body.clone()) };
                // One partition, so that each waits for the one before.
                let target = Target::Partition("0".to_owned());
                sender.send_events(target, &[event]).await.is_ok()
            }
            Self::StorageQueue(client) => {
                let stands_beside = !case.attributes.is_empty() || !case.amqp.is_empty();
                if stands_beside && !is_neighbour(case) {
                    return false;
                }
                // As text where the source will not take it for base64, and XML can hold it: Azurite
                // takes the rest as well, and can then give nothing back; the service refuses it.
                let is_legal = |c| matches!(c, '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'..);
                let is_kept = |text: &String| text.trim() == text && text.chars().all(is_legal);
                let text = text.ok().filter(is_kept).filter(|text| BASE64.decode(text).is_err());
                let message_text = text.or_else(|| Some(BASE64.encode(&case.body)));
                let Ok(message) = QueueMessage { message_text }.try_into() else { return false };
                client.send_message(message, None).await.is_ok()
            }
        }
    }
}

fn topic_arn(place: &Place) -> String {
    format!("arn:aws:sns:us-east-1:000000000000:{}", place.source["sns"]["topic"].as_str().unwrap())
}

/// Puts them all in, about in their order. Answers those that the service has taken.
async fn put_all<'a>(place: &Place, cases: &'a [Case]) -> Vec<&'a Case> {
    let door = Door::of(place).await;
    let put = cases.iter().map(async |case| door.put(case).await.then_some(case));
    let taken: Vec<_> = futures::stream::iter(put).buffered(AT_ONCE).collect().await;
    taken.into_iter().flatten().collect()
}

/// SNS puts its envelope around what it hands on, unless it is told not to.
async fn with_envelopes(place: &Place) {
    let client = localstack::sns().await;
    let list =
        client.list_subscriptions_by_topic().topic_arn(topic_arn(place)).send().await.unwrap();
    let subscription = list.subscriptions()[0].subscription_arn().unwrap();
    let request = client.set_subscription_attributes().subscription_arn(subscription);
    let request = request.attribute_name("RawMessageDelivery").attribute_value("false");
    request.send().await.unwrap();
}

/// Takes out what is there, `count` at least, bodies in the store of `claim_check` among it.
async fn take_out(place: &Place, count: usize) -> Vec<Event> {
    let mut source = place.source().await;
    let until = |come: usize| Instant::now() + if come < count { PATIENCE } else { QUIET };
    let (mut events, mut quiet) = (Vec::new(), until(0));
    while let Ok(received) = timeout_at(quiet, source.receive.receive()).await {
        let deliveries = match received {
            // An emulator under load; the pipeline would ask again, too.
            Err(fault) if matches!(fault.verdict, Verdict::Busy { .. }) => continue,
            received => received.unwrap(),
        };
        if deliveries.is_empty() {
            continue;
        }
        for delivery in &deliveries {
            events.push(decode(&with_body(&delivery.received), Format::Auto).unwrap());
        }
        let done =
            deliveries.into_iter().map(|d| Settled { token: d.token, outcome: Outcome::Delivered });
        source.settle.settle(done.collect()).await;
        quiet = until(events.len());
    }
    events
}

fn with_body(received: &Received) -> Received {
    let claimed = reference(received, Format::Auto).map(|reference| {
        let body = std::fs::read(reference.url.strip_prefix("file://").unwrap()).unwrap();
        Claimed::Body(body.into())
    });
    Received { claimed, ..received.clone() }
}

/// What a value holds, whatever a service calls its type.
fn plain(value: &Value) -> String {
    match value {
        Value::Labelled(_, inner) => plain(inner),
        Value::String(text) | Value::Number(text) => text.to_string(),
        other => format!("{other:?}"),
    }
}

/// Why `event` is not what became of `case`, if it is not.
fn differs(event: &Event, case: &Case, has: bool) -> Option<String> {
    let kept = |(name, value): &(String, Value)| {
        let of_trace = match &**name {
            "traceparent" => event.trace.parent.as_deref(),
            "tracestate" => event.trace.state.as_deref(),
            // Its place is ours, unless it could not be read at all.
            "eventferry" if case.end != End::Undecodable => return true,
            _ => None,
        };
        let found = event.attributes.get(name).map(plain).or(of_trace.map(str::to_owned));
        found == Some(plain(value))
    };
    let missing = case.attributes.iter().filter(|_| has).find(|attribute| !kept(attribute));
    let amqp = case.amqp.iter().find(|(name, _)| event.attributes.get(name).is_none());
    let name = missing.map(|(name, _)| name).or(amqp.map(|(name, _)| name))?;
    Some(format!("its attribute {name:?} is another: {:?}", event.attributes))
}

/// A message that could not be decoded is parked as it came: what SNS put around it as well.
fn out_of_sns(event: &Event) -> Event {
    let record = event.dead_letter.as_ref().unwrap();
    if (&*record.source, &*record.class) != ("sns", "undecodable") {
        return event.clone();
    }
    let mut envelope: Json = serde_json::from_slice(&event.body).unwrap();
    let Json::String(body) = envelope["Message"].take() else { panic!("{envelope}") };
    let attributes = envelope["MessageAttributes"].take();
    let value = |value: &Json| Value::string(value["Value"].as_str().unwrap());
    let attributes = attributes.as_object().into_iter().flatten();
    let attributes = attributes.map(|(name, it)| (name.clone(), value(it))).collect();
    Event { body: body.into(), attributes, ..event.clone() }
}

/// By what they hold.
fn by_body(events: &[Event]) -> HashMap<&Bytes, Vec<&Event>> {
    let mut found: HashMap<&Bytes, Vec<&Event>> = HashMap::new();
    events.iter().for_each(|event| found.entry(&event.body).or_default().push(event));
    found
}

/// What has become of the messages of one source at one of its sinks, where it is not as it must be.
fn problems(
    from: &str,
    sink: &str,
    cases: &[&Case],
    there: &[Event],
    parked: &[Event],
) -> Vec<String> {
    let mut problems = Vec::new();
    let (there, parked) = (by_body(there), by_body(parked));
    let record =
        |event: &Event| event.dead_letter.as_ref().map(|it| (it.class.clone(), it.sink.clone()));
    let mut known = BTreeSet::new();
    for case in cases {
        let (expected, class) = match &case.end {
            End::AsItIs => (&case.body, None),
            End::OpenedOnce(_) if from == "sns" => (&case.body, None),
            End::Opened(body) | End::OpenedOnce(body) => (body, None),
            End::Undecodable => (&case.body, Some("undecodable")),
            End::Looped(body) => (body, Some("loop")),
        };
        known.insert(expected);
        let delivered = there.get(expected).into_iter().flatten();
        let letters = parked.get(expected).into_iter().flatten();
        let of_sink = |event: &&&Event| match (record(event), class) {
            (Some((found, None)), Some(class)) => found == class,
            (Some((_, of)), None) => of.as_deref() == Some(sink) && !is_neighbour(case),
            _ => false,
        };
        let delivered = delivered.filter(|_| class.is_none());
        let found: Vec<_> = delivered.chain(letters.filter(of_sink)).collect();
        let has = !(is_neighbour(case) && from == "storage_queue");
        let name = format!("{from} to {sink}: {:?}", case.name);
        if found.is_empty() {
            problems.push(format!("{name} is lost"));
        }
        // Each copy, for one that is spoiled is none.
        let spoiled = found.iter().filter_map(|event| differs(event, case, has));
        problems.extend(spoiled.map(|why| format!("{name}: {why}")));
        let is_parked = |event: &&&&Event| event.dead_letter.is_some();
        let parked = found.iter().filter(is_parked).count();
        if parked > 0 && parked < found.len() {
            problems.push(format!("{name} is delivered and parked"));
        }
    }
    let strangers = there.keys().filter(|body| !known.contains(*body));
    problems.extend(strangers.map(|body| {
        let start = &body[..body.len().min(80)];
        format!("{from} to {sink}: nobody sent {:?}", String::from_utf8_lossy(start))
    }));
    problems
}

/// Events of a source whose end it knows.
fn settled(metrics: &str, source: &str) -> usize {
    let source = format!("source=\"{source}\"");
    settlements(metrics, |line| line.contains(&source) && !line.contains("\"returned\""))
}

/// Events of which there is a dead letter, or one of each sink.
fn dead_lettered(metrics: &str) -> usize {
    settlements(metrics, |line| line.contains("\"dead_lettered\""))
}

fn settlements(metrics: &str, are_wanted: impl Fn(&str) -> bool) -> usize {
    let of = |line: &&str| line.starts_with("eventferry_settled_total{") && are_wanted(line);
    let counts = metrics.lines().filter(of).map(|line| line.rsplit(' ').next().unwrap());
    counts.map(|count| count.parse::<usize>().unwrap()).sum()
}

#[test]
fn no_two_messages_are_alike() {
    let corpus = corpus();
    let looks: BTreeSet<_> = corpus
        .iter()
        .map(|case| (&case.body, format!("{:?} {:?}", case.attributes, case.amqp)))
        .collect();
    let bodies: BTreeSet<_> = corpus.iter().map(|case| &case.body).collect();
    // By their bodies they are known again.
    assert_eq!((looks.len(), bodies.len()), (corpus.len(), corpus.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hostile_harms_nobody() {
    let _alone = alone().await;
    let mut all: Vec<Case> = Vec::new();
    for (number, case) in corpus().into_iter().enumerate() {
        // A neighbour behind every other one, so that each has one beside it.
        all.push(case);
        all.extend(number.is_multiple_of(2).then(|| neighbour(number)));
    }
    let neighbours = all.iter().filter(|case| is_neighbour(case)).count();
    let claims = tempfile::tempdir().unwrap();
    let parked = place("sqs").await;
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let (mut sources, mut routes) = (json!({}), Vec::new());
    let mut sinks = json!({ "parked": parked.sink });
    for (from, to) in WAYS {
        let mut near = place(from).await;
        match from {
            "sns" => with_envelopes(&near).await,
            "storage_queue" => near.source[from]["encoding"] = json!("base64"),
            _ => {}
        }
        sources[from] = near.source.clone();
        places.insert(from.to_owned(), near);
        let names = to.map(|to| format!("{from}-{to}"));
        for (name, to) in names.iter().zip(to) {
            let far = place(to).await;
            sinks[name] = far.sink.clone();
            places.insert(name.clone(), far);
        }
        routes.push(json!({ "name": from, "from": from, "to": { "all": names }, "oversize": "claim_check" }));
    }
    let started = Instant::now();
    let taken = WAYS.map(|(from, _)| put_all(&places[from], &all));
    let taken: Vec<Vec<&Case>> = join_all(taken).await;
    let (mut distinct, mut each) = (BTreeSet::new(), Vec::new());
    for taken in &taken {
        let hostile: Vec<_> = taken.iter().filter(|case| !is_neighbour(case)).collect();
        distinct.extend(hostile.iter().map(|case| &case.name));
        each.push(hostile.len());
        assert_eq!(taken.len() - hostile.len(), neighbours, "a neighbour was not taken");
    }
    println!(
        "{} hostile messages, taken by {WAYS:?}: {each:?}; put in {:?}",
        distinct.len(),
        started.elapsed()
    );
    assert!(each.iter().all(|count| *count >= EACH), "{each:?}");

    let mut daemon = Daemon::start(json!({
        "claim_check": { "store": { "directory": { "path": claims.path() } } },
        "dead_letter": "parked",
        "sources": sources,
        "sinks": sinks,
        "routes": routes,
    }))
    .await;
    let ended = |text: &str| {
        WAYS.iter().zip(&taken).all(|((from, _), taken)| settled(text, from) >= taken.len())
    };
    let metrics = daemon.wait_long_for("metrics", 3 * PATIENCE, |_, text| ended(text)).await;
    println!("settled after {:?}", started.elapsed());
    daemon.terminate();
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());

    let left = WAYS.iter().filter(|(from, _)| *from != "event_hubs").map(async |(from, _)| {
        let backlog = places[*from].source().await.settle.backlog().await.unwrap();
        (*from, backlog.iter().map(|it| it.events).sum::<u64>())
    });
    for (from, left) in join_all(left).await {
        assert_eq!(left, 0, "events are left in {from}");
    }
    let letters = take_out(&parked, dead_lettered(&metrics)).await;
    let sinks: Vec<_> = (WAYS.iter().zip(&taken))
        .flat_map(|((from, to), taken)| to.map(|to| (*from, format!("{from}-{to}"), taken)))
        .collect();
    let read = sinks.iter().map(async |(from, sink, taken)| {
        let of = |event: &&Event| event.dead_letter.as_ref().unwrap().source == *from;
        let letters: Vec<_> = letters.iter().filter(of).map(out_of_sns).collect();
        let there = take_out(&places[sink], taken.len().saturating_sub(letters.len())).await;
        problems(from, sink, taken, &there, &letters)
    });
    let problems: Vec<String> = join_all(read).await.concat();
    println!("{} dead letters; read after {:?}", letters.len(), started.elapsed());
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    for (((from, _), taken), hostile) in WAYS.iter().zip(&taken).zip(&each) {
        let of = |event: &&Event| event.dead_letter.as_ref().unwrap().source == *from;
        let parked = letters.iter().filter(of).count();
        let figures =
            json!({ "events": taken.len(), "hostile messages": hostile, "dead letters": parked });
        figures::note("hostile", &format!("into {from}"), figures);
    }
}
