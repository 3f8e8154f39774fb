//! What a step leads to.

use crate::{
    Mistake, Source, Step, World,
    state::{Breach, Delivery, Held, Lease, Message, Outcome, Phase, State, Track},
};

/// One branch of a delivery: its process, the place of the delivery there, and its sink.
type Place = (usize, usize, usize);

/// The state after a step. None where it cannot be taken, or changes nothing.
pub(crate) fn after(world: &World, state: &State, step: Step) -> Option<State> {
    let mut next = Next { world, state: state.clone() };
    if step.is_fault() {
        next.state.faults = next.state.faults.checked_sub(1)?;
    }
    match step {
        Step::Receive(at, event) => next.receive(at, event),
        Step::Redeliver(at, event) => next.redeliver(at, event),
        Step::Take(at) => next.take(at, None),
        Step::Steal(at) => next.take(at, Some(1 - at)),
        Step::Claim(at, place, sink) => next.claim((at, place, sink)),
        Step::LoseClaim(at, place, sink) => next.lose_claim((at, place, sink)),
        Step::Relinquish(at, place, sink) => next.relinquish((at, place, sink)),
        Step::Send(at, place, sink) => next.send((at, place, sink)),
        Step::Confirm(at, place, sink) => next.confirm((at, place, sink)),
        Step::LoseAnswer(at, place, sink) => next.lose_answer((at, place, sink)),
        Step::Reject(at, place, sink) => next.reject((at, place, sink)),
        Step::Park(at, place, sink) => next.park((at, place, sink)),
        Step::GiveUp(at, place, sink) => next.give_up((at, place, sink)),
        Step::Commit(at, place, sink) => next.commit((at, place, sink)),
        Step::LoseCommit(at, place, sink) => {
            let key = next.key((at, place, sink));
            next.keep_done(at, key);
            Some(())
        }
        Step::Release(at, key) => next.release(at, key),
        Step::LoseRelease(at, key) => {
            next.state.late_releases[at][key] = true;
            Some(())
        }
        Step::ReleaseLate(at, key) => next.release_late(at, key),
        Step::Renew(at, key) => next.renew(at, key),
        Step::Doubt(at, key) => next.doubt(at, key),
        Step::Expire(key) => next.expire(key),
        Step::Settle(at, place) => next.settle(at, place),
        Step::SettleLapsed(at, place) => next.settle_lapsed(at, place),
        Step::Checkpoint(at) => next.checkpoint(at),
        Step::Arrive(parcel) => {
            next.state.parcels[parcel].strays -= 1;
            next.arrive(parcel);
            Some(())
        }
        Step::Reappear(event) => next.reappear(event, false),
        Step::Lapse(event) => next.reappear(event, true),
        Step::Die(at) => next.die(at),
    }?;
    // What differs in nothing but the order of what has none is the same.
    for replica in &mut next.state.replicas {
        match world.source {
            Source::Queue => replica.deliveries.sort_unstable(),
            Source::Log => replica.deliveries.sort_by_key(|it| world.events[it.event].order),
        }
    }
    (next.state != *state).then_some(next.state)
}

struct Next<'a> {
    world: &'a World,
    state: State,
}

impl Next<'_> {
    fn delivery(&self, (at, place, _): Place) -> &Delivery {
        &self.state.replicas[at].deliveries[place]
    }

    fn parcel(&self, of: Place) -> usize {
        self.world.parcel(self.delivery(of).event, of.2)
    }

    fn key(&self, of: Place) -> usize {
        self.world.key(self.delivery(of).event, of.2)
    }

    fn phase(&self, of: Place) -> Phase {
        self.delivery(of).branches[of.2]
    }

    fn enter(&mut self, (at, place, sink): Place, phase: Phase) {
        self.state.replicas[at].deliveries[place].branches[sink] = phase;
    }

    fn end(&mut self, of: Place, outcome: Outcome) {
        self.enter(of, Phase::Ended(outcome));
    }

    fn lease(&mut self, at: usize, key: usize) -> &mut Option<Lease> {
        &mut self.state.replicas[at].leases[key]
    }

    fn is_same_order(&self, event: usize, other: usize) -> bool {
        let order = |event: usize| self.world.events[event].order;
        self.world.source == Source::Log && order(event) == order(other)
    }

    /// Whether one of these is of the event's key.
    fn has_of_order(&self, events: u8, event: usize) -> bool {
        (0..self.world.events.len()).any(|e| events & 1 << e != 0 && self.is_same_order(e, event))
    }

    /// Whether one of these is of the event's key, and before it.
    fn is_before(&self, events: u8, event: usize) -> bool {
        self.has_of_order(events & ((1 << event) - 1), event)
    }

    /// Whether an earlier event of its key has gone back: `settle::Branch::is_lost`.
    fn is_cut(&self, of: Place) -> bool {
        let track = self.state.replicas[of.0].track;
        track.is_some_and(|track| self.is_before(track.broken, self.delivery(of).event))
    }

    /// Whether an earlier event of its key holds it up in its lane.
    fn is_held_up(&self, (at, place, sink): Place) -> bool {
        let deliveries = &self.state.replicas[at].deliveries;
        let event = deliveries[place].event;
        !self.world.has(Mistake::Overtakes)
            && deliveries[..place].iter().any(|before| {
                self.is_same_order(before.event, event) && before.branches[sink].holds_up()
            })
    }

    fn receive(&mut self, at: usize, event: usize) -> Option<()> {
        if self.world.source == Source::Queue {
            self.state.queue[event] = Message::Hidden;
        } else {
            if self.state.reader != Some(at) || event >= self.world.events.len() {
                return None;
            }
            let mut track = self.state.replicas[at].track?;
            let is_held = self.is_before(track.waiting | track.broken, event);
            track.next += 1;
            track.open |= 1 << event;
            track.waiting |= u8::from(is_held) << event;
            self.state.replicas[at].track = Some(track);
            if is_held {
                return Some(());
            }
        }
        self.state.replicas[at].deliveries.push(Delivery::new(self.world, event));
        Some(())
    }

    fn redeliver(&mut self, at: usize, event: usize) -> Option<()> {
        let mut track = self.state.replicas[at].track?;
        // What is out behind one that went back comes first: then all of it goes out in order.
        let is_broken = self.has_of_order(track.broken, event);
        if is_broken || self.is_before(track.waiting, event) {
            return None;
        }
        track.waiting &= !(1 << event);
        self.state.replicas[at].track = Some(track);
        self.state.replicas[at].deliveries.push(Delivery::new(self.world, event));
        Some(())
    }

    /// The newest receiver has the partition. One that has lost it goes on where it was, but only
    /// when nobody has it; who had it goes on with what it holds.
    fn take(&mut self, at: usize, from: Option<usize>) -> Option<()> {
        let track = &mut self.state.replicas[at].track;
        if self.state.reader != from || from.is_some() && track.is_some() {
            return None;
        }
        let start = self.state.checkpoint;
        track.get_or_insert(Track { next: start, settled: start, open: 0, waiting: 0, broken: 0 });
        self.state.reader = Some(at);
        Some(())
    }

    /// Whether a claim would be granted, were it asked for.
    fn is_claimable(&self, of: Place) -> bool {
        let (at, key) = (of.0, self.key(of));
        let is_theirs = match self.state.keys[key] {
            Held::By(holder) => holder != at,
            Held::ByDead => true,
            Held::Free | Held::Done => false,
        };
        !is_theirs && self.state.replicas[at].leases[key].is_none()
    }

    /// The store has a key for a process, by a claim that no earlier release ends.
    fn hold(&mut self, at: usize, key: usize) {
        self.state.keys[key] = Held::By(at);
        self.state.late_releases[at][key] &= self.world.has(Mistake::ReleaseUnnumbered);
    }

    fn claim(&mut self, of: Place) -> Option<()> {
        let (at, key) = (of.0, self.key(of));
        if self.is_held_up(of) || self.is_cut(of) {
            return None;
        }
        if !self.is_claimable(of) {
            let is_done = self.world.has(Mistake::TwinIsDone);
            return is_done.then(|| self.end(of, Outcome::Duplicate));
        }
        if self.state.keys[key] == Held::Done {
            self.end(of, Outcome::Duplicate);
            return Some(());
        }
        let is_early = self.world.has(Mistake::CommitBeforeDelivery);
        self.hold(at, key);
        if is_early {
            self.state.keys[key] = Held::Done;
        }
        *self.lease(at, key) = Some(Lease::Sure);
        self.enter(of, Phase::Claimed);
        Some(())
    }

    fn lose_claim(&mut self, of: Place) -> Option<()> {
        if self.is_held_up(of) || !self.is_claimable(of) {
            return None;
        }
        let key = self.key(of);
        if self.state.keys[key] == Held::Free {
            self.hold(of.0, key);
        }
        Some(())
    }

    /// A claim is dropped: within this process nobody claims the key before the store knows.
    fn drop_claim(&mut self, of: Place) {
        let (at, key) = (of.0, self.key(of));
        let forgets = self.world.has(Mistake::ForgetsBeforeRelease);
        *self.lease(at, key) = (!forgets).then_some(Lease::Dropped);
        self.state.replicas[at].releases[key] = true;
    }

    fn is_sure(&self, of: Place) -> bool {
        self.state.replicas[of.0].leases[self.key(of)] == Some(Lease::Sure)
    }

    fn relinquish(&mut self, of: Place) -> Option<()> {
        if self.is_sure(of) || self.is_held_up(of) {
            return None;
        }
        self.drop_claim(of);
        self.enter(of, Phase::Queued);
        Some(())
    }

    fn send(&mut self, of: Place) -> Option<()> {
        let may = !self.world.dedup || self.is_sure(of);
        if self.is_held_up(of)
            || self.is_cut(of)
            || !may && !self.world.has(Mistake::SendsByLapsedClaim)
        {
            return None;
        }
        if self.world.has(Mistake::AckBeforeConfirm) {
            let parcel = self.parcel(of);
            self.state.parcels[parcel].strays += 1;
            self.end(of, Outcome::Delivered);
        } else {
            self.enter(of, Phase::Sending);
        }
        Some(())
    }

    /// A sink has a parcel, perhaps again.
    fn arrive(&mut self, parcel: usize) {
        let (world, parcels) = (self.world, &self.state.parcels);
        let (event, sink) = (parcel / world.sinks, parcel % world.sinks);
        let is_first = world.twins(world.key(event, sink)).all(|twin| parcels[twin].copies == 0);
        let is_behind = (event + 1..world.events.len()).any(|later| {
            self.is_same_order(event, later) && parcels[world.parcel(later, sink)].copies > 0
        });
        // What was parked has left its place, and may come all the same.
        if is_first && is_behind && !parcels[parcel].parked {
            self.state.breach = Some(Breach::Disorder);
        }
        self.state.parcels[parcel].copies += 1;
    }

    fn confirm(&mut self, of: Place) -> Option<()> {
        let parcel = self.parcel(of);
        self.arrive(parcel);
        self.state.parcels[parcel].confirmed = true;
        let next =
            if self.world.dedup { Phase::Confirmed } else { Phase::Ended(Outcome::Delivered) };
        self.enter(of, next);
        Some(())
    }

    fn lose_answer(&mut self, of: Place) -> Option<()> {
        let (parcel, key) = (self.parcel(of), self.key(of));
        self.state.parcels[parcel].strays += 1;
        if self.world.dedup {
            self.state.excuses[key].answers += 1;
        }
        self.enter(of, if self.world.dedup { Phase::Claimed } else { Phase::Queued });
        Some(())
    }

    fn reject(&mut self, of: Place) -> Option<()> {
        if self.world.dedup {
            self.drop_claim(of);
        }
        let unconfirmed = self.world.has(Mistake::ParkedUnconfirmed);
        let parked = Phase::Ended(Outcome::DeadLettered);
        self.enter(of, if unconfirmed { parked } else { Phase::Parking });
        Some(())
    }

    fn park(&mut self, of: Place) -> Option<()> {
        let parcel = self.parcel(of);
        self.state.parcels[parcel].parked = true;
        self.end(of, Outcome::DeadLettered);
        Some(())
    }

    /// Returns a branch, and what came after it in its key.
    fn give_up(&mut self, of: Place) -> Option<()> {
        let (at, place, sink) = of;
        let waits_in_vain = self.phase(of) == Phase::Queued
            && self.world.dedup
            && !self.is_claimable(of)
            && !self.is_held_up(of);
        if self.delivery(of).is_live && !waits_in_vain && !self.is_cut(of) {
            return None;
        }
        let event = self.delivery(of).event;
        for behind in place..self.state.replicas[at].deliveries.len() {
            let of = (at, behind, sink);
            if behind > place && !self.is_same_order(event, self.delivery(of).event) {
                continue;
            }
            match self.phase(of) {
                Phase::Claimed => self.drop_claim(of),
                Phase::Queued => {}
                _ => continue,
            }
            self.end(of, Outcome::Returned);
            let returned = self.delivery(of).event;
            self.break_row(at, returned);
        }
        Some(())
    }

    /// What is out behind an event that goes back is not to be sent any more.
    fn break_row(&mut self, at: usize, event: usize) {
        let is_passed = self.world.has(Mistake::ReturnedIsPassed);
        if let Some(track) = &mut self.state.replicas[at].track
            && !is_passed
            && track.open & !track.waiting & 1 << event != 0
        {
            track.broken |= 1 << event;
        }
    }

    /// What the store does when a process says that it has delivered a key.
    fn keep_done(&mut self, at: usize, key: usize) {
        match self.state.keys[key] {
            Held::By(holder) if holder == at => self.state.keys[key] = Held::Done,
            Held::Free | Held::Done => self.state.keys[key] = Held::Done,
            _ if self.world.has(Mistake::CommitUnfenced) => {
                self.state.keys[key] = Held::Done;
                self.state.breach = Some(Breach::Robbed);
            }
            _ => {}
        }
    }

    fn commit(&mut self, of: Place) -> Option<()> {
        let (at, key) = (of.0, self.key(of));
        self.keep_done(at, key);
        *self.lease(at, key) = None;
        self.end(of, Outcome::Delivered);
        Some(())
    }

    fn release(&mut self, at: usize, key: usize) -> Option<()> {
        self.state.replicas[at].releases[key] = false;
        if *self.lease(at, key) == Some(Lease::Dropped) {
            *self.lease(at, key) = None;
        }
        match self.state.keys[key] {
            Held::By(holder) if holder == at => self.state.keys[key] = Held::Free,
            Held::Free => {}
            _ if self.world.has(Mistake::ReleaseUnfenced) => {
                self.state.keys[key] = Held::Free;
                self.state.breach = Some(Breach::Robbed);
            }
            _ => {}
        }
        Some(())
    }

    fn release_late(&mut self, at: usize, key: usize) -> Option<()> {
        self.state.late_releases[at][key] = false;
        if self.state.keys[key] == Held::By(at) {
            self.state.keys[key] = Held::Free;
        }
        Some(())
    }

    fn renew(&mut self, at: usize, key: usize) -> Option<()> {
        let is_ours =
            matches!(self.state.keys[key], Held::Free) || self.state.keys[key] == Held::By(at);
        if is_ours {
            self.hold(at, key);
        }
        *self.lease(at, key) = Some(if is_ours { Lease::Sure } else { Lease::Lost });
        Some(())
    }

    fn doubt(&mut self, at: usize, key: usize) -> Option<()> {
        let is_sure = *self.lease(at, key) == Some(Lease::Sure);
        *self.lease(at, key) = Some(Lease::Doubtful);
        is_sure.then_some(())
    }

    fn expire(&mut self, key: usize) -> Option<()> {
        if self.world.has(Mistake::ClaimForEver) {
            return None;
        }
        if let Held::By(holder) = self.state.keys[key] {
            // Its owner stops to rely on it before the store forgets it.
            if *self.lease(holder, key) == Some(Lease::Sure) {
                return None;
            }
            let is_exposed =
                self.state.replicas[holder].phases(self.world).any(|(event, sink, phase)| {
                    phase.is_exposed() && self.world.key(event, sink) == key
                });
            self.state.excuses[key].lapses += u8::from(is_exposed);
        }
        self.state.keys[key] = Held::Free;
        Some(())
    }

    fn settle(&mut self, at: usize, place: usize) -> Option<()> {
        let replica = &self.state.replicas[at];
        let delivery = &replica.deliveries[place];
        let event = delivery.event;
        let first = delivery.branches.iter().filter_map(|phase| match phase {
            Phase::Ended(outcome) if *outcome != Outcome::Filtered => Some(*outcome),
            _ => None,
        });
        let outcome = match delivery.outcome() {
            None if self.world.has(Mistake::FirstBranchSettles) => first.min()?,
            outcome => outcome?,
        };
        // What has ended in a key is told in that order.
        let is_told_later = |before: &Delivery| {
            self.is_same_order(before.event, event) && before.outcome().is_some()
        };
        if replica.deliveries[..place].iter().any(is_told_later) {
            return None;
        }
        let delivery = self.state.replicas[at].deliveries.remove(place);
        match (self.world.source, outcome) {
            (Source::Queue, _) if !delivery.is_live => {}
            (Source::Queue, Outcome::Returned) => self.state.queue[event] = Message::Visible,
            (Source::Queue, _) => self.state.queue[event] = Message::Gone,
            (Source::Log, _) => self.settle_in_log(at, event, outcome),
        }
        Some(())
    }

    fn settle_in_log(&mut self, at: usize, event: usize, outcome: Outcome) {
        let Some(mut track) = self.state.replicas[at].track else { return };
        let bit = 1 << event;
        let out = track.open & !track.waiting & !bit;
        if track.waiting & bit != 0 || track.open & bit == 0 {
            return;
        }
        if !self.has_of_order(out, event) {
            let of_order = |e: &usize| self.is_same_order(*e, event);
            let row = (0..self.world.events.len()).filter(of_order);
            track.broken &= !row.fold(0, |row, e| row | 1 << e);
        }
        self.end_in_log(&mut track, event, outcome);
        self.state.replicas[at].track = Some(track);
    }

    fn end_in_log(&self, track: &mut Track, event: usize, outcome: Outcome) {
        let bit = 1 << event;
        if outcome == Outcome::Returned {
            if !self.world.has(Mistake::ReturnedIsForgotten) {
                track.waiting |= bit;
            }
            return;
        }
        track.open &= !bit;
        if self.world.has(Mistake::CheckpointOfNewest) {
            track.settled = track.settled.max(event + 1);
        }
        while track.settled < track.next && track.open & 1 << track.settled == 0 {
            track.settled += 1;
        }
    }

    fn settle_lapsed(&mut self, at: usize, place: usize) -> Option<()> {
        let delivery = &self.state.replicas[at].deliveries[place];
        let outcome = delivery.outcome()?;
        if delivery.is_live || outcome == Outcome::Returned {
            return None;
        }
        self.state.queue[delivery.event] = Message::Gone;
        self.state.replicas[at].deliveries.remove(place);
        Some(())
    }

    fn checkpoint(&mut self, at: usize) -> Option<()> {
        let settled = self.state.replicas[at].track.map(|track| track.settled)?;
        if settled == 0 {
            return None;
        }
        if settled > self.state.checkpoint {
            self.state.checkpoint = settled;
        } else if settled < self.state.checkpoint && self.world.has(Mistake::CheckpointLowered) {
            self.state.checkpoint = settled;
            self.state.breach = Some(Breach::Lowered);
        }
        Some(())
    }

    fn reappear(&mut self, event: usize, lapses: bool) -> Option<()> {
        let deliveries = self.state.replicas.iter_mut().flat_map(|it| &mut it.deliveries);
        let mut live = deliveries.filter(|it| it.event == event && it.is_live).peekable();
        if live.peek().is_some() != lapses {
            return None;
        }
        live.for_each(|delivery| delivery.is_live = false);
        self.state.queue[event] = Message::Visible;
        Some(())
    }

    /// A process dies and starts again: nothing of it is left but what others have of it.
    fn die(&mut self, at: usize) -> Option<()> {
        let dead = std::mem::take(&mut self.state.replicas[at]);
        for (event, sink, phase) in dead.phases(self.world) {
            let (parcel, key) = (self.world.parcel(event, sink), self.world.key(event, sink));
            self.state.parcels[parcel].strays += u8::from(phase == Phase::Sending);
            let is_kept = phase == Phase::Confirmed && self.state.keys[key] == Held::Done;
            if self.world.dedup && phase.is_exposed() && !is_kept {
                self.state.excuses[key].deaths += 1;
            }
        }
        for held in &mut self.state.keys {
            if *held == Held::By(at) {
                *held = Held::ByDead;
            }
        }
        self.state.late_releases[at] = Default::default();
        if self.state.reader == Some(at) {
            self.state.reader = None;
        }
        let is_idle = dead == Default::default();
        (!is_idle).then_some(())
    }
}
