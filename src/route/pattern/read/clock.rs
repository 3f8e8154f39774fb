//! Reads the tests of times.

use jiff::tz::{self, TimeZone};
use serde_json::{Map, Value};

use crate::config::{problem::suggestion, units::Span};

use super::{Wrong, each, string, wrong};
use crate::route::pattern::{
    clock::{Clock, Daily, Minute},
    written::DAYS,
};

const SETTINGS: [&str; 4] = ["from", "to", "zone", "days"];

pub(super) fn clock(operator: &str, operand: &Value) -> Result<Clock, Wrong> {
    Ok(match operator {
        "newer_than" => Clock::NewerThan(*age(operand)?),
        "older_than" => Clock::OlderThan(*age(operand)?),
        _ => match operand {
            Value::Object(map) => Clock::Daily(daily(map)?),
            _ => return wrong("must be like `{ from: \"08:00\", to: \"18:00\" }`"),
        },
    })
}

fn age(operand: &Value) -> Result<Span, Wrong> {
    string(operand)?.parse().or_else(wrong)
}

fn daily(map: &Map<String, Value>) -> Result<Daily, Wrong> {
    let mut errors = Wrong::default();
    for name in map.keys().filter(|name| !SETTINGS.contains(&name.as_str())) {
        let text = format!("is no setting of `daily`; {}", suggestion(name, SETTINGS));
        errors.note(wrong::<()>(text).map_err(|wrong| wrong.at(name)));
    }
    let mut minute = |name: &str| {
        let read = map.get(name).map_or_else(missing, minute);
        errors.note(read.map_err(|wrong| wrong.at(name)))
    };
    let (from, to) = (minute("from"), minute("to"));
    if from.is_some() && from == to {
        let text = "is the same as `from`; a whole day is from \"00:00\" to \"24:00\"";
        errors.note(wrong::<()>(text).map_err(|wrong| wrong.at("to")));
    }
    let zone = map.get("zone").map_or(Ok(TimeZone::UTC), zone);
    let zone = errors.note(zone.map_err(|wrong| wrong.at("zone")));
    let days = map.get("days").map_or(Ok([true; 7]), days);
    let days = errors.note(days.map_err(|wrong| wrong.at("days")));
    match (from, to, zone, days) {
        (Some(from), Some(to), Some(zone), Some(days)) => errors.or(Daily { from, to, zone, days }),
        _ => Err(errors),
    }
}

fn missing<T>() -> Result<T, Wrong> {
    wrong("is missing; write a time of day, as in \"08:00\"")
}

fn minute(value: &Value) -> Result<Minute, Wrong> {
    let read = value.as_str().and_then(Minute::read);
    read.map_or_else(|| wrong("must be a time of day in quotes, as in \"08:00\""), Ok)
}

fn zone(value: &Value) -> Result<TimeZone, Wrong> {
    let name = string(value)?;
    TimeZone::get(name).or_else(|_| {
        let known = tz::db().available();
        let known: Vec<_> = known.map(|zone| zone.as_str().to_owned()).collect();
        let city = format!("/{name}").to_lowercase();
        let hint = match known.iter().find(|zone| zone.to_lowercase().ends_with(&city)) {
            Some(zone) => format!("did you mean `{zone}`?"),
            None => match suggestion(name, known.iter().map(String::as_str)) {
                near if near.starts_with("did you mean") => near,
                _ => "write one as in `Europe/Berlin`".to_owned(),
            },
        };
        wrong(format!("`{name}` is no time zone; {hint}"))
    })
}

fn days(value: &Value) -> Result<[bool; 7], Wrong> {
    const FORM: &str = "must be a list of days, as in `[mon, tue]`";
    let Value::Array(listed) = value else { return wrong(FORM) };
    if listed.is_empty() {
        return wrong(
            "is an empty list, on which it would never begin; list a day or leave it out",
        );
    }
    let day = |value: &Value| {
        let name = string(value)?;
        let unknown = || wrong(format!("`{name}` is no day; {}", suggestion(name, DAYS)));
        DAYS.iter().position(|day| *day == name).map_or_else(unknown, Ok)
    };
    let listed = each(listed, day)?;
    Ok(std::array::from_fn(|day| listed.contains(&day)))
}
