//! Sinks of a route that stand in for one another: where an event goes that one of them has refused,
//! or that waits for one that does not work.

use std::sync::Arc;

use super::{Deliverer, Duty, Job, Target};
use crate::{event::Event, fault::Fault, route::choice::Candidate as _};

impl Target {
    /// Makes the targets of a route, of which it is one, stand in for one another.
    pub fn stand_in_for(&self, all: &[Arc<Self>]) {
        self.stand_ins.get_or_init(|| all.iter().map(Arc::downgrade).collect());
    }

    /// What becomes of an event that this target has refused, or can never take: a job for the
    /// next of its stand-ins that has not refused it, those that work first; or else the job that
    /// parks it.
    pub(super) fn elsewhere(
        self: &Arc<Self>,
        event: &Arc<Event>,
        mut duty: Box<Duty>,
        fault: &Fault,
    ) -> Option<(Arc<Deliverer>, Job)> {
        loop {
            duty.refused |= self.bit_of(&duty.target);
            let Some(next) = self.next(duty.refused, false) else { return self.park(duty, fault) };
            match next.take_over(event, duty) {
                Ok(job) => return Some(job),
                Err(back) => {
                    duty = back;
                    duty.target = next;
                }
            }
        }
    }

    /// A job for a stand-in that works, because the service of this target does not; nothing of
    /// what it owes is lost where there is none.
    pub(super) fn stand_in(
        self: &Arc<Self>,
        event: &Arc<Event>,
        duty: Box<Duty>,
    ) -> Result<(Arc<Deliverer>, Job), Box<Duty>> {
        let seen = duty.refused | self.bit_of(self);
        match self.next(seen, true) {
            Some(next) => next.take_over(event, duty),
            None => Err(duty),
        }
    }

    /// Takes over an event that another has given up; gives it back if it can never take it.
    fn take_over(
        self: &Arc<Self>,
        event: &Arc<Event>,
        mut duty: Box<Duty>,
    ) -> Result<(Arc<Deliverer>, Job), Box<Duty>> {
        let Ok((deliverer, outgoing)) = self.pack(event, &duty.trail) else { return Err(duty) };
        (duty.target, duty.loaded) = (self.clone(), self.metrics.underway());
        // Its key waits in the lane that it came from; see `Purpose::Park` about not ordering here.
        (duty.ordered, duty.attempts) = (false, 0);
        Ok((deliverer, Job { outgoing, duty }))
    }

    /// The next stand-in that is not among `seen`.
    fn next(&self, seen: u64, only_well: bool) -> Option<Arc<Self>> {
        let ring = self.stand_ins.get()?.iter().enumerate();
        let unseen: Vec<Arc<Self>> = ring
            .filter(|(index, _)| seen & bit(*index) == 0)
            .filter_map(|(_, target)| target.upgrade())
            .collect();
        let well = unseen.iter().find(|target| target.is_well());
        let any = || unseen.first().filter(|_| !only_well);
        well.or_else(any).cloned()
    }

    /// The bit of a stand-in of this target.
    fn bit_of(&self, other: &Arc<Self>) -> u64 {
        let ring = self.stand_ins.get().map_or(&[][..], Vec::as_slice);
        let at = ring.iter().position(|target| std::ptr::eq(target.as_ptr(), Arc::as_ptr(other)));
        at.map_or(0, bit)
    }
}

/// The bit of a stand-in; of those past the 64th there is none, so that they are not remembered.
pub(super) fn bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}
