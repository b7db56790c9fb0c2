//! From a request's path to the function that answers it.
//!
//! Source: `reference/registries.md` A1 (addressing), F1. *Invariant:* every answer, also a fault,
//! carries `X-JFrog-Version`, `X-Artifactory-Id` and `X-Artifactory-Node-Id`.

use serde_json::json;

use super::State;
use super::message::{Door, Request, Response};
use super::push::Pushed;
use super::repositories::not_found_repository;
use super::server::lock;
use super::subscriptions;

/// Longest AQL query that is read at all, in bytes.
const QUERY_BYTES: u64 = 1024 * 1024;

/// A request of the registry protocol, taken apart.
struct Address {
    /// `None` for `/v2/` and `/v2/token` of the repository-path method.
    key: Option<String>,
    /// What is behind `/v2/` and the key.
    rest: String,
    /// Path in front of `/<image>`, for `Location` and `Link`.
    base: String,
    realm: String,
}

impl State {
    /// Answers any request on any listener.
    pub(crate) fn answer(&self, request: &mut Request) -> Response {
        let drawn = self.draw_fault(request);
        let mut response = match self.refusal(request, drawn) {
            Some(response) => response,
            None => {
                let response = match request.door {
                    Door::BlobHost => self.answer_blob_host(request),
                    _ => self.dispatch(request),
                };
                match drawn {
                    Some(drawn) => self.spoil(request, response, drawn),
                    None => response,
                }
            }
        };
        let switches = self.switches();
        if response.bytes_per_pause.is_none() && switches.number("slow_bytes") > 0 {
            let bytes = usize::try_from(switches.number("slow_bytes"));
            response.bytes_per_pause = bytes.ok();
        }
        if request.door == Door::BlobHost {
            return response;
        }
        response
            .header(
                "X-JFrog-Version",
                format!("Artifactory/{} 81620900", switches.text("version")),
            )
            .header("X-Artifactory-Id", "emulator-0000-0001")
            .header("X-Artifactory-Node-Id", "emulator-node-0")
    }

    fn dispatch(&self, request: &mut Request) -> Response {
        if let Some(address) = self.registry_address(request) {
            return self
                .dispatch_registry(request, address)
                .header("Docker-Distribution-Api-Version", "registry/2.0");
        }
        let path = request.path.clone();
        if let Some(rest) = path.strip_prefix(subscriptions::PATH)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return self.answer_subscriptions(request, rest);
        }
        let Some(path) = path.strip_prefix("/artifactory/") else {
            return Response::status_error(404, "Not Found");
        };
        let api = path
            .strip_prefix("api/")
            .map(|api| api.trim_end_matches('/'));
        match api {
            Some("system/ping") => return Response::text(200, "OK"),
            Some(api) if api.starts_with("docker/") => {
                let what = api.split('/').nth(1).unwrap_or("");
                let message = format!("Unsupported docker repository request for '{what}'");
                return Response::status_error(400, &message);
            }
            _ => {}
        }
        let user = match self.authenticate(request) {
            Ok(user) => user,
            Err(response) => return response,
        };
        let Some(api) = api else {
            return self.answer_file(request, &user, path);
        };
        if api == "system/version" {
            let version = self.switches().text("version").to_owned();
            return Response::json(
                200,
                &json!({"version": version, "revision": "81620900", "addons": ["docker"], "license": "emulator"}),
            );
        }
        if api == "search/aql" && request.method == "POST" {
            let bytes = match request.read_body(QUERY_BYTES) {
                Ok(bytes) => bytes,
                Err(error) => return Response::status_error(400, &error.to_string()),
            };
            let text = String::from_utf8_lossy(&bytes);
            self.log_body(&text);
            return match user.name.as_str() {
                "anonymous" => Response::status_error(403, "Forbidden"),
                _ => self.answer_aql(&text, &user),
            };
        }
        if api == "repositories" {
            return self.answer_repositories(request, None);
        }
        if let Some(key) = api.strip_prefix("repositories/") {
            return self.answer_repositories(request, Some(key));
        }
        if let Some(full) = api.strip_prefix("storage/") {
            return self.answer_storage(request, &user, full);
        }
        if let Some(full) = api
            .strip_prefix("metadata/")
            .filter(|_| request.method == "PATCH")
        {
            return self.answer_metadata(request, full);
        }
        Response::status_error(404, "Not Found")
    }

    /// Takes a registry request apart; `None` when it is not one.
    fn registry_address(&self, request: &Request) -> Option<Address> {
        let host = request.header("host").unwrap_or("localhost");
        let path = request.path.as_str();
        if let Some(rest) = path.strip_prefix("/artifactory/api/docker/") {
            let (key, rest) = rest.split_once('/')?;
            let rest = rest.strip_prefix("v2")?;
            let base = format!("/artifactory/api/docker/{key}/v2");
            return Some(Address {
                // The wrong order, `api/docker/v2/<key>`, is not an address.
                key: Some(key.to_owned()).filter(|key| key != "v2"),
                rest: rest.trim_start_matches('/').to_owned(),
                realm: format!("http://{host}{base}/token"),
                base,
            })
            .filter(|address| address.key.is_some());
        }
        let rest = path.strip_prefix("/v2")?.trim_start_matches('/');
        let realm = format!("http://{host}/v2/token");
        let own_key = match &request.door {
            Door::Port(key) => Some(key.clone()),
            _ => self.key_of_host(host),
        };
        if let Some(key) = own_key {
            return Some(Address {
                key: Some(key),
                rest: rest.to_owned(),
                base: "/v2".to_owned(),
                realm,
            });
        }
        let (key, rest) = match rest.split_once('/') {
            Some((key, rest)) => (Some(key.to_owned()), rest),
            None => (None, rest),
        };
        Some(Address {
            base: key
                .as_ref()
                .map_or("/v2".to_owned(), |key| format!("/v2/{key}")),
            key,
            rest: rest.to_owned(),
            realm,
        })
    }

    /// The key that a host name stands for: `<key>.<host>`, or `<instance>-<key>.<host>`.
    fn key_of_host(&self, host: &str) -> Option<String> {
        let (label, _) = host.split_once('.')?;
        let keys = self.repositories.iter().map(|repository| &repository.key);
        let mut fitting = keys.filter(|key| {
            label == key.as_str()
                || label
                    .strip_suffix(key.as_str())
                    .is_some_and(|rest| rest.ends_with('-'))
        });
        fitting.next().cloned()
    }

    fn dispatch_registry(&self, request: &mut Request, address: Address) -> Response {
        let rest = address.rest.clone();
        if rest == "token" {
            return self.answer_token(request);
        }
        let route = split_route(&rest);
        let image = route.map(|(image, ..)| image);
        let key = address.key.as_deref();
        let user = match self.authenticate_registry(request, &address.realm, key, image) {
            Ok(user) => user,
            Err(response) => return response,
        };
        let Some(key) = key else {
            return match rest.as_str() {
                "" if request.is_read() => Response::new(200),
                "promote" => Response::status_error(400, "Bad Request"),
                _ => Response::status_error(404, "Not Found"),
            };
        };
        if self.sources(key).is_empty() {
            return not_found_repository(key);
        }
        match (rest.as_str(), request.method.as_str()) {
            ("", "GET" | "HEAD") if address.base != format!("/v2/{key}") => {
                return Response::new(200);
            }
            ("_catalog", "GET") if user.name != "anonymous" => {
                return self.answer_catalog(request, &address.base, key);
            }
            ("promote", "POST") => return self.answer_promote(request, &user.name, key),
            _ => {}
        }
        let Some((image, kind, reference)) = route else {
            return Response::status_error(404, "Not Found");
        };
        let owners = self.sources(key);
        let readable = owners.iter().any(|source| {
            user.may_read(&format!("{}/{image}/", source.owner()))
                || user.may_read(&format!("{}/{image}", source.owner()))
        });
        if !readable || (user.name == "anonymous" && !request.is_read()) {
            return Response::registry_error(
                403,
                "DENIED",
                "requested access to the resource is denied",
                json!(null),
            );
        }
        let pushed = Pushed {
            user: &user.name,
            key,
            image,
            base: &address.base,
        };
        match (kind, request.method.as_str()) {
            ("tags", "GET") => self.answer_tags(request, &address.base, key, image),
            ("referrers", "GET") => self.answer_referrers(request, key, image, reference),
            ("manifests", "GET" | "HEAD") => {
                self.answer_manifest(request, &user.name, key, image, reference)
            }
            ("manifests", "PUT") => self.answer_put_manifest(request, &pushed, reference),
            ("manifests", "DELETE") => self.answer_delete_manifest(&pushed, reference),
            ("blobs", "GET" | "HEAD") => {
                self.answer_blob(request, &user.name, key, image, reference)
            }
            ("uploads", "POST") => self.answer_upload_start(request, &pushed),
            ("uploads", _) => self.answer_upload(request, &pushed, reference),
            _ => Response::status_error(405, "Method Not Allowed"),
        }
    }

    /// Adds a body's text to the newest request of the log that has none and is an AQL query.
    fn log_body(&self, text: &str) {
        let mut log = lock(&self.log);
        let newest = log
            .iter_mut()
            .rev()
            .find(|request| request.body.is_none() && request.target.contains("/api/search/aql"));
        if let Some(request) = newest {
            request.body = Some(text.to_owned());
        }
    }
}

/// Image, kind and reference of what is behind `/v2/<key>/`.
fn split_route(rest: &str) -> Option<(&str, &'static str, &str)> {
    if let Some(image) = rest.strip_suffix("/tags/list") {
        return Some((image, "tags", ""));
    }
    if let Some((image, id)) = rest.rsplit_once("/blobs/uploads") {
        return Some((image, "uploads", id.trim_start_matches('/')));
    }
    for kind in ["manifests", "blobs", "referrers"] {
        if let Some((image, reference)) = rest.rsplit_once(&format!("/{kind}/"))
            && !reference.contains('/')
        {
            return Some((image, kind, reference));
        }
    }
    None
}
