//! What goes wrong again and again is said a few times, and then how often: a sink that is away
//! must not fill the log, nor hide in it what else is wrong.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

use super::logs::Line;

/// Lines alike that pass before the rest is counted.
const FEW: u64 = 5;
/// How long lines alike are taken together.
const WINDOW: Duration = Duration::from_secs(30);
/// Kinds of lines that are told apart; what is beyond passes.
const KINDS_MAX: usize = 1_000;
/// Fields that say whom a line is about. A summary has them.
const WHOM: [&str; 5] = ["source", "partition", "route", "sink", "connector"];
/// The field that says which event a line is about.
const EVENT: &str = "id";

/// The lines of late. Alike are warnings of one place in the code that differ in numbers alone, or
/// in the event that they are about.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<HashMap<u64, Kind>>>);

#[derive(Debug)]
struct Kind {
    since: Instant,
    count: u64,
    /// The last one.
    line: Line,
}

impl Repeats {
    fn kinds(&self) -> MutexGuard<'_, HashMap<u64, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this one is to be said.
    fn passes(&self, line: Line, now: Instant) -> bool {
        let alike = alike(&line);
        let mut kinds = self.kinds();
        if let Some(kind) = kinds.get_mut(&alike) {
            kind.count += 1;
            kind.line = line;
            return kind.count <= FEW;
        }
        if kinds.len() < KINDS_MAX {
            kinds.insert(alike, Kind { since: now, count: 1, line });
        }
        true
    }

    /// Says how often it was, of all that began before.
    pub(super) fn sum_up(&self, before: Instant) {
        let old: Vec<_> = self.kinds().extract_if(|_, kind| kind.since <= before).collect();
        for (_, Kind { count, line, .. }) in old {
            if count > FEW {
                line.was_repeated(count - FEW);
            }
        }
    }

    /// Sums up now and then, for as long as it is polled.
    pub(super) async fn keep_summing_up(self) {
        loop {
            tokio::time::sleep(WINDOW / 10).await;
            if let Some(before) = Instant::now().checked_sub(WINDOW) {
                self.sum_up(before);
            }
        }
    }
}

impl Line {
    fn was_repeated(&self, times: u64) {
        let said = self.message.as_str();
        let field = |wanted: &str| {
            let found = self.fields.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let [source, partition, route, sink, connector] = WHOM.map(field);
        let error = field("error").or_else(|| field("fault"));
        // A name of a field is written where it is compiled.
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(
                    said, times, source, partition, route, sink, connector, error, "repeated"
                )
            };
        }
        match self.level {
            Level::ERROR => say!(error),
            _ => say!(warn),
        }
    }
}

/// What lines that are alike have in common.
fn alike(line: &Line) -> u64 {
    let mut hash = DefaultHasher::new();
    (line.target, line.level.as_str(), &line.message).hash(&mut hash);
    for (name, value) in line.fields.iter().filter(|(name, _)| *name != EVENT) {
        let is_whom = WHOM.contains(name);
        name.hash(&mut hash);
        // Numbers of requests and of events, and times to wait, differ each time.
        let words = value.split([' ', ',', ';']);
        words.filter(|it| is_whom || !it.contains(|c: char| c.is_ascii_digit())).for_each(|word| {
            word.hash(&mut hash);
        });
    }
    hash.finish()
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let meta = event.metadata();
        if *meta.level() > Level::WARN || meta.target() == module_path!() {
            return true;
        }
        self.passes(Line::of(event), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Said {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let Line { level, message, fields, .. } = Line::of(event);
            let fields = fields.iter().map(|(name, value)| format!(" {name}={value}"));
            let text = format!("{level} {message}{}", fields.collect::<String>());
            self.0.lock().unwrap().push(text);
        }
    }

    #[test]
    fn what_is_said_again_and_again_is_said_a_few_times_and_then_how_often() {
        let (repeats, said) = (Repeats::default(), Said::default());
        let subscriber = tracing_subscriber::registry().with(repeats.clone()).with(said.clone());
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..100_usize {
                let error = format!("throttled (request {n:08x}, after 1.{n} s)");
                let id = ["a", "b", "c"][n % 3];
                tracing::warn!(sink = "far", error, id, wait_ms = n, "sink is unwell");
                tracing::info!(n, "carries on");
            }
            tracing::warn!(sink = "far", error = "denied", wait_ms = 1, "sink is unwell");
            tracing::warn!(sink = "near", error = "denied", wait_ms = 1, "sink is unwell");
            tracing::error!(partition = "3", "gone");
            tracing::error!(partition = "4", "gone");
            repeats.sum_up(Instant::now());
            tracing::warn!(sink = "far", error = "denied", wait_ms = 2, "sink is unwell");
        });
        let said = said.0.lock().unwrap().clone();
        let (few, rest): (Vec<_>, Vec<_>) =
            said.into_iter().partition(|it| it.contains("throttled") && !it.contains("repeated"));
        assert_eq!(few.len(), 5);
        let (informed, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|it| it.starts_with("INFO"));
        assert_eq!(informed.len(), 100);
        assert_eq!(
            rest,
            [
                "WARN sink is unwell sink=far error=denied wait_ms=1",
                "WARN sink is unwell sink=near error=denied wait_ms=1",
                "ERROR gone partition=3",
                "ERROR gone partition=4",
                "WARN repeated said=sink is unwell times=95 sink=far \
                 error=throttled (request 00000063, after 1.99 s)",
                "WARN sink is unwell sink=far error=denied wait_ms=2",
            ]
        );
    }

    #[test]
    fn a_window_is_waited_for() {
        let (repeats, said) = (Repeats::default(), Said::default());
        let subscriber = tracing_subscriber::registry().with(repeats.clone()).with(said.clone());
        tracing::subscriber::with_default(subscriber, || {
            let before = Instant::now();
            (0..FEW + 1).for_each(|_| tracing::warn!("again"));
            repeats.sum_up(before.checked_sub(Duration::from_millis(1)).unwrap());
            assert_eq!(said.0.lock().unwrap().len(), FEW as usize);
            assert_eq!(repeats.kinds().len(), 1);
        });
    }

    #[test]
    fn so_many_kinds_are_told_apart_and_all_others_pass() {
        let repeats = Repeats::default();
        let line = |connector: usize| Line {
            level: Level::WARN,
            target: "t",
            message: "m".to_owned(),
            fields: vec![("connector", connector.to_string())],
            time: std::time::SystemTime::now(),
            context: None,
        };
        let now = Instant::now();
        assert!((0..2 * KINDS_MAX).all(|connector| repeats.passes(line(connector), now)));
        assert!((0..2 * FEW).all(|_| repeats.passes(line(KINDS_MAX + 1), now)));
        assert_eq!(repeats.kinds().len(), KINDS_MAX);
    }
}
