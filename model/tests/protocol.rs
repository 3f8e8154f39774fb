//! Every order of the protocol's steps is tried; made wrong, it is found out.
//!
//! `make model` tries larger worlds. A failure prints the shortest way to it.

use eventferry_model::{
    Mistake::{self, *},
    Source::{Log, Queue},
    Step, World,
};
use stateright::{Checker, HasDiscoveries, Model};

/// Set by `make model`.
const LARGE: &str = "EVENTFERRY_MODEL_LARGE";

/// Tries everything that can happen in a world with as many faults, of which it names two numbers:
/// for every day, and for `make model`.
fn holds(name: &str, faults: [u8; 2], world: fn(u8) -> World) {
    let faults = faults[usize::from(std::env::var_os(LARGE).is_some())];
    // Twins in everything but their number are one state. That needs a depth-first search.
    let checker = world(faults).checker().symmetry().spawn_dfs().join();
    let properties = checker.model().properties();
    let found = checker.discoveries();
    let as_expected = |property: &stateright::Property<World>| {
        found.contains_key(property.name) != property.expectation.discovery_is_failure()
    };
    if let Some(broken) = properties.iter().find(|property| !as_expected(property)) {
        let way = shortest(&world(faults), broken.name);
        panic!("{name}: `{}` does not hold: {way:#?}", broken.name);
    }
    let (states, steps) = (checker.unique_state_count(), checker.state_count());
    println!(
        "{name}, {faults} faults: {states} states, {steps} steps, {} properties hold",
        properties.len()
    );
}

/// The shortest way to where a property does not hold, if there is one. Of all that it meets at one
/// depth the checker keeps the last, and goes on for a while, so it is sent one deeper at a time.
fn shortest(world: &World, property: &'static str) -> Option<Vec<Step>> {
    let mut reached = 0;
    for depth in 2.. {
        let checker = world.clone().checker().target_max_depth(depth);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        if let Some(way) = checker.discovery(property) {
            return Some(way.into_actions());
        }
        if checker.unique_state_count() == reached {
            break;
        }
        reached = checker.unique_state_count();
    }
    None
}

fn breaks(name: &str, property: &'static str, world: &World) {
    let Some(way) = shortest(world, property) else { panic!("{name}: `{property}` holds") };
    println!("{name}: not `{property}` after {} steps: {way:?}", way.len());
}

#[test]
fn twins_in_a_queue() {
    holds("twins in a queue", [2, 3], |faults| World::new(Queue, &[(0, 0), (0, 0)], 1, faults));
}

#[test]
fn a_queue_without_deduplication() {
    holds("a queue without deduplication", [2, 4], |faults| {
        World::new(Queue, &[(0, 0), (1, 0)], 1, faults).without_dedup()
    });
}

#[test]
fn a_fan_out_from_a_queue() {
    holds("a fan-out from a queue", [2, 2], |faults| World::new(Queue, &[(0, 0)], 2, faults));
}

#[test]
fn twins_in_a_log() {
    holds("twins in a log", [2, 3], |faults| World::new(Log, &[(0, 0), (0, 1)], 1, faults));
}

#[test]
fn twins_in_one_key_of_a_log() {
    holds("twins in one key of a log", [1, 2], |faults| {
        World::new(Log, &[(0, 0), (1, 1), (0, 0)], 1, faults)
    });
}

#[test]
fn twins_in_two_keys_of_a_log() {
    holds("twins in two keys of a log", [1, 2], |faults| {
        World::new(Log, &[(0, 0), (0, 1), (2, 0)], 1, faults)
    });
}

#[test]
fn a_log_without_deduplication() {
    holds("a log without deduplication", [1, 2], |faults| {
        World::new(Log, &[(0, 0), (1, 1), (2, 0)], 1, faults).without_dedup()
    });
}

#[test]
fn every_mistake_is_found() {
    let queue = |faults| World::new(Queue, &[(0, 0), (0, 0)], 1, faults);
    let fan_out = |faults| World::new(Queue, &[(0, 0)], 2, faults);
    let log = |faults| World::new(Log, &[(0, 0), (0, 1)], 1, faults);
    let apart = |faults| World::new(Log, &[(0, 0), (1, 1)], 1, faults);
    let ordered = |faults| World::new(Log, &[(0, 0), (1, 0)], 1, faults);
    let behind = |faults| World::new(Log, &[(0, 0), (0, 1), (2, 0)], 1, faults);
    let mistakes: [(Mistake, &str, World); 16] = [
        (AckBeforeConfirm, "nothing is lost", queue(0)),
        (FirstBranchSettles, "nothing is lost", fan_out(0)),
        (ParkedUnconfirmed, "nothing is lost", queue(1)),
        (CommitBeforeDelivery, "a twin ends after its twin", queue(0)),
        (TwinIsDone, "a twin ends after its twin", queue(0)),
        (CommitUnfenced, "a claim is its owner's", queue(1)),
        (ReleaseUnfenced, "a claim is its owner's", queue(1)),
        (SendsByLapsedClaim, "a duplicate has its cause", queue(1)),
        (ForgetsBeforeRelease, "a duplicate has its cause", queue(1)),
        (ReleaseUnnumbered, "a duplicate has its cause", queue(2)),
        (ClaimForEver, "everything can still end", queue(1)),
        (ReturnedIsForgotten, "everything can still end", log(0)),
        (CheckpointOfNewest, "the watermark passes no open event", apart(0)),
        (CheckpointLowered, "no checkpoint goes back", ordered(1)),
        (Overtakes, "each key in its order", ordered(0)),
        (ReturnedIsPassed, "each key in its order", behind(1)),
    ];
    for (mistake, property, world) in mistakes {
        breaks(&format!("{mistake:?}"), property, &world.with(mistake));
    }
}
