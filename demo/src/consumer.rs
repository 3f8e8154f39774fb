//! The applications that read: they stand at the other end of what the daemon writes, and note
//! what arrives.

use std::{collections::HashSet, sync::Arc, time::Duration};

use eventferry::{
    decode::{Format, decode},
    delivery::{Delivery, Outcome, Settled},
    event::Event,
    source::Source,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{scenario::has_secrets, tally::Tally};

/// How often dead letters are looked at. In between they are there for anybody to look at.
const PEEK_EVERY: Duration = Duration::from_secs(5);
/// The wait after a failed receive.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Who reads what arrives at one sink of the daemon.
pub(crate) struct Consumer {
    /// The name of the sink.
    pub(crate) sink: Arc<str>,
    /// Where the books have what arrives there.
    pub(crate) outlet: Arc<str>,
    /// Whether no secrets may arrive there.
    pub(crate) guards: bool,
    /// What becomes of what is read.
    pub(crate) manner: Manner,
    /// The books.
    pub(crate) tally: Arc<Tally>,
}

/// What a consumer does with what it reads.
pub(crate) enum Manner {
    /// Takes it.
    Take,
    /// Looks at it, tells about it, and leaves it where it is.
    Peek(mpsc::Sender<(Arc<str>, Event)>),
}

impl Consumer {
    /// Reads what arrives until `stop`.
    pub(crate) async fn consume(self, mut source: Source, stop: CancellationToken) {
        let mut seen = HashSet::new();
        loop {
            let received = tokio::select! {
                received = source.receive.receive() => received,
                () = stop.cancelled() => break,
            };
            let Ok(deliveries) = received else {
                sleep(TRY_AGAIN_AFTER).await;
                continue;
            };
            let mut done = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                // A message that is handed out again is no new arrival; one that was written twice
                // is, for it has a place of its own.
                if seen.insert(delivery.received.origin.position.clone()) {
                    self.note(&delivery);
                }
                done.push(end(&delivery, self.outcome()));
            }
            settle(&mut source, done).await;
            if let Manner::Peek(_) = self.manner {
                tokio::select! {
                    () = sleep(PEEK_EVERY) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
        let open = source.receive.close().await;
        let back = |delivery: Delivery| end(&delivery, Outcome::Returned { after: None });
        settle(&mut source, open.into_iter().map(back).collect()).await;
    }

    fn note(&self, delivery: &Delivery) {
        let Ok(event) = decode(&delivery.received, Format::Auto) else { return };
        // One that somebody has sent again, and that has failed again, is no second event.
        if event.dead_letter.as_ref().is_none_or(|record| record.redriven == 0) {
            self.tally.arrived(&self.outlet, &event.id);
        }
        if self.guards && has_secrets(&event) {
            self.tally.leaked(&self.outlet, &event.id);
        }
        if let Manner::Peek(letters) = &self.manner {
            // A full channel means that there are far more dead letters than anybody reads.
            let _ = letters.try_send((self.sink.clone(), event));
        }
    }

    fn outcome(&self) -> Outcome {
        match self.manner {
            Manner::Take => Outcome::Delivered,
            Manner::Peek(_) => Outcome::Returned { after: None },
        }
    }
}

fn end(delivery: &Delivery, outcome: Outcome) -> Settled {
    Settled { token: delivery.token.clone(), outcome }
}

/// What cannot be settled comes again, and is known then.
async fn settle(source: &mut Source, done: Vec<Settled>) {
    if !done.is_empty() {
        drop(source.settle.settle(done).await);
    }
}
