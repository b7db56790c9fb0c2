//! What could not be read: never silently incomplete.

/// Something in a layer that was recognized and not understood, or skipped because of a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// Name of the ecosystem, or `layer`.
    pub(crate) subject: String,
    /// Path inside the image; empty when the whole layer is meant.
    pub(crate) path: String,
    pub(crate) message: String,
}

/// How completely an image was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) layers_read: u64,
    pub(crate) layers_total: u64,
    /// Evidence files that count in the image.
    pub(crate) evidence: u64,
    /// Evidence files that a higher layer removed or replaced.
    pub(crate) masked: u64,
    /// Sorted; may be cut at [`crate::limit::PROBLEMS`] a layer.
    pub(crate) problems: Vec<Problem>,
    /// Problems over the cut.
    pub(crate) problems_unlisted: u64,
}

impl Coverage {
    /// Whether everything in the image was read and understood.
    pub(crate) fn is_complete(&self) -> bool {
        self.layers_read == self.layers_total
            && self.problems.is_empty()
            && self.problems_unlisted == 0
    }
}
