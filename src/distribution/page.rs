//! Listings in pages: the rules that survive every registry's `Link` (pitfalls 1 to 4 and 6 of the reference).
//!
//! Only the query of the next link is used, on the URL that was asked for: Artifactory leaves the repository
//! key out of the path, Nexus points to another path, and none may send us to another host. A full page
//! without a link is asked to go on behind its last name. A page that brings nothing new ends the listing.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::error::{Error, Kind};
use crate::http::Response;
use crate::limit;

type Result<T, E = Error> = std::result::Result<T, E>;

/// How much of a listing was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// The last page named a next one, which brought nothing new: the server's links go in circles.
    Cut,
}

/// The answer to one page: its names, and the next link as sent.
pub(super) struct Page {
    pub(super) names: Vec<String>,
    pub(super) next: Option<String>,
}

/// Calls `each` once for every distinct name. `fetch` gets a query (with its `?`) and returns a page.
/// `n` is the page size to ask for. Errors (`Limit`) past [`limit::PAGES`], [`limit::LISTING_NAMES`] and
/// [`limit::LISTING_BYTES`].
pub(super) fn walk(
    n: usize,
    mut fetch: impl FnMut(&str) -> Result<Page>,
    each: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Extent> {
    let hasher = RandomState::new();
    let mut seen: HashSet<u64> = HashSet::new();
    let mut query = format!("?n={n}");
    let mut n_bytes = 0;
    for page_idx in 0..limit::PAGES {
        let page = match fetch(&query) {
            // Some servers refuse a page size over theirs, or any at all.
            Err(err) if page_idx == 0 && matches!(err.status(), Some(400 | 405)) => fetch("")?,
            other => other?,
        };
        let mut n_new = 0;
        for name in &page.names {
            if seen.insert(hasher.hash_one(name)) {
                n_new += 1;
                n_bytes += name.len();
                if seen.len() > limit::LISTING_NAMES {
                    return Err(too_many_names());
                }
                if n_bytes > limit::LISTING_BYTES {
                    let cap = limit::LISTING_BYTES as u64;
                    return Err(limit::over("the text of all names of the listing", cap));
                }
                each(name)?;
            }
        }
        if n_new == 0 {
            let is_cut = page.next.is_some() && !page.names.is_empty();
            return Ok(if is_cut { Extent::Cut } else { Extent::Whole });
        }
        let last = page.names.last().map(String::as_str).unwrap_or("");
        query = match page.next.as_deref().and_then(query_of) {
            Some(next) => format!("?{next}"),
            None if page.next.is_none() && page.names.len() == n => {
                format!(
                    "?n={n}&last={}",
                    percent_encoding::utf8_percent_encode(last, percent_encoding::NON_ALPHANUMERIC)
                )
            }
            None => return Ok(Extent::Whole),
        };
    }
    Err(Error::new(
        Kind::Limit,
        format_args!(
            "the listing has more than the limit of {} pages",
            limit::PAGES
        ),
    ))
}

fn too_many_names() -> Error {
    Error::new(
        Kind::Limit,
        format_args!(
            "the listing has more than the limit of {} names",
            limit::LISTING_NAMES
        ),
    )
}

/// Reads the names of a page, `null` as none. One page cannot hold more than a whole listing may: short names
/// take a multiple of their text in memory.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of names")
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Vec<String>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = list.next_element()? {
                if names.len() == limit::LISTING_NAMES {
                    return Err(serde::de::Error::custom(too_many_names()));
                }
                names.push(name);
            }
            Ok(names)
        }
    }
    deserializer.deserialize_any(Names)
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
pub(super) fn next_link(response: &Response) -> Option<String> {
    let header = response.header("link")?;
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            parameter
                .trim()
                .split_once('=')
                .is_some_and(|(key, value)| {
                    key.trim().eq_ignore_ascii_case("rel")
                        && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
                })
        });
        is_next.then(|| target.to_owned())
    })
}

fn query_of(link: &str) -> Option<&str> {
    link.split_once('?')
        .map(|(_, query)| query)
        .filter(|query| !query.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `names` in pages of at most `size`, with links as `link(last, offset)` writes them.
    fn listing(size: usize, link: impl Fn(&str, usize) -> Option<String>) -> Result<Vec<String>> {
        let names: Vec<String> = (0..250).map(|at| format!("app{at:03}")).collect();
        let mut found = Vec::new();
        let fetch = |query: &str| {
            let value = |key: &str| {
                query
                    .trim_start_matches('?')
                    .split('&')
                    .find_map(|pair| pair.strip_prefix(key).map(str::to_owned))
            };
            let start = match value("last=") {
                None => 0,
                Some(last) => match last.parse::<usize>() {
                    Ok(offset) => offset,
                    Err(_) => names
                        .iter()
                        .position(|name| *name == last)
                        .map_or(0, |at| at + 1),
                },
            };
            let end = (start + size).min(names.len());
            let next = if end < names.len() {
                link(&names[end - 1], end)
            } else {
                None
            };
            Ok(Page {
                names: names[start.min(end)..end].to_vec(),
                next,
            })
        };
        walk(100, fetch, &mut |name| {
            found.push(name.to_owned());
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn every_kind_of_link_gives_the_whole_listing() {
        type Link = fn(&str, usize) -> Option<String>;
        let links: [(&str, usize, Link); 5] = [
            ("proper", 100, |last, _| {
                Some(format!("/v2/_catalog?last={last}&n=100"))
            }),
            ("repository key missing, other path", 100, |last, _| {
                Some(format!("/other/path?last={last}&n=100"))
            }),
            ("numeric offset", 100, |_, offset| {
                Some(format!("/v2/x?last={offset}&n=100"))
            }),
            ("absent though truncated", 100, |_, _| None),
            ("another host", 40, |last, _| {
                Some(format!(
                    "https://evil.example/v2/_catalog?last={last}&n=100"
                ))
            }),
        ];
        for (what, size, link) in links {
            assert_eq!(listing(size, link).unwrap().len(), 250, "{what}");
        }
    }

    #[test]
    fn a_loop_ends_and_an_endless_listing_is_an_error() {
        assert_eq!(
            listing(100, |_, _| Some("/v2/_catalog?n=100".to_owned()))
                .unwrap()
                .len(),
            100
        );
        let circle = |_: &str| {
            Ok(Page {
                names: vec!["a".to_owned()],
                next: Some("?n=1".to_owned()),
            })
        };
        assert_eq!(walk(1, circle, &mut |_| Ok(())).unwrap(), Extent::Cut);
        let mut at = 0;
        let endless = |_: &str| {
            at += 1;
            Ok(Page {
                names: vec![format!("x{at}")],
                next: Some(format!("?last={at}")),
            })
        };
        let err = walk(100, endless, &mut |_| Ok(())).unwrap_err();
        assert!(err.to_string().contains("limit of 10000 pages"), "{err}");
    }

    #[test]
    fn a_refused_page_size_is_left_out() {
        let mut queries = Vec::new();
        let fetch = |query: &str| {
            queries.push(query.to_owned());
            if query.is_empty() {
                Ok(Page {
                    names: vec!["a".to_owned()],
                    next: None,
                })
            } else {
                Err(Error::skip("n").with_status(400))
            }
        };
        walk(100, fetch, &mut |_| Ok(())).unwrap();
        assert_eq!(queries, ["?n=100", ""]);
    }
}
