//! What the emulator says on the wire, one table or case for each behaviour that no other client
//! shows. Here: sending a request; in the files: access, registry protocol and files, AQL,
//! faults, webhooks.

mod access;
mod aql;
mod faults;
mod registry;
mod subscriptions;
mod webhook_artifacts;
mod webhook_events;
mod webhooks;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use ureq::http;

use crate::emulator::{Config, Emulator};

/// An answer with its body read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends a request without following redirects; `headers` are name and value.
pub(crate) fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .accept("")
        .proxy(None)
        .build();
    let agent: ureq::Agent = config.into();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_owned()).expect("a request");
    let answer = agent
        .run(request)
        .unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let (head, mut answer) = answer.into_parts();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: answer.read_to_string().unwrap_or_default(),
    }
}

pub(crate) const BASIC: (&str, &str) = ("Authorization", "Basic YWRtaW46cGFzc3dvcmQ=");
pub(crate) const ACCEPT: (&str, &str) = ("Accept", "*/*");
pub(crate) const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},"layers":[]}"#;
pub(crate) const BLOB: &str =
    "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// An emulator with the image `app:1` whose configuration is the blob `hello`.
pub(crate) fn seeded() -> Emulator {
    let emulator = Emulator::start(Config::default());
    assert_eq!(emulator.seed_blob(b"hello"), BLOB);
    emulator.seed("docker-local", "app", "1", MANIFEST);
    emulator
}

pub(crate) fn get(emulator: &Emulator, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[BASIC], headers].concat();
    send(
        "GET",
        &format!("http://{}{path}", emulator.host()),
        &headers,
        "",
    )
}

pub(crate) fn aql(emulator: &Emulator, query: &str) -> Answer {
    let url = format!("{}/api/search/aql", emulator.base_url());
    send(
        "POST",
        &url,
        &[BASIC, ("Content-Type", "text/plain")],
        query,
    )
}

/// Sends a bare request and returns everything until the server closes the connection.
pub(crate) fn raw(emulator: &Emulator, path: &str) -> String {
    let mut stream = TcpStream::connect(emulator.host()).expect("the emulator listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}: {}\r\n\r\n",
        BASIC.0, BASIC.1
    );
    stream.write_all(request.as_bytes()).expect("sending");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}
