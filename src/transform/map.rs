//! The step `map`: a program in VRL, the language of Vector's `remap`, changes the event. And
//! conditions in the same language, for what patterns cannot say.
//!
//! A program is checked when the file is read: syntax, types, what it leaves in the event. It is
//! pure: the same event gives the same result whenever it is replayed, so functions that ask a
//! clock, dice, the network or the machine are left out. It runs under a bound of steps.

use std::sync::Arc;

use super::{Draft, Failure};
use crate::config::problem::Finding;

#[cfg(feature = "vrl")]
mod attributes;
#[cfg(feature = "vrl")]
mod body;
#[cfg(feature = "vrl")]
mod language;
#[cfg(not(feature = "vrl"))]
#[path = "map/absent.rs"]
mod language;
#[cfg(feature = "vrl")]
mod review;
#[cfg(feature = "vrl")]
mod scope;
#[cfg(test)]
#[cfg(feature = "vrl")]
mod tests;

use language::Compiled;

/// A program that changes an event. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Program(Arc<Compiled>);

/// What becomes of an event that a program has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Keep,
    /// The program said `abort`: it is filtered out.
    Drop,
}

impl Program {
    /// Reads a program.
    ///
    /// # Errors
    /// Everything that is wrong with it, with line and column in `text`.
    pub fn compile(text: &str) -> Result<Self, Vec<Finding>> {
        Compiled::program(text).map(|compiled| Self(Arc::new(compiled)))
    }

    /// Changes the event. It is as it was where this fails or the program drops it.
    ///
    /// # Errors
    /// Of class `map` if the program fails or leaves in the event what it cannot have, of class
    /// `fuel` if it takes too many steps.
    pub fn run(&self, draft: &mut Draft) -> Result<Flow, Failure> {
        self.0.change(draft)
    }
}

/// A question about an event. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Condition {
    text: Arc<str>,
    compiled: Arc<Compiled>,
}

impl Condition {
    /// Reads a condition: a program that changes nothing and ends in `true` or `false`.
    ///
    /// # Errors
    /// Everything that is wrong with it, with line and column in `text`.
    pub fn compile(text: &str) -> Result<Self, Vec<Finding>> {
        let compiled = Arc::new(Compiled::condition(text)?);
        Ok(Self { text: text.into(), compiled })
    }

    /// Whether it is so with this event.
    ///
    /// # Errors
    /// Of class `map` if the condition fails, of class `fuel` if it takes too many steps.
    pub fn holds(&self, draft: &mut Draft) -> Result<bool, Failure> {
        self.compiled.judge(draft)
    }
}

/// What names an event. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Naming {
    text: Arc<str>,
    compiled: Arc<Compiled>,
}

impl Naming {
    /// Reads an expression: a program that changes nothing and ends in a text or a number.
    ///
    /// # Errors
    /// Everything that is wrong with it, with line and column in `text`.
    pub fn compile(text: &str) -> Result<Self, Vec<Finding>> {
        let compiled = Arc::new(Compiled::naming(text)?);
        Ok(Self { text: text.into(), compiled })
    }

    /// The name of this event.
    ///
    /// # Errors
    /// Of class `map` if the expression fails or ends in nothing that can be a name, of class
    /// `fuel` if it takes too many steps.
    pub fn name(&self, draft: &mut Draft) -> Result<String, Failure> {
        self.compiled.name(draft)
    }
}

/// By their text.
impl PartialEq for Naming {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Naming {}

/// By their text.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}
