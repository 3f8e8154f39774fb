use std::cell::RefCell;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    planted,
    scenario::{Report, Scenario},
};

#[path = "../../../tests/it/figures.rs"]
mod figures;

/// Seeds of one run of the tests.
const SEEDS: u64 = 2_000;
/// Seeds within which every planted mistake must be found.
const SEEDS_TO_FIND: u64 = 10_000;

/// A number of the environment.
pub(crate) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

thread_local! {
    static JITTER: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// What stands in for chance in the engine, where a simulation runs on this thread.
pub(crate) fn jitter() -> Option<f64> {
    JITTER.with_borrow_mut(|dice| Some(dice.as_mut()?.random_range(0.5..=1.0)))
}

/// Lets a world run on this thread alone, with what its seed says in place of chance.
pub(crate) fn on_simulated_time<T>(seed: u64, world: impl Future<Output = T>) -> T {
    JITTER.set(Some(StdRng::seed_from_u64(seed)));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let outcome = runtime.unwrap().block_on(world);
    JITTER.set(None);
    outcome
}

fn run(seed: u64) -> Result<Report, String> {
    on_simulated_time(seed, Scenario::of(seed).run())
}

#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = setting("EVENTFERRY_SEED") {
        println!("{:#?}", Scenario::of(seed));
        println!("{}", run(seed).unwrap());
        return;
    }
    let first = setting("EVENTFERRY_FIRST_SEED").unwrap_or_default();
    let seeds = setting("EVENTFERRY_SEEDS").unwrap_or(SEEDS);
    let (mut faults, mut processes) = (0, 0);
    for seed in first..first + seeds {
        let report = run(seed).unwrap_or_else(|breach| {
            let replay = format!("EVENTFERRY_SEED={seed} cargo test --lib simulation");
            panic!("seed {seed}: {breach}\nreplay: {replay}")
        });
        faults += report.faults;
        processes += u64::from(report.processes);
    }
    let run = format!("seeds {first} to {}", first + seeds - 1);
    let found = serde_json::json!({
        "worlds": seeds, "faults": faults, "processes": processes, "lost": 0, "violations": 0,
    });
    figures::note("simulation", &run, found);
    assert!(faults > seeds && processes > seeds, "nothing ever happened");
}

#[test]
fn a_seed_is_replayed_exactly() {
    for seed in 0..200 {
        let digest = || run(seed).unwrap().digest;
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

#[test]
fn every_planted_mistake_is_found() {
    for bug in planted::ALL {
        planted::plant(Some(bug));
        let found = (0..SEEDS_TO_FIND).find_map(|seed| Some((seed, run(seed).err()?)));
        planted::plant(None);
        let Some((seed, breach)) = found else { panic!("{bug:?} is not found") };
        println!("{bug:?}: seed {seed}: {breach}");
    }
}
