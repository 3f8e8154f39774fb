//! Which version is the newer one: `1` before `2` before `10`, `1.2` before `1.10`.

use std::cmp::Ordering;

/// Compares numbers in it as numbers, and everything between them as text.
pub(super) fn order(one: &str, other: &str) -> Ordering {
    // `1` and `01` are still two names.
    pieces(one).cmp(pieces(other)).then_with(|| one.cmp(other))
}

/// Text stands before a number. A number without its leading zeros is the greater the longer it is.
fn pieces(version: &str) -> impl Iterator<Item = (bool, usize, &str)> {
    version.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()).scan(
        version,
        |rest, chunk| {
            // Cut only between a digit and something else, so always between two characters.
            let (piece, behind) = rest.split_at_checked(chunk.len())?;
            *rest = behind;
            if !piece.starts_with(|first: char| first.is_ascii_digit()) {
                return Some((false, 0, piece));
            }
            let number = piece.trim_start_matches('0');
            Some((true, number.len(), number))
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let sorted = ["", "1", "01", "1.2", "1.10", "1.10-beta", "2", "10", "v1", "v2", "v10"];
        let mut versions = sorted.to_vec();
        versions.sort_unstable();
        versions.sort_by(|a, b| order(a, b));
        let expected = ["", "v1", "v2", "v10", "01", "1", "1.2", "1.10", "1.10-beta", "2", "10"];
        assert_eq!(versions, expected);
    }

    #[test]
    fn numbers_too_great_for_a_register_are_compared() {
        let great = "9".repeat(60);
        let greater = format!("1{}", "0".repeat(60));
        assert_eq!(order(&great, &greater), Ordering::Less);
    }

    proptest! {
        #[test]
        fn two_versions_are_equal_only_where_their_names_are(
            a in "[0-9.vü]{0,6}", b in "[0-9.vü]{0,6}",
        ) {
            prop_assert_eq!(order(&a, &b) == Ordering::Equal, a == b);
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
        }

        #[test]
        fn whole_numbers_stand_in_their_order(a: u64, b: u64) {
            prop_assert_eq!(order(&a.to_string(), &b.to_string()), a.cmp(&b));
        }
    }
}
