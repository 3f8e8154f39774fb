//! Tests of times: how old one is, and whether it lies in a daily window. Our own addition to
//! EventBridge's language.

use std::{fmt, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What a time must be like.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Clock {
    NewerThan(Duration),
    OlderThan(Duration),
    Daily(Daily),
}

/// From one time of day to another, as clocks on a wall show it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Daily {
    pub(super) from: Minute,
    /// Where it is not after `from`, the one of the next day.
    pub(super) to: Minute,
    pub(super) zone: TimeZone,
    /// The days on which it begins, from Monday on.
    pub(super) days: [bool; 7],
}

/// Minutes since midnight, 0 to 1440.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Minute(u16);

impl Minute {
    /// Reads `08:00`, up to `24:00`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        let digits = |text: &str| match text.len() {
            2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u16>().ok(),
            _ => None,
        };
        let (hour, minute) = (digits(hour)?, digits(minute)?);
        (minute < 60 && hour * 60 + minute <= 24 * 60).then_some(Self(hour * 60 + minute))
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// The time that is written in an event.
pub(super) fn time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

impl Clock {
    /// Whether it holds for `time`. One that is still to come is newer than any age.
    pub(super) fn holds(&self, time: OffsetDateTime, now: OffsetDateTime) -> bool {
        match self {
            Self::NewerThan(age) => now - time < *age,
            Self::OlderThan(age) => now - time > *age,
            Self::Daily(daily) => daily.holds(time),
        }
    }
}

impl Daily {
    fn holds(&self, time: OffsetDateTime) -> bool {
        let (second, nanosecond) = (time.unix_timestamp(), time.nanosecond().cast_signed());
        let Ok(time) = Timestamp::new(second, nanosecond) else { return false };
        let local = self.zone.to_datetime(time);
        let minute = Minute(
            u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs()),
        );
        let today = usize::from(local.weekday().to_monday_zero_offset().unsigned_abs());
        let yesterday = (today + 6) % 7;
        let on = |day: usize| self.days.get(day).is_some_and(|on| *on);
        if self.from < self.to {
            on(today) && (self.from..self.to).contains(&minute)
        } else {
            (on(today) && minute >= self.from) || (on(yesterday) && minute < self.to)
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn daily(from: &str, to: &str, days: &[usize]) -> Daily {
        Daily {
            from: Minute::read(from).unwrap(),
            to: Minute::read(to).unwrap(),
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            days: std::array::from_fn(|day| days.is_empty() || days.contains(&day)),
        }
    }

    #[test]
    fn an_age_is_counted_to_now() {
        let now = datetime!(2026-11-21 12:00:00 UTC);
        let newer = Clock::NewerThan(Duration::from_secs(60));
        let older = Clock::OlderThan(Duration::from_secs(60));
        for (time, is_newer, is_older) in [
            (datetime!(2026-11-21 12:00:01 UTC), true, false),
            (datetime!(2026-11-21 11:59:00.000_000_001 UTC), true, false),
            (datetime!(2026-11-21 12:59:00 +1), false, false),
            (datetime!(2026-11-21 11:58:59.999_999_999 UTC), false, true),
            (datetime!(1969-01-01 0:00 UTC), false, true),
        ] {
            assert_eq!(
                (newer.holds(time, now), older.holds(time, now)),
                (is_newer, is_older),
                "{time}"
            );
        }
    }

    #[test]
    fn a_window_begins_at_its_first_minute_and_ends_before_its_last() {
        let window = daily("08:00", "18:00", &[]);
        // Berlin is one hour ahead of UTC in winter.
        assert!(!window.holds(datetime!(2026-11-21 6:59:59.999 UTC)));
        assert!(window.holds(datetime!(2026-11-21 7:00 UTC)));
        assert!(window.holds(datetime!(2026-11-21 16:59:59.999 UTC)));
        assert!(!window.holds(datetime!(2026-11-21 17:00 UTC)));
        assert!(daily("00:00", "24:00", &[]).holds(datetime!(2026-11-21 22:59:59 UTC)));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_began() {
        // From Friday evening, the 20th, until Saturday morning.
        let window = daily("22:00", "06:00", &[4]);
        assert!(!window.holds(datetime!(2026-11-20 05:59 +1)), "began on Thursday");
        assert!(window.holds(datetime!(2026-11-20 22:00 +1)));
        assert!(window.holds(datetime!(2026-11-21 05:59 +1)));
        assert!(!window.holds(datetime!(2026-11-21 06:00 +1)));
        assert!(!window.holds(datetime!(2026-11-21 22:00 +1)), "begins on Saturday");
        // From Sunday into Monday.
        assert!(daily("22:00", "06:00", &[6]).holds(datetime!(2026-11-23 01:00 +1)));
    }

    #[test]
    fn a_window_keeps_to_the_clock_on_the_wall_when_that_is_changed() {
        let window = daily("08:00", "18:00", &[]);
        // 29 March 2026: forward at 2:00. 25 October: back at 3:00.
        assert!(!window.holds(datetime!(2026-03-28 6:30 UTC)));
        assert!(window.holds(datetime!(2026-03-29 6:30 UTC)));
        assert!(window.holds(datetime!(2026-10-24 6:30 UTC)));
        assert!(!window.holds(datetime!(2026-10-25 6:30 UTC)));
        // The hour that comes twice is in it twice; the one that never comes leaves no gap.
        let night = daily("02:30", "03:30", &[]);
        assert!(night.holds(datetime!(2026-10-25 0:45 UTC)));
        assert!(night.holds(datetime!(2026-10-25 1:45 UTC)));
        assert!(!night.holds(datetime!(2026-10-25 1:15 UTC)));
        assert!(night.holds(datetime!(2026-03-29 1:15 UTC)));
        assert!(!night.holds(datetime!(2026-03-29 0:59 UTC)));
    }

    #[test]
    fn a_time_of_day_has_two_digits_each() {
        for text in ["8:00", "08:0", "0800", "24:01", "12:60", "+1:00", "08:00:00", ""] {
            assert_eq!(Minute::read(text), None, "{text}");
        }
        assert_eq!(Minute::read("24:00"), Some(Minute(1440)));
    }
}
