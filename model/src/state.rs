//! All that can differ between two moments.

use stateright::Representative;

use crate::{Source, World};

/// Processes.
pub const REPLICAS: usize = 2;
/// Events, each times its sinks, at most.
pub const PARCELS: usize = 4;

/// One moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Where each message is, in a queue.
    pub queue: [Message; PARCELS],
    /// Who reads the partition, in a log.
    pub reader: Option<usize>,
    /// How many events the stored checkpoint has passed, in a log.
    pub checkpoint: usize,
    /// The processes.
    pub replicas: [Replica; REPLICAS],
    /// What the store has of each key.
    pub keys: [Held; PARCELS],
    /// Releases of this process and key that were given up for lost, may still be carried out, and
    /// then end the claim: one that was made later has a higher number in `state::redis`.
    pub late_releases: [[bool; PARCELS]; REPLICAS],
    /// What has become of each parcel.
    pub parcels: [Parcel; PARCELS],
    /// What may have made a second copy of what has this key.
    pub excuses: [Excuses; PARCELS],
    /// Faults that may still strike.
    pub faults: u8,
    /// What must never happen and has.
    pub breach: Option<Breach>,
}

/// Where a message of a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// It waits to be received.
    Visible,
    /// Somebody has received it.
    Hidden,
    /// It is deleted.
    Gone,
}

/// What the store of keys knows of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// Nothing.
    Free,
    /// A process has claimed it.
    By(usize),
    /// A process that is dead has claimed it.
    ByDead,
    /// It has been delivered.
    Done,
}

/// A process. Dead and started again it is a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    /// What it has received and not settled, in the order in which it came.
    pub deliveries: Vec<Delivery>,
    /// `dedup::ledger::Ledger::open`: the claims that it knows of.
    pub leases: [Option<Lease>; PARCELS],
    /// Claims that it has dropped, of which the store is to be told.
    pub releases: [bool; PARCELS],
    /// Its side of the partition, in a log.
    pub track: Option<Track>,
}

/// What a process believes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lease {
    /// It is ours.
    Sure,
    /// It was not renewed in time.
    Doubtful,
    /// The store has said that it is not ours.
    Lost,
    /// It is dropped, and the store not told yet.
    Dropped,
}

/// `settle::Pending`, and the jobs of its branches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Delivery {
    /// Which event.
    pub event: usize,
    /// Whether its receipt is the last one of its message, in a queue.
    pub is_live: bool,
    /// Where it is on the way to each sink.
    pub branches: [Phase; 2],
}

/// Where an event is on the way to one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// It waits in its lane: `Once::Wanted`, or `Once::Unasked` where nobody asks.
    Queued,
    /// It waits there with its claim.
    Claimed,
    /// A request is under way.
    Sending,
    /// The sink has confirmed it, and the claim is to be committed.
    Confirmed,
    /// It is on its way to the dead letters.
    Parking,
    /// The branch has finished.
    Ended(Outcome),
}

/// `delivery::Outcome`, the worst last, as `settle::rank` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// There is no such sink.
    Filtered,
    /// It was delivered before.
    Duplicate,
    /// Its sink has it.
    Delivered,
    /// The dead letters have it.
    DeadLettered,
    /// Nobody has it.
    Returned,
}

/// `source::log::Track`. Sets of events are sets of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Track {
    /// How many events of the log were handed out.
    pub next: usize,
    /// `checkpoint::Watermark::settled`: how many at its beginning have ended.
    pub settled: usize,
    /// What has been handed out and has not ended.
    pub open: u8,
    /// What of it waits to be handed out again.
    pub waiting: u8,
    /// What a lane has given back while others of its key were out: `delivery::Row`.
    pub broken: u8,
}

/// What has become of an event on the way to one sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Parcel {
    /// How often the sink has it.
    pub copies: u8,
    /// Requests that nobody waits for any more, and that may still arrive.
    pub strays: u8,
    /// Whether the sink has ever confirmed it.
    pub confirmed: bool,
    /// Whether the dead letters have confirmed it.
    pub parked: bool,
}

/// How often each fault has struck that can make a second copy where the route deduplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Excuses {
    /// An answer of the sink was lost.
    pub answers: u8,
    /// A process died after it had begun to send, before its commit was kept.
    pub deaths: u8,
    /// A claim ran out in the same time.
    pub lapses: u8,
}

/// What is seen where it happens, because no later moment shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Breach {
    /// An event reached a sink for the first time after a later one of its key, though it was
    /// not parked.
    Disorder,
    /// The stored checkpoint went back.
    Lowered,
    /// A claim was ended by one who did not have it.
    Robbed,
}

impl State {
    pub(crate) fn new(world: &World) -> Self {
        let mut queue = [Message::Gone; PARCELS];
        if world.source == Source::Queue {
            queue[..world.events.len()].fill(Message::Visible);
        }
        Self {
            queue,
            reader: None,
            checkpoint: 0,
            replicas: Default::default(),
            keys: [Held::Free; PARCELS],
            late_releases: Default::default(),
            parcels: Default::default(),
            excuses: Default::default(),
            faults: world.faults,
            breach: None,
        }
    }

    /// Whether an event has left its source.
    pub(crate) fn has_left(&self, world: &World, event: usize) -> bool {
        match world.source {
            Source::Queue => self.queue[event] == Message::Gone,
            Source::Log => event < self.checkpoint,
        }
    }

    /// Whether everything has left its source.
    pub(crate) fn has_ended(&self, world: &World) -> bool {
        (0..world.events.len()).all(|event| self.has_left(world, event))
    }
}

impl Representative for State {
    /// The same moment with the processes in one order: they differ in nothing but their number.
    fn representative(&self) -> Self {
        let mut state = self.clone();
        let [first, second] = &state.replicas;
        let late = &state.late_releases;
        if (first, &late[0], state.reader == Some(0)) <= (second, &late[1], state.reader == Some(1))
        {
            return state;
        }
        state.replicas.swap(0, 1);
        state.late_releases.swap(0, 1);
        state.reader = state.reader.map(|at| 1 - at);
        for held in &mut state.keys {
            if let Held::By(at) = held {
                *at = 1 - *at;
            }
        }
        state
    }
}

impl Delivery {
    pub(crate) fn new(world: &World, event: usize) -> Self {
        let mut branches = [Phase::Ended(Outcome::Filtered); 2];
        branches[..world.sinks].fill(Phase::Queued);
        Self { event, is_live: true, branches }
    }

    /// How it ends, once all its branches have.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let have_ended = self.branches.iter().all(|phase| matches!(phase, Phase::Ended(_)));
        match self.branches.iter().max() {
            Some(Phase::Ended(worst)) if have_ended => Some(*worst),
            _ => None,
        }
    }
}

impl Phase {
    /// Whether it holds up what comes after it in its key: it is in its lane, or on its way from
    /// there to the dead letters.
    pub(crate) fn holds_up(self) -> bool {
        matches!(self, Self::Queued | Self::Claimed | Self::Sending | Self::Parking)
    }

    /// Whether the sink may have it, or get it, without the store of keys knowing.
    pub(crate) fn is_exposed(self) -> bool {
        matches!(self, Self::Sending | Self::Confirmed)
    }
}

impl Replica {
    /// Phases of all branches, with the number of their event and sink.
    pub(crate) fn phases(&self, world: &World) -> impl Iterator<Item = (usize, usize, Phase)> {
        let sinks = world.sinks;
        self.deliveries.iter().flat_map(move |delivery| {
            (0..sinks).map(move |sink| (delivery.event, sink, delivery.branches[sink]))
        })
    }
}

impl Excuses {
    pub(crate) fn count(self) -> u8 {
        self.answers + self.deaths + self.lapses
    }
}
