//! Events of an old version become events of a newer one, one version at a time, and are held
//! against the schema of each version on the way.

use std::collections::{BTreeMap, HashMap};

use super::{Config, INVALID, Kind, cloudevent};
use crate::{
    config::problem::{Finding, listed, suggestion},
    transform::{
        Draft, Failure,
        map::{Flow, Program},
    },
};

/// What `to` says for the latest version, whichever that is.
const LATEST: &str = "latest";

/// Gives the programs to the versions that they upgrade from, and every type its target.
pub(super) fn read(config: &Config, kinds: &mut HashMap<String, Kind>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let (Some(_), true) = (&config.to, config.upgrade.is_empty()) {
        let text = "there is no `upgrade` that would lead there; write one, or take this out";
        findings.push(Finding::new(text).below("to"));
    }
    for (name, programs) in &config.upgrade {
        let below = |finding: Finding| finding.below(name).below("upgrade");
        let Some(kind) = kinds.get_mut(name) else {
            let known = config.schemas.keys().map(String::as_str);
            let text = format!("there are no schemas for it; {}", suggestion(name, known));
            findings.push(below(Finding::new(text)));
            continue;
        };
        let target = match config.to.as_deref() {
            None | Some(LATEST) => kind.versions.len().checked_sub(1),
            Some(version) => kind.by_name(version),
        };
        match target {
            Some(target) => kind.target = Some(target),
            None => {
                let text = format!("`{name}` has no such version; there is {}", kind.listed());
                findings.push(Finding::new(text).below("to"));
            }
        }
        findings.extend(kind.take_programs(programs).into_iter().map(below));
    }
    findings
}

impl Kind {
    fn take_programs(&mut self, programs: &BTreeMap<String, String>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let latest = self.versions.len().saturating_sub(1);
        for (version, text) in programs {
            let wrong = match self.by_name(version) {
                None => format!("there is no schema for this version; there is {}", self.listed()),
                Some(at) if at == latest => {
                    "there is no later version that it could be upgraded to".to_owned()
                }
                Some(at) => {
                    match (Program::compile(text), self.versions.get_mut(at)) {
                        (Ok(program), Some(version)) => version.upgrade = Some(program),
                        (Ok(_), None) => {}
                        (Err(wrong), _) => {
                            findings.extend(wrong.into_iter().map(|found| found.below(version)));
                        }
                    }
                    continue;
                }
            };
            findings.push(Finding::new(wrong).below(version));
        }
        let on_the_way = self.versions.iter().take(self.target.unwrap_or(0));
        let missing: Vec<&str> = on_the_way
            .map(|version| &*version.name)
            .filter(|version| !programs.contains_key(*version))
            .collect();
        if !missing.is_empty() {
            findings.push(Finding::new(format!(
                "nothing leads on from {}; write a program, `.` where nothing has to change",
                listed(&missing)
            )));
        }
        findings
    }

    /// Makes an event of the target version of a valid one of an older version. It stays as it is
    /// where this fails.
    pub(super) fn upgrade(&self, at: usize, draft: &mut Draft) -> Result<(), Failure> {
        let Some(target) = self.target.filter(|target| at < *target) else { return Ok(()) };
        let mut upgraded = draft.clone();
        let envelope = cloudevent::open(&mut upgraded)?;
        for (from, to) in (at..target).map(|from| (from, from + 1)) {
            self.step(from, to, &mut upgraded)?;
        }
        cloudevent::close(envelope, &mut upgraded)?;
        if let Some(old) = cloudevent::dataschema(draft)?
            && cloudevent::dataschema(&mut upgraded)?.as_ref() == Some(&old)
        {
            cloudevent::set_dataschema(&mut upgraded, self.uri_of(target, &old))?;
        }
        *draft = upgraded;
        Ok(())
    }

    fn step(&self, from: usize, to: usize, draft: &mut Draft) -> Result<(), Failure> {
        let (Some(old), Some(new)) = (self.versions.get(from), self.versions.get(to)) else {
            return Ok(());
        };
        let Some(program) = &old.upgrade else { return Ok(()) };
        let changed = match program.run(draft) {
            Ok(Flow::Keep) => draft.look().and_then(|data| self.check(to, data)),
            Ok(Flow::Drop) => Err(Failure::new(INVALID, "the program aborts; an upgrade may not")),
            Err(failure) => Err(failure),
        };
        changed.map_err(|Failure { class, text }| {
            let step = format!("from version `{}` to `{}`", old.name, new.name);
            Failure::new(class, format!("upgrade of `{}` {step}: {text}", self.name))
        })
    }

    /// What names the version in the way in which the other URI names another one; nothing where
    /// that is an `$id` and this version has none.
    fn uri_of(&self, at: usize, other: &str) -> Option<String> {
        let version = self.versions.get(at)?;
        match cloudevent::ending(other, &self.name) {
            Some(ending) if self.by_id(other).is_none() => Some(ending.with(&version.name)),
            _ => version.schema.id.clone(),
        }
    }
}
