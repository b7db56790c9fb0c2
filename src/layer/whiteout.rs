//! Whiteouts: how a layer removes what lies below it (OCI image-spec, layer.md, "Whiteouts").

const PREFIX: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const AUFS_META: &str = ".wh..wh.";

/// What the name of an entry says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// An ordinary entry.
    None,
    /// The lower entry of this path is removed.
    Removes(String),
    /// The lower contents of this directory are hidden; `""` is the root.
    Hides(String),
    /// Bookkeeping of aufs, of no meaning to an image.
    Meta,
    /// `.wh.` with no name behind it: removes nothing that could be named.
    Bare,
}

/// Reads the marker of a normalized path.
pub(crate) fn marker(path: &str) -> Marker {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(removed) = name.strip_prefix(PREFIX) else {
        return Marker::None;
    };
    if name == OPAQUE {
        return Marker::Hides(parent.to_owned());
    }
    if name.starts_with(AUFS_META) {
        return Marker::Meta;
    }
    // A name of dots alone would remove the directory itself or its parent.
    if removed.is_empty() || removed == "." || removed == ".." {
        return Marker::Bare;
    }
    Marker::Removes(if parent.is_empty() {
        removed.to_owned()
    } else {
        format!("{parent}/{removed}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers() {
        let removes = |path: &str| Marker::Removes(path.to_owned());
        let hides = |path: &str| Marker::Hides(path.to_owned());
        for (path, want) in [
            ("etc/passwd", Marker::None),
            ("etc/.wh.passwd", removes("etc/passwd")),
            (".wh.etc", removes("etc")),
            ("a/b/.wh..wh..opq", hides("a/b")),
            (".wh..wh..opq", hides("")),
            (".wh..wh.plnk", Marker::Meta),
            ("etc/.wh.", Marker::Bare),
            (".wh.", Marker::Bare),
            ("etc/.wh...", Marker::Bare),
            ("etc/.wh..", Marker::Bare),
            ("etc/x.wh.y", Marker::None),
        ] {
            assert_eq!(marker(path), want, "{path}");
        }
    }
}
