//! Which images are wanted: globs on names, regular expressions on tags.
//!
//! A glob is tried on the image's path, on `<key or project>/<path>` and on the whole reference; one hit is
//! enough, and an exclusion wins. `*` crosses `/`. Expressions are not anchored; several are alternatives.

use std::fmt::Display;
use std::sync::Arc;

use regex_lite::Regex;
use wildmatch::WildMatch;

use crate::error::{Error, Result};
use crate::log::Log;

/// Bytes of compiled expressions; regex-lite refuses larger ones.
const REGEX_BYTES: usize = 1 << 20;

/// Globs and expressions, compiled.
#[derive(Clone, Default)]
pub(crate) struct Filter {
    include: Vec<WildMatch>,
    exclude: Vec<WildMatch>,
    tags: Vec<Regex>,
    log: Option<Arc<Log>>,
}

impl Filter {
    /// Errors (`Tell`) when an expression of `tags` cannot be read.
    pub(crate) fn new(include: &[&str], exclude: &[&str], tags: &[String]) -> Result<Self> {
        let globs = |texts: &[&str]| texts.iter().map(|text| WildMatch::new(text)).collect();
        let tags = tags
            .iter()
            .map(|text| {
                regex_lite::RegexBuilder::new(text)
                    .size_limit(REGEX_BYTES)
                    .build()
                    .map_err(|err| {
                        Error::tell(format_args!(
                            "--tag: `{text}` is not a regular expression: {err}"
                        ))
                    })
            })
            .collect::<Result<_>>()?;
        Ok(Filter {
            include: globs(include),
            exclude: globs(exclude),
            tags,
            log: None,
        })
    }

    /// The same, saying at debug level what is left out.
    pub(crate) fn telling(self, log: Option<&Arc<Log>>) -> Self {
        Filter {
            log: log.cloned(),
            ..self
        }
    }

    /// Whether a repository that has these names, the longest last, is wanted.
    pub(crate) fn takes_name(&self, names: &[&str]) -> bool {
        let hit = |globs: &[WildMatch]| {
            globs
                .iter()
                .any(|glob| names.iter().any(|name| glob.matches(name)))
        };
        let reason = if hit(&self.exclude) {
            "it is excluded"
        } else if self.include.is_empty() || hit(&self.include) {
            return true;
        } else {
            "it is not included"
        };
        self.tell(names.last().unwrap_or(&""), reason);
        false
    }

    /// Whether a tag of repository `name` is wanted.
    pub(crate) fn takes_tag(&self, name: &str, tag: &str) -> bool {
        let takes =
            self.tags.is_empty() || self.tags.iter().any(|expression| expression.is_match(tag));
        if !takes {
            self.tell(format_args!("{name}:{tag}"), "no --tag matches");
        }
        takes
    }

    fn tell(&self, image: impl Display, reason: &'static str) {
        if let Some(log) = &self.log {
            let data: &[(&'static str, &dyn Display)] = &[("image", &image), ("reason", &reason)];
            log.debug("filtered out", data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_and_exclusions() {
        let names = [
            "frontend/web",
            "docker-local/frontend/web",
            "r.example/docker-local/frontend/web",
        ];
        for (include, exclude, takes) in [
            (vec![], vec![], true),
            (vec!["*/frontend*"], vec![], true),
            (vec!["frontend/*"], vec![], true),
            (vec!["r.example/*"], vec![], true),
            (vec!["backend*"], vec![], false),
            (vec!["*/frontend*"], vec!["*/web"], false),
            (vec![], vec!["*/dta/*"], true),
        ] {
            let filter = Filter::new(&include, &exclude, &[]).unwrap();
            assert_eq!(filter.takes_name(&names), takes, "{include:?} {exclude:?}");
        }
    }

    #[test]
    fn tags_match_anywhere_and_any_expression_is_enough() {
        let filter = Filter::new(&[], &[], &["^v[0-9]".to_owned(), "rc".to_owned()]).unwrap();
        for (tag, takes) in [("v1.0", true), ("1.0-rc2", true), ("latest", false)] {
            assert_eq!(filter.takes_tag("app", tag), takes, "{tag}");
        }
        let err = Filter::new(&[], &[], &["(".to_owned()]).err();
        let err = err.unwrap().to_string();
        assert!(
            err.starts_with("--tag: `(` is not a regular expression"),
            "{err}"
        );
    }
}
