//! Where a receiver starts: the filter of its source.
//!
//! The source's filter set has one entry, keyed [`NAME`]: a described string whose descriptor is
//! [`NAME`] as a symbol (Python) or [`CODE`] (Rust, JavaScript). The string is what
//! [`Position`] writes and reads.

use std::{fmt, str::FromStr};

/// Key of the filter set, and symbolic descriptor of the filter.
pub const NAME: &str = "apache.org:selector-filter:string";
/// Numeric descriptor of the filter.
pub const CODE: u64 = 0x0000_468C_0000_0004;

/// The offset that stands before the first event.
pub const OFFSET_EARLIEST: &str = "-1";
/// The offset that stands for the end of the partition at the moment of attaching.
pub const OFFSET_LATEST: &str = "@latest";

const ANNOTATION_PREFIX: &str = "amqp.annotation.";

/// Where in a partition a receiver starts.
///
/// [`Display`](fmt::Display) and parsing are the service's selector language, of which this is
/// all that is used. A position that is older than what is retained means the oldest event, and
/// the service does not say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The oldest event that is kept.
    Earliest,
    /// Only events that come after the link is attached. Also what no filter at all means.
    Latest,
    /// After the event with this offset, or at it.
    Offset {
        /// As the service wrote it: opaque.
        offset: String,
        /// Whether the event itself is wanted again.
        inclusive: bool,
    },
    /// After the event with this sequence number, or at it.
    SequenceNumber {
        /// As the service wrote it.
        number: i64,
        /// Whether the event itself is wanted again.
        inclusive: bool,
    },
    /// The first event that the service took after this time, or at it.
    EnqueuedTime {
        /// Milliseconds since 1970, by the service's clock.
        millis: i64,
        /// Whether an event of that very millisecond is wanted.
        inclusive: bool,
    },
}

/// A filter that does not name a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a filter by offset, sequence number or enqueued time")]
pub struct InvalidFilter(String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::annotation::{ENQUEUED_TIME, OFFSET, SEQUENCE_NUMBER};
        let mut write = |annotation: &str, inclusive: bool, value: &dyn fmt::Display| {
            let operator = if inclusive { ">=" } else { ">" };
            write!(f, "{ANNOTATION_PREFIX}{annotation} {operator} '{value}'")
        };
        match self {
            Self::Earliest => write(OFFSET, false, &OFFSET_EARLIEST),
            Self::Latest => write(OFFSET, false, &OFFSET_LATEST),
            Self::Offset { offset, inclusive } => write(OFFSET, *inclusive, offset),
            Self::SequenceNumber { number, inclusive } => {
                write(SEQUENCE_NUMBER, *inclusive, number)
            }
            Self::EnqueuedTime { millis, inclusive } => write(ENQUEUED_TIME, *inclusive, millis),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let invalid = || InvalidFilter(text.to_owned());
        let (annotation, rest) = text
            .trim()
            .strip_prefix(ANNOTATION_PREFIX)
            .and_then(|rest| rest.split_once('>'))
            .ok_or_else(invalid)?;
        let (inclusive, rest) = match rest.strip_prefix('=') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let value = rest
            .trim()
            .strip_prefix('\'')
            .and_then(|value| value.strip_suffix('\''))
            .ok_or_else(invalid)?;
        let number = || value.parse::<i64>().map_err(|_| invalid());
        match annotation.trim() {
            crate::annotation::OFFSET => Ok(match value {
                OFFSET_EARLIEST => Self::Earliest,
                OFFSET_LATEST => Self::Latest,
                offset => Self::Offset { offset: offset.to_owned(), inclusive },
            }),
            crate::annotation::SEQUENCE_NUMBER | "x-opt-sequencenumber" | "sequencenumber" => {
                Ok(Self::SequenceNumber { number: number()?, inclusive })
            }
            crate::annotation::ENQUEUED_TIME => {
                Ok(Self::EnqueuedTime { millis: number()?, inclusive })
            }
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_read_back_as_written() {
        for position in [
            Position::Earliest,
            Position::Latest,
            Position::Offset { offset: "0:000123:7".into(), inclusive: false },
            Position::Offset { offset: "4296".into(), inclusive: true },
            Position::SequenceNumber { number: 5, inclusive: true },
            Position::EnqueuedTime { millis: 1_700_000_000_123, inclusive: false },
        ] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
    }

    #[test]
    fn the_spellings_of_other_clients_are_understood() {
        let five = Position::SequenceNumber { number: 5, inclusive: false };
        for text in [
            "amqp.annotation.x-opt-sequence-number >'5'",
            "amqp.annotation.x-opt-sequence-number > '5'",
            "amqp.annotation.x-opt-sequencenumber > '5'",
            "amqp.annotation.sequencenumber > '5'",
        ] {
            assert_eq!(text.parse(), Ok(five.clone()), "{text}");
        }
        assert_eq!("amqp.annotation.x-opt-offset >= '-1'".parse(), Ok(Position::Earliest));
    }

    #[test]
    fn other_filters_are_refused() {
        for text in [
            "",
            "x-opt-offset > '1'",
            "amqp.annotation.x-opt-offset < '1'",
            "amqp.annotation.x-opt-offset > 1",
            "amqp.annotation.x-opt-sequence-number > 'one'",
            "amqp.annotation.x-opt-publisher > '1'",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
