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

use crate::tally::Tally;

/// How often dead letters are looked at. In between they are there for anybody to look at.
const PEEK_EVERY: Duration = Duration::from_secs(5);
/// The wait after a failed receive.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a consumer does with what it reads.
pub(crate) enum Manner {
    /// Takes it.
    Take,
    /// Looks at it, tells about it, and leaves it where it is.
    Peek(mpsc::Sender<(Arc<str>, Event)>),
}

/// Reads what arrives at one sink of the daemon until `stop`.
pub(crate) async fn consume(
    mut source: Source,
    sink: Arc<str>,
    manner: Manner,
    tally: Arc<Tally>,
    stop: CancellationToken,
) {
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
            let is_new = seen.insert(delivery.received.origin.position.clone());
            done.push(note(&delivery, is_new, &sink, &manner, &tally));
        }
        settle(&mut source, done).await;
        if let Manner::Peek(_) = manner {
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

/// Notes one delivery. A message that is handed out again is no new arrival; one that was written
/// twice is, for it has a place of its own.
fn note(
    delivery: &Delivery,
    is_new: bool,
    sink: &Arc<str>,
    manner: &Manner,
    tally: &Tally,
) -> Settled {
    if is_new && let Ok(event) = decode(&delivery.received, Format::Auto) {
        tally.arrived(sink, &event.id);
        if let Manner::Peek(letters) = manner {
            // A full channel means that there are far more dead letters than anybody reads.
            let _ = letters.try_send((sink.clone(), event));
        }
    }
    match manner {
        Manner::Take => end(delivery, Outcome::Delivered),
        Manner::Peek(_) => end(delivery, Outcome::Returned { after: None }),
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
