//! peer
fn main() {}
