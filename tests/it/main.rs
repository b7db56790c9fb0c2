//! Integration tests: the real binary against real registries, an Artifactory, and registries that lie.
//!
//! Helpers: [`emulator`] (an Artifactory), [`registry`] (a plain registry), [`fake_registry`] (a scripted one),
//! [`real_images`] (images built from packages), [`crowsnest`] (a run), [`stored`] (its store), [`temp_dir`].

#![allow(clippy::unwrap_used)]

mod cli;
mod crowsnest;
#[path = "../emulator/mod.rs"]
mod emulator;
mod emulator_clients;
mod emulator_wire;
mod fake_registry;
mod hostile;
mod pitfalls;
mod real;
mod real_images;
mod registry;
mod stored;
mod temp_dir;
