//! What must hold in every state, and what must be possible at all.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::PoisonError,
};

use stateright::{Model, Property, Representative};

use crate::{
    Source, Step, World,
    state::{Breach, Excuses, Outcome, Phase, State},
};

/// The names are those under which `docs/guarantee.md` tells of them.
pub(crate) fn properties(world: &World) -> Vec<Property<World>> {
    let mut all = vec![
        Property::always("nothing is lost", nothing_is_lost),
        Property::always("no fault, no duplicate", no_fault_no_duplicate),
        Property::always("everything can still end", everything_can_still_end),
    ];
    if world.source == Source::Log {
        all.extend([
            Property::always("the watermark passes no open event", passes_no_open_event),
            Property::always("no checkpoint goes back", |_, it| never(it, Breach::Lowered)),
            Property::always("each key in its order", |_, it| never(it, Breach::Disorder)),
        ]);
    }
    if world.dedup {
        all.extend([
            Property::always("a duplicate has its cause", a_duplicate_has_its_cause),
            Property::always("a twin ends after its twin", a_twin_ends_after_its_twin),
            Property::always("a claim is its owner's", |_, it| never(it, Breach::Robbed)),
        ]);
    }
    if world.faults > 0 {
        all.push(Property::sometimes("an event is parked", |_, it| {
            ends_as(it, Outcome::DeadLettered)
        }));
    }
    // What can make a second copy can do so alone.
    if world.dedup && world.faults > 0 {
        all.push(Property::sometimes("an event is taken for a duplicate", |_, it| {
            ends_as(it, Outcome::Duplicate)
        }));
        all.push(Property::sometimes("a lost answer duplicates", |world, it| {
            duplicates(world, it, |of| Excuses { answers: of.answers, ..Default::default() })
        }));
        all.push(Property::sometimes("a death duplicates", |world, it| {
            duplicates(world, it, |of| Excuses { deaths: of.deaths, ..Default::default() })
        }));
    }
    // A claim must run out, and the event or a twin of it be out a second time meanwhile.
    if world.dedup && world.faults > 1 {
        all.push(Property::sometimes("a lapsed claim duplicates", |world, it| {
            duplicates(world, it, |of| Excuses { lapses: of.lapses, ..Default::default() })
        }));
    }
    all
}

fn parcels(world: &World) -> impl Iterator<Item = (usize, usize)> {
    (0..world.events.len()).flat_map(|event| (0..world.sinks).map(move |sink| (event, sink)))
}

/// Whether a sink has confirmed a parcel or, where the route deduplicates, a twin of it.
fn is_confirmed(world: &World, state: &State, event: usize, sink: usize) -> bool {
    world.twins(world.key(event, sink)).any(|twin| state.parcels[twin].confirmed)
}

/// Copies that a sink has of what has this key.
fn copies(world: &World, state: &State, key: usize) -> u8 {
    world.twins(key).map(|twin| state.parcels[twin].copies).sum()
}

fn never(state: &State, breach: Breach) -> bool {
    state.breach != Some(breach)
}

fn nothing_is_lost(world: &World, state: &State) -> bool {
    parcels(world).filter(|(event, _)| state.has_left(world, *event)).all(|(event, sink)| {
        is_confirmed(world, state, event, sink) || state.parcels[world.parcel(event, sink)].parked
    })
}

fn passes_no_open_event(_: &World, state: &State) -> bool {
    let tracks = state.replicas.iter().filter_map(|replica| replica.track);
    tracks.into_iter().all(|track| track.open & ((1 << track.settled) - 1) == 0)
}

fn no_fault_no_duplicate(world: &World, state: &State) -> bool {
    let keys = || parcels(world).map(|(event, sink)| world.key(event, sink));
    state.faults < world.faults || keys().all(|key| copies(world, state, key) <= 1)
}

fn a_duplicate_has_its_cause(world: &World, state: &State) -> bool {
    parcels(world)
        .map(|(event, sink)| world.key(event, sink))
        .all(|key| copies(world, state, key) <= 1 + state.excuses[key].count())
}

fn a_twin_ends_after_its_twin(world: &World, state: &State) -> bool {
    let phases = state.replicas.iter().flat_map(|replica| replica.phases(world));
    phases
        .filter(|(_, _, phase)| *phase == Phase::Ended(Outcome::Duplicate))
        .all(|(event, sink, _)| is_confirmed(world, state, event, sink))
}

fn ends_as(state: &State, outcome: Outcome) -> bool {
    let deliveries = state.replicas.iter().flat_map(|replica| &replica.deliveries);
    deliveries.into_iter().any(|delivery| delivery.outcome() == Some(outcome))
}

/// Whether there is a duplicate without any cause but those that `only` keeps.
fn duplicates(world: &World, state: &State, only: fn(Excuses) -> Excuses) -> bool {
    parcels(world).map(|(event, sink)| world.key(event, sink)).any(|key| {
        let excuses = state.excuses[key];
        copies(world, state, key) > 1 && excuses == only(excuses)
    })
}

fn digest(state: &State) -> u64 {
    let mut digest = DefaultHasher::new();
    state.representative().hash(&mut digest);
    digest.finish()
}

/// Whether some way without a further fault leads from here to where everything has left its
/// source. If it does from everywhere, then everything ends, whichever way is taken, as long as no
/// step that is possible again and again is put off for ever. (The checker's own `eventually` does
/// not see cycles.)
fn everything_can_still_end(world: &World, state: &State) -> bool {
    let mut ends = world.ends.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seen = HashSet::new();
    let mut way: Vec<Turning> = Vec::new();
    let mut next = Some(state.clone());
    loop {
        if let Some(state) = next.take() {
            let digest = digest(&state);
            if state.has_ended(world) || ends.contains(&digest) {
                ends.insert(digest);
                ends.extend(way.iter().map(|turning| turning.digest));
                return true;
            }
            if seen.insert(digest) {
                way.push(Turning::at(world, state, digest));
            }
        }
        let Some(turning) = way.last_mut() else { return false };
        match turning.untried.pop() {
            Some(step) => next = world.next_state(&turning.state, step),
            None => _ = way.pop(),
        }
    }
}

/// A state on the way to an end, and where else one could go from there.
struct Turning {
    digest: u64,
    state: State,
    untried: Vec<Step>,
}

impl Turning {
    fn at(world: &World, state: State, digest: u64) -> Self {
        let mut untried = Vec::new();
        world.actions(&state, &mut untried);
        untried.retain(|step| !step.is_fault());
        // The last is tried first, and the first ones are the shortest way.
        untried.reverse();
        Self { digest, state, untried }
    }
}
