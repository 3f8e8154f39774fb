//! Telephone numbers, by how they are written: `+49 30 1234567`, `(415) 555-2671`,
//! `020 7946 0958`. Digits without a plus and without groups may be anything, and stay.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

pub(super) const DIGITS_MIN: usize = 8;

/// The first digits and the groups; [`is_phone`] judges what they cannot.
static SHAPES: LazyLock<Regex> = LazyLock::new(|| {
    let shapes = [
        // International: a plus and 8 to 15 digits.
        r"\+[1-9](?:[ .\-/\u{a0}]?\(?[0-9]\)?){7,14}",
        // International, as it is dialled, in groups.
        r"00[1-9][0-9]{0,2}(?:[ .\-/\u{a0}]\(?[0-9]{1,9}\)?){1,6}",
        // North America, in groups of 3, 3 and 4.
        r"(?:1[ .\-])?(?:\([2-9][0-9]{2}\)[ \-]?|[2-9][0-9]{2}[ .\-])[2-9][0-9]{2}[ .\-][0-9]{4}",
        // With a trunk prefix, as in most of Europe, in groups.
        r"\(0[1-9][0-9]{0,4}\)[ \-]?[0-9]{2,9}(?:[ .\-\u{a0}][0-9]{1,9}){0,4}",
        r"0[1-9][0-9]{0,4}(?:(?: ?[/\-] ?|[ .\u{a0}])[0-9]{2,9})(?:[ .\-\u{a0}][0-9]{1,9}){0,4}",
    ];
    Regex::new(&shapes.join("|")).expect("a constant expression")
});

/// Finds telephone numbers.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let mut from = 0;
    while let Some(shape) = SHAPES.find_at(text, from) {
        let range = shape.range();
        if stands_apart(text, &range) && is_phone(shape.as_str()) {
            from = range.end;
            found.push(range);
        } else {
            // Its first character is of one byte.
            from = range.start + 1;
        }
    }
}

/// Whether it is no part of something longer: an identifier, a version, a date, an amount.
fn stands_apart(text: &str, range: &Range<usize>) -> bool {
    let (before, behind) = super::detect::around(text, range);
    let mut last = before.chars().rev();
    let joined = match last.next() {
        Some('-' | '_') => last.next().is_some_and(char::is_alphanumeric),
        // `tel:` and `Tel.` may stand before one.
        Some('.' | ',' | '/' | ':') => last.next().is_some_and(|c| c.is_ascii_digit()),
        Some(c) => c.is_alphanumeric(),
        None => false,
    };
    let mut next = behind.chars();
    let goes_on = match next.next() {
        Some('.' | ':' | '_' | '-') => next.next().is_some_and(|c| c.is_ascii_digit()),
        Some(c) => c.is_ascii_digit(),
        None => false,
    };
    !joined && !goes_on
}

/// Whether its digits are as many as such a number has, and its groups are not those of a date.
fn is_phone(shape: &str) -> bool {
    let digits = shape.bytes().filter(u8::is_ascii_digit).count();
    let separators: Vec<char> =
        shape.chars().filter(|c| !c.is_ascii_digit() && !matches!(c, '(' | ')' | '+')).collect();
    if shape.starts_with('+') {
        // One point alone is that of a decimal number.
        return separators != ['.'];
    }
    if shape.starts_with("00") {
        return (10..=17).contains(&digits);
    }
    if !shape.trim_start_matches('(').starts_with('0') {
        return true;
    }
    // `05-12-2026 10`: the groups of a number are all written alike, but for the first.
    let alike = shape.contains(['/', '(']) || separators.iter().skip(1).is_sorted_by(|a, b| a == b);
    let groups: Vec<usize> = shape.split(['.', '-', '/', ' ']).map(str::len).collect();
    let date = matches!(groups.as_slice(), [2, 2, 4, ..]);
    (9..=12).contains(&digits) && alike && !date
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut ranges = Vec::new();
        find(text, &mut ranges);
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn numbers_are_found_as_people_write_them() {
        for number in [
            "+4930123456789",
            "+49 30 1234567",
            "+49 (0)30 1234567",
            "+1 (415) 555-2671",
            "+1.415.555.2671",
            "+33 1 23 45 67 89",
            "0049 30 1234567",
            "(415) 555-2671",
            "415-555-2671",
            "415.555.2671",
            "1-415-555-2671",
            "030/1234567",
            "030 / 1234567",
            "(030) 1234567",
            "0171 1234567",
            "0171-123 45 67",
            "020 7946 0958",
            "07700 900123",
            "01 23 45 67 89",
            "01.23.45.67.89",
        ] {
            assert_eq!(found(number), [number]);
            assert_eq!(found(&format!("Call {number}, please.")), [number]);
            assert_eq!(found(&format!("tel:{number}")), [number]);
        }
    }

    #[test]
    fn near_misses_stay() {
        for text in [
            // Plain digits: an order, a time, a customer.
            "4155552671",
            "01711234567",
            "order 20261121004711",
            "1795392000",
            // Dates and times.
            "2026-11-21 12:34:56",
            "05-12-2026 10",
            "05.12.2026 10 30",
            "05/12/2026",
            "05 12 2026 10",
            "01-12-2026-42",
            "2026-05-06 07 08",
            "2026-11-21T12:34:56.123456+0100",
            // Amounts, versions, addresses, identifiers.
            "+1.23456789",
            "0.123456789",
            "1.2.3.4.5",
            "192.168.100.200",
            "SKU-415-555-2671",
            "x415-555-26719",
            "123-456-7890",
            "4111 1111 1111 1111",
            "a0a0a0a0-0171-1234-1234-123412341234",
            "+12345",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
