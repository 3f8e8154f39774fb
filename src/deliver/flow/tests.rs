use futures::FutureExt;

use super::*;
use crate::{config::units::Span, sink::Order, telemetry::Metrics};

const LIMITS: Limits =
    Limits { events: 10, bytes: 1000, event_bytes: 1000, order: Order::Lost, in_flight: 4 };

const SECOND: Duration = Duration::from_secs(1);

/// The control of a sink called `sink`, and its metrics.
struct Fixture {
    flow: Arc<Flow>,
    metrics: Arc<Metrics>,
}

impl Fixture {
    fn new(config: FlowConfig) -> Self {
        let metrics = Metrics::new().unwrap();
        let sink = metrics.sink(&"sink".into());
        let flow = Arc::new(Flow::new("sink".into(), config, &LIMITS, sink));
        Self { flow, metrics }
    }

    async fn admit(&self) -> Permit {
        match self.flow.clone().admit(LIMITS, false).await {
            Admission::Go(permit) => permit,
            Admission::Shut { .. } => panic!("nobody evades"),
        }
    }

    fn try_admit(&self) -> Option<Permit> {
        self.admit().now_or_never()
    }

    async fn ask(&self, answer: Answer) -> Option<Instant> {
        let mut permit = self.admit().await;
        permit.sends();
        permit.answered(answer)
    }

    /// Fails until it is left alone; until when.
    async fn trip(&self) -> Instant {
        loop {
            if let Some(until) = self.ask(Answer::Failed(None)).await {
                return until;
            }
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("eventferry_{name}")));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

fn events(per_second: f64) -> FlowConfig {
    let limit = LimitConfig { events_per_second: Some(per_second), bytes_per_second: None };
    FlowConfig { limit, ..FlowConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_grow_with_answers_and_each_waits_for_its_turn() {
    let fixture = Fixture::new(FlowConfig::default());
    let first = fixture.admit().await;
    assert!(fixture.try_admit().is_none(), "one at first");
    let (next, after) = (fixture.admit(), fixture.admit());
    let (mut next, mut after) = (Box::pin(next), Box::pin(after));
    assert!((&mut next).now_or_never().is_none() && (&mut after).now_or_never().is_none());
    drop(first);
    // Who has just been served does not overtake those who wait.
    assert!(fixture.try_admit().is_none());
    assert!((&mut after).now_or_never().is_none());
    let mut second = (&mut next).now_or_never().expect("it is its turn");
    second.sends();
    second.answered(Answer::Well);
    assert!((&mut after).now_or_never().is_some());
    assert!(fixture.metric("sink_concurrency_limit") >= 2.0);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_under_way_than_may_be() {
    let fixture = Fixture::new(FlowConfig::default());
    for _ in 0..20 {
        let mut all: Vec<Permit> = std::iter::from_fn(|| fixture.try_admit()).collect();
        all.iter_mut().for_each(Permit::sends);
        all.into_iter().for_each(|permit| assert!(permit.answered(Answer::Well).is_none()));
    }
    let all: Vec<Permit> = std::iter::from_fn(|| fixture.try_admit()).collect();
    assert_eq!(all.len(), LIMITS.in_flight);
    drop(all);
    // Too busy for some events: the next requests are fewer.
    fixture.ask(Answer::Partly(None)).await;
    let fewer: Vec<Permit> = std::iter::from_fn(|| fixture.try_admit()).collect();
    assert_eq!(fewer.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_with_a_hint_stops_all_requests_for_so_long() {
    let fixture = Fixture::new(FlowConfig::default());
    let began = Instant::now();
    fixture.ask(Answer::Partly(Some(42 * SECOND))).await;
    assert!(fixture.try_admit().is_none());
    drop(fixture.admit().await);
    assert_eq!(began.elapsed().as_secs(), 42);
    let waited = fixture.metric("sink_wait_seconds_total{for=\"throttle\"");
    assert!((42.0..42.1).contains(&waited), "{waited}");
    // It was no failure of the sink.
    assert_eq!(fixture.metric("sink_breaker_opened_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_hours_hint_does_not_stop_a_sink_for_an_hour() {
    let fixture = Fixture::new(FlowConfig::default());
    let began = Instant::now();
    fixture.ask(Answer::Partly(Some(3600 * SECOND))).await;
    drop(fixture.admit().await);
    assert_eq!(began.elapsed().as_secs(), HINT_MAX.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_is_left_alone_and_then_sees_one_event() {
    let fixture = Fixture::new(FlowConfig::default());
    let until = fixture.trip().await;
    assert_eq!(fixture.metric("sink_breaker{"), 2.0);
    assert!(!fixture.flow.wellness.is_well());
    let mut probe = fixture.admit().await;
    assert!(Instant::now() >= until);
    assert_eq!(fixture.metric("sink_breaker{"), 1.0);
    assert_eq!(probe.within(LIMITS).events, 1);
    probe.sends();
    probe.answered(Answer::Well);
    assert_eq!(fixture.metric("sink_breaker{"), 0.0);
    assert_eq!(fixture.admit().await.within(LIMITS).events, 10);
    assert_eq!(fixture.metric("sink_breaker_opened_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn only_one_probe_is_under_way() {
    let concurrency = ConcurrencyConfig { min: 4, max: None };
    let fixture = Fixture::new(FlowConfig { concurrency, ..FlowConfig::default() });
    fixture.trip().await;
    let mut probe = fixture.admit().await;
    let mut other = Box::pin(fixture.admit());
    tokio::select! {
        _ = &mut other => panic!("two probes"),
        () = tokio::time::sleep(60 * SECOND) => {}
    }
    // One that is not sent is for somebody else, at once.
    drop(probe);
    probe = (&mut other).now_or_never().expect("the next one sees");
    let mut third = Box::pin(fixture.admit());
    assert!((&mut third).now_or_never().is_none());
    probe.sends();
    probe.answered(Answer::Partly(None));
    assert!((&mut third).now_or_never().is_some(), "it has answered");
}

#[tokio::test(start_paused = true)]
async fn in_an_hours_outage_a_sink_is_asked_less_and_less() {
    let fixture = Fixture::new(FlowConfig::default());
    let (began, mut asked) = (Instant::now(), 0);
    while began.elapsed() < 3600 * SECOND {
        fixture.ask(Answer::Failed(None)).await;
        asked += 1;
    }
    assert!((120..260).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn who_can_go_elsewhere_does_not_wait_for_a_sink_that_does_not_work() {
    let fixture = Fixture::new(FlowConfig::default());
    let until = fixture.trip().await;
    match fixture.flow.clone().admit(LIMITS, true).now_or_never() {
        Some(Admission::Shut { until: shut, works: false }) => assert_eq!(shut, until),
        _ => panic!("it waits"),
    }
    fixture.ask(Answer::Partly(Some(9 * SECOND))).await;
    let throttled = fixture.flow.clone().admit(LIMITS, true).now_or_never();
    assert!(matches!(throttled, Some(Admission::Shut { works: true, .. })));
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_for_all_who_send() {
    let concurrency = ConcurrencyConfig { min: 4, max: None };
    let fixture = Fixture::new(FlowConfig { concurrency, ..events(20.0) });
    let began = Instant::now();
    let sender = || async {
        let mut sent = 0;
        while began.elapsed() < 10 * SECOND {
            let mut permit = fixture.admit().await;
            let events = permit.within(LIMITS).events;
            permit.holds(events, events);
            permit.sends();
            sent += events;
            tokio::time::sleep(SECOND / 100).await;
            permit.answered(Answer::Well);
        }
        sent
    };
    let sent: usize = futures::future::join_all((0..4).map(|_| sender())).await.iter().sum();
    // A burst of a second, and then the rate.
    let most = 20.0 + 20.0 * began.elapsed().as_secs_f64();
    assert!((200.0..=most).contains(&(sent as f64)), "{sent} of {most}");
}

#[tokio::test(start_paused = true)]
async fn what_a_request_does_not_need_is_for_the_next_one() {
    let fixture = Fixture::new(events(10.0));
    let mut permit = fixture.admit().await;
    assert_eq!(permit.within(LIMITS).events, 10);
    permit.holds(3, 3);
    permit.sends();
    permit.answered(Answer::Well);
    // One that is dropped before it is sent has used nothing.
    for _ in 0..5 {
        assert_eq!(fixture.admit().await.within(LIMITS).events, 7);
    }
}

#[tokio::test(start_paused = true)]
async fn who_dies_while_sending_leaves_nothing_shut() {
    let breaker = BreakerConfig { failures: 1, open: Span(SECOND), open_max: Span(SECOND) };
    let fixture = Fixture::new(FlowConfig { breaker, ..FlowConfig::default() });
    fixture.trip().await;
    let mut probe = fixture.admit().await;
    probe.sends();
    drop(probe);
    assert!(fixture.try_admit().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_has_not_connected_is_left_alone_until_it_has() {
    let fixture = Fixture::new(FlowConfig::default());
    fixture.flow.absent();
    assert!(!fixture.flow.wellness.is_well());
    assert_eq!(fixture.metric("sink_breaker{"), 2.0);
    let evading = fixture.flow.clone().admit(LIMITS, true).await;
    assert!(matches!(evading, Admission::Shut { works: false, .. }));
    let mut waiting = Box::pin(fixture.admit());
    assert!(tokio::time::timeout(3600 * SECOND, &mut waiting).await.is_err());
    fixture.flow.arrived();
    assert!(waiting.now_or_never().is_some() && fixture.flow.wellness.is_well());
    assert_eq!(fixture.metric("sink_breaker{"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_held_is_left_alone_however_it_answers_until_it_is_reset() {
    let concurrency = ConcurrencyConfig { min: 2, max: None };
    let fixture = Fixture::new(FlowConfig { concurrency, ..FlowConfig::default() });
    let mut under_way = fixture.admit().await;
    under_way.sends();
    fixture.flow.hold();
    under_way.answered(Answer::Well);
    fixture.flow.wellness.well();
    assert!(!fixture.flow.wellness.is_well());
    assert_eq!(fixture.metric("sink_breaker{"), 2.0);
    let evading = fixture.flow.clone().admit(LIMITS, true).await;
    assert!(matches!(evading, Admission::Shut { works: false, .. }));
    let mut waiting = Box::pin(fixture.admit());
    assert!(tokio::time::timeout(3600 * SECOND, &mut waiting).await.is_err());
    fixture.flow.reset();
    let permit = waiting.now_or_never().expect("it is sent to again");
    assert_eq!(permit.within(LIMITS).events, 10, "no probe");
    assert!(fixture.flow.wellness.is_well());
    assert_eq!(fixture.metric("sink_breaker{"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_has_failed_is_sent_to_at_once_after_a_reset() {
    let fixture = Fixture::new(FlowConfig::default());
    fixture.trip().await;
    let mut waiting = Box::pin(fixture.admit());
    assert!((&mut waiting).now_or_never().is_none());
    fixture.flow.reset();
    assert!(waiting.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn another_limit_holds_at_once_and_gives_nothing_that_the_old_one_granted() {
    let concurrency = ConcurrencyConfig { min: 4, max: None };
    let fixture = Fixture::new(FlowConfig { concurrency, ..events(0.001) });
    let granted = |permit: &Permit| permit.within(LIMITS).events;
    let mut first = fixture.admit().await;
    let mut waiting = Box::pin(fixture.admit());
    assert!((&mut waiting).now_or_never().is_none());
    let to = |per_second| {
        let limit = events(per_second).limit;
        fixture.flow.limit(limit);
    };
    to(2.0);
    let mut second = waiting.now_or_never().expect("who waits is told");
    assert_eq!((granted(&first), granted(&second)), (1, 2));
    first.holds(0, 0);
    second.holds(1, 1);
    assert_eq!(granted(&fixture.admit().await), 1, "what the second has left");
    // Over ten seconds, what the limit says, and no more than a second's worth on top.
    let until = Instant::now() + 10 * SECOND;
    let mut sent = 0;
    while let Ok(mut permit) = tokio::time::timeout_at(until, fixture.admit()).await {
        let events = granted(&permit);
        permit.holds(events, events);
        permit.sends();
        permit.answered(Answer::Well);
        sent += events;
    }
    assert!((19..=22).contains(&sent), "{sent}");
    fixture.flow.limit(LimitConfig::default());
    assert_eq!(granted(&fixture.admit().await), 10);
}
