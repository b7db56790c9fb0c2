//! The images in the store, one after the other.

use std::vec;

use regex_lite::Regex;
use wildmatch::WildMatch;

use crate::error::Result;
use crate::format::ImageRow;
use crate::image::Platform;
use crate::sbom::State;
use crate::store::Store;
use crate::store::listed::{ListedImage, Pages};

/// Which images are wanted. Of each list, one hit is enough; an empty list takes all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Whether tags that are gone are taken too.
    pub(crate) with_gone: bool,
    /// Tried on the name that users know and on its ends behind each `/`; `*` crosses `/`.
    pub(crate) repositories: Vec<WildMatch>,
    /// Not anchored.
    pub(crate) tags: Vec<Regex>,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) states: Vec<State>,
}

impl Filter {
    fn takes_repository(&self, shown: &str) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|glob| is_hit(glob, shown))
    }

    fn takes(&self, row: &ListedImage) -> bool {
        let platform: Option<Platform> = row.platform.as_ref().and_then(|text| text.parse().ok());
        (self.tags.is_empty() || self.tags.iter().any(|tag| tag.is_match(&row.tag)))
            && (self.states.is_empty() || self.states.contains(&row.state))
            && (self.platforms.is_empty()
                || platform.is_some_and(|platform| {
                    self.platforms.iter().any(|wish| wish.takes(&platform))
                }))
    }
}

/// Whether the glob matches a name that users know, or one of its ends behind each `/`; `*` crosses `/`.
pub(crate) fn is_hit(glob: &WildMatch, shown: &str) -> bool {
    let mut ends = shown.match_indices('/').map(|(at, _)| &shown[at + 1..]);
    glob.matches(shown) || ends.any(|end| glob.matches(end))
}

/// The rows that `filter` takes, sorted by repository, tag and platform, read as they are asked for.
/// Ends after the first error.
pub(crate) fn images<'a>(store: &'a Store, filter: &'a Filter) -> Result<Rows<'a>> {
    let mut repositories = store.repositories()?;
    repositories.retain(|repository| filter.takes_repository(&repository.shown));
    Ok(Rows {
        pages: Some(store.images_of(repositories, filter.with_gone)),
        page: Vec::new().into_iter(),
        filter,
    })
}

/// The rows of an answer. Holds one page of them.
pub(crate) struct Rows<'a> {
    /// `None` after the end.
    pages: Option<Pages<'a>>,
    page: vec::IntoIter<ListedImage>,
    filter: &'a Filter,
}

impl Iterator for Rows<'_> {
    type Item = Result<ImageRow>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.page.find(|row| self.filter.takes(row)) {
                return Some(Ok(shown(row)));
            }
            match self.pages.as_mut()?.next_page() {
                Ok(page) if page.is_empty() => self.pages = None,
                Ok(page) => self.page = page.into_iter(),
                Err(err) => {
                    self.pages = None;
                    return Some(Err(err));
                }
            }
        }
    }
}

fn shown(row: ListedImage) -> ImageRow {
    ImageRow {
        repository: row.repository,
        tag: row.tag,
        digest: row.digest,
        image_digest: row.image_digest,
        platform: row.platform,
        packages: row.packages,
        size: row.size,
        first_seen: row.first_seen,
        last_seen: row.last_seen,
        gone_at: row.gone_at,
        state: row.state,
        error: row.error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_may_leave_out_the_start_of_a_name() {
        for (glob, is_hit) in [
            ("r.example/team/app", true),
            ("team/app", true),
            ("app", true),
            ("t*", true),
            ("*a*", true),
            ("team", false),
            ("pp", false),
            ("example/*", false),
        ] {
            let filter = Filter {
                repositories: vec![WildMatch::new(glob)],
                ..Filter::default()
            };
            assert_eq!(
                filter.takes_repository("r.example/team/app"),
                is_hit,
                "{glob}"
            );
        }
        assert!(Filter::default().takes_repository("x"));
    }
}
