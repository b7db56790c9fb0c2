//! The distribution an image is made of, as its `os-release` says.

use std::fmt;

/// Fields of os-release(5) that name a release. Empty values are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Distro {
    /// `ID`, lower case: `debian`, `alpine`.
    pub(crate) id: String,
    pub(crate) id_like: Option<String>,
    /// `VERSION_ID`; rolling releases have none.
    pub(crate) version_id: Option<String>,
    /// `VERSION_CODENAME`.
    pub(crate) codename: Option<String>,
    pub(crate) pretty_name: Option<String>,
    /// `CPE_NAME`.
    pub(crate) cpe: Option<String>,
}

/// `debian-12`, or `arch` for a rolling release: the `distro` qualifier of a purl.
impl fmt::Display for Distro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        match &self.version_id {
            Some(version) => write!(f, "-{version}"),
            None => Ok(()),
        }
    }
}
