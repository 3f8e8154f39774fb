//! Named points at which a test ends the process as kill -9 does: nothing is flushed, unwound or
//! dropped. Only in builds for tests; `tests/it/kill_points.rs` ends a daemon at each of them.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

/// Names the point, and which passing of it ends the process: `after_send:2`.
pub const VARIABLE: &str = "EVENTFERRY_KILL_AT";

/// The moments between which something is true of an event that was not before, in flow order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The source has handed it out; nothing is done with it yet.
    AfterReceive,
    /// Its deduplication key is claimed.
    AfterClaim,
    /// The sink has confirmed it.
    AfterSend,
    /// The dead-letter sink has confirmed it.
    DuringDeadLetter,
    /// Its deduplication key is known as done.
    AfterCommit,
    /// It is done with; its source does not know yet.
    BeforeSettle,
    /// Its source's checkpoint is being written.
    DuringCheckpoint,
    /// A partition has been told to go back, others of its hub perhaps not yet. No moment of an
    /// event's way.
    DuringRewind,
}

impl Point {
    /// Each of an event's way.
    pub const ALL: [Self; 7] = [
        Self::AfterReceive,
        Self::AfterClaim,
        Self::AfterSend,
        Self::DuringDeadLetter,
        Self::AfterCommit,
        Self::BeforeSettle,
        Self::DuringCheckpoint,
    ];

    /// As [`VARIABLE`] spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AfterReceive => "after_receive",
            Self::AfterClaim => "after_claim",
            Self::AfterSend => "after_send",
            Self::DuringDeadLetter => "during_dead_letter",
            Self::AfterCommit => "after_commit",
            Self::BeforeSettle => "before_settle",
            Self::DuringCheckpoint => "during_checkpoint",
            Self::DuringRewind => "during_rewind",
        }
    }
}

/// Ends the process if this is the passing that [`VARIABLE`] names.
pub fn pass(point: Point) {
    static CHOSEN: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    let Some((name, count)) = chosen else { return };
    if name == point.name() && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count {
        std::process::abort();
    }
}
