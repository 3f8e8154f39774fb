//! Whatever happens, in whatever order: nothing is lost, doubled, early, or out of order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push {
        key: u8,
        class: u8,
        wait: Option<u8>,
    },
    /// A batch goes out, and these are the answers.
    Batch(Vec<Answer>),
    /// The first of those that are being parked is done with.
    Parked,
    /// Somebody says that the sink works.
    Hasten,
    Pass(u8),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Yes,
    Again(u8),
    Park,
    /// It has nowhere to go, and goes back to its source.
    Return,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        5 => Just(Answer::Yes),
        3 => (0u8..30).prop_map(Answer::Again),
        1 => Just(Answer::Park),
        1 => Just(Answer::Return),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![4 => Just(None), 1 => (0u8..50).prop_map(Some)];
    prop_oneof![
        6 => (0u8..5, 0u8..3, wait).prop_map(|(key, class, wait)| Step::Push { key, class, wait }),
        3 => proptest::collection::vec(answer(), 4).prop_map(Step::Batch),
        1 => Just(Step::Parked),
        1 => Just(Step::Hasten),
        1 => (0u8..30).prop_map(Step::Pass),
    ]
}

/// A lane around the queue, and what must be true of it.
struct Model {
    queue: LaneQueue<Item>,
    now: Instant,
    limits: Limits,
    pushed: u32,
    /// Numbers of what is in the queue, by key, and of what is being parked.
    open: BTreeMap<Option<Arc<str>>, BTreeSet<u32>>,
    parking: Vec<(Arc<str>, u32)>,
}

impl Model {
    fn new(together: bool, classes: usize) -> Self {
        Self {
            queue: LaneQueue::new(&Weights::new([5, 3, 1].into_iter().take(classes))),
            now: Instant::now(),
            limits: limits(together),
            pushed: 0,
            open: BTreeMap::new(),
            parking: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push { key, class, wait } => {
                let key = if key == 0 { String::new() } else { format!("k{key}") };
                let wait = wait.map(|wait| self.now + Duration::from_millis(wait.into()));
                let item = Item { not_before: wait, ..in_class(class, self.pushed, &key) };
                self.open.entry(item.key.clone()).or_default().insert(self.pushed);
                self.pushed += 1;
                self.queue.push([item]);
            }
            Step::Batch(answers) => self.batch(&answers)?,
            Step::Parked if self.parking.is_empty() => {}
            Step::Parked => {
                let (key, number) = self.parking.remove(0);
                self.close(&Some(key.clone()), number);
                if self.parking.iter().all(|(other, _)| *other != key) {
                    self.queue.release(&key);
                }
            }
            Step::Hasten => self.queue.hasten(self.now),
            Step::Pass(millis) => self.now += Duration::from_millis(millis.into()),
        }
        self.check()
    }

    fn batch(&mut self, answers: &[Answer]) -> Result<(), TestCaseError> {
        let ready = self.queue.is_ready(self.now);
        let batch = self.queue.batch(&self.limits, self.now);
        prop_assert!(ready || batch.is_empty());
        prop_assert!(batch.len() <= 4 && batch.iter().map(|item| item.bytes).sum::<usize>() <= 35);
        for (at, item) in batch.iter().enumerate() {
            prop_assert!(item.not_before.is_none_or(|due| due <= self.now), "early: {item:?}");
            let open = self.open.get(&item.key);
            prop_assert!(open.is_some_and(|open| open.contains(&item.number)), "doubled: {item:?}");
            let mates = batch.iter().take(at).filter(|mate| mate.key == item.key);
            let before: BTreeSet<u32> = mates.map(|mate| mate.number).collect();
            prop_assert!(item.key.is_none() || before.is_empty() || self.is_together());
            let overtaken = open.into_iter().flatten().filter(|other| !before.contains(other));
            let overtaken = overtaken.take_while(|other| **other < item.number).count();
            prop_assert!(item.key.is_none() || overtaken == 0, "out of order: {item:?}");
        }
        let mut by_key: BTreeMap<Arc<str>, Answer> = BTreeMap::new();
        let (mut again, mut released) = (Vec::new(), Vec::new());
        for (item, answer) in batch.into_iter().zip(answers) {
            let answer = match &item.key {
                Some(key) if self.is_together() => *by_key.entry(key.clone()).or_insert(*answer),
                _ => *answer,
            };
            match (answer, item.key.clone()) {
                (Answer::Again(wait), _) => {
                    again.push((item, self.now + Duration::from_millis(wait.into())));
                }
                (Answer::Park, Some(key)) => {
                    self.queue.hold(&key);
                    self.parking.push((key, item.number));
                }
                (Answer::Return, Some(key)) => {
                    self.close(&item.key, item.number);
                    for item in self.queue.take_behind(&key) {
                        prop_assert_eq!(&item.key, &Some(key.clone()));
                        self.close(&item.key, item.number);
                    }
                }
                (_, key) => {
                    self.close(&key, item.number);
                    released.extend(key);
                }
            }
        }
        self.queue.retry(again);
        for key in released {
            if self.parking.iter().all(|(parked, _)| *parked != key) {
                self.queue.release(&key);
            }
        }
        self.queue.end_batch();
        Ok(())
    }

    fn is_together(&self) -> bool {
        self.limits.order == Order::Together
    }

    fn close(&mut self, key: &Option<Arc<str>>, number: u32) {
        assert!(self.open.get_mut(key).is_some_and(|open| open.remove(&number)), "{number} twice");
    }

    /// Each key is in one class.
    fn check(&self) -> Result<(), TestCaseError> {
        for (class, queued) in self.queue.classes.iter().enumerate() {
            for turn in &queued.ready {
                let key = match turn {
                    Turn::Entry(item) => item.key.as_ref(),
                    Turn::Key(key, turn) => Some(key).filter(|key| {
                        self.queue.held.get(*key).is_some_and(|held| held.going(*turn) > 0)
                    }),
                };
                let in_class = key.is_none_or(|key| self.queue.members.class(key) == Some(class));
                prop_assert!(in_class, "{key:?} is not in {class}");
            }
        }
        Ok(())
    }

    /// Everything that is still open goes well, and nothing stays behind.
    fn finish(mut self) -> Result<(), TestCaseError> {
        for _ in 0..4 * self.pushed + 10 {
            self.step(Step::Parked)?;
            self.step(Step::Pass(60))?;
            self.step(Step::Batch(vec![Answer::Yes; 4]))?;
        }
        let left: Vec<_> = self.open.values().flatten().collect();
        prop_assert!(left.is_empty(), "lost: {left:?}");
        prop_assert!(self.queue.held.is_empty() && self.queue.delayed.is_empty());
        prop_assert!(self.queue.members.is_empty() && !self.queue.is_ready(self.now));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn nothing_is_lost_doubled_early_or_reordered(
        steps in proptest::collection::vec(step(), 1..150),
        together in any::<bool>(),
        classes in 1usize..=3,
    ) {
        let mut model = Model::new(together, classes);
        for step in steps {
            model.step(step)?;
        }
        model.finish()?;
    }

    /// At any time, what is in the queue is all that is open.
    #[test]
    fn draining_gives_all_that_is_here(
        steps in proptest::collection::vec(step(), 1..100),
        together in any::<bool>(),
    ) {
        let mut model = Model::new(together, 3);
        for step in steps {
            model.step(step)?;
        }
        let parked: BTreeSet<u32> = model.parking.iter().map(|(_, number)| *number).collect();
        let mut drained = numbers(&model.queue.drain());
        drained.sort_unstable();
        let mut open: Vec<u32> = model.open.into_values().flatten().collect();
        open.retain(|number| !parked.contains(number));
        open.sort_unstable();
        prop_assert_eq!(drained, open);
    }
}
