//! The acceptance tests, A to L: what other relays got wrong, each by the name of its letter.
//!
//! An outage is as long as it must be to outlast what it is about, leases and attempts, and not the
//! ten minutes that it would be outside. What else belongs to a letter is named there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use eventferry::{
    event::{Event, Trace},
    fault::{Fault, point::Point},
    sink::{Outgoing, Sink, memory::MemorySink},
    source::InFlight,
};
use futures::future::join_all;
use tokio::time::timeout;

use crate::{
    clouds::shared,
    contract, daemon,
    end_to_end::{self, Ferry, arrivals},
    event_hubs,
    fixture::{self, Fixture},
    kill_points,
    place::{KINDS, Place, place},
    redis,
    rig::{self, PATIENCE, Rig, Setup, by_key, events},
    sharing::{Shared, theft},
    sqs, sqs_batch, storage_queue,
};

/// The names of places of each kind, in the order of [`KINDS`].
const NEAR: [&str; 4] = ["from-sqs", "from-sns", "from-event-hubs", "from-storage-queue"];
const FAR: [&str; 4] = ["to-sqs", "to-sns", "to-event-hubs", "to-storage-queue"];

/// Runs a behaviour of the contract with these fixtures, side by side.
macro_rules! each {
    ($behaviour:ident: $($fixture:path),+ $(,)?) => {{
        tokio::join!($(async { contract::$behaviour(&$fixture().await).await }),+);
    }};
}

/// Every source, while its sink is down for longer than three leases. Hours of it are in `flow`, on
/// paused time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_while_the_sink_is_down_nothing_is_deleted_or_checkpointed_and_nothing_is_lost() {
    each!(settles_nothing_while_the_sink_is_down:
        sqs::standard_queue, sqs::fifo_queue, sqs::sns_raw::fixture, event_hubs::own::fixture,
        storage_queue::queue);
}

/// Every other point at which a daemon can be killed is in `kill_points`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_killed_between_the_sinks_answer_and_the_sources_nothing_is_lost_or_known_and_repeated() {
    let _shared = shared().await;
    let runs = KINDS.into_iter().flat_map(|near| {
        let far = if near == "event_hubs" { "sqs" } else { "event_hubs" };
        let state = kill_points::State::File;
        let (point, events) = (Point::AfterSend, 30);
        let in_flight = kill_points::Run { near, far, point, dedup: false, events, state };
        // Its key is known by then, and nothing else is in flight.
        let (point, events) = (Point::BeforeSettle, 1);
        [in_flight, kill_points::Run { point, dedup: true, events, ..in_flight }]
    });
    let repeated = join_all(runs.map(async |of| (of, kill_points::run(of).await))).await;
    for (of, repeated) in repeated {
        let allowed = if of.dedup { 0 } else { of.events };
        assert!(repeated <= allowed, "{of:?}: {repeated} came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_of_a_batch_of_ten_with_two_refusals_eight_are_never_sent_again() {
    tokio::join!(
        sqs_batch::a_half_failed_batch_resends_only_what_was_throttled(true),
        sqs_batch::a_half_failed_batch_resends_only_what_was_throttled(false),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d_the_checkpoint_stays_at_a_failed_event_until_it_is_delivered_or_parked() {
    each!(holds_the_checkpoint_at_a_failed_event: event_hubs::own::fixture);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_what_takes_three_leases_is_delivered_once_and_no_lease_is_extended_after_it() {
    tokio::join!(
        async { each!(extends_long_leases: sqs::standard_queue, storage_queue::queue) },
        async { each!(stops_extending_when_settled: sqs::standard_queue, storage_queue::queue) },
    );
}

/// Broken JSON and base64, noise with twelve attributes, and what the sink cannot hold. Some hundred
/// kinds more, through the whole daemon, and what cannot even be decoded, are in `hostile`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_poison_is_parked_as_it_came_and_its_neighbours_flow() {
    each!(parks_poison_and_lets_its_neighbours_pass:
        sqs::standard_queue, sqs::sns_raw::fixture, event_hubs::own::fixture, storage_queue::queue);
}

/// With a store for its body it goes on by a reference: `claim` and `end_to_end::sizes`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g_a_mebibyte_for_a_storage_queue_is_parked_and_not_tried_for_ever() {
    daemon::a_mebibyte_for_a_storage_queue_is_parked_on_the_other_side().await;
}

/// In whose hands a partition is while it moves by agreement, or as a replica is killed, is in
/// `sharing`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h_what_is_stolen_cut_off_or_claimed_goes_on_with_a_batch_repeated_at_most() {
    tokio::join!(
        async { theft::what_was_stolen_goes_on_when_nobody_has_it(Shared::redis().await).await },
        async { theft::what_was_stolen_goes_on_when_nobody_has_it(Shared::blob().await).await },
        async { each!(survives_reconnect: event_hubs::own::fixture) },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i_a_reload_while_a_sink_is_down_completes_and_shows_which_configuration_runs() {
    let reload = daemon::reload::a_sink_that_is_down_holds_up_no_other_configuration();
    timeout(3 * PATIENCE, reload).await.expect("the reload does not complete");
}

/// Three hundred events of each pair, with all that belongs to them, are in `pairs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j_the_trace_of_an_event_is_the_same_on_both_sides_of_all_16_pairs() {
    let _shared = shared().await;
    let near = join_all(KINDS.map(place)).await;
    let far = join_all(KINDS.map(place)).await;
    let parked = place("sqs").await;
    let sources: Vec<(&str, &Place)> = NEAR.into_iter().zip(&near).collect();
    let sinks: Vec<(&str, &Place)> = FAR.into_iter().zip(&far).collect();
    let traced = |source: &str, number: usize| Event {
        trace: Trace {
            parent: Some(format!("00-{:032x}-{:016x}-01", number + 1, number + 1).into()),
            state: number.is_multiple_of(2).then(|| "vendor=1,other=2".into()),
        },
        ..rig::event(&format!("{source}-{number}"), "{}")
    };
    let put =
        sources.iter().map(|(name, place)| place.put((0..5).map(|n| traced(name, n)).collect()));
    join_all(put).await;
    let mut all = sinks.clone();
    all.push(("parked", &parked));
    let routes = format!(
        "routes: [{{ name: pairs, from: [{}], to: {{ all: [{}] }} }}]",
        NEAR.join(", "),
        FAR.join(", ")
    );
    let ferry = Ferry::run(&sources, &all, &routes).await;
    let arrived = arrivals(&sinks, 16 * 5).await;
    ferry.end().await;
    let mut pairs = BTreeSet::new();
    for arrival in &arrived {
        let (source, number) = arrival.event.id.rsplit_once('-').unwrap();
        let sent = traced(source, number.parse().unwrap());
        assert_eq!(arrival.event.trace, sent.trace, "{source} {}", arrival.sink);
        pairs.insert((source, arrival.sink, number));
    }
    assert_eq!(pairs.len(), 16 * 5);
}

/// The store in a file, on a disk that is full, is in `state_faults`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k_while_the_store_of_keys_is_away_events_wait_or_go_on_as_their_route_says() {
    redis::events_wait_for_the_store_or_go_on_as_their_route_says().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_an_event_ends_at_its_last_hop() {
    end_to_end::bridges::two_bridges_that_point_at_each_other_do_not_carry_an_event_for_ever()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_the_order_of_groups_is_kept_while_events_are_refused_and_readers_come_and_go() {
    let near = sqs::fifo_queue().await;
    let far = rig::queue();
    let refused: Arc<Mutex<BTreeMap<Arc<str>, usize>>> = Arc::default();
    let reader = async || {
        let refused = refused.clone();
        let script = move |outgoing: &Outgoing| {
            let number: usize = outgoing.event.id[2..].parse().unwrap();
            let mut refused = refused.lock().unwrap();
            let times = refused.entry(outgoing.event.id.clone()).or_default();
            *times += 1;
            match number.is_multiple_of(9) && *times == 1 {
                // Without a dead-letter sink it goes back to its queue.
                true => Err(Fault::reject("send", "refused", "not this time")),
                false => Ok(()),
            }
        };
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::scripted(far.clone(), Box::new(script)));
        let max_in_flight = InFlight { events: 10, ..InFlight::default() };
        let setup = Setup { sink: Some(sink), max_in_flight, ..Setup::default() };
        Rig::start(near.source(&rig::store()).await, setup)
    };
    fixture::put(&near, events("e", 120, 12)).await;
    let first = reader().await;
    far.wait_until(|messages| messages.len() >= 20).await;
    let others = [reader().await, reader().await];
    far.wait_until(|messages| messages.len() >= 60).await;
    first.drain().await;
    let all = far.wait_until(|messages| {
        let ids = messages.iter().filter_map(|message| message.message_id.clone());
        ids.collect::<BTreeSet<_>>().len() == 120
    });
    timeout(PATIENCE, all).await.expect("events are missing");
    let mut seen = BTreeSet::new();
    let mut arrived = rig::decoded(&far).await;
    arrived.retain(|event| seen.insert(event.id.clone()));
    for (group, numbers) in by_key(&arrived) {
        assert!(numbers.is_sorted() && numbers.len() == 10, "{group}: {numbers:?}");
    }
    assert_eq!(refused.lock().unwrap().values().filter(|times| **times > 1).count(), 14);
    for reader in others {
        reader.drain().await;
    }
}
