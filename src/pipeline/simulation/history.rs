//! What has happened, and what of it must never have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

/// What came into the source, and what reached each sink, in order. Keeps the first breach of an
/// invariant; the names are those of the design's list.
#[derive(Default)]
pub(super) struct History {
    state: Mutex<State>,
    /// Everything that has happened, as one number: the same for the same seed.
    digest: AtomicU64,
    /// Since when to tell of everything, for who replays a seed.
    told: Option<Instant>,
    ordered: bool,
}

#[derive(Default)]
struct State {
    /// Ids and their keys, and their places in the order of the source.
    put: BTreeMap<String, (usize, String)>,
    sinks: Vec<Arrived>,
    /// Whether one of the sinks is enough.
    stand_in: bool,
    /// Ids, and the sinks that they were parked for; none where no sink was chosen.
    parked: BTreeSet<(String, Option<usize>)>,
    /// How many of these took the second place for them.
    spare: usize,
    /// Sends of an event whose answer was lost.
    ambiguous: BTreeMap<String, usize>,
    /// What each process has received and not settled.
    out: BTreeMap<u32, BTreeSet<String>>,
    /// How often an event's process ended, or a claim ran out under its owner, while it was out.
    disturbed: BTreeMap<String, usize>,
    breach: Option<String>,
    /// What each partition has handed out.
    positions: BTreeMap<(String, i64), String>,
}

/// What has reached one sink.
#[derive(Default, Clone)]
struct Arrived {
    copies: BTreeMap<String, usize>,
    /// Of each key the place and the id of the first copy that came last.
    last: BTreeMap<String, (usize, String)>,
}

impl History {
    /// Nothing has happened. `stand_in`: the sinks stand in for one another; `ordered`: the source
    /// has an order.
    pub(super) fn new(sinks: usize, stand_in: bool, ordered: bool) -> Self {
        let told = std::env::var_os("EVENTFERRY_SEED").map(|_| Instant::now());
        let history = Self { told, ordered, ..Self::default() };
        let mut state = history.state();
        (state.sinks, state.stand_in) = (vec![Arrived::default(); sinks], stand_in);
        drop(state);
        history
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn note(&self, what: &str, id: &str) {
        let mut digest = self.digest.load(Ordering::Relaxed);
        for byte in what.bytes().chain(id.bytes()) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.digest.store(digest, Ordering::Relaxed);
        if let Some(since) = self.told {
            println!("{:>12.3} {what} {id}", since.elapsed().as_secs_f64());
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.load(Ordering::Relaxed)
    }

    pub(super) fn put(&self, id: &str, key: &str) {
        self.note("put", &format!("{id} {key}"));
        let mut state = self.state();
        let place = state.put.len();
        state.put.insert(id.to_owned(), (place, key.to_owned()));
    }

    pub(super) fn received(&self, partition: &str, sequence: i64, id: &str) {
        self.note(&format!("received from {partition}"), id);
        let mut state = self.state();
        state.positions.insert((partition.to_owned(), sequence), id.to_owned());
    }

    /// A process has it.
    pub(super) fn out(&self, process: u32, id: &str) {
        self.state().out.entry(process).or_default().insert(id.to_owned());
    }

    /// Invariant 3: the first copies of a key are in the source's order.
    pub(super) fn arrived(&self, sink: usize, id: &str) {
        self.note(&format!("arrived at {sink}"), id);
        let mut state = self.state();
        let Some((place, key)) = state.put.get(id).cloned() else {
            return state.breach(format!("nothing is made up: {id} in sink {sink}"));
        };
        // A parked event has left its place, and may still be delivered if its process dies before
        // it is settled.
        let is_parked = state.is_parked(id, sink);
        let arrived = &mut state.sinks[sink];
        let copies = arrived.copies.entry(id.to_owned()).or_default();
        *copies += 1;
        if *copies > 1 || is_parked || !self.ordered {
            return;
        }
        if let Some((before, other)) = arrived.last.insert(key.clone(), (place, id.to_owned()))
            && before > place
        {
            state.breach(format!("order: {id} after {other} of {key} in sink {sink}"));
        }
    }

    /// It is in the dead letters, or in the spare ones; `sink` is the one that it was not delivered
    /// to, if one was chosen.
    pub(super) fn parked(&self, id: &str, sink: Option<usize>, is_spare: bool) {
        self.note(if is_spare { "parked in the spare" } else { "parked" }, id);
        let mut state = self.state();
        state.parked.insert((id.to_owned(), sink));
        state.spare += usize::from(is_spare);
    }

    pub(super) fn ambiguous(&self, id: &str) {
        *self.state().ambiguous.entry(id.to_owned()).or_default() += 1;
    }

    /// Whatever this process has may be sent once more: it ends.
    pub(super) fn ends(&self, process: u32) {
        self.note("somebody ends", "");
        let mut state = self.state();
        let State { out, disturbed, .. } = &mut *state;
        let had = out.remove(&process).unwrap_or_default();
        had.into_iter().for_each(|id| *disturbed.entry(id).or_default() += 1);
    }

    /// A claim has lapsed. Keys do not tell of which event it was.
    pub(super) fn lapsed(&self) {
        self.note("somebody has lost a claim", "");
        let mut state = self.state();
        let State { out, disturbed, .. } = &mut *state;
        let all: BTreeSet<_> = out.values().flatten().cloned().collect();
        all.into_iter().for_each(|id| *disturbed.entry(id).or_default() += 1);
    }

    /// Invariant 5: what leaves its source has been confirmed.
    pub(super) fn settles(&self, process: u32, id: &str) {
        self.note("settled", id);
        let mut state = self.state();
        if let Some(out) = state.out.get_mut(&process) {
            out.remove(id);
        }
        if !state.is_confirmed(id) {
            state.breach(format!("no loss: {id} leaves its source unconfirmed"));
        }
    }

    /// Invariant 6: a checkpoint covers only what has been confirmed.
    pub(super) fn checkpoint(&self, partition: &str, sequence: i64) {
        self.note(&format!("checkpoint {sequence} of"), partition);
        let mut state = self.state();
        let from = (partition.to_owned(), i64::MIN);
        let mut passed = state.positions.range(from..=(partition.to_owned(), sequence));
        let open = passed.find(|(_, id)| !state.is_confirmed(id));
        if let Some(((_, at), id)) = open {
            let text = format!("frontier: {partition} is at {sequence}, {id} at {at} is open");
            state.breach(text);
        }
    }

    /// Whether nothing is left to be delivered.
    pub(super) fn is_complete(&self) -> bool {
        let state = self.state();
        state.put.keys().all(|id| state.is_confirmed(id))
    }

    pub(super) fn breach(&self) -> Option<String> {
        self.state().breach.clone()
    }

    /// Notes a breach that somebody else has seen.
    pub(super) fn broken(&self, text: String) {
        self.state().breach(text);
    }

    /// What must hold once all faults are over and all is quiet, of a route that deduplicates: no
    /// more copies of an event than answers about it were lost, and processes ended that had it. A
    /// partition that is stolen adds none: both readers claim what they send.
    pub(super) fn check_copies(&self) {
        let mut state = self.state();
        let mut all: BTreeMap<(Option<usize>, &str), usize> = BTreeMap::new();
        for (sink, arrived) in state.sinks.iter().enumerate() {
            // Those that stand in for one another share one copy.
            let place = (!state.stand_in).then_some(sink);
            for (id, copies) in &arrived.copies {
                *all.entry((place, id)).or_default() += copies;
            }
        }
        let mut found = Vec::new();
        for ((sink, id), copies) in all {
            let ambiguous = state.ambiguous.get(id).copied().unwrap_or_default();
            let disturbed = state.disturbed.get(id).copied().unwrap_or_default();
            if copies > 1 + ambiguous + disturbed {
                found.push(format!(
                    "bounded duplicates: {copies} of {id} in sink {sink:?}, with {ambiguous} \
                     answers lost and {disturbed} processes or claims"
                ));
            }
        }
        found.into_iter().for_each(|text| state.breach(text));
    }

    /// What it was all about, for people.
    pub(super) fn summary(&self) -> String {
        let state = self.state();
        let mut text = format!(
            "{} put, {} parked, {} of them in the spare",
            state.put.len(),
            state.parked.len(),
            state.spare
        );
        for Arrived { copies, .. } in &state.sinks {
            let arrived: usize = copies.values().sum();
            let _ = write!(text, ", {arrived} arrived ({} distinct)", copies.len());
        }
        text
    }
}

impl State {
    fn is_parked(&self, id: &str, sink: usize) -> bool {
        let is_in = |sink| self.parked.contains(&(id.to_owned(), sink));
        is_in(Some(sink)) || is_in(None)
    }

    /// Whether every sink has it, or the dead letter in its place.
    fn is_confirmed(&self, id: &str) -> bool {
        let has = |(sink, arrived): (usize, &Arrived)| {
            arrived.copies.contains_key(id) || self.is_parked(id, sink)
        };
        let mut sinks = self.sinks.iter().enumerate();
        if self.stand_in { sinks.any(has) } else { sinks.all(has) }
    }

    fn breach(&mut self, text: String) {
        self.breach.get_or_insert(text);
    }
}
