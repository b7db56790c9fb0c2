//! Notifications of a plain registry: the envelope of the distribution project, version 1 and 2
//! (<https://distribution.github.io/distribution/about/notifications/>).
//!
//! They are not signed; the registry sends fixed headers, so the secret is the whole value of `Authorization`.
//! An event that is of no interest must not be refused: the registry would send it again for ever.

use serde::Deserialize;
use serde_json::Value;

use super::oci::{Oci, SECRET_VARIABLE};
use super::webhook::{Change, Delivery, Message, Webhook, is_secret};
use crate::image::{Digest, Repository, Tag};
use crate::limit;
use crate::secret::Secret;

#[derive(Deserialize)]
struct Event {
    action: String,
    #[serde(default)]
    target: Target,
}

#[derive(Default, Deserialize)]
struct Target {
    #[serde(default, rename = "mediaType")]
    media_type: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    repository: String,
    #[serde(default)]
    tag: String,
}

impl Webhook for Oci {
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
        (delivery.header)("Authorization").is_some_and(|given| is_secret(secret, given))
    }

    fn read(&self, body: &Value) -> Message {
        let Some(events) = body.get("events").and_then(Value::as_array) else {
            return Message::Foreign;
        };
        if events.len() > limit::WEBHOOK_EVENTS {
            return Message::Malformed(format!(
                "{} events are over the limit of {}",
                events.len(),
                limit::WEBHOOK_EVENTS
            ));
        }
        let (mut changes, mut reasons) = (Vec::new(), Vec::new());
        for event in events {
            // Not refused: the registry would send it again for ever.
            let Ok(event) = Event::deserialize(event) else {
                reasons.push("an event has another form".to_owned());
                continue;
            };
            if event.action == SAMPLE_ACTION {
                return Message::Test;
            }
            match self.change(&event) {
                Ok(change) => changes.push(change),
                Err(reason) => reasons.push(reason),
            }
        }
        Message::Changes(changes, reasons)
    }

    fn sample(&self) -> (Vec<(&'static str, String)>, String) {
        let body = serde_json::json!({"events": [{"action": SAMPLE_ACTION}]}).to_string();
        let media_type = "application/vnd.docker.distribution.events.v2+json";
        let mut headers = vec![("Content-Type", media_type.to_owned())];
        if let Some(secret) = &self.secret {
            headers.push(("Authorization", secret.reveal().to_owned()));
        }
        (headers, body)
    }

    fn setup(&self, url: &str) -> String {
        let secret = if self.secret.is_some() {
            format!(
                "      headers:\n        Authorization: [THE VALUE OF CROWSNEST_{}]\n",
                self.secret_variable()
            )
        } else {
            String::new()
        };
        format!(
            "In the configuration of the registry `{}` (config.yml of distribution):\n\
             notifications:\n\
             \x20 endpoints:\n\
             \x20   - name: crowsnest\n\
             \x20     url: {url}\n\
             {secret}\
             \x20     timeout: 5s\n\
             \x20     threshold: 5\n\
             \x20     backoff: 10s\n\
             \x20     ignoredmediatypes: [application/octet-stream]\n\
             \x20     ignore:\n\
             \x20       actions: [pull]\n",
            self.host
        )
    }
}

/// The action of our own test deliveries, which no registry sends.
const SAMPLE_ACTION: &str = "crowsnest-test";

impl Oci {
    /// What an event says; else why it is of no interest.
    fn change(&self, event: &Event) -> Result<Change, String> {
        let target = &event.target;
        let is_delete = match event.action.as_str() {
            "push" => false,
            "delete" => true,
            other => return Err(format!("action `{other}` changes no tag")),
        };
        let is_manifest = target.media_type.is_empty()
            || target.media_type.contains("manifest")
            || target.media_type.contains("image.index");
        if !is_manifest {
            return Err(format!("`{}` is no manifest", target.media_type));
        }
        let repository: Repository = target.repository.parse().map_err(|err| format!("{err}"))?;
        let name = repository.as_str();
        let is_watched = if self.repositories.is_empty() {
            self.filter
                .takes_name(&[name, &format!("{}/{name}", self.host)])
        } else {
            self.repositories.contains(&repository)
        };
        if !is_watched {
            return Err(format!("repository `{name}` is not watched"));
        }
        if !target.tag.is_empty() {
            let tag: Tag = target.tag.parse().map_err(|err| format!("{err}"))?;
            if !self.filter.takes_tag(name, tag.as_str()) {
                return Err(format!("`{name}:{tag}` is filtered out"));
            }
            return Ok(Change {
                repository,
                tag: Some(tag),
                digest: None,
                is_delete,
            });
        }
        if !is_delete {
            return Err("pushed without a tag".to_owned());
        }
        let digest = match target.digest.as_str() {
            "" => None,
            text => Some(text.parse::<Digest>().map_err(|err| format!("{err}"))?),
        };
        Ok(Change {
            repository,
            tag: None,
            digest,
            is_delete,
        })
    }
}
