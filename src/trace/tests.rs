use super::{
    look::{LOOKS_MAX, Looks},
    *,
};
use futures::FutureExt;

use crate::{delivery::Origin, event::Trace};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE:032x}-{SPAN:016x}-{flags}")
}

fn tracer(share: f64) -> (Arc<Tracer>, mpsc::Receiver<Span>, IntCounter) {
    let dropped = IntCounter::new("dropped", "dropped").unwrap();
    let by_route = HashMap::from([("alerts".into(), 1.0), ("noise".into(), 0.0)]);
    let (tracer, spans) = Tracer::new(share, by_route, dropped.clone(), Arc::default());
    (tracer, spans, dropped)
}

fn process(tracer: &Arc<Tracer>, traceparent: Option<String>) -> Process {
    taken_by(&["orders"], tracer, traceparent)
}

fn taken_by(routes: &[&str], tracer: &Arc<Tracer>, traceparent: Option<String>) -> Process {
    let origin = Origin {
        source: "orders".into(),
        resource: "aws:sqs:eu-west-1:1:orders".into(),
        position: "7".into(),
    };
    let received = Arc::new(Received { origin, ..Received::bare("{}") });
    let mut event = crate::decode::undecoded(&received);
    event.trace = Trace { parent: traceparent.map(Into::into), state: None };
    let intake = tracer.intake(SystemTime::now());
    intake.process(&Arc::new(event), &received, 2, routes.iter().copied())
}

#[test]
fn a_traceparent_is_read_by_the_letter() {
    let read = SpanContext::parse(&traceparent("01")).unwrap();
    assert_eq!(
        read,
        SpanContext { trace: TRACE, span: SPAN, is_sampled: true, is_looked_at: false }
    );
    assert!(!SpanContext::parse(&traceparent("00")).unwrap().is_sampled);
    // Flags of later levels, and a later version with more to it.
    assert!(SpanContext::parse(&traceparent("ff")).unwrap().is_sampled);
    assert!(SpanContext::parse(&format!("cc{}-what", &traceparent("01")[2..])).is_some());
    let zero = |digits: usize| "0".repeat(digits);
    for wrong in [
        String::new(),
        "00".into(),
        format!("{}-more", traceparent("01")),
        format!("ff{}", &traceparent("01")[2..]),
        traceparent("01").to_uppercase(),
        traceparent("1"),
        traceparent("+1"),
        format!("00-{}-{SPAN:016x}-01", zero(32)),
        format!("00-{TRACE:032x}-{}-01", zero(16)),
        format!("00-{}-{SPAN:016x}-01", &format!("{TRACE:032x}")[1..]),
        format!("00-{TRACE:032x}-é0f067aa0ba902b7-01"),
    ] {
        assert_eq!(SpanContext::parse(&wrong), None, "{wrong}");
    }
}

#[test]
fn a_delivery_is_a_part_of_its_events_trace() {
    let (tracer, mut spans, _) = tracer(1.0);
    let process = process(&tracer, Some(traceparent("01")));
    let context = process.context().unwrap();
    process.end(Outcome::Delivered);
    let span = spans.try_recv().unwrap();
    assert_eq!((span.context.trace, span.parent), (TRACE, Some(SPAN)));
    assert_eq!((span.context, span.error), (context, None));
    assert_ne!(context.span, SPAN);
    assert_eq!((span.name.as_str(), span.kind), ("process orders", Kind::Consumer));
    for expected in [
        (name::SYSTEM, Value::from("aws_sqs")),
        (name::DESTINATION, "aws:sqs:eu-west-1:1:orders".into()),
        (name::BODY_BYTES, Value::Number(2)),
        (name::ATTEMPT, Value::Number(2)),
        (name::OUTCOME, "delivered".into()),
    ] {
        assert!(span.attributes.contains(&expected), "{expected:?} of {:?}", span.attributes);
    }
}

#[test]
fn what_fails_is_traced_whatever_its_producer_says_and_the_rest_is_not() {
    let (tracer, mut spans, _) = tracer(1.0);
    for (outcome, error) in [
        (Outcome::Delivered, None),
        (Outcome::Filtered, None),
        (Outcome::Duplicate, None),
        (Outcome::DeadLettered, Some("dead_lettered")),
        (Outcome::Returned { after: None }, Some("returned")),
    ] {
        let process = process(&tracer, Some(traceparent("00")));
        assert_eq!(process.context(), None);
        process.end(outcome);
        let told = spans.try_recv().ok();
        let as_attribute = |span: &Span| {
            span.attributes.iter().find(|(of, _)| *of == name::ERROR).map(|(_, word)| word.clone())
        };
        assert_eq!(told.as_ref().and_then(as_attribute), error.map(Value::from), "{outcome:?}");
        assert_eq!(told.as_ref().and_then(|span| span.error.as_deref()), error, "{outcome:?}");
        assert!(told.is_none_or(|span| span.context.trace == TRACE && span.context.is_sampled));
    }
}

#[test]
fn a_route_may_have_a_share_of_its_own_and_of_several_the_largest_counts() {
    let is_traced =
        |share: f64, routes: &[&str]| taken_by(routes, &tracer(share).0, None).context().is_some();
    assert!(is_traced(0.0, &["orders", "alerts"]) && is_traced(0.0, &["alerts", "noise"]));
    assert!(!is_traced(1.0, &["noise"]) && is_traced(1.0, &["noise", "orders"]));
    assert!(!is_traced(0.0, &[]) && is_traced(1.0, &[]), "taken by none");
}

#[test]
fn a_share_takes_whole_traces_and_an_event_of_none_begins_one() {
    let (tenth, mut spans, _) = tracer(0.1);
    let mut taken = 0;
    for number in 0..10_000_u64 {
        // As random as the numbers of traces are.
        let trace = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1));
        let parent = format!("00-{trace:032x}-{SPAN:016x}-01");
        let here = process(&tenth, Some(parent.clone())).context().is_some();
        assert_eq!(here, process(&tenth, Some(parent)).context().is_some(), "not alike");
        taken += u32::from(here);
    }
    assert!((900..1_100).contains(&taken), "{taken} of 10,000");
    let (all, _spans, _) = tracer(1.0);
    let (one, other) = (process(&all, None), process(&all, Some("no context".to_owned())));
    assert_ne!(one.context().unwrap().trace, other.context().unwrap().trace);
    assert!(spans.try_recv().is_err(), "told of before its end");
}

#[test]
fn a_request_is_a_part_of_its_only_event_or_links_to_all() {
    let (tracer, mut spans, _) = tracer(1.0);
    let about = process(&tracer, Some(traceparent("01"))).context().unwrap();
    let other = process(&tracer, None).context().unwrap();
    let send = |events: usize, about: &[SpanContext]| {
        Request::begin(Some(&tracer), Operation::Send, &"far".into(), events, about.iter().copied())
    };
    send(1, &[about]).unwrap().end(Some("throttled"));
    let alone = spans.try_recv().unwrap();
    assert_eq!((alone.context.trace, alone.parent), (TRACE, Some(about.span)));
    assert_eq!(alone.error.as_deref(), Some("throttled"));
    assert!(alone.links.is_empty());

    send(3, &[about, other]).unwrap().end(None);
    let batch = spans.try_recv().unwrap();
    assert_eq!((batch.parent, &batch.links), (None, &vec![about, other]));
    assert!(![about.trace, other.trace].contains(&batch.context.trace));
    assert!(batch.attributes.contains(&(name::BATCH, Value::Number(3))));

    assert!(send(3, &[]).is_none(), "of nothing that is traced");
    let none = Request::begin(None, Operation::Send, &"far".into(), 1, [about].into_iter());
    assert!(none.is_none(), "nobody traces");
}

#[test]
fn a_request_that_fails_before_it_is_about_any_event_is_told() {
    let (tracer, mut spans, _) = tracer(0.0);
    let failed = || Request::failed(Some(&tracer), Operation::Receive, &"near".into());
    failed().unwrap().since(Duration::from_secs(3)).end(Some("throttled"));
    let span = spans.try_recv().unwrap();
    assert_eq!((span.name.as_str(), span.parent, span.links.len()), ("receive near", None, 0));
    assert_eq!(span.error.as_deref(), Some("throttled"));
    assert!(span.end.duration_since(span.start).unwrap() >= Duration::from_secs(3));
    assert!(Request::failed(None, Operation::Receive, &"near".into()).is_none());
}

#[test]
fn what_has_ended_holds_nothing_of_its_event() {
    for share in [0.0, 1.0] {
        let (tracer, _spans, _) = tracer(share);
        let process = process(&tracer, None);
        let held = Arc::downgrade(&process.about().as_ref().unwrap().0);
        process.end(Outcome::Delivered);
        assert_eq!(held.strong_count(), 0, "whoever settles it would free it");
    }
}

#[test]
fn spans_that_nobody_takes_are_counted_and_hold_up_nothing() {
    let (tracer, mut spans, dropped) = tracer(1.0);
    (0..QUEUE + 3).for_each(|_| process(&tracer, None).end(Outcome::Delivered));
    assert_eq!(dropped.get(), 3);
    assert!(spans.try_recv().is_ok());
}

/// Names of the spans that a look has been told of, those that were chosen with a mark.
fn told(look: &mut look::Look) -> Vec<String> {
    let heard = std::iter::from_fn(|| look.next().now_or_never().flatten());
    heard.map(|heard| heard.span.name + if heard.is_chosen { "!" } else { "" }).collect()
}

fn request(tracer: &Arc<Tracer>, about: &[&Process]) -> Option<Request> {
    let contexts = about.iter().filter_map(|process| process.context());
    Request::begin(Some(tracer), Operation::Send, &"far".into(), about.len(), contexts)
}

#[test]
fn whoever_looks_is_told_of_so_many_deliveries_of_a_route_without_a_collector() {
    let looks = Arc::<Looks>::default();
    let tracer = Tracer::for_looks(looks.clone());
    assert!(!tracer.is_wanted());
    assert!(process(&tracer, None).context().is_none());
    let mut look = looks.open(Some("orders".into()), 1, true).unwrap();
    assert!(tracer.is_wanted());
    let other = taken_by(&["other"], &tracer, Some(traceparent("01")));
    // Its producer does not record it, and whoever looks wants it all the same.
    let chosen = process(&tracer, Some(traceparent("00")));
    let next = process(&tracer, None);
    assert_eq!((other.context(), next.context()), (None, None));
    request(&tracer, &[&chosen, &next]).unwrap().end(None);
    for process in [&other, &next, &chosen] {
        process.end(Outcome::DeadLettered);
    }
    assert_eq!(told(&mut look), ["send far", "process orders!"]);
    // What comes of it is of the same trace.
    let beyond = taken_by(&["other"], &tracer, Some(traceparent("00")));
    request(&tracer, &[&beyond]).unwrap().end(None);
    beyond.end(Outcome::Delivered);
    assert_eq!(told(&mut look), ["send far", "process orders"]);
    drop(look);
    assert!(!tracer.is_wanted());
}

#[test]
fn who_is_limited_to_a_route_does_not_follow_a_trace() {
    let looks = Arc::<Looks>::default();
    let tracer = Tracer::for_looks(looks.clone());
    let mut look = looks.open(Some("orders".into()), 1, false).unwrap();
    process(&tracer, Some(traceparent("01"))).end(Outcome::Delivered);
    let beyond = taken_by(&["other"], &tracer, Some(traceparent("01")));
    assert_eq!(beyond.context(), None);
    beyond.end(Outcome::Delivered);
    assert_eq!(told(&mut look), ["process orders!"]);
}

#[test]
fn a_look_beside_a_collector_has_recorded_what_it_wants_and_takes_nothing_from_it() {
    let looks = Arc::<Looks>::default();
    let dropped = IntCounter::new("dropped", "dropped").unwrap();
    let (tracer, mut spans) = Tracer::new(0.0, HashMap::new(), dropped, looks.clone());
    let mut look = looks.open(None, 1, true).unwrap();
    process(&tracer, None).end(Outcome::Delivered);
    process(&tracer, None).end(Outcome::Delivered);
    assert_eq!(told(&mut look), ["process orders!"]);
    assert!(spans.try_recv().is_ok() && spans.try_recv().is_err());
}

#[test]
fn who_does_not_read_what_they_look_at_holds_nothing_up() {
    let looks = Arc::<Looks>::default();
    let tracer = Tracer::for_looks(looks.clone());
    let open: Vec<_> = (0..LOOKS_MAX).map(|_| looks.open(None, 1, true).unwrap()).collect();
    assert!(looks.open(None, 1, true).is_none());
    let process = process(&tracer, None);
    (0..1_500).for_each(|_| request(&tracer, &[&process]).unwrap().end(None));
    assert_eq!(open[0].dropped(), 1_500 - 1_024);
    drop(open);
    assert!(looks.open(None, 1, true).is_some());
}

#[test]
fn what_is_looked_at_is_told_of_a_batch_that_has_more_in_it_than_links() {
    let looks = Arc::<Looks>::default();
    let tracer =
        Tracer::new(1.0, HashMap::new(), IntCounter::new("d", "d").unwrap(), looks.clone()).0;
    let others: Vec<_> = (0..2 * LINKS_MAX).map(|_| process(&tracer, None)).collect();
    let mut look = looks.open(None, 1, true).unwrap();
    let last = process(&tracer, None);
    let all: Vec<&Process> = others.iter().chain([&last]).collect();
    request(&tracer, &all).unwrap().end(None);
    assert_eq!(told(&mut look), ["send far"]);
    looks.end();
    assert!(look.next().now_or_never().unwrap().is_none());
}
