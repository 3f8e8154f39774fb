//! IPv4 and IPv6 addresses: what has the looks of one, and parses.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
};

/// Finds addresses. A row of five numbers is a version or the like, and none.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let of_address = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    let mut at = 0;
    while let Some(start) = text[at..].find(of_address).map(|skip| at + skip) {
        let length = text[start..].find(|c| !of_address(c)).unwrap_or(text.len() - start);
        at = start + length;
        if text[start..at].bytes().filter(|byte| *byte == b':').count() > 1
            && let Some(range) = v6(text, start..at)
        {
            found.push(range);
        } else {
            v4(text, start..at, found);
        }
    }
}

fn v6(text: &str, run: Range<usize>) -> Option<Range<usize>> {
    let (before, behind) = super::detect::around(text, &run);
    if behind.starts_with(char::is_alphanumeric) {
        return None;
    }
    let end = run.start + text[run.clone()].trim_end_matches('.').len();
    // `src:2001:db8::1` begins with the end of a word.
    let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let label = text[run.clone()].find(':').filter(|length| in_word || *length > 4 || *length == 0);
    let starts = [(!in_word).then_some(run.start), label.map(|length| run.start + length + 1)];
    starts.into_iter().flatten().find_map(|start| {
        // `add::bad` parses as well, and is a name in a program; `5::` is a part of a time.
        let likely = |address: &&str| {
            address.bytes().any(|byte| byte.is_ascii_digit())
                && address.bytes().any(|byte| byte != b':')
        };
        let ends = [end, start + text.get(start..end)?.trim_end_matches(':').len()];
        let parses = |end: &usize| {
            let address = text.get(start..*end).filter(likely);
            address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        };
        ends.into_iter().find(parses).map(|end| start..end)
    })
}

/// Those among hexadecimal digits, dots and colons: `10.0.0.1:443`.
fn v4(text: &str, run: Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut start = run.start;
    for word in text[run].split(':') {
        let trimmed = word.trim_matches('.');
        let skipped = word.len() - word.trim_start_matches('.').len();
        let range = start + skipped..start + skipped + trimmed.len();
        start += word.len() + 1;
        let (before, behind) = super::detect::around(text, &range);
        let apart = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && !behind.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if apart && trimmed.parse::<Ipv4Addr>().is_ok() {
            found.push(range);
        }
    }
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
    fn addresses_are_found() {
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1"),
            ("from 192.168.100.200.", "192.168.100.200"),
            ("https://10.0.0.1:8443/x", "10.0.0.1"),
            ("10.0.0.0/8", "10.0.0.0"),
            ("ip=10.0.0.1,", "10.0.0.1"),
            ("src:10.0.0.1:443", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("at ::1.", "::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
            ("src:2001:db8::1", "2001:db8::1"),
            ("ip: 2001:0DB8:0:0:0:0:0:1:", "2001:0DB8:0:0:0:0:0:1"),
        ] {
            assert_eq!(found(text), [address], "{text}");
        }
    }

    #[test]
    fn near_misses_stay() {
        for text in [
            "1.2.3.4.5",
            "v1.2.3.4",
            "1.2.3.4a",
            "256.1.1.1",
            "1.2.3",
            "12:34:56",
            "2026-11-21T12:34:56.789",
            "00:11:22:33:44:55",
            "std::string",
            "add::bad",
            "Face::cafe()",
            "::",
            "1:2:3:4:5:6:7:8:9",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
