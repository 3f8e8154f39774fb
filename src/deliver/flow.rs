//! What all lanes of a sink share: how much it is sent, how much of that at once, and whether it
//! is asked at all. Each request passes here before it is made and when it is answered.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::{
    backoff::HINT_MAX,
    breaker::{Breaker, BreakerConfig, Pass, State as BreakerState},
    bucket::{Grant, Limit, LimitConfig},
    concurrency::{Concurrency, ConcurrencyConfig},
    wellness::Wellness,
};
use crate::{
    sink::Limits,
    telemetry::{SinkMetrics, Wait},
};

/// How a sink is treated, whoever sends to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct FlowConfig {
    /// How much it is sent in a second.
    pub limit: LimitConfig,
    /// How many requests are under way at once.
    pub concurrency: ConcurrencyConfig,
    /// When it is left alone.
    pub breaker: BreakerConfig,
}

/// Events that are sent to see whether a sink works again.
const PROBE_EVENTS: usize = 1;

/// How long who evades a sink stays away while one event is on its way to see whether it works.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// The control of one sink.
#[derive(Debug)]
pub(super) struct Flow {
    sink: Arc<str>,
    /// One permit for each request that may be under way. Waiting lanes get theirs in turn.
    requests: Arc<Semaphore>,
    shared: Mutex<Shared>,
    /// What lanes wait for may have come early: the breaker has changed.
    changed: Notify,
    pub(super) wellness: Wellness,
    metrics: SinkMetrics,
}

#[derive(Debug)]
struct Shared {
    limit: Limit,
    /// How many limits there have been: what one has granted is no token of another.
    limits: u32,
    concurrency: Concurrency,
    breaker: Breaker,
    /// The service asks for nothing before this.
    hold: Instant,
    /// Permits that there are, free or not.
    issued: usize,
    under_way: usize,
    /// Whether it has not connected yet.
    absent: bool,
}

/// What the service made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has answered for each event, whatever it said.
    Well,
    /// It was too busy for some of them, and asks for this much time.
    Partly(Option<Duration>),
    /// It has not answered for any of them, and may ask for this much time.
    Failed(Option<Duration>),
}

/// What comes of waiting for a turn.
pub(super) enum Admission {
    /// A request may be made.
    Go(Permit),
    /// Nothing is sent until then, because the sink does not work, or only asks for time.
    Shut { until: Instant, works: bool },
}

impl Flow {
    /// The control of a sink that takes so much, where nothing has happened yet.
    pub(super) fn new(
        sink: Arc<str>,
        config: FlowConfig,
        limits: &Limits,
        metrics: SinkMetrics,
    ) -> Self {
        let now = Instant::now();
        let concurrency = Concurrency::new(config.concurrency, limits.in_flight);
        let issued = concurrency.limit();
        metrics.concurrency(issued);
        metrics.breaker(0);
        let shared = Shared {
            limit: Limit::new(config.limit, now),
            limits: 0,
            concurrency,
            breaker: Breaker::new(config.breaker),
            hold: now,
            issued,
            under_way: 0,
            absent: false,
        };
        Self {
            sink,
            requests: Arc::new(Semaphore::new(issued)),
            shared: Mutex::new(shared),
            changed: Notify::new(),
            wellness: Wellness::default(),
            metrics,
        }
    }

    /// The sink has not connected yet: until it has [arrived](Self::arrived) it is left alone.
    pub(super) fn absent(&self) {
        let mut shared = self.shared();
        shared.absent = true;
        self.wellness.absent();
        self.tell(&shared);
    }

    /// The sink has connected.
    pub(super) fn arrived(&self) {
        let mut shared = self.shared();
        shared.absent = false;
        self.wellness.well();
        self.tell(&shared);
        drop(shared);
        self.changed.notify_waiters();
    }

    /// Sends no more than this in a second from now on.
    pub(super) fn limit(&self, config: LimitConfig) {
        let mut shared = self.shared();
        shared.limit = Limit::new(config, Instant::now());
        shared.limits += 1;
        drop(shared);
        self.changed.notify_waiters();
    }

    /// Leaves the sink alone until it is [reset](Self::reset), however it answers. What has been
    /// sent to it may still be answered.
    pub(super) fn hold(&self) {
        let mut shared = self.shared();
        shared.breaker.hold();
        self.wellness.held(true);
        self.tell(&shared);
        drop(shared);
        self.changed.notify_waiters();
    }

    /// Sends again, whatever the sink has said; what it has asked for is still kept to.
    pub(super) fn reset(&self) {
        let mut shared = self.shared();
        shared.breaker.reset();
        self.wellness.held(false);
        if !shared.absent {
            self.wellness.well();
        }
        self.tell(&shared);
        drop(shared);
        self.changed.notify_waiters();
    }

    /// Requests that can ever be under way at once.
    pub(super) fn lanes(&self) -> usize {
        self.shared().concurrency.max()
    }

    /// Waits until a request within `most` may be made. Who need not wait `evades` a sink
    /// that is left alone, and is told at once. Cancel-safe: who no longer waits has no turn.
    pub(super) async fn admit(self: Arc<Self>, most: Limits, evades: bool) -> Admission {
        let began = Instant::now();
        // It is never closed.
        let slot = self.requests.clone().acquire_owned().await.ok();
        self.metrics.waited(Wait::Concurrency, began.elapsed());
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = Instant::now();
            let (reason, until) = match self.ask(&most, now) {
                Ok((grant, by, probe)) => {
                    let flow = self.clone();
                    let sent = None;
                    return Admission::Go(Permit { flow, slot, grant, by, probe, sent });
                }
                Err(wait) => wait,
            };
            if evades && reason != Wait::Rate {
                let until = until.unwrap_or(now + PROBE_WAIT);
                self.metrics.waited(reason, until - now);
                return Admission::Shut { until, works: reason == Wait::Throttle };
            }
            match until {
                Some(until) => tokio::select! {
                    biased;
                    () = sleep_until(until) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
            self.metrics.waited(reason, now.elapsed());
        }
    }

    /// What may be sent now, by which limit, and whether it is a probe; or for what to wait.
    fn ask(
        &self,
        most: &Limits,
        now: Instant,
    ) -> Result<(Grant, u32, bool), (Wait, Option<Instant>)> {
        let mut shared = self.shared();
        if shared.absent {
            return Err((Wait::Breaker, None));
        }
        if now < shared.hold {
            return Err((Wait::Throttle, Some(shared.hold)));
        }
        let probe = match shared.breaker.pass(now) {
            Pass::Free => false,
            Pass::Probe => true,
            Pass::NotBefore(until) => return Err((Wait::Breaker, Some(until))),
            Pass::AfterProbe | Pass::AfterReset => return Err((Wait::Breaker, None)),
        };
        let events = if probe { PROBE_EVENTS } else { most.events };
        match shared.limit.grant(Grant { events, bytes: most.bytes }, now) {
            Ok(grant) => {
                shared.under_way += 1;
                self.tell(&shared);
                Ok((grant, shared.limits, probe))
            }
            Err(until) => {
                if probe {
                    shared.breaker.unused(now);
                }
                Err((Wait::Rate, Some(until)))
            }
        }
    }

    /// Until when nothing is sent, if that is known.
    fn shut(shared: &Shared) -> Option<Instant> {
        match shared.breaker.state() {
            BreakerState::Open { until } => Some(until),
            BreakerState::Closed { .. } | BreakerState::HalfOpen | BreakerState::Held => None,
        }
    }

    /// A request is over. Its permit is kept only if there may be as many.
    fn over(&self, shared: &mut Shared, slot: Option<OwnedSemaphorePermit>) {
        shared.under_way = shared.under_way.saturating_sub(1);
        let limit = shared.concurrency.limit();
        match slot {
            Some(slot) if shared.issued > limit => {
                slot.forget();
                shared.issued -= 1;
            }
            slot => drop(slot),
        }
        if shared.issued > limit {
            shared.issued -= self.requests.forget_permits(shared.issued - limit);
        } else if shared.issued < limit {
            self.requests.add_permits(limit - shared.issued);
            shared.issued = limit;
        }
        self.tell(shared);
    }

    fn tell(&self, shared: &Shared) {
        self.metrics.concurrency(shared.concurrency.limit());
        self.metrics.breaker(match shared.breaker.state() {
            _ if shared.absent => 2,
            BreakerState::Closed { .. } => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } | BreakerState::Held => 2,
        });
    }

    /// The control of a sink is whole at any time, whoever panicked.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one request. Dropped before it is sent, it leaves no trace.
#[derive(Debug)]
#[must_use = "a dropped permit lets somebody else send"]
pub(super) struct Permit {
    flow: Arc<Flow>,
    slot: Option<OwnedSemaphorePermit>,
    grant: Grant,
    /// The number of the limit that has granted it.
    by: u32,
    probe: bool,
    sent: Option<Instant>,
}

impl Permit {
    /// What the request may hold of what the sink takes.
    pub(super) fn within(&self, limits: Limits) -> Limits {
        let Grant { events, bytes } = self.grant;
        Limits { events: limits.events.min(events), bytes: limits.bytes.min(bytes), ..limits }
    }

    /// What the request really holds; the rest is for others.
    pub(super) fn holds(&mut self, events: usize, bytes: usize) {
        let used = Grant { events, bytes };
        if used != self.grant {
            let mut shared = self.flow.shared();
            if shared.limits == self.by {
                shared.limit.used(self.grant, used);
            }
            drop(shared);
            self.grant = used;
        }
    }

    /// The request is made now.
    pub(super) fn sends(&mut self) {
        self.sent = Some(Instant::now());
    }

    /// The request was answered. Until when the sink is left alone, if it is.
    pub(super) fn answered(mut self, answer: Answer) -> Option<Instant> {
        let now = Instant::now();
        let sent = self.sent.unwrap_or(now);
        let flow = self.flow.clone();
        let mut shared = flow.shared();
        let before = shared.breaker.state();
        let hint = match answer {
            Answer::Well => {
                let under_way = shared.under_way;
                shared.concurrency.answered(now - sent, under_way);
                shared.breaker.answered();
                None
            }
            Answer::Partly(hint) => {
                shared.concurrency.throttled(sent, now);
                shared.breaker.answered();
                hint
            }
            Answer::Failed(hint) => {
                shared.concurrency.throttled(sent, now);
                shared.breaker.failed(self.probe, hint, now);
                hint
            }
        };
        self.probe = false;
        shared.hold = shared.hold.max(now + hint.unwrap_or_default().min(HINT_MAX));
        let shut = Flow::shut(&shared);
        match (before, shared.breaker.state()) {
            (BreakerState::Closed { .. }, BreakerState::Open { .. }) => {
                shared.concurrency.start_over();
                flow.metrics.opened();
                tracing::warn!(sink = %flow.sink, "sink does not work and is left alone; its events wait");
            }
            (BreakerState::Closed { .. }, BreakerState::Closed { .. }) => {}
            (_, BreakerState::Closed { .. }) => {
                tracing::info!(sink = %flow.sink, "sink works again, sending goes on");
            }
            _ => {}
        }
        if let Some(until) = shut {
            flow.wellness.unwell(until);
        }
        flow.over(&mut shared, self.slot.take());
        let changed = !matches!(
            (before, shared.breaker.state()),
            (BreakerState::Closed { .. }, BreakerState::Closed { .. })
        );
        drop(shared);
        if changed {
            flow.changed.notify_waiters();
        }
        shut
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if self.sent.is_none() {
            self.holds(0, 0);
        }
        let mut shared = self.flow.shared();
        if self.probe {
            shared.breaker.unused(Instant::now());
        }
        self.flow.over(&mut shared, Some(slot));
        drop(shared);
        if self.probe {
            self.flow.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
