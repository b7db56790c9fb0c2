//! The problems of a layer: listed up to a cut, and counted past it.

use std::collections::BTreeSet;

use crate::limit;
use crate::sbom::Problem;

/// The first of them, and how many there are beyond.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) listed: BTreeSet<Problem>,
    pub(super) unlisted: u64,
}

impl Problems {
    pub(super) fn add(&mut self, subject: &str, path: &str, message: impl Into<String>) {
        if self.listed.len() >= limit::PROBLEMS {
            self.unlisted += 1;
            return;
        }
        self.listed.insert(Problem {
            subject: subject.to_owned(),
            path: path.to_owned(),
            message: message.into(),
        });
    }
}
