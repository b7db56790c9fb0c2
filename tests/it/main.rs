//! Integration tests: the real binary against real registries; and the project itself against its house rules
//! ([`tidy`], [`dependencies`], [`advisories`], [`readme`]).
//!
//! Helpers: [`emulator`] (an Artifactory), [`registry`] (a plain registry), [`temp_dir`], [`sources`], [`zip`].

#![allow(clippy::unwrap_used)]

mod advisories;
mod cli;
mod dependencies;
#[path = "../emulator/mod.rs"]
mod emulator;
mod emulator_clients;
mod emulator_wire;
mod readme;
mod registry;
mod sources;
mod temp_dir;
mod tidy;
mod zip;
