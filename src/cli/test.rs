//! `test`: runs files of tests against a configuration, and shows what is not as expected.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_saphyr::Location;
use time::OffsetDateTime;

use super::{
    diff,
    expectation::{Miss, Test, TestFile, Wrong, wrong},
    forecast::forecast,
    paint::Paint,
    ready,
};
use crate::config::{plan::Plan, problem::suggestion};

/// How tests ended.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// Files and tests that could not be read.
    broken: usize,
}

/// Runs the tests of these files and writes how they end. Answers whether all of them passed.
///
/// # Errors
/// The report cannot be written.
pub fn test(
    config: &Path,
    files: &[PathBuf],
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<bool> {
    let plan = match ready(config) {
        Ok(plan) => plan,
        Err(problems) => {
            write!(out, "{problems}")?;
            return Ok(false);
        }
    };
    let mut tally = Tally::default();
    for file in files {
        run_file(&plan, file, paint, &mut tally, out)?;
    }
    let Tally { passed, failed, broken } = tally;
    let unreadable = match broken {
        0 => String::new(),
        count => format!(", {count} cannot be read"),
    };
    writeln!(out, "{passed} passed, {failed} failed{unreadable}")?;
    if passed + failed + broken == 0 {
        writeln!(out, "there is no test in these files")?;
    }
    Ok(passed > 0 && failed + broken == 0)
}

fn run_file(
    plan: &Plan,
    file: &Path,
    paint: Paint,
    tally: &mut Tally,
    out: &mut impl Write,
) -> io::Result<()> {
    let name = file.display();
    let place = |at: Option<Location>| match at {
        Some(at) => format!("{name}:{}:{}", at.line(), at.column()),
        None => name.to_string(),
    };
    let read = std::fs::read_to_string(file)
        .map_err(|error| (None, format!("cannot read: {error}")))
        .and_then(|text| TestFile::read(&text));
    let tests = match read {
        Ok(file) => file.tests,
        Err((at, text)) => {
            tally.broken += 1;
            return writeln!(out, "{}  {}\n", place(at), paint.bad(text));
        }
    };
    writeln!(out, "{}", paint.strong(name.to_string()))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    for test in &tests {
        match run(plan, test, folder) {
            Ok(misses) if misses.is_empty() => {
                tally.passed += 1;
                writeln!(out, "  {}      {}", paint.good("ok"), test.name)?;
            }
            Ok(misses) => {
                tally.failed += 1;
                writeln!(out, "  {}  {}", paint.bad("FAILED"), test.name)?;
                for Miss { what, expected, found } in misses {
                    writeln!(out, "          {what}: {}", paint.weak("- expected, + found"))?;
                    for line in diff::lines(&expected, &found, paint) {
                        writeln!(out, "            {line}")?;
                    }
                }
            }
            Err((at, text)) => {
                tally.broken += 1;
                writeln!(out, "  {}  {}", paint.bad("BROKEN"), test.name)?;
                writeln!(out, "          {}  {text}", place(Some(at)))?;
            }
        }
    }
    writeln!(out)
}

/// What is not as a test expects.
fn run(plan: &Plan, test: &Test, folder: &Path) -> Result<Vec<Miss>, Wrong> {
    let sinks: Vec<&str> = plan.sinks.iter().map(|sink| &*sink.name).collect();
    if let Some(wrong) = wrong(&test.expect, &sinks) {
        return Err(wrong);
    }
    let source = source(plan, test)?;
    let event = Arc::new(test.event(folder)?);
    let now = test.now.unwrap_or_else(OffsetDateTime::now_utc);
    Ok(test.expect.value.misses(&forecast(plan, source, &event, now)))
}

/// The place of the source that brings the event of a test.
fn source(plan: &Plan, test: &Test) -> Result<usize, Wrong> {
    let names = || plan.sources.iter().map(|source| &*source.name);
    match &test.source {
        Some(name) => names().position(|source| source == name.value).ok_or_else(|| {
            let hint = suggestion(&name.value, names());
            (name.referenced, format!("there is no source `{}`; {hint}", name.value))
        }),
        None if plan.sources.len() == 1 => Ok(0),
        None => {
            let text = "there are several sources; say which one brings the event, with `source`";
            Err((test.expect.referenced, text.to_owned()))
        }
    }
}
