use super::*;
use crate::{
    fault::Fault,
    settle::{Desk, Opening},
    source::Backlog,
};

fn opening(serial: u64) -> Opening {
    let token = Token::Lease { serial, handle: "h".into() };
    Opening { token, since: Instant::now(), bytes: 7, ties: None, process: None }
}

#[test]
fn what_waited_to_be_handed_out_falls_due_first() {
    let now = Instant::now();
    let half = Duration::from_secs(15);
    let (desk, _told) = Desk::new(Some(2 * half));
    let mut leases = Leases::default();
    let mut keep = Vec::new();
    for (serial, since) in [(1, now), (2, now - half), (3, now - half / 2)] {
        let (pending, branches) = desk.open(Opening { since, ..opening(serial) }, 1);
        leases.hold(vec![pending], None, 2 * half);
        keep.push(branches);
    }
    assert_eq!(leases.next_due(), now);
    let (due, _) = leases.take_due(now + half / 2, Duration::from_secs(3600));
    let serials = due.iter().map(|token| match token {
        Token::Lease { serial, .. } => *serial,
        Token::Position { .. } => panic!("not leased"),
    });
    assert_eq!(serials.collect::<Vec<_>>(), [2, 3]);
    assert_eq!(leases.next_due(), now + half);
}

/// Refuses the first tries of each.
struct Unwell(HashMap<Token, u32>, mpsc::UnboundedSender<Token>);

#[async_trait::async_trait]
impl Settle for Unwell {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let mut failed = Vec::new();
        for settled in done {
            let tries = self.0.entry(settled.token.clone()).or_default();
            *tries += 1;
            match *tries {
                1..=3 => failed.push((settled, Fault::busy("s", "away", "x"))),
                _ => drop(self.1.send(settled.token)),
            }
        }
        failed
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_settled_is_tried_again_when_nothing_more_comes() {
    let (desk, told) = Desk::new(None);
    let (seen_tx, mut seen) = mpsc::unbounded_channel();
    let budget = Arc::new(Budget::new(crate::source::InFlight::default()));
    budget.take(1, 7);
    let metrics = crate::telemetry::Metrics::new().unwrap().source(&"s".into());
    let settle = Box::new(Unwell(HashMap::new(), seen_tx));
    let keeper = Keeper::new(settle, None, told, budget.clone(), metrics);
    let opening = opening(1);
    let token = opening.token.clone();
    let (pending, branches) = desk.open(opening, 1);
    branches.for_each(|b| b.finish(crate::delivery::Outcome::Delivered));
    drop((pending, desk));
    // Ends by itself, without being stopped.
    timeout(Duration::from_secs(600), keeper.run(CancellationToken::new())).await.unwrap();
    assert_eq!(seen.recv().await, Some(token));
    assert_eq!(budget.in_flight().0, 0);
}

/// Tells what it settles.
struct Telling(mpsc::UnboundedSender<Settled>);

#[async_trait::async_trait]
impl Settle for Telling {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        done.into_iter().for_each(|settled| drop(self.0.send(settled)));
        Vec::new()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_still_being_sent_when_it_must_end_goes_back() {
    let hour = Duration::from_secs(3600);
    let (desk, told) = Desk::new(Some(hour));
    let (telling, mut settled) = mpsc::unbounded_channel();
    let budget = Arc::new(Budget::new(crate::source::InFlight::default()));
    budget.take(2, 14);
    let metrics = crate::telemetry::Metrics::new().unwrap().source(&"s".into());
    let lease = Some(Lease { duration: hour, total_max: 12 * hour });
    let keeper = Keeper::new(Box::new(Telling(telling)), lease, told, budget.clone(), metrics);
    let ((done, finished), (sent, mut sending)) =
        (desk.open(opening(1), 1), desk.open(opening(2), 1));
    desk.opened(vec![done, sent], None);
    finished.for_each(|branch| branch.finish(Outcome::Delivered));
    let sending = sending.next().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    keeper.run(stop).await;
    let mut outcomes = Vec::new();
    while let Some(Settled { token, outcome }) = settled.recv().await {
        outcomes.push((matches!(token, Token::Lease { serial: 1, .. }), outcome));
    }
    let returned = Outcome::Returned { after: None };
    assert_eq!(outcomes, [(true, Outcome::Delivered), (false, returned)]);
    assert_eq!(budget.in_flight(), (0, 0));
    assert!(sending.is_lost(), "nobody needs to try that again");
}

/// Extends so often, and then has no answer for it.
struct Silent(u32);

#[async_trait::async_trait]
impl Settle for Silent {
    async fn settle(&mut self, _: Vec<Settled>) -> Vec<(Settled, Fault)> {
        Vec::new()
    }

    async fn extend(&mut self, _: &[Token], _: Duration) -> Extended {
        match self.0.checked_sub(1) {
            Some(left) => self.0 = left,
            None => std::future::pending().await,
        }
        Extended::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_sent_once_its_lease_has_ended_though_nobody_says_so() {
    let minute = Duration::from_secs(60);
    for extensions in [0, 3] {
        let (desk, told) = Desk::new(Some(2 * minute));
        let budget = Arc::new(Budget::new(crate::source::InFlight::default()));
        let metrics = crate::telemetry::Metrics::new().unwrap().source(&"s".into());
        let lease = Some(Lease { duration: 2 * minute, total_max: 720 * minute });
        let keeper =
            Keeper::new(Box::new(Silent(extensions)), lease, told, budget.clone(), metrics);
        let (pending, mut branches) = desk.open(opening(1), 1);
        let branch = branches.next().unwrap();
        desk.opened(vec![pending], None);
        // Each comes after half of the one before it.
        let looks = async {
            tokio::time::sleep((extensions + 2) * minute - Duration::from_secs(1)).await;
            assert!(!branch.is_lost(), "{extensions}");
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(branch.is_lost(), "{extensions}");
        };
        tokio::select! {
            () = keeper.run(CancellationToken::new()) => panic!("it has ended"),
            () = looks => {}
        }
    }
}

/// Something waits at the service, which does not say for how long.
struct Waiting;

#[async_trait::async_trait]
impl Settle for Waiting {
    async fn settle(&mut self, _: Vec<Settled>) -> Vec<(Settled, Fault)> {
        Vec::new()
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        Ok(vec![Backlog { partition: String::new(), events: 3, oldest: None, reach: None }])
    }
}

#[tokio::test(start_paused = true)]
async fn the_age_of_what_is_open_is_told() {
    for (age, told) in [(Some(100), "_age_seconds{source=\"s\"} 100\n"), (None, "")] {
        let hour = Duration::from_secs(3600);
        let (desk, heard) = Desk::new(Some(hour));
        let budget = Arc::new(Budget::new(crate::source::InFlight::default()));
        let metrics = crate::telemetry::Metrics::new().unwrap();
        let lease = Some(Lease { duration: hour, total_max: 12 * hour });
        let of = metrics.source(&"s".into());
        let keeper = Keeper::new(Box::new(Waiting), lease, heard, budget, of);
        let (pending, _branch) = desk.open(opening(1), 1);
        let oldest = age.map(|age| OffsetDateTime::now_utc() - time::Duration::seconds(age));
        desk.opened(vec![pending], oldest);
        let run = timeout(Duration::from_millis(10), keeper.run(CancellationToken::new()));
        assert!(run.await.is_err());
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains(told) && text.contains("backlog_events"), "{text}");
        assert_eq!(text.contains("backlog_age_seconds{"), age.is_some());
    }
}

#[test]
fn no_lease_is_asked_for_beyond_the_services_longest_time() {
    let hour = Duration::from_secs(3600);
    let lease = Lease { duration: 2 * hour, total_max: 12 * hour };
    let token = |serial| Token::Lease { serial, handle: "h".into() };
    let since = Instant::now();
    let mut leases = Leases::default();
    for (serial, since) in [(1, since), (2, since + 2 * hour)] {
        let (until, pending) = (since + 2 * hour, Weak::new());
        leases.open.insert(token(serial), Held { since, until, enqueued: None, pending });
    }
    let extension = |hours, serials: &[u64]| {
        let due: Vec<_> = serials.iter().map(|serial| token(*serial)).collect();
        leases.extension(&due, since + hours * hour, lease)
    };
    assert_eq!(extension(9, &[1, 2]), 2 * hour);
    assert_eq!(extension(11, &[2]), 2 * hour);
    let left = hour - TOTAL_MARGIN / 2;
    assert_eq!(extension(11, &[1, 2]), left);
}

/// What a service is asked to do with leases.
enum Asked {
    Extend(Vec<Token>),
    Settle(Vec<Token>),
}

/// Tells what it is asked. Takes its time to extend, and will not take anything back before a time.
struct Heard(mpsc::UnboundedSender<Asked>, Instant);

#[async_trait::async_trait]
impl Settle for Heard {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let tokens = done.iter().map(|settled| settled.token.clone()).collect();
        drop(self.0.send(Asked::Settle(tokens)));
        let refuses = Instant::now() < self.1;
        let back = done.into_iter().filter(|it| refuses && !it.outcome.is_done());
        back.map(|settled| (settled, Fault::busy("s", "away", "x"))).collect()
    }

    async fn extend(&mut self, open: &[Token], _: Duration) -> Extended {
        drop(self.0.send(Asked::Extend(open.to_vec())));
        tokio::time::sleep(Duration::from_secs(10)).await;
        Extended::default()
    }
}

#[tokio::test(start_paused = true)]
async fn no_lease_is_extended_once_its_token_was_handed_in() {
    let (minute, begun) = (Duration::from_secs(60), Instant::now());
    let (desk, told) = Desk::new(Some(2 * minute));
    let (asks, mut asked) = mpsc::unbounded_channel();
    let budget = Arc::new(Budget::new(crate::source::InFlight::default()));
    budget.take(4, 28);
    let metrics = crate::telemetry::Metrics::new().unwrap().source(&"s".into());
    let lease = Some(Lease { duration: 2 * minute, total_max: 720 * minute });
    let heard = Heard(asks, begun + 10 * minute);
    let keeper = Keeper::new(Box::new(heard), lease, told, budget, metrics);
    let (pending, branches): (Vec<_>, Vec<_>) =
        (0..4).map(|serial| desk.open(opening(serial), 1)).unzip();
    desk.opened(pending, None);
    // The last one stays open, so that there is always something to extend.
    let mut open = branches.into_iter();
    let returned = Outcome::Returned { after: None };
    let ends = async {
        // Before its first extension; in the middle of it; and after three, while the service will
        // not hear of it for minutes.
        for (seconds, outcome) in
            [(30, Outcome::Delivered), (65, Outcome::Delivered), (200, returned)]
        {
            sleep_until(begun + Duration::from_secs(seconds)).await;
            open.next().unwrap().for_each(|branch| branch.finish(outcome));
        }
        sleep_until(begun + 20 * minute + minute / 2).await;
    };
    tokio::select! {
        () = keeper.run(CancellationToken::new()) => panic!("it has ended"),
        () = ends => {}
    }
    let mut handed_in: HashMap<Token, usize> = HashMap::new();
    let mut extended: HashMap<Token, usize> = HashMap::new();
    while let Ok(asked) = asked.try_recv() {
        match asked {
            Asked::Settle(tokens) => {
                tokens.into_iter().for_each(|token| *handed_in.entry(token).or_default() += 1);
            }
            Asked::Extend(tokens) => {
                for token in tokens {
                    assert!(!handed_in.contains_key(&token), "extended after its end: {token:?}");
                    *extended.entry(token).or_default() += 1;
                }
            }
        }
    }
    let of = |counts: &HashMap<Token, usize>| {
        let count = |serial| counts.get(&opening(serial).token).copied().unwrap_or_default();
        [0, 1, 2, 3].map(count)
    };
    // What is open is extended every minute, for ten leases.
    assert_eq!(of(&extended), [0, 1, 3, 20]);
    let [first, second, refused, last] = of(&handed_in);
    assert_eq!((first, second, last), (1, 1, 0));
    assert!(refused > 1, "it was taken at once");
}
