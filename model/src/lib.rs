//! The protocol by which an event is claimed, delivered, committed, settled and checkpointed, for a
//! model checker that tries every order of its steps: two replicas, each of which may die, fall
//! behind its leases or lose its partition at any step and act on, between services that lose
//! answers. What it shows, and what it leaves out, is told in `docs/guarantee.md`.
//!
//! It shares no code with the daemon. Each step names the function that it mirrors; a change there
//! belongs here, too:
//!
//! | Here | There |
//! |---|---|
//! | [`Step::Claim`], [`Step::Relinquish`] | `deliver::lane::Lane::claim`, `dedup::ledger::Ledger::claim`, `Claim::is_ours` |
//! | [`Step::Send`], [`Step::Confirm`] | `deliver::lane::Lane::send`, `confirm` |
//! | [`Step::Reject`], [`Step::Park`] | `deliver::lane::Lane::elsewhere`, `deliver::Target::park` |
//! | [`Step::GiveUp`] | `deliver::lane::Lane::give_up`, `return_behind`, `delivery::Row` |
//! | [`Step::Commit`], [`Step::Release`], [`Step::Renew`] | `dedup::keeper::Keeper`, and the scripts of `state::redis` |
//! | [`Step::Settle`] | `settle::Pending::finish`, `settle::keeper::Keeper::flush`, `source::log::Log::settle` |
//! | [`Step::Receive`], [`Step::Redeliver`] | `source::log::Log::receive`, `redeliver`; a queue's receive |
//! | [`Step::Checkpoint`], [`state::Track`] | `source::log::Log::checkpoint`, `checkpoint::Watermark`, `state::StateStore::store` |
//! | [`Step::Take`] | `source::event_hubs`: epochs, `lane::Lane::reopen` |
//!
//! A mistake that others have shipped can be built in ([`Mistake`]), to see that it is found.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

mod check;
mod next;
pub mod state;
mod step;

pub use step::Step;

use state::{PARCELS, State};

/// Where the events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A queue, whose messages come again when their receiver is silent for too long.
    Queue,
    /// One partition of a log, which one replica reads at a time.
    Log,
}

/// An event as its producer has made it.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// What deduplication knows it by: the place of its first twin among the events.
    pub identity: usize,
    /// The key within which it keeps its order, in a log.
    pub order: usize,
}

/// What is to be checked.
#[derive(Debug, Clone)]
pub struct World {
    /// Where the events come from.
    pub source: Source,
    /// The events, in the order of the source.
    pub events: Vec<Event>,
    /// To how many sinks each of them goes.
    pub sinks: usize,
    /// Whether the route knows what it has delivered.
    pub dedup: bool,
    /// How many faults may strike, whatever they are.
    pub faults: u8,
    /// What is wrong with it.
    pub mistake: Option<Mistake>,
    /// States from which all can still end, by their digest.
    ends: Arc<Mutex<HashSet<u64>>>,
}

/// A mistake to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// An event counts as delivered when it is sent.
    AckBeforeConfirm,
    /// A key is done when its event is claimed.
    CommitBeforeDelivery,
    /// A checkpoint follows the newest event that has ended.
    CheckpointOfNewest,
    /// A store takes any checkpoint, whatever it has.
    CheckpointLowered,
    /// An event whose key is claimed counts as delivered.
    TwinIsDone,
    /// A commit does not look who has the claim now.
    CommitUnfenced,
    /// A release does not look who has the claim now.
    ReleaseUnfenced,
    /// A claim that may have run out is sent by.
    SendsByLapsedClaim,
    /// A process may claim a key again while its release is under way.
    ForgetsBeforeRelease,
    /// A release does not look which claim of its process it ends.
    ReleaseUnnumbered,
    /// Claims do not run out.
    ClaimForEver,
    /// The first branch of a fan-out ends the delivery.
    FirstBranchSettles,
    /// A dead letter counts when it is sent.
    ParkedUnconfirmed,
    /// An event that fails does not hold up its key.
    Overtakes,
    /// What is out behind a returned event of its key goes on.
    ReturnedIsPassed,
    /// What is returned to a log is forgotten.
    ReturnedIsForgotten,
}

impl World {
    /// One without mistakes in which this many faults strike. `events` has pairs of identity and
    /// order.
    ///
    /// # Panics
    /// There are more events, or sinks, than a state has room for.
    #[must_use]
    pub fn new(source: Source, events: &[(usize, usize)], sinks: usize, faults: u8) -> Self {
        assert!(events.len() * sinks <= PARCELS, "no room for so many");
        let event = |&(identity, order): &(usize, usize)| Event { identity, order };
        let events = events.iter().map(event).collect();
        let ends = Arc::default();
        Self { source, events, sinks, dedup: true, faults, mistake: None, ends }
    }

    /// The same with a route that does not know what it has delivered.
    #[must_use]
    pub fn without_dedup(self) -> Self {
        Self { dedup: false, ends: Arc::default(), ..self }
    }

    /// The same with a mistake.
    #[must_use]
    pub fn with(self, mistake: Mistake) -> Self {
        Self { mistake: Some(mistake), ends: Arc::default(), ..self }
    }

    /// The number of an event's copy for one sink.
    fn parcel(&self, event: usize, sink: usize) -> usize {
        event * self.sinks + sink
    }

    /// The number of the key by which a parcel is known: `dedup::Dedup::key`.
    fn key(&self, event: usize, sink: usize) -> usize {
        let known_as = if self.dedup { self.events[event].identity } else { event };
        self.parcel(known_as, sink)
    }

    /// Parcels that are known by this key.
    fn twins(&self, key: usize) -> impl Iterator<Item = usize> {
        let of = move |event| self.parcel(event, key % self.sinks);
        (0..self.events.len())
            .filter(move |event| self.key(*event, key % self.sinks) == key)
            .map(of)
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}

impl stateright::Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        step::candidates(self, state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        next::after(self, state, step)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        check::properties(self)
    }
}
