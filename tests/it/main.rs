//! Integration tests: the real binary against real registries.

#![allow(clippy::unwrap_used)]

mod cli;
