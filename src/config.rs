//! The YAML file: layers, references to secrets, and everything that can be wrong with it.

pub mod plan;
pub mod secret;
pub mod units;
