//! Dead letters that come back, on queues in memory and paused time: what is sent, what is parked
//! again, and what stays.

use std::{collections::BTreeMap, sync::atomic::AtomicU32, time::Duration};

use eventferry::{
    config::{self, environment::Environment, plan::Plan},
    daemon,
    decode::{Format, decode},
    delivery::{Origin, Received},
    event::Event,
    redrive::{self, RedriveError, Request, Summary, Task, Told, filter::Filter, reading::Via},
    route::When,
    sink::{Outgoing, Sink, memory::MemorySink},
    source::memory::{Config, Message, Queue},
};
use serde_json::{Value as Json, json};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::rig::{self, PATIENCE, event};

/// The queues of a test, of which every daemon and redrive in it knows the names.
struct World {
    prefix: String,
    kinds: BTreeMap<&'static str, &'static str>,
    dir: tempfile::TempDir,
}

impl World {
    /// Queues, and what kind they are of.
    fn new(kinds: &[(&'static str, &'static str)]) -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        Self { prefix: format!("redrive-{number}-"), kinds: kinds.iter().copied().collect(), dir }
    }

    fn config(&self, name: &str) -> Json {
        json!({ "queue": format!("{}{name}", self.prefix), "kind": self.kinds[name] })
    }

    fn queue(&self, name: &str) -> Queue {
        Queue::named(&serde_json::from_value::<Config>(self.config(name)).unwrap())
    }

    /// A file with `near` as its source, all others as sinks, and `parked` for dead letters.
    fn plan(&self, routes: Json) -> Plan {
        self.plan_with(routes, json!({ "state": "memory", "dead_letter": "parked" }))
    }

    fn plan_with(&self, routes: Json, top: Json) -> Plan {
        let sinks = self.kinds.keys().filter(|name| **name != "near");
        let sinks: BTreeMap<_, _> =
            sinks.map(|name| (*name, json!({ "memory": self.config(name) }))).collect();
        let mut file = json!({
            "admin": "off",
            "sources": { "near": { "memory": self.config("near") } },
            "sinks": sinks,
            "routes": routes,
        });
        file.as_object_mut().unwrap().extend(top.as_object().unwrap().clone());
        let checked = config::read("redrive.yaml", &file.to_string(), &Environment::default());
        checked.unwrap_or_else(|problems| panic!("{problems}\n{file}")).plan
    }

    async fn put(&self, name: &str, events: Vec<Event>) {
        let sink = MemorySink::new(self.queue(name));
        let pack = |event| Outgoing {
            route: "test".into(),
            packed: sink.pack(&event).unwrap(),
            event: event.into(),
        };
        let batch: Vec<Outgoing> = events.into_iter().map(pack).collect();
        assert!(sink.send(&batch).await.iter().all(Result::is_ok));
    }

    /// Has a daemon carry everything out of `near`.
    async fn carry(&self, plan: Plan, events: Vec<Event>) {
        self.put("near", events).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = tokio::spawn(daemon::run(plan, async {
            let _ = stopped.await;
        }));
        let empty = self.queue("near");
        let empty = empty.wait_until(<[_]>::is_empty);
        timeout(PATIENCE, empty).await.expect("events stay at their source");
        stop.send(()).unwrap();
        daemon.await.unwrap().unwrap();
    }

    /// The events of a queue, in its order. Nobody receives them.
    fn events(&self, name: &str) -> Vec<Event> {
        self.queue(name).contents().into_iter().map(decoded).collect()
    }

    fn ids(&self, name: &str) -> Vec<String> {
        let mut ids: Vec<_> = self.events(name).iter().map(|e| e.id.to_string()).collect();
        ids.sort();
        ids
    }
}

fn decoded(message: Message) -> Event {
    let Message { body, attributes, message_id, subject, content_type, key } = message;
    let origin = Origin { source: "s".into(), resource: "r".into(), position: "p".into() };
    let (enqueued, xray, claimed) = (None, None, None);
    let received = Received {
        body,
        attributes,
        message_id,
        subject,
        content_type,
        key,
        enqueued,
        xray,
        claimed,
        origin,
    };
    decode(&received, Format::Auto).unwrap()
}

fn request(plan: Plan, task: Task) -> Request {
    Request {
        plan,
        sinks: Vec::new(),
        via: Via::default(),
        filter: Filter::default(),
        max: None,
        rate: None,
        task,
        dry_run: false,
    }
}

fn back() -> Task {
    Task::Redrive { to: None, without_dedup: false }
}

fn straight(to: &str) -> Task {
    Task::Redrive { to: Some(to.into()), without_dedup: false }
}

async fn run(request: Request) -> Result<Summary, RedriveError> {
    redrive::run(request, CancellationToken::new(), &mut |_| {}).await
}

/// Events whose bodies have a number, in turn of `keys` keys.
fn numbered(count: usize, keys: usize) -> Vec<Event> {
    rig::events("e", count, keys)
}

/// A route to `far` that fails for every event whose number is one of these.
fn refusing(numbers: &[usize]) -> Json {
    let program = format!("if includes({numbers:?}, .data.n) {{ .data.x = to_int!(.id) }}");
    json!([{
        "name": "over", "from": ["near"], "to": { "all": ["far"] },
        "transform": [{ "map": program }],
    }])
}

const QUEUES: [(&str, &str); 3] =
    [("near", "standard"), ("far", "standard"), ("parked", "standard")];

#[tokio::test(start_paused = true)]
async fn what_is_mended_arrives_once_and_leaves_the_dead_letters() {
    let world = World::new(&QUEUES);
    world.carry(world.plan(refusing(&[1, 3, 5])), numbered(8, 0)).await;
    assert_eq!(world.queue("parked").contents().len(), 3);
    let mended = world.plan(refusing(&[5]));
    let summary = run(request(mended, back())).await.unwrap();
    let failed = BTreeMap::from([("map".to_owned(), 1)]);
    assert_eq!((summary.meant, summary.redriven, &summary.failed), (3, 2, &failed));
    assert_eq!((summary.left(), summary.interrupted), (0, false));
    let mut wanted: Vec<_> = [0, 1, 2, 3, 4, 6, 7].map(|n| format!("e-{n}")).into();
    wanted.sort();
    assert_eq!(world.ids("far"), wanted);
    let far = world.events("far");
    assert!(far.iter().all(|event| event.dead_letter.is_none()));
    // The producer's own sink and one relay, as if they had never been parked.
    assert!(far.iter().all(|event| event.hops == 2), "{far:?}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_has_its_count_raised_and_its_first_time_kept() {
    let world = World::new(&QUEUES);
    let plan = world.plan(refusing(&[0]));
    world.carry(plan.clone(), numbered(1, 0)).await;
    let first = world.events("parked")[0].dead_letter.clone().unwrap();
    for count in 1..=2 {
        let summary = run(request(plan.clone(), back())).await.unwrap();
        assert_eq!((summary.seen, summary.meant, summary.failures()), (1, 1, 1), "no loop");
        let parked = world.events("parked");
        let record = parked[0].dead_letter.as_ref().unwrap();
        assert_eq!((parked.len(), record.redriven), (1, count));
        assert_eq!((record.first, record.arrived), (first.first, first.arrived));
        assert_eq!((&record.source, &record.position), (&first.source, &first.position));
        assert!(record.last > first.last);
        assert_eq!(parked[0].body, "{\"n\":0}");
    }
}

#[tokio::test(start_paused = true)]
async fn filters_choose_and_the_rest_is_untouched() {
    let world = World::new(&QUEUES);
    world.carry(world.plan(refusing(&[0, 1, 2, 3])), numbered(4, 0)).await;
    let mended = world.plan(refusing(&[]));
    let when = When::read(json!({ "data": { "n": [1, 2] } }).as_object().unwrap()).unwrap();
    let filter = Filter { when, ..Filter::default() };
    let chosen = |task, dry_run| Request {
        filter: filter.clone(),
        dry_run,
        ..request(mended.clone(), task)
    };
    let mut told = Vec::new();
    let tell = &mut |it: Told<'_>| {
        if let Told::Found(entry, _) = it {
            told.push(entry.event.id.to_string());
        }
    };
    let stop = CancellationToken::new();
    let summary = redrive::run(chosen(back(), true), stop, tell).await.unwrap();
    assert_eq!((summary.seen, summary.meant, summary.redriven), (4, 2, 0));
    told.sort();
    assert_eq!(told, ["e-1", "e-2"]);
    let summary = run(chosen(back(), false)).await.unwrap();
    assert_eq!(summary.redriven, 2);
    assert_eq!(world.ids("parked"), ["e-0", "e-3"]);
    assert!(
        world.events("parked").iter().all(|e| { e.dead_letter.as_ref().unwrap().redriven == 0 })
    );
    let only = Filter { id: Some("e-3".into()), ..Filter::default() };
    let discard = Request { filter: only, ..request(mended, Task::Discard) };
    assert_eq!(run(discard).await.unwrap().discarded, 1);
    assert_eq!(world.ids("parked"), ["e-0"]);
    assert_eq!(world.ids("far"), ["e-1", "e-2"]);
}

#[tokio::test(start_paused = true)]
async fn the_order_of_a_key_is_kept_and_a_failure_holds_back_its_own_key() {
    let kinds = [("near", "fifo"), ("far", "fifo"), ("parked", "standard")];
    let world = World::new(&kinds);
    let all: Vec<usize> = (0..30).collect();
    world.carry(world.plan(refusing(&all)), numbered(30, 3)).await;
    // What a queue without an order makes of it.
    let mut parked = world.events("parked");
    parked.reverse();
    let shuffled = World::new(&kinds);
    shuffled.put("parked", parked).await;
    let summary = run(request(shuffled.plan(refusing(&[9])), back())).await.unwrap();
    // Of key-0 (0, 3, 6, 9, ...) three arrive, one fails, six wait behind it.
    assert_eq!((summary.redriven, summary.failures()), (23, 1));
    assert_eq!(summary.skipped.values().sum::<usize>(), 6);
    let numbers = rig::by_key(&shuffled.events("far"));
    assert_eq!(numbers["key-0"], [0, 3, 6]);
    for (key, numbers) in numbers {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
    let summary = run(request(shuffled.plan(refusing(&[])), back())).await.unwrap();
    assert_eq!(summary.redriven, 7);
    let numbers = rig::by_key(&shuffled.events("far"));
    assert_eq!(numbers["key-0"], (0..30).step_by(3).collect::<Vec<_>>());
    assert!(shuffled.queue("parked").contents().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fifo_queue_is_read_on_as_its_groups_open() {
    let kinds = [("near", "fifo"), ("far", "fifo"), ("parked", "fifo")];
    let world = World::new(&kinds);
    // More of one key than the queue hands out at once; then it shows no more of that key.
    let all: Vec<usize> = (0..250).collect();
    world.carry(world.plan(refusing(&all)), numbered(250, 1)).await;
    let summary = run(request(world.plan(refusing(&[])), back())).await.unwrap();
    assert_eq!((summary.redriven, summary.left()), (250, 0));
    let numbers = rig::by_key(&world.events("far"));
    assert_eq!(numbers["key-0"], all);
    assert!(world.queue("parked").contents().is_empty());
}

#[tokio::test(start_paused = true)]
async fn in_a_fifo_queue_what_is_behind_a_failure_stays_behind_it() {
    let kinds = [("near", "fifo"), ("far", "fifo"), ("parked", "fifo")];
    let world = World::new(&kinds);
    let all: Vec<usize> = (0..250).collect();
    world.carry(world.plan(refusing(&all)), numbered(250, 1)).await;
    let summary = run(request(world.plan(refusing(&[9])), back())).await.unwrap();
    assert_eq!((summary.redriven, summary.failures(), summary.left()), (9, 1, 0));
    assert_eq!(summary.skipped.values().sum::<usize>(), 240);
    let parked: Vec<_> = world.queue("parked").contents().into_iter().map(|m| m.body).collect();
    let wanted: Vec<_> = (9..250).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(parked, wanted);
    let summary = run(request(world.plan(refusing(&[])), back())).await.unwrap();
    assert_eq!(summary.redriven, 241);
    assert_eq!(rig::by_key(&world.events("far"))["key-0"], all);
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_a_fan_out_goes_to_the_sink_that_refused_it_alone() {
    let kinds =
        [("near", "standard"), ("far", "standard"), ("small", "standard"), ("parked", "standard")];
    let world = World::new(&kinds);
    let route = |all: &[&str]| {
        json!([{
            "name": "over", "from": ["near"], "to": { "all": all },
            "transform": [{ "set": { "attributes.step": "done" } }],
        }])
    };
    // What `small` has refused, as the daemon would park it.
    let plan = world.plan(route(&["far", "small"]));
    let record = json!({
        "route": "over", "sink": "small", "class": "too_large", "error": "x", "attempts": 0,
        "received": 1, "source": "near", "resource": "r", "position": "1",
        "arrived": "2026-01-01T00:00:00Z", "first": "2026-01-01T00:00:00Z",
        "last": "2026-01-01T00:00:00Z",
    });
    let record = serde_json::from_value(record).unwrap();
    world
        .put(
            "parked",
            vec![Event { dead_letter: Some(std::sync::Arc::new(record)), ..event("e", "{}") }],
        )
        .await;
    assert_eq!(run(request(plan, back())).await.unwrap().redriven, 1);
    assert!(world.queue("far").contents().is_empty());
    let small = world.events("small");
    assert_eq!(small.len(), 1);
    assert_eq!(small[0].attributes.text("step"), Some("done"));
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_split_event_does_not_take_the_steps_again() {
    let world = World::new(&QUEUES);
    let route = |limit: usize| {
        json!([{
            "name": "over", "from": ["near"],
            "to": { "first": [
                { "when": { "data": { "n": [{ "numeric": ["<", limit] }] } }, "to": "far" },
            ] },
            "transform": [{ "split": { "list": "data.items" } }],
        }])
    };
    let body = json!({ "items": [{ "n": 1 }, { "n": 2 }] }).to_string();
    world.carry(world.plan(route(2)), vec![event("e", body)]).await;
    let parked = world.events("parked");
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!(&*parked[0].id, "e/1");
    assert!(parked[0].dead_letter.as_ref().unwrap().part.is_some());
    assert_eq!(run(request(world.plan(route(3)), back())).await.unwrap().redriven, 1);
    assert_eq!(world.ids("far"), ["e/0", "e/1"]);
}

#[tokio::test(start_paused = true)]
async fn events_that_no_route_took_are_shown_to_all_routes_again() {
    let world = World::new(&QUEUES);
    let route = |kind: &str| {
        json!([{
            "name": "over", "from": ["near"], "to": { "all": ["far"] }, "when": { "type": [kind] },
        }])
    };
    let typed = |id: &str| Event { kind: Some("order".into()), ..event(id, "{}") };
    world.carry(world.plan(route("other")), vec![typed("a"), event("b", "{}")]).await;
    assert_eq!(world.ids("parked"), ["a", "b"]);
    let summary = run(request(world.plan(route("order")), back())).await.unwrap();
    assert_eq!((summary.redriven, summary.failures()), (1, 1));
    assert_eq!(world.ids("far"), ["a"]);
    let parked = world.events("parked");
    assert_eq!(parked[0].dead_letter.as_ref().unwrap().redriven, 1);
}

#[tokio::test(start_paused = true)]
async fn straight_into_a_sink_they_go_as_they_are() {
    let kinds =
        [("near", "standard"), ("far", "standard"), ("rescue", "standard"), ("parked", "standard")];
    let world = World::new(&kinds);
    let plan = world.plan(refusing(&[0]));
    world.carry(plan.clone(), numbered(1, 0)).await;
    world.put("parked", vec![event("foreign", "?")]).await;
    let summary = run(request(plan.clone(), back())).await.unwrap();
    assert_eq!((summary.failures(), summary.skipped.len()), (1, 1), "{summary:?}");
    let summary = run(request(plan, straight("rescue"))).await.unwrap();
    assert_eq!(summary.redriven, 2);
    assert_eq!(world.ids("rescue"), ["e-0", "foreign"]);
    assert!(world.queue("parked").contents().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_gone_is_named() {
    let world = World::new(&QUEUES);
    world.carry(world.plan(refusing(&[0])), numbered(1, 0)).await;
    let mut routes = refusing(&[]);
    routes[0]["name"] = "renamed".into();
    let summary = run(request(world.plan(routes), back())).await.unwrap();
    let reason = summary.skipped.keys().next().unwrap();
    assert!(reason.contains("no route `over` any more"), "{reason}");
    assert_eq!(world.ids("parked"), ["e-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_maximum_and_a_rate_are_kept() {
    let world = World::new(&QUEUES);
    let all: Vec<usize> = (0..20).collect();
    world.carry(world.plan(refusing(&all)), numbered(20, 0)).await;
    let mended = world.plan(refusing(&[]));
    let started = tokio::time::Instant::now();
    let paced = Request { max: Some(10), rate: Some(2), ..request(mended, back()) };
    assert_eq!(run(paced).await.unwrap().redriven, 10);
    assert!(started.elapsed() >= Duration::from_millis(4_500), "{:?}", started.elapsed());
    assert_eq!(world.queue("parked").contents().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_interruption_lets_what_is_under_way_finish() {
    let world = World::new(&QUEUES);
    let all: Vec<usize> = (0..50).collect();
    world.carry(world.plan(refusing(&all)), numbered(50, 0)).await;
    let stop = CancellationToken::new();
    let paced = Request { rate: Some(1), ..request(world.plan(refusing(&[])), back()) };
    let tell = &mut |told: Told<'_>| {
        if let Told::Progress(summary) = told
            && summary.redriven == 5
        {
            stop.cancel();
        }
    };
    let summary = redrive::run(paced, stop.clone(), tell).await.unwrap();
    assert!(summary.interrupted);
    assert_eq!(summary.redriven + summary.left(), 50);
    assert_eq!(world.queue("far").contents().len(), summary.redriven);
    assert_eq!(world.queue("parked").contents().len(), summary.left());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_is_hidden_and_comes_back() {
    let world = World::new(&QUEUES);
    let all: Vec<usize> = (0..5).collect();
    world.carry(world.plan(refusing(&all)), numbered(5, 0)).await;
    let mut records = Vec::new();
    let list = request(world.plan(refusing(&all)), Task::List);
    let tell = &mut |told: Told<'_>| {
        if let Told::Found(entry, _) = told {
            records.push(entry.record.clone().unwrap());
        }
    };
    let summary = redrive::run(list, CancellationToken::new(), tell).await.unwrap();
    assert_eq!((summary.seen, summary.meant, records.len()), (5, 5, 5));
    // At once, and not when a lease ends.
    let mut source =
        world.queue("parked").source(&rig::context("reader", &rig::store())).await.unwrap();
    assert_eq!(source.receive.receive().await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_route_that_delivers_once_has_to_be_able_to_ask() {
    let world = World::new(&QUEUES);
    let state = json!({ "embedded": { "path": world.dir.path() } });
    let plan = |numbers: &[usize], state: &Json| {
        let mut routes = refusing(numbers);
        routes[0]["dedup"] = json!({ "ttl": "1h" });
        world.plan_with(routes, json!({ "state": state, "dead_letter": "parked" }))
    };
    let told = |result: Result<Summary, RedriveError>| result.unwrap_err().to_string();
    let none = told(run(request(plan(&[], &state), back())).await);
    assert!(none.contains("not on this machine") && none.contains("--without-dedup"), "{none}");
    world.carry(plan(&[0], &state), numbered(2, 0)).await;
    // As a daemon has it open.
    let open = eventferry::state::embedded::EmbeddedStore::open(world.dir.path()).unwrap();
    let held = told(run(request(plan(&[], &state), back())).await);
    assert!(held.contains("open in a daemon") && held.contains("--without-dedup"), "{held}");
    let memory = told(run(request(plan(&[], &json!("memory")), back())).await);
    assert!(memory.contains("within the daemon"), "{memory}");
    drop(open);
    assert_eq!(world.queue("parked").contents().len(), 1);
    assert_eq!(run(request(plan(&[], &state), back())).await.unwrap().redriven, 1);
    // The same entry once more, as if the redrive had died before it was deleted.
    let far = world.events("far");
    let again = far.iter().find(|event| &*event.id == "e-0").unwrap().clone();
    let record = json!({
        "route": "over", "class": "invalid", "error": "x", "attempts": 0,
        "received": 1, "source": "near", "resource": "r", "position": "1",
        "arrived": "2026-01-01T00:00:00Z", "first": "2026-01-01T00:00:00Z",
        "last": "2026-01-01T00:00:00Z",
    });
    let record = std::sync::Arc::new(serde_json::from_value(record).unwrap());
    world.put("parked", vec![Event { dead_letter: Some(record), ..again }]).await;
    let summary = run(request(plan(&[], &state), back())).await.unwrap();
    assert_eq!((summary.redriven, summary.duplicates), (0, 1));
    assert!(world.queue("parked").contents().is_empty());
}

#[cfg(feature = "vrl")]
#[tokio::test]
async fn parts_that_come_back_are_not_each_others_repeats_and_none_arrives_twice() {
    let world = World::new(&QUEUES);
    let plan = |limit: usize| {
        let routes = json!([{
            "name": "over", "from": ["near"], "dedup": { "ttl": "1h", "key": ".data.order" },
            "to": { "first": [
                { "when": { "data": { "n": [{ "numeric": ["<", limit] }] } }, "to": "far" },
            ] },
            "transform": [{ "split": { "list": "data.items" } }],
        }]);
        let state = json!({ "embedded": { "path": world.dir.path() } });
        world.plan_with(routes, json!({ "state": state, "dead_letter": "parked" }))
    };
    let order = |id: &str| {
        let items = [1, 2, 3].map(|n| json!({ "n": n }));
        event(id, json!({ "order": "o-1", "items": items }).to_string())
    };
    world.carry(plan(2), vec![order("e")]).await;
    let parked = world.events("parked");
    assert_eq!((world.ids("far").len(), parked.len()), (1, 2));
    assert_eq!(run(request(plan(4), back())).await.unwrap().redriven, 2);
    assert_eq!(world.ids("far"), ["e/0", "e/1", "e/2"]);
    // As if the redrive had died before they were deleted, and as their producer repeats them.
    world.put("parked", parked).await;
    let summary = run(request(plan(4), back())).await.unwrap();
    assert_eq!((summary.redriven, summary.duplicates), (0, 2));
    world.carry(plan(4), vec![order("f")]).await;
    assert_eq!(world.ids("far").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_from_its_start_and_keeps_what_it_has() {
    let world = World::new(&[("near", "standard"), ("far", "standard"), ("parked", "log")]);
    world.carry(world.plan(refusing(&[0, 1])), numbered(3, 0)).await;
    let mended = world.plan(refusing(&[1]));
    let summary = run(request(mended.clone(), back())).await.unwrap();
    assert_eq!((summary.redriven, summary.failures()), (1, 1));
    assert_eq!(world.queue("parked").contents().len(), 3, "two, and the one that failed again");
    let list = run(request(mended.clone(), Task::List)).await.unwrap();
    assert_eq!(list.seen, 3);
    let discard = run(request(mended, Task::Discard)).await.unwrap_err().to_string();
    assert!(discard.contains("nothing can be deleted"), "{discard}");
}

#[tokio::test(start_paused = true)]
async fn what_a_redrive_adds_to_a_log_does_not_stand_for_what_was_there() {
    let world = World::new(&[("near", "standard"), ("far", "standard"), ("parked", "log")]);
    // Two keys of two partitions: what fails again of the short one comes while the long one is
    // still being read.
    let mut events = numbered(735, 0);
    for (n, event) in events.iter_mut().enumerate() {
        event.key = Some(if n < 20 { "a" } else { "b" }.into());
    }
    let all: Vec<usize> = (0..735).collect();
    world.carry(world.plan(refusing(&all)), events).await;
    // So slow that not all are read at once.
    let paced = Request { rate: Some(1), ..request(world.plan(refusing(&all[..20])), back()) };
    let summary = run(paced).await.unwrap();
    assert_eq!((summary.seen, summary.redriven, summary.failures()), (735, 715, 20));
    assert_eq!((summary.left(), summary.unread), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn only_dead_letter_sinks_are_read() {
    let world = World::new(&QUEUES);
    let plan = world.plan(refusing(&[]));
    let of = |sinks: &[&str]| Request {
        sinks: sinks.iter().map(|sink| (*sink).to_owned()).collect(),
        ..request(plan.clone(), Task::Discard)
    };
    let told = run(of(&["far"])).await.unwrap_err().to_string();
    assert!(told.contains("`far` is not a dead-letter sink"), "{told}");
    let told = run(request(plan.clone(), straight("parked"))).await.unwrap_err().to_string();
    assert!(told.contains("where the entries are"), "{told}");
    assert_eq!(run(of(&["parked"])).await.unwrap().seen, 0);
}
