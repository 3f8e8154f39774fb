//! The log of one partition.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::config::OffsetMode;
use crate::filter::Position;

/// An event as kept: encoded once, when it came in. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub(crate) struct StoredEvent {
    pub(crate) stamp: Stamp,
    pub(crate) partition_key: Option<Arc<str>>,
    /// The complete encoded message as the publisher wrote it.
    pub(crate) encoded: Bytes,
}

/// What the service writes onto an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sequence_number: i64,
    pub(crate) offset: Offset,
    /// Milliseconds since 1970.
    pub(crate) enqueued_ms: i64,
}

/// An offset; its text is what clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    number: i64,
    mode: OffsetMode,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            OffsetMode::Numeric => write!(f, "{}", self.number),
            OffsetMode::Opaque => write!(f, "0:{:012}:x", self.number),
        }
    }
}

impl Offset {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse() {
            return Some(Self { number, mode: OffsetMode::Numeric });
        }
        let number = text.strip_prefix("0:")?.strip_suffix(":x")?.parse().ok()?;
        Some(Self { number, mode: OffsetMode::Opaque })
    }
}

/// An event that is about to be kept.
#[derive(Debug)]
pub(crate) struct NewEvent {
    pub(crate) partition_key: Option<Arc<str>>,
    pub(crate) encoded: Bytes,
}

/// A position that the partition does not have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoSuchPosition {
    /// It never issued this offset; its last one is the second.
    Offset(String, String),
    /// It never issued this sequence number; its last one is the second.
    SequenceNumber(i64, i64),
}

/// What `$management` and runtime metrics tell of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// The oldest event's number; 0 when there was never one.
    pub(crate) begin: i64,
    /// The newest event's stamp, kept or not.
    pub(crate) last: Option<Stamp>,
    pub(crate) is_empty: bool,
}

impl Extent {
    pub(crate) fn last_sequence_number(&self) -> i64 {
        self.last.map_or(-1, |stamp| stamp.sequence_number)
    }

    pub(crate) fn last_offset(&self) -> String {
        self.last.map_or_else(
            || crate::filter::OFFSET_EARLIEST.to_owned(),
            |stamp| stamp.offset.to_string(),
        )
    }

    pub(crate) fn last_enqueued_ms(&self) -> i64 {
        self.last.map_or(0, |stamp| stamp.enqueued_ms)
    }
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    log: Mutex<Log>,
    next: watch::Sender<i64>,
}

#[derive(Debug, Default)]
struct Log {
    events: VecDeque<StoredEvent>,
    next_sequence_number: i64,
    next_offset: i64,
    last: Option<Stamp>,
}

impl Partition {
    pub(crate) fn new() -> Self {
        Self { log: Mutex::default(), next: watch::Sender::new(0) }
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the events together, in order, and says what they were stamped with. `now` is the
    /// service's clock; time never runs backwards within a partition. `skip` sequence numbers are
    /// left out first.
    pub(crate) fn append(
        &self,
        events: Vec<NewEvent>,
        now: i64,
        mode: OffsetMode,
        skip: i64,
    ) -> Vec<Stamp> {
        let mut log = self.log();
        log.next_sequence_number += skip;
        let enqueued_ms = now.max(log.last.map_or(i64::MIN, |stamp| stamp.enqueued_ms));
        let stamps = events.into_iter().map(|event| log.push(event, enqueued_ms, mode)).collect();
        let next = log.next_sequence_number;
        drop(log);
        self.next.send_replace(next);
        stamps
    }

    /// Up to `max` events from this sequence number on.
    pub(crate) fn read(&self, from: i64, max: usize) -> Vec<StoredEvent> {
        let log = self.log();
        let start = log.events.partition_point(|event| event.stamp.sequence_number < from);
        log.events.range(start..).take(max).cloned().collect()
    }

    /// The next sequence number, and a wake-up whenever it moves.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.next.subscribe()
    }

    /// The sequence number that a receiver at this position starts from.
    pub(crate) fn locate(&self, position: &Position) -> Result<i64, NoSuchPosition> {
        self.log().locate(position)
    }

    pub(crate) fn extent(&self) -> Extent {
        let log = self.log();
        let begin = match log.events.front() {
            Some(event) => event.stamp.sequence_number,
            None => log.next_sequence_number,
        };
        Extent { begin, last: log.last, is_empty: log.events.is_empty() }
    }

    /// Forgets what is older, as retention does.
    pub(crate) fn trim(&self, is_old: impl Fn(&StoredEvent) -> bool) -> usize {
        let mut log = self.log();
        let kept = log.events.iter().position(|event| !is_old(event)).unwrap_or(log.events.len());
        log.events.drain(..kept).count()
    }
}

impl Log {
    fn push(&mut self, event: NewEvent, enqueued_ms: i64, mode: OffsetMode) -> Stamp {
        let stamp = Stamp {
            sequence_number: self.next_sequence_number,
            offset: Offset { number: self.next_offset, mode },
            enqueued_ms,
        };
        self.next_sequence_number += 1;
        self.next_offset += event.encoded.len().max(1) as i64;
        self.last = Some(stamp);
        let NewEvent { partition_key, encoded } = event;
        self.events.push_back(StoredEvent { stamp, partition_key, encoded });
        stamp
    }

    fn locate(&self, position: &Position) -> Result<i64, NoSuchPosition> {
        let begin =
            self.events.front().map_or(self.next_sequence_number, |e| e.stamp.sequence_number);
        match position {
            Position::Earliest => Ok(begin),
            Position::Latest => Ok(self.next_sequence_number),
            Position::SequenceNumber { number, inclusive } => {
                let from = if *inclusive { *number } else { number.saturating_add(1) };
                if from > self.next_sequence_number {
                    return Err(NoSuchPosition::SequenceNumber(
                        *number,
                        self.next_sequence_number - 1,
                    ));
                }
                Ok(from)
            }
            Position::EnqueuedTime { millis, inclusive } => {
                let index = self.events.partition_point(|event| {
                    let enqueued = event.stamp.enqueued_ms;
                    enqueued < *millis || (enqueued == *millis && !inclusive)
                });
                Ok(self.sequence_number_at(index))
            }
            Position::Offset { offset, inclusive } => self.locate_offset(offset, *inclusive),
        }
    }

    fn locate_offset(&self, text: &str, inclusive: bool) -> Result<i64, NoSuchPosition> {
        let unknown = || {
            let last = self.last.map_or_else(|| "-1".to_owned(), |stamp| stamp.offset.to_string());
            NoSuchPosition::Offset(text.to_owned(), last)
        };
        let offset = Offset::parse(text).ok_or_else(unknown)?;
        let index = self.events.partition_point(|e| e.stamp.offset.number < offset.number);
        match self.events.get(index) {
            Some(event) if event.stamp.offset == offset => {
                Ok(self.sequence_number_at(if inclusive { index } else { index + 1 }))
            }
            // Older than what is kept: nobody can tell any more whether it was ever issued.
            Some(oldest)
                if index == 0 && (0..oldest.stamp.offset.number).contains(&offset.number) =>
            {
                Ok(self.sequence_number_at(0))
            }
            None if self.last.is_some_and(|last| offset.number <= last.offset.number) => {
                Ok(self.next_sequence_number)
            }
            _ => Err(unknown()),
        }
    }

    fn sequence_number_at(&self, index: usize) -> i64 {
        self.events.get(index).map_or(self.next_sequence_number, |e| e.stamp.sequence_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(times: &[i64]) -> Partition {
        let partition = Partition::new();
        for time in times {
            let event =
                NewEvent { partition_key: None, encoded: Bytes::from_static(b"0123456789") };
            partition.append(vec![event], *time, OffsetMode::Numeric, 0);
        }
        partition
    }

    fn offset(text: &str, inclusive: bool) -> Position {
        Position::Offset { offset: text.into(), inclusive }
    }

    fn number(number: i64, inclusive: bool) -> Position {
        Position::SequenceNumber { number, inclusive }
    }

    fn time(millis: i64, inclusive: bool) -> Position {
        Position::EnqueuedTime { millis, inclusive }
    }

    #[test]
    fn every_kind_of_position_is_found_to_the_event() {
        let log = partition(&[100, 200, 200, 300]);
        for (position, expected) in [
            (Position::Earliest, 0),
            (Position::Latest, 4),
            (offset("10", false), 2),
            (offset("10", true), 1),
            (offset("30", false), 4),
            (number(1, false), 2),
            (number(1, true), 1),
            (number(3, false), 4),
            (time(200, false), 3),
            (time(200, true), 1),
            (time(0, true), 0),
            (time(999, true), 4),
        ] {
            assert_eq!(log.locate(&position), Ok(expected), "{position}");
        }
    }

    #[test]
    fn a_position_that_was_never_issued_is_refused() {
        let log = partition(&[1, 2]);
        let unknown = |text: &str| Err(NoSuchPosition::Offset(text.into(), "10".into()));
        assert_eq!(log.locate(&offset("5", false)), unknown("5"));
        assert_eq!(log.locate(&offset("11", false)), unknown("11"));
        assert_eq!(log.locate(&offset("0:000000000000:x", false)), unknown("0:000000000000:x"));
        assert_eq!(log.locate(&number(2, false)), Err(NoSuchPosition::SequenceNumber(2, 1)));
    }

    #[test]
    fn a_position_below_retention_starts_at_the_oldest_event_kept() {
        let log = partition(&[1, 2, 3]);
        assert_eq!(log.trim(|event| event.stamp.sequence_number < 2), 2);
        assert_eq!(log.locate(&Position::Earliest), Ok(2));
        assert_eq!(log.locate(&offset("0", false)), Ok(2));
        let from = log.locate(&number(0, false)).unwrap();
        assert_eq!(log.read(from, 10)[0].stamp.sequence_number, 2);
        assert_eq!(log.extent().begin, 2);
    }

    #[test]
    fn opaque_offsets_are_found_again() {
        let log = partition(&[1]);
        let event = NewEvent { partition_key: None, encoded: Bytes::new() };
        let stamp = log.append(vec![event], 2, OffsetMode::Opaque, 0)[0];
        let text = stamp.offset.to_string();
        assert!(text.parse::<i64>().is_err());
        assert_eq!(log.locate(&offset(&text, true)), Ok(1));
        assert_eq!(log.locate(&offset("0", true)), Ok(0));
    }

    #[test]
    fn time_never_runs_backwards() {
        let log = partition(&[500, 100]);
        assert_eq!(log.read(0, 2)[1].stamp.enqueued_ms, 500);
    }
}
