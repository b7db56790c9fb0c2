//! Integration tests: the real binary against real registries.
//!
//! Helpers: [`emulator`] (an Artifactory), [`registry`] (a plain registry), [`temp_dir`].

#![allow(clippy::unwrap_used)]

mod cli;
#[path = "../emulator/mod.rs"]
mod emulator;
mod emulator_clients;
mod emulator_wire;
mod registry;
mod temp_dir;
mod views;
