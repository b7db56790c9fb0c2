//! From what a user calls an image to its SBOM.
//!
//! A reference is a name, tried as users pull it, then as its source calls it, then as the end of a longer
//! name; or a digest, or the start of one. It may stand for several images; then the user has to choose.

use crate::error::{Error, Result};
use crate::format::SbomAnswer;
use crate::image::{Digest, Platform, Reference};
use crate::sbom::State;
use crate::store::Store;
use crate::store::listed::{ListedImage, RepositoryRow};

/// Hexadecimal digits that a digest is known by, at least.
const PREFIX: usize = 6;
/// The tag that is meant when none is named, as in every container tool.
const LATEST: &str = "latest";
/// Choices that are named in a hint.
const CHOICES: usize = 10;

/// Finds the one of some known names that a word is most likely a slip of.
pub(crate) type Nearest<'a> = &'a dyn Fn(&str, &[&str]) -> Option<String>;

/// An image that may be meant.
struct Candidate {
    /// `repository:tag`, or the digest by which it was found.
    name: String,
    /// `None` while nothing was read of the tag.
    image: Option<Digest>,
    platform: Option<String>,
    state: State,
    error: Option<String>,
    hint: Option<String>,
}

/// The SBOM of the image that `reference` stands for. `platform` chooses among several.
/// Errors (`Tell`) when there is none, several, or one that is not indexed.
pub(crate) fn sbom(
    store: &Store,
    reference: &str,
    platform: Option<&Platform>,
    nearest: Nearest<'_>,
) -> Result<SbomAnswer> {
    let mut candidates = candidates(store, reference, nearest)?;
    if let Some(wish) = platform {
        candidates = narrowed(candidates, reference, wish)?;
    }
    let chosen = choose(candidates, reference)?;
    let image = chosen.image.as_ref().ok_or_else(|| not_indexed(&chosen))?;
    let sbom = store.sbom(image)?.ok_or_else(|| not_indexed(&chosen))?;
    let mut names = store.names(image)?;
    if let Some(at) = names.iter().position(|name| *name == chosen.name) {
        names[..=at].rotate_right(1);
    }
    Ok(SbomAnswer { names, sbom })
}

/// What `reference` may mean; at least one.
fn candidates(store: &Store, reference: &str, nearest: Nearest<'_>) -> Result<Vec<Candidate>> {
    if reference.starts_with("sha256:") || reference.starts_with("sha512:") {
        return by_digest(store, reference, reference);
    }
    let expected = |err: Error| {
        Error::tell(err).hint("expected REPOSITORY[:TAG], REPOSITORY@DIGEST, or a digest")
    };
    let parsed: Reference = reference.parse().map_err(expected)?;
    if let Some(digest) = &parsed.digest {
        return by_digest(store, digest.as_str(), reference);
    }
    let name = match &parsed.host {
        Some(host) => format!("{host}/{}", parsed.repository),
        None => parsed.repository.to_string(),
    };
    let tag = parsed.tag.as_ref().map_or(LATEST, |tag| tag.as_str());
    let repositories = store.repositories()?;
    let named = named(&repositories, &name);
    for group in &named {
        let mut rows = Vec::new();
        for repository in group {
            rows.extend(store.images_of_tag(repository, tag)?);
        }
        // What is still there comes before what is gone.
        if rows.iter().any(|row| row.gone_at.is_none()) {
            rows.retain(|row| row.gone_at.is_none());
        }
        if !rows.is_empty() {
            return Ok(rows.into_iter().map(of_row).collect());
        }
    }
    let is_hex = reference.len() >= PREFIX
        && reference
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && named.iter().all(Vec::is_empty) {
        return by_digest(store, &format!("sha256:{reference}"), reference);
    }
    Err(unknown(store, &repositories, &named, &name, tag, nearest)?)
}

/// The repositories of that name: those that users call so, those that their source calls so, those whose name
/// ends so. Each group may be empty.
fn named<'a>(repositories: &'a [RepositoryRow], name: &str) -> [Vec<&'a RepositoryRow>; 3] {
    let of = |is_hit: &dyn Fn(&RepositoryRow) -> bool| {
        repositories
            .iter()
            .filter(|repository| is_hit(repository))
            .collect()
    };
    [
        of(&|repository| repository.shown == name),
        of(&|repository| repository.name == name),
        of(&|repository| {
            let start = repository.shown.strip_suffix(name);
            start.is_some_and(|start| start.ends_with('/'))
        }),
    ]
}

/// The images behind the digest that starts with `prefix`.
fn by_digest(store: &Store, prefix: &str, reference: &str) -> Result<Vec<Candidate>> {
    let n_digits = prefix.len().saturating_sub("sha256:".len());
    if n_digits < PREFIX {
        let message =
            format!("`{reference}` is too short for a digest: expected {PREFIX} digits or more");
        return Err(Error::tell(message));
    }
    let digests = store.digests(prefix)?;
    let digest = match digests.as_slice() {
        [digest] => digest,
        [] => {
            let err = Error::tell(format_args!(
                "no image in the store has the digest `{reference}`"
            ));
            return Err(err.hint("crowsnest images lists what there is"));
        }
        several => {
            let err = Error::tell(format_args!("several digests start with `{reference}`"));
            return Err(err.hint(format!(
                "name one of: {}",
                listed(several.iter().map(Digest::to_string))
            )));
        }
    };
    let leaves = store.images_behind(digest)?;
    let was_read = leaves.iter().any(|leaf| leaf.state != State::Skipped);
    if !was_read && let Some(row) = store.tagged(digest)? {
        return Ok(vec![of_row(row)]);
    }
    Ok(leaves
        .into_iter()
        .map(|leaf| Candidate {
            name: digest.to_string(),
            image: Some(leaf.digest),
            platform: leaf.platform,
            state: leaf.state,
            error: None,
            hint: None,
        })
        .collect())
}

fn of_row(row: ListedImage) -> Candidate {
    Candidate {
        name: format!("{}:{}", row.repository, row.tag),
        image: row.image_digest,
        platform: row.platform,
        state: row.state,
        error: row.error,
        hint: row.hint,
    }
}

/// Those for the platform that the user wants. Errors (`Tell`) when there is none.
fn narrowed(
    candidates: Vec<Candidate>,
    reference: &str,
    wish: &Platform,
) -> Result<Vec<Candidate>> {
    let takes = |candidate: &Candidate| match &candidate.platform {
        Some(platform) => platform.parse().is_ok_and(|platform| wish.takes(&platform)),
        // Nothing was read yet: the state says more than the platform could.
        None => true,
    };
    let (taken, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(takes);
    if taken.is_empty() {
        let err = Error::tell(format_args!("`{reference}` has no image for `{wish}`"));
        let platforms = others
            .into_iter()
            .filter_map(|candidate| candidate.platform);
        return Err(err.hint(format!("it has: {}", listed(platforms))));
    }
    Ok(taken)
}

/// The one image that is meant. Errors (`Tell`) when several are.
fn choose(mut candidates: Vec<Candidate>, reference: &str) -> Result<Candidate> {
    // What is not indexed is no choice as long as something is.
    if candidates
        .iter()
        .any(|candidate| candidate.state.is_indexed())
    {
        candidates.retain(|candidate| candidate.state.is_indexed());
    }
    let mut rest = candidates.into_iter();
    let first = rest
        .next()
        .ok_or_else(|| Error::tell(format_args!("`{reference}` holds no image")))?;
    let others: Vec<Candidate> = rest
        .filter(|other| other.image != first.image || other.image.is_none())
        .collect();
    if others.is_empty() {
        return Ok(first);
    }
    let all = || std::iter::once(&first).chain(&others);
    if others.iter().any(|other| other.name != first.name) {
        let mut names: Vec<String> = all().map(|candidate| candidate.name.clone()).collect();
        names.dedup();
        let err = Error::tell(format_args!("`{reference}` may be one of several images"));
        return Err(err.hint(format!("name one of: {}", listed(names.into_iter()))));
    }
    let choices = all().map(|candidate| {
        let platform = candidate.platform.as_deref().unwrap_or("unknown");
        match &candidate.image {
            Some(digest) => format!("{platform} ({})", digest.short()),
            None => platform.to_owned(),
        }
    });
    let err = Error::tell(format_args!(
        "`{}` has images for several platforms",
        first.name
    ));
    Err(err.hint(format!(
        "choose with --platform, or by the digest in parentheses: {}",
        listed(choices)
    )))
}

fn not_indexed(candidate: &Candidate) -> Error {
    let name = match (&candidate.platform, candidate.image.is_some()) {
        (Some(platform), true) => format!("`{}` for `{platform}`", candidate.name),
        _ => format!("`{}`", candidate.name),
    };
    let cause = candidate.error.as_deref().unwrap_or("no error was noted");
    let (message, hint) = match candidate.state {
        State::Failed => (
            format!("{name} could not be indexed: {cause}"),
            "crowsnest status tells what becomes of it",
        ),
        State::Retrying => (
            format!("{name} could not be indexed so far: {cause}"),
            "it is tried again; crowsnest status tells when",
        ),
        State::Pending => (
            format!("{name} waits to be indexed"),
            "a running crowsnest watch does it; crowsnest status shows the queue",
        ),
        State::Recorded => (
            format!("{name} is known and not indexed"),
            "index what existed before the first pass with crowsnest watch --all-images",
        ),
        State::Skipped => (
            format!("{name} is not indexed: its platform was not asked for"),
            "run crowsnest watch without --platform, or with this one",
        ),
        State::Artifact => (
            format!("{name} is not an image, so it has no packages"),
            "crowsnest images --state indexed lists those that have",
        ),
        State::Indexed | State::Partial => (format!("{name} has just gone"), "try again"),
    };
    Error::tell(message).hint(candidate.hint.clone().unwrap_or_else(|| hint.to_owned()))
}

/// The error for a name that no tag has, with what is near.
fn unknown(
    store: &Store,
    repositories: &[RepositoryRow],
    named: &[Vec<&RepositoryRow>],
    name: &str,
    tag: &str,
    nearest: Nearest<'_>,
) -> Result<Error> {
    if let Some(repository) = named.iter().flatten().next() {
        let shown = &repository.shown;
        let err = Error::tell(format_args!("`{shown}` has no tag `{tag}` in the store"));
        let tags = store.tags_of(repository, 1 + CHOICES)?;
        return Ok(if tags.is_empty() {
            err.hint("crowsnest images --all lists also what is gone")
        } else {
            err.hint(format!("it has: {}", listed(tags.into_iter())))
        });
    }
    let err = Error::tell(format_args!(
        "no repository in the store is called `{name}`"
    ));
    let ends = repositories.iter().flat_map(|repository| {
        let shown = repository.shown.as_str();
        let ends = shown
            .match_indices('/')
            .map(move |(at, _)| &shown[at + 1..]);
        std::iter::once(shown).chain(ends)
    });
    Ok(match nearest(name, &ends.collect::<Vec<_>>()) {
        Some(near) => err.hint(format!(
            "did you mean `{near}`? crowsnest images lists what there is"
        )),
        None => err.hint("crowsnest images lists what there is"),
    })
}

/// Up to [`CHOICES`] texts in a row.
fn listed(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<String> = texts.collect();
    let n_more = texts.len().saturating_sub(CHOICES);
    texts.truncate(CHOICES);
    let more = if n_more > 0 { ", and more" } else { "" };
    format!("{}{more}", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(
        name: &str,
        image: Option<&[u8]>,
        platform: Option<&str>,
        state: State,
    ) -> Candidate {
        Candidate {
            name: name.to_owned(),
            image: image.map(Digest::of),
            platform: platform.map(str::to_owned),
            state,
            error: None,
            hint: None,
        }
    }

    fn told(result: Result<Candidate>) -> (String, String) {
        let err = result.err().unwrap();
        (err.to_string(), err.hint_text().unwrap_or("").to_owned())
    }

    #[test]
    fn the_only_indexed_image_is_chosen() {
        let chosen = choose(
            vec![
                candidate("r/a:1", Some(b"x"), Some("linux/amd64"), State::Skipped),
                candidate("r/a:1", Some(b"y"), Some("linux/arm64"), State::Partial),
            ],
            "a:1",
        );
        assert_eq!(chosen.unwrap().image, Some(Digest::of(b"y")));
    }

    #[test]
    fn the_same_image_under_two_names_is_one() {
        let chosen = choose(
            vec![
                candidate("r/a:1", Some(b"x"), None, State::Indexed),
                candidate("s/a:1", Some(b"x"), None, State::Indexed),
            ],
            "a:1",
        );
        assert_eq!(chosen.unwrap().name, "r/a:1");
    }

    #[test]
    fn several_images_are_the_users_choice() {
        let (message, hint) = told(choose(
            vec![
                candidate("r/a:1", Some(b"x"), Some("linux/amd64"), State::Indexed),
                candidate("r/a:1", Some(b"y"), Some("linux/arm64"), State::Indexed),
            ],
            "a:1",
        ));
        assert_eq!(message, "`r/a:1` has images for several platforms");
        let (x, y) = (Digest::of(b"x"), Digest::of(b"y"));
        assert_eq!(
            hint,
            format!(
                "choose with --platform, or by the digest in parentheses: linux/amd64 ({}), linux/arm64 ({})",
                x.short(),
                y.short()
            )
        );
        let (message, hint) = told(choose(
            vec![
                candidate("r/a:1", Some(b"x"), None, State::Indexed),
                candidate("s/a:1", Some(b"y"), None, State::Indexed),
            ],
            "a:1",
        ));
        assert_eq!(message, "`a:1` may be one of several images");
        assert_eq!(hint, "name one of: r/a:1, s/a:1");
    }

    #[test]
    fn a_platform_narrows_and_the_others_are_named() {
        let both = || {
            vec![
                candidate("r/a:1", Some(b"x"), Some("linux/amd64"), State::Indexed),
                candidate("r/a:1", Some(b"y"), Some("linux/arm64/v8"), State::Indexed),
            ]
        };
        let arm: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(narrowed(both(), "a:1", &arm).unwrap().len(), 1);
        let power: Platform = "linux/ppc64le".parse().unwrap();
        let err = narrowed(both(), "a:1", &power).err().unwrap();
        assert_eq!(err.to_string(), "`a:1` has no image for `linux/ppc64le`");
        assert_eq!(err.hint_text(), Some("it has: linux/amd64, linux/arm64/v8"));
    }
}
