//! A JSON Schema from a file. What it refers to is read from its folder, never from the network.

use std::{
    error::Error,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jsonschema::{
    PatternOptions, ReferencingError, Retrieve, Uri, ValidationError, Validator,
    error::ValidationErrorKind,
};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::{Files, violation};

/// What a folder of schemas without `$id` is called in references.
const FOLDER: &str = "file:///schemas/";
/// Steps back that a pattern may take in one text. Only patterns that look around or refer back
/// take any, and one event can have many texts.
const STEPS_BACK_MAX: usize = 10_000;

/// A schema that has been read and can be held against data.
#[derive(Debug)]
pub(super) struct Schema {
    /// Its `$id`, where that is a whole URI.
    pub(super) id: Option<String>,
    /// Its file, and those that it refers to.
    pub(super) files: Files,
    validator: Validator,
}

impl Schema {
    /// Reads the file.
    ///
    /// # Errors
    /// There is none, or what it says is no schema: what is wrong, and what to do.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let files = Arc::new(Mutex::new(Files::new()));
        let schema = read_json(file, &files)?;
        let id = schema.get("$id").and_then(Json::as_str).filter(|id| Uri::parse(*id).is_ok());
        let base = match id {
            Some(id) => id.to_owned(),
            None => format!("{FOLDER}{}", file_name(file)),
        };
        let siblings = Siblings {
            folder: file.parent().unwrap_or(Path::new("")).to_owned(),
            base: base.rfind('/').map_or("", |end| &base[..=end]).to_owned(),
            files: files.clone(),
        };
        let validator = jsonschema::options()
            .with_base_uri(base)
            .with_retriever(siblings)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(STEPS_BACK_MAX))
            .build(&schema)
            .map_err(|error| {
                format!("`{}` is no valid schema: {}", file.display(), wrong(&error))
            })?;
        let files = files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Self { id: id.map(|id| id.trim_end_matches('#').to_owned()), files, validator })
    }

    /// Whether it lets the data pass.
    pub(super) fn allows(&self, data: &Json) -> bool {
        self.validator.is_valid(data)
    }

    /// Everything in the data that it does not let pass, as one text; none where it lets it pass.
    pub(super) fn violations(&self, data: &Json) -> Option<String> {
        if self.allows(data) {
            return None;
        }
        Some(violation::listed(self.validator.iter_errors(data)))
    }
}

fn file_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // What has a meaning in a URI would end the name.
    name.replace(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c), "_")
}

/// What a file holds, which is noted in `files`.
fn read_json(file: &Path, files: &Mutex<Files>) -> Result<Json, String> {
    let shown = file.display();
    let bytes = fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no file `{shown}`; name the schema's file, relative to the folder of the \
             configuration file"
        ),
        _ => format!("cannot read `{shown}`: {error}"),
    })?;
    let digest = Sha256::digest(&bytes).into();
    files.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), digest);
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("`{shown}` is no JSON: {error}; a schema is written in JSON"))
}

/// What the library says against a schema. There is no payload in it.
fn wrong(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(error) => unresolved(error),
        ValidationErrorKind::Custom { message, .. } => {
            format!("`{}`: {message}", error.schema_path())
        }
        _ => violation::text("", error),
    }
}

fn unresolved(error: &ReferencingError) -> String {
    match error {
        ReferencingError::Unretrievable { uri, source } => {
            format!("what it calls `{uri}` is not there: {source}")
        }
        ReferencingError::UnknownSpecification { specification } => format!(
            "`$schema` is `{specification}`, which is not known; take \
             `https://json-schema.org/draft/2020-12/schema`"
        ),
        error => error.to_string(),
    }
}

/// Where a schema's references lead: to the files beside it and below.
struct Siblings {
    folder: PathBuf,
    /// What that folder is called in references.
    base: String,
    /// What has been read.
    files: Arc<Mutex<Files>>,
}

impl Retrieve for Siblings {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Json, Box<dyn Error + Send + Sync>> {
        let path = uri.as_str().strip_prefix(&self.base).filter(|_| !self.base.is_empty());
        let below = |path: &&Path| path.components().all(|c| matches!(c, Component::Normal(_)));
        let Some(path) = path.map(Path::new).filter(below) else {
            return Err(
                "schemas are read neither from the network nor from other folders; save it \
                        beside this one and write `$ref` with its file name"
                    .into(),
            );
        };
        Ok(read_json(&self.folder.join(path), &self.files)?)
    }
}
