//! A namespace on a local port.
