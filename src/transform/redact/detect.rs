//! Detectors, and what they find in a text.

use std::{borrow::Cow, net::IpAddr, ops::Range};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{card, email, iban, ip, key, phone};

/// Something sensitive that can be told by its looks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
// The first of those that overlap gives its name to all: the card number, of which a mask shows
// the most, comes last.
pub enum Detector {
    /// Keys and tokens: of AWS and Azure, of GitHub, GitLab, Slack, Stripe, Google and npm, JSON
    /// Web Tokens, bearer tokens, private keys.
    Key,
    /// E-mail addresses.
    Email,
    /// International bank account numbers whose checksum and length are right.
    Iban,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// Telephone numbers: international ones, and national ones that are written in groups.
    Phone,
    /// Numbers of payment cards, whose checksum, length and first digits are right.
    CardNumber,
}

/// What was found, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) range: Range<usize>,
    pub(super) what: Detector,
}

impl Detector {
    /// The value without how it is written, so that one value has one hash.
    pub(super) fn plain(self, text: &str) -> Cow<'_, str> {
        let only = |keep: fn(&char) -> bool| text.chars().filter(keep).collect::<String>();
        match self {
            Self::Key => text.into(),
            Self::Email => text.replace("%40", "@").to_lowercase().into(),
            Self::Iban => only(char::is_ascii_alphanumeric).to_ascii_uppercase().into(),
            Self::Ip => text.parse().map_or(text.into(), |ip: IpAddr| ip.to_string().into()),
            Self::Phone => only(|c| c.is_ascii_digit() || *c == '+').into(),
            Self::CardNumber => only(char::is_ascii_digit).into(),
        }
    }
}

/// How often a text is searched again without what was found in it.
const AGAIN_MAX: usize = 4;

/// What there is in a text that bears this name, in order and apart from each other.
pub(super) fn find(detectors: &[Detector], name: &str, text: &str) -> Vec<Found> {
    let mut found = search(detectors, name, text);
    if found.is_empty() {
        return found;
    }
    // A telephone number is none with a card number behind it, as long as that is there.
    let mut rest = text.to_owned();
    for _ in 0..AGAIN_MAX {
        for Found { range, .. } in &found {
            rest.replace_range(range.clone(), &"*".repeat(range.len()));
        }
        let more = search(detectors, "", &rest);
        if more.is_empty() {
            break;
        }
        found.extend(more);
        found = joined(found);
    }
    found
}

fn search(detectors: &[Detector], name: &str, text: &str) -> Vec<Found> {
    let looks = Looks::of(text);
    let mut all = Vec::new();
    let mut ranges = Vec::new();
    for &what in detectors {
        if !looks.may_hold(what) {
            continue;
        }
        match what {
            Detector::Key if key::is_named(name, text) => ranges.push(0..text.len()),
            Detector::Key => key::find(text, &mut ranges),
            Detector::Email => email::find(text, &mut ranges),
            Detector::Iban => iban::find(text, &mut ranges),
            Detector::Ip => ip::find(text, &mut ranges),
            Detector::Phone => phone::find(text, &mut ranges),
            Detector::CardNumber => card::find(text, &mut ranges),
        }
        all.extend(ranges.drain(..).map(|range| Found { range, what }));
    }
    joined(all)
}

/// Makes one of those that overlap.
fn joined(mut all: Vec<Found>) -> Vec<Found> {
    all.sort_by_key(|found| found.range.start);
    let mut apart: Vec<Found> = Vec::with_capacity(all.len());
    for next in all {
        match apart.last_mut() {
            Some(last) if next.range.start < last.range.end => {
                last.range.end = last.range.end.max(next.range.end);
                last.what = last.what.min(next.what);
            }
            _ => apart.push(next),
        }
    }
    apart
}

/// What one look at a text tells: most texts hold nothing, and cost no more than this.
struct Looks {
    bytes: usize,
    digits: usize,
    dots: usize,
    colons: usize,
    at: bool,
}

impl Looks {
    fn of(text: &str) -> Self {
        let count = |is: fn(&u8) -> bool| text.bytes().filter(is).count();
        Self {
            bytes: text.len(),
            digits: count(u8::is_ascii_digit),
            dots: count(|byte| *byte == b'.'),
            colons: count(|byte| *byte == b':'),
            at: count(|byte| matches!(byte, b'@' | b'%')) > 0,
        }
    }

    /// Whether it is worth a search.
    fn may_hold(&self, what: Detector) -> bool {
        match what {
            Detector::Key => self.bytes >= key::BYTES_MIN,
            Detector::Email => self.at && self.dots > 0,
            Detector::Iban => self.bytes >= iban::CHARS_MIN && self.digits >= 2,
            Detector::Ip => self.dots >= 3 && self.digits >= 4 || self.colons >= 2,
            Detector::Phone => self.digits >= phone::DIGITS_MIN,
            Detector::CardNumber => self.digits >= card::DIGITS_MIN,
        }
    }
}

/// What stands directly before and behind a range.
pub(super) fn around<'t>(text: &'t str, range: &Range<usize>) -> (&'t str, &'t str) {
    (text.get(..range.start).unwrap_or_default(), text.get(range.end..).unwrap_or_default())
}
