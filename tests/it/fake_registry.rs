//! A registry of a test's own making: it holds images in memory, serves them as the distribution-spec says,
//! and lets a test answer any request otherwise. And a [`Recorder`], the host that must not learn anything.
//!
//! In: [`Layer`]s, manifests as bytes, a hook. Out: HTTP on 127.0.0.1, and a log of what came in.
//! *Invariant:* nothing is checked here: digests may be wrong, sizes may lie, bodies may never end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::emulator::message::{Payload, Request, Response};
use crate::emulator::server::{Listener, lock};
use crate::emulator::{Door, Logged};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Answers a request, or leaves it to the registry.
pub(crate) type Hook = dyn Fn(&mut Request) -> Option<Response> + Send + Sync;
/// Makes the bytes of a blob anew for every request.
pub(crate) type Make = dyn Fn() -> Box<dyn Read + Send> + Send + Sync;

/// A running registry; stops when dropped.
pub(crate) struct FakeRegistry {
    listener: Listener,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    content: RwLock<Content>,
    hook: RwLock<Option<Box<Hook>>>,
    log: Mutex<Vec<Logged>>,
}

#[derive(Default)]
struct Content {
    tags: BTreeMap<String, BTreeSet<String>>,
    /// By digest, and by `repository:tag`.
    manifests: HashMap<String, (String, Arc<[u8]>)>,
    blobs: HashMap<String, Blob>,
}

#[derive(Clone)]
struct Blob {
    make: Arc<Make>,
    size: u64,
}

/// A layer as a manifest and a configuration speak of it, with its bytes.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) diff_id: String,
    blob: Blob,
}

impl Layer {
    /// A tar as it is.
    pub(crate) fn plain(tar: &[u8]) -> Layer {
        Layer::stored("application/vnd.oci.image.layer.v1.tar", tar.to_vec(), tar)
    }

    pub(crate) fn gzip(tar: &[u8]) -> Layer {
        Layer::stored(GZIP, gzip(tar), tar)
    }

    /// A blob with the tar it is said to hold.
    pub(crate) fn stored(media_type: &str, blob: Vec<u8>, tar: &[u8]) -> Layer {
        let blob: Arc<[u8]> = blob.into();
        let (digest, size) = (digest(&blob), blob.len() as u64);
        Layer {
            media_type: media_type.to_owned(),
            digest,
            size,
            diff_id: self::digest(tar),
            blob: Blob {
                make: Arc::new(move || Box::new(Cursor::new(blob.clone()))),
                size,
            },
        }
    }

    /// Bytes made while they are read, under a digest that nobody can check in time.
    pub(crate) fn made(
        seed: &str,
        size: u64,
        make: impl Fn() -> Box<dyn Read + Send> + Send + Sync + 'static,
    ) -> Layer {
        Layer {
            media_type: GZIP.to_owned(),
            digest: digest(seed.as_bytes()),
            size,
            diff_id: digest(format!("tar of {seed}").as_bytes()),
            blob: Blob {
                make: Arc::new(make),
                size,
            },
        }
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

impl FakeRegistry {
    pub(crate) fn start() -> FakeRegistry {
        let shared = Arc::new(Shared::default());
        let handler = {
            let shared = shared.clone();
            Arc::new(move |request: &mut Request<'_>| shared.answer(request))
        };
        let listener =
            Listener::start("127.0.0.1:0", Door::Main, handler).expect("a loopback port is free");
        FakeRegistry { listener, shared }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.listener.address().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    /// Lets `hook` answer first.
    pub(crate) fn hook(
        &self,
        hook: impl Fn(&mut Request<'_>) -> Option<Response> + Send + Sync + 'static,
    ) {
        *self.shared.hook.write().expect("no test panicked here") = Some(Box::new(hook));
    }

    pub(crate) fn requests(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }

    /// How many requests had that method and a target containing `text`.
    pub(crate) fn count(&self, method: &str, text: &str) -> usize {
        let log = lock(&self.shared.log);
        log.iter()
            .filter(|seen| seen.method == method && seen.target.contains(text))
            .count()
    }

    /// Holds a blob; returns its descriptor.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let layer = Layer::stored(media_type, bytes.to_vec(), b"");
        self.hold(&layer);
        layer.descriptor()
    }

    pub(crate) fn hold(&self, layer: &Layer) {
        let mut content = self.shared.content.write().expect("no test panicked here");
        content
            .blobs
            .insert(layer.digest.clone(), layer.blob.clone());
    }

    /// Holds a manifest or index under its digest; returns its descriptor.
    pub(crate) fn manifest(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let mut content = self.shared.content.write().expect("no test panicked here");
        content
            .manifests
            .insert(digest.clone(), (media_type.to_owned(), bytes.into()));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// The same, and points a tag to it.
    pub(crate) fn tag(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> String {
        let digest = text(&self.manifest(media_type, bytes)["digest"]);
        let mut content = self.shared.content.write().expect("no test panicked here");
        let held = (media_type.to_owned(), bytes.into());
        content
            .manifests
            .insert(format!("{repository}:{tag}"), held);
        content
            .tags
            .entry(repository.to_owned())
            .or_default()
            .insert(tag.to_owned());
        digest
    }

    /// Takes a tag away.
    pub(crate) fn forget(&self, repository: &str, tag: &str) {
        let mut content = self.shared.content.write().expect("no test panicked here");
        content.manifests.remove(&format!("{repository}:{tag}"));
        if let Some(tags) = content.tags.get_mut(repository) {
            tags.remove(tag);
        }
    }

    /// Holds the layers and a configuration that fits them; returns the manifest's bytes.
    pub(crate) fn image_of(&self, layers: &[Layer]) -> Vec<u8> {
        layers.iter().for_each(|layer| self.hold(layer));
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layers: Vec<Value> = layers.iter().map(Layer::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        });
        manifest.to_string().into_bytes()
    }

    /// An image of those layers under a tag; returns its digest.
    pub(crate) fn image(&self, repository: &str, tag: &str, layers: &[Layer]) -> String {
        let bytes = self.image_of(layers);
        self.tag(repository, tag, OCI_MANIFEST, &bytes)
    }
}

impl Shared {
    fn answer(&self, request: &mut Request<'_>) -> Response {
        lock(&self.log).push(Logged {
            door: request.door.clone(),
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body: None,
        });
        let hook = self.hook.read().expect("no test panicked here");
        let answered = hook.as_ref().and_then(|hook| hook(request));
        drop(hook);
        answered.unwrap_or_else(|| self.serve(request))
    }

    fn serve(&self, request: &Request<'_>) -> Response {
        let content = self.content.read().expect("no test panicked here");
        let path = request.path.trim_start_matches("/v2/");
        if path == "_catalog" {
            let names: Vec<&String> = content.tags.keys().collect();
            return Response::json(200, &json!({"repositories": names}));
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return match content.tags.get(repository) {
                Some(tags) => Response::json(200, &json!({"name": repository, "tags": tags})),
                None => unknown("NAME_UNKNOWN"),
            };
        }
        if let Some((repository, reference)) = path.split_once("/manifests/") {
            let held = content
                .manifests
                .get(reference)
                .or_else(|| content.manifests.get(&format!("{repository}:{reference}")));
            let Some((media_type, bytes)) = held else {
                return unknown("MANIFEST_UNKNOWN");
            };
            return Response::new(200)
                .header("Docker-Content-Digest", digest(bytes))
                .body(media_type, bytes.to_vec());
        }
        let Some((_, blob)) = path.split_once("/blobs/") else {
            return Response::json(200, &json!({}));
        };
        match content.blobs.get(blob) {
            Some(blob) => send_blob(blob, request),
            None => unknown("BLOB_UNKNOWN"),
        }
    }
}

fn send_blob(blob: &Blob, request: &Request<'_>) -> Response {
    let from = request.header("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<u64>()
            .ok()
    });
    let mut reader = (blob.make)();
    let (status, skipped) = match from {
        Some(from) if from < blob.size => {
            let skipped = std::io::copy(&mut (&mut reader).take(from), &mut std::io::sink());
            (206, skipped.expect("made bytes do not fail"))
        }
        _ => (200, 0),
    };
    let response = Response::new(status).payload(Payload::Stream {
        reader,
        length: blob.size - skipped,
    });
    if status == 206 {
        let range = format!("bytes {skipped}-{}/{}", blob.size - 1, blob.size);
        response.header("Content-Range", range)
    } else {
        response
    }
}

fn unknown(code: &str) -> Response {
    Response::registry_error(404, code, "not known to this registry", json!(null))
}

/// A host that is not the registry: writes down the bytes that it is sent, and answers the same to everyone.
pub(crate) struct Recorder {
    address: std::net::SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    stopped: Arc<std::sync::atomic::AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Recorder {
    /// `answer` is a whole HTTP message.
    pub(crate) fn start(answer: &str) -> Recorder {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = socket.local_addr().expect("a bound socket has an address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let accepting = std::thread::spawn({
            let (heard, stopped, answer) = (heard.clone(), stopped.clone(), answer.to_owned());
            move || {
                for stream in socket.incoming() {
                    if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                        return;
                    }
                    if let Ok(stream) = stream {
                        listen(stream, &heard, &answer);
                    }
                }
            }
        });
        Recorder {
            address,
            heard,
            stopped,
            accepting: Some(accepting),
        }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Everything that was sent here, as text.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&lock(&self.heard)).into_owned()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopped
            .store(true, std::sync::atomic::Ordering::SeqCst);
        // The accepting thread wakes up for this connection and sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

/// Hears one request, whatever it is: HTTP to the end of its head, or the first bytes of TLS.
fn listen(mut stream: TcpStream, heard: &Mutex<Vec<u8>>, answer: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
        if bytes.windows(4).any(|end| end == b"\r\n\r\n") || bytes[0] == 0x16 {
            break;
        }
    }
    lock(heard).extend_from_slice(&bytes);
    let _ = stream.write_all(answer.as_bytes());
}

/// `sha256:` and the digest of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// A header block of tar (ustar). A name over 100 bytes is cut.
pub(crate) fn tar_header(name: &str, type_flag: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    let name = &name.as_bytes()[..name.len().min(100)];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[156] = type_flag;
    block[257..263].copy_from_slice(b"ustar\0");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A file's header, content and padding.
pub(crate) fn tar_file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut entry = tar_header(name, b'0', bytes.len() as u64);
    entry.extend_from_slice(bytes);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// A pax header for the entry behind it.
pub(crate) fn tar_pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while format!("{length}{rest}").len() != length {
        length = format!("{length}{rest}").len();
    }
    let mut entry = tar_file("pax", format!("{length}{rest}").as_bytes());
    entry[..512].copy_from_slice(&tar_header("pax", b'x', length as u64));
    entry
}

/// Entries with the end of an archive behind them.
pub(crate) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// The tar of a layer in which dpkg knows one package.
pub(crate) fn dpkg_tar(package: &str) -> Vec<u8> {
    let status = format!(
        "Package: {package}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n\n"
    );
    tar(&[
        tar_file("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"),
        tar_file("var/lib/dpkg/status", status.as_bytes()),
    ])
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
