//! What goes wrong, and when: all of it follows from the seed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::sleep;

use crate::fault::{Fault, Verdict};

/// The dice of one run. One task rolls at a time, because there is one thread.
pub(super) struct Chaos {
    dice: Mutex<StdRng>,
    /// Faults come until this is cleared; then everything must end well.
    strikes: AtomicBool,
    /// How many faults there were: a run without any proves nothing.
    pub(super) faults: AtomicU64,
    /// How likely each kind is, in a thousand calls.
    pub(super) rates: Rates,
}

/// Faults in a thousand calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) error: u32,
    pub(super) lost_answer: u32,
    pub(super) partial: u32,
    pub(super) slow: u32,
}

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Roll {
    Well,
    /// Nothing is done, and the caller is told so.
    Error,
    /// It is done, and the caller is told that it is not.
    LostAnswer,
    /// Some of it is done.
    Partial,
}

impl Chaos {
    pub(super) fn new(seed: u64, rates: Rates) -> Self {
        let dice = Mutex::new(StdRng::seed_from_u64(seed));
        Self { dice, strikes: true.into(), faults: 0.into(), rates }
    }

    /// From now on all is well.
    pub(super) fn heal(&self) {
        self.strikes.store(false, Ordering::Relaxed);
    }

    pub(super) fn strikes(&self) -> bool {
        self.strikes.load(Ordering::Relaxed)
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.dice.lock().unwrap().random_range(0..bound.max(1))
    }

    /// Whether something happens that happens so often in a thousand.
    pub(super) fn happens(&self, rate: u32) -> bool {
        self.strikes() && self.below(1000) < u64::from(rate)
    }

    fn fault(&self, rate: u32) -> bool {
        let strikes = self.happens(rate);
        self.faults.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }

    /// How a call goes, once it has taken its time.
    pub(super) async fn roll(&self) -> Roll {
        let Rates { error, lost_answer, partial, slow } = self.rates;
        // A call that never waits would never let time pass.
        let longest = if self.fault(slow) { 40_000 } else { 20 };
        sleep(Duration::from_millis(self.below(longest))).await;
        match () {
            () if self.fault(error) => Roll::Error,
            () if self.fault(lost_answer) => Roll::LostAnswer,
            () if self.fault(partial) => Roll::Partial,
            () => Roll::Well,
        }
    }

    /// One of the ways in which a service is unwell, or has not taken one event.
    pub(super) fn any_fault(&self, op: &'static str) -> Fault {
        let after = Some(Duration::from_millis(self.below(3_000)));
        let verdict = match self.below(8) {
            0..=2 => Verdict::Retry { after: None },
            3..=4 => Verdict::Busy { after: None },
            5..=6 => Verdict::Busy { after },
            _ => Verdict::Stop,
        };
        Fault::new(verdict, op, "simulated", "as the dice say")
    }
}
