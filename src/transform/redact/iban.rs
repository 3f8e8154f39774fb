//! International bank account numbers: the length that the country uses, and a right checksum.

use std::ops::Range;

/// The shortest, Norway's.
pub(super) const CHARS_MIN: usize = 15;

/// How many characters the numbers of a country have, from the registry of SWIFT.
const LENGTHS: [(&str, usize); 89] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 23),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

/// Finds account numbers, in capitals or not, with single spaces or dashes in them.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    for (start, head) in bytes.windows(4).enumerate() {
        let [a, b, c, d] = head else { continue };
        let begins = a.is_ascii_alphabetic()
            && b.is_ascii_alphabetic()
            && c.is_ascii_digit()
            && d.is_ascii_digit()
            && !start.checked_sub(1).is_some_and(|before| bytes[before].is_ascii_alphanumeric());
        if begins && let Some(length) = account(&text[start..]) {
            found.push(start..start + length);
        }
    }
}

/// How many bytes of the text are an account number.
fn account(text: &str) -> Option<usize> {
    let country = text.get(..2)?.to_ascii_uppercase();
    let at = LENGTHS.binary_search_by_key(&country.as_str(), |(country, _)| country).ok()?;
    let (_, length) = LENGTHS.get(at)?;
    let mut number = Vec::with_capacity(*length);
    let mut separated = false;
    let mut end = 0;
    for (index, c) in text.char_indices() {
        if c.is_ascii_alphanumeric() {
            if number.len() == *length {
                // It goes on, and is something else.
                return separated.then_some(end).filter(|_| checks(&number));
            }
            number.push(c.to_ascii_uppercase());
            separated = false;
            end = index + 1;
        } else if separated || !matches!(c, ' ' | '-' | '\u{a0}' | '\u{202f}') {
            break;
        } else {
            separated = true;
        }
    }
    (number.len() == *length && checks(&number)).then_some(end)
}

/// ISO 7064 mod 97: the first four characters go to the end, letters count from 10.
fn checks(number: &[char]) -> bool {
    let (head, tail) = number.split_at(number.len().min(4));
    let digits = tail.iter().chain(head).filter_map(|c| c.to_digit(36));
    digits.fold(0, |rest, digit| (rest * if digit > 9 { 100 } else { 10 } + digit) % 97) == 1
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
    fn countries_are_in_order() {
        assert!(LENGTHS.is_sorted());
        assert!(LENGTHS.iter().all(|(_, length)| (CHARS_MIN..=34).contains(length)));
    }

    #[test]
    fn account_numbers_are_found() {
        for number in [
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "de89-3704-0044-0532-0130-00",
            "GB29NWBK60161331926819",
            "FR1420041010050500013M02606",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "CH93 0076 2011 6238 5295 7",
            "NL91 ABNA 0417 1643 00",
        ] {
            assert_eq!(found(number), [number]);
            assert_eq!(found(&format!("to ({number}), soon")), [number]);
            assert_eq!(found(&format!("IBAN:{number} is mine")), [number]);
        }
    }

    #[test]
    fn near_misses_stay() {
        for text in [
            "DE88370400440532013000",
            "DE8937040044053201300",
            "DE893704004405320130001",
            "XDE89370400440532013000",
            "ZZ89370400440532013000",
            "DE89  3704 0044 0532 0130 00",
            "Order AB12 of DE89",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
