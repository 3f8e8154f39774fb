//! In place of the language, in a build without it.

use std::convert::Infallible;

use super::{Draft, Failure, Finding, Flow};

/// There is none.
#[derive(Debug)]
pub(super) struct Compiled(Infallible);

impl Compiled {
    pub(super) fn program(_: &str) -> Result<Self, Vec<Finding>> {
        Err(vec![Finding::new(
            "this build is without the transform language; build with the feature `vrl`",
        )])
    }

    pub(super) fn condition(text: &str) -> Result<Self, Vec<Finding>> {
        Self::program(text)
    }

    pub(super) fn naming(text: &str) -> Result<Self, Vec<Finding>> {
        Self::program(text)
    }

    pub(super) fn name(&self, _: &mut Draft) -> Result<String, Failure> {
        match self.0 {}
    }

    pub(super) fn change(&self, _: &mut Draft) -> Result<Flow, Failure> {
        match self.0 {}
    }

    pub(super) fn judge(&self, _: &mut Draft) -> Result<bool, Failure> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Condition, Naming, Program};

    #[test]
    fn a_program_is_refused_with_what_to_do() {
        let expected = "this build is without the transform language; build with the feature `vrl`";
        assert_eq!(Program::compile(".type = \"a\"").unwrap_err()[0].text, expected);
        assert_eq!(Condition::compile("true").unwrap_err()[0].text, expected);
        assert_eq!(Naming::compile(".id").unwrap_err()[0].text, expected);
    }
}
