//! Where services of a run hand in what they were told.

use super::shared::Shared;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::registry::Source;
use crate::store::events::Hint;
use crate::store::tags::SourceId;

/// A thread that takes part in a run without being part of the pipeline.
pub(crate) struct Service<'a> {
    /// Names the thread.
    pub(crate) name: String,
    /// Ends soon after [`Inbox::is_ending`] holds.
    pub(crate) run: Box<dyn FnOnce(&Inbox<'_>) + Send + 'a>,
}

/// What a service may know and do.
pub(crate) struct Inbox<'a> {
    pub(super) shared: &'a Shared<'a>,
}

impl Inbox<'_> {
    /// Makes hints durable, all or none, and has them looked at.
    /// Errors: `Stop` when the store cannot be written; `Limit` when too many wait; `Retry` when the store is busy.
    pub(crate) fn take(&self, hints: &[Hint]) -> Result<()> {
        if let Some(err) = self.shared.trouble() {
            return Err(err);
        }
        self.shared
            .plan
            .store
            .save_hints(hints)
            .inspect_err(|err| {
                if err.kind() == crate::error::Kind::Stop {
                    self.shared.broken(err.clone());
                }
            })?;
        self.shared.tell_news();
        Ok(())
    }

    /// The sources of the run, in the order of the command line, with their rows.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (SourceId, &dyn Source)> {
        let ids = self.shared.source_ids.iter().copied();
        ids.zip(self.shared.plan.sources.iter().map(AsRef::as_ref))
    }

    pub(crate) fn log(&self) -> &Log {
        self.shared.log
    }

    /// Ends the run with an error.
    pub(crate) fn fail(&self, err: Error) {
        self.shared.fail(err);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.shared.has_ended()
    }

    /// Why the run is not ready for work; `None` when it is.
    pub(crate) fn not_ready(&self) -> Option<Error> {
        if self.shared.stop.is_requested() {
            return Some(Error::retry("stopping"));
        }
        if !self.shared.is_listed() {
            return Some(Error::retry("the first listing has not ended"));
        }
        self.shared.trouble()
    }
}
