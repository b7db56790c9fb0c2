//! Whether the process lives, and whether it is ready for work.

use super::answer::Answer;
use crate::watch::Inbox;

/// The answer to GET. `/healthz`: the process serves. `/readyz`: every source was listed, or is known to be out of
/// reach, and the store can be written.
pub(super) fn answer(path: &str, inbox: &Inbox<'_>) -> Answer {
    match path.split('?').next() {
        Some("/healthz") => Answer::new(200, "ok"),
        Some("/readyz") => match inbox.not_ready() {
            None => Answer::new(200, "ready"),
            Some(err) => Answer::new(503, err.to_string()),
        },
        _ => Answer::new(
            404,
            "not found; webhooks are sent by POST, see also /healthz and /readyz",
        ),
    }
}
