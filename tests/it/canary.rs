//! What must stand in no log of any daemon that a test runs: each looks, when its daemon ends.

use std::path::Path;

/// A word of bodies, wherever a test likes to put it.
pub const PAYLOAD: &str = "canary-7f3a9be2";

/// Parts of secrets that the local services are used with.
const SECRETS: [&str; 4] = [
    "SharedAccessKey=",
    "AccountKey=",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq",
    "canary-",
];

/// Fails if a log has a secret or a payload in it.
pub fn look_for_any(log: &Path) {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    for secret in SECRETS {
        let line = log.lines().find(|line| line.contains(secret));
        // A test that has failed says why itself.
        assert!(line.is_none() || std::thread::panicking(), "{secret} is in the log: {line:?}");
    }
}
