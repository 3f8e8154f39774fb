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
}

#[derive(Default)]
struct State {
    /// Ids and keys, in the order of the source.
    put: Vec<(String, String)>,
    /// Ids that reached each sink, in the order in which they did.
    arrived: Vec<Vec<String>>,
    parked: Vec<String>,
    /// Sends of an event whose answer was lost.
    ambiguous: BTreeMap<String, usize>,
    /// Processes that died, and claims that ran out under their owner.
    disturbed: usize,
    breach: Option<String>,
    /// What each partition has handed out.
    positions: BTreeMap<(String, i64), String>,
}

impl History {
    pub(super) fn new(sinks: usize) -> Self {
        let told = std::env::var_os("EVENTFERRY_SEED").map(|_| Instant::now());
        let history = Self { told, ..Self::default() };
        history.state().arrived = vec![Vec::new(); sinks];
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
        self.state().put.push((id.to_owned(), key.to_owned()));
    }

    pub(super) fn received(&self, partition: &str, sequence: i64, id: &str) {
        self.note(&format!("received from {partition}"), id);
        self.state().positions.insert((partition.to_owned(), sequence), id.to_owned());
    }

    pub(super) fn arrived(&self, sink: usize, id: &str) {
        self.note(&format!("arrived at {sink}"), id);
        self.state().arrived[sink].push(id.to_owned());
    }

    pub(super) fn parked(&self, id: &str) {
        self.note("parked", id);
        self.state().parked.push(id.to_owned());
    }

    pub(super) fn ambiguous(&self, id: &str) {
        *self.state().ambiguous.entry(id.to_owned()).or_default() += 1;
    }

    pub(super) fn disturbed(&self) {
        self.note("somebody has died, or lost a claim", "");
        self.state().disturbed += 1;
    }

    /// Invariant 5: what leaves its source has been confirmed.
    pub(super) fn settles(&self, id: &str) {
        self.note("settled", id);
        let mut state = self.state();
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
        state.put.iter().all(|(id, _)| state.is_confirmed(id))
    }

    pub(super) fn breach(&self) -> Option<String> {
        self.state().breach.clone()
    }

    /// Notes a breach that somebody else has seen.
    pub(super) fn broken(&self, text: String) {
        self.state().breach(text);
    }

    /// What must hold once all faults are over and all is quiet. `ordered`: the source has an
    /// order. `once`: the route deduplicates.
    pub(super) fn check(&self, ordered: bool, once: bool) {
        let mut state = self.state();
        let known: BTreeSet<_> = state.put.iter().map(|(id, _)| id).collect();
        let mut found = Vec::new();
        for (sink, arrived) in state.arrived.iter().enumerate() {
            if let Some(id) = arrived.iter().find(|id| !known.contains(id)) {
                found.push(format!("nothing is made up: {id} in sink {sink}"));
            }
            if ordered {
                found.extend(state.disorder(sink, arrived));
            }
            let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
            arrived.iter().for_each(|id| *copies.entry(id).or_default() += 1);
            for (id, copies) in copies.into_iter().filter(|_| once) {
                let ambiguous = state.ambiguous.get(id).copied().unwrap_or_default();
                if copies > 1 + ambiguous + state.disturbed {
                    let disturbed = state.disturbed;
                    found.push(format!(
                        "bounded duplicates: {copies} of {id} in sink {sink}, with {ambiguous} \
                         answers lost and {disturbed} processes or claims"
                    ));
                }
            }
        }
        found.into_iter().for_each(|text| state.breach(text));
    }

    /// What it was all about, for people.
    pub(super) fn summary(&self) -> String {
        let state = self.state();
        let mut text = format!("{} put, {} parked", state.put.len(), state.parked.len());
        for arrived in &state.arrived {
            let distinct: BTreeSet<_> = arrived.iter().collect();
            let _ = write!(text, ", {} arrived ({} distinct)", arrived.len(), distinct.len());
        }
        text
    }
}

impl State {
    fn is_confirmed(&self, id: &str) -> bool {
        let is_in = |ids: &[String]| ids.iter().any(|other| other == id);
        is_in(&self.parked) || self.arrived.iter().all(|arrived| is_in(arrived))
    }

    fn breach(&mut self, text: String) {
        self.breach.get_or_insert(text);
    }

    /// Invariant 3: first copies of a key are in the source's order. What breaks it. A parked event
    /// leaves its place, and may still be delivered if its process dies before it is settled.
    fn disorder(&self, sink: usize, arrived: &[String]) -> Option<String> {
        let place: BTreeMap<&str, (usize, &str)> = self
            .put
            .iter()
            .enumerate()
            .map(|(at, (id, key))| (id.as_str(), (at, key.as_str())))
            .collect();
        let mut last: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let parked: BTreeSet<_> = self.parked.iter().collect();
        let mut seen = BTreeSet::new();
        for id in arrived.iter().filter(|id| !parked.contains(id) && seen.insert(id.as_str())) {
            let (at, key) = *place.get(id.as_str())?;
            match last.insert(key, (at, id)) {
                Some((before, other)) if before > at => {
                    return Some(format!("order: {id} after {other} of {key} in sink {sink}"));
                }
                _ => {}
            }
        }
        None
    }
}
