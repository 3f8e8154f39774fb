//! What a lane asks the store of keys before it sends: whether its routes have delivered an event
//! before.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{Backoff, Job, Lane, Once};
use crate::{dedup::ledger::Answer, deliver::queue::Entry, delivery::Outcome};

/// How long an event waits for a twin that somebody is delivering.
const TWIN: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(5) };
/// How often, before it goes back to its source: for more than a minute in all.
const TWIN_WAITS: u32 = 24;

impl Lane {
    /// Keeps of a batch what its routes have not delivered before, with the right to deliver it.
    pub(super) async fn claim(&mut self, batch: Vec<Job>) -> Vec<Job> {
        if batch.iter().all(|job| job.duty.target.dedup.is_none()) {
            return batch;
        }
        let mut keys = Vec::new();
        let mut ledger = None;
        let mut jobs = Vec::with_capacity(batch.len());
        for mut job in batch {
            let lapsed = match &job.duty.once {
                Once::Claimed(claim) if !claim.is_ours() => Some(claim.key()),
                _ => None,
            };
            if let Some(key) = lapsed {
                job.duty.once = Once::wanted(key);
            }
            if let (Once::Wanted { key, .. }, Some(dedup)) =
                (&job.duty.once, &job.duty.target.dedup)
            {
                keys.push(*key);
                ledger.get_or_insert_with(|| dedup.ledger.clone());
            }
            jobs.push(job);
        }
        let Some(ledger) = ledger else { return jobs };
        let mut answers = self.meanwhile(ledger.claim(&keys)).await.map(Vec::into_iter);
        let (mut kept, mut again) = (Vec::with_capacity(jobs.len()), Vec::new());
        let mut done = Vec::new();
        // Keys of which something stays behind: what comes after it here may not overtake it.
        let (mut waiting, mut returned) = (HashSet::new(), HashSet::new());
        for mut job in jobs {
            let key = job.order().cloned();
            let is_in =
                |keys: &HashSet<Arc<str>>| key.as_ref().is_some_and(|key| keys.contains(key));
            let Once::Wanted { twin_waits, store_waits, .. } = &mut job.duty.once else {
                match (is_in(&returned), is_in(&waiting)) {
                    (true, _) => self.give_up(job),
                    (_, true) => again.push((job, TWIN.min)),
                    _ => kept.push(job),
                }
                continue;
            };
            (*twin_waits, *store_waits) = match answers {
                Ok(_) => (*twin_waits + 1, 0),
                Err(_) => (*twin_waits, *store_waits + 1),
            };
            let (twin_waits, store_waits) = (*twin_waits, *store_waits);
            let target = job.duty.target.clone();
            let answer = answers.as_mut().map(|answers| answers.next().unwrap_or(Answer::InFlight));
            let delay = match answer {
                Ok(Answer::Done) => {
                    target.metrics.duplicate();
                    done.extend(key);
                    job.duty.branch.finish(Outcome::Duplicate);
                    continue;
                }
                Ok(Answer::InFlight) if planted!(ClaimIsDone) => {
                    done.extend(key);
                    job.duty.branch.finish(Outcome::Duplicate);
                    continue;
                }
                Err(_) if planted!(DropWithoutStore) => {
                    done.extend(key);
                    job.duty.branch.finish(Outcome::Filtered);
                    continue;
                }
                Ok(Answer::Claimed(claim)) if planted!(CommitBeforeDelivery) => {
                    claim.commit_unsent();
                    job.duty.once = Once::Unasked;
                    is_in(&waiting).then_some(TWIN.min)
                }
                Ok(Answer::Claimed(claim)) => {
                    job.duty.once = Once::Claimed(claim);
                    is_in(&waiting).then_some(TWIN.min)
                }
                Ok(Answer::InFlight) if planted!(TwinIsSent) => {
                    job.duty.once = Once::Unasked;
                    is_in(&waiting).then_some(TWIN.min)
                }
                Ok(Answer::InFlight) => {
                    target.metrics.waits_for_twin();
                    Some(TWIN.delay(twin_waits, None))
                }
                Err(_) if target.delivers_unasked() => {
                    job.duty.once = Once::Unasked;
                    is_in(&waiting).then_some(TWIN.min)
                }
                Err(_) => Some(Backoff::SERVICE.delay(store_waits, None)),
            };
            // What waits for the store stays here: its source may count how often it is handed out.
            let is_tired = matches!(job.duty.once, Once::Wanted { .. }) && twin_waits > TWIN_WAITS;
            if is_in(&returned) || is_tired && answers.is_ok() {
                returned.extend(key);
                self.give_up(job);
            } else if let Some(delay) = delay {
                waiting.extend(key);
                again.push((job, delay));
            } else {
                kept.push(job);
            }
        }
        self.put_back(again, done);
        if !kept.is_empty() {
            failpoint!(AfterClaim);
        }
        kept
    }
}
