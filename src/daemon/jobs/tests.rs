use serde_json::json;
use tokio::task::JoinSet;

use super::*;
use crate::{
    config::{self, environment::Environment},
    dead_letter::DeadLetter,
    event::Event,
    redrive::entry::fixtures::entry,
    sink::{Outgoing, Sink as _, memory::MemorySink},
    source::memory::Queue,
};

/// A daemon's jobs beside dead letters of their own.
struct World {
    jobs: Arc<Jobs>,
    parked: Queue,
    far: Queue,
    end: CancellationToken,
    worker: JoinSet<()>,
    metrics: Arc<Metrics>,
}

impl World {
    fn new(name: &str) -> Self {
        let file = json!({
            "sources": { "near": { "memory": { "queue": format!("{name}-near") } } },
            "sinks": {
                "far": { "memory": { "queue": format!("{name}-far") } },
                "parked": { "memory": { "queue": format!("{name}-parked") } },
            },
            "routes": [{ "name": "orders", "from": "near", "to": { "all": ["far"] } }],
            "dead_letter": "parked", "state": "memory",
        });
        let plan = config::read("f.yaml", &file.to_string(), &Environment::default()).unwrap().plan;
        let queue = |sink: &str| {
            Queue::named(&serde_json::from_value(file["sinks"][sink]["memory"].clone()).unwrap())
        };
        let (parked, far) = (queue("parked"), queue("far"));
        let health = Arc::new(Health::default());
        health.watch(Arc::new(plan), Vec::new());
        let ((jobs, orders), end) = (Jobs::new(), CancellationToken::new());
        let (mut worker, metrics) = (JoinSet::new(), Metrics::new().unwrap());
        worker.spawn(work(orders, health, metrics.clone(), Beside::default(), end.clone()));
        Self { jobs, parked, far, end, worker, metrics }
    }

    /// Parks an event of this id, of a class.
    async fn park(&self, id: &str, class: &str) {
        let parked = entry(id, "orders", class, 100);
        let record = parked.record.as_deref().cloned();
        let record = record.map(|record| Arc::new(DeadLetter { ..record }));
        let event = Arc::new(Event { dead_letter: record, ..(*parked.event).clone() });
        let sink = MemorySink::new(self.parked.clone());
        let outgoing =
            Outgoing { route: "orders".into(), packed: sink.pack(&event).unwrap(), event };
        sink.send(&[outgoing]).await.into_iter().for_each(|sent| sent.unwrap());
    }

    async fn ended(&self, job: &Job) -> Job {
        let mut watch = self.jobs.watch(&job.id).unwrap();
        watch.wait_for(|job| job.ended.is_some()).await.unwrap().clone()
    }
}

fn class(class: &str) -> Selection {
    Selection { class: Some(class.to_owned()), ..Selection::default() }
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_is_what_the_dry_run_has_found() {
    let world = World::new("confirm");
    world.park("e-1", "invalid").await;
    world.park("e-2", "other").await;
    let dry = world.jobs.dry_run(Kind::Redrive, class("invalid")).unwrap();
    let early = world.jobs.confirm(Kind::Redrive, &dry.id, Box::new(|_| {}));
    assert_eq!(early.unwrap_err(), Refused::NoDryRun(dry.id.clone()), "it has not ended");
    let dry = world.ended(&dry).await;
    assert_eq!((dry.state, dry.summary.meant, dry.summary.seen), (State::Done, 1, 2));
    assert_eq!(dry.entries[0].event["id"], "e-1");
    // It came after somebody had looked.
    world.park("e-3", "invalid").await;
    let discard = world.jobs.confirm(Kind::Discard, &dry.id, Box::new(|_| {}));
    assert_eq!(discard.unwrap_err(), Refused::NoDryRun(dry.id.clone()), "of a redrive");
    let job = world.jobs.confirm(Kind::Redrive, &dry.id, Box::new(|_| {})).unwrap();
    let job = world.ended(&job).await;
    assert_eq!((job.state, job.summary.redriven, job.error), (State::Done, 1, None));
    let left = world.jobs.look(Selection::default(), Sight::Outside).await.unwrap();
    let ids: Vec<_> = left.entries.iter().map(|entry| &entry.event["id"]).collect();
    assert_eq!(ids, ["e-2", "e-3"]);
    assert_eq!(world.far.contents().len(), 1);
    let counted = String::from_utf8(world.metrics.render()).unwrap();
    for line in ["{result=\"done\",task=\"redrive\"} 1", "{result=\"done\",task=\"dry_run\"} 1"] {
        assert!(counted.contains(&format!("dead_letter_jobs_total{line}\n")), "{counted}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_is_an_entry_and_not_all_that_have_its_id() {
    let world = World::new("twins");
    world.park("e-1", "invalid").await;
    let dry = world.jobs.dry_run(Kind::Discard, Selection::default()).unwrap();
    assert_eq!(world.ended(&dry).await.summary.meant, 1);
    // Its producer has sent another of this id.
    world.park("e-1", "invalid").await;
    let job = world.jobs.confirm(Kind::Discard, &dry.id, Box::new(|_| {})).unwrap();
    let job = world.ended(&job).await;
    assert_eq!((job.state, job.summary.discarded), (State::Done, 1));
    assert_eq!(world.parked.contents().len(), 1, "nobody has asked for that");
}

#[tokio::test(start_paused = true)]
async fn a_span_is_counted_from_when_it_was_asked_for() {
    let world = World::new("span");
    let since = Selection { since: Some("1h".to_owned()), ..Selection::default() };
    let dry = world.jobs.dry_run(Kind::Discard, since).unwrap();
    world.ended(&dry).await;
    let job = world.jobs.confirm(Kind::Discard, &dry.id, Box::new(|_| {})).unwrap();
    let [asked, confirmed] = [&dry, &job].map(|it| world.jobs.find(&it.id).unwrap().filter.since);
    assert!(asked.is_some() && asked == confirmed, "{asked:?}, {confirmed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_nobody_waits_for_ends() {
    let world = World::new("left");
    world.park("e-1", "invalid").await;
    let look = world.jobs.look(Selection::default(), Sight::Outside);
    assert!(tokio::time::timeout(std::time::Duration::ZERO, look).await.is_err());
    // It would stay for as long as a quiet queue is looked at otherwise.
    let seen = world.jobs.look(Selection::default(), Sight::Outside).await.unwrap();
    assert_eq!(seen.summary.seen, 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_counts_by_route_and_cause_and_shows_no_body() {
    let world = World::new("look");
    for (id, class) in [("e-1", "invalid"), ("e-2", "invalid"), ("e-3", "other")] {
        world.park(id, class).await;
    }
    let seen = world.jobs.look(Selection::default(), Sight::Outside).await.unwrap();
    let groups: Vec<_> =
        seen.groups.iter().map(|it| (it.class.as_deref().unwrap_or(""), it.entries)).collect();
    assert_eq!(groups, [("invalid", 2), ("other", 1)]);
    assert!(seen.entries[0].event.get("data").is_none(), "{:?}", seen.entries[0]);
    assert_eq!(world.jobs.known(), [], "a look is not remembered");
    let one = Selection { id: Some("e-3".to_owned()), ..Selection::default() };
    let one = world.jobs.look(one, Sight::Whole).await.unwrap();
    assert_eq!(one.entries[0].event["data"], json!({ "n": 1 }));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_on_or_cannot_be_done_says_why() {
    let mut world = World::new("refuse");
    assert_eq!(world.jobs.stop("7").unwrap_err(), Refused::Unknown("7".to_owned()));
    let unknown = Selection { sinks: vec!["parkd".to_owned()], ..Selection::default() };
    let failed = world.ended(&world.jobs.dry_run(Kind::Discard, unknown).unwrap()).await;
    assert_eq!(failed.state, State::Failed);
    assert!(failed.error.unwrap().contains("did you mean `parked`?"));
    let waiting: Vec<_> =
        (0..WAITING_MAX).map(|_| world.jobs.dry_run(Kind::Redrive, class("x")).unwrap()).collect();
    let refused = world.jobs.dry_run(Kind::Redrive, class("x")).unwrap_err();
    assert_eq!(refused, Refused::Busy);
    let last = &waiting[WAITING_MAX - 1];
    world.jobs.stop(&last.id).unwrap();
    assert_eq!(world.ended(last).await.state, State::Stopped);
    for _ in 0..KNOWN_MAX {
        let job = world.jobs.dry_run(Kind::Redrive, class("x")).unwrap();
        world.ended(&job).await;
    }
    assert_eq!(world.jobs.known().len(), KNOWN_MAX);
    world.end.cancel();
    world.worker.join_next().await.unwrap().unwrap();
    assert!(world.jobs.look(Selection::default(), Sight::Outside).await.is_err(), "it has ended");
}
