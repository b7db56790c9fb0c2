//! A plain registry as a client: layers streamed into it, manifests, and what an image consists of.
//!
//! A layer is never held as a whole: it is written, compressed, digested and sent at once, the two digests
//! being known at its end, as the upload of the distribution-spec wants it.

use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ureq::SendBody;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What an image may be stored as.
const IMAGES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Tar,
    Gzip,
    Zstd,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Form::Tar => "application/vnd.oci.image.layer.v1.tar",
            Form::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Form::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn of(media_type: &str) -> Form {
        if media_type.ends_with("gzip") {
            Form::Gzip
        } else if media_type.ends_with("zstd") {
            Form::Zstd
        } else {
            Form::Tar
        }
    }
}

/// A layer in a registry.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) form: Form,
    /// Digest of the tar; empty when it was not asked for.
    pub(crate) diff_id: String,
}

/// Takes a tar, and tells how much of the layer's final bytes are out.
pub(crate) struct Sink<'a> {
    inner: &'a mut dyn Write,
    n_out: &'a AtomicU64,
}

impl Sink<'_> {
    /// Compressed bytes so far.
    pub(crate) fn n_out(&self) -> u64 {
        self.n_out.load(Ordering::Relaxed)
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.inner.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a layer through its compression into `out`. Returns digest, compressed bytes and digest of the tar.
pub(crate) fn pack(
    form: Form,
    out: impl Write,
    fill: impl FnOnce(&mut Sink<'_>) -> io::Result<()>,
) -> io::Result<Layer> {
    let n_out = Arc::new(AtomicU64::new(0));
    let mut blob = Hashing {
        inner: out,
        hasher: Sha256::new(),
        n_out: Arc::clone(&n_out),
    };
    let fill_tar = |tar: &mut dyn Write| {
        let mut tar = Hashing {
            inner: tar,
            hasher: Sha256::new(),
            n_out: Arc::default(),
        };
        fill(&mut Sink {
            inner: &mut tar,
            n_out: &n_out,
        })?;
        // The end of a tar: two blocks of zeros.
        tar.write_all(&[0; 1024])?;
        Ok::<String, io::Error>(named(tar.hasher))
    };
    let diff_id = match form {
        Form::Tar => fill_tar(&mut blob)?,
        Form::Gzip => {
            let level = flate2::Compression::new(6);
            let mut encoder = flate2::write::GzEncoder::new(&mut blob, level);
            let diff_id = fill_tar(&mut encoder)?;
            encoder.finish()?;
            diff_id
        }
        Form::Zstd => {
            let mut encoder = zstd::Encoder::new(&mut blob, 3)?;
            let diff_id = fill_tar(&mut encoder)?;
            encoder.finish()?;
            diff_id
        }
    };
    blob.flush()?;
    Ok(Layer {
        digest: named(blob.hasher),
        size: n_out.load(Ordering::Relaxed),
        form,
        diff_id,
    })
}

/// The manifest of an image of those layers and its configuration, as bytes. `marker` makes images of the same
/// layers differ.
pub(crate) fn documents(layers: &[Layer], marker: &str) -> (Vec<u8>, Vec<u8>) {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": { "Labels": { "crowsnest.bench": marker } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes();
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            json!({ "mediaType": layer.form.media_type(), "digest": layer.digest, "size": layer.size })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": digest_of(&config), "size": config.len() },
        "layers": layers,
    });
    (manifest.to_string().into_bytes(), config)
}

/// A registry on plain HTTP. Panics on everything that it refuses: there is nothing to measure then.
pub(crate) struct Client {
    host: String,
    agent: ureq::Agent,
}

impl Client {
    /// `host` with its port.
    pub(crate) fn new(host: &str) -> Client {
        let config = ureq::Agent::config_builder().proxy(None).build();
        Client {
            host: host.to_owned(),
            agent: config.into(),
        }
    }

    pub(crate) fn blob_url(&self, repository: &str, digest: &str) -> String {
        format!("http://{}/v2/{repository}/blobs/{digest}", self.host)
    }

    /// The layers of an image, bottom first. Panics when it is an index.
    pub(crate) fn layers(&self, repository: &str, tag: &str) -> Vec<Layer> {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        let mut answer = self
            .agent
            .get(&url)
            .header("Accept", IMAGES)
            .call()
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        let layers = manifest["layers"]
            .as_array()
            .unwrap_or_else(|| panic!("{url} is not an image"));
        let layer = |entry: &Value| Layer {
            digest: entry["digest"].as_str().unwrap().to_owned(),
            size: entry["size"].as_u64().unwrap(),
            form: Form::of(entry["mediaType"].as_str().unwrap_or("")),
            diff_id: String::new(),
        };
        layers.iter().map(layer).collect()
    }

    /// Reads a blob and throws it away, so that it lies in the page cache.
    pub(crate) fn warm(&self, repository: &str, digest: &str) {
        let answer = self.agent.get(self.blob_url(repository, digest)).call();
        io::copy(
            &mut answer.unwrap().into_body().into_reader(),
            &mut io::sink(),
        )
        .unwrap();
    }

    /// Stores a layer while `fill` writes its tar.
    pub(crate) fn push_layer(
        &self,
        repository: &str,
        form: Form,
        fill: impl FnOnce(&mut Sink<'_>) -> io::Result<()> + Send,
    ) -> Layer {
        let (reader, writer) = io::pipe().unwrap();
        std::thread::scope(|scope| {
            let packing =
                scope.spawn(|| pack(form, BufWriter::with_capacity(64 << 10, writer), fill));
            let location = self.append(repository, reader);
            let layer = packing.join().unwrap().unwrap();
            self.finish(&location, &layer.digest);
            layer
        })
    }

    /// Stores an image of those layers under a tag.
    pub(crate) fn push_image(&self, repository: &str, tag: &str, layers: &[Layer]) {
        let (manifest, config) = documents(layers, &format!("{repository}:{tag}"));
        let location = self.append(repository, io::Cursor::new(config.clone()));
        self.finish(&location, &digest_of(&config));
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        self.agent
            .put(&url)
            .header("Content-Type", MANIFEST)
            .send(&manifest[..])
            .unwrap();
    }

    /// Begins an upload and sends all of it; returns where to end it.
    fn append(&self, repository: &str, mut bytes: impl Read) -> String {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.host);
        let answer = self.agent.post(&url).send_empty().unwrap();
        let request = self
            .agent
            .patch(self.location(&answer))
            .header("Content-Type", "application/octet-stream");
        let answer = request.send(SendBody::from_reader(&mut bytes)).unwrap();
        self.location(&answer)
    }

    fn finish(&self, location: &str, digest: &str) {
        let mark = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{mark}digest={digest}");
        self.agent.put(&url).send_empty().unwrap();
    }

    fn location(&self, answer: &ureq::http::Response<ureq::Body>) -> String {
        let location = answer.headers()["location"].to_str().unwrap();
        if location.starts_with('/') {
            format!("http://{}{location}", self.host)
        } else {
            location.to_owned()
        }
    }
}

/// Digests and counts what passes.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    n_out: Arc<AtomicU64>,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.n_out.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn named(hasher: Sha256) -> String {
    let hex = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("sha256:{hex}")
}

fn digest_of(bytes: &[u8]) -> String {
    named(Sha256::new_with_prefix(bytes))
}
