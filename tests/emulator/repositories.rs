//! Repository keys and their classes, and the REST list of them.
//!
//! Source: `reference/registries.md` A1 (classes) and A2 (shapes of `api/repositories`).
//! *Invariant:* items only ever belong to a local, federated or cache key; a virtual or remote key
//! is resolved to those.

use serde_json::{Value, json};

use super::State;
use super::message::{Request, Response};

/// What kind of repository a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Local,
    Federated,
    /// Fetches from `<key>/<image>` of the upstream; its items are under `<key>-cache`.
    Remote,
    /// Members in order of search, and where pushes go.
    Virtual {
        members: Vec<String>,
        default_deployment: Option<String>,
    },
}

/// One configured repository.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    pub(crate) key: String,
    pub(crate) class: Class,
    /// `docker`, `oci` or `helmoci`.
    pub(crate) package_type: String,
}

impl Repository {
    /// A docker repository.
    pub(crate) fn new(key: &str, class: Class) -> Repository {
        Repository {
            key: key.to_owned(),
            class,
            package_type: "docker".to_owned(),
        }
    }

    /// Reads `key=local`, `key=federated`, `key=remote` or `key=virtual:member+member[>default]`,
    /// each with an optional `@oci` behind the key.
    pub(crate) fn parse(text: &str) -> Result<Repository, String> {
        let (name, class) = text
            .split_once('=')
            .ok_or_else(|| format!("repository `{text}` is not key=class"))?;
        let (key, package_type) = name.split_once('@').unwrap_or((name, "docker"));
        let class = match class.split_once(':').unwrap_or((class, "")) {
            ("local", "") => Class::Local,
            ("federated", "") => Class::Federated,
            ("remote", "") => Class::Remote,
            ("virtual", rest) => {
                let (members, deployment) = match rest.split_once('>') {
                    Some((members, key)) => (members, Some(key.to_owned())),
                    None => (rest, None),
                };
                Class::Virtual {
                    members: members.split('+').map(str::to_owned).collect(),
                    default_deployment: deployment,
                }
            }
            _ => return Err(format!("repository `{text}` has an unknown class")),
        };
        Ok(Repository {
            package_type: package_type.to_owned(),
            ..Repository::new(key, class)
        })
    }

    fn rclass(&self) -> &'static str {
        match self.class {
            Class::Local => "local",
            Class::Federated => "federated",
            Class::Remote => "remote",
            Class::Virtual { .. } => "virtual",
        }
    }
}

/// A repository that a read of some key may end at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Items under this key.
    Stored(String),
    /// The remote of this key; items under `<key>-cache`.
    Remote(String),
}

impl Source {
    /// The key that owns the items.
    pub(crate) fn owner(&self) -> String {
        match self {
            Source::Stored(key) => key.clone(),
            Source::Remote(key) => format!("{key}-cache"),
        }
    }
}

impl State {
    pub(crate) fn repository(&self, key: &str) -> Option<&Repository> {
        self.repositories
            .iter()
            .find(|repository| repository.key == key)
    }

    /// Where reads of `key` look, in order; empty for an unknown key. A cache may be named directly.
    pub(crate) fn sources(&self, key: &str) -> Vec<Source> {
        let Some(repository) = self.repository(key) else {
            let remote = key
                .strip_suffix("-cache")
                .and_then(|key| self.repository(key));
            return match remote {
                Some(_) => vec![Source::Stored(key.to_owned())],
                None => Vec::new(),
            };
        };
        match &repository.class {
            Class::Local | Class::Federated => vec![Source::Stored(key.to_owned())],
            Class::Remote => vec![Source::Remote(key.to_owned())],
            Class::Virtual { members, .. } => members
                .iter()
                .filter(|member| *member != key)
                .flat_map(|member| self.sources(member))
                .collect(),
        }
    }

    /// The key a push to `key` is stored under, or the answer that refuses it.
    pub(crate) fn push_target(&self, key: &str) -> Result<String, Response> {
        match self.repository(key).map(|repository| &repository.class) {
            Some(Class::Local | Class::Federated) => Ok(key.to_owned()),
            Some(Class::Virtual {
                default_deployment: Some(target),
                ..
            }) => Ok(target.clone()),
            Some(Class::Virtual { .. }) => Err(Response::status_error(
                400,
                "No default deployment repository is configured for this virtual repository",
            )),
            Some(Class::Remote) => Err(Response::status_error(
                400,
                &format!("Uploading to remote repository '{key}' is not supported"),
            )),
            None => Err(not_found_repository(key)),
        }
    }

    /// `GET api/repositories` and `GET api/repositories/<key>`.
    pub(crate) fn answer_repositories(&self, request: &Request, key: Option<&str>) -> Response {
        if let Some(status) = self.switches().status("repositories") {
            return Response::status_error(status, "Forbidden");
        }
        match key {
            None => Response::json(200, &self.list_repositories(request)),
            Some(key) => match self.repository(key) {
                Some(repository) => Response::json(200, &self.describe(repository)),
                None => Response::status_error(400, "Bad Request"),
            },
        }
    }

    fn list_repositories(&self, request: &Request) -> Value {
        let fits = |name: &str, value: &str| {
            request
                .parameter(name)
                .is_none_or(|wanted| wanted.is_empty() || wanted.eq_ignore_ascii_case(value))
        };
        let rows = self
            .repositories
            .iter()
            .filter(|repository| fits("type", repository.rclass()))
            .filter(|repository| fits("packageType", &repository.package_type))
            .map(|repository| {
                json!({
                    "key": repository.key,
                    "description": "",
                    "type": repository.rclass().to_uppercase(),
                    "url": format!("{}/{}", self.base_url(), repository.key),
                    "packageType": capitalized(&repository.package_type),
                })
            });
        Value::Array(rows.collect())
    }

    fn describe(&self, repository: &Repository) -> Value {
        let mut answer = json!({
            "key": repository.key,
            "rclass": repository.rclass(),
            "packageType": repository.package_type,
            "description": "",
            "repoLayoutRef": "simple-default",
        });
        match &repository.class {
            Class::Virtual {
                members,
                default_deployment,
            } => {
                answer["repositories"] = json!(members);
                if let Some(key) = default_deployment {
                    answer["defaultDeploymentRepo"] = json!(key);
                }
            }
            Class::Remote => {
                let upstream = self.upstream.as_ref().map_or("", |upstream| upstream.url());
                answer["url"] = json!(upstream);
            }
            Class::Local | Class::Federated => {}
        }
        answer
    }
}

/// The answer for a repository key that does not exist.
pub(crate) fn not_found_repository(key: &str) -> Response {
    Response::registry_error(
        404,
        "NAME_UNKNOWN",
        "Repository name not known to registry",
        json!({"name": key}),
    )
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
