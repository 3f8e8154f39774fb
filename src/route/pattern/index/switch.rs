//! The tests that ways have of one path, and where each leads: most of them are found by a look-up
//! of the value, not tried one by one.

use std::sync::Arc;

use super::{
    Fields, Slot,
    affixes::{Affixes, End},
    networks::Networks,
    parts::Parts,
    ranges::Ranges,
};
use crate::route::pattern::{
    Clock, Literal, Test, Text, clock, fields::Scalar, fold, wanted::QuickMap,
};

/// What ways are filed under.
#[derive(Debug, Clone)]
pub(super) enum Key {
    /// That a value passes this test, or that there is none if it says so.
    Test(Test),
    /// That a value is text and has this in it.
    Part(Arc<str>),
}

#[derive(Debug, Default)]
pub(super) struct Switch {
    /// Where any value leads.
    any: Option<u32>,
    texts: QuickMap<Box<str>, u32>,
    numbers: QuickMap<u64, u32>,
    prefixes: Affixes,
    suffixes: Affixes,
    parts: Parts,
    /// What ignores case.
    folded: Option<Box<Folded>>,
    ranges: Ranges,
    networks: Networks,
    clocks: Vec<(Clock, u32)>,
    /// What has to be tried.
    others: Vec<(Test, u32)>,
}

#[derive(Debug, Default)]
struct Folded {
    texts: QuickMap<Box<str>, u32>,
    prefixes: Affixes,
    suffixes: Affixes,
}

impl Switch {
    /// A key that no other added is equal to, and is not that nothing is there.
    pub(super) fn add(&mut self, key: &Key, to: u32) {
        let test = match key {
            Key::Part(part) => return self.parts.add(part, to),
            Key::Test(test) => test,
        };
        match test {
            Test::Equals(Literal::Text(text)) => _ = self.texts.insert((&**text).into(), to),
            Test::Equals(Literal::Number(number)) => _ = self.numbers.insert(bits(*number), to),
            Test::Text(text) => self.add_text(text, to),
            Test::Numeric(range) => self.ranges.add(*range, to),
            Test::Cidr(cidr) => self.networks.add(*cidr, to),
            Test::Clock(clock) => self.clocks.push((clock.clone(), to)),
            Test::Exists(_) => self.any = Some(to),
            Test::Equals(_) | Test::AnythingBut(_) | Test::AnythingButText(_) => {
                self.others.push((test.clone(), to));
            }
        }
    }

    fn add_text(&mut self, text: &Text, to: u32) {
        match text {
            Text::Prefix(prefix) => self.prefixes.add(End::Front, prefix, to),
            Text::Suffix(suffix) => self.suffixes.add(End::Back, suffix, to),
            Text::Equal(text) => _ = self.folded().texts.insert(text.as_str().into(), to),
            Text::PrefixFolded(text) => self.folded().prefixes.add(End::Front, text, to),
            Text::SuffixFolded(text) => self.folded().suffixes.add(End::Back, text, to),
            Text::Wildcard(_) => self.others.push((Test::Text(text.clone()), to)),
        }
    }

    fn folded(&mut self) -> &mut Folded {
        self.folded.get_or_insert_default()
    }

    /// To be called once all has been added.
    pub(super) fn finish(&mut self) {
        self.prefixes.finish();
        self.suffixes.finish();
        if let Some(folded) = &mut self.folded {
            folded.prefixes.finish();
            folded.suffixes.finish();
        }
        self.ranges.finish();
    }

    /// Where the values at this path lead, each place once.
    pub(super) fn follow(&self, slot: Slot, fields: &Fields<'_>, open: &mut Vec<u32>) {
        let before = open.len();
        for leaf in fields.at(slot) {
            self.lead(&leaf.value, fields, &mut |to| open.push(to));
        }
        if fields.has(slot) {
            open.extend(self.any);
        }
        if open.len() > before + 1 {
            let mut found = open.split_off(before);
            found.sort_unstable();
            found.dedup();
            open.append(&mut found);
        }
    }

    fn lead(&self, value: &Scalar<'_>, fields: &Fields<'_>, to: &mut dyn FnMut(u32)) {
        match value {
            Scalar::Text(text) => self.lead_text(text, fields, to),
            Scalar::Number(number) => {
                self.numbers.get(&bits(*number)).into_iter().for_each(|at| to(*at));
                self.ranges.find(*number, to);
            }
            Scalar::Null | Scalar::Bool(_) | Scalar::Bytes => {}
        }
        for (test, at) in &self.others {
            if test.holds(value, fields.now()) {
                to(*at);
            }
        }
    }

    fn lead_text(&self, text: &str, fields: &Fields<'_>, to: &mut dyn FnMut(u32)) {
        if !self.texts.is_empty() {
            self.texts.get(text).into_iter().for_each(|at| to(*at));
        }
        self.prefixes.find(End::Front, text, to);
        self.suffixes.find(End::Back, text, to);
        self.parts.find(text, to);
        if let Some(folded) = &self.folded {
            let text = fold(text);
            folded.texts.get(text.as_str()).into_iter().for_each(|at| to(*at));
            folded.prefixes.find(End::Front, &text, to);
            folded.suffixes.find(End::Back, &text, to);
        }
        self.networks.find(text, to);
        if !self.clocks.is_empty()
            && let Some(time) = clock::time(text)
        {
            let holding = self.clocks.iter().filter(|(clock, _)| clock.holds(time, fields.now()));
            holding.for_each(|(_, at)| to(*at));
        }
    }
}

/// What equal numbers have in common. Patterns hold no -0, events may.
fn bits(number: f64) -> u64 {
    (number + 0.0).to_bits()
}
