//! The layers of an image put together: which evidence counts.
//!
//! A file counts unless a higher layer removes it (whiteout, opaque directory) or replaces it: by an entry of
//! the same path, or by a link or file where one of its directories was. The markers of a layer never touch
//! its own files (OCI image-spec, layer.md).

use crate::error::Result;
use crate::limit;
use crate::sbom::PathSet;

/// What squashing needs of a layer, besides its evidence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Covers {
    /// Removed paths, sorted.
    pub(crate) whiteouts: Vec<String>,
    /// Directories whose lower contents are hidden, sorted; `""` is the root.
    pub(crate) opaques: Vec<String>,
    pub(crate) paths: PathSet,
}

impl Covers {
    /// Whether this layer hides the file `path` of a layer below it. A removal takes what is below the
    /// removed path with it, an opaque directory hides what is below it and not itself.
    fn covers(&self, path: &str) -> bool {
        let has = |list: &[String], path: &str| {
            list.binary_search_by(|other| other.as_str().cmp(path))
                .is_ok()
        };
        has(&self.whiteouts, path)
            || has(&self.opaques, "")
            || path
                .match_indices('/')
                .map(|(at, _)| &path[..at])
                .any(|parent| has(&self.whiteouts, parent) || has(&self.opaques, parent))
            || self.paths.replaces(path)
    }
}

/// The evidence of an image while its layers are put upon each other. Only one layer's [`Covers`] are in memory
/// at a time: those of many large layers would not fit.
#[derive(Debug)]
pub(crate) struct Squash<T> {
    layers: Vec<Vec<Placed<T>>>,
    n_bytes: usize,
}

/// A piece of evidence in its layer.
#[derive(Debug)]
pub(crate) struct Placed<T> {
    pub(crate) path: String,
    pub(crate) evidence: T,
    /// Whether a higher layer hides it.
    pub(crate) is_masked: bool,
}

impl<T> Squash<T> {
    pub(crate) fn new() -> Self {
        Squash {
            layers: Vec::new(),
            n_bytes: 0,
        }
    }

    /// Puts a layer on top of those so far. Errors (`Limit`) when the image has too much evidence.
    pub(crate) fn add(
        &mut self,
        evidence: impl IntoIterator<Item = (String, T)>,
        covers: &Covers,
    ) -> Result<()> {
        for below in self.layers.iter_mut().flatten() {
            below.is_masked = below.is_masked || covers.covers(&below.path);
        }
        let mut layer = Vec::new();
        for (path, evidence) in evidence {
            self.n_bytes += path.len() + limit::PATH_OVERHEAD;
            if self.n_bytes > limit::IMAGE_EVIDENCE_BYTES {
                let cap = limit::IMAGE_EVIDENCE_BYTES as u64;
                return Err(limit::over("the list of the image's evidence", cap));
            }
            layer.push(Placed {
                path,
                evidence,
                is_masked: false,
            });
        }
        self.layers.push(layer);
        Ok(())
    }

    /// The layers, bottom first, each in the order in which its evidence was added.
    pub(crate) fn into_layers(self) -> Vec<Vec<Placed<T>>> {
        self.layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::layer::PathKind;

    fn layer(files: &[&str], whiteouts: &[&str], opaques: &[&str]) -> Covers {
        Covers {
            whiteouts: whiteouts.iter().map(|&path| path.to_owned()).collect(),
            opaques: opaques.iter().map(|&path| path.to_owned()).collect(),
            paths: PathSet::from_hashes(
                files
                    .iter()
                    .map(|path| PathSet::hash(path, PathKind::Leaf))
                    .collect(),
            ),
        }
    }

    fn masked(evidence: &[Vec<String>], covers: &[Covers]) -> Vec<Vec<bool>> {
        let mut squash = Squash::new();
        for (paths, covers) in evidence.iter().zip(covers) {
            let paths = paths.iter().map(|path| (path.clone(), ()));
            squash.add(paths, covers).unwrap();
        }
        let flags = |layer: Vec<Placed<()>>| layer.iter().map(|file| file.is_masked).collect();
        squash.into_layers().into_iter().map(flags).collect()
    }

    #[test]
    fn too_much_evidence_is_an_error() {
        let mut squash = Squash::new();
        let many = (0..limit::IMAGE_EVIDENCE_BYTES / 1_000).map(|_| ("p".repeat(1_000), ()));
        let err = squash.add(many, &Covers::default()).unwrap_err();
        assert!(
            err.to_string()
                .contains("the list of the image's evidence is larger"),
            "{err}"
        );
    }

    #[test]
    fn what_hides_a_file_of_a_lower_layer() {
        let path = "app/node_modules/x/package.json";
        for (what, above, is_masked) in [
            ("nothing", layer(&["etc/x"], &[], &[]), false),
            ("the same path", layer(&[path], &[], &[]), true),
            (
                "a link in place of a directory",
                layer(&["app/node_modules"], &[], &[]),
                true,
            ),
            ("a whiteout of the file", layer(&[], &[path], &[]), true),
            ("a whiteout of a directory", layer(&[], &["app"], &[]), true),
            (
                "a whiteout of a neighbor",
                layer(&[], &["app/node_modules/xx"], &[]),
                false,
            ),
            (
                "an opaque directory",
                layer(&[], &[], &["app/node_modules"]),
                true,
            ),
            ("an opaque root", layer(&[], &[], &[""]), true),
            (
                "an opaque directory re-added in the same layer",
                layer(&[path], &[], &["app"]),
                true,
            ),
        ] {
            let result = masked(
                &[vec![path.to_owned()], vec![]],
                &[Covers::default(), above],
            );
            assert_eq!(result[0][0], is_masked, "{what}");
        }
    }

    #[test]
    fn a_layer_does_not_hide_its_own_files() {
        let own = layer(&["a/package.json"], &["a"], &["a"]);
        assert_eq!(
            masked(&[vec!["a/package.json".to_owned()]], &[own]),
            [[false]]
        );
    }

    #[test]
    fn a_file_added_again_above_counts() {
        let paths = vec!["a/package.json".to_owned()];
        let covers = [
            layer(&["a/package.json"], &[], &[]),
            layer(&[], &["a"], &[]),
            layer(&["a/package.json"], &[], &[]),
        ];
        assert_eq!(
            masked(&[paths.clone(), vec![], paths], &covers),
            [vec![true], vec![], vec![false]]
        );
    }
}
