//! A store of a test's own, with images that are made of a word: the digest of layer `base` is that of its name,
//! and it holds one package of that name.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::params;

use super::Store;
use super::images::IndexedImage;
use super::layers::{ContentId, StoredLayer};
use super::packages::ParsedEvidence;
use super::tags::{Found, Record, SourceId, Told};
use super::{Wish, images::ImageTotals};
use crate::error::Result;
use crate::image::manifest::Entry;
use crate::image::{Config, Descriptor, Digest, Repository, Tag};
use crate::sbom::{EvidenceFile, LayerFacts, Package, PathSet, Problem};

/// The ecosystem of all evidence here.
const ECOSYSTEM: &str = "npm";

/// A folder with a store, removed when dropped.
pub(super) struct Temp {
    folder: PathBuf,
    store: Store,
    pub(super) source: SourceId,
}

impl Temp {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crowsnest-store-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let store = Store::open(&folder).unwrap();
        let source = store.source("oci r.example").unwrap();
        Temp {
            folder,
            store,
            source,
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Runs SQL that no program should run.
    pub(super) fn run(&self, sql: &str) {
        self.store.write(|db| db.execute_batch(sql)).unwrap();
    }

    /// The same on the file of events.
    pub(super) fn run_events(&self, sql: &str) {
        self.store.write_events(|db| db.execute_batch(sql)).unwrap();
    }

    /// Runs SQL that leaves references which lead nowhere.
    pub(super) fn break_with(&self, sql: &str) {
        let db = rusqlite::Connection::open(self.store.path()).unwrap();
        db.pragma_update(None, "foreign_keys", false).unwrap();
        db.execute_batch(sql).unwrap();
    }

    pub(super) fn count(&self, table: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.store
            .read(|db| db.query_row(&sql, [], |row| row.get(0)))
            .unwrap()
    }

    /// Lets everything be older.
    pub(super) fn age(&self, by: Duration) {
        let ms = by.as_millis();
        self.run(&format!(
            "UPDATE tag SET first_seen = first_seen - {ms}, changed_at = changed_at - {ms}, gone_at = gone_at - {ms};
             UPDATE tag_history SET since = since - {ms}, until = until - {ms};
             UPDATE manifest SET indexed_at = indexed_at - {ms};
             UPDATE layer SET read_at = read_at - {ms};"
        ));
    }

    pub(super) fn layer(&self, name: &str) {
        let file = EvidenceFile {
            path: format!("{name}/package.json"),
            ecosystem: ECOSYSTEM,
            digest: digest(&format!("content {name}")),
            compressed: name.as_bytes().to_vec(),
        };
        let facts = LayerFacts {
            digest: digest(name),
            diff_id: digest(&format!("tar {name}")),
            size: 1_000,
            tar_size: 2_000,
            n_entries: 1,
            whiteouts: Vec::new(),
            opaques: Vec::new(),
            paths: PathSet::default(),
            evidence: vec![file],
            problems: vec![Problem {
                subject: "npm".to_owned(),
                path: "x".to_owned(),
                message: "odd".to_owned(),
            }],
            problems_unlisted: 0,
        };
        self.store.save_layer(&facts, &wish()).unwrap();
    }

    pub(super) fn save_evidence(&self, content: ContentId, name: &str) -> Result<()> {
        let package = Package {
            kind: ECOSYSTEM,
            namespace: None,
            name: name.to_owned(),
            version: "1".to_owned(),
            architecture: None,
            source: None,
            licenses: Vec::new(),
        };
        self.store.save_evidence(&[ParsedEvidence {
            content,
            ecosystem: ECOSYSTEM,
            version: 1,
            distro: None,
            packages: vec![package],
            problems: Vec::new(),
        }])
    }

    pub(super) fn save_image(&self, name: &str, layers: &[StoredLayer]) -> Result<ImageTotals> {
        let config =
            br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| (layer.id, layer.digest.clone()))
            .collect();
        self.store.save_image(&IndexedImage {
            digest: &digest(name),
            media_type: "application/vnd.oci.image.manifest.v1+json",
            config_digest: &digest("config"),
            config: &Config::parse(config).unwrap(),
            layers: &layers,
            size: 1_000,
            distro: None,
            masks: &[(0, "masked".to_owned())],
        })
    }

    /// Stores an image and its layers.
    pub(super) fn image(&self, name: &str, layers: &[&str]) {
        let layers: Vec<StoredLayer> = layers
            .iter()
            .map(|name| {
                self.layer(name);
                let layer = self.store.layer(&digest(name)).unwrap();
                self.save_evidence(layer.evidence[0].content, name).unwrap();
                layer
            })
            .collect();
        self.save_image(name, &layers).unwrap();
    }

    pub(super) fn index(&self, name: &str, entries: &[&str]) {
        index(&self.store, name, entries).unwrap();
    }

    /// A tag is seen to point to the image or index of that name. Has no job afterwards.
    pub(super) fn see(&self, repository: &str, tag: &str, image: &str) {
        self.see_with(repository, tag, image, &Record::Only, Told::Listing);
    }

    /// As [`Temp::see`], and has a job, of the backfill.
    pub(super) fn queue(&self, repository: &str, tag: &str, image: &str) {
        self.see_with(
            repository,
            tag,
            image,
            &Record::All(wish()),
            Told::FirstListing,
        );
    }

    fn see_with(&self, name: &str, tag: &str, image: &str, record: &Record, told: Told) {
        let found = Found {
            repository: &repository(name),
            shown: &format!("r.example/{name}"),
            tag: &self::tag(tag),
            digest: &digest(image),
        };
        self.store
            .see_tag(self.source, &found, record, told)
            .unwrap();
    }

    /// Tags of one repository that have just gone.
    pub(super) fn gone_tags(&self, n: u64) {
        self.see("many", "0", "image");
        self.run(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n} - 1)
             INSERT INTO tag (repository_id, name, digest, first_seen, changed_at, change_no)
             SELECT repository_id, i, digest, first_seen, changed_at, change_no FROM tag, n WHERE name = '0';
             UPDATE tag SET gone_at = first_seen;"
        ));
    }

    /// As many tags that are gone, each of an image with a layer, evidence and package of its own, and as many
    /// that are there and share one image.
    pub(super) fn many_images(&self, n: u64) {
        self.image("kept", &["kept"]);
        self.see("kept", "0", "kept");
        let numbers = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1000 + {n} - 1)"
        );
        let hex = "'sha256:' || printf('%064x', i * 2654435761 % 4294967296 * 100000 + i)";
        self.run(&format!(
            "{numbers} INSERT INTO tag (repository_id, name, digest, first_seen, changed_at, change_no)
                 SELECT repository_id, 'k' || i, digest, first_seen, changed_at, change_no FROM tag, n WHERE name = '0';
             {numbers} INSERT INTO tag (repository_id, name, digest, first_seen, changed_at, gone_at, change_no)
                 SELECT repository_id, i, {hex}, first_seen, changed_at, first_seen, change_no FROM tag, n WHERE name = '0';
             {numbers} INSERT INTO manifest (id, digest, kind, media_type, indexed_at)
                 SELECT i, {hex}, 'image', '', m.indexed_at FROM n, manifest m WHERE m.id = 1;
             {numbers} INSERT INTO layer (id, digest, size, ecosystems, paths, read_at)
                 SELECT i, {hex}, 1, 'npm', randomblob(3000), l.read_at FROM n, layer l WHERE l.id = 1;
             {numbers} INSERT INTO image_layer SELECT i, 0, i FROM n;
             {numbers} INSERT INTO content (id, digest, raw) SELECT i, {hex}, randomblob(6000) FROM n;
             {numbers} INSERT INTO layer_evidence SELECT i, 'a', 'npm', i FROM n;
             {numbers} INSERT INTO evidence (id, content_id, ecosystem, distro, version) SELECT i, i, 'npm', '', 1 FROM n;
             {numbers} INSERT INTO package (id, purl, type, name, version, licenses)
                 SELECT i, 'pkg:npm/a@' || i, 'npm', 'a' || i, i, '' FROM n;
             {numbers} INSERT INTO evidence_package SELECT i, i FROM n;"
        ));
    }

    /// Fails unless all references lead somewhere.
    pub(super) fn assert_sound(&self) {
        let n_wrong = self.store.read(|db| {
            let mut query = db.prepare("PRAGMA foreign_key_check")?;
            let rows = query.query_map([], |_| Ok(()))?;
            Ok(rows.count())
        });
        assert_eq!(n_wrong.unwrap(), 0);
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Stores an index of images.
pub(super) fn index(store: &Store, name: &str, entries: &[&str]) -> Result<()> {
    let entries: Vec<(Descriptor, Entry)> = entries
        .iter()
        .map(|name| {
            let descriptor = Descriptor {
                media_type: String::new(),
                digest: digest(name),
                size: 1,
                platform: None,
                annotations: Default::default(),
                is_foreign: false,
            };
            (descriptor, Entry::Image)
        })
        .collect();
    store.save_index(&digest(name), "", &entries, &|_| true, "")
}

pub(super) fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

pub(super) fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

pub(super) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

/// Number and `change_no` of the tag of that name.
pub(super) fn tag_row(store: &Store, name: &str) -> (i64, i64) {
    store
        .read(|db| {
            db.query_row(
                "SELECT id, change_no FROM tag WHERE name = ?1",
                params![name],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })
        .unwrap()
}

pub(super) fn wish() -> Wish {
    Wish {
        platforms: String::new(),
        ecosystems: ECOSYSTEM.to_owned(),
        max_layer_bytes: 1 << 30,
    }
}
