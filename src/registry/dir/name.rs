//! Names for images that carry none, or one that is not a registry's.
//!
//! * `org.opencontainers.image.ref.name` or `io.containerd.image.name` with a `/` or `:`: a reference; its host
//!   is dropped. Without them a tag, of the repository that the place of the layout or archive names.
//! * An entry of `RepoTags`: as written, its host being the first part of the repository.
//!
//! Repositories are made lower case, and what their grammar does not know becomes `-`.

use std::path::Path;

use crate::error::Result;
use crate::image::{Digest, Reference, Repository, Tag};

/// Bytes of a repository name.
const NAME_BYTES: usize = 255;

/// The tag of an image that has none and is alone.
const LATEST: &str = "latest";

/// The repository for what lies at `relative`, a path below the given folder. Without any usable character: `image`.
pub(super) fn of_path(relative: &Path) -> Repository {
    let text: Vec<_> = relative
        .components()
        .map(|component| component.as_os_str().to_string_lossy().into_owned())
        .collect();
    repository(&text.join("/"))
}

/// The name that an annotation gives; `None` when it is neither a reference nor a tag.
pub(super) fn of_annotation(text: &str, default: &Repository) -> Option<(Repository, Tag)> {
    if !text.contains(['/', ':']) {
        return Some((default.clone(), text.parse().ok()?));
    }
    let reference: Reference = lower_case(text).parse().ok()?;
    let tag = match (reference.tag, reference.digest) {
        (Some(tag), _) => tag,
        (None, Some(digest)) => short(&digest)?,
        (None, None) => LATEST.parse().ok()?,
    };
    Some((reference.repository, tag))
}

/// The name that an entry of `RepoTags` gives; `None` when its tag is not one.
pub(super) fn of_repo_tag(text: &str) -> Option<(Repository, Tag)> {
    let (name, tag) = split_tag(text);
    let tag = tag.unwrap_or(LATEST).parse().ok()?;
    (!name.is_empty()).then(|| (repository(name), tag))
}

/// The tag of an image without a name.
pub(super) fn of_nameless(digest: &Digest, is_alone: bool) -> Result<Tag> {
    match is_alone {
        true => LATEST.parse(),
        false => digest.short().parse(),
    }
}

/// A reference with the host and the `library/` that Docker leaves out.
pub(super) fn in_full(text: &str) -> String {
    let (name, tag) = split_tag(text);
    let tag = tag.unwrap_or(LATEST);
    match name.split_once('/') {
        None => format!("docker.io/library/{name}:{tag}"),
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => {
            format!("{name}:{tag}")
        }
        Some(_) => format!("docker.io/{name}:{tag}"),
    }
}

fn short(digest: &Digest) -> Option<Tag> {
    digest.short().parse().ok()
}

/// The last `:` separates a tag, unless a `/` follows: that is a host's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The text in lower case but for its tag.
fn lower_case(text: &str) -> String {
    let (rest, digest) = text
        .split_once('@')
        .map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    let (name, tag) = split_tag(rest);
    let mut lower = name.to_ascii_lowercase();
    if let Some(tag) = tag {
        lower.push(':');
        lower.push_str(tag);
    }
    if let Some(digest) = digest {
        lower.push('@');
        lower.push_str(digest);
    }
    lower
}

/// The nearest text that is a repository name.
fn repository(text: &str) -> Repository {
    let components: Vec<String> = text
        .split('/')
        .map(component)
        .filter(|text| !text.is_empty())
        .collect();
    let mut name = components.join("/");
    if name.len() > NAME_BYTES {
        // The end tells more than the beginning. The text is ASCII, so that any place can be cut.
        name = name.split_off(name.len() - NAME_BYTES);
        name = name
            .trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
            .to_owned();
    }
    match (name.parse(), "image".parse()) {
        (Ok(repository), _) | (Err(_), Ok(repository)) => repository,
        (Err(_), Err(_)) => unreachable!("`image` is a repository name"),
    }
}

fn component(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            // Two dots are no repository's.
            '.' if clean.ends_with('.') => {}
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => clean.push(c),
            _ => clean.push('-'),
        }
    }
    clean.trim_matches(['.', '_', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(name: Option<(Repository, Tag)>) -> Option<String> {
        name.map(|(repository, tag)| format!("{repository}:{tag}"))
    }

    #[test]
    fn paths_become_repositories() {
        for (path, name) in [
            ("debian", "debian"),
            ("Team/My App", "team/my-app"),
            ("a/..b/-c-", "a/b/c"),
            ("x..y", "x.y"),
            ("ä/é", "image"),
            ("", "image"),
            ("äpfel/1", "pfel/1"),
        ] {
            assert_eq!(of_path(Path::new(path)).as_str(), name, "{path}");
        }
        let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        let name = of_path(Path::new(&long));
        assert!(name.as_str().ends_with(&"f".repeat(200)) && name.as_str().len() <= NAME_BYTES);
    }

    #[test]
    fn annotations_are_references_or_tags() {
        let default: Repository = "folder".parse().unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, name) in [
            ("1.0", Some("folder:1.0")),
            ("App:1.0", Some("app:1.0")),
            ("r.example/Team/app:V1", Some("team/app:V1")),
            ("localhost:5000/app", Some("app:latest")),
            ("docker.io/library/app:1.0", Some("library/app:1.0")),
            (&format!("r.example/app@{digest}"), Some("app:aaaaaaaaaaaa")),
            ("a b", None),
            ("a/../x:1", None),
            ("", None),
        ] {
            assert_eq!(
                joined(of_annotation(text, &default)).as_deref(),
                name,
                "{text}"
            );
        }
    }

    #[test]
    fn repo_tags_keep_their_host() {
        for (text, name) in [
            ("app:1.0", Some("app:1.0")),
            ("docker.io/team/app:1.0", Some("docker.io/team/app:1.0")),
            ("localhost:5000/App", Some("localhost-5000/app:latest")),
            ("app:a b", None),
            (":1", None),
        ] {
            assert_eq!(joined(of_repo_tag(text)).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn what_docker_leaves_out_is_put_back() {
        for (text, full) in [
            ("app", "docker.io/library/app:latest"),
            ("team/app:1", "docker.io/team/app:1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
        ] {
            assert_eq!(in_full(text), full);
        }
    }
}
