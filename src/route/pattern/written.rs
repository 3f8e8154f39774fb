//! A test as it is written in a pattern, for those who shall see why it does not hold.

use serde_json::{Value, json};

use crate::config::units::Span;

use super::{
    Bound, Literal, Range, Test, Text,
    clock::{Clock, Daily},
};

/// Days as a pattern names them.
pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Test {
    pub(super) fn written(&self) -> Value {
        match self {
            Self::Equals(literal) => literal.written(),
            Self::Text(text) => text.written(),
            Self::AnythingBut(literals) => {
                json!({"anything-but": literals.iter().map(Literal::written).collect::<Vec<_>>()})
            }
            Self::AnythingButText(texts) => json!({"anything-but": together(texts)}),
            Self::Numeric(range) => json!({"numeric": range.written()}),
            Self::Exists(exists) => json!({"exists": exists}),
            Self::Cidr(cidr) => json!({"cidr": format!("{}/{}", cidr.network, cidr.bits)}),
            Self::Clock(clock) => clock.written(),
        }
    }
}

impl Literal {
    fn written(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => json!(value),
            Self::Number(number) => plain(*number),
            Self::Text(text) => json!(**text),
        }
    }
}

/// A number, without a fraction where it has none.
pub(super) fn plain(number: f64) -> Value {
    /// Up to here every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number {
        whole if whole.fract() == 0.0 && whole.abs() < EXACT => json!(whole as i64),
        number => json!(number),
    }
}

impl Text {
    fn written(&self) -> Value {
        match self {
            Self::Prefix(text) => json!({"prefix": **text}),
            Self::Suffix(text) => json!({"suffix": **text}),
            Self::Equal(text) => json!({"equals-ignore-case": text}),
            Self::PrefixFolded(text) => json!({"prefix": {"equals-ignore-case": text}}),
            Self::SuffixFolded(text) => json!({"suffix": {"equals-ignore-case": text}}),
            Self::Wildcard(wildcard) => json!({"wildcard": wildcard.written()}),
        }
    }
}

/// Tests of one operator, as `anything-but` lists them.
fn together(texts: &[Text]) -> Value {
    let written = texts.iter().map(Text::written);
    let (mut operator, mut listed) = (String::new(), Vec::new());
    for (name, value) in written.filter_map(|one| one.as_object().cloned()).flatten() {
        operator = name;
        listed.push(value);
    }
    json!({ operator: listed })
}

impl Range {
    fn written(self) -> Vec<Value> {
        let bound = |bound: Option<Bound>, or_equal: &str, without: &str| {
            bound.map(|Bound { number, inclusive }| {
                [json!(if inclusive { or_equal } else { without }), plain(number)]
            })
        };
        match (self.above, self.below) {
            (Some(above), Some(below)) if above == below => vec![json!("="), plain(above.number)],
            (above, below) => {
                let bounds = [bound(above, ">=", ">"), bound(below, "<=", "<")];
                bounds.into_iter().flatten().flatten().collect()
            }
        }
    }
}

impl Clock {
    fn written(&self) -> Value {
        match self {
            Self::NewerThan(age) => json!({"newer_than": Span(*age)}),
            Self::OlderThan(age) => json!({"older_than": Span(*age)}),
            Self::Daily(Daily { from, to, zone, days }) => {
                let days = DAYS.iter().zip(days).filter(|(_, on)| **on);
                let days: Vec<_> = days.map(|(day, _)| day).collect();
                json!({"daily": {
                    "from": from.to_string(), "to": to.to_string(),
                    "zone": zone.iana_name().unwrap_or("UTC"), "days": days,
                }})
            }
        }
    }
}
