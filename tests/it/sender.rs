//! A sender of webhooks: bodies as Artifactory writes them, signatures, and the sending.
//!
//! *Invariant:* it shares no code with `src/`.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) const SECRET: &str =
    "a-secret-of-64-characters-or-more-is-advised-and-here-is-one-of-70-xx";

/// Sends to one address, over connections that are kept.
pub(crate) struct Sender {
    agent: ureq::Agent,
    url: String,
}

impl Sender {
    pub(crate) fn to(address: &str) -> Sender {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Sender {
            agent,
            url: format!("http://{address}/hook"),
        }
    }

    /// Sends a signed event; returns the status.
    pub(crate) fn signed(&self, body: &Value) -> u16 {
        let body = body.to_string();
        self.send(
            &[("X-JFrog-Event-Auth", &sign(SECRET, body.as_bytes()))],
            body.as_bytes(),
        )
        .0
    }

    /// Returns the status, 0 when there was no answer, and the text of the answer.
    pub(crate) fn send(&self, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let mut request = self.agent.post(&self.url).content_type("application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send(body) {
            Ok(mut answer) => {
                let text = answer.body_mut().read_to_string().unwrap_or_default();
                (answer.status().as_u16(), text)
            }
            Err(_) => (0, String::new()),
        }
    }

    /// GET of another path: status and text.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let url = self.url.replace("/hook", path);
        match self.agent.get(&url).call() {
            Ok(mut answer) => {
                let text = answer.body_mut().read_to_string().unwrap_or_default();
                (answer.status().as_u16(), text)
            }
            Err(_) => (0, String::new()),
        }
    }
}

/// The lower-case hexadecimal HMAC-SHA256.
pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    let code = mac.finalize().into_bytes();
    code.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An event of domain `docker` about a tag.
pub(crate) fn event(kind: &str, key: &str, image: &str, tag: &str) -> Value {
    let last = image.rsplit('/').next().unwrap();
    json!({
        "domain": "docker", "event_type": kind,
        "data": {
            "repo_key": key, "path": format!("{image}/{tag}/manifest.json"), "name": "manifest.json",
            "sha256": "3b1f5d2a9c7e48f06b2d91a4e5c87f3d0a6b94e1c2f8735d4e9b60a1c7d2f583", "size": 1571,
            "image_name": last, "tag": tag, "platforms": [], "image_type": "docker",
        },
        "subscription_key": "crowsnest", "source": "jfrog/jfrt@01hv0p4x2m8q9r7t6w5y3z1a0b",
    })
}
