//! Keys and tokens: those that have a prefix of their own, and those that stand behind a name.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

/// The shortest: eight characters behind `Bearer `.
pub(super) const BYTES_MIN: usize = 15;
/// A word behind `Bearer` without a digit in it is a word of a language, unless it is this long.
const WORD_BYTES_MAX: usize = 24;
/// How much of a name is looked at, from its end: the longest that is known, and what stands
/// between its words.
const NAME_BYTES_MAX: usize = 64;

/// Where one has a group, only that is the secret.
static KEYS: LazyLock<Regex> = LazyLock::new(|| {
    let keys = [
        // AWS access key ids, long-lived and temporary.
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
        // AWS secret access keys, by their name.
        r#"(?i:secret[_ -]?(?:access[_ -]?)?key)\\?["']?\s*[:=]\s*\\?["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)"#,
        // Azure: keys of connection strings, and shared access signatures.
        r"(?i:AccountKey|SharedAccessKey|SharedSecretKey|AccessKey)\s*=\s*([A-Za-z0-9+/=%_-]{20,})",
        r#"(?i:SharedAccessSignature)\s*[= ]\s*([^\s;"',]{16,})"#,
        r"\b(?i:sig)=([A-Za-z0-9%+/=_-]{16,})",
        // JSON Web Tokens, signed or encrypted.
        r"\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){2,4}",
        // GitHub, GitLab, Slack, Stripe, Google, npm.
        r"\bgh[pousr]_[A-Za-z0-9]{36,255}",
        r"\bgithub_pat_[A-Za-z0-9_]{22,255}",
        r"\bglpat-[A-Za-z0-9_-]{20,}",
        r"\bxox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}",
        r"\bxapp-[0-9]-[A-Za-z0-9-]{10,}",
        r"\bhooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{20,})",
        r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{10,}",
        r"\bwhsec_[A-Za-z0-9+/=]{16,}",
        r"\bAIza[A-Za-z0-9_-]{35}",
        r"\bnpm_[A-Za-z0-9]{36}\b",
        // Private keys, also where the end is cut off.
        r"(?s:-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----|\z))",
        r"\b(?i:bearer)\s+([A-Za-z0-9._~+/-]{8,}=*)",
    ];
    // Borders of ASCII words are much cheaper than those of Unicode.
    Regex::new(&keys.join("|").replace(r"\b", r"(?-u:\b)")).expect("a constant expression")
});

/// Finds keys and tokens.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    for captures in KEYS.captures_iter(text) {
        let Some(all) = captures.get(0) else { continue };
        let secret = captures.iter().skip(1).flatten().next().unwrap_or(all);
        let bearer = all.as_str().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("bearer"));
        let a_word = secret.len() < WORD_BYTES_MAX
            && !secret.as_str().contains(|c: char| c.is_ascii_digit());
        if !(bearer && a_word) {
            found.push(secret.range());
        }
    }
}

/// Whether what bears this name is a secret as a whole: `{"SecretAccessKey": "..."}`.
pub(super) fn is_named(name: &str, text: &str) -> bool {
    const NAMES: [&str; 7] = [
        "secretaccesskey",
        "secretkey",
        "sessiontoken",
        "accountkey",
        "sharedaccesskey",
        "sharedaccesssignature",
        "accesskey",
    ];
    // A name can be as long as a body, and stand over as many texts.
    let backwards = name.bytes().rev().take(NAME_BYTES_MAX).filter(u8::is_ascii_alphanumeric);
    let backwards = backwards.map(|byte| byte.to_ascii_lowercase());
    let ends_with = |end: &str| end.bytes().rev().eq(backwards.clone().take(end.len()));
    NAMES.into_iter().any(ends_with) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut ranges = Vec::new();
        find(text, &mut ranges);
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    // In two parts, so that nobody who scans this repository takes them for real ones.
    fn check(text: &str, start: &str, rest: &str) {
        let secret = format!("{start}{rest}");
        assert_eq!(found(&text.replace('§', &secret)), [secret.as_str()], "{text}");
    }

    #[test]
    fn keys_with_a_prefix_are_found() {
        for (start, rest) in [
            ("AKIA", "IOSFODNN7EXAMPLE"),
            ("ASIA", "IOSFODNN7EXAMPLE"),
            ("eyJhbGciOiJIUzI1NiJ9", ".eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
            ("ghp_", "0123456789abcdefghijABCDEFGHIJ012345"),
            ("github_pat_", "0123456789abcdefghijAB_0123"),
            ("glpat-", "0123456789abcdefghij"),
            ("xoxb-", "1234567890-abcdefghij"),
            ("sk_live_", "0123456789abcdefghij"),
            ("rk_test_", "0123456789abcdefghij"),
            ("whsec_", "0123456789abcdefghij"),
            ("AIza", "0123456789abcdefghij0123456789abcde"),
            ("npm_", "0123456789abcdefghijABCDEFGHIJ012345"),
        ] {
            for text in ["§", "use §, then", "token=§&x", "(§)"] {
                check(text, start, rest);
            }
        }
    }

    #[test]
    fn keys_behind_a_name_are_found_and_their_name_stays() {
        let aws = ("wJalrXUtnFEMI/K7MDENG/", "bPxRfiCYEXAMPLEKEZ");
        let azure = ("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2Vj", "cmV0LXNlY3JldA==");
        for (text, (start, rest)) in [
            ("aws_secret_access_key = §", aws),
            ("AWS_SECRET_ACCESS_KEY=§\nx", aws),
            ("{\"SecretAccessKey\":\"§\"}", aws),
            ("{\\\"SecretAccessKey\\\": \\\"§\\\"}", aws),
            ("AccountName=a;AccountKey=§;EndpointSuffix=core.windows.net", azure),
            ("Endpoint=sb://a/;SharedAccessKeyName=n;SharedAccessKey=§", azure),
            ("SharedAccessSignature §", ("sr=sb%3a%2f%2fa", "&sig=0123456789&se=1")),
            ("https://a.blob.core.windows.net/c?sv=1&sig=§&se=2", ("c2lnbmF0", "dXJlMDEyMw%3D%3D")),
            ("Authorization: Bearer §", ("abc123.def", "-456_x=")),
            ("authorization: bearer §", ("abcdefghijkl", "mnopqrstuvwxyz")),
        ] {
            check(text, start, rest);
        }
    }

    #[test]
    fn private_keys_go_from_end_to_end() {
        let key = |kind: &str, end: &str| {
            format!("-----{} {kind}PRIVATE KEY-----\nMIIE+/x\nabc=\n{end}", "BEGIN")
        };
        for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
            let whole = key(kind, &format!("-----END {kind}PRIVATE KEY-----"));
            assert_eq!(found(&format!("a {whole} b")), [whole.as_str()]);
            let cut = key(kind, "MIIE");
            assert_eq!(found(&format!("a {cut}")), [cut.as_str()]);
        }
        let public = key("", "").replace("PRIVATE", "PUBLIC");
        assert_eq!(found(&public), [""; 0]);
    }

    #[test]
    fn near_misses_stay() {
        for text in [
            "AKIA is how they begin",
            "AKIAIOSFODNN7EXAMPLE0",
            "XAKIAIOSFODNN7EXAMPLE",
            "the secret access key is in the vault",
            "secret_access_key = too-short",
            "0123456789abcdef0123456789abcdef01234567",
            "the bearer of good news",
            "Bearer certificates are rare",
            "sig=short",
            "task_live_music",
            "eyJ and nothing more, really",
            "a.b.c.d.e.f.g.h.i.j.k",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_name_tells_a_secret() {
        for name in ["SecretAccessKey", "aws_secret_access_key", "AccountKey", "aws-session-token"]
        {
            assert!(is_named(name, "wJalrXUtnFEMI/K7MDENG"), "{name}");
            assert!(!is_named(name, "ask your administrator"), "{name}");
        }
        for name in ["", "key", "monkey", "SharedAccessKeyName", "AccessKeyId"] {
            assert!(!is_named(name, "wJalrXUtnFEMI/K7MDENG"), "{name}");
        }
    }
}
