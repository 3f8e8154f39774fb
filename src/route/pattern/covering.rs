//! Finds patterns that match whatever another one does, as far as that can be told from what they
//! say: `check` warns of what such a pattern leaves nothing for.

use super::{Cidr, Field, Pattern, Range, Test, Text, clock::Clock, contradiction::contradictions};

impl Pattern {
    /// Whether every event that `other` matches is matched here too. `false` where that is not
    /// certain.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.ways.iter().all(|other| {
            // Its fields are among those of the other, and let pass what those do: they match in the
            // very places of the event.
            self.ways
                .iter()
                .any(|way| way.iter().all(|field| other.iter().any(|other| field.covers(other))))
        })
    }

    /// The same of every event that both `other` and `further` match.
    #[must_use]
    pub fn covers_both(&self, other: &Self, further: &Self) -> bool {
        other.ways.iter().all(|other| {
            further.ways.iter().all(|further| {
                self.ways.iter().any(|way| {
                    way.iter().all(|field| other.iter().chain(further).any(|it| field.covers(it)))
                })
            })
        })
    }

    /// Whether it is certain that no event matches both.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        self.ways.iter().all(|way| {
            other.ways.iter().all(|other| {
                let both: Vec<_> = way.iter().chain(other).map(|field| &**field).collect();
                !contradictions(&both).is_empty()
            })
        })
    }
}

impl Field {
    fn covers(&self, other: &Self) -> bool {
        let covered = |other: &Test| self.tests.iter().any(|test| test.covers(other));
        self.path == other.path && other.tests.iter().all(covered)
    }
}

impl Test {
    /// Whether every value, or none, that passes `other` passes here too.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (one, other) if one == other => true,
            (_, Self::Exists(false)) => false,
            (Self::Exists(one), _) => *one,
            // The answer of the day is not that of the next.
            (Self::Clock(one), Self::Clock(other)) => one.covers(other),
            (Self::Clock(_), _) => false,
            (one, Self::Equals(value)) => one.may_hold(value),
            (Self::Text(one), Self::Text(other)) => one.covers(other),
            (Self::Numeric(one), Self::Numeric(other)) => one.covers(*other),
            (Self::Cidr(one), Self::Cidr(other)) => one.covers(*other),
            (Self::AnythingBut(one), other) => !one.iter().any(|value| other.may_hold(value)),
            (Self::AnythingButText(one), Self::AnythingButText(other)) => {
                one.iter().all(|text| other.contains(text))
            }
            _ => false,
        }
    }
}

impl Text {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix(one), Self::Prefix(other)) => other.starts_with(&**one),
            (Self::Suffix(one), Self::Suffix(other)) => other.ends_with(&**one),
            (Self::PrefixFolded(one), Self::PrefixFolded(other) | Self::Equal(other)) => {
                other.starts_with(one)
            }
            (Self::SuffixFolded(one), Self::SuffixFolded(other) | Self::Equal(other)) => {
                other.ends_with(one)
            }
            _ => false,
        }
    }
}

impl Range {
    fn covers(self, other: Self) -> bool {
        let within = |one: Option<super::Bound>, other: Option<super::Bound>, sign: f64| {
            one.is_none_or(|one| {
                other.is_some_and(|other| {
                    let (one_at, other_at) = (one.number * sign, other.number * sign);
                    other_at > one_at || other_at == one_at && (one.inclusive || !other.inclusive)
                })
            })
        };
        within(self.above, other.above, 1.0) && within(self.below, other.below, -1.0)
    }
}

impl Cidr {
    fn covers(self, other: Self) -> bool {
        self.bits <= other.bits && self.holds(other.network)
    }
}

impl Clock {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NewerThan(one), Self::NewerThan(other)) => one >= other,
            (Self::OlderThan(one), Self::OlderThan(other)) => one <= other,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(pattern: &Value) -> Pattern {
        Pattern::read(pattern.as_object().unwrap()).unwrap()
    }

    #[test]
    fn what_lets_more_pass_covers_what_lets_less() {
        for (more, less) in [
            (json!({"type": ["a", "b"]}), json!({"type": ["b"], "data": {"x": [1]}})),
            (
                json!({"type": [{"prefix": "order."}]}),
                json!({"type": ["order.a", {"prefix": "order.b."}]}),
            ),
            (
                json!({"data.x": [{"exists": true}]}),
                json!({"data": {"x": [null, {"numeric": [">", 1]}]}}),
            ),
            (
                json!({"data": {"x": [{"numeric": [">", 1]}]}}),
                json!({"data": {"x": [{"numeric": [">=", 2, "<", 5]}]}}),
            ),
            (
                json!({"data": {"x": [{"numeric": [">=", 1]}]}}),
                json!({"data": {"x": [1, {"numeric": [">", 1]}]}}),
            ),
            (
                json!({"data": {"ip": [{"cidr": "10.0.0.0/8"}]}}),
                json!({"data": {"ip": ["10.1.2.3", {"cidr": "10.1.0.0/16"}]}}),
            ),
            (
                json!({"type": [{"anything-but": ["a"]}]}),
                json!({"type": ["b", {"prefix": "c"}, {"anything-but": ["a", "z"]}]}),
            ),
            (json!({"type": [{"equals-ignore-case": "AB"}]}), json!({"type": ["aB"]})),
            (
                json!({"type": [{"prefix": {"equals-ignore-case": "A"}}]}),
                json!({"type": [{"equals-ignore-case": "aB"}]}),
            ),
            (json!({"time": [{"newer_than": "2h"}]}), json!({"time": [{"newer_than": "1h"}]})),
            (
                json!({"$or": [{"type": ["a"]}, {"source": ["s"]}]}),
                json!({"source": ["s"], "id": ["1"]}),
            ),
        ] {
            assert!(read(&more).covers(&read(&less)), "{more} {less}");
            assert!(!read(&less).covers(&read(&more)), "{less} {more}");
        }
    }

    #[test]
    fn what_two_patterns_say_together_can_be_covered() {
        let whole = read(&json!({"type": [{"prefix": "o"}], "data": {"x": [1, 2]}}));
        let (one, other) = (read(&json!({"type": ["order"]})), read(&json!({"data": {"x": [2]}})));
        assert!(whole.covers_both(&one, &other) && whole.covers_both(&other, &one));
        assert!(!whole.covers_both(&one, &one) && !whole.covers(&other));
    }

    #[test]
    fn what_contradicts_is_excluded() {
        let excludes = |one: Value, other: Value| read(&one).excludes(&read(&other));
        let or = json!({"$or": [{"type": ["a"]}, {"type": ["b"]}]});
        assert!(excludes(or.clone(), json!({"type": ["c"]})));
        assert!(!excludes(or, json!({"type": ["b"]})));
        // A list may have one for each.
        assert!(!excludes(json!({"data": {"x": [1]}}), json!({"data": {"x": [2]}})));
    }

    #[test]
    fn what_is_not_certain_is_not_said() {
        for (one, other) in [
            (json!({"type": ["a"]}), json!({"type": ["b"]})),
            (json!({"type": ["a"], "id": ["1"]}), json!({"type": ["a"]})),
            (
                json!({"data": {"x": [{"exists": true}]}}),
                json!({"data": {"x": [1, {"exists": false}]}}),
            ),
            (
                json!({"data": {"x": [{"anything-but": [1]}]}}),
                json!({"data": {"x": [{"exists": false}]}}),
            ),
            (json!({"time": [{"newer_than": "1h"}]}), json!({"time": ["2026-11-21T12:00:00Z"]})),
            (
                json!({"data": {"x": [{"numeric": [">", 1]}]}}),
                json!({"data": {"x": [{"numeric": ["<", 5]}]}}),
            ),
        ] {
            assert!(!read(&one).covers(&read(&other)), "{one} {other}");
        }
    }
}
