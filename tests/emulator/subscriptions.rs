//! Webhook subscriptions: the management API, and which subscription wants an event.
//!
//! Source: `reference/registries.md` A4. The API stands at the platform's root, not below
//! `/artifactory`, and is for administrators. Not here: `custom-webhook` handlers and
//! `troubleshooting`. Texts of errors, the answer to `POST` and a key that is taken (409) are our
//! own guess. *Invariant:* a secret goes in and never out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ant::ant_matches;
use super::message::{Request, Response};
use super::repositories::Class;
use super::server::lock;
use super::{Emulator, State};

/// Below the platform's URL.
pub(crate) const PATH: &str = "/event/api/v1/subscriptions";

/// Largest subscription that is read, in bytes.
const BODY_BYTES: u64 = 256 * 1024;
/// Longest key, in characters.
const KEY_CHARS: usize = 500;
/// Most custom headers, and the most bytes they have together.
const MAX_HEADERS: usize = 50;
const HEADER_BYTES: usize = 5120;

/// Domains and their event types.
pub(crate) const DOMAINS: &[(&str, &[&str])] = &[
    ("docker", &["pushed", "deleted", "promoted"]),
    (
        "artifact",
        &["deployed", "deleted", "moved", "copied", "cached"],
    ),
];

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Subscription {
    pub(crate) key: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    enabled: bool,
    pub(crate) event_filter: EventFilter,
    /// Exactly one.
    handlers: Vec<Handler>,
    #[serde(default)]
    debug: bool,
    #[serde(default)]
    project_key: String,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct EventFilter {
    pub(crate) domain: String,
    pub(crate) event_types: Vec<String>,
    #[serde(default)]
    criteria: Criteria,
}

#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Criteria {
    any_local: bool,
    any_remote: bool,
    any_federated: bool,
    repo_keys: Vec<String>,
    include_patterns: Vec<String>,
    exclude_patterns: Vec<String>,
}

#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Handler {
    handler_type: String,
    pub(crate) url: String,
    #[serde(skip_serializing)]
    pub(crate) secret: String,
    pub(crate) use_secret_for_signing: bool,
    proxy: String,
    pub(crate) custom_http_headers: Vec<CustomHeader>,
}

#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct CustomHeader {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// All subscriptions, by key.
pub(crate) type Subscriptions = Mutex<BTreeMap<String, Subscription>>;

impl Subscription {
    /// Reads and checks one; the error says what is wrong.
    fn parse(bytes: &[u8], strict_urls: bool) -> Result<Subscription, String> {
        let subscription: Subscription =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if !is_key(&subscription.key) {
            return Err(format!("invalid key '{}'", subscription.key));
        }
        let filter = &subscription.event_filter;
        let Some((_, types)) = DOMAINS.iter().find(|(name, _)| *name == filter.domain) else {
            return Err(format!("unknown domain '{}'", filter.domain));
        };
        let unknown = filter
            .event_types
            .iter()
            .find(|&name| !types.contains(&name.as_str()));
        if let Some(unknown) = unknown {
            return Err(format!("unknown event type '{unknown}'"));
        }
        if filter.event_types.is_empty() {
            return Err("no event types".to_owned());
        }
        let [handler] = subscription.handlers.as_slice() else {
            return Err("exactly one handler is required".to_owned());
        };
        if handler.handler_type != "webhook" {
            return Err(format!("unknown handler type '{}'", handler.handler_type));
        }
        let Some(host) = host_of(&handler.url) else {
            return Err(format!("invalid url '{}'", handler.url));
        };
        if strict_urls && is_private(host) {
            return Err(format!("url '{}' is blocked", handler.url));
        }
        let headers = &handler.custom_http_headers;
        let sizes = headers
            .iter()
            .map(|header| header.name.len() + header.value.len());
        if headers.len() > MAX_HEADERS || sizes.sum::<usize>() > HEADER_BYTES {
            return Err("too many custom headers".to_owned());
        }
        Ok(subscription)
    }

    pub(crate) fn handler(&self) -> &Handler {
        &self.handlers[0]
    }
}

impl State {
    /// A request to [`PATH`]; `rest` is what stands behind it.
    pub(crate) fn answer_subscriptions(&self, request: &mut Request, rest: &str) -> Response {
        match self.authenticate(request) {
            Ok(user) if user.admin => {}
            Ok(_) => return Response::status_error(403, "Forbidden"),
            Err(response) => return response,
        }
        let key = rest.trim_matches('/').to_owned();
        match (request.method.as_str(), key.as_str()) {
            ("GET", "") => {
                let known = lock(&self.subscriptions);
                Response::json(200, &json!(known.values().collect::<Vec<_>>()))
            }
            ("POST", "") => match self.read_subscription(request) {
                Ok(subscription) => self.add_subscription(subscription),
                Err(response) => response,
            },
            ("POST", "test") => match self.read_subscription(request) {
                Ok(subscription) => self.test_subscription(&subscription),
                Err(response) => response,
            },
            ("GET", key) => match lock(&self.subscriptions).get(key) {
                Some(subscription) => Response::json(200, &json!(subscription)),
                None => no_subscription(key),
            },
            ("PUT", key) => match self.read_subscription(request) {
                Ok(subscription) => self.replace_subscription(key, subscription),
                Err(response) => response,
            },
            ("DELETE", key) => match lock(&self.subscriptions).remove(key) {
                Some(_) => Response::new(204),
                None => no_subscription(key),
            },
            _ => Response::status_error(405, "Method Not Allowed"),
        }
    }

    fn read_subscription(&self, request: &mut Request) -> Result<Subscription, Response> {
        let bytes = request.read_body(BODY_BYTES);
        let strict = self.switches().on("webhook_strict_urls");
        bytes
            .map_err(|error| error.to_string())
            .and_then(|bytes| Subscription::parse(&bytes, strict))
            .map_err(|text| Response::status_error(400, &text))
    }

    fn add_subscription(&self, subscription: Subscription) -> Response {
        let mut known = lock(&self.subscriptions);
        if known.contains_key(&subscription.key) {
            let text = format!("Subscription '{}' already exists", subscription.key);
            return Response::status_error(409, &text);
        }
        let answer = Response::json(201, &json!(subscription));
        known.insert(subscription.key.clone(), subscription);
        answer
    }

    /// The whole subscription is replaced, also its secret: one that is left out is gone.
    fn replace_subscription(&self, key: &str, subscription: Subscription) -> Response {
        let mut known = lock(&self.subscriptions);
        if !known.contains_key(key) {
            return no_subscription(key);
        }
        if subscription.key != key {
            return Response::status_error(400, "the key cannot be changed");
        }
        known.insert(key.to_owned(), subscription);
        Response::new(204)
    }

    /// Sends the placeholder event once; the answer is 200 also when that fails.
    fn test_subscription(&self, subscription: &Subscription) -> Response {
        let job = self.test_job(subscription);
        match self.outbox.try_now(&job) {
            Ok(status) => Response::json(200, &json!({"status_code": status})),
            Err(error) => Response::json(200, &json!({"status_code": 0, "error": error})),
        }
    }

    /// The enabled subscriptions that want such an event, in order of their keys.
    pub(crate) fn subscribers(
        &self,
        domain: &str,
        event_type: &str,
        repo: &str,
        path: &str,
    ) -> Vec<Subscription> {
        let known = lock(&self.subscriptions);
        let wants = |subscription: &&Subscription| {
            let filter = &subscription.event_filter;
            subscription.enabled
                && filter.domain == domain
                && filter.event_types.iter().any(|name| name == event_type)
                && self.criteria_fit(&filter.criteria, repo, path)
        };
        known.values().filter(wants).cloned().collect()
    }

    /// True when a file of that repository is within the criteria. A cache counts as its remote.
    fn criteria_fit(&self, criteria: &Criteria, repo: &str, path: &str) -> bool {
        let key = match self.repository(repo) {
            Some(_) => repo,
            None => repo.strip_suffix("-cache").unwrap_or(repo),
        };
        let by_class = match self.repository(key).map(|repository| &repository.class) {
            Some(Class::Local) => criteria.any_local,
            Some(Class::Federated) => criteria.any_federated,
            Some(Class::Remote) => criteria.any_remote,
            Some(Class::Virtual { .. }) | None => false,
        };
        let mut keys = criteria.repo_keys.iter();
        let any = |patterns: &[String]| patterns.iter().any(|pattern| ant_matches(pattern, path));
        (by_class || keys.any(|named| named == repo || named == key))
            && (criteria.include_patterns.is_empty() || any(&criteria.include_patterns))
            && !any(&criteria.exclude_patterns)
    }
}

impl Emulator {
    /// Adds a subscription as `POST` does; panics when the server would refuse it.
    #[track_caller]
    pub(crate) fn subscribe(&self, subscription: &serde_json::Value) {
        let text = subscription.to_string();
        let strict = self.state.switches().on("webhook_strict_urls");
        let subscription = Subscription::parse(text.as_bytes(), strict)
            .unwrap_or_else(|error| panic!("{error}: {text}"));
        let answer = self.state.add_subscription(subscription);
        assert_eq!(answer.status, 201, "the key is taken: {text}");
    }
}

fn no_subscription(key: &str) -> Response {
    Response::status_error(404, &format!("Subscription '{key}' was not found"))
}

/// A letter, then letters, digits, `_` and `-`.
fn is_key(key: &str) -> bool {
    let mut letters = key.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && key.len() <= KEY_CHARS
}

/// The host of an `http` or `https` URL, without port and brackets.
fn host_of(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("http://")
        .or(url.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => authority.split(':').next()?,
    };
    Some(host).filter(|host| !host.is_empty())
}

/// Loopback, RFC 1918, RFC 3927 and unique-local addresses, and the name of this host.
fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        Ok(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST || address.is_unique_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}
