//! The routes that read one source: what shall become of each of its events. Pure but for the
//! turns that balancing takes.
//!
//! The pipeline asks with sinks that deliver, `explain` and `test` with names of sinks.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    When,
    choice::{Candidate, Choice},
    fields,
    part::Part,
    pattern::{
        fields::{Fields, Wanted},
        index::Index,
    },
    rate::{Over, RateLimit, RateLimitConfig, Turn},
    sample::Sample,
    timing::{Expire, Hold, Then},
};
use crate::{
    event::Event,
    transform::{Draft, Failure, Transform, map::Naming},
};

/// The routes of a source, in the order of the file.
#[derive(Debug)]
pub struct Table<T> {
    routes: Vec<Route<T>>,
    lanes: Arc<[Lane]>,
    /// Their patterns, and what of an event is looked at.
    index: Index,
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route<T> {
    /// Which events it takes.
    pub when: When,
    /// Whether an event that it takes is not shown to the routes after it.
    pub stop: bool,
    /// How many of them it sends.
    pub sample: Option<Sample>,
    /// Which of them come too late.
    pub expire: Option<Expire>,
    /// What is made of them.
    pub transform: Transform,
    /// Where they go.
    pub choice: Choice<T>,
    /// The lane of all of them, by its place in the list; without, the event's own.
    pub lane: Option<usize>,
    /// How long they are kept.
    pub hold: Option<Hold>,
    /// How many go in a second.
    pub rate: Option<Rate>,
    /// What tells one event from another, where that is not its source and id.
    pub identity: Option<Naming>,
    /// What its choice and the lanes look at; filled in by [`Table::new`].
    pub wanted: Wanted,
}

/// A lane that events are assigned to by what they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Its share of every sink's requests while there is more to send than goes out.
    pub weight: u32,
    /// Which events; none that no route puts there where it is left out.
    pub when: Option<When>,
}

/// What shall become of an event, or of a part of it.
#[derive(Debug)]
pub enum Planned<'t, T: Candidate> {
    /// It is sent.
    Send(Send<'t, T>),
    /// The route cannot send it: it goes to the dead letter.
    Fail {
        /// Place of the route in the table.
        route: usize,
        /// Why.
        failure: Failure,
        /// What the dead letter holds: see [`Send::original`].
        original: Arc<Event>,
        /// See [`Send::part`].
        part: Option<Part>,
    },
    /// The route has taken it and does not send it.
    Filter {
        /// Place of the route in the table.
        route: usize,
        /// Why: `sampled`, `expired`, `dropped`, `rate_limited`.
        reason: &'static str,
    },
}

/// An event on its way into a sink.
#[derive(Debug)]
pub struct Send<'t, T: Candidate> {
    /// Place of the route in the table.
    pub route: usize,
    /// The sink.
    pub to: &'t T,
    /// What is sent.
    pub event: Arc<Event>,
    /// What a dead letter holds: the event as it came, or the part that a step made of it.
    pub original: Arc<Event>,
    /// Which part that is, if it is one.
    pub part: Option<Part>,
    /// Its lane, by its place in the list.
    pub lane: usize,
    /// When it may be sent, if not at once.
    pub not_before: Option<Instant>,
    /// Its turn by the rate limit, if it waits for one; for all sinks the same.
    pub turn: Option<Arc<Turn>>,
    /// Makes it count for the events that are planned before it is handed over.
    pub underway: Option<T::Underway>,
    /// What tells the event as it came from others, where the route says so.
    pub identity: Option<Arc<str>>,
}

/// What is known of an event on its way, beside what is sent of it.
#[derive(Clone)]
struct Going {
    original: Arc<Event>,
    part: Option<Part>,
    name: Option<Arc<str>>,
}

/// The time of planning, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What events mean by time.
    pub time: OffsetDateTime,
    /// What waits are counted from.
    pub instant: Instant,
}

impl Now {
    /// This moment.
    #[must_use]
    pub fn read() -> Self {
        Self { time: OffsetDateTime::now_utc(), instant: Instant::now() }
    }
}

/// A rate limit and what has gone. Copies share it, so that it holds for all sources of a route.
#[derive(Debug, Clone)]
pub struct Rate {
    config: RateLimitConfig,
    limit: Arc<RateLimit>,
}

impl Rate {
    /// Nothing has gone yet.
    #[must_use]
    pub fn new(config: RateLimitConfig) -> Self {
        Self { config, limit: Arc::new(config.limit()) }
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> RateLimitConfig {
        self.config
    }

    /// The same limit of which nothing has gone, and which nobody else counts in.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { config: self.config, limit: Arc::new(self.config.limit().apart()) }
    }

    /// See [`RateLimitConfig::longest_wait`].
    #[must_use]
    pub fn longest_wait(&self, events: usize) -> Option<Duration> {
        self.config.longest_wait(events)
    }
}

#[cfg(test)]
impl Rate {
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.limit, &other.limit)
    }
}

/// What has gone does not matter.
impl PartialEq for Rate {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl<T> Route<T> {
    /// One that sends what its condition accepts as it is.
    #[must_use]
    pub fn new(when: When, choice: Choice<T>) -> Self {
        Self {
            when,
            stop: false,
            sample: None,
            expire: None,
            transform: Transform::default(),
            choice,
            lane: None,
            hold: None,
            rate: None,
            identity: None,
            wanted: Wanted::default(),
        }
    }

    /// Whether it takes every event.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.when.is_always() && self.choice.takes_all()
    }

    /// The same route to what `with` makes of each sink.
    pub fn try_map<U>(&self, with: &mut dyn FnMut(&T) -> Option<U>) -> Option<Route<U>> {
        Some(Route {
            when: self.when.clone(),
            stop: self.stop,
            sample: self.sample,
            expire: self.expire,
            transform: self.transform.clone(),
            choice: self.choice.try_map(with)?,
            lane: self.lane,
            hold: self.hold.clone(),
            rate: self.rate.clone(),
            identity: self.identity.clone(),
            wanted: Wanted::default(),
        })
    }
}

impl<T: Candidate> Table<T> {
    /// The table of these routes. There is at least one lane; events that belong into none are in
    /// the one called `normal`, or else in the last.
    #[must_use]
    pub fn new(mut routes: Vec<Route<T>>, lanes: Arc<[Lane]>) -> Self {
        let mut index = Index::new(routes.iter().map(|route| route.when.pattern()));
        for route in &mut routes {
            let mut later = Wanted::default();
            let wanted = if route.transform.is_empty() { index.wanted_mut() } else { &mut later };
            route.choice.conditions().for_each(|when| when.want(wanted));
            if route.lane.is_none() {
                lanes.iter().filter_map(|lane| lane.when.as_ref()).for_each(|w| w.want(wanted));
            }
            route.wanted = later;
        }
        Self { routes, lanes, index }
    }

    /// The routes, in the order of the file.
    #[must_use]
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }

    /// Adds what shall become of an event: nothing where no route takes it.
    pub fn plan<'t, P>(&'t self, event: &Arc<Event>, now: Now, planned: &mut Vec<P>)
    where
        P: From<Planned<'t, T>>,
    {
        let fields = fields(event, self.index.wanted(), now.time);
        for index in self.index.matches(&fields) {
            let route = &self.routes[index];
            let before = planned.len();
            match route.when.confirms(event) {
                Ok(false) => continue,
                Ok(true) => self.take(index, event, &fields, now, planned),
                Err(failure) => {
                    let original = event.clone();
                    planned
                        .push(Planned::Fail { route: index, failure, original, part: None }.into());
                }
            }
            if route.stop && planned.len() > before {
                return;
            }
        }
    }

    /// What a route makes of an event that its condition accepts.
    fn take<'t, P: From<Planned<'t, T>>>(
        &'t self,
        index: usize,
        event: &Arc<Event>,
        fields: &Fields<'_>,
        now: Now,
        planned: &mut Vec<P>,
    ) {
        let route = &self.routes[index];
        let filter = |reason| P::from(Planned::Filter { route: index, reason });
        let fail = |failure, original: &Arc<Event>, part| {
            let original = original.clone();
            P::from(Planned::Fail { route: index, failure, original, part })
        };
        if route.sample.is_some_and(|sample| !sample.holds(event)) {
            planned.push(filter("sampled"));
            return;
        }
        if let Some(expire) = route.expire.filter(|expire| expire.has_expired(event, now.time)) {
            planned.push(match expire.then {
                Then::Drop => filter("expired"),
                Then::DeadLetter => {
                    let text = format!("older than {}", expire.after);
                    fail(Failure::new("expired", text), event, None)
                }
            });
            return;
        }
        let events = match &route.transform {
            steps if steps.is_empty() => None,
            steps => match steps.parts((**event).clone()) {
                Err(failure) => return planned.push(fail(failure, event, None)),
                Ok(events) if events.is_empty() => return planned.push(filter("dropped")),
                Ok(events) => Some(events),
            },
        };
        // Of the event as it came: steps may change, and an event comes again as it came.
        let name = route.identity.as_ref();
        let name = name.map(|identity| identity.name(&mut Draft::new((**event).clone())));
        let name = match name.transpose() {
            Err(failure) => return planned.push(fail(failure, event, None)),
            Ok(name) => name.map(Arc::from),
        };
        let mut going = Going { original: event.clone(), part: None, name };
        let Some(events) = events else {
            return self.send(index, event, going, fields, now, planned);
        };
        for (made, at) in events {
            let made = Arc::new(made);
            // A part is parked by itself; anything else is still the event that came.
            if route.transform.splits() {
                let (event, name) = (event.clone(), going.name.clone());
                going.original = made.clone();
                going.part = Some(Part::Made { whole: event, name, at });
            }
            let before = planned.len();
            let fields = super::fields(&made, &route.wanted, now.time);
            self.send(index, &made, going.clone(), &fields, now, planned);
            // What is whole is not taken then, as without steps. Of a part nobody else knows.
            if planned.len() == before && route.transform.splits() {
                let text = "no case of the route takes what the steps made";
                let failure = Failure::new("unmatched", text);
                planned.push(fail(failure, &going.original, going.part.clone()));
            }
        }
    }

    fn send<'t, P: From<Planned<'t, T>>>(
        &'t self,
        index: usize,
        event: &Arc<Event>,
        going: Going,
        fields: &Fields<'_>,
        now: Now,
        planned: &mut Vec<P>,
    ) {
        let route = &self.routes[index];
        let Going { original, part, name } = going;
        let fail = |failure| {
            let (original, part) = (original.clone(), part.clone());
            P::from(Planned::Fail { route: index, failure, original, part })
        };
        let hold =
            route.hold.as_ref().map_or(Ok(Duration::ZERO), |hold| hold.wait(event, now.time));
        let chosen = route.choice.choose(event, fields);
        let lane = route.lane.map_or_else(|| self.lane(event, fields), Ok);
        let found = (|| Ok((hold?, chosen?, lane?)))();
        let (hold, chosen, lane) = match found {
            Ok(found) => found,
            Err(failure) => {
                planned.push(fail(failure));
                return;
            }
        };
        if chosen.is_empty() {
            return;
        }
        let (mut not_before, mut turn) = (now.instant + hold, None);
        if let Some(Rate { config, limit }) = &route.rate {
            let key = event.key.as_deref();
            match config.over {
                Over::Wait => {
                    turn = Turn::book(limit, key, now.instant).map(Arc::new);
                    not_before = turn.as_ref().map_or(not_before, |it| not_before.max(it.goes()));
                }
                _ if limit.take(key, now.instant) => {}
                Over::Drop => {
                    planned.push(Planned::Filter { route: index, reason: "rate_limited" }.into());
                    return;
                }
                Over::DeadLetter => {
                    let text = "the route's `rate_limit` is used up";
                    planned.push(fail(Failure::new("rate_limited", text)));
                    return;
                }
            }
        }
        let not_before = (not_before > now.instant).then_some(not_before);
        planned.extend(chosen.iter().map(|to| {
            let (event, original) = (event.clone(), original.clone());
            let (part, identity) = (part.clone(), name.clone());
            let underway = route.choice.counts().then(|| to.underway());
            let send = Send {
                route: index,
                to,
                event,
                original,
                part,
                lane,
                not_before,
                turn: turn.clone(),
                underway,
                identity,
            };
            Planned::Send(send).into()
        }));
    }

    /// The lane that an event is assigned to by what it is.
    fn lane(&self, event: &Event, fields: &Fields<'_>) -> Result<usize, Failure> {
        for (index, lane) in self.lanes.iter().enumerate() {
            if let Some(when) = &lane.when
                && when.accepts(event, fields)?
            {
                return Ok(index);
            }
        }
        let normal = self.lanes.iter().position(|lane| &*lane.name == NORMAL);
        Ok(normal.unwrap_or(self.lanes.len().saturating_sub(1)))
    }
}

impl Lane {
    /// The only lane, where there is one.
    #[must_use]
    pub fn only() -> Arc<[Self]> {
        Arc::new([Self { name: NORMAL.into(), weight: 1, when: None }])
    }
}

/// The lane of events that belong into no other.
pub const NORMAL: &str = "normal";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{
        route::choice::{Balance, Policy},
        transform::tests::event,
    };

    /// A sink with so many events under way to it.
    struct Loaded(&'static str, Arc<AtomicUsize>);

    #[derive(Debug)]
    struct One(Arc<AtomicUsize>);

    impl Drop for One {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Candidate for Loaded {
        fn name(&self) -> &str {
            self.0
        }
        fn is_well(&self) -> bool {
            true
        }
        fn in_flight(&self) -> usize {
            self.1.load(Ordering::Relaxed)
        }
        type Underway = One;
        fn underway(&self) -> One {
            self.1.fetch_add(1, Ordering::Relaxed);
            One(self.1.clone())
        }
    }

    #[test]
    fn the_events_of_a_batch_count_before_they_are_handed_over() {
        let loads = [4, 0].map(|load| Arc::new(AtomicUsize::new(load)));
        let to = ["a", "b"].into_iter().zip(&loads).map(|(name, load)| Loaded(name, load.clone()));
        let choice = Choice::Balance(Balance::new(Policy::LeastInFlight, to.collect()));
        let table = Table::new(vec![Route::new(When::default(), choice)], Lane::only());
        let now = Now { time: OffsetDateTime::UNIX_EPOCH, instant: Instant::now() };
        let mut planned: Vec<Planned<'_, _>> = Vec::new();
        (0..8).for_each(|_| table.plan(&Arc::new(event()), now, &mut planned));
        let seen = || loads.each_ref().map(|load| load.load(Ordering::Relaxed));
        assert_eq!((planned.len(), seen()), (8, [6, 6]));
        drop(planned);
        assert_eq!(seen(), [4, 0]);
    }
}
