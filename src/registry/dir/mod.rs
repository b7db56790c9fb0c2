use super::{Kind, TYPE};
pub(crate) const ROW: Kind = Kind {
    name: "dir",
    summary: "dir",
    options: &[TYPE],
    open: |_, _| Err(crate::error::Error::tell("not merged yet")),
};
