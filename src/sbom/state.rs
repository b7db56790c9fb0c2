//! How far the reading of an image has come.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The state of a tag, or of one platform of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Every layer was read, and everything recognized in them was understood.
    Indexed,
    /// Indexed, but for layers or files that could not be read.
    Partial,
    /// In the queue.
    Pending,
    /// A try failed, and another follows.
    Retrying,
    /// Failed; nothing follows by itself while the tag stays as it is.
    Failed,
    /// Known by its digest and not wanted so far.
    Recorded,
    /// A platform that was not asked for.
    Skipped,
    /// Not an image: a chart, a signature.
    Artifact,
}

impl State {
    /// All, in the order in which they are shown.
    pub(crate) const ALL: [State; 8] = [
        State::Indexed,
        State::Partial,
        State::Pending,
        State::Retrying,
        State::Failed,
        State::Recorded,
        State::Skipped,
        State::Artifact,
    ];

    /// The word for users: on the command line, in tables and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Indexed => "indexed",
            State::Partial => "partial",
            State::Pending => "pending",
            State::Retrying => "retrying",
            State::Failed => "failed",
            State::Recorded => "recorded",
            State::Skipped => "skipped",
            State::Artifact => "artifact",
        }
    }

    /// Whether packages are known.
    pub(crate) fn is_indexed(self) -> bool {
        matches!(self, State::Indexed | State::Partial)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = Error;

    /// Errors (`Tell`) for any other word.
    fn from_str(text: &str) -> Result<Self> {
        let found = State::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| Error::tell(format_args!("`{text}` is not a state of an image")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_states() {
        for state in State::ALL {
            assert_eq!(state.name().parse::<State>().unwrap(), state);
        }
        assert!("done".parse::<State>().is_err());
    }
}
