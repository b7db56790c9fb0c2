//! Integration tests: the real binary against real registries, an Artifactory, and registries that lie; and the
//! project itself against its house rules ([`tidy`], [`dependencies`], [`advisories`], [`readme`]).
//!
//! Helpers: [`emulator`] (an Artifactory), [`registry`] (a plain registry), [`fake_registry`] (a scripted one),
//! [`real_images`] (images built from packages), [`crowsnest`] (a run), [`stored`] (its store), [`temp_dir`],
//! [`sources`], [`zip`].

#![allow(clippy::unwrap_used)]

/// Shows a figure with `--nocapture`.
macro_rules! tell {
    ($($text:tt)*) => {{
        #[allow(clippy::print_stdout)]
        {
            println!($($text)*);
        }
    }};
}
pub(crate) use tell;

mod advisories;
mod cli;
mod crowsnest;
mod dependencies;
#[path = "../emulator/mod.rs"]
mod emulator;
mod emulator_clients;
mod emulator_wire;
mod fake_registry;
mod hostile;
mod keeping;
mod outbound;
mod pitfalls;
mod readme;
mod real;
mod real_images;
mod registry;
mod sender;
mod soak;
mod sources;
mod stored;
mod survival;
mod temp_dir;
mod tidy;
mod views;
mod watching;
mod webhook_server;
mod webhooks;
mod zip;
