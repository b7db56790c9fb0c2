//! Repository keys: of which class each is, and under which names its contents are listed.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde::Deserialize;
use ureq::http::Method;

use super::Artifactory;
use crate::distribution::status_error;
use crate::error::{Error, Kind, Result};
use crate::limit;
use crate::time::Timestamp;

/// How long what was learnt of a server is believed.
const FRESH_MS: u64 = 24 * 3600 * 1000;
/// Virtual repositories inside virtual ones.
pub(super) const MAX_DEPTH: usize = 5;
/// The fact that dates the others.
const LEARNT_AT: &str = "learnt_at";

/// The fact of a class that may not be asked for: good for this process, since permissions change.
pub(super) const UNKNOWN: &str = "unknown";

/// The class of a key (`rclass`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Local,
    /// Lists under `<key>-cache` what it fetched.
    Remote,
    /// An aggregate of others, in this order.
    Virtual(Vec<String>),
    /// The account may not ask.
    Unknown,
}

/// A repository that is listed for a configured key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) key: String,
    /// Whether its listing is all there is.
    pub(super) is_complete: bool,
}

#[derive(Deserialize)]
struct Wire {
    rclass: Option<String>,
    repositories: Option<Vec<String>>,
}

impl Artifactory {
    /// The class of `key`, as far as it was asked for.
    pub(super) fn known_class(&self, key: &str) -> Option<Class> {
        self.fact(&format!("class:{key}"))
            .map(|text| from_fact(&text))
    }

    /// Forgets what was learnt a day ago: repositories change while a watch goes on for months.
    pub(super) fn forget_old(&self) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if learnt.contains_key(LEARNT_AT) && !are_fresh(&learnt) {
            learnt.clear();
        }
    }

    /// The class of `key`: remembered, or asked for.
    pub(super) fn class_of(&self, key: &str) -> Result<Class> {
        if let Some(class) = self.known_class(key) {
            return Ok(class);
        }
        let response = self.api.request(
            Method::GET,
            &format!("{}api/repositories/{key}", self.api_path),
            &[],
            None,
        )?;
        let class = match response.status {
            200 => {
                let bytes =
                    limit::read_all(response.body, limit::PAGE_BYTES, "repository description")?;
                let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| {
                    Error::tell("the API answered with something else than a repository")
                        .hint("check `api=`")
                })?;
                match wire.rclass.as_deref() {
                    Some("local" | "federated") => Class::Local,
                    Some("remote") => Class::Remote,
                    Some("virtual") => Class::Virtual(wire.repositories.unwrap_or_default()),
                    _ => Class::Unknown,
                }
            }
            // Not every account may look; and unknown keys are 400 or 404, which the listing will tell.
            400 | 403 | 404 => Class::Unknown,
            _ => return Err(status_error(response).context(format_args!("asking what `{key}` is"))),
        };
        self.learn(&format!("class:{key}"), &to_fact(&class));
        if class != Class::Unknown {
            self.learn(LEARNT_AT, &Timestamp::now().to_string());
        }
        Ok(class)
    }

    /// The repositories to list for `key`, the most important first.
    pub(super) fn members(&self, key: &str, class: &Class) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        self.collect(key, class, 0, &mut members)?;
        Ok(members)
    }

    fn collect(
        &self,
        key: &str,
        class: &Class,
        depth: usize,
        members: &mut Vec<Member>,
    ) -> Result<()> {
        let mut add = |key: String, is_complete: bool| {
            if members.iter().all(|member| member.key != key) {
                members.push(Member { key, is_complete });
            }
        };
        match class {
            Class::Local => add(key.to_owned(), true),
            Class::Remote => add(format!("{key}-cache"), false),
            // It may be either; an unknown key has no rows, which does no harm.
            Class::Unknown => {
                add(key.to_owned(), false);
                add(format!("{key}-cache"), false);
            }
            Class::Virtual(_) if depth >= MAX_DEPTH => {
                return Err(Error::new(
                    Kind::Limit,
                    format_args!("virtual repositories are nested deeper than {MAX_DEPTH}"),
                ));
            }
            Class::Virtual(keys) => {
                for key in keys {
                    let class = self.class_of(key)?;
                    self.collect(key, &class, depth + 1, members)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether remembered facts are young enough.
pub(super) fn are_fresh(facts: &BTreeMap<String, String>) -> bool {
    facts
        .get(LEARNT_AT)
        .and_then(|text| Timestamp::parse(text).ok())
        .is_some_and(|then| {
            let age = Timestamp::now().since(then).as_millis();
            age < u128::from(FRESH_MS)
        })
}

fn to_fact(class: &Class) -> String {
    match class {
        Class::Local => "local".to_owned(),
        Class::Remote => "remote".to_owned(),
        Class::Virtual(keys) => format!("virtual {}", keys.join(" ")),
        Class::Unknown => UNKNOWN.to_owned(),
    }
}

fn from_fact(text: &str) -> Class {
    match text.split_once(' ').map_or((text, ""), |parts| parts) {
        ("local", _) => Class::Local,
        ("remote", _) => Class::Remote,
        ("virtual", keys) => Class::Virtual(keys.split_whitespace().map(str::to_owned).collect()),
        _ => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_survive_being_remembered() {
        for class in [
            Class::Local,
            Class::Remote,
            Class::Virtual(vec!["a".into(), "b".into()]),
            Class::Virtual(vec![]),
        ] {
            assert_eq!(from_fact(&to_fact(&class)), class);
        }
    }

    #[test]
    fn old_facts_are_forgotten() {
        let facts =
            |moment: Timestamp| BTreeMap::from([(LEARNT_AT.to_owned(), moment.to_string())]);
        assert!(are_fresh(&facts(Timestamp::now())));
        assert!(!are_fresh(&facts(Timestamp::from_millis(0))));
        assert!(!are_fresh(&BTreeMap::new()));
    }
}
