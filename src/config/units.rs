//! Values with units, as a person writes them: `250ms`, `64KiB`.

use std::{fmt, ops::Deref, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A length of time such as `250ms`, `30s`, `12h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", extend("pattern" = r"^(\d+ ?(ms|s|m|h|d|w) ?)+$"))]
pub struct Span(pub Duration);

/// A number of bytes such as `512B`, `64KiB`, `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", extend("pattern" = r"^\d+ ?(B|KiB|MiB|GiB|kB|MB|GB)$"))]
pub struct Size(pub usize);

impl Deref for Span {
    type Target = Duration;
    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = humantime::parse_duration(text.trim());
        parsed
            .map(Self)
            .map_err(|_| format!("`{text}` is no duration; write one like `250ms`, `30s` or `12h`"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// Unit and its bytes; the first that fits is the one to print.
const UNITS: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size; write one like `512B`, `64KiB` or `1MiB`");
        let digits = text.trim().find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.trim().split_at(digits);
        let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?.1;
        let number: usize = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: usize| self.0 >= factor && self.0.is_multiple_of(factor);
        let (unit, factor) = UNITS.iter().find(|(_, factor)| fits(*factor)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
as_text!(Span);
as_text!(Size);
