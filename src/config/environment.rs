//! What the environment adds to the file: `${NAME}` inside a value, and overrides from outside.

use std::collections::BTreeMap;

use super::tree::{Entry, Node, Place, Value};

/// Variables that set a value of the file start with this; `__` goes one level down:
/// `EVENTFERRY__ADMIN__LISTEN` is `admin.listen`.
const PREFIX: &str = "EVENTFERRY__";

/// The environment variables that a file is read with.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; those that are not UTF-8 count as unset.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// Replaces every `${NAME}` and `${NAME:-default}`; `$${` stands for a plain `${`. As in a
    /// shell, the default also stands in for an empty variable.
    ///
    /// # Errors
    /// Says which reference cannot be resolved; never what another one was resolved to.
    pub(super) fn interpolate(&self, raw: &str) -> Result<String, String> {
        let mut text = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some(start) = rest.find("${") {
            let before = &rest[..start];
            let after = &rest[start + 2..];
            if let Some(escaped) = before.strip_suffix('$') {
                text.push_str(escaped);
                text.push_str("${");
                rest = after;
                continue;
            }
            let end = after.find('}').ok_or("`${` without a closing `}`")?;
            text.push_str(before);
            text.push_str(&self.resolve(&after[..end])?);
            rest = &after[end + 1..];
        }
        text.push_str(rest);
        Ok(text)
    }

    fn resolve(&self, reference: &str) -> Result<String, String> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let is_name = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(format!(
                "`${{{reference}}}` is no reference; write `${{NAME}}` or `${{NAME:-default}}`"
            ));
        }
        match (self.0.get(name), default) {
            (Some(value), None) => Ok(value.clone()),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(format!(
                "environment variable {name} is not set; set it, or give a default: \
                 `${{{name}:-default}}`"
            )),
        }
    }

    /// Puts every override into the tree. Answers the variables that name no place in it.
    pub(super) fn override_in(&self, tree: &mut Node) -> Vec<&str> {
        let overrides = self.0.iter().filter_map(|(variable, value)| {
            Some((variable.as_str(), variable.strip_prefix(PREFIX)?, value))
        });
        let lost = overrides.filter(|(variable, path, value)| {
            let place = Place::Variable((*variable).to_owned());
            let value = Value::Scalar((*value).clone());
            !set(tree, path, Node { place, value, typed: false, struck: false, text: None })
        });
        lost.map(|(variable, ..)| variable).collect()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Sets the value at `path`, whose names are in capitals and parted by `__`. What is on the way
/// and is no mapping becomes one; a list is entered by index, and has to be long enough.
fn set(node: &mut Node, path: &str, value: Node) -> bool {
    let (name, rest) = match path.split_once("__") {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let place = value.place.clone();
    let next = match &mut node.value {
        Value::List(items) => name.parse().ok().and_then(|index: usize| items.get_mut(index)),
        Value::Map(entries) => Some(entry(entries, name, place)),
        Value::Nothing | Value::Scalar(_) => {
            node.value = Value::Map(Vec::new());
            match &mut node.value {
                Value::Map(entries) => Some(entry(entries, name, place)),
                _ => None,
            }
        }
    };
    match (next, rest) {
        (Some(next), Some(rest)) => set(next, rest, value),
        (Some(next), None) => {
            *next = value;
            true
        }
        (None, _) => false,
    }
}

/// The entry that a variable's `NAME` means, made if there is none: a variable can say neither
/// small letters nor dashes.
fn entry<'a>(entries: &'a mut Vec<Entry>, name: &str, place: Place) -> &'a mut Node {
    let spelled = |entry: &Entry| entry.name.to_ascii_uppercase().replace(['-', '.'], "_");
    let index = entries.iter().position(|entry| spelled(entry) == name).unwrap_or_else(|| {
        let node = Node {
            place: place.clone(),
            value: Value::Nothing,
            typed: false,
            struck: false,
            text: None,
        };
        entries.push(Entry { name: name.to_ascii_lowercase(), place, node });
        entries.len() - 1
    });
    &mut entries[index].node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        [("HOST", "db"), ("EMPTY", ""), ("PORT", "5432")].into_iter().collect()
    }

    #[test]
    fn references_become_the_values_of_variables() {
        let cases = [
            ("plain $5 {x}", "plain $5 {x}"),
            ("${HOST}:${PORT}", "db:5432"),
            ("${ABSENT:-x}/${EMPTY:-y}/${HOST:-z}", "x/y/db"),
            ("[${EMPTY}][${ABSENT:-}]", "[][]"),
            ("$${HOST} $$${HOST}", "${HOST} $${HOST}"),
        ];
        for (raw, resolved) in cases {
            assert_eq!(environment().interpolate(raw).as_deref(), Ok(resolved));
        }
    }

    #[test]
    fn a_reference_that_cannot_be_resolved_is_named() {
        for raw in ["${ABSENT}", "${HOST", "${}", "${9}", "${A B}"] {
            assert!(environment().interpolate(raw).is_err(), "{raw}");
        }
    }
}
