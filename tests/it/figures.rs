//! What a run has shown, for `docs/guarantees.md`, which `make torture` writes.

use std::{fs, io::Write as _, path::Path};

use serde_json::{Value as Json, json};

/// Prints the figures of a run, and adds them as a line of JSON to the part's file in the directory
/// that `EVENTFERRY_FIGURES` names, if it does. `run` says what was run, in words.
pub(crate) fn note(part: &str, run: &str, figures: Json) {
    println!("{part}: {run}: {figures}");
    let Some(directory) = std::env::var_os("EVENTFERRY_FIGURES") else { return };
    let mut line = json!({ "run": run });
    line.as_object_mut().unwrap().extend(figures.as_object().unwrap().clone());
    fs::create_dir_all(&directory).unwrap();
    let file = Path::new(&directory).join(part).with_extension("jsonl");
    // Lines of tests that run at once do not mix: each is one write.
    let mut file = fs::File::options().create(true).append(true).open(file).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}
