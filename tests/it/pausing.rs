//! A pause, on a clock of its own: what was asked for before is taken, and nothing more is.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use eventferry::{
    delivery::{Delivery, Settled},
    fault::Fault,
    pipeline::gate::Gate,
    source::{Receive, Settle, Source},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::rig::{Rig, Setup, context, events, queue, store};

/// How long a poll takes.
const POLL: Duration = Duration::from_secs(20);

/// A source with long polls in front of a queue in memory: each brings what the queue has at its end.
struct LongPolls {
    inner: Box<dyn Receive>,
    /// Until when the polls under way last.
    polls: VecDeque<Instant>,
    begun: Arc<AtomicUsize>,
}

impl LongPolls {
    async fn next(&mut self) -> Result<Vec<Delivery>, Fault> {
        sleep_until(self.polls[0]).await;
        self.polls.pop_front();
        tokio::select! {
            biased;
            came = self.inner.receive() => came,
            () = std::future::ready(()) => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl Receive for LongPolls {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        while self.polls.len() < 2 {
            self.polls.push_back(Instant::now() + POLL);
            self.begun.fetch_add(1, SeqCst);
        }
        self.next().await
    }

    async fn wind_down(&mut self) -> Option<Result<Vec<Delivery>, Fault>> {
        if self.polls.is_empty() { None } else { Some(self.next().await) }
    }
}

/// Tells what is settled.
struct Telling(Box<dyn Settle>, mpsc::UnboundedSender<Settled>);

#[async_trait]
impl Settle for Telling {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        done.iter().for_each(|settled| drop(self.1.send(settled.clone())));
        self.0.settle(done).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_before_a_pause_is_taken_and_nothing_more_is_asked_for() {
    let near = queue();
    let inner = near.source(&context("near", &store())).await.unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let (tell, mut settled) = mpsc::unbounded_channel();
    let polls = LongPolls { inner: inner.receive, polls: VecDeque::new(), begun: begun.clone() };
    let source =
        Source { receive: Box::new(polls), settle: Box::new(Telling(inner.settle, tell)), ..inner };
    let paused = watch::Sender::new(false);
    let setup = Setup { gate: Gate::shut_by(&paused), ..Setup::default() };
    let rig = Rig::start(source, setup);
    while begun.load(SeqCst) < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    paused.send_replace(true);
    sleep(Duration::from_secs(1)).await;
    // The service hands this to a poll that it still holds.
    crate::world::put(&near, events("early", 3, 0)).await;
    rig.arrived(3).await;
    rig.settled().await;
    assert_eq!(begun.load(SeqCst), 2, "no poll is begun");
    sleep(2 * POLL).await;
    crate::world::put(&near, events("late", 4, 0)).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((rig.far.contents().len(), begun.load(SeqCst)), (3, 2));
    paused.send_replace(false);
    rig.arrived(7).await;
    rig.settled().await;
    assert!(near.contents().is_empty());
    let sends: usize = rig.sends().iter().sum();
    assert_eq!(sends, 7, "nothing is sent twice");
    while let Ok(settled) = settled.try_recv() {
        assert!(settled.outcome.is_done(), "nothing is returned: {settled:?}");
    }
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_goes_on_and_a_pause_at_the_start_holds() {
    let near = queue();
    crate::world::put(&near, events("e", 5, 0)).await;
    let source = near.source(&context("near", &store())).await.unwrap();
    let paused = watch::Sender::new(true);
    let slow = 2 * POLL;
    let setup = Setup { gate: Gate::shut_by(&paused), slow, ..Setup::default() };
    let rig = Rig::start(source, setup);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((rig.in_flight(), rig.far.contents().len()), (0, 0));
    paused.send_replace(false);
    while rig.in_flight() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let taken = rig.in_flight();
    paused.send_replace(true);
    // Longer than the lease of the queue: it is kept.
    rig.settled().await;
    assert_eq!(rig.far.contents().len(), taken);
    paused.send_replace(false);
    let arrived = rig.arrived(5).await;
    assert_eq!(arrived.len(), 5);
    assert!(rig.sends().iter().all(|sends| *sends == 1));
    rig.drain().await;
}
