//! Going back in a log that is read: its pipeline ends as it does for another configuration, its
//! checkpoints are moved while nobody writes them, and it starts anew from there.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Daemon, Stage,
    operation::{Answer, Refused},
    running::Bounds,
};
use crate::source::positions::{Positions, Rewind, Rewound, rewind};

/// How long a service and a store may take to be asked about all partitions.
const REWIND_MAX: Duration = Duration::from_secs(60);

/// What is to be done once a pipeline has ended.
pub(super) struct Rewinding {
    positions: Box<dyn Positions>,
    rewind: Rewind,
    answer: Answer<Vec<Rewound>>,
}

impl Daemon {
    pub(super) fn rewind(
        &mut self,
        source: &Arc<str>,
        rewind: Rewind,
        answer: Answer<Vec<Rewound>>,
    ) {
        if let Err((answer, refused)) = self.begin_rewind(source, rewind, answer) {
            let _ = answer.send(Err(refused));
        }
    }

    fn begin_rewind(
        &mut self,
        source: &Arc<str>,
        rewind: Rewind,
        answer: Answer<Vec<Rewound>>,
    ) -> Result<(), (Answer<Vec<Rewound>>, Refused)> {
        let context = self.context(source);
        let plan = self.plan.sources.iter().find(|plan| plan.name == *source);
        let (Some(plan), Some(part)) = (plan, self.sources.get_mut(source)) else {
            return Err((answer, Refused::Unknown { kind: "source", name: source.clone() }));
        };
        let positions = match plan.config.positions(&context) {
            Some(Ok(positions)) => positions,
            Some(Err(fault)) => return Err((answer, fault.into())),
            None => return Err((answer, Refused::no_log(source))),
        };
        if part.is_rewinding {
            let text = format!("somebody goes back in `{source}` already; try again after that");
            return Err((answer, Refused::Conflict(text)));
        }
        tracing::info!(%source, ?rewind, "asked to go back in a log");
        part.is_rewinding = true;
        part.end(Bounds::within(self.plan.grace));
        let rewinding = Rewinding { positions, rewind, answer };
        if matches!(part.stage, Stage::Ending) {
            self.rewinds.insert(source.clone(), rewinding);
        } else {
            part.stage = Stage::Ending;
            self.go_back(source.clone(), rewinding);
        }
        Ok(())
    }

    /// Nobody reads the source, and its last checkpoint is written.
    pub(super) fn go_back(&mut self, source: Arc<str>, rewinding: Rewinding) {
        let Rewinding { positions, rewind: to, answer } = rewinding;
        self.rewinding.spawn(async move {
            let done = timeout(REWIND_MAX, rewind(&*positions, &to)).await;
            let done = done.unwrap_or_else(|_| {
                let text = format!(
                    "`{source}` has not answered in time; look at its checkpoints before you try again"
                );
                Err(Refused::Unusable(text))
            });
            match &done {
                Ok(rewound) => tracing::info!(%source, ?rewound, "went back in a log"),
                Err(refused) => tracing::error!(%source, %refused, "could not go back in a log"),
            }
            // Who asked may have left.
            let _ = answer.send(done);
            source
        });
    }

    /// It is done: the source goes on.
    pub(super) fn rewound(&mut self, source: &Arc<str>) {
        if let Some(part) = self.sources.get_mut(source) {
            part.is_rewinding = false;
        }
        self.start_again(source);
    }
}

impl Refused {
    /// A source that has no positions.
    #[must_use]
    pub fn no_log(source: &str) -> Self {
        Self::Invalid(format!(
            "`{source}` is a queue: what it has settled is gone from it. Only an event hub keeps \
             events that were read"
        ))
    }
}
