//! Sampling: a share of the events, or of their keys, the same ones at every try.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::choice::hash;
use crate::event::Event;

/// What of the events that a route takes it sends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// How many of them.
    pub share: Share,
    /// What decides which.
    #[serde(default)]
    pub by: By,
}

/// What decides whether an event is in a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SampleBy")]
pub enum By {
    /// Its id: of any key, some events.
    #[default]
    Id,
    /// Its key: of some keys, all events. One without a key goes by its id.
    Key,
}

impl Sample {
    /// Whether the event is in it.
    #[must_use]
    pub fn holds(self, event: &Event) -> bool {
        let key = event.key.as_deref().filter(|_| self.by == By::Key);
        self.share.holds(key.unwrap_or(&event.id))
    }
}

/// A share of all there is, by what tells one from another: what comes again is in it again, and
/// relays with the same share take the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(1.0);

    /// As a part of one: above 0, up to 1.
    #[must_use]
    pub fn part(self) -> f64 {
        self.0
    }

    /// Whether what has this name is in it.
    #[must_use]
    pub fn holds(self, id: &str) -> bool {
        // The upper 53 bits are a number from 0 to 1 that a float can hold.
        let place = (hash(id.bytes()) >> 11) as f64 / (1_u64 << 53) as f64;
        place < self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A float has no exact 0.07, and a hundred times it is not 7.
        write!(f, "{}%", (self.0 * 1e10).round() / 1e8)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let percent = text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok());
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(percent / 100.0)),
            _ => Err(D::Error::custom(format!(
                "`{text}` is no share; write one like `10%` or `0.5%`, above 0% and up to 100%"
            ))),
        }
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[0-9.]+ ?%$", "examples": ["10%", "0.5%"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Result<Share, serde_json::Error> {
        serde_json::from_value(text.into())
    }

    #[test]
    fn a_share_holds_its_share_and_always_the_same() {
        for percent in [0.5, 10.0, 50.0, 99.0] {
            let share = share(&format!("{percent}%")).unwrap();
            let held = (0..100_000).filter(|id: &u32| share.holds(&id.to_string())).count();
            let off = held as f64 / 1000.0 - percent;
            assert!(off.abs() < 0.5, "{percent}%: {held}");
        }
        assert!((0..1000).all(|id: u32| share("100%").unwrap().holds(&id.to_string())));
        let (small, large) = (share("10%").unwrap(), share("20%").unwrap());
        assert!(
            (0..1000).map(|id: u32| id.to_string()).all(|id| !small.holds(&id) || large.holds(&id))
        );
    }

    #[test]
    fn what_is_no_share_is_told_so() {
        for text in ["10", "0%", "101%", "-1%", "NaN%", "x%", "%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
