//! Dead letters on their way: into the first of a route's dead-letter sinks that works and can hold
//! them. Until one of them confirms, the event stays at its source.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{Deliverer, Duty, Job, Once, Purpose, Target, Trail, UNROUTED, bit};
use crate::{
    dead_letter::DeadLetter,
    event::Event,
    fault::{Fault, Verdict},
    settle::Branch,
};

/// The class under which dead letters are counted that are parked behind another of their key.
const HELD_BACK: &str = "held_back";

/// What is owed to an event that no dead-letter sink takes, and what the last one said.
type Unparked = (Box<Duty>, Option<Fault>);

impl Target {
    /// A job that parks an event because of `fault`, or none: then its branch is finished as
    /// returned.
    pub(super) fn park(
        self: &Arc<Self>,
        mut duty: Box<Duty>,
        fault: &Fault,
    ) -> Option<(Arc<Deliverer>, Job)> {
        let (id, attempts) = (duty.trail.original.id.clone(), duty.attempts);
        let traceparent = duty.branch.failed_span();
        let record = Arc::new(self.record(&duty, fault));
        let event = Event { dead_letter: Some(record), ..(*duty.trail.original).clone() };
        // Dead letters of a key come one after the other, because its lane waits for each; to order
        // them here as well would let two sinks that park in each other wait for ever.
        (duty.target, duty.ordered) = (self.clone(), false);
        // Its claim is released, so that it can be delivered when it is redriven.
        duty.once = Once::Unasked;
        duty.purpose = Purpose::Park { class: fault.class, again: false };
        (duty.refused, duty.tired) = (0, 0);
        match self.next_parking(&Arc::new(event), duty, 0, false) {
            Ok((parking, job)) => {
                tracing::warn!(
                    route = %self.route, sink = self.sink(), dead_letter = %parking.name, %id,
                    class = fault.class, attempts, error = %fault,
                    traceparent = traceparent.map(display), "dead-lettering"
                );
                Some((parking, job))
            }
            Err((duty, refused)) => {
                self.give_back(duty.branch, refused.as_ref().unwrap_or(fault));
                None
            }
        }
    }

    /// A job that parks an event once more, behind what has been parked since, or none: then its
    /// branch is finished as returned. Nothing new has happened to it.
    pub(crate) fn park_again(
        self: &Arc<Self>,
        branch: Branch,
        trail: Trail,
        record: DeadLetter,
    ) -> Option<(Arc<Deliverer>, Job)> {
        let event = Event { dead_letter: Some(Arc::new(record)), ..(*trail.original).clone() };
        let mut duty = self.duty_of_none(branch, false, trail);
        duty.purpose = Purpose::Park { class: HELD_BACK, again: false };
        let parked = self.next_parking(&Arc::new(event), duty, 0, false);
        let (duty, refused) = match parked {
            Ok(parked) => return Some(parked),
            Err(back) => back,
        };
        let none = || Fault::reject("park", HELD_BACK, "there is no dead-letter sink");
        self.give_back(duty.branch, &refused.unwrap_or_else(none));
        None
    }

    /// A dead letter that the sink called `from` has not taken, on its way into the next one that
    /// can hold it and has not refused it; only into one that works, if the fault was the service's
    /// own, or it has waited for one that does not work before. Gives it back where there is none.
    pub(super) fn park_elsewhere(
        self: &Arc<Self>,
        from: &str,
        mut job: Job,
        fault: &Fault,
    ) -> Result<(Arc<Deliverer>, Job), Job> {
        let here = self.dead_letters.iter().position(|sink| *sink.name == *from).map_or(0, bit);
        let is_away = matches!(fault.verdict, Verdict::Busy { .. } | Verdict::Stop);
        match fault.verdict {
            _ if is_away => {}
            Verdict::Retry { .. } => job.duty.tired |= here,
            _ => job.duty.refused |= here,
        }
        let Job { outgoing, duty } = job;
        let is_again = matches!(duty.purpose, Purpose::Park { again: true, .. });
        let may_pass = matches!(fault.verdict, Verdict::Retry { .. });
        match self.next_parking(&outgoing.event, duty, here, is_away || is_again && may_pass) {
            Ok((parking, job)) => {
                tracing::debug!(
                    route = %self.route, dead_letter = from, instead = %parking.name,
                    error = %fault, "dead-letter sink does not take an event, trying the next"
                );
                Ok((parking, job))
            }
            Err((mut duty, _)) => {
                // None is left to try, or none that works. What one has not taken once it may take
                // the next time: the round begins anew when it fails again. What one never takes it
                // is not offered for as long as another is only away.
                let all = (0..self.dead_letters.len()).fold(0, |all, index| all | bit(index));
                if let Purpose::Park { again, .. } = &mut duty.purpose {
                    *again |= !is_away || duty.tired != 0;
                }
                if (duty.refused | duty.tired) & all == all {
                    duty.refused = 0;
                }
                duty.tired = 0;
                Err(Job { outgoing, duty })
            }
        }
    }

    /// The next dead-letter sink that is not among `but` and the ones that have refused, those that
    /// work first.
    fn next_parking(
        &self,
        event: &Arc<Event>,
        mut duty: Box<Duty>,
        but: u64,
        only_well: bool,
    ) -> Result<(Arc<Deliverer>, Job), Unparked> {
        let mut last = None;
        loop {
            let open: Vec<(u64, &Arc<Deliverer>)> = (self.dead_letters.iter().enumerate())
                .map(|(index, sink)| (bit(index), sink))
                .filter(|(bit, _)| (duty.refused | duty.tired | but) & bit == 0)
                .collect();
            let well = open.iter().find(|(_, sink)| sink.flow.wellness.is_well());
            let Some((bit, sink)) = well.or_else(|| open.first().filter(|_| !only_well)) else {
                return Err((duty, last));
            };
            match sink.pack(&self.route, event, self.oversize) {
                Ok(outgoing) => {
                    // After the first round each has one attempt, and waits grow from round to round.
                    if !matches!(duty.purpose, Purpose::Park { again: true, .. }) {
                        duty.attempts = 0;
                    }
                    return Ok(((*sink).clone(), Job { outgoing, duty }));
                }
                Err(fault) => {
                    duty.refused |= bit;
                    last = Some(fault);
                }
            }
        }
    }

    /// What there is to say of an event that is given up because of `fault`.
    fn record(&self, duty: &Duty, fault: &Fault) -> DeadLetter {
        let Trail { received, attempt, arrived, original, part, redriven } = &duty.trail;
        let now = OffsetDateTime::now_utc();
        let record = DeadLetter {
            route: (*self.route != *UNROUTED).then(|| self.route.to_string()),
            sink: self.deliverer.as_ref().map(|sink| sink.name.to_string()),
            class: fault.class.to_owned(),
            error: fault.to_string(),
            attempts: duty.attempts,
            received: *attempt,
            source: received.origin.source.to_string(),
            resource: received.origin.resource.to_string(),
            position: received.origin.position.to_string(),
            hops: original.hops,
            part: part.as_ref().map(|part| part.digest().to_string()),
            arrived: *arrived,
            first: now,
            last: now,
            redriven: 0,
            run: None,
        };
        match redriven {
            Some(redriven) => redriven.fail(record),
            None => record,
        }
    }
}
