//! The plain registry behind the emulator, as a client: where pushed bytes go and where pulled
//! ones come from.
//!
//! Source: OCI distribution specification; `docker-registry` 2.8.2. Bodies stream. Errors are
//! `String`s that say what was asked; the caller answers 502 or 404 with them. *Invariant:* no
//! credentials are sent; the upstream is anonymous.

use std::io::{self, Read};

use sha2::Digest as _;
use ureq::SendBody;
use ureq::http;

use super::message::Response;
use super::storage::{Content, Location};

/// Every manifest type, for requests that want the bytes as stored.
pub(crate) const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Largest manifest and image configuration taken into memory, in bytes.
pub(crate) const MANIFEST_BYTES: u64 = 32 * 1024 * 1024;

type Answer = http::Response<ureq::Body>;

/// A registry at a base URL such as `http://127.0.0.1:5000`.
pub(crate) struct Upstream {
    url: String,
    agent: ureq::Agent,
}

impl Upstream {
    pub(crate) fn new(url: &str) -> Upstream {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .build();
        Upstream {
            url: url.trim_end_matches('/').to_owned(),
            agent: config.into(),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A manifest's media type and bytes; `Err` is the answer's status and what was wrong.
    pub(crate) fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<(String, Vec<u8>), (u16, String)> {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url);
        let answer = self.agent.get(&url).header("Accept", MANIFEST_TYPES).call();
        let answer = expect(answer, 200, "manifest").map_err(|text| (404, text))?;
        let media_type = text_header(&answer, "content-type");
        let mut bytes = Vec::new();
        let mut reader = answer.into_body().into_reader().take(MANIFEST_BYTES);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| (502, error.to_string()))?;
        Ok((media_type, bytes))
    }

    /// A blob's bytes from `start` on.
    pub(crate) fn blob(
        &self,
        repository: &str,
        sha256: &str,
        start: u64,
    ) -> Result<Box<dyn Read + Send>, String> {
        let url = format!("{}/v2/{repository}/blobs/sha256:{sha256}", self.url);
        let request = self.agent.get(&url);
        let (request, status) = match start {
            0 => (request, 200),
            _ => (request.header("Range", format!("bytes={start}-")), 206),
        };
        let answer = expect(request.call(), status, "blob")?;
        Ok(Box::new(answer.into_body().into_reader()))
    }

    /// Tag names, in the upstream's order.
    pub(crate) fn tags(&self, repository: &str) -> Result<Vec<String>, String> {
        let url = format!("{}/v2/{repository}/tags/list", self.url);
        let answer = expect(self.agent.get(&url).call(), 200, "tags")?;
        let list: serde_json::Value =
            serde_json::from_reader(answer.into_body().into_reader()).map_err(|e| e.to_string())?;
        let tags = list["tags"].as_array().into_iter().flatten();
        Ok(tags
            .filter_map(|tag| Some(tag.as_str()?.to_owned()))
            .collect())
    }

    /// Repository names, at most 1000.
    pub(crate) fn catalog(&self) -> Result<Vec<String>, String> {
        let url = format!("{}/v2/_catalog?n=1000", self.url);
        let answer = expect(self.agent.get(&url).call(), 200, "catalog")?;
        let list: serde_json::Value =
            serde_json::from_reader(answer.into_body().into_reader()).map_err(|e| e.to_string())?;
        let names = list["repositories"].as_array().into_iter().flatten();
        Ok(names
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect())
    }

    /// Starts an upload; returns its URL.
    pub(crate) fn start_upload(&self, repository: &str) -> Result<String, String> {
        let url = format!("{}/v2/{repository}/blobs/uploads/", self.url);
        let answer = expect(self.agent.post(&url).send_empty(), 202, "upload")?;
        Ok(self.location(&answer))
    }

    /// Sends a piece of an upload; returns the URL for the next one.
    pub(crate) fn append(&self, location: &str, bytes: &mut dyn Read) -> Result<String, String> {
        let mut bytes = bytes;
        let request = self
            .agent
            .patch(location)
            .header("Content-Type", "application/octet-stream");
        let answer = request.send(SendBody::from_reader(&mut bytes));
        let answer = expect(answer, 202, "upload piece")?;
        Ok(self.location(&answer))
    }

    /// Ends an upload; an error when the bytes do not have that digest.
    pub(crate) fn finish(&self, location: &str, digest: &str) -> Result<(), String> {
        let mark = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{mark}digest={digest}");
        expect(self.agent.put(&url).send_empty(), 201, "upload end").map(drop)
    }

    /// Makes a blob of one repository available in another.
    pub(crate) fn mount(&self, from: &str, to: &str, digest: &str) -> Result<(), String> {
        let url = format!(
            "{}/v2/{to}/blobs/uploads/?mount={digest}&from={from}",
            self.url
        );
        expect(self.agent.post(&url).send_empty(), 201, "mount").map(drop)
    }

    /// Stores a manifest; `Err` is the upstream's own answer, to be passed on.
    pub(crate) fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), Response> {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url);
        let request = self.agent.put(&url).header("Content-Type", media_type);
        match request.send(bytes) {
            Ok(answer) if answer.status() == 201 => Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let mut body = Vec::new();
                let _ = answer.into_body().into_reader().read_to_end(&mut body);
                Err(Response::new(status).body("application/json", body))
            }
            Err(error) => Err(Response::status_error(502, &error.to_string())),
        }
    }

    /// The absolute form of an answer's `Location`.
    fn location(&self, answer: &Answer) -> String {
        let location = text_header(answer, "location");
        if location.starts_with('/') {
            format!("{}{location}", self.url)
        } else {
            location
        }
    }
}

fn text_header(answer: &Answer, name: &str) -> String {
    let value = answer.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
        .to_owned()
}

fn expect(answer: Result<Answer, ureq::Error>, status: u16, what: &str) -> Result<Answer, String> {
    match answer {
        Ok(answer) if answer.status() == status => Ok(answer),
        Ok(answer) => Err(format!("upstream {what}: status {}", answer.status())),
        Err(error) => Err(format!("upstream {what}: {error}")),
    }
}

/// The three digests of bytes that pass by, and their number.
#[derive(Clone, Default)]
pub(crate) struct Hashes {
    sha256: sha2::Sha256,
    sha1: sha1::Sha1,
    md5: md5::Md5,
    size: u64,
}

impl Hashes {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.sha1.update(bytes);
        self.md5.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn finish(self, location: Location) -> Content {
        Content {
            sha256: hex(&self.sha256.finalize()),
            sha1: hex(&self.sha1.finalize()),
            md5: hex(&self.md5.finalize()),
            size: self.size,
            location,
        }
    }
}

/// The content of bytes held in memory.
pub(crate) fn content_of(bytes: &[u8]) -> Content {
    let mut hashes = Hashes::default();
    hashes.update(bytes);
    hashes.finish(Location::Memory(bytes.to_vec()))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Hashes what is read through it.
pub(crate) struct HashingReader<'a> {
    pub(crate) inner: &'a mut dyn Read,
    pub(crate) hashes: &'a mut Hashes,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hashes.update(&buffer[..read]);
        Ok(read)
    }
}
