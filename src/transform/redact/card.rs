//! Numbers of payment cards: 13 to 19 digits in whatever groups, with the first digits of a known
//! network, a length that it uses, and a right Luhn checksum.

use std::ops::{Range, RangeInclusive};

use serde_json::Number;
use uuid::Uuid;

pub(super) const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;
/// How many separators may stand between two groups, as in `4111 - 1111`.
const SEPARATORS_MAX: usize = 3;

/// The first four digits, and how long such numbers are.
const NETWORKS: [(RangeInclusive<u16>, &[usize]); 13] = [
    // Visa
    (4000..=4999, &[13, 16, 18, 19]),
    // Mastercard
    (5100..=5599, &[16]),
    (2221..=2720, &[16]),
    // American Express
    (3400..=3499, &[15]),
    (3700..=3799, &[15]),
    // Diners Club
    (3000..=3059, &[14, 16, 17, 18, 19]),
    (3600..=3699, &[14, 16, 17, 18, 19]),
    (3800..=3999, &[14, 16, 17, 18, 19]),
    // JCB
    (3528..=3589, &[16, 17, 18, 19]),
    // Mir
    (2200..=2204, &[16, 17, 18, 19]),
    // Maestro
    (5000..=5099, &[13, 14, 15, 16, 17, 18, 19]),
    (5600..=5899, &[13, 14, 15, 16, 17, 18, 19]),
    // Discover, UnionPay, RuPay, and the rest of Maestro
    (6000..=6999, &[13, 14, 15, 16, 17, 18, 19]),
];

/// Finds card numbers.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let mut chain: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(|c: char| c.is_ascii_digit()).map(|skip| at + skip) {
        let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
        if chain.last().is_some_and(|last| !separates(&text[last.end..start])) {
            search(text, &chain, found);
            chain.clear();
        }
        at = start + digits;
        chain.push(start..at);
    }
    search(text, &chain, found);
}

/// The digits of a JSON number that is long enough for a card.
pub(super) fn digits_of(number: &Number) -> Option<String> {
    let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    let whole = whole.or_else(|| {
        let number = number.as_f64()?.abs();
        // Below 2^64 a float without a fraction is a whole number of its own.
        (number.fract() == 0.0 && number < 1e19).then_some(number as u64)
    });
    whole.map(|whole| whole.to_string()).filter(|digits| digits.len() >= DIGITS_MIN)
}

/// Whether this between two groups of digits may stand within one number.
fn separates(between: &str) -> bool {
    let separator = |c| matches!(c, ' ' | '-' | '\u{a0}' | '\u{2009}'..='\u{2014}' | '\u{202f}');
    between.len() <= SEPARATORS_MAX * 3
        && between.chars().count() <= SEPARATORS_MAX
        && between.chars().all(separator)
}

/// Tries every row of neighbouring groups: a number may stand next to another, such as a date.
fn search(text: &str, chain: &[Range<usize>], found: &mut Vec<Range<usize>>) {
    for (index, first) in chain.iter().enumerate() {
        if index == 0 && is_fraction(&text[..first.start]) {
            continue;
        }
        let mut digits = Vec::with_capacity(DIGITS_MAX);
        for group in &chain[index..] {
            if digits.len() + group.len() > DIGITS_MAX {
                break;
            }
            digits.extend(text[group.clone()].bytes().map(|byte| byte - b'0'));
            let range = first.start..group.end;
            if is_card(&digits) && !is_identifier(text, &range) {
                // The longest: `4111 1111 1111 1111` may go on with a check value.
                match found.last_mut() {
                    Some(last) if last.start == range.start => *last = range,
                    _ => found.push(range),
                }
            }
        }
    }
}

/// Whether digits behind this are those after a decimal point.
fn is_fraction(before: &str) -> bool {
    before.strip_suffix('.').is_some_and(|whole| whole.ends_with(|c: char| c.is_ascii_digit()))
}

fn is_card(digits: &[u8]) -> bool {
    let Some(first) = digits.get(..4) else { return false };
    let first = first.iter().fold(0, |number, digit| number * 10 + u16::from(*digit));
    let network = NETWORKS.iter().find(|(range, _)| range.contains(&first));
    network.is_some_and(|(_, lengths)| lengths.contains(&digits.len())) && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let value = |(place, digit): (usize, &u8)| {
        u32::from(if place % 2 == 1 { doubled(*digit) } else { *digit })
    };
    digits.iter().rev().enumerate().map(value).sum::<u32>().is_multiple_of(10)
}

/// Whether it is a part of a hash, a UUID or the like: a word in which letters and other digits
/// stand beside it.
fn is_identifier(text: &str, range: &Range<usize>) -> bool {
    let (before, behind) = super::detect::around(text, range);
    let of_word = |byte: &u8| byte.is_ascii_alphanumeric();
    if before.bytes().rev().take_while(of_word).any(|byte| byte.is_ascii_digit())
        || behind.bytes().take_while(of_word).any(|byte| byte.is_ascii_digit())
    {
        return true;
    }
    let of_uuid = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    let length = uuid::fmt::Hyphenated::LENGTH;
    let start = before.bytes().rev().take(length).take_while(of_uuid).count();
    let end = behind.bytes().take(length).take_while(of_uuid).count();
    let word = &text[range.start - start..range.end + end];
    word.len() == length && Uuid::try_parse(word).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut ranges = Vec::new();
        find(text, &mut ranges);
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn numbers_of_every_network_are_found() {
        // The test numbers of payment providers.
        for number in [
            "4111111111111111",
            "4222222222222",
            "4000000000000000006",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "341111111111111",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "36227206271667",
            "38520000023237",
            "2200000000000004",
            "6200000000000005",
            "6759649826438453",
        ] {
            assert_eq!(found(number), [number]);
            assert_eq!(found(&format!("PAN{number}, please")), [number]);
        }
    }

    #[test]
    fn groups_may_be_written_in_many_ways() {
        for number in [
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "4111 - 1111 - 1111 - 1111",
            "4111  1111  1111  1111",
            "41111111 11111111",
            "4111\u{a0}1111\u{a0}1111\u{a0}1111",
            "4111\u{2013}1111\u{2013}1111\u{2013}1111",
            "3782 822463 10005",
        ] {
            assert_eq!(found(&format!("card: {number}; thanks")), [number]);
        }
    }

    #[test]
    fn a_number_is_found_next_to_others() {
        for text in [
            "order 12 4111 1111 1111 1111",
            "2026-11-21 4111 1111 1111 1111",
            "4111 1111 1111 1111 12/27",
            "4111 1111 1111 1111 - 123",
            "%B4111111111111111^DOE/JANE^2712",
            ";4111111111111111=2712?",
            "4111111111111111.",
            "1,4111111111111111,2",
        ] {
            let number = |found: &&str| {
                let digits: String = found.chars().filter(char::is_ascii_digit).collect();
                digits.contains("4111111111111111")
            };
            assert!(found(text).iter().any(number), "{text}: {:?}", found(text));
        }
    }

    #[test]
    fn near_misses_stay() {
        for text in [
            // A wrong checksum, an unknown network, a wrong length.
            "4111111111111112",
            "4111 1111 1111 1112",
            "1111111111111117",
            "9111111111111111",
            "41111111111111",
            "00004111111111111111",
            // A time in milliseconds, a coordinate, separators of other things.
            "1795392000000",
            "52.4111111111111111",
            "4111:1111:1111:1111",
            "4111    1111    1111    1111",
            // Parts of identifiers.
            "0a4111111111111111b",
            "deadbeef4111111111111111c0ffee00",
            "a0a0a0a0-4111-1111-1111-1111a0a0a0a0",
            "41111111-1111-1111-a0a0-a0a0a0a0a0a0",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn numbers_of_json_have_digits() {
        let digits = |json: serde_json::Value| digits_of(json.as_number().unwrap());
        assert_eq!(digits(json!(4_111_111_111_111_111_u64)).unwrap(), "4111111111111111");
        assert_eq!(digits(json!(-4_111_111_111_111_111_i64)).unwrap(), "4111111111111111");
        assert_eq!(digits(json!(4.111_111_111_111_111e15)).unwrap(), "4111111111111111");
        assert_eq!(digits(json!(12)), None);
        assert_eq!(digits(json!(4_111_111_111_111.5)), None);
        assert_eq!(digits(json!(1e300)), None);
    }
}
