//! What must stand in no log, whichever test it comes from: each daemon that a test starts is looked
//! at when it ends, and what the code says within the tests' own process is looked at as it is said.

use std::{io, path::Path, sync::Once};

use tracing::level_filters::LevelFilter;

/// A word of bodies, wherever a test likes to put it.
pub const PAYLOAD: &str = "canary-7f3a9be2";

/// Parts of secrets that the local services are used with, and of what tests send.
const SECRETS: [&str; 8] = [
    "SharedAccessKey=",
    "AccountKey=",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq",
    "canary-",
    // Of tokens: those of the file, and any JSON Web Token.
    "-and-some-more",
    "eyJhbGciOi",
    // The bodies of most events, as they are and within JSON.
    "{\"n\":",
    "{\\\"n\\\":",
];

/// Fails if a log has a secret or a payload in it.
pub fn look_for_any(log: &Path) {
    look_for_any_in(&std::fs::read_to_string(log).unwrap_or_default());
}

/// The same of what a log says.
pub fn look_for_any_in(log: &str) {
    let found = found(log);
    // A test that has failed says why itself.
    assert!(found.is_none() || std::thread::panicking(), "in the log: {found:?}");
}

/// The first secret that there is, and its line.
fn found(log: &str) -> Option<(&str, &str)> {
    let secret = SECRETS.into_iter().find(|secret| log.contains(secret))?;
    Some((secret, log.lines().find(|line| line.contains(secret))?))
}

/// Looks at all that this process says from now on. What is found ends it: whoever said it may be
/// any of many tests.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let all = tracing_subscriber::fmt().with_max_level(LevelFilter::DEBUG).json();
        all.with_writer(|| Watch).init();
    });
}

struct Watch;

impl io::Write for Watch {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Dependencies say what they like below a warning: a daemon does not write that.
        let text = String::from_utf8_lossy(line);
        let is_ours = text.contains("\"target\":\"event") || !text.contains("\"level\":\"DEBUG\"");
        if is_ours && let Some(found) = found(&text) {
            eprintln!("a secret or a payload is logged: {found:?}");
            std::process::abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_a_canary_is_there_for_is_found() {
    for line in ["{\"body\":\"{\\\"n\\\":7}\"}", "key: AccountKey=x", "says canary-1"] {
        assert!(found(&format!("well\n{line}\nwell")).is_some_and(|(_, it)| it == line), "{line}");
    }
    assert_eq!(found("{\"in\":1}"), None);
}
