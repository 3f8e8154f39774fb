//! A pipeline that runs, and how it ends: its own work first, then what others wait for.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::{JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    pipeline::{Ends, Pipeline, routing::Routing},
    settle::Budget,
    source::Source,
    telemetry::SourceMetrics,
};

/// Kept of the grace period for giving back what is still open and for the last checkpoint.
const GRACE_MARGIN: Duration = Duration::from_secs(3);

/// How long an end may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Until then, what is in flight may finish. What has not begun to be sent then goes back.
    pub(super) deliver: Instant,
    /// Until then, what is being sent may finish.
    pub(super) send: Instant,
    /// Until then, what has ended is settled, and checkpoints are written.
    pub(super) settle: Instant,
}

impl Bounds {
    /// Those of an end that begins now.
    pub(super) fn within(grace: Duration) -> Self {
        let now = Instant::now();
        let deliver = now + grace.saturating_sub(GRACE_MARGIN.min(grace / 2));
        let send = deliver + GRACE_MARGIN / 3;
        // What a sink is still sending holds up the settling task for a while.
        Self { deliver, send, settle: send + GRACE_MARGIN }
    }
}

/// Tells a pipeline to end.
#[derive(Debug)]
pub(super) struct End(oneshot::Sender<Bounds>);

impl End {
    /// Begins the end. What is still open after it comes again.
    pub(super) fn begin(self, bounds: Bounds) {
        // A pipeline that is gone has ended of a defect, and the daemon ends for it.
        let _ = self.0.send(bounds);
    }
}

/// A pipeline that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) source: Arc<str>,
    /// Whether all that was in flight was dealt with in time.
    pub(super) in_time: bool,
}

/// A pipeline and its tasks.
pub(super) struct Running {
    source: Arc<str>,
    metrics: SourceMetrics,
    routing: Arc<Routing>,
    budget: Arc<Budget>,
    ends: Ends,
    tasks: JoinSet<()>,
    end: oneshot::Receiver<Bounds>,
}

impl Running {
    /// Starts a pipeline. The daemon must [run](Self::run) it.
    pub(super) fn start(pipeline: Pipeline, source: Source) -> (Self, End) {
        let (tell, end) = oneshot::channel();
        let ends = Ends { drain: CancellationToken::new(), finish: CancellationToken::new() };
        let (name, routing) = (pipeline.name.clone(), pipeline.routing.clone());
        let (metrics, budget) = (pipeline.metrics.clone(), pipeline.budget.clone());
        let mut tasks = JoinSet::new();
        pipeline.spawn(source, &ends, &mut tasks);
        (Self { source: name, metrics, routing, budget, ends, tasks, end }, End(tell))
    }

    /// Runs until it is told to end, and ends within the bounds that it is told: nothing is
    /// received any more, what is in flight finishes, what sinks hold up goes back, the rest is
    /// left to come again by itself.
    ///
    /// # Errors
    /// A task of it has died of a defect.
    pub(super) async fn run(mut self) -> Result<Ended, JoinError> {
        let bounds = tokio::select! {
            bounds = &mut self.end => bounds.unwrap_or_else(|_| Bounds::within(Duration::ZERO)),
            ended = ended(&mut self.tasks) => {
                ended?;
                return Ok(Ended { source: self.source, in_time: true });
            }
        };
        let began = Instant::now();
        self.ends.drain.cancel();
        let done = timeout_at(bounds.deliver, ended(&mut self.tasks)).await;
        let in_time = done.is_ok() || self.budget.in_flight().0 == 0;
        let mut done = done.ok();
        if done.is_none() {
            self.routing.recall();
            done = timeout_at(bounds.send, ended(&mut self.tasks)).await.ok();
        }
        if done.is_none() {
            self.ends.finish.cancel();
            done = timeout_at(bounds.settle, ended(&mut self.tasks)).await.ok();
        }
        match done {
            Some(ended) => ended?,
            None => {
                tracing::warn!(
                    source = %self.source,
                    "the source did not answer in time; what was not settled will come again"
                );
                self.tasks.shutdown().await;
            }
        }
        self.metrics.drained(began.elapsed());
        Ok(Ended { source: self.source, in_time })
    }
}

/// Waits until all tasks have ended. Cancel-safe.
async fn ended(tasks: &mut JoinSet<()>) -> Result<(), JoinError> {
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
