//! What work costs: time of the thread that does it, which counts nothing while others have the
//! core, and allocations. Prints events a second of one core and allocations an event.

use std::{alloc::System, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How long each line is measured.
pub(crate) const TIME: Duration = Duration::from_secs(2);

/// What this thread has used up to a moment.
pub(crate) struct Mark {
    busy: Duration,
    allocations: usize,
}

impl Mark {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let busy = Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        );
        Self { busy, allocations: ALLOCATOR.stats().allocations }
    }

    pub(crate) fn busy(&self) -> Duration {
        Self::now().busy.saturating_sub(self.busy)
    }

    /// Prints what so many events have cost since, and answers how long one took.
    pub(crate) fn print(&self, name: &str, events: u64) -> Duration {
        let now = Self::now();
        let busy = now.busy.saturating_sub(self.busy);
        let events = events.max(1) as f64;
        let allocations = (now.allocations - self.allocations) as f64 / events;
        println!(
            "{name:<44} {:>10.0} events/s {:>10.0} ns/event {allocations:>8.1} allocations/event",
            events / busy.as_secs_f64(),
            busy.as_secs_f64() * 1e9 / events,
        );
        busy.div_f64(events)
    }
}

/// Does the work of one event again and again, prints what it cost, and answers how long it took.
#[allow(dead_code, reason = "the engine runs by itself")]
pub(crate) fn measure<T>(name: &str, mut work: impl FnMut() -> T) -> Duration {
    let mut run = |time: Duration| {
        let (mark, mut events) = (Mark::now(), 0);
        while mark.busy() < time {
            for _ in 0..64 {
                std::hint::black_box(work());
            }
            events += 64;
        }
        (mark, events)
    };
    run(TIME / 4);
    let (mark, events) = run(TIME);
    mark.print(name, events)
}
