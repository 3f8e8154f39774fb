//! Reads JSON from its front, value by value, so that what nobody asks for is passed over at the
//! cost of finding its end. All of it is checked, as strictly as a parser would.

/// A JSON text. A place in it is a number of bytes; what reads on from one returns the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'e>(&'e str);

/// Objects and arrays within each other; `serde_json` takes as many.
pub(super) const DEPTH_MAX: usize = 127;

/// Text between quotes, as it stands there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'e> {
    pub(super) text: &'e str,
    /// Whether it has escapes.
    pub(super) escaped: bool,
}

/// The text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoJson;

type Read<T> = Result<T, NoJson>;

impl<'e> Quoted<'e> {
    /// What is meant, where it has escapes.
    pub(super) fn unescaped(self) -> Read<String> {
        serde_json::from_str(&format!("\"{}\"", self.text)).map_err(|_| NoJson)
    }
}

impl<'e> Scan<'e> {
    pub(super) fn new(text: &'e str) -> Self {
        Self(text)
    }

    #[inline(always)]
    fn at(self, at: usize) -> Option<u8> {
        self.0.as_bytes().get(at).copied()
    }

    /// What is next after any space, and where.
    #[inline(always)]
    pub(super) fn next(self, mut at: usize) -> Read<(u8, usize)> {
        loop {
            match self.at(at) {
                Some(byte) if byte > b' ' => return Ok((byte, at)),
                Some(b' ' | b'\n' | b'\r' | b'\t') => at += 1,
                _ => return Err(NoJson),
            }
        }
    }

    /// That nothing follows.
    pub(super) fn end(self, at: usize) -> Read<()> {
        let rest = self.0.as_bytes().get(at..).unwrap_or_default();
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        if rest.iter().all(is_space) { Ok(()) } else { Err(NoJson) }
    }

    /// Into an object or an array that begins here, up to its first entry. `Err` of the place
    /// behind it where it is empty.
    #[inline(always)]
    pub(super) fn enter(self, at: usize, close: u8) -> Read<Result<usize, usize>> {
        let (byte, at) = self.next(at + 1)?;
        Ok(if byte == close { Err(at + 1) } else { Ok(at) })
    }

    /// From behind an entry to the next. `Err` of the place behind all where there is none.
    #[inline(always)]
    pub(super) fn more(self, at: usize, close: u8) -> Read<Result<usize, usize>> {
        match self.next(at)? {
            (b',', at) => Ok(Ok(at + 1)),
            (byte, at) if byte == close => Ok(Err(at + 1)),
            _ => Err(NoJson),
        }
    }

    /// The name of an entry of an object, and the place of its value.
    #[inline(always)]
    pub(super) fn name(self, at: usize) -> Read<(Quoted<'e>, usize)> {
        let (b'"', open) = self.next(at)? else { return Err(NoJson) };
        let (name, at) = self.string(open)?;
        let (b':', at) = self.next(at)? else { return Err(NoJson) };
        Ok((name, at + 1))
    }

    /// From the name of an entry of an object to its value.
    #[inline(always)]
    fn skip_name(self, at: usize) -> Read<usize> {
        let (b'"', open) = self.next(at)? else { return Err(NoJson) };
        let (close, _) = self.close(open)?;
        let (b':', at) = self.next(close + 1)? else { return Err(NoJson) };
        Ok(at + 1)
    }

    /// Text that begins here.
    #[inline(always)]
    pub(super) fn string(self, open: usize) -> Read<(Quoted<'e>, usize)> {
        let (close, escaped) = self.close(open)?;
        let text = self.0.get(open + 1..close).ok_or(NoJson)?;
        Ok((Quoted { text, escaped }, close + 1))
    }

    /// The quote that closes the one here, and whether escapes are between them.
    #[inline(always)]
    fn close(self, open: usize) -> Read<(usize, bool)> {
        let at = self.plain(open + 1);
        match self.at(at) {
            Some(b'"') => Ok((at, false)),
            _ => self.close_escaped(at).map(|at| (at, true)),
        }
    }

    #[cold]
    fn close_escaped(self, mut at: usize) -> Read<usize> {
        loop {
            match self.at(at) {
                Some(b'"') => return Ok(at),
                Some(b'\\') => at = self.plain(self.escape(at)?),
                // A control character, or the end.
                _ => return Err(NoJson),
            }
        }
    }

    /// Passes over all that stands for itself within quotes, eight bytes at a time.
    #[inline(always)]
    fn plain(self, at: usize) -> usize {
        let mut rest = self.0.as_bytes().get(at..).unwrap_or_default();
        while let Some((word, after)) = rest.split_first_chunk() {
            let found = special(u64::from_le_bytes(*word));
            if found != 0 {
                return self.0.len() - rest.len() + found.trailing_zeros() as usize / 8;
            }
            rest = after;
        }
        let is_special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
        let plain = rest.iter().position(is_special).unwrap_or(rest.len());
        self.0.len() - rest.len() + plain
    }

    fn escape(self, at: usize) -> Read<usize> {
        match self.0.as_bytes().get(at + 1..).unwrap_or_default() {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Ok(at + 2),
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|hex| hex.is_ascii_hexdigit()) => {
                Ok(at + 6)
            }
            _ => Err(NoJson),
        }
    }

    /// `true`, `false` or `null`.
    pub(super) fn word(self, at: usize, word: &str) -> Read<usize> {
        let rest = self.0.as_bytes().get(at..).unwrap_or_default();
        if rest.starts_with(word.as_bytes()) { Ok(at + word.len()) } else { Err(NoJson) }
    }

    /// A number that begins here, as it stands there.
    pub(super) fn number(self, from: usize) -> Read<(&'e str, usize)> {
        let at = self.number_end(from)?;
        Ok((self.0.get(from..at).ok_or(NoJson)?, at))
    }

    fn number_end(self, from: usize) -> Read<usize> {
        let mut at = from + usize::from(self.at(from) == Some(b'-'));
        at = match self.at(at) {
            Some(b'0') => at + 1,
            _ => self.digits(at)?,
        };
        if self.at(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.at(at) {
            let signed = matches!(self.at(at + 1), Some(b'+' | b'-'));
            at = self.digits(at + 1 + usize::from(signed))?;
        }
        Ok(at)
    }

    fn digits(self, from: usize) -> Read<usize> {
        let mut at = from;
        while self.at(at).is_some_and(|byte| byte.is_ascii_digit()) {
            at += 1;
        }
        if at > from { Ok(at) } else { Err(NoJson) }
    }

    /// Passes over a value that has at most so many others around each other.
    pub(super) fn skip(self, mut at: usize, depth: usize) -> Read<usize> {
        // For each value around this one whether it is an object, the innermost in the lowest bit.
        let (mut around, mut left) = (0_u128, depth);
        loop {
            let (byte, from) = self.next(at)?;
            at = match byte {
                b'"' => self.close(from)?.0 + 1,
                b'{' | b'[' => {
                    left = left.checked_sub(1).ok_or(NoJson)?;
                    around = around << 1 | u128::from(byte == b'{');
                    let close = if byte == b'{' { b'}' } else { b']' };
                    match self.enter(from, close)? {
                        Ok(first) if byte == b'{' => {
                            at = self.skip_name(first)?;
                            continue;
                        }
                        Ok(first) => {
                            at = first;
                            continue;
                        }
                        Err(behind) => {
                            around >>= 1;
                            left += 1;
                            behind
                        }
                    }
                }
                b't' => self.word(from, "true")?,
                b'f' => self.word(from, "false")?,
                b'n' => self.word(from, "null")?,
                b'-' | b'0'..=b'9' => self.number_end(from)?,
                _ => return Err(NoJson),
            };
            // Behind a value: out of all that end with it, and on to the next.
            while left < depth {
                let is_object = around & 1 == 1;
                match self.more(at, if is_object { b'}' } else { b']' })? {
                    Ok(next) => {
                        at = if is_object { self.skip_name(next)? } else { next };
                        break;
                    }
                    Err(behind) => {
                        at = behind;
                        around >>= 1;
                        left += 1;
                    }
                }
            }
            if left == depth {
                return Ok(at);
            }
        }
    }
}

/// Marks bytes that end plain text in a string: quotes, backslashes and control characters. Sure
/// of the first one only.
#[inline(always)]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    // With one bit turned, a quote comes to stand right behind the control characters.
    let control_or_quote = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json(text: &str) -> bool {
        let scan = Scan::new(text);
        scan.skip(0, DEPTH_MAX).and_then(|at| scan.end(at)).is_ok()
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "]",
            "[1,]",
            "[1 2]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a" 1}"#,
            "tru",
            "truee",
            "nul",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "--1",
            "1 2",
            r#"""#,
            r#""\"#,
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u123"#,
            "\"\n\"",
            "\"1234567\u{1}\"",
            "'a'",
            "NaN",
            "\u{feff}1",
            "1\u{a0}",
        ] {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_as_in_the_parser() {
        for depth in [DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let parsed = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            assert_eq!(is_json(&text), parsed, "{depth}");
        }
    }

    proptest! {
        #[test]
        fn a_word_shows_its_first_special_byte(bytes: [u8; 8]) {
            let first = bytes.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
            let found = special(u64::from_le_bytes(bytes));
            prop_assert_eq!((found != 0).then(|| found.trailing_zeros() as usize / 8), first);
        }

        #[test]
        fn what_the_parser_takes_is_taken_and_nothing_else(
            text in r#"([\[\]{},:" \n0-9.eE+\-a]|"[a-zü"\\/u0-9]{0,10}"|true|null|"a":|[0-9]{1,3},){0,12}"#,
            wrap in 0..3,
        ) {
            let text = match wrap {
                0 => text,
                1 => format!("[{text}]"),
                _ => format!(r#"{{"a":{text}}}"#),
            };
            let parsed = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_json(&text), parsed, "{}", text);
        }
    }
}
