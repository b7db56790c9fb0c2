//! Artifactory's webhooks: domain `docker`, events `pushed`, `deleted`, `promoted`; of domain `artifact` those that
//! name a manifest.
//!
//! The image is taken from `path`, since `image_name` is only its last segment on real servers, and a virtual key
//! never sends anything: its members do, under their own keys. `X-JFrog-Event-Auth` carries the secret itself or,
//! with "use secret for payload signing", the hexadecimal HMAC-SHA256 of the body; old versions wrote `sha1=` and
//! a HMAC-SHA1.

use serde_json::{Value, json};

use super::Artifactory;
use super::keys::{Class, MAX_DEPTH};
use crate::image::{Repository, Tag};
use crate::registry::webhook::{
    Change, Delivery, Message, Webhook, hmac_sha256, is_hmac_sha1, is_hmac_sha256, is_secret,
};
use crate::secret::Secret;

/// The variable, behind its prefix, that holds the secret.
pub(super) const SECRET_VARIABLE: &str = "ARTIFACTORY_WEBHOOK_SECRET";
const AUTH_HEADER: &str = "X-JFrog-Event-Auth";

impl Webhook for Artifactory {
    fn port(&self) -> Option<u16> {
        self.port
    }

    fn secret_variable(&self) -> &'static str {
        SECRET_VARIABLE
    }

    fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    fn proves(&self, delivery: &Delivery<'_>, secret: &Secret) -> bool {
        let Some(given) = (delivery.header)(AUTH_HEADER) else {
            return false;
        };
        match given.strip_prefix("sha1=") {
            Some(code) => is_hmac_sha1(secret, delivery.body, code),
            None => is_hmac_sha256(secret, delivery.body, given) || is_secret(secret, given),
        }
    }

    fn read(&self, body: &Value) -> Message {
        // The first versions had no envelope: everything stood at the top.
        let data = match body.get("data") {
            Some(data) if data.is_object() => data,
            _ => body,
        };
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        let (Some(event), Some(path)) =
            (body.get("event_type").and_then(Value::as_str), text("path"))
        else {
            return Message::Foreign;
        };
        if path == SAMPLE_PATH {
            return Message::Test;
        }
        let Some(key) = text("repo_key") else {
            return Message::Malformed("`repo_key` is missing".to_owned());
        };
        let is_delete = match event {
            "pushed" | "promoted" | "deployed" | "copied" | "moved" | "cached" => false,
            "deleted" => true,
            other => {
                return Message::Changes(
                    Vec::new(),
                    vec![format!("event `{other}` is of no interest")],
                );
            }
        };
        // What was promoted or moved away may be gone from where it was: only a look can tell.
        let mut places = vec![(key, path.to_owned(), is_delete)];
        if let Some(target) = text("target_repo") {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let (image, tag) = folder.rsplit_once('/').unwrap_or(("", ""));
            let tag = text("target_tag")
                .filter(|tag| !tag.is_empty())
                .unwrap_or(tag);
            places.push((target, format!("{image}/{tag}/manifest.json"), false));
        }
        if let Some((target, path)) =
            text("target_repo_path").and_then(|path| path.trim_start_matches('/').split_once('/'))
        {
            places.push((target, path.to_owned(), false));
        }
        let (mut changes, mut reasons) = (Vec::new(), Vec::new());
        for (key, path, is_delete) in places {
            match self.changes(key, &path, is_delete) {
                Ok(found) => changes.extend(found),
                Err(reason) => reasons.push(reason),
            }
        }
        Message::Changes(changes, reasons)
    }

    fn sample(&self) -> (Vec<(&'static str, String)>, String) {
        let body = json!({
            "domain": "docker", "event_type": "pushed",
            "data": {
                "repo_key": "sample_repo", "path": SAMPLE_PATH, "name": "sample.txt",
                "sha256": "sample_checksum", "size": 0, "image_name": "sample_arch",
                "tag": "sample_image", "platforms": [],
            },
            "subscription_key": "crowsnest", "source": "crowsnest",
        })
        .to_string();
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        if let Some(secret) = &self.secret {
            headers.push((AUTH_HEADER, hmac_sha256(secret, body.as_bytes())));
        }
        (headers, body)
    }

    fn setup(&self, url: &str) -> String {
        let api = self.api.base().to_string();
        let platform = api
            .trim_end_matches('/')
            .strip_suffix("/artifactory")
            .unwrap_or(api.trim_end_matches('/'))
            .to_owned();
        let subscription = json!({
            "key": "crowsnest", "description": "tells crowsnest of new images", "enabled": true,
            "event_filter": {
                "domain": "docker", "event_types": ["pushed", "deleted", "promoted"],
                "criteria": {
                    "anyLocal": false, "anyRemote": false, "anyFederated": false,
                    "repoKeys": self.sending_keys(), "includePatterns": [], "excludePatterns": [],
                },
            },
            "handlers": [{
                "handler_type": "webhook", "url": url,
                "secret": "THE_SECRET", "use_secret_for_signing": true,
            }],
        });
        let pretty = serde_json::to_string_pretty(&subscription).unwrap_or_default();
        format!(
            "By hand, in Artifactory: Administration > General > Webhooks > New Webhook\n\
             \x20 Name               crowsnest\n\
             \x20 URL                {url}\n\
             \x20 Events             Docker: tag was pushed, tag was deleted, tag was promoted\n\
             \x20 Repositories       {} (of a virtual key its members: it sends nothing itself)\n\
             \x20 Secret token       the value of CROWSNEST_{}\n\
             \x20 Use secret for payload signing   yes\n\
             \n\
             By REST, as an administrator; put the secret in place of THE_SECRET:\n\
             curl -u ADMIN -H 'Content-Type: application/json' \\\n\
             \x20 {platform}/event/api/v1/subscriptions -d @- <<'EOF'\n\
             {pretty}\n\
             EOF\n\
             \n\
             Artifactory refuses private addresses for webhooks until system.yaml of its event service allows \
             them:\nevent.webhooks.urlStrictPolicy: false (older versions), or \
             event.security.blacklist.enabled: false (newer ones).\n",
            self.sending_keys().join(", "),
            self.secret_variable(),
        )
    }
}

/// The path in the test deliveries of Artifactory, and in ours.
const SAMPLE_PATH: &str = "sample_dir/sample.txt";

impl Artifactory {
    /// The tag whose manifest stands at `path` of a repository, under each configured key that shows it; else why
    /// it is of no interest.
    fn changes(&self, key: &str, path: &str, is_delete: bool) -> Result<Vec<Change>, String> {
        let mut parts = path.rsplitn(3, '/');
        let (file, tag, image) = (parts.next(), parts.next(), parts.next());
        let (Some("manifest.json" | "list.manifest.json"), Some(tag), Some(image)) =
            (file, tag, image)
        else {
            return Err(format!("`{path}` is no manifest of a tag"));
        };
        if tag.starts_with("sha256:") || tag.starts_with("sha256__") {
            return Err(format!("`{path}` is a platform of an index; its tag tells"));
        }
        let tag: Tag = tag.parse().map_err(|err| format!("`{path}`: {err}"))?;
        let configured: Vec<&String> = self
            .keys
            .iter()
            .filter(|configured| self.shows(configured, key, 0))
            .collect();
        if configured.is_empty() {
            return Err(format!("repository key `{key}` is not watched"));
        }
        let mut changes = Vec::new();
        for configured in configured {
            if !self.takes(configured, image) || !self.filter.takes_tag(image, tag.as_str()) {
                continue;
            }
            let repository: Repository = format!("{configured}/{image}")
                .parse()
                .map_err(|err| format!("`{path}`: {err}"))?;
            changes.push(Change {
                repository,
                tag: Some(tag.clone()),
                digest: None,
                is_delete,
            });
        }
        if changes.is_empty() {
            return Err(format!("`{image}:{tag}` is filtered out"));
        }
        Ok(changes)
    }

    /// Whether what is stored under `key` is seen under the configured key, as far as is known.
    fn shows(&self, configured: &str, key: &str, depth: usize) -> bool {
        if configured == key || key.strip_suffix("-cache") == Some(configured) {
            return true;
        }
        match self.known_class(configured) {
            Some(Class::Virtual(members)) if depth < MAX_DEPTH => members
                .iter()
                .any(|member| self.shows(member, key, depth + 1)),
            // It may be a virtual one; whether the image is there, the registry will tell.
            None => depth == 0,
            _ => false,
        }
    }

    /// The keys that send webhooks for the configured ones, as far as is known.
    fn sending_keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for configured in &self.keys {
            match self.known_class(configured) {
                Some(Class::Virtual(members)) => keys.extend(members),
                _ => keys.push(configured.clone()),
            }
        }
        keys
    }
}
