//! Real images and what each must show: those of `tests/tools/real-images.sh`, built once and pushed once into
//! the storage of a plain registry, of which every test starts one of its own.
//!
//! `CROWSNEST_REAL_IMAGES` names a folder that the script has filled already.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stored::{Row, Stored};

/// A finished set of images.
pub(crate) struct RealImages {
    pub(crate) images: Vec<Image>,
    /// A registry's storage that holds every image below `docker-local/` and below `hub/`.
    pub(crate) storage: PathBuf,
    folder: PathBuf,
}

/// One tag.
pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) platforms: Vec<String>,
    /// Where skopeo finds it, below the folder.
    source: String,
}

/// The images; builds them when they are not there, which takes minutes and needs root.
pub(crate) fn real_images() -> RealImages {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Tests of this process and of others build once: whoever comes second waits here.
    let lock = File::create(target.join("real-images.lock")).expect("the target folder is ours");
    lock.lock().expect("a lock file can be locked");
    let folder = match std::env::var_os("CROWSNEST_REAL_IMAGES") {
        Some(folder) => PathBuf::from(folder),
        None => target.join("real-images"),
    };
    if !folder.join("images.tsv").exists() {
        build(&folder);
    }
    let images = images(&folder);
    // Of these very images: another folder, or the same one built again, has other packages.
    let written = fs::metadata(folder.join("images.tsv")).and_then(|file| file.modified());
    let identity = format!(
        "{} {:?}",
        folder.display(),
        written.expect("the file has a time")
    );
    let identity = &crate::fake_registry::digest(identity.as_bytes())[7..19];
    let storage = target.join(format!("real-images-storage-{identity}"));
    // Pushed under another name, so that a push that was broken off is never taken for a whole one.
    if !storage.exists() {
        let unfinished = target.join("real-images-storage.part");
        remove_storages(target);
        push(&folder, &images, &unfinished);
        fs::rename(&unfinished, &storage).expect("a folder can be renamed");
    }
    RealImages {
        images,
        storage,
        folder,
    }
}

/// Removes what earlier runs pushed.
fn remove_storages(target: &Path) {
    let entries = fs::read_dir(target).expect("the target folder is ours");
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("real-images-storage")
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn build(folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/real-images.sh");
    let output = Command::new(&script)
        .arg(folder)
        .output()
        .unwrap_or_else(|error| panic!("running `{}`: {error}", script.display()));
    assert!(
        output.status.success(),
        "`{}` failed; it needs root, and once the argument --deps (apt): {}\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn images(folder: &Path) -> Vec<Image> {
    let text = fs::read_to_string(folder.join("images.tsv")).expect("the script writes images.tsv");
    let rows = text.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_, repository, tag, source, _, platforms, ..] = fields[..] else {
            panic!("images.tsv: {line}");
        };
        Image {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            platforms: platforms.split(',').map(str::to_owned).collect(),
            source: source.to_owned(),
        }
    });
    rows.collect()
}

fn push(folder: &Path, images: &[Image], storage: &Path) {
    let registry = crate::registry::Registry::start_on(storage);
    for Image {
        repository,
        tag,
        source,
        ..
    } in images
    {
        let output = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--all",
                "--preserve-digests",
            ])
            .args(["--dest-tls-verify=false", source])
            .arg(format!(
                "docker://{}/docker-local/{repository}:{tag}",
                registry.host()
            ))
            .current_dir(folder)
            .output()
            .unwrap_or_else(|error| {
                panic!("running `skopeo`: {error} (install it: apt-get install skopeo)")
            });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "skopeo copy of {repository}:{tag}: {said}"
        );
    }
    // A repository in the storage is a folder of small files that name blobs; the blobs are shared.
    let repositories = storage.join("docker/registry/v2/repositories");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(repositories.join("docker-local"))
        .arg(repositories.join("hub"))
        .status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "copying a repository"
    );
}

impl RealImages {
    /// How many images there are, platforms counted one by one.
    pub(crate) fn n_images(&self) -> usize {
        self.images.iter().map(|image| image.platforms.len()).sum()
    }

    /// Fails unless the store holds exactly these images, in repositories that begin with `prefix`, each with
    /// exactly the packages that independent tools found.
    #[track_caller]
    pub(crate) fn assert_stored(&self, stored: &Stored, prefix: &str) {
        let all = |_: &Image| true;
        self.assert_some_stored(stored, prefix, all);
    }

    /// The same for the images that `is_wanted` takes.
    #[track_caller]
    pub(crate) fn assert_some_stored(
        &self,
        stored: &Stored,
        prefix: &str,
        is_wanted: fn(&Image) -> bool,
    ) {
        let wanted = || self.images.iter().filter(|image| is_wanted(image));
        let expected: BTreeSet<_> = wanted()
            .flat_map(|image| {
                let name = |platform: &String| {
                    (
                        format!("{prefix}{}", image.repository),
                        image.tag.clone(),
                        platform.clone(),
                    )
                };
                image.platforms.iter().map(name)
            })
            .collect();
        assert_eq!(stored.images(), expected);
        let mut differences = Vec::new();
        for image in wanted() {
            let repository = format!("{prefix}{}", image.repository);
            for platform in &image.platforms {
                let expected = self.expected(image, platform);
                let found: BTreeSet<Row> = stored
                    .packages(&repository, &image.tag, platform)
                    .into_iter()
                    .map(comparable)
                    .collect();
                let what = format!("{repository}:{} {platform}", image.tag);
                let lines = |sign: &str, rows: Vec<&Row>| -> Vec<String> {
                    rows.iter()
                        .map(|row| format!("{sign} {what} {row:?}"))
                        .collect()
                };
                differences.extend(lines("missing", expected.difference(&found).collect()));
                differences.extend(lines("too much", found.difference(&expected).collect()));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    fn expected(&self, image: &Image, platform: &str) -> BTreeSet<Row> {
        let name = format!("{}_{}_{platform}.tsv", image.repository, image.tag).replace('/', "_");
        let path = self.folder.join("expected").join(name);
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("reading `{}`: {error}", path.display()));
        let rows = text.lines().map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [kind, name, version, source, source_version] = fields[..] else {
                panic!("{}: {line}", path.display());
            };
            let owned = str::to_owned;
            comparable((
                owned(kind),
                owned(name),
                owned(version),
                owned(source),
                owned(source_version),
            ))
        });
        rows.collect()
    }
}

/// A row in the form in which rows are compared: Python names normalized (PEP 503), and a package that names no
/// source is its own.
fn comparable(row: Row) -> Row {
    let (kind, mut name, version, mut source, mut source_version) = row;
    if kind == "pypi" {
        let lower = name.to_lowercase();
        let parts = lower.split(['-', '_', '.']).filter(|part| !part.is_empty());
        name = parts.collect::<Vec<_>>().join("-");
    }
    if matches!(kind.as_str(), "deb" | "apk") && source.is_empty() {
        source.clone_from(&name);
        source_version.clone_from(&version);
    }
    (kind, name, version, source, source_version)
}
