//! How many events a route passes on in a second, in all or for each key. Time is handed in, but for
//! what is dropped.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::problem::Finding;

/// How many events a route passes on, and what becomes of the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimit")]
pub struct RateLimitConfig {
    /// Events in a second, in the long run; 0.5 is one in two seconds.
    pub per_second: f64,
    /// Events that may pass at once after a quiet time. Without it: those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// What the limit is for.
    #[serde(default)]
    pub by: By,
    /// What becomes of an event that is over it.
    #[serde(default)]
    pub over: Over,
}

/// How much a route may pass on, as somebody asks for it while it runs. What becomes of the others is
/// for the file to say: they wait, if it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Events in a second, in the long run; 0.5 is one in two seconds.
    pub per_second: f64,
    /// Events that may pass at once after a quiet time. Without it: those of one second.
    #[serde(default)]
    pub burst: Option<u32>,
    /// What the limit is for.
    #[serde(default)]
    pub by: By,
}

impl Pace {
    /// This pace for a route of which the file says this.
    #[must_use]
    pub fn within(self, file: Option<RateLimitConfig>) -> RateLimitConfig {
        let Self { per_second, burst, by } = self;
        let over = file.map(|it| it.over).unwrap_or_default();
        RateLimitConfig { per_second, burst, by, over }
    }
}

/// What a rate limit is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// All events of the route.
    #[default]
    Route,
    /// The events of each key; those without a key count as having one and the same.
    Key,
}

/// What becomes of an event that is over a rate limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// It waits until it may pass.
    #[default]
    Wait,
    /// It is settled and counted as filtered.
    Drop,
    /// It goes to the dead letter.
    DeadLetter,
}

/// About one event in a day.
const PER_SECOND_MIN: f64 = 0.00001;
const PER_SECOND_MAX: f64 = 1_000_000.0;
const BURST_MAX: u32 = 1_000_000;

impl RateLimitConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !(PER_SECOND_MIN..=PER_SECOND_MAX).contains(&self.per_second) {
            let text = format!(
                "{} events in a second cannot be kept to; from {PER_SECOND_MIN} to {PER_SECOND_MAX} can",
                self.per_second
            );
            findings.push(Finding::new(text).below("per_second"));
        }
        if let Some(burst) = self.burst.filter(|burst| !(1..=BURST_MAX).contains(burst)) {
            let hint = match burst {
                0 => "nothing would ever pass; without bursts it is 1".to_owned(),
                _ => format!("{BURST_MAX} is the most"),
            };
            findings.push(Finding::new(format!("{burst} events at once: {hint}")).below("burst"));
        }
        findings
    }

    /// In words, for people who look at what holds.
    #[must_use]
    pub fn in_words(&self) -> String {
        let by = if self.by == By::Key { " of each key" } else { "" };
        let burst = self.burst.map(|burst| format!(", {burst} at once")).unwrap_or_default();
        let over = match self.over {
            Over::Wait => "",
            Over::Drop => ", the others dropped",
            Over::DeadLetter => ", the others parked",
        };
        format!("{} events{by} in a second{burst}{over}", self.per_second)
    }

    /// How long the last of so many events waits that come at once after a quiet time; nothing
    /// where none waits, or where keys do not wait for each other.
    #[must_use]
    pub fn longest_wait(&self, events: usize) -> Option<Duration> {
        if self.over != Over::Wait || self.by != By::Route {
            return None;
        }
        let RateLimit { interval, ahead, .. } = self.limit();
        let places = u32::try_from(events.saturating_sub(1)).unwrap_or(u32::MAX);
        Some(interval.saturating_mul(places).saturating_sub(ahead))
    }

    /// The limit at work. What is out of bounds is brought within them.
    #[must_use]
    pub fn limit(&self) -> RateLimit {
        let per_second = match self.per_second.is_nan() {
            true => PER_SECOND_MIN,
            false => self.per_second.clamp(PER_SECOND_MIN, PER_SECOND_MAX),
        };
        let burst = self.burst.unwrap_or(per_second.ceil() as u32).clamp(1, BURST_MAX);
        RateLimit::new(per_second, burst, self.by, KEYS_MAX)
    }
}

/// A rate limit at work, shared by all that pass events on the route.
///
/// The generic cell rate algorithm: each event books the next free place, and places lie one
/// interval apart; an event may go up to a burst's length before its place. Over any span of time,
/// at most `burst + rate × span` have their turn; one that waits behind another of its key, of another
/// source, goes later. The place of an event that goes back to its source before its turn is free
/// again: it comes again, and would else wait behind itself.
#[derive(Debug)]
pub struct RateLimit {
    /// Between two places. Rounded up, so that the rate is never exceeded.
    interval: Duration,
    /// How far ahead of its place an event may go.
    ahead: Duration,
    by: By,
    /// Nobody waits for a turn here: it is only said when each would have it.
    is_apart: bool,
    places: Mutex<Places>,
}

/// Keys that have a place of their own to keep. Those beyond share [`SHARED`] places by their
/// hash, and with them one rate: they may wait longer than they have to, but no key ever passes
/// more than its limit, and none is out of its order.
const KEYS_MAX: usize = 65_536;
/// Places for the keys beyond.
const SHARED: usize = 4096;
/// How often a full table is searched for keys that need not be kept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The free places of each key.
#[derive(Debug)]
struct Places {
    /// For all, or for those without a key.
    whole: Free,
    by_key: HashMap<Box<str>, Free>,
    keys_max: usize,
    /// Empty until the table has been full for once.
    shared: Vec<Free>,
    swept: Option<Instant>,
}

/// The places that are free.
#[derive(Debug, Clone, Default)]
struct Free {
    /// This one and all behind it; none before the first has been booked.
    from: Option<Instant>,
    /// Those before it that have been given back.
    back: BTreeSet<Instant>,
}

impl Free {
    /// The first one. What was not used by now cannot be made up for, but for the burst.
    fn first(&mut self, now: Instant) -> Instant {
        while self.back.first().is_some_and(|place| *place < now) {
            self.back.pop_first();
        }
        let from = self.from.map_or(now, |from| from.max(now));
        self.back.first().copied().unwrap_or(from)
    }

    fn book(&mut self, place: Instant, interval: Duration) {
        if !self.back.remove(&place) {
            self.from = Some(place + interval);
        }
    }
}

/// A place that an event has booked, and waits for.
#[derive(Debug)]
pub struct Turn {
    limit: Arc<RateLimit>,
    key: Option<Box<str>>,
    place: Instant,
    goes: Instant,
}

impl Turn {
    /// Books the next place for an event with this key. None where it need not wait.
    pub fn book(limit: &Arc<RateLimit>, key: Option<&str>, now: Instant) -> Option<Self> {
        let (place, goes) = limit.reserve(key, now);
        let key = key.map(Into::into);
        (goes > now).then(|| Self { limit: limit.clone(), key, place, goes })
    }

    /// When the event may go. It is for the lane to see that none overtakes another of its key.
    #[must_use]
    pub fn goes(&self) -> Instant {
        self.goes
    }
}

/// The event has not waited for it.
impl Drop for Turn {
    fn drop(&mut self) {
        let now = Instant::now();
        if now < self.goes && !self.limit.is_apart {
            self.limit.give_back(self.key.as_deref(), self.place, now);
        }
    }
}

impl RateLimit {
    fn new(per_second: f64, burst: u32, by: By, keys_max: usize) -> Self {
        let interval = Duration::from_nanos((1e9 / per_second).ceil() as u64);
        let places = Places {
            whole: Free::default(),
            by_key: HashMap::new(),
            keys_max,
            shared: Vec::new(),
            swept: None,
        };
        let ahead = interval.saturating_mul(burst.saturating_sub(1));
        Self { interval, ahead, by, is_apart: false, places: Mutex::new(places) }
    }

    /// The same, for who asks and does not wait.
    #[must_use]
    pub fn apart(self) -> Self {
        Self { is_apart: true, ..self }
    }

    /// Books the next place for an event with this key, and says when it may go: `now`, or later.
    fn reserve(&self, key: Option<&str>, now: Instant) -> (Instant, Instant) {
        self.among(key, now, |free| {
            let place = free.first(now);
            free.book(place, self.interval);
            (place, self.goes(place, now))
        })
    }

    fn give_back(&self, key: Option<&str>, place: Instant, now: Instant) {
        self.among(key, now, |free| free.back.extend([place]));
    }

    /// Books a place if an event with this key may go now, and says whether it may.
    pub fn take(&self, key: Option<&str>, now: Instant) -> bool {
        self.among(key, now, |free| {
            let place = free.first(now);
            let goes = self.goes(place, now) <= now;
            if goes {
                free.book(place, self.interval);
            }
            goes
        })
    }

    /// Whether an event with this key would have to wait. Books nothing.
    pub fn would_wait(&self, key: Option<&str>, now: Instant) -> bool {
        self.among(key, now, |free| self.goes(free.first(now), now) > now)
    }

    /// When the event with this place may go.
    fn goes(&self, place: Instant, now: Instant) -> Instant {
        place.checked_sub(self.ahead).map_or(now, |goes| goes.max(now))
    }

    fn among<T>(&self, key: Option<&str>, now: Instant, look: impl FnOnce(&mut Free) -> T) -> T {
        // Places are whole at any time, whoever panicked.
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        look(places.of(key.filter(|_| self.by == By::Key), now))
    }
}

impl Places {
    fn of(&mut self, key: Option<&str>, now: Instant) -> &mut Free {
        let Some(key) = key else { return &mut self.whole };
        let known = self.by_key.contains_key(key);
        if !known && self.by_key.len() >= self.keys_max {
            self.sweep(now);
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let share = (hasher.finish() % SHARED as u64) as usize;
        if !known && self.by_key.len() >= self.keys_max {
            self.shared.resize(SHARED, Free::default());
            return &mut self.shared[share];
        }
        // It may have booked places there while the table was full.
        let from = self.shared.get(share).and_then(|shared| shared.from);
        self.by_key.entry(key.into()).or_insert_with(|| Free { from, ..Free::default() })
    }

    /// Forgets keys whose place is past: they have what a new key has.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.by_key.retain(|_, free| free.from.is_some_and(|from| from > now));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(per_second: f64, burst: u32, by: By) -> RateLimit {
        RateLimit::new(per_second, burst, by, KEYS_MAX)
    }

    impl RateLimit {
        fn goes_at(&self, key: Option<&str>, now: Instant) -> Instant {
            self.reserve(key, now).1
        }
    }

    fn millis(instants: &[Instant], start: Instant) -> Vec<u128> {
        instants.iter().map(|at| (*at - start).as_millis()).collect()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let (limit, now) = (limit(10.0, 3, By::Route), Instant::now());
        let goes: Vec<_> = (0..6).map(|_| limit.goes_at(Some("a"), now)).collect();
        assert_eq!(millis(&goes, now), [0, 0, 0, 100, 200, 300]);
        // After a quiet time the burst is there again.
        let later = now + Duration::from_secs(5);
        let goes: Vec<_> = (0..4).map(|_| limit.goes_at(None, later)).collect();
        assert_eq!(millis(&goes, later), [0, 0, 0, 100]);
    }

    #[test]
    fn keys_do_not_wait_for_each_other() {
        let (limit, now) = (limit(1.0, 1, By::Key), Instant::now());
        let goes = [Some("a"), Some("b"), Some("a"), None, None].map(|key| limit.goes_at(key, now));
        assert_eq!(millis(&goes, now), [0, 0, 1000, 0, 1000]);
    }

    #[test]
    fn what_is_not_taken_books_nothing() {
        let (limit, now) = (limit(1.0, 1, By::Route), Instant::now());
        assert!(!limit.would_wait(None, now));
        assert!(limit.take(None, now));
        assert!(limit.would_wait(None, now) && !limit.take(None, now) && !limit.take(None, now));
        assert!(limit.take(None, now + Duration::from_secs(1)));
    }

    #[test]
    fn the_longest_wait_is_known_beforehand() {
        for (per_second, burst, events) in [(10.0, 3, 6), (0.5, 1, 40), (10.0, 3, 2)] {
            let mut config =
                RateLimitConfig { per_second, burst: Some(burst), by: By::Route, over: Over::Wait };
            let (limit, now) = (config.limit(), Instant::now());
            let last = (0..events).map(|_| limit.goes_at(None, now)).last().unwrap();
            assert_eq!(config.longest_wait(events), Some(last - now));
            config.over = Over::Drop;
            assert_eq!(config.longest_wait(events), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_back_before_its_turn_leaves_its_place_to_what_comes_again() {
        let (limit, start) = (Arc::new(limit(1.0, 1, By::Route)), Instant::now());
        let book = || Turn::book(&limit, Some("a"), Instant::now());
        assert!(book().is_none(), "the first need not wait");
        let mut waiting: Vec<_> = (0..5).map(|_| book().unwrap()).collect();
        let goes =
            |turns: &[Turn]| millis(&turns.iter().map(Turn::goes).collect::<Vec<_>>(), start);
        assert_eq!(goes(&waiting), [1000, 2000, 3000, 4000, 5000]);
        tokio::time::advance(Duration::from_millis(2500)).await;
        // Two have gone, one stays, and two go back; and those two come again, before a new one.
        let gone = waiting.drain(..2).collect::<Vec<_>>();
        waiting.truncate(1);
        drop(gone);
        waiting.extend((0..3).map(|_| book().unwrap()));
        assert_eq!(goes(&waiting), [3000, 4000, 5000, 6000]);
        // However often all go back.
        for _ in 0..1000 {
            waiting.clear();
            waiting.extend((0..4).map(|_| book().unwrap()));
        }
        assert_eq!(goes(&waiting), [3000, 4000, 5000, 6000]);
        // What nobody has used is not saved up.
        waiting.clear();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(book().is_none());
        let turn = book().unwrap();
        assert_eq!(turn.goes() - Instant::now(), Duration::from_secs(1));
        assert!(limit.places.lock().unwrap().whole.back.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_idle_keys_make_room() {
        let limit = RateLimit::new(1.0, 1, By::Key, 100);
        let now = Instant::now();
        for n in 0..10_000 {
            limit.goes_at(Some(&n.to_string()), now);
        }
        let kept = || limit.places.lock().unwrap().by_key.len();
        assert_eq!(kept(), 100);
        let later = now + Duration::from_secs(60);
        assert_eq!(limit.goes_at(Some("new"), later), later);
        assert_eq!(kept(), 1);
    }

    #[test]
    fn a_key_that_gets_its_own_place_keeps_what_it_has_booked() {
        let (limit, now) = (RateLimit::new(1.0, 1, By::Key, 1), Instant::now());
        limit.goes_at(Some("a"), now);
        let goes = [0; 5].map(|_| limit.goes_at(Some("b"), now));
        assert_eq!(millis(&goes, now), [0, 1000, 2000, 3000, 4000]);
        // By now, the other has made room.
        let goes = limit.goes_at(Some("b"), now + Duration::from_secs(2));
        assert_eq!(millis(&[goes], now), [5000]);
    }

    #[test]
    fn what_cannot_be_kept_to_is_found() {
        let config = |json: serde_json::Value| serde_json::from_value::<RateLimitConfig>(json);
        let findings = |json| {
            let findings = config(json).unwrap().findings();
            findings.iter().map(|one| format!("{}: {one}", one.path)).collect::<Vec<_>>()
        };
        use serde_json::json;
        assert!(
            findings(json!({"per_second": 100, "burst": 200, "by": "key", "over": "drop"}))
                .is_empty()
        );
        let wrong = findings(json!({"per_second": 0, "burst": 0}));
        assert_eq!(
            wrong,
            [
                "per_second: 0 events in a second cannot be kept to; from 0.00001 to 1000000 can",
                "burst: 0 events at once: nothing would ever pass; without bursts it is 1",
            ]
        );
        assert!(config(json!({"per_second": 1, "bursts": 2})).is_err());
    }

    #[test]
    fn the_burst_is_a_seconds_worth_unless_given() {
        let at_once = |per_second, burst| {
            let config = RateLimitConfig { per_second, burst, by: By::Route, over: Over::Drop };
            let (limit, now) = (config.limit(), Instant::now());
            (0..100).filter(|_| limit.take(None, now)).count()
        };
        assert_eq!([at_once(2.5, None), at_once(0.1, None), at_once(2.5, Some(7))], [3, 1, 7]);
        assert_eq!([at_once(f64::NAN, None), at_once(-1.0, Some(0))], [1, 1]);
    }

    proptest! {
        /// Whatever comes when, with a table that is too small or not.
        #[test]
        fn no_window_holds_more_than_burst_and_rate_and_keys_stay_in_order(
            per_second in 0.5f64..500.0,
            burst in 1u32..20,
            keys_max in 1usize..6,
            arrivals in proptest::collection::vec((0u64..200, 0u8..6, any::<bool>()), 1..200),
        ) {
            let limit = RateLimit::new(per_second, burst, By::Key, keys_max);
            let start = Instant::now();
            let mut now = start;
            let mut gone: HashMap<u8, Vec<Instant>> = HashMap::new();
            for (wait, key, waits) in arrivals {
                now += Duration::from_millis(wait);
                let name = format!("k{key}");
                let would_wait = limit.would_wait(Some(&name), now);
                let goes = match waits {
                    true => Some(limit.goes_at(Some(&name), now)),
                    false => limit.take(Some(&name), now).then_some(now),
                };
                prop_assert_eq!(would_wait, goes != Some(now));
                gone.entry(key).or_default().extend(goes);
            }
            for goes in gone.values() {
                prop_assert!(goes.is_sorted());
                for (from, first) in goes.iter().enumerate() {
                    for (to, last) in goes.iter().enumerate().skip(from) {
                        let most = f64::from(burst) + per_second * (*last - *first).as_secs_f64();
                        prop_assert!((to - from + 1) as f64 <= most + 1e-6);
                    }
                }
            }
        }

        /// Whatever goes back before its turn.
        #[test]
        fn no_window_holds_more_where_some_go_back(
            per_second in 0.5f64..500.0,
            burst in 1u32..20,
            arrivals in proptest::collection::vec((0u64..100, 0u8..3, any::<bool>()), 1..200),
        ) {
            let limit = limit(per_second, burst, By::Key);
            let start = Instant::now();
            let mut now = start;
            let mut gone: HashMap<String, Vec<(Instant, Instant)>> = HashMap::new();
            for (wait, key, all_go_back) in arrivals {
                now += Duration::from_millis(wait);
                let key = format!("k{key}");
                let booked = gone.entry(key.clone()).or_default();
                if all_go_back {
                    for (place, _) in booked.extract_if(.., |(_, goes)| *goes > now) {
                        limit.give_back(Some(&key), place, now);
                    }
                }
                booked.push(limit.reserve(Some(&key), now));
            }
            for mut goes in gone.into_values() {
                goes.sort_by_key(|(_, goes)| *goes);
                for (from, (_, first)) in goes.iter().enumerate() {
                    for (to, (_, last)) in goes.iter().enumerate().skip(from) {
                        let most = f64::from(burst) + per_second * (*last - *first).as_secs_f64();
                        prop_assert!((to - from + 1) as f64 <= most + 1e-6);
                    }
                }
            }
        }
    }
}
