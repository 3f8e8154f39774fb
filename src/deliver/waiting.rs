//! Whether a job waits here for a sink that does not work, or its event at its source: a sink that
//! is left alone may not fill what the source can have in flight, because others need the room.

use std::{sync::Arc, time::Duration};

use super::{Duty, Job, Purpose, backoff::Backoff};
use crate::{delivery::Outcome, route::choice::Candidate, settle::Budget};

/// How long an event stays away that has been given back: about as long as it has waited before,
/// so that a service which counts how often a message is handed out does not count too much.
const AWAY: Backoff = Backoff { min: Duration::from_secs(60), max: Duration::from_secs(60 * 60) };

impl Job {
    /// The same, whose event can go back to its source to leave room in this budget.
    #[must_use]
    pub fn leaves_room_in(mut self, room: Option<Arc<Budget>>) -> Self {
        self.duty.room = room;
        self
    }

    /// Whether it need not wait here for a sink that is left alone.
    pub(super) fn can_leave(&self) -> bool {
        let Duty { target, room, purpose, .. } = &*self.duty;
        match purpose {
            Purpose::Deliver => room.is_some() || target.stand_ins.get().is_some(),
            Purpose::Park { .. } => target.dead_letters.len() > 1,
        }
    }

    /// Gives its event back to its source, if those that wait with it have taken half of the room
    /// and more. Otherwise the job comes back.
    pub(super) fn leave_room(self) -> Option<Self> {
        let Duty { target, room, purpose, .. } = &*self.duty;
        let waiting = target.in_flight();
        let is_short =
            |room: &Arc<Budget>| room.is_half_full() && waiting * 2 >= room.in_flight().0;
        let leaves = matches!(purpose, Purpose::Deliver)
            && target.stand_ins.get().is_none()
            && room.as_ref().is_some_and(is_short);
        if !leaves {
            return Some(self);
        }
        let after = Some(AWAY.delay(self.duty.trail.attempt, None));
        self.duty.branch.finish(Outcome::Returned { after });
        None
    }
}
