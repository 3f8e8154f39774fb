//! Event patterns: the filter language of Amazon EventBridge, as users know it. A pattern names
//! fields, and for each of them the tests of which one must hold:
//! `{"type": ["order.placed"], "data": {"amount": [{"numeric": [">", 100]}]}}`.
//!
//! Here a pattern is read and judged; [`fields`] is what of an event it is held against.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html>

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::config::problem::Finding;

mod clock;
mod contradiction;
mod covering;
pub mod explain;
pub mod fields;
pub mod index;
mod read;
mod scan;
mod together;
mod wanted;
mod wildcard;
mod written;

use clock::Clock;
use fields::{Fields, Scalar, Wanted, Within};
use wanted::Slot;
use wildcard::Wildcard;

/// A pattern that has been read and can be matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    /// Each of them is enough: fields that must all match. More than one only where `$or` says so.
    ways: Vec<Vec<Arc<Field>>>,
}

/// A field and what it may be.
#[derive(Debug, Clone, PartialEq)]
struct Field {
    /// Names from the top, joined by dots.
    path: Arc<str>,
    /// One of these must hold.
    tests: Vec<Test>,
}

/// What one value must be.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    Equals(Literal),
    Text(Text),
    AnythingBut(Vec<Literal>),
    AnythingButText(Vec<Text>),
    Numeric(Range),
    Exists(bool),
    Cidr(Cidr),
    Clock(Clock),
}

/// A JSON value that is neither an object nor an array.
#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Null,
    Bool(bool),
    Number(f64),
    Text(Arc<str>),
}

/// What a text must be like.
#[derive(Debug, Clone, PartialEq)]
enum Text {
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    /// These three hold their text in [folded](fold) case.
    Equal(String),
    PrefixFolded(String),
    SuffixFolded(String),
    Wildcard(Wildcard),
}

/// Numbers from here to there.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    above: Option<Bound>,
    below: Option<Bound>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound {
    number: f64,
    inclusive: bool,
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is not one: all that is wrong, where, and what to write instead.
    pub fn read(pattern: &Map<String, Value>) -> Result<Self, Vec<Finding>> {
        read::pattern(pattern)
    }

    /// The first names of the paths that it looks at.
    pub fn tops(&self) -> BTreeSet<&str> {
        self.fields().filter_map(|field| field.path.split('.').next()).collect()
    }

    /// Names the paths that it looks at.
    pub fn want(&self, wanted: &mut Wanted) {
        self.fields().for_each(|field| _ = wanted.insert(&field.path));
    }

    fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.ways.iter().flatten()
    }

    /// Whether the event that these fields are of matches. Values from different elements of one
    /// array never match together.
    #[must_use]
    pub fn matches(&self, fields: &Fields<'_>) -> bool {
        self.ways
            .iter()
            .any(|way| holds(way.iter().map(|field| (fields.slot(&field.path), &**field)), fields))
    }
}

/// Whether all fields of a way match.
fn holds<'f>(
    way: impl IntoIterator<Item = (Option<Slot>, &'f Field)>,
    fields: &Fields<'_>,
) -> bool {
    let mut places = Vec::new();
    for (slot, field) in way {
        match field.holds(slot, fields) {
            Held::No => return false,
            Held::Free => {}
            Held::Within(within) => places.push(within),
        }
    }
    places.len() < 2 || fields.together(&places)
}

/// Where a field matches.
enum Held {
    No,
    /// In no array, so that it goes with all others.
    Free,
    /// In these elements of arrays.
    Within(Vec<Within>),
}

impl Field {
    fn holds(&self, slot: Option<Slot>, fields: &Fields<'_>) -> Held {
        let Some(slot) = slot.filter(|slot| fields.has(*slot)) else {
            let absent = self.tests.iter().any(|test| matches!(test, Test::Exists(false)));
            return if absent { Held::Free } else { Held::No };
        };
        let mut places = Vec::new();
        for leaf in fields.at(slot) {
            if self.tests.iter().any(|test| test.holds(&leaf.value, fields.now())) {
                if leaf.within == Within::NONE {
                    return Held::Free;
                }
                if places.last() != Some(&leaf.within) {
                    places.push(leaf.within);
                }
            }
        }
        if places.is_empty() { Held::No } else { Held::Within(places) }
    }
}

impl Test {
    /// Whether it holds for a value that is there.
    fn holds(&self, value: &Scalar<'_>, now: OffsetDateTime) -> bool {
        match self {
            Self::Equals(literal) => literal.is(value),
            Self::Text(text) => value.text().is_some_and(|value| text.holds(value)),
            Self::AnythingBut(literals) => !literals.iter().any(|literal| literal.is(value)),
            Self::AnythingButText(texts) => {
                value.text().is_none_or(|value| !texts.iter().any(|text| text.holds(value)))
            }
            Self::Numeric(range) => value.number().is_some_and(|number| range.holds(number)),
            Self::Exists(exists) => *exists,
            Self::Cidr(cidr) => {
                let address = value.text().and_then(|text| text.parse().ok());
                address.is_some_and(|address| cidr.holds(address))
            }
            Self::Clock(clock) => {
                let time = value.text().and_then(clock::time);
                time.is_some_and(|time| clock.holds(time, now))
            }
        }
    }
}

impl Literal {
    fn is(&self, value: &Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Null, Scalar::Null) => true,
            (Self::Bool(one), Scalar::Bool(other)) => one == other,
            (Self::Number(one), Scalar::Number(other)) => one == other,
            (Self::Text(one), Scalar::Text(other)) => **one == **other,
            _ => false,
        }
    }
}

impl Text {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Equal(text) => fold(value) == *text,
            Self::PrefixFolded(prefix) => fold(value).starts_with(prefix),
            Self::SuffixFolded(suffix) => fold(value).ends_with(suffix),
            Self::Wildcard(wildcard) => wildcard.matches(value),
        }
    }
}

/// Text in one case, whatever it was in.
fn fold(text: &str) -> String {
    text.to_lowercase()
}

impl Range {
    fn holds(self, number: f64) -> bool {
        let above =
            |Bound { number: bound, inclusive }| number > bound || (inclusive && number == bound);
        let below =
            |Bound { number: bound, inclusive }| number < bound || (inclusive && number == bound);
        self.above.is_none_or(above) && self.below.is_none_or(below)
    }
}

impl Cidr {
    fn holds(self, address: IpAddr) -> bool {
        let same = |network: u128, address: u128, width: u32| {
            let rest = width - u32::from(self.bits);
            network.checked_shr(rest).unwrap_or(0) == address.checked_shr(rest).unwrap_or(0)
        };
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same(network.to_bits().into(), address.to_bits().into(), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same(network.to_bits(), address.to_bits(), 128)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod agreement;

#[cfg(test)]
mod judge;
