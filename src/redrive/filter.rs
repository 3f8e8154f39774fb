//! Which dead letters are meant.

use std::{collections::HashSet, sync::Arc};

use time::OffsetDateTime;

use super::entry::{Entry, Mark};
use crate::route::{When, fields, pattern::fields::Wanted};

/// What an entry must be to be meant; everything, by default.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The route that gave it up.
    pub route: Option<String>,
    /// The class of the cause.
    pub class: Option<String>,
    /// The id of the event.
    pub id: Option<String>,
    /// It was given up last at this time or later.
    pub since: Option<OffsetDateTime>,
    /// It was given up last before this time.
    pub until: Option<OffsetDateTime>,
    /// What the event must match.
    pub when: When,
    /// One of those that somebody has seen before.
    pub among: Option<Arc<HashSet<Mark>>>,
}

impl Filter {
    /// Whether it lets everything through.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let Self { route, class, id, since, until, when, among } = self;
        route.is_none()
            && class.is_none()
            && id.is_none()
            && since.is_none()
            && until.is_none()
            && when.is_always()
            && among.is_none()
    }

    /// Whether an entry is meant. One without a record is of no route, no class and no time; one
    /// that a condition fails for is not meant.
    #[must_use]
    pub fn means(&self, entry: &Entry, now: OffsetDateTime) -> bool {
        let record = entry.record.as_deref();
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let last = record.map(|record| record.last);
        let in_time = self.since.is_none_or(|since| last.is_some_and(|last| last >= since))
            && self.until.is_none_or(|until| last.is_some_and(|last| last < until));
        let is_meant = in_time
            && is(&self.route, record.and_then(|record| record.route.as_deref()))
            && is(&self.class, record.map(|record| record.class.as_str()))
            && is(&self.id, Some(&entry.event.id));
        let is_among = || self.among.as_ref().is_none_or(|among| among.contains(&entry.mark()));
        is_meant && is_among() && (self.when.is_always() || self.matches(entry, now))
    }

    fn matches(&self, entry: &Entry, now: OffsetDateTime) -> bool {
        let mut wanted = Wanted::default();
        self.when.want(&mut wanted);
        let fields = fields(&entry.event, &wanted, now);
        self.when.accepts(&entry.event, &fields).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::redrive::entry::fixtures::{entry, foreign};

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(second).unwrap()
    }

    fn means(filter: &Filter) -> bool {
        filter.means(&entry("e-1", "orders", "invalid", 100), at(1_000))
    }

    #[test]
    fn every_condition_has_to_hold() {
        let text = |text: &str| Some(text.to_owned());
        let all = Filter {
            route: text("orders"),
            class: text("invalid"),
            id: text("e-1"),
            since: Some(at(100)),
            until: Some(at(101)),
            when: When::read(json!({ "data": { "n": [1] } }).as_object().unwrap()).unwrap(),
            among: Some(Arc::new([entry("e-1", "orders", "invalid", 100).mark()].into())),
        };
        assert!(means(&Filter::default()) && means(&all) && !all.is_all());
        let other = When::read(json!({ "data": { "n": [2] } }).as_object().unwrap()).unwrap();
        for one in [
            Filter { route: text("other"), ..all.clone() },
            Filter { class: text("too_large"), ..all.clone() },
            Filter { id: text("e-2"), ..all.clone() },
            Filter { since: Some(at(101)), ..all.clone() },
            Filter { until: Some(at(100)), ..all.clone() },
            Filter { when: other, ..all.clone() },
            Filter { among: Some(Arc::default()), ..all.clone() },
        ] {
            assert!(!means(&one), "{one:?}");
        }
    }

    #[test]
    fn what_has_no_record_is_of_no_route_and_no_time() {
        let foreign = foreign("e-1");
        assert!(Filter::default().means(&foreign, at(0)));
        for filter in [
            Filter { route: Some("orders".into()), ..Filter::default() },
            Filter { class: Some("invalid".into()), ..Filter::default() },
            Filter { since: Some(at(0)), ..Filter::default() },
            Filter { until: Some(at(0)), ..Filter::default() },
        ] {
            assert!(!filter.means(&foreign, at(0)), "{filter:?}");
        }
    }
}
