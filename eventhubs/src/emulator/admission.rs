//! Who may receive from a partition: at most five without an epoch, or one with the highest.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{condition, limits::MAX_RECEIVERS_PER_PARTITION};

/// Names a receiver for the life of the emulator.
pub(crate) type ReceiverId = u64;

/// The live receivers of a hub.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// By consumer group in lower case, and partition.
    live: Mutex<BTreeMap<(String, u32), Vec<Live>>>,
}

#[derive(Debug, Clone, Copy)]
struct Live {
    id: ReceiverId,
    epoch: Option<i64>,
}

/// A receiver that is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) condition: &'static str,
    pub(crate) description: String,
}

/// A receiver that has to go because of one that was let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Displaced {
    pub(crate) id: ReceiverId,
    pub(crate) description: String,
}

impl Admission {
    /// Lets a receiver in and says who has to go, or refuses it.
    pub(crate) fn enter(
        &self,
        group: &str,
        partition: u32,
        id: ReceiverId,
        epoch: Option<i64>,
    ) -> Result<Vec<Displaced>, Refusal> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let seats = live.entry((group.to_lowercase(), partition)).or_default();
        let highest = seats.iter().filter_map(|seat| seat.epoch).max();
        match (epoch, highest) {
            (None, Some(held)) => return Err(refused_without_epoch(held)),
            (Some(epoch), Some(held)) if epoch < held => return Err(refused_by_epoch(epoch, held)),
            (None, None) if seats.len() >= MAX_RECEIVERS_PER_PARTITION => return Err(too_many()),
            _ => {}
        }
        let displaced = match epoch {
            Some(epoch) => seats.drain(..).map(|seat| displaced_by(seat, epoch)).collect(),
            None => Vec::new(),
        };
        seats.push(Live { id, epoch });
        Ok(displaced)
    }

    /// The process has ended, and everybody with it.
    pub(crate) fn clear(&self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A receiver has ended. Its epoch is forgotten with it.
    pub(crate) fn leave(&self, id: ReceiverId) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, seats| {
            seats.retain(|seat| seat.id != id);
            !seats.is_empty()
        });
    }
}

fn displaced_by(seat: Live, epoch: i64) -> Displaced {
    let own = seat.epoch.unwrap_or(0);
    Displaced {
        id: seat.id,
        description: format!(
            "New receiver 'nil' with higher epoch of '{epoch}' is created hence current receiver \
             'nil' with epoch '{own}' is getting disconnected."
        ),
    }
}

fn refused_without_epoch(held: i64) -> Refusal {
    Refusal {
        condition: condition::LINK_STOLEN,
        description: format!(
            "New receiver without an epoch is not allowed since an active receiver with epoch \
             '{held}' exists."
        ),
    }
}

fn refused_by_epoch(epoch: i64, held: i64) -> Refusal {
    Refusal {
        condition: condition::LINK_STOLEN,
        description: format!(
            "New receiver cannot be created with epoch '{epoch}' since an active receiver with \
             epoch '{held}' exists."
        ),
    }
}

fn too_many() -> Refusal {
    Refusal {
        condition: condition::RESOURCE_LIMIT_EXCEEDED,
        description: format!(
            "Exceeded the maximum number of allowed receivers per partition in a consumer group \
             which is {MAX_RECEIVERS_PER_PARTITION}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn displaced(result: Result<Vec<Displaced>, Refusal>) -> Vec<ReceiverId> {
        result.unwrap().into_iter().map(|displaced| displaced.id).collect()
    }

    #[test]
    fn five_receivers_without_an_epoch_share_a_partition_and_a_sixth_is_refused() {
        let admission = Admission::default();
        for id in 0..5 {
            assert_eq!(displaced(admission.enter("g", 0, id, None)), [0; 0]);
        }
        assert_eq!(
            admission.enter("g", 0, 5, None).unwrap_err().condition,
            condition::RESOURCE_LIMIT_EXCEEDED
        );
        assert_eq!(displaced(admission.enter("g", 1, 6, None)), [0; 0]);
    }

    #[test]
    fn an_epoch_displaces_everybody_without_one() {
        let admission = Admission::default();
        admission.enter("g", 0, 1, None).unwrap();
        admission.enter("G", 0, 2, None).unwrap();
        assert_eq!(displaced(admission.enter("g", 0, 3, Some(0))), [1, 2]);
    }

    #[test]
    fn an_equal_epoch_wins_and_a_lower_one_or_none_is_refused() {
        let admission = Admission::default();
        admission.enter("g", 0, 1, Some(7)).unwrap();
        for epoch in [Some(6), None] {
            let refusal = admission.enter("g", 0, 2, epoch).unwrap_err();
            assert_eq!(refusal.condition, condition::LINK_STOLEN);
        }
        assert_eq!(displaced(admission.enter("g", 0, 3, Some(7))), [1]);
    }

    #[test]
    fn an_epoch_is_forgotten_with_its_receiver() {
        let admission = Admission::default();
        admission.enter("g", 0, 1, Some(7)).unwrap();
        admission.leave(1);
        assert_eq!(displaced(admission.enter("g", 0, 2, None)), [0; 0]);
    }
}
