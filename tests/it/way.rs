//! A way through a daemon: a place that is fed with numbered events, and one that is watched for
//! them.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use eventferry::event::Event;
use tokio::{sync::watch, time::timeout};

use crate::{place::Place, rig};

const KEYS: usize = 5;

pub struct Way {
    pub near: Place,
    pub far: Place,
    fed: Cell<usize>,
    seen: watch::Sender<Seen>,
}

/// What has come, in little memory.
#[derive(Debug, Default)]
pub struct Seen {
    total: usize,
    /// All before this have come.
    complete: usize,
    /// And these.
    beyond: BTreeSet<usize>,
    /// The newest first copy of each key.
    newest: BTreeMap<String, usize>,
    /// The first event that another one of its key came before, and that one.
    overtaken: Option<(usize, usize)>,
}

impl Seen {
    pub fn add(&mut self, event: &Event) {
        let number = event.id.strip_prefix("e-").unwrap().parse().unwrap();
        self.total += 1;
        if number < self.complete || !self.beyond.insert(number) {
            return;
        }
        while self.beyond.remove(&self.complete) {
            self.complete += 1;
        }
        let key = event.key.as_deref().unwrap_or_default().to_owned();
        let newest = self.newest.insert(key, number);
        let other = newest.filter(|newest| *newest > number).map(|newest| (number, newest));
        self.overtaken = self.overtaken.or(other);
    }

    fn has(&self, number: usize) -> bool {
        number < self.complete || self.beyond.contains(&number)
    }

    fn distinct(&self) -> usize {
        self.complete + self.beyond.len()
    }

    /// The first event whose first copy came behind that of a later one of its key, and that one.
    pub fn overtaken(&self) -> Option<(usize, usize)> {
        self.overtaken
    }
}

impl Way {
    pub fn new(near: Place, far: Place) -> Self {
        Self { near, far, fed: Cell::default(), seen: watch::Sender::default() }
    }

    pub async fn feed(&self, count: usize) {
        let first = self.fed.get();
        let event = |n: usize| {
            let key = Some(format!("key-{}", n % KEYS).into());
            Event { key, ..rig::event(&format!("e-{n}"), format!("{{\"n\":{n}}}")) }
        };
        self.near.put((first..first + count).map(event).collect()).await;
        self.fed.set(first + count);
    }

    /// Watches the far place until it is dropped.
    pub async fn watch(&self) {
        let far = self.far.reference();
        far.follow(|event, _| self.seen.send_modify(|seen| seen.add(&event))).await;
    }

    /// Waits until the first so many have arrived.
    pub async fn arrived(&self, count: usize) {
        self.seen.subscribe().wait_for(|seen| seen.complete >= count).await.unwrap();
    }

    pub fn fed(&self) -> usize {
        self.fed.get()
    }

    /// Whether the event of this number has come.
    pub fn has(&self, number: usize) -> bool {
        self.seen.borrow().has(number)
    }

    pub fn missing(&self) -> usize {
        self.fed.get() - self.seen.borrow().distinct()
    }

    /// How many came that had come before.
    pub fn repeats(&self) -> usize {
        let seen = self.seen.borrow();
        seen.total - seen.distinct()
    }

    /// The first event whose first copy came behind that of a later one of its key, and that one.
    pub fn overtaken(&self) -> Option<(usize, usize)> {
        self.seen.borrow().overtaken()
    }
}

pub async fn feed(ways: &[Way], count: usize) {
    futures::future::join_all(ways.iter().map(|way| way.feed(count))).await;
}

/// Waits until all that has been fed by now has arrived, or says how much has not.
pub async fn arrived(ways: &[Way], within: Duration) -> Result<(), String> {
    let all = futures::future::join_all(ways.iter().map(|way| way.arrived(way.fed())));
    timeout(within, all).await.map(drop).map_err(|_| {
        let missing: Vec<_> = ways.iter().map(Way::missing).collect();
        format!("{missing:?} are missing after {within:?}")
    })
}

pub async fn watch(ways: &[Way]) {
    futures::future::join_all(ways.iter().map(Way::watch)).await;
}

/// Sends that failed, by the daemon's own count: so many events may be there twice. Nothing while
/// it does not answer.
pub async fn failed_sends(admin: &str, route: Option<&str>) -> Option<usize> {
    let text = reqwest::get(format!("http://{admin}/metrics")).await.ok()?.text().await.ok()?;
    let of_route = |line: &&str| {
        let named = route.is_none_or(|route| line.contains(&format!("route=\"{route}\"")));
        line.starts_with("eventferry_retried_total{") && named
    };
    let counts = text.lines().filter(of_route);
    Some(counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum())
}
