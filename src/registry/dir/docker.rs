//! `manifest.json` of `docker save` before Docker 25, of `skopeo copy … docker-archive:`, `podman save`, kaniko,
//! crane and Bazel (moby, image/tarexport): the images of an archive, for which manifests are made here.
//!
//! A made manifest is Docker's schema 2. A layer that is a plain tar has the digest that the configuration
//! says (`rootfs.diff_ids`), one that is compressed the digest that was taken while the archive was indexed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::contents::{Contents, NAMES};
use super::entries::{Entries, Item, Span};
use super::name;
use crate::error::{Context, Error, Kind, Result};
use crate::image::manifest::DOCKER_MANIFEST;
use crate::image::{Config, Digest, Repository};
use crate::layer::Packing;
use crate::limit;

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
const TAR_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const TAR_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    schema_version: u32,
    media_type: &'static str,
    config: Blob,
    layers: Vec<Blob>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: &'static str,
    size: u64,
    digest: String,
}

/// Where the blobs of the made manifests are.
pub(super) type Blobs = BTreeMap<Digest, Span>;

/// All `RepoTags` of a `manifest.json`; none when it cannot be read.
pub(super) fn repo_tags(bytes: &[u8]) -> Vec<String> {
    let saved: Vec<Saved> = serde_json::from_slice(bytes).unwrap_or_default();
    saved
        .into_iter()
        .filter_map(|saved| saved.repo_tags)
        .flatten()
        .collect()
}

/// Reads a `manifest.json`. `document` reads the content of an entry; `default` is the repository of images
/// without `RepoTags`. An image that cannot be read is left out with its reason.
/// Errors (`Skip`, `Limit`) when the document is malformed or names too many images.
pub(super) fn contents(
    bytes: &[u8],
    default: &Repository,
    entries: &Entries,
    document: &dyn Fn(&Item) -> Result<Vec<u8>>,
) -> Result<(Contents, Blobs)> {
    let saved: Vec<Saved> = serde_json::from_slice(bytes)
        .map_err(|err| Error::skip(format_args!("`manifest.json` is not of docker save: {err}")))?;
    if saved.len() > limit::INDEX_ENTRIES {
        return Err(Error::skip(format_args!(
            "`manifest.json` of {} images is over the limit of {}",
            saved.len(),
            limit::INDEX_ENTRIES
        )));
    }
    let n_names: usize = saved
        .iter()
        .flat_map(|image| &image.repo_tags)
        .map(Vec::len)
        .sum();
    if n_names as u64 > NAMES {
        return Err(Error::new(
            Kind::Limit,
            format_args!("more than {NAMES} image names, which is the limit"),
        ));
    }
    let is_alone = saved.len() == 1;
    let mut contents = Contents::default();
    let mut blobs = Blobs::new();
    for image in &saved {
        let made = match make(image, entries, document, &mut blobs) {
            Ok(made) => made,
            Err(err) if err.kind() == Kind::Retry => return Err(err),
            Err(err) => {
                let image = image
                    .repo_tags
                    .iter()
                    .flatten()
                    .next()
                    .unwrap_or(&image.config);
                contents.leave_out(&err.context(format_args!("image `{image}`")));
                continue;
            }
        };
        let digest = contents.make(made)?;
        let repo_tags = image.repo_tags.as_deref().unwrap_or_default();
        for text in repo_tags {
            match name::of_repo_tag(text) {
                Some((repository, tag)) => contents.add(repository, tag, digest.clone())?,
                None => {
                    contents.leave_out(&Error::skip(format_args!("`{text}` is not a reference")));
                }
            }
        }
        if repo_tags.is_empty() {
            let tag = name::of_nameless(&digest, is_alone)?;
            contents.add(default.clone(), tag, digest)?;
        }
    }
    Ok((contents, blobs))
}

/// The manifest of one image; notes where its blobs are.
fn make(
    image: &Saved,
    entries: &Entries,
    document: &dyn Fn(&Item) -> Result<Vec<u8>>,
    blobs: &mut Blobs,
) -> Result<Vec<u8>> {
    let find = |name: &str| {
        entries.file(name).ok_or_else(|| {
            Error::skip(format_args!(
                "`manifest.json` names `{name}`, which the archive does not have"
            ))
        })
    };
    let item = find(&image.config)?;
    let bytes = document(item)?;
    let config = Config::parse(&bytes).context(|| format!("reading `{}`", image.config))?;
    let names = image.layers.as_deref().unwrap_or_default();
    if names.len() != config.diff_ids.len() {
        return Err(Error::skip(format_args!(
            "`manifest.json` names {} layers, the configuration {}",
            names.len(),
            config.diff_ids.len()
        )));
    }
    let mut found = vec![(Digest::of(&bytes), item.span)];
    let mut layers = Vec::new();
    for (name, diff_id) in names.iter().zip(&config.diff_ids) {
        let item = find(name)?;
        let (media_type, digest) = match (item.packing, &item.digest) {
            (Packing::Other(packing), _) => {
                return Err(Error::skip(format_args!(
                    "layer `{name}`: unsupported compression: {packing}"
                )));
            }
            (Packing::Gzip, Some(digest)) => (TAR_GZIP, digest.clone()),
            (Packing::Zstd, Some(digest)) => (TAR_ZSTD, digest.clone()),
            // What lies in `blobs/` is named by its digest.
            (Packing::Gzip, None) => (TAR_GZIP, of_blob_name(name)?),
            (Packing::Zstd, None) => (TAR_ZSTD, of_blob_name(name)?),
            (Packing::Plain, _) => (TAR, diff_id.clone()),
        };
        layers.push(Blob {
            media_type,
            size: item.span.size,
            digest: digest.to_string(),
        });
        found.push((digest, item.span));
    }
    let config = Blob {
        media_type: CONFIG,
        size: bytes.len() as u64,
        digest: Digest::of(&bytes).to_string(),
    };
    let made = Made {
        schema_version: 2,
        media_type: DOCKER_MANIFEST,
        config,
        layers,
    };
    let made = serde_json::to_vec(&made)
        .map_err(|err| Error::skip(format_args!("making a manifest: {err}")))?;
    blobs.extend(found);
    Ok(made)
}

/// The digest in `blobs/sha256/<hex>`.
pub(super) fn of_blob_name(name: &str) -> Result<Digest> {
    let name = name.trim_start_matches("./");
    let rest = name.strip_prefix("blobs/").unwrap_or(name);
    rest.replacen('/', ":", 1).parse()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::image::Manifest;
    use crate::layer::tar::tests::{archive, header};

    fn config(diff_ids: &[&str]) -> String {
        let ids: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
        format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":[{}]}}}}"#,
            ids.join(",")
        )
    }

    fn read(bytes: &[u8], manifest: &str) -> Result<(Contents, Blobs)> {
        let entries = Entries::of_plain(Cursor::new(bytes), bytes.len() as u64).unwrap();
        let document = |item: &Item| {
            let from = usize::try_from(item.span.offset).unwrap();
            Ok(bytes[from..from + usize::try_from(item.span.size).unwrap()].to_vec())
        };
        contents(
            manifest.as_bytes(),
            &"file".parse().unwrap(),
            &entries,
            &document,
        )
    }

    const ID: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn plain_layers_have_their_diff_id_and_compressed_ones_their_own_digest() {
        let gzip = [&[0x1f, 0x8b][..], &[1; 400]].concat();
        let config = config(&[ID, ID]);
        let mut bytes = archive(&[
            ("c.json", config.as_bytes()),
            ("a/layer.tar", b"plain"),
            ("b.tar.gz", &gzip),
        ]);
        bytes.truncate(bytes.len() - 1024);
        bytes.extend(header(b"l/layer.tar", b'2', 0, b"../a/layer.tar"));
        let manifest =
            r#"[{"Config":"c.json","RepoTags":null,"Layers":["l/layer.tar","b.tar.gz"]}]"#;
        let (contents, blobs) = read(&bytes, manifest).unwrap();
        let [image] = &contents.images[..] else {
            panic!("{contents:?}")
        };
        assert_eq!(format!("{}:{}", image.repository, image.tag), "file:latest");
        let made = &contents.made[&image.digest];
        let Manifest::Image(made) = Manifest::parse(made, "").unwrap() else {
            panic!("an image")
        };
        assert_eq!(made.not_an_image(), None);
        assert_eq!(made.config.digest, Digest::of(config.as_bytes()));
        let layers: Vec<_> = made
            .layers
            .iter()
            .map(|layer| (layer.digest.as_str(), layer.size))
            .collect();
        assert_eq!(layers, [(ID, 5), (Digest::of(&gzip).as_str(), 402)]);
        assert_eq!(blobs.len(), 3);
    }

    #[test]
    fn images_that_cannot_be_read_are_left_out_and_the_others_are_not() {
        let whole = config(&[]);
        let one = config(&[ID]);
        let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 0];
        let bytes = archive(&[
            ("c.json", whole.as_bytes()),
            ("one.json", one.as_bytes()),
            ("text.json", b"text"),
            ("l.tar.xz", &xz),
        ]);
        let manifest = r#"[{"Config":"../../etc/passwd","RepoTags":["a:1"]},
            {"Config":"text.json","RepoTags":["b:1"]},
            {"Config":"one.json","RepoTags":["c:1"],"Layers":["x/layer.tar"]},
            {"Config":"one.json","RepoTags":["d:1"],"Layers":[]},
            {"Config":"one.json","RepoTags":["e:1"],"Layers":["l.tar.xz"]},
            {"Config":"c.json","RepoTags":["f:1","f:a b"]}]"#;
        let (contents, _) = read(&bytes, manifest).unwrap();
        assert_eq!(contents.images.len(), 1);
        assert_eq!(contents.images[0].repository.as_str(), "f");
        let not_json = "image `b:1`: reading `text.json`: not an image configuration: expected ident at line 1 column 2";
        assert_eq!(
            contents.left_out,
            [
                "image `a:1`: `manifest.json` names `../../etc/passwd`, which the archive does not have",
                not_json,
                "image `c:1`: `manifest.json` names `x/layer.tar`, which the archive does not have",
                "image `d:1`: `manifest.json` names 0 layers, the configuration 1",
                "image `e:1`: layer `l.tar.xz`: unsupported compression: xz",
                "`f:a b` is not a reference",
            ]
        );
        let err = read(&bytes, "{").unwrap_err().to_string();
        assert!(
            err.starts_with("`manifest.json` is not of docker save:"),
            "{err}"
        );
    }
}
