//! Receives from and sends to a namespace.
