//! One package, as an ecosystem read it.

use crate::sbom::{Distro, Purl};

/// A package of any ecosystem. Equal values are the same package, wherever they were found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// The purl type: `deb`, `apk`, `npm`, `pypi`, `golang`.
    pub(crate) kind: &'static str,
    /// npm scope, Go module path but its last segment; for packages of a distribution the distribution's id,
    /// which is known only when an image's layers are put together.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// As written by the ecosystem.
    pub(crate) version: String,
    /// As the ecosystem names it (`amd64`, `x86_64`, `all`).
    pub(crate) architecture: Option<String>,
    /// The source package, when it has another name or version.
    pub(crate) source: Option<Source>,
    /// As declared, not interpreted; sorted, may be empty.
    pub(crate) licenses: Vec<String>,
}

/// The source package that a binary package was built from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Package {
    /// The package URL. `distro` is given for packages that a distribution built.
    pub(crate) fn purl(&self, distro: Option<&Distro>) -> Purl {
        let namespace = distro
            .map(|distro| distro.id.as_str())
            .or(self.namespace.as_deref());
        let mut qualifiers = Vec::new();
        if let Some(architecture) = &self.architecture {
            qualifiers.push(("arch", architecture.clone()));
        }
        if let Some(distro) = distro {
            qualifiers.push(("distro", distro.to_string()));
        }
        if let Some(source) = &self.source {
            let upstream = if source.version == self.version {
                source.name.clone()
            } else {
                format!("{}@{}", source.name, source.version)
            };
            qualifiers.push(("upstream", upstream));
        }
        Purl::new(self.kind, namespace, &self.name, &self.version, &qualifiers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distribution_and_source_are_in_the_purl() {
        let package = Package {
            kind: "deb",
            namespace: None,
            name: "libc6".to_owned(),
            version: "2.36-9+deb12u14".to_owned(),
            architecture: Some("amd64".to_owned()),
            source: Some(Source {
                name: "glibc".to_owned(),
                version: "2.36-9+deb12u14".to_owned(),
            }),
            licenses: Vec::new(),
        };
        let distro = Distro {
            id: "debian".to_owned(),
            version_id: Some("12".to_owned()),
            ..Distro::default()
        };
        assert_eq!(
            package.purl(Some(&distro)).as_str(),
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12&upstream=glibc"
        );
    }
}
