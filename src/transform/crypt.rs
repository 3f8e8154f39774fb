//! The steps `encrypt` and `decrypt`: bodies that cross a cloud sealed.
//!
//! Each body is encrypted with a key of its own, which travels with it, encrypted with a key that
//! the configuration names. The envelope is described in `envelope.rs` and, for those who open it
//! without us, in the documentation.

pub mod decrypt;
pub mod encrypt;
mod envelope;
mod key;

#[cfg(test)]
mod tests;
