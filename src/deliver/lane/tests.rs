use std::sync::Mutex;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::sleep};

use super::*;
use crate::{
    deliver::{Deliverer, Target, Trail, flow::FlowConfig, oversize::Oversize, priority::Priority},
    delivery::{Received, Token},
    event::{Attributes, Event, Trace},
    metadata::Packed,
    settle::{Desk, Note, Opening, Pending},
    sink::{Limits, Order, Outgoing},
    telemetry::Metrics,
    trace::Tracer,
};

/// Takes a second for each batch, notes what was in it, refuses what is called [`REFUSED`], does not
/// work when it first sees what is called [`TOO_SOON`]. It refuses what is called [`UNBEARABLE`], and
/// from the second time on whatever comes with it.
struct Slow(Mutex<Vec<Vec<String>>>, Order);

const SECOND: Duration = Duration::from_secs(1);
const EVENTS: usize = 10;
const REFUSED: &str = "refused";
const TOO_SOON: &str = "too soon";
const UNBEARABLE: &str = "unbearable";

#[async_trait::async_trait]
impl Sink for Slow {
    fn limits(&self) -> Limits {
        let order = self.1;
        Limits { events: EVENTS, bytes: 1000, event_bytes: 1000, order, in_flight: 1 }
    }
    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        Ok(Packed { body: event.body.clone(), attributes: Vec::new(), bytes: 10 })
    }
    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        let ids: Vec<_> = batch.iter().map(|outgoing| outgoing.event.id.to_string()).collect();
        let (works, breaks) = {
            let mut sent = self.0.lock().unwrap();
            let breaks = ids.iter().any(|id| id == UNBEARABLE) && !sent.is_empty();
            let works = sent.iter().flatten().any(|id| id == TOO_SOON);
            sent.push(ids);
            (works, breaks)
        };
        sleep(SECOND).await;
        let mut refused = HashSet::new();
        let answer = |outgoing: &Outgoing| {
            let key = outgoing.event.key.clone().filter(|_| self.1 == Order::Together);
            let answer = match &*outgoing.event.id {
                _ if breaks => return Err(Fault::retry("send", "broken", "not this batch")),
                _ if key.as_ref().is_some_and(|key| refused.contains(key)) => {
                    return Err(Fault::behind("send"));
                }
                UNBEARABLE => Err(Fault::retry("send", "broken", "not this")),
                REFUSED => Err(Fault::reject("send", "refused", "never")),
                TOO_SOON if !works => Err(Fault::stop("send", "unauthorized", "no key")),
                _ => return Ok(()),
            };
            refused.extend(key);
            answer
        };
        batch.iter().map(answer).collect()
    }
    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A sink with two classes, the first of them urgent, and a route into it and into a dead letter.
struct Fixture {
    sink: Arc<Slow>,
    target: Arc<Target>,
    desk: Desk,
    told: mpsc::UnboundedReceiver<Note>,
    tasks: JoinSet<()>,
    metrics: Arc<Metrics>,
}

impl Fixture {
    fn new(order: Order) -> Self {
        let metrics = Metrics::new().unwrap();
        let (weights, health) = (Weights::new([16, 1]), watch::Sender::new(None));
        let stop = CancellationToken::new();
        let (flow, of_sink) = (FlowConfig::default(), metrics.sink(&"slow".into()));
        let mut tasks = JoinSet::new();
        let mut deliverer = |sink: &Arc<Slow>| {
            let (name, sink) = ("slow".into(), sink.clone());
            let (deliverer, lanes) =
                Deliverer::new(name, sink, &weights, flow, &of_sink, &health, &stop);
            lanes.into_iter().for_each(|lane| drop(tasks.spawn(lane.run())));
            Some(deliverer)
        };
        let slow = || Arc::new(Slow(Mutex::default(), order));
        let (sink, parked) = (slow(), slow());
        let (to, dead_letter) = (deliverer(&sink), deliverer(&parked));
        let of_route = metrics.route(&"route".into(), &"slow".into());
        let (retry, oversize) = (Retry::default(), Oversize::default());
        let dead_letters = dead_letter.into_iter().collect();
        let target =
            Arc::new(Target::new("route".into(), to, dead_letters, retry, oversize, of_route));
        let (desk, told) = Desk::new(None);
        Self { sink, target, desk, told, tasks, metrics }
    }

    fn without_dead_letter(self, retry: Retry) -> Self {
        let metrics = Metrics::new().unwrap().route(&"route".into(), &"slow".into());
        let (deliverer, oversize) = (self.target.deliverer.clone(), Oversize::default());
        let target = Target::new("route".into(), deliverer, Vec::new(), retry, oversize, metrics);
        Self { target: Arc::new(target), ..self }
    }

    fn open(&self, event: Event) -> (Arc<Pending>, Job) {
        let since = Instant::now();
        let opening = Opening { token: token(), since, bytes: 0, ties: None, process: None };
        let (pending, mut branches) = self.desk.open(opening, 1);
        let branch = branches.next().unwrap();
        let ordered = event.key.is_some();
        (pending, self.target.job(&Arc::new(event), branch, ordered, trail()).unwrap().1)
    }

    fn job(&self, id: &str) -> Job {
        self.open(event(id)).1
    }

    /// One that is ordered by the key `k`.
    fn keyed(&self, id: &str) -> (Arc<Pending>, Job) {
        self.open(Event { key: Some("k".into()), ..event(id) })
    }

    fn was_sent(&self, id: &str) -> bool {
        self.sink.0.lock().unwrap().iter().flatten().any(|sent| sent == id)
    }

    fn deliverer(&self) -> Arc<Deliverer> {
        self.target.deliverer.clone().unwrap()
    }

    /// Hands over many bulk jobs, by as many messages as it takes to fill the channel for long.
    fn dispatch_bulk(&mut self, messages: usize) {
        for message in 0..messages {
            let bulk = |n| self.job(&format!("bulk-{message}-{n}")).with_priority(Priority(1));
            let jobs: Vec<Job> = (0..EVENTS).map(bulk).collect();
            let deliverer = self.deliverer();
            self.tasks.spawn(async move { deliverer.dispatch(jobs).await });
        }
    }

    /// Which of the batches after now begins with an urgent job that is handed over now.
    async fn urgent(&mut self) -> usize {
        let (deliverer, job) = (self.deliverer(), self.job("urgent"));
        self.tasks.spawn(async move { deliverer.dispatch(vec![job]).await });
        let before = self.sink.0.lock().unwrap().len();
        sleep(10 * SECOND).await;
        let batches = self.sink.0.lock().unwrap();
        let first = batches.iter().position(|batch| batch[0] == "urgent");
        first.expect("it was sent, and went first") - before
    }
}

fn token() -> Token {
    Token::Lease { serial: 1, handle: "h".into() }
}

fn event(id: &str) -> Event {
    Event {
        id: id.into(),
        source: "test".into(),
        kind: None,
        subject: None,
        time: None,
        content_type: None,
        key: None,
        trace: Trace::default(),
        hops: 0,
        attributes: Attributes::default(),
        body: Bytes::new(),
        dead_letter: None,
        fitted: None,
    }
}

fn trail() -> Trail {
    let received = Received::bare("");
    let original = Arc::new(event("parked"));
    let (received, arrived) = (Arc::new(received), OffsetDateTime::UNIX_EPOCH);
    Trail { received, attempt: 1, arrived, original, part: None, redriven: None }
}

#[tokio::test(start_paused = true)]
async fn an_urgent_job_behind_bulk_in_the_channel_is_in_the_next_batch() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    fixture.dispatch_bulk(50);
    sleep(SECOND / 2).await;
    assert_eq!(fixture.urgent().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_urgent_job_that_finds_the_channel_full_is_in_the_batch_after_at_the_latest() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    fixture.dispatch_bulk(1);
    sleep(SECOND / 2).await;
    fixture.dispatch_bulk(super::super::LANE_CHANNEL + 20);
    sleep(SECOND / 4).await;
    assert!(fixture.urgent().await <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_sent_when_its_time_has_come() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    let due = Instant::now() + 60 * SECOND;
    let jobs = vec![fixture.job("later").not_before(Some(due)), fixture.job("now")];
    fixture.deliverer().dispatch(jobs).await;
    sleep(59 * SECOND).await;
    assert_eq!(*fixture.sink.0.lock().unwrap(), [["now"]]);
    assert!(fixture.told.recv().await.is_some());
    assert!(fixture.told.recv().await.is_some());
    assert_eq!(*fixture.sink.0.lock().unwrap(), [["now"], ["later"]]);
    assert!(Instant::now() >= due + SECOND && Instant::now() < due + 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_event_is_parked_goes_on_though_the_lane_is_never_idle() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    let jobs = vec![fixture.keyed(REFUSED).1, fixture.keyed("after").1];
    fixture.deliverer().dispatch(jobs).await;
    fixture.dispatch_bulk(30);
    sleep(10 * SECOND).await;
    assert!(fixture.sink.0.lock().unwrap().len() < 30, "the lane is still busy");
    assert!(fixture.was_sent("after"));
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_refused_event_of_its_key_goes_after_it() {
    for refused in [TOO_SOON, REFUSED] {
        let mut fixture = Fixture::new(Order::Together);
        let jobs = [fixture.keyed(refused).1, fixture.keyed("behind").1, fixture.job("other")];
        fixture.deliverer().dispatch(jobs.into()).await;
        sleep(600 * SECOND).await;
        let sent = fixture.sink.0.lock().unwrap().clone();
        let again: &[&str] = if refused == TOO_SOON { &[refused, "behind"] } else { &["behind"] };
        assert_eq!(sent, [&[refused, "behind", "other"][..], again]);
        assert_eq!(gone_back(&mut fixture), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_refused_event_that_goes_back_to_its_source_goes_back_as_well() {
    let mut fixture = Fixture::new(Order::Together).without_dead_letter(Retry::default());
    let jobs = [fixture.keyed(REFUSED).1, fixture.keyed("behind").1, fixture.job("other")];
    fixture.deliverer().dispatch(jobs.into()).await;
    sleep(600 * SECOND).await;
    assert_eq!(*fixture.sink.0.lock().unwrap(), [[REFUSED, "behind", "other"]]);
    assert_eq!(gone_back(&mut fixture), 2);
}

/// Found by the simulation, in world 107,887.
#[tokio::test(start_paused = true)]
async fn what_has_attempts_left_does_not_overtake_one_of_its_key_that_has_none() {
    let retry = Retry { attempts: 2, ..Retry::default() };
    let mut fixture = Fixture::new(Order::Together).without_dead_letter(retry);
    let jobs = vec![fixture.keyed(UNBEARABLE).1, fixture.keyed("later").1];
    fixture.deliverer().dispatch(jobs).await;
    sleep(600 * SECOND).await;
    assert_eq!(*fixture.sink.0.lock().unwrap(), [[UNBEARABLE, "later"]; 2]);
    assert_eq!(gone_back(&mut fixture), 2);
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_an_event_that_has_lost_its_lease_is_not_sent_before_it() {
    let fixture = Fixture::new(Order::Together);
    let ((lost, first), (_, second)) = (fixture.keyed("first"), fixture.keyed("second"));
    lost.lose();
    fixture.deliverer().dispatch(vec![first, second, fixture.job("other")]).await;
    sleep(10 * SECOND).await;
    assert_eq!(*fixture.sink.0.lock().unwrap(), [["other"]]);
}

fn gone_back(fixture: &mut Fixture) -> usize {
    let told = std::iter::from_fn(|| fixture.told.try_recv().ok());
    let returned = |note: &Note| match note {
        Note::Settled { settled, .. } => matches!(settled.outcome, Outcome::Returned { .. }),
        Note::Opened { .. } => false,
    };
    told.filter(returned).count()
}

#[tokio::test(start_paused = true)]
async fn a_send_that_fails_is_traced_whatever_the_share_says() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    let dropped = prometheus::IntCounter::new("d", "d").unwrap();
    let (tracer, mut spans) = Tracer::new(0.0, HashMap::new(), dropped, Arc::default());
    fixture.metrics.trace_with(tracer.clone());
    let intake = tracer.intake(std::time::SystemTime::now());
    let jobs = [REFUSED, "well"].map(|id| {
        let job = fixture.job(id);
        let Trail { original, received, .. } = &job.duty.trail;
        job.duty.branch.trace(intake.process(original, received, 1, std::iter::empty()));
        job
    });
    fixture.deliverer().dispatch(jobs.into()).await;
    for _ in 0..2 {
        assert!(matches!(fixture.told.recv().await, Some(Note::Settled { .. })));
    }
    let told: Vec<_> = std::iter::from_fn(|| spans.try_recv().ok()).collect();
    let told: Vec<_> = told.iter().map(|it| (it.name.as_str(), it.error.as_deref())).collect();
    // The second into the dead letter, which may refuse it as well.
    assert_eq!(told[0], ("send slow", Some("refused")));
    assert!(told.iter().filter(|(name, _)| name.starts_with("process")).count() == 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_recalled_goes_back_at_once_though_its_time_has_not_come() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    let due = Some(Instant::now() + 3600 * SECOND);
    let held = fixture.keyed("held").1.not_before(due);
    let jobs = vec![held, fixture.keyed("behind").1, fixture.job("later").not_before(due)];
    fixture.deliverer().dispatch(jobs).await;
    sleep(SECOND).await;
    assert_eq!(gone_back(&mut fixture), 0);
    fixture.target.recall();
    sleep(SECOND / 100).await;
    assert_eq!(gone_back(&mut fixture), 3);
    sleep(7200 * SECOND).await;
    assert!(fixture.sink.0.lock().unwrap().is_empty(), "nothing of it was sent");
}

#[tokio::test(start_paused = true)]
async fn what_is_being_sent_when_it_is_recalled_counts_and_what_comes_later_goes_back() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    fixture.deliverer().dispatch(vec![fixture.keyed("sent").1, fixture.keyed("next").1]).await;
    sleep(SECOND / 2).await;
    fixture.target.recall();
    sleep(SECOND).await;
    let Some(Note::Settled { settled, .. }) = fixture.told.recv().await else { panic!() };
    assert_eq!(settled.outcome, Outcome::Delivered);
    let late = fixture.job("late");
    fixture.deliverer().dispatch(vec![late]).await;
    sleep(SECOND).await;
    assert_eq!(gone_back(&mut fixture), 2, "what was behind it, and what came after");
    assert_eq!(*fixture.sink.0.lock().unwrap(), [["sent"]]);
}

#[tokio::test(start_paused = true)]
async fn others_in_the_lane_of_what_is_recalled_go_on() {
    let mut fixture = Fixture::new(Order::OnePerBatch);
    let other = Fixture::new(Order::OnePerBatch);
    let target = |deliverer| {
        let metrics = Metrics::new().unwrap().route(&"other".into(), &"slow".into());
        let (retry, oversize) = (Retry::default(), Oversize::default());
        Arc::new(Target::new("other".into(), deliverer, Vec::new(), retry, oversize, metrics))
    };
    // Another route into the same sink.
    let other = Fixture { target: target(fixture.target.deliverer.clone()), ..other };
    let due = Some(Instant::now() + 60 * SECOND);
    let jobs = vec![fixture.job("recalled").not_before(due), other.job("stays").not_before(due)];
    fixture.deliverer().dispatch(jobs).await;
    fixture.target.recall();
    sleep(100 * SECOND).await;
    assert_eq!(gone_back(&mut fixture), 1);
    assert_eq!(*fixture.sink.0.lock().unwrap(), [["stays"]]);
}

#[tokio::test(start_paused = true)]
async fn what_has_failed_is_tried_at_once_when_somebody_says_that_the_sink_works() {
    let fixture = Fixture::new(Order::OnePerBatch);
    let due = Some(Instant::now() + 3600 * SECOND);
    let later = fixture.job("later").not_before(due);
    let jobs = vec![fixture.keyed(TOO_SOON).1, fixture.keyed("behind").1, later];
    fixture.deliverer().dispatch(jobs).await;
    sleep(10 * SECOND).await;
    assert_eq!(*fixture.sink.0.lock().unwrap(), [[TOO_SOON]], "it waits for half a minute");
    fixture.deliverer().reset();
    sleep(5 * SECOND).await;
    assert_eq!(*fixture.sink.0.lock().unwrap(), [[TOO_SOON], [TOO_SOON], ["behind"]]);
}
