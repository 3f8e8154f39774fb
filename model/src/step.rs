//! What can happen next.

use crate::{
    Source, World,
    state::{Held, Lease, Message, Phase, REPLICAS, State},
};

/// Something that happens at once. A branch is named by its process, the place of its delivery
/// there, and its sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A process receives a message, or the next event of its partition.
    Receive(usize, usize),
    /// A log hands an event out again that was returned to it.
    Redeliver(usize, usize),
    /// A process begins to read the partition, or goes on with it.
    Take(usize),
    /// A lane claims the key of an event.
    Claim(usize, usize, usize),
    /// A lane drops a claim that it cannot rely on any more.
    Relinquish(usize, usize, usize),
    /// A lane begins a request.
    Send(usize, usize, usize),
    /// The sink takes it, and says so.
    Confirm(usize, usize, usize),
    /// The dead letters take an event, and say so.
    Park(usize, usize, usize),
    /// A lane returns an event, because its twin does not end or its lease is gone.
    GiveUp(usize, usize, usize),
    /// The store keeps that an event was delivered.
    Commit(usize, usize, usize),
    /// The store lets a claim go.
    Release(usize, usize),
    /// The store is asked to prolong a claim.
    Renew(usize, usize),
    /// The source is told how a delivery has ended.
    Settle(usize, usize),
    /// A queue takes the deletion of a message by a receipt that is not its last.
    SettleLapsed(usize, usize),
    /// A process writes its checkpoint.
    Checkpoint(usize),
    /// A claim runs out that nobody renews.
    Expire(usize),
    /// A request arrives that nobody waits for any more.
    Arrive(usize),
    /// A release is carried out that was given up for lost.
    ReleaseLate(usize, usize),
    /// A message comes again, because its receiver has died.
    Reappear(usize),
    /// A fault: a message comes again, though its receiver lives.
    Lapse(usize),
    /// A fault: a process dies. Requests that it has begun may still arrive.
    Die(usize),
    /// A fault: a living reader loses the partition to another.
    Steal(usize),
    /// A fault: the sink's answer does not come. Its request may still arrive.
    LoseAnswer(usize, usize, usize),
    /// A fault: the sink refuses an event for good, or too often.
    Reject(usize, usize, usize),
    /// A fault: a claim was not renewed for as long as it lasts.
    Doubt(usize, usize),
    /// A fault: the store has carried out a claim, and its answer is lost.
    LoseClaim(usize, usize, usize),
    /// A fault: the store has carried out a commit, and its answer is lost.
    LoseCommit(usize, usize, usize),
    /// A fault: a release is taken for lost, and is sent again.
    LoseRelease(usize, usize),
}

impl Step {
    /// Whether it needs somebody or something to fail.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Lapse(_)
                | Self::Die(_)
                | Self::Steal(_)
                | Self::LoseAnswer(..)
                | Self::Reject(..)
                | Self::Doubt(..)
                | Self::LoseClaim(..)
                | Self::LoseCommit(..)
                | Self::LoseRelease(..)
        )
    }
}

/// Everything that might happen now; what cannot after all has no next state. Those that bring
/// events to their end come first, so that a search for an end finds one soon.
pub(crate) fn candidates(world: &World, state: &State, steps: &mut Vec<Step>) {
    let from = steps.len();
    let keys = world.events.len() * world.sinks;
    for (at, replica) in state.replicas.iter().enumerate() {
        for (place, delivery) in replica.deliveries.iter().enumerate() {
            steps.extend([Step::Settle(at, place), Step::SettleLapsed(at, place)]);
            for (sink, phase) in delivery.branches.iter().enumerate().take(world.sinks) {
                let of = |step: fn(usize, usize, usize) -> Step| step(at, place, sink);
                match phase {
                    Phase::Queued if world.dedup => {
                        steps.extend([Step::Claim, Step::GiveUp, Step::LoseClaim].map(of));
                    }
                    Phase::Queued => steps.extend([Step::Send, Step::GiveUp].map(of)),
                    Phase::Claimed => {
                        steps.extend([Step::Send, Step::Relinquish, Step::GiveUp].map(of));
                    }
                    Phase::Sending => {
                        steps.extend([Step::Confirm, Step::LoseAnswer, Step::Reject].map(of));
                    }
                    Phase::Confirmed => {
                        steps.extend([Step::Commit, Step::LoseCommit].map(of));
                    }
                    Phase::Parking => steps.push(of(Step::Park)),
                    Phase::Ended(_) => {}
                }
            }
        }
        for key in 0..keys {
            if replica.releases[key] {
                steps.extend([Step::Release(at, key), Step::LoseRelease(at, key)]);
            }
            if matches!(replica.leases[key], Some(Lease::Sure | Lease::Doubtful)) {
                steps.extend([Step::Renew(at, key), Step::Doubt(at, key)]);
            }
            if state.late_releases[at][key] {
                steps.push(Step::ReleaseLate(at, key));
            }
        }
    }
    for key in 0..keys {
        if matches!(state.keys[key], Held::By(_) | Held::ByDead) {
            steps.push(Step::Expire(key));
        }
        if state.parcels[key].strays > 0 {
            steps.push(Step::Arrive(key));
        }
    }
    match world.source {
        Source::Queue => {
            for event in 0..world.events.len() {
                match state.queue[event] {
                    Message::Visible => {
                        steps.extend((0..REPLICAS).map(|at| Step::Receive(at, event)));
                    }
                    Message::Hidden => steps.extend([Step::Reappear(event), Step::Lapse(event)]),
                    Message::Gone => {}
                }
            }
        }
        Source::Log => {
            for (at, replica) in state.replicas.iter().enumerate() {
                let Some(track) = replica.track else { continue };
                steps.push(Step::Checkpoint(at));
                let waits = |event: &usize| track.waiting & (1 << event) != 0;
                let waiting = (0..world.events.len()).filter(waits);
                steps.extend(waiting.map(|event| Step::Redeliver(at, event)));
                steps.push(Step::Receive(at, track.next));
            }
            steps.extend((0..REPLICAS).flat_map(|at| [Step::Take(at), Step::Steal(at)]));
        }
    }
    steps.extend((0..REPLICAS).map(Step::Die));
    if state.faults == 0 {
        let mut at = 0;
        steps.retain(|step| {
            at += 1;
            at <= from || !step.is_fault()
        });
    }
}
