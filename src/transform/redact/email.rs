//! E-mail addresses: `jane.doe@example.com`, and `jane.doe%40example.com` as in links.

use std::ops::Range;

const AT: [&str; 2] = ["@", "%40"];

/// Finds addresses whose domain has a dot and ends in letters.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let mut from = 0;
    while let Some((at, sign)) = next_at(text, from) {
        let local = local_start(&text[from..at]).map(|start| from + start);
        // The next address begins behind the sign, so that no text is looked through twice.
        from = at + sign.len();
        if let (Some(start), Some(length)) = (local, domain_length(&text[from..])) {
            found.push(start..from + length);
        }
    }
}

/// The first letter and the domain. A single letter would be all there is.
pub(super) fn mask(address: &str) -> String {
    let Some((at, sign)) = next_at(address, 0) else { return "***".to_owned() };
    let (local, domain) = (&address[..at], &address[at + sign.len()..]);
    let first = local.chars().next().filter(|c| local.len() > c.len_utf8());
    let first = first.filter(|c| *c != '"').map(String::from).unwrap_or_default();
    format!("{first}***{sign}{domain}")
}

fn next_at(text: &str, from: usize) -> Option<(usize, &'static str)> {
    let rest = text.get(from..)?;
    rest.match_indices(['@', '%']).find_map(|(index, _)| {
        let sign = AT.into_iter().find(|sign| rest[index..].starts_with(sign))?;
        Some((from + index, sign))
    })
}

/// Where the part before the sign begins, in what stands before it.
fn local_start(before: &str) -> Option<usize> {
    if let Some(quoted) = before.strip_suffix('"') {
        return quoted.rfind('"').filter(|start| !quoted[*start..].contains('\n'));
    }
    let allowed = |c: char| c.is_alphanumeric() || "._%+-'&~!#$".contains(c);
    let start = before
        .char_indices()
        .rev()
        .take_while(|(_, c)| allowed(*c))
        .last()
        .map(|(index, _)| index)?;
    let skipped = before[start..].find(|c: char| c.is_alphanumeric() || c == '_')?;
    Some(start + skipped)
}

/// How much of what stands behind the sign is a domain.
fn domain_length(behind: &str) -> Option<usize> {
    let allowed = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    let all = &behind[..behind.find(|c| !allowed(c)).unwrap_or(behind.len())];
    let all = all.split("..").next().unwrap_or_default();
    let domain = all.trim_end_matches(['.', '-']);
    let (rest, last) = domain.rsplit_once('.')?;
    let mut letters = last.chars();
    let named = letters.clone().count() >= 2 && letters.all(char::is_alphabetic);
    let named = named || last.starts_with("xn--");
    (named && !rest.is_empty() && !rest.starts_with('.')).then_some(domain.len())
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
    fn addresses_are_found_without_what_surrounds_them() {
        for (text, address) in [
            ("jane.doe@example.com", "jane.doe@example.com"),
            ("Write to <jane+shop@mail.example.co.uk>.", "jane+shop@mail.example.co.uk"),
            ("mailto:o'brien@example.ie, please", "o'brien@example.ie"),
            ("'jane@example.com'", "jane@example.com"),
            ("email=jane@example.com&x=1", "jane@example.com"),
            ("?to=jane%40example.com&x=1", "jane%40example.com"),
            ("JANE@EXAMPLE.COM.", "JANE@EXAMPLE.COM"),
            ("to \"jane doe\"@example.com now", "\"jane doe\"@example.com"),
            ("用户@例子.公司", "用户@例子.公司"),
            ("a@xn--bcher-kva.xn--p1ai", "a@xn--bcher-kva.xn--p1ai"),
        ] {
            assert_eq!(found(text), [address], "{text}");
        }
        assert_eq!(found("a@b.com;c@d.org"), ["a@b.com", "c@d.org"]);
    }

    #[test]
    fn what_only_has_the_sign_is_no_address() {
        for text in [
            "@mention me",
            "lodash@4.17.21",
            "3 pieces @ 9.99",
            "user@localhost",
            "a @b.com",
            "100%40 and 7%.",
            "x@y..com",
            "x@.com",
            "j***@example.com",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_mask_keeps_the_first_letter_and_the_domain() {
        assert_eq!(mask("jane.doe@example.com"), "j***@example.com");
        assert_eq!(mask("j@example.com"), "***@example.com");
        assert_eq!(mask("\"jane doe\"@example.com"), "***@example.com");
        assert_eq!(mask("jane%40example.com"), "j***%40example.com");
    }
}
