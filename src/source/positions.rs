//! Where a log is read to, and going back in it. A source with leases has no positions: what it has
//! settled is gone.

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{daemon::operation::Refused, fault::Fault, state::Checkpoint};

/// Partitions that are asked at once.
const AT_ONCE: usize = 4;

/// The positions of a log, as one consumer group reads it.
#[async_trait]
pub trait Positions: Send + Sync {
    /// How every partition stands. Disturbs nobody who reads.
    ///
    /// # Errors
    /// The service or the store does not answer.
    async fn standings(&self) -> Result<Vec<Standing>, Fault>;

    /// The number of the first event that the service took at or after `time`; none if there is
    /// none yet. Takes the partition from whoever reads it.
    ///
    /// # Errors
    /// As for [`Positions::standings`]; and another replica has the partition.
    async fn first_since(
        &self,
        partition: &str,
        time: OffsetDateTime,
    ) -> Result<Option<i64>, Fault>;

    /// Has the partition go on with the event of this number, whatever its checkpoint was. Only
    /// while this process does not read it. If it fails half way, more is repeated, and nothing is
    /// left out.
    ///
    /// # Errors
    /// As for [`Positions::first_since`].
    async fn go_on_with(&self, partition: &str, sequence: i64) -> Result<(), Fault>;
}

/// How a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub partition: String,
    /// Up to here, everything is settled, as far as that is written; none if nothing is.
    pub checkpoint: Option<Checkpoint>,
    /// The number of the oldest event that is kept, or of the next one where none is.
    pub first: i64,
    /// The number of the newest event there ever was; one less than the first number if there was
    /// none.
    pub last: i64,
    /// When the service took that one; none if there was none.
    pub last_enqueued: Option<OffsetDateTime>,
    /// The replica that reads it, where replicas share the partitions and one does.
    pub owner: Option<Owner>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// What others know it by.
    pub name: String,
    /// Whether it is this process.
    pub is_us: bool,
}

impl Standing {
    /// Events that are kept and not settled.
    #[must_use]
    pub fn lag(&self) -> u64 {
        u64::try_from(self.last - self.settled()).unwrap_or(0)
    }

    /// The last number that does not come again by itself.
    fn settled(&self) -> i64 {
        self.checkpoint.as_ref().map_or(self.first - 1, |at| at.sequence.max(self.first - 1))
    }
}

/// Where to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// The oldest event that is kept.
    Earliest,
    /// The event of this sequence number is the first that comes again. Each partition has numbers
    /// of its own.
    SequenceNumber(i64),
    /// The first event that the service took at or after this time (RFC 3339).
    #[schemars(with = "String")]
    Time(#[serde(with = "time::serde::rfc3339")] OffsetDateTime),
}

/// To have events come again that were settled before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewind {
    /// Of this partition alone; of all that this replica reads without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Where to.
    pub to: To,
    /// Only say what would come again. With a time, reading stops meanwhile, since the hub has to be
    /// asked.
    #[serde(default)]
    pub dry_run: bool,
}

/// What it means for a partition to go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rewound {
    /// Its id.
    pub partition: String,
    /// The sequence number of its checkpoint before; none if it had none.
    pub from: Option<i64>,
    /// The sequence number of the first event that comes again; none if none does.
    pub to: Option<i64>,
    /// Events that come again, if their numbers have no holes.
    pub repeats: u64,
    /// Events that were meant as well, and are gone from the hub.
    pub gone: u64,
    /// Why nothing was done.
    pub refused: Option<String>,
}

impl Rewind {
    /// Whether the service can answer for all of it while somebody reads.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !matches!(self.to, To::Time(_))
    }

    /// What is wrong with it.
    ///
    /// # Errors
    /// It cannot mean anything.
    pub fn check(&self) -> Result<(), Refused> {
        let invalid = |text: &str| Err(Refused::Invalid(text.to_owned()));
        match self.to {
            To::SequenceNumber(_) if self.partition.is_none() => invalid(
                "each partition has sequence numbers of its own: say which by `partition`, or go \
                 back to a `time` or to `earliest`",
            ),
            To::SequenceNumber(number) if number < 0 => {
                invalid("sequence numbers begin at 0; write `earliest` for the oldest event")
            }
            To::Time(time) if time > OffsetDateTime::now_utc() => invalid(
                "the time is in the future: a rewind goes back, and never leaves out events",
            ),
            _ => Ok(()),
        }
    }
}

/// Goes back, or says what that would repeat.
///
/// # Errors
/// Nothing could be done, or the service or the store has failed half way: then some partitions
/// have gone back and others have not.
pub async fn rewind(positions: &dyn Positions, rewind: &Rewind) -> Result<Vec<Rewound>, Refused> {
    rewind.check()?;
    let mut standings = positions.standings().await?;
    if let Some(wanted) = &rewind.partition {
        standings.retain(|standing| standing.partition == *wanted);
        if standings.is_empty() {
            return Err(Refused::Invalid(format!("the hub has no partition `{wanted}`")));
        }
    }
    let work = standings.into_iter().map(|standing| one(positions, rewind, standing));
    let rewound: Vec<_> = stream::iter(work).buffered(AT_ONCE).try_collect().await?;
    match (&rewind.partition, rewound.first().and_then(|one| one.refused.clone())) {
        (Some(_), Some(refused)) => Err(Refused::Conflict(refused)),
        _ => Ok(rewound),
    }
}

async fn one(
    positions: &dyn Positions,
    rewind: &Rewind,
    standing: Standing,
) -> Result<Rewound, Refused> {
    let Standing { partition, first, last_enqueued, owner, .. } = &standing;
    if let Some(Owner { name, .. }) = owner.as_ref().filter(|owner| !owner.is_us) {
        let refused =
            format!("partition {partition} is read by the replica `{name}`: ask that one");
        return Ok(standing.refuses(refused));
    }
    let to = match rewind.to {
        To::Earliest => *first,
        To::SequenceNumber(number) => number,
        // A hub says nothing where nothing has come since, and that takes long to find out.
        To::Time(time) if last_enqueued.is_none_or(|last| last < time) => {
            return Ok(standing.stays());
        }
        To::Time(time) => match positions.first_since(partition, time).await? {
            Some(number) => number,
            None => {
                let text =
                    format!("partition {partition} did not bring what it has since; try again");
                return Err(Refused::Unusable(text));
            }
        },
    };
    if matches!(rewind.to, To::SequenceNumber(_)) && to > standing.settled() + 1 {
        let next = standing.settled() + 1;
        let refused = format!(
            "partition {partition} goes on with {next}: to go on with {to} would leave events out"
        );
        return Ok(standing.refuses(refused));
    }
    let rewound = standing.back_to(to);
    if let (Some(to), false) = (rewound.to, rewind.dry_run) {
        positions.go_on_with(partition, to).await?;
    }
    Ok(rewound)
}

impl Standing {
    fn stays(&self) -> Rewound {
        Rewound {
            partition: self.partition.clone(),
            from: self.checkpoint.as_ref().map(|at| at.sequence),
            to: None,
            repeats: 0,
            gone: 0,
            refused: None,
        }
    }

    fn refuses(&self, why: String) -> Rewound {
        Rewound { refused: Some(why), ..self.stays() }
    }

    /// What it means to go on with the event of this number, if that goes back at all. Without a
    /// checkpoint, everything comes by itself.
    fn back_to(&self, number: i64) -> Rewound {
        let to = number.max(self.first);
        let gone = u64::try_from(to - number).unwrap_or(0);
        match u64::try_from(self.settled() + 1 - to) {
            Ok(repeats @ 1..) => Rewound { to: Some(to), repeats, gone, ..self.stays() },
            _ => Rewound { gone, ..self.stays() },
        }
    }
}

#[cfg(test)]
mod tests;
