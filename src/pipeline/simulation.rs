//! The engine in worlds that follow from a seed: the real pipeline, lanes, claims, keepers and
//! checkpoints on time that is simulated, between services that fail in every way at every
//! boundary, in processes that die and come back. After the storm all must be quiet, and nothing
//! lost, out of order, or repeated more often than can be accounted for.
//!
//! `make simulate SEEDS=100000` runs many. A seed that fails is printed; `EVENTFERRY_SEED=N cargo
//! test --lib simulation` replays it exactly.

mod chaos;
mod connectors;
mod history;
pub(crate) mod planted;
mod scenario;
mod tests;

pub(crate) use tests::{jitter, on_simulated_time, setting};
