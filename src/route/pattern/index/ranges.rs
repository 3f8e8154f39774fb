//! Many ranges of numbers, and which of them a number lies in.

use crate::route::pattern::{Bound, Range};

/// Sorted by where they begin; the middle one of each part stands above its two halves, as in a
/// search by halves.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    range: Range,
    to: u32,
    /// Where the last one ends of those in the part that this is the middle of.
    last: f64,
}

impl Range {
    fn begin(self) -> f64 {
        self.above.map_or(f64::NEG_INFINITY, |Bound { number, .. }| number)
    }

    fn end(self) -> f64 {
        self.below.map_or(f64::INFINITY, |Bound { number, .. }| number)
    }
}

impl Ranges {
    pub(super) fn add(&mut self, range: Range, to: u32) {
        self.0.push(Entry { range, to, last: range.end() });
    }

    pub(super) fn finish(&mut self) {
        self.0.sort_by(|one, other| one.range.begin().total_cmp(&other.range.begin()));
        part(&mut self.0);
    }

    /// Those that hold for `number`.
    pub(super) fn find(&self, number: f64, to: &mut dyn FnMut(u32)) {
        find(&self.0, number, to);
    }
}

/// Notes where each part ends; as deep as the list can be halved.
fn part(entries: &mut [Entry]) -> f64 {
    let middle = entries.len() / 2;
    let (before, rest) = entries.split_at_mut(middle);
    let Some((entry, after)) = rest.split_first_mut() else { return f64::NEG_INFINITY };
    entry.last = entry.range.end().max(part(before)).max(part(after));
    entry.last
}

fn find(entries: &[Entry], number: f64, to: &mut dyn FnMut(u32)) {
    let (before, rest) = entries.split_at(entries.len() / 2);
    let Some((entry, after)) = rest.split_first() else { return };
    if entry.last < number {
        return;
    }
    find(before, number, to);
    if entry.range.begin() <= number {
        if entry.range.holds(number) {
            to(entry.to);
        }
        find(after, number, to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_that_a_number_lies_in_are_found(
            bounds in prop::collection::vec(
                (prop::option::of((0..9i8, any::<bool>())), prop::option::of((0..9i8, any::<bool>()))),
                0..30,
            ),
            number in -1..10i8,
        ) {
            let bound = |bound: Option<(i8, bool)>| {
                bound.map(|(number, inclusive)| Bound { number: number.into(), inclusive })
            };
            let ranges: Vec<_> = bounds
                .into_iter()
                .map(|(above, below)| Range { above: bound(above), below: bound(below) })
                .collect();
            let mut all = Ranges::default();
            ranges.iter().zip(0..).for_each(|(range, at)| all.add(*range, at));
            all.finish();
            let mut found = Vec::new();
            all.find(number.into(), &mut |at| found.push(at));
            found.sort_unstable();
            let holding = ranges.iter().zip(0..).filter(|(range, _)| range.holds(number.into()));
            prop_assert_eq!(found, holding.map(|(_, at)| at).collect::<Vec<u32>>());
        }
    }
}
