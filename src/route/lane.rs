//! The lanes of the file: classes of urgency that share the sinks by their weights.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{PatternConfig, problem::Finding};

/// A class of events. While several have events waiting for a sink, each gets the part of it that
/// its weight is of the sum; the heavier goes first. What a lane does not use, the others do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Lane")]
pub struct LaneConfig {
    /// Its part, from 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// Which events take it, on any route that does not name a lane itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<PatternConfig>,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self { weight: 1, when: None }
    }
}

/// The heaviest that a lane can be.
const WEIGHT_MAX: u32 = 1000;
/// How many there can be.
const LANES_MAX: usize = 16;

/// The lanes of a file that names none.
#[must_use]
pub fn defaults() -> BTreeMap<String, LaneConfig> {
    let lane = |(name, weight): (&str, u32)| (name.to_owned(), LaneConfig { weight, when: None });
    [("urgent", 16), ("normal", 4), ("bulk", 1)].map(lane).into()
}

/// What is wrong with lanes, apart from their patterns.
#[must_use]
pub fn findings(lanes: &BTreeMap<String, LaneConfig>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if lanes.is_empty() {
        let text = "there is no lane; name one, or leave out `lanes` for the usual ones";
        findings.push(Finding::new(text));
    }
    if lanes.len() > LANES_MAX {
        let text = format!("there are {} lanes; {LANES_MAX} is the most", lanes.len());
        findings.push(Finding::new(text));
    }
    for (name, lane) in lanes {
        if !(1..=WEIGHT_MAX).contains(&lane.weight) {
            let text = match lane.weight {
                0 => "with a weight of 0, its events would never go; 1 is the least".to_owned(),
                weight => format!("{weight} is too heavy; {WEIGHT_MAX} is the most"),
            };
            findings.push(Finding::new(text).below("weight").below(name));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lanes(json: serde_json::Value) -> BTreeMap<String, LaneConfig> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_lane_has_a_weight_and_may_have_a_pattern() {
        let read = lanes(json!({"vip": {"weight": 8, "when": {"type": ["x"]}}, "rest": {}}));
        assert_eq!((read["vip"].weight, read["rest"].weight), (8, 1));
        assert!(read["vip"].when.is_some() && read["rest"].when.is_none());
        assert!(serde_json::from_value::<LaneConfig>(json!({"wieght": 2})).is_err());
    }

    #[test]
    fn the_usual_lanes_are_right() {
        assert!(findings(&defaults()).is_empty());
        let weights = ["urgent", "normal", "bulk"].map(|name| defaults()[name].weight);
        assert_eq!(weights, [16, 4, 1]);
    }

    #[test]
    fn weights_and_numbers_out_of_bounds_are_found() {
        let texts = |lanes: &BTreeMap<_, _>| {
            let findings = findings(lanes);
            findings.iter().map(|one| format!("{}: {one}", one.path)).collect::<Vec<_>>()
        };
        assert_eq!(
            texts(&lanes(json!({"a": {"weight": 0}, "b": {"weight": 1001}, "c": {}}))),
            [
                "a.weight: with a weight of 0, its events would never go; 1 is the least",
                "b.weight: 1001 is too heavy; 1000 is the most",
            ]
        );
        let many = (0..17).map(|n| (format!("l{n}"), LaneConfig::default())).collect();
        assert_eq!(texts(&many), [": there are 17 lanes; 16 is the most"]);
        assert_eq!(findings(&BTreeMap::new()).len(), 1);
    }
}
