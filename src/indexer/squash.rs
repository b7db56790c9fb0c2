//! The layers of an image put together: which evidence counts.
//!
//! A file counts unless a higher layer removes it (whiteout, opaque directory) or replaces it: by an entry of
//! the same path, or by a link or file where one of its directories was. The markers of a layer never touch
//! its own files (OCI image-spec, layer.md).

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

/// Tells for each path of each layer whether it is masked in the image. `evidence[i]` are the evidence paths
/// of layer `i`, bottom first, `covers[i]` what that layer does to those below.
pub(crate) fn masked(evidence: &[Vec<String>], covers: &[Covers]) -> Vec<Vec<bool>> {
    evidence
        .iter()
        .enumerate()
        .map(|(at, paths)| {
            let above = covers.get(at + 1..).unwrap_or_default();
            paths
                .iter()
                .map(|path| above.iter().any(|layer| layer.covers(path)))
                .collect()
        })
        .collect()
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
