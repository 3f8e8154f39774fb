//! What the targets share: messages, values and steps made of arbitrary bytes, and events made
//! comparable.

pub mod compare;
pub mod make;
pub mod steps;
