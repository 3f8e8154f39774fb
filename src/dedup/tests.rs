use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Answer, Claim},
    *,
};
use crate::{
    delivery::{Outcome, Token},
    event::{Attributes, Trace},
    fault::Fault,
    settle::{Branch, Desk, Note, Opening},
    state::{DedupStore, Found},
    telemetry::Metrics,
};

const LEASE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(600);

/// What several owners share: who holds a key until when, or until when it is done.
#[derive(Default)]
struct Shared {
    keys: Mutex<BTreeMap<Key, (Held, Instant)>>,
    away: AtomicBool,
    requests: Mutex<Vec<(&'static str, usize)>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Held {
    By(u8),
    Done,
}

/// One owner's view of it.
struct Store(Arc<Shared>, u8);

impl Store {
    fn asked(&self, op: &'static str, keys: usize) -> Result<(), Fault> {
        self.0.requests.lock().unwrap().push((op, keys));
        match self.0.away.load(Ordering::Relaxed) {
            true => Err(Fault::busy(op, "away", "the store is away")),
            false => Ok(()),
        }
    }

    fn held(&self, key: &Key) -> Option<Held> {
        let keys = self.0.keys.lock().unwrap();
        keys.get(key).filter(|(_, until)| *until > Instant::now()).map(|(held, _)| *held)
    }
}

#[async_trait]
impl DedupStore for Store {
    async fn claim(&self, keys: &[Key]) -> Result<Vec<Found>, Fault> {
        self.asked("claim", keys.len())?;
        let until = Instant::now() + LEASE;
        let claim = |key: &Key| match self.held(key) {
            Some(Held::Done) => Found::Done,
            Some(Held::By(other)) if other != self.1 => Found::Theirs,
            _ => {
                self.0.keys.lock().unwrap().insert(*key, (Held::By(self.1), until));
                Found::Ours
            }
        };
        Ok(keys.iter().map(claim).collect())
    }

    async fn commit(&self, done: &[(Key, Duration)]) -> Result<(), Fault> {
        self.asked("commit", done.len())?;
        for (key, ttl) in done {
            if !matches!(self.held(key), Some(Held::By(other)) if other != self.1) {
                let until = Instant::now() + *ttl;
                self.0.keys.lock().unwrap().insert(*key, (Held::Done, until));
            }
        }
        Ok(())
    }

    async fn release(&self, keys: &[Key]) -> Result<(), Fault> {
        self.asked("release", keys.len())?;
        for key in keys.iter().filter(|key| self.held(key) == Some(Held::By(self.1))) {
            self.0.keys.lock().unwrap().remove(key);
        }
        Ok(())
    }

    async fn renew(&self, keys: &[Key]) -> Result<Vec<Key>, Fault> {
        self.asked("renew", keys.len())?;
        let (ours, lost): (Vec<Key>, Vec<Key>) =
            keys.iter().partition(|key| self.held(key) == Some(Held::By(self.1)));
        let until = Instant::now() + LEASE;
        for key in ours {
            self.0.keys.lock().unwrap().insert(key, (Held::By(self.1), until));
        }
        Ok(lost)
    }

    fn lease(&self) -> Option<Duration> {
        Some(LEASE)
    }
}

/// A process that claims.
struct Owner {
    ledger: Arc<Ledger>,
    tasks: JoinSet<()>,
    finish: CancellationToken,
    desk: Desk,
    told: mpsc::UnboundedReceiver<Note>,
}

impl Owner {
    fn new(shared: &Arc<Shared>, name: u8) -> Self {
        let metrics = Metrics::new().unwrap().dedup();
        let (ledger, keeper) = keeper::open(Arc::new(Store(shared.clone(), name)), metrics);
        let (mut tasks, finish) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(keeper.run(finish.clone()));
        let (desk, told) = Desk::new(None);
        Self { ledger, tasks, finish, desk, told }
    }

    async fn claim(&self, number: u8) -> Answer {
        self.ledger.claim(&[key(number)]).await.unwrap().remove(0)
    }

    async fn claimed(&self, number: u8) -> Claim {
        match self.claim(number).await {
            Answer::Claimed(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    fn branch(&self) -> Branch {
        let token = Token::Lease { serial: 1, handle: "h".into() };
        let since = Instant::now();
        let opening = Opening { token, since, bytes: 0, ties: None, process: None };
        self.desk.open(opening, 1).1.next().unwrap()
    }

    async fn outcome(&mut self) -> Outcome {
        match self.told.recv().await {
            Some(Note::Settled { settled, .. }) => settled.outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Ends as a process does that is asked to.
    async fn end(mut self) {
        self.finish.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends as a process does that is not.
    async fn crash(mut self) {
        self.tasks.shutdown().await;
    }
}

fn key(number: u8) -> Key {
    Key([number; KEY_BYTES])
}

#[tokio::test(start_paused = true)]
async fn a_claim_ends_with_its_commit_and_the_source_waits_for_it() {
    let shared = Arc::new(Shared::default());
    let mut owner = Owner::new(&shared, 1);
    let claim = owner.claimed(7).await;
    assert!(matches!(owner.claim(7).await, Answer::InFlight), "a twin in this process");
    shared.away.store(true, Ordering::Relaxed);
    claim.commit(owner.branch(), TTL, OnStoreFailure::Hold);
    sleep(Duration::from_secs(20)).await;
    assert!(owner.told.try_recv().is_err(), "settled before the claim was committed");
    shared.away.store(false, Ordering::Relaxed);
    assert_eq!(owner.outcome().await, Outcome::Delivered);
    assert!(matches!(owner.claim(7).await, Answer::Done));
    assert!(matches!(Owner::new(&shared, 2).claim(7).await, Answer::Done), "a twin elsewhere");
    sleep(TTL).await;
    assert!(matches!(owner.claim(7).await, Answer::Claimed(_)), "known for ever");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_dropped_is_released() {
    let shared = Arc::new(Shared::default());
    let (owner, other) = (Owner::new(&shared, 1), Owner::new(&shared, 2));
    let claim = owner.claimed(7).await;
    assert!(matches!(other.claim(7).await, Answer::InFlight));
    drop(claim);
    sleep(Duration::from_millis(1)).await;
    let claim = other.claimed(7).await;
    // At a planned end, nobody has to wait for a lease to run out.
    drop(claim);
    other.end().await;
    assert!(matches!(owner.claim(7).await, Answer::Claimed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_late_release_does_not_end_the_next_claim_of_the_same_process() {
    let shared = Arc::new(Shared::default());
    let (owner, other) = (Owner::new(&shared, 1), Owner::new(&shared, 2));
    let claim = owner.claimed(7).await;
    shared.away.store(true, Ordering::Relaxed);
    drop(claim);
    sleep(Duration::from_millis(1)).await;
    shared.away.store(false, Ordering::Relaxed);
    // The store has not been told yet.
    assert!(matches!(owner.claim(7).await, Answer::InFlight));
    sleep(Duration::from_secs(1)).await;
    let _claim = owner.claimed(7).await;
    sleep(Duration::from_secs(1)).await;
    assert!(matches!(other.claim(7).await, Answer::InFlight), "released under its owner");
}

#[tokio::test(start_paused = true)]
async fn a_claim_lives_as_long_as_its_process_and_no_longer() {
    let shared = Arc::new(Shared::default());
    let (owner, other) = (Owner::new(&shared, 1), Owner::new(&shared, 2));
    let claim = owner.claimed(7).await;
    sleep(10 * LEASE).await;
    assert!(claim.is_ours());
    assert!(matches!(other.claim(7).await, Answer::InFlight));
    owner.crash().await;
    assert!(matches!(other.claim(7).await, Answer::InFlight), "its lease has not run out");
    sleep(LEASE).await;
    assert!(matches!(other.claim(7).await, Answer::Claimed(_)));
    assert!(!claim.is_ours());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_could_not_be_renewed_is_not_relied_on_nor_does_it_end_another() {
    let shared = Arc::new(Shared::default());
    let (mut owner, other) = (Owner::new(&shared, 1), Owner::new(&shared, 2));
    let claim = owner.claimed(7).await;
    shared.away.store(true, Ordering::Relaxed);
    sleep(LEASE).await;
    assert!(!claim.is_ours());
    shared.away.store(false, Ordering::Relaxed);
    let taken = other.claimed(7).await;
    sleep(LEASE).await;
    assert!(!claim.is_ours() && taken.is_ours());
    // It was sent all the same: it is delivered, but the other may still fail.
    claim.commit(owner.branch(), TTL, OnStoreFailure::Hold);
    assert_eq!(owner.outcome().await, Outcome::Delivered);
    assert!(taken.is_ours());
    assert!(matches!(owner.claim(7).await, Answer::InFlight));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_holds_events_or_lets_them_go_as_their_route_says() {
    let shared = Arc::new(Shared::default());
    let mut owner = Owner::new(&shared, 1);
    let claim = owner.claimed(7).await;
    shared.away.store(true, Ordering::Relaxed);
    claim.commit(owner.branch(), TTL, OnStoreFailure::Deliver);
    assert_eq!(owner.outcome().await, Outcome::Delivered);
    assert!(owner.ledger.claim(&[key(8)]).await.is_err());
    shared.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert!(matches!(owner.claim(7).await, Answer::Done), "the store was not told later");
    assert!(matches!(owner.claim(8).await, Answer::Claimed(_)), "a failed claim is in the way");
}

#[tokio::test(start_paused = true)]
async fn a_batch_costs_one_request_each_way() {
    let shared = Arc::new(Shared::default());
    let mut owner = Owner::new(&shared, 1);
    let keys: Vec<Key> = (0..100).map(key).collect();
    let answers = owner.ledger.claim(&keys).await.unwrap();
    for answer in answers {
        let Answer::Claimed(claim) = answer else { panic!("{answer:?}") };
        claim.commit(owner.branch(), TTL, OnStoreFailure::Hold);
    }
    for _ in 0..100 {
        assert_eq!(owner.outcome().await, Outcome::Delivered);
    }
    assert_eq!(*shared.requests.lock().unwrap(), [("claim", 100), ("commit", 100)]);
}

#[tokio::test(start_paused = true)]
async fn a_forced_end_returns_what_is_not_committed() {
    let shared = Arc::new(Shared::default());
    let mut owner = Owner::new(&shared, 1);
    let claim = owner.claimed(7).await;
    shared.away.store(true, Ordering::Relaxed);
    claim.commit(owner.branch(), TTL, OnStoreFailure::Hold);
    sleep(Duration::from_secs(1)).await;
    owner.finish.cancel();
    assert_eq!(owner.outcome().await, Outcome::Returned { after: None });
}

#[test]
fn no_two_events_share_a_key() {
    let ledger = keeper::open(Arc::new(Store(Arc::default(), 1)), Metrics::new().unwrap().dedup());
    let dedup = |route: &str, sink: Option<&str>| Dedup {
        ledger: ledger.0.clone(),
        ttl: TTL,
        on_store_failure: OnStoreFailure::Hold,
        route: route.into(),
        sink: sink.map(Into::into),
    };
    let event = |source: &str, id: &str| Event {
        id: id.into(),
        source: source.into(),
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
    };
    // Whatever steps have made of the ids of parts.
    let part = |source: &str, id: &str, name: Option<&str>, at| {
        let (whole, name) = (Arc::new(event(source, id)), name.map(Arc::from));
        let made = Part::Made { whole, name, at: vec![at] };
        let parked = Part::Parked(made.digest());
        let [made, parked] =
            [made, parked].map(|part| dedup("r", None).key(&event("x", "y"), None, Some(&part)));
        assert_eq!(made, parked, "as it comes back");
        made
    };
    let keys = [
        dedup("r", None).key(&event("a", "bc"), None, None),
        dedup("r", None).key(&event("ab", "c"), None, None),
        dedup("r", Some("s")).key(&event("a", "bc"), None, None),
        dedup("rs", None).key(&event("a", "bc"), None, None),
        dedup("r", None).key(&event("a", "bc"), Some("abc"), None),
        dedup("r", None).key(&event("a", "bc"), Some(""), None),
        part("a", "bc", None, 0),
        part("a", "bc", None, 1),
        part("ab", "c", None, 0),
        part("a", "bc", Some("abc"), 0),
        part("a", "bc", Some("abc0"), 0),
        part("a", "bc", Some("abc"), 1),
    ];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[at + 1..].contains(key), "{at}");
    }
    assert_eq!(keys[0], dedup("r", None).key(&event("a", "bc"), None, None));
}
