//! Mistakes that others in this field have shipped, built in where a test asks for them: proof
//! that the simulation would find them.

use std::cell::Cell;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A failed send counts as delivered.
    AckOnFailure,
    /// A batch whose first event was taken counts as taken.
    BatchAnswersAsOne,
    /// A checkpoint follows the newest settled event, whatever is open before it.
    CheckpointPastGap,
    /// An event whose key somebody has claimed counts as delivered.
    ClaimIsDone,
    /// A key is done when its event is sent, not when it is confirmed.
    CommitBeforeDelivery,
    /// An event is dropped while the store of keys is away.
    DropWithoutStore,
    /// The first branch of a fan-out ends the delivery.
    FirstBranchSettles,
    /// What is given up at a stop counts as done.
    ForgottenIsDone,
    /// A failed event does not hold back its key.
    RetryOvertakes,
    /// An event counts as parked when the dead letter is sent, not when it is confirmed.
    ParkedUnconfirmed,
    /// An event whose key somebody has claimed is sent.
    TwinIsSent,
}

pub(crate) const ALL: [Bug; 11] = [
    Bug::AckOnFailure,
    Bug::BatchAnswersAsOne,
    Bug::CheckpointPastGap,
    Bug::ClaimIsDone,
    Bug::CommitBeforeDelivery,
    Bug::DropWithoutStore,
    Bug::FirstBranchSettles,
    Bug::ForgottenIsDone,
    Bug::RetryOvertakes,
    Bug::ParkedUnconfirmed,
    Bug::TwinIsSent,
];

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Builds a mistake in, for this thread, or takes it out.
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether it is built in.
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
