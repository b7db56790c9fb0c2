//! One folder of blobs: an OCI image layout (OCI image-spec, image-layout.md), or what `skopeo copy … dir:` writes
//! (containers-transports(5)): `manifest.json`, blobs named by their hex digits, `<hex>.manifest.json` for the
//! manifests of an index.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::contents::Contents;
use super::{file, index, name};
use crate::error::{Error, Result};
use crate::image::{Digest, Repository};
use crate::limit;

/// How the file `version` of a `dir:` folder begins.
const SKOPEO_VERSION: &[u8] = b"Directory Transport Version";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Oci,
    /// The `dir:` transport.
    Skopeo,
}

impl Form {
    /// What `folder` is, by the names in it; `None` when it is neither.
    pub(super) fn of(folder: &Path) -> Option<Form> {
        let has = |name: &str| folder.join(name).is_file();
        match () {
            () if has("oci-layout") && has("index.json") => Some(Form::Oci),
            () if has("manifest.json") && is_skopeo_version(&folder.join("version")) => {
                Some(Form::Skopeo)
            }
            () => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Layout {
    /// Canonical; links may lead anywhere below it.
    within: PathBuf,
    folder: PathBuf,
    form: Form,
    pub(super) contents: Contents,
}

impl Layout {
    /// Reads the document that names the images. Errors: `Skip` when it is malformed, `Limit` when it is too
    /// large, else as [`file::open`].
    pub(super) fn open(
        within: &Path,
        folder: &Path,
        form: Form,
        default: &Repository,
    ) -> Result<Self> {
        let read =
            |name: &str, what| file::read(within, &folder.join(name), limit::MANIFEST_BYTES, what);
        let contents = match form {
            Form::Oci => index::contents(&read("index.json", "`index.json`")?, default, &[])?,
            Form::Skopeo => {
                let mut contents = Contents::default();
                let bytes = read("manifest.json", "manifest")?;
                let digest = Digest::of(&bytes);
                contents.add(default.clone(), name::of_nameless(&digest, true)?, digest)?;
                contents
            }
        };
        Ok(Layout {
            within: within.to_owned(),
            folder: folder.to_owned(),
            form,
            contents,
        })
    }

    /// A manifest or index; `None` when there is no such file.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.contents.made.get(digest) {
            return Ok(Some(bytes.clone()));
        }
        let path = match self.form {
            Form::Oci => self.blob_path(digest),
            Form::Skopeo
                if self
                    .contents
                    .images
                    .iter()
                    .any(|image| image.digest == *digest) =>
            {
                self.folder.join("manifest.json")
            }
            Form::Skopeo => self.folder.join(format!("{}.manifest.json", digest.hex())),
        };
        if !exists(&path)? {
            return Ok(None);
        }
        file::read(&self.within, &path, limit::MANIFEST_BYTES, "manifest").map(Some)
    }

    /// A blob; `None` when there is no such file. Errors (`Retry`) when it has another size than `size`: it may be
    /// on its way.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Option<Box<dyn Read + Send>>> {
        let path = self.blob_path(digest);
        if !exists(&path)? {
            return Ok(None);
        }
        let (file, stamp) = file::open(&self.within, &path)?;
        if stamp.size != size {
            return Err(Error::retry(format_args!(
                "`{}` has {} bytes, its manifest says {size}",
                path.display(),
                stamp.size
            )));
        }
        Ok(Some(Box::new(file)))
    }

    /// A [`Digest`] is well formed, so that no other name can come of it.
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        match self.form {
            Form::Oci => self
                .folder
                .join("blobs")
                .join(digest.algorithm())
                .join(digest.hex()),
            Form::Skopeo => self.folder.join(digest.hex()),
        }
    }
}

fn is_skopeo_version(path: &Path) -> bool {
    let n_bytes = SKOPEO_VERSION.len() as u64;
    let read = |file: File| limit::read_all(file.take(n_bytes), n_bytes, "version");
    path.is_file()
        && File::open(path).is_ok_and(|file| read(file).is_ok_and(|head| head == SKOPEO_VERSION))
}

fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(file::trouble(path, &err)),
    }
}
