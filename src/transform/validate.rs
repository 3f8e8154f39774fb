//! The step `validate`: lets pass what is valid by the JSON Schema of its type and version, upgraded
//! to a later version where that is wanted, and fails everything else with all that is wrong.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Draft, Failure, map::Program, path::FieldPath};
use crate::config::problem::{Finding, listed};

mod cloudevent;
mod schema;
mod upgrade;
mod version;
mod violation;

use schema::Schema;

const INVALID: &str = "invalid";

/// Files that were read, and the SHA-256 of what they held.
pub type Files = BTreeMap<PathBuf, [u8; 32]>;

/// JSON Schemas by event type and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Validate")]
pub struct Config {
    /// By event type, then by version: the file of the schema, relative to the folder of the
    /// configuration file. `1.10` is a later version than `1.2`.
    pub schemas: BTreeMap<String, BTreeMap<String, String>>,
    /// Where events say which version they have, such as `data.schema_version`. What has no
    /// CloudEvents attribute `dataschema` and nothing here is held against every version, the
    /// latest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<FieldPath>,
    /// By event type, then by version: a program as in `map` that makes an event of the next version
    /// out of one of this version. The result is held against the next version's schema.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upgrade: BTreeMap<String, BTreeMap<String, String>>,
    /// The version that `upgrade` leads to: `latest`, as by default, or one that every type in
    /// `upgrade` has. Events of a later version stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What becomes of events whose type has no schema.
    #[serde(default)]
    pub unknown: Unknown,
}

/// What becomes of events whose type has no schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UnknownType")]
pub enum Unknown {
    /// They fail.
    #[default]
    Fail,
    /// They pass as they are.
    Pass,
}

/// The step, ready to use.
#[derive(Debug)]
pub struct Validate {
    kinds: HashMap<String, Kind>,
    version: Option<FieldPath>,
    unknown: Unknown,
}

/// An event type.
#[derive(Debug)]
struct Kind {
    name: String,
    /// Oldest first; there is one at least.
    versions: Vec<Version>,
    /// The one that older ones are upgraded to.
    target: Option<usize>,
}

/// One version of an event type.
#[derive(Debug)]
struct Version {
    name: String,
    schema: Schema,
    /// Makes an event of the next version.
    upgrade: Option<Program>,
}

impl Config {
    /// Reads the schemas. `folder` is where the names of their files start.
    ///
    /// # Errors
    /// Every file that is not there or is no schema, and every setting that makes no sense.
    pub fn compile(&self, folder: &Path) -> Result<Validate, Vec<Finding>> {
        let mut findings = Vec::new();
        if self.schemas.is_empty() {
            findings.push(
                Finding::new("name an event type and the schemas of its versions").below("schemas"),
            );
        }
        let mut kinds = HashMap::new();
        for (name, files) in &self.schemas {
            match Kind::read(name, files, folder) {
                Ok(kind) => drop(kinds.insert(name.clone(), kind)),
                Err(wrong) => {
                    let below = |finding: Finding| finding.below(name).below("schemas");
                    findings.extend(wrong.into_iter().map(below));
                }
            }
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        let findings = upgrade::read(self, &mut kinds);
        if !findings.is_empty() {
            return Err(findings);
        }
        Ok(Validate { kinds, version: self.version.clone(), unknown: self.unknown })
    }
}

impl Validate {
    /// The files of its schemas.
    pub fn files(&self) -> impl Iterator<Item = (&PathBuf, &[u8; 32])> {
        let versions = self.kinds.values().flat_map(|kind| &kind.versions);
        versions.flat_map(|version| &version.schema.files)
    }

    /// Lets a valid event pass, upgraded to the version that is wanted. It stays as it is where this
    /// fails.
    ///
    /// # Errors
    /// It is not valid, or its type or version has no schema. Of class `invalid`; where the body is
    /// no JSON or the program of an upgrade fails, of the class of that failure.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let name = draft.event().kind.clone();
        match name.as_deref().and_then(|name| self.kinds.get(name)) {
            Some(kind) => {
                let at = self.check(kind, draft)?;
                kind.upgrade(at, draft)
            }
            None if self.unknown == Unknown::Pass => Ok(()),
            None => Err(no_schema(name.as_deref())),
        }
    }

    /// The version that the event has, if it is valid.
    fn check(&self, kind: &Kind, draft: &mut Draft) -> Result<usize, Failure> {
        if let Some(at) = self.named(kind, draft)? {
            kind.check(at, cloudevent::data(draft)?)?;
            return Ok(at);
        }
        let data = cloudevent::data(draft)?;
        let allows = |version: &Version| version.schema.allows(data);
        if let Some(at) = kind.versions.iter().rposition(allows) {
            return Ok(at);
        }
        let latest = kind.versions.len().saturating_sub(1);
        kind.check(latest, data).map(|()| latest)
    }

    /// The version that the event says it has.
    fn named(&self, kind: &Kind, draft: &mut Draft) -> Result<Option<usize>, Failure> {
        if let Some(uri) = cloudevent::dataschema(draft)? {
            let found = kind.by_uri(&uri);
            return found.map(Some).ok_or_else(|| kind.has_no_such_version("`dataschema`"));
        }
        let Some(path) = &self.version else { return Ok(None) };
        let found = match cloudevent::get(path, draft)? {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::String(version)) => kind.by_name(&version),
            Some(Json::Number(version)) => kind.by_name(&version.to_string()),
            Some(_) => None,
        };
        found.map(Some).ok_or_else(|| kind.has_no_such_version(&format!("`{path}`")))
    }
}

impl Kind {
    fn read(
        name: &str,
        files: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Result<Self, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut versions: Vec<Version> = Vec::new();
        for (version, file) in files {
            let schema = match Schema::read(&folder.join(file)) {
                Ok(schema) => schema,
                Err(text) => {
                    findings.push(Finding::new(text).below(version));
                    continue;
                }
            };
            let same = |other: &&Version| schema.id.is_some() && other.schema.id == schema.id;
            if let Some(other) = versions.iter().find(same) {
                let text =
                    format!("has the same `$id` as version `{}`; give it its own", other.name);
                findings.push(Finding::new(text).below(version));
            }
            versions.push(Version { name: version.clone(), schema, upgrade: None });
        }
        if files.is_empty() {
            findings.push(Finding::new("name a version and its file, as in `\"1\": order.json`"));
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        versions.sort_by(|one, other| version::order(&one.name, &other.name));
        Ok(Self { name: name.to_owned(), versions, target: None })
    }

    /// Holds data against the schema of a version.
    fn check(&self, at: usize, data: &Json) -> Result<(), Failure> {
        let Some(version) = self.versions.get(at) else { return Ok(()) };
        let Some(violations) = version.schema.violations(data) else { return Ok(()) };
        let text = format!("no valid `{}` of version `{}`: {violations}", self.name, version.name);
        Err(Failure::new(INVALID, text))
    }

    fn by_name(&self, name: &str) -> Option<usize> {
        self.versions.iter().position(|version| version.name == name)
    }

    /// The version whose schema has this `$id`; else the one that it ends with, as in
    /// `…/order.placed/2` or `…/order.placed/2.json`.
    fn by_uri(&self, uri: &str) -> Option<usize> {
        self.by_id(uri).or_else(|| self.by_name(cloudevent::ending(uri, &self.name)?.version))
    }

    fn by_id(&self, uri: &str) -> Option<usize> {
        let id = Some(uri.trim_end_matches('#'));
        self.versions.iter().position(|version| version.schema.id.as_deref() == id)
    }

    fn listed(&self) -> String {
        let names: Vec<&str> = self.versions.iter().map(|version| &*version.name).collect();
        listed(&names)
    }

    fn has_no_such_version(&self, place: &str) -> Failure {
        let text = format!(
            "{place} names no version of `{}` that has a schema; there is {}",
            self.name,
            self.listed()
        );
        Failure::new(INVALID, text)
    }
}

fn no_schema(kind: Option<&str>) -> Failure {
    let what = match kind {
        Some(kind) => format!("events of type `{}`", violation::short(kind)),
        None => "events without a type".to_owned(),
    };
    let text = format!("{what} have no schema; give them one, or let them by with `unknown: pass`");
    Failure::new(INVALID, text)
}

#[cfg(test)]
mod tests;
