//! Forgetting tags that are gone for long, and everything that only they needed.
//!
//! From the names inwards: tags and their history, manifests that nothing names, layers of no image, content of
//! no layer, packages of no content, repositories without tags. Candidates are looked for on a connection that
//! holds nobody up. Each goes in one transaction with all that is its own, after a second look: what a job
//! began to use meanwhile stays. What is deleted leaves room in the file, which `compact` gives back.
//!
//! An image that is put together just now relies on layers and content that nothing names yet. What was read
//! within [`GRACE`] stays for its sake; what goes nevertheless is an error of kind `Retry` there, since numbers of
//! layers and content are never given twice.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};

use super::Store;
use crate::error::Result;
use crate::time::Timestamp;

/// How long what nothing names is kept since it was read, for the sake of images under way.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// How long one transaction goes on to delete. What belongs to one row, such as the evidence of a layer, goes
/// in one transaction, and may take longer.
const BUDGET: Duration = Duration::from_millis(4);
/// Rows that are looked at in one go.
const PAGE: usize = 2_000;
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// SQLite's own default, see [`Store::set_own_checkpoints`].
const CHECKPOINT: u32 = 1_000;
/// Rows of history that are deleted in one transaction.
const ROWS: usize = 300;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub(crate) tags: u64,
    /// What tags that may still be there pointed to before.
    pub(crate) history: u64,
    /// Images, indexes and other artifacts.
    pub(crate) manifests: u64,
    pub(crate) layers: u64,
    /// Files that told of packages.
    pub(crate) contents: u64,
    pub(crate) packages: u64,
    pub(crate) repositories: u64,
}

/// Called between transactions with how long the last one was; returns whether to stop.
pub(crate) type Pause<'a> = &'a mut dyn FnMut(Duration) -> bool;

impl Store {
    /// Deletes what is gone for longer than `keep` and all that nothing needs any more, adding to `pruned` as it
    /// goes. `pause` should give other writers as much time as it is told, and may end it; the next call goes on.
    /// Errors as every write.
    pub(crate) fn prune(
        &self,
        keep: Duration,
        pruned: &mut Pruned,
        pause: Pause<'_>,
    ) -> Result<()> {
        let now = Timestamp::now();
        let mut pruning = Pruning {
            store: self,
            pause,
            looked: Instant::now(),
        };
        // Deleted rows lie all over the file. A commit that also copies the log into it takes ten times as long.
        self.set_own_checkpoints(0)?;
        let result = pruning.all(now.minus(keep), now.minus(GRACE), pruned);
        self.set_own_checkpoints(CHECKPOINT)?;
        result.map(drop)
    }

    /// Pages of the log from which commits of this process copy it into the store; 0 for never.
    fn set_own_checkpoints(&self, n_pages: u32) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer
            .pragma_update(None, "wal_autocheckpoint", n_pages)
            .map_err(|err| self.error(&err))
    }
}

/// A prune under way. Its functions return whether to go on.
struct Pruning<'a> {
    store: &'a Store,
    pause: Pause<'a>,
    /// When the log was last looked at.
    looked: Instant,
}

impl Pruning<'_> {
    fn all(&mut self, gone: Timestamp, unused: Timestamp, pruned: &mut Pruned) -> Result<bool> {
        if !self.step(&tags(gone), &mut pruned.tags)? || !self.history(gone, &mut pruned.history)? {
            return Ok(false);
        }
        let step = manifests(unused);
        loop {
            let n_before = pruned.manifests;
            if !self.step(&step, &mut pruned.manifests)? {
                return Ok(false);
            }
            // An index that went may have been the last to name others, which were looked at before it.
            if pruned.manifests == n_before {
                break;
            }
        }
        Ok(self.step(&layers(unused), &mut pruned.layers)?
            && self.step(&contents(), &mut pruned.contents)?
            && self.step(&packages(), &mut pruned.packages)?
            && self.step(&repositories(), &mut pruned.repositories)?)
    }

    /// Goes once through the rows of a table.
    fn step(&mut self, step: &Step, n_deleted: &mut u64) -> Result<bool> {
        let mut after = step.start.clone();
        loop {
            if (self.pause)(Duration::ZERO) {
                return Ok(false);
            }
            let (last, ids) = self.store.read(|db| page(db, step, &after))?;
            let Some(last) = last else {
                return Ok(true);
            };
            after = last;
            let mut ids = &ids[..];
            while !ids.is_empty() {
                let began = Instant::now();
                let (n_looked, n) = self.store.write(|db| delete(db, step, ids))?;
                *n_deleted += n;
                ids = ids.get(n_looked..).unwrap_or_default();
                if self.rests(began.elapsed())? {
                    return Ok(false);
                }
            }
        }
    }

    /// Looks after the log and lets others write, when a transaction took so long. Returns whether to stop.
    fn rests(&mut self, held: Duration) -> Result<bool> {
        if self.looked.elapsed() >= LOOK {
            self.store.keep_log_small()?;
            self.looked = Instant::now();
        }
        Ok((self.pause)(held))
    }

    /// Deletes what tags pointed to until before `gone`.
    fn history(&mut self, gone: Timestamp, n_deleted: &mut u64) -> Result<bool> {
        let (store, gone) = (self.store, gone.as_millis());
        let is_any = || {
            store.read(|db| {
                db.prepare_cached("SELECT 1 FROM tag_history WHERE until < ?1 LIMIT 1")?
                    .exists([gone])
            })
        };
        while is_any()? {
            let began = Instant::now();
            let n = store.write(|db| {
                db.prepare_cached(
                    "DELETE FROM tag_history WHERE (tag_id, until, digest) IN (
                         SELECT tag_id, until, digest FROM tag_history WHERE until < ?1 ORDER BY until LIMIT ?2)",
                )?
                .execute((gone, ROWS))
            })?;
            *n_deleted += n as u64;
            if self.rests(began.elapsed())? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A table of which some rows go.
struct Step {
    table: &'static str,
    /// SQL for the next rows: key, number, and whether they go. Behind key `?1`, at most `?2` of them.
    page: String,
    /// A key below all others.
    start: Value,
    /// SQL for whether a row goes.
    is_dead: String,
    /// What is deleted with row `?1`, in this order: those that refer to others first.
    deletes: &'static [&'static str],
}

impl Step {
    fn new(
        table: &'static str,
        key: &'static str,
        is_dead: String,
        deletes: &'static [&'static str],
    ) -> Self {
        // `digest` has an index of its own, so that rows with blobs are not read to find the next one.
        Step {
            table,
            page: format!(
                "SELECT {key}, id, {is_dead} FROM {table} WHERE {key} > ?1 ORDER BY {key} LIMIT ?2"
            ),
            start: match key {
                "digest" => Value::Text(String::new()),
                _ => Value::Integer(i64::MIN),
            },
            is_dead,
            deletes,
        }
    }
}

fn tags(gone: Timestamp) -> Step {
    let gone = gone.as_millis();
    let step = Step::new(
        "tag",
        "gone_at",
        format!("coalesce(gone_at < {gone}, 0)"),
        &[
            // A listing under way takes what has a larger number than this for younger than its start.
            "UPDATE last_id SET id = max(id, (SELECT change_no FROM tag WHERE id = ?1)) WHERE kind = 'change'",
            "DELETE FROM job WHERE tag_id = ?1",
            "DELETE FROM tag_history WHERE tag_id = ?1",
            "DELETE FROM tag WHERE id = ?1",
        ],
    );
    Step {
        // Many have the same moment, so it comes again; those that were deleted do not.
        page: format!(
            "SELECT gone_at, id, 1 FROM tag WHERE gone_at >= ?1 AND gone_at < {gone} ORDER BY gone_at LIMIT ?2"
        ),
        ..step
    }
}

fn manifests(unused: Timestamp) -> Step {
    // CASE has the row itself looked up only for those that nothing names.
    let is_dead = format!(
        "CASE WHEN EXISTS (SELECT 1 FROM tag WHERE tag.digest = manifest.digest)
                OR EXISTS (SELECT 1 FROM tag_history h WHERE h.digest = manifest.digest)
                OR EXISTS (SELECT 1 FROM index_entry e WHERE e.digest = manifest.digest)
              THEN 0 ELSE coalesce(indexed_at, 0) < {} END",
        unused.as_millis()
    );
    Step::new(
        "manifest",
        "digest",
        is_dead,
        &[
            "DELETE FROM index_entry WHERE index_id = ?1",
            "DELETE FROM image_layer WHERE manifest_id = ?1",
            "DELETE FROM image_mask WHERE manifest_id = ?1",
            "DELETE FROM manifest WHERE id = ?1",
        ],
    )
}

fn layers(unused: Timestamp) -> Step {
    let is_dead = format!(
        "CASE WHEN EXISTS (SELECT 1 FROM image_layer WHERE layer_id = layer.id)
              THEN 0 ELSE read_at < {} END",
        unused.as_millis()
    );
    Step::new(
        "layer",
        "digest",
        is_dead,
        &[
            "UPDATE last_id SET id = max(id, ?1) WHERE kind = 'layer'",
            "DELETE FROM layer_evidence WHERE layer_id = ?1",
            "DELETE FROM layer_problem WHERE layer_id = ?1",
            "DELETE FROM layer WHERE id = ?1",
        ],
    )
}

fn contents() -> Step {
    Step::new(
        "content",
        "digest",
        "NOT EXISTS (SELECT 1 FROM layer_evidence WHERE content_id = content.id)".to_owned(),
        &[
            "UPDATE last_id SET id = max(id, ?1) WHERE kind = 'content'",
            "DELETE FROM evidence_package WHERE evidence_id IN (SELECT id FROM evidence WHERE content_id = ?1)",
            "DELETE FROM evidence WHERE content_id = ?1",
            "DELETE FROM content WHERE id = ?1",
        ],
    )
}

fn packages() -> Step {
    Step::new(
        "package",
        "id",
        "NOT EXISTS (SELECT 1 FROM evidence_package WHERE package_id = package.id)".to_owned(),
        &["DELETE FROM package WHERE id = ?1"],
    )
}

fn repositories() -> Step {
    Step::new(
        "repository",
        "id",
        "NOT EXISTS (SELECT 1 FROM tag WHERE repository_id = repository.id)".to_owned(),
        &["DELETE FROM repository WHERE id = ?1"],
    )
}

/// The last key of the next page, and the numbers of those of its rows that seem to go.
fn page(
    db: &Connection,
    step: &Step,
    after: &Value,
) -> rusqlite::Result<(Option<Value>, Vec<i64>)> {
    let mut query = db.prepare(&step.page)?;
    let mut rows = query.query((after, PAGE))?;
    let (mut last, mut ids) = (None, Vec::new());
    while let Some(row) = rows.next()? {
        last = Some(row.get(0)?);
        if row.get(2)? {
            ids.push(row.get(1)?);
        }
    }
    Ok((last, ids))
}

/// Deletes those of `ids` that still go, until [`BUDGET`] is used up. Returns how many were looked at, and
/// how many went.
fn delete(db: &Connection, step: &Step, ids: &[i64]) -> rusqlite::Result<(usize, u64)> {
    let began = Instant::now();
    let (table, is_dead) = (step.table, &step.is_dead);
    let mut look = db.prepare(&format!("SELECT {is_dead} FROM {table} WHERE id = ?1"))?;
    let mut deletes = Vec::with_capacity(step.deletes.len());
    for sql in step.deletes {
        deletes.push(db.prepare_cached(sql)?);
    }
    let (mut n_looked, mut n_deleted) = (0, 0);
    for id in ids {
        let is_dead: Option<bool> = look.query_row([id], |row| row.get(0)).optional()?;
        if is_dead == Some(true) {
            for delete in &mut deletes {
                delete.execute([id])?;
            }
            n_deleted += 1;
        }
        n_looked += 1;
        if began.elapsed() >= BUDGET {
            break;
        }
    }
    Ok((n_looked, n_deleted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::store::testdata::{Temp, digest, index, repository, tag, tag_row};

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

    fn prune(store: &Store) -> Pruned {
        let mut pruned = Pruned::default();
        store.prune(KEEP, &mut pruned, &mut |_| false).unwrap();
        pruned
    }

    const TABLES: [&str; 14] = [
        "tag",
        "tag_history",
        "manifest",
        "index_entry",
        "image_layer",
        "image_mask",
        "layer",
        "layer_evidence",
        "layer_problem",
        "content",
        "evidence",
        "evidence_package",
        "package",
        "repository",
    ];

    #[test]
    fn what_only_a_gone_tag_needed_goes_and_nothing_else() {
        let temp = Temp::new();
        let store = temp.store();
        // `old` is an index over one image of its own and one that `new` points to by itself.
        temp.image("shared", &["base", "shared"]);
        temp.image("own", &["base", "own"]);
        temp.index("index", &["shared", "own"]);
        temp.see("app", "new", "shared");
        temp.see("lib", "old", "index");
        let kept: Vec<u64> = TABLES.map(|table| temp.count(table)).to_vec();
        temp.age(40 * DAY);
        store
            .tag_is_gone(temp.source, &repository("lib"), &tag("old"))
            .unwrap();
        assert_eq!(prune(store), Pruned::default(), "gone just now");

        temp.age(20 * DAY);
        assert_eq!(
            prune(store),
            Pruned::default(),
            "gone for less than 30 days"
        );
        assert_eq!(TABLES.map(|table| temp.count(table)).to_vec(), kept);

        temp.age(20 * DAY);
        let pruned = prune(store);
        let expected = Pruned {
            tags: 1,
            history: 0,
            manifests: 2,
            layers: 1,
            contents: 1,
            packages: 1,
            repositories: 1,
        };
        assert_eq!(pruned, expected);
        assert_eq!(prune(store), Pruned::default(), "a second time");
        assert!(store.sbom(&digest("own")).unwrap().is_none());
        let sbom = store.sbom(&digest("shared")).unwrap().unwrap();
        let names: Vec<&str> = sbom
            .packages
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(names, ["base", "shared"]);
        temp.assert_sound();
    }

    #[test]
    fn everything_can_go() {
        let temp = Temp::new();
        let store = temp.store();
        temp.image("a", &["x"]);
        temp.image("b", &["y"]);
        temp.index("inner", &["b"]);
        temp.index("outer", &["a", "inner"]);
        temp.see("app", "1", "outer");
        temp.see("app", "1", "a");
        store
            .tag_is_gone(temp.source, &repository("app"), &tag("1"))
            .unwrap();
        temp.age(31 * DAY);
        let pruned = prune(store);
        assert_eq!((pruned.tags, pruned.manifests), (1, 4));
        for table in TABLES {
            assert_eq!(temp.count(table), 0, "{table}");
        }
    }

    #[test]
    fn history_goes_by_its_end() {
        let temp = Temp::new();
        let store = temp.store();
        for (image, days) in [("a", 20), ("b", 20), ("c", 0)] {
            temp.image(image, &[image]);
            temp.see("app", "1", image);
            temp.age(days * DAY);
        }
        // `a` was left 20 days ago, `b` just now.
        assert_eq!(prune(store), Pruned::default());
        temp.age(11 * DAY);
        let pruned = prune(store);
        assert_eq!((pruned.history, pruned.manifests, pruned.tags), (1, 1, 0));
        assert!(store.sbom(&digest("a")).unwrap().is_none());
        assert!(store.sbom(&digest("b")).unwrap().is_some());
        temp.assert_sound();
    }

    #[test]
    fn what_was_read_today_is_left_for_images_under_way() {
        let temp = Temp::new();
        let store = temp.store();
        temp.layer("waiting");
        temp.image("unnamed", &["base"]);
        assert_eq!(prune(store), Pruned::default());
        temp.age(2 * DAY);
        let pruned = prune(store);
        assert_eq!(
            (pruned.manifests, pruned.layers, pruned.packages),
            (1, 2, 1)
        );
    }

    #[test]
    fn an_image_under_way_whose_layer_was_pruned_is_tried_again() {
        let temp = Temp::new();
        let store = temp.store();
        temp.layer("base");
        temp.layer("top");
        let (base, top) = (
            store.layer(&digest("base")).unwrap(),
            store.layer(&digest("top")).unwrap(),
        );
        temp.age(2 * DAY);
        prune(store);
        let err = temp.save_image("image", &[base.clone(), top]).unwrap_err();
        let expected = format!("layer `{}` was pruned meanwhile", digest("base"));
        assert_eq!(
            (err.kind(), err.to_string()),
            (Kind::Retry, expected.clone())
        );
        let err = store.layer(&digest("base")).unwrap_err();
        assert_eq!(
            (err.kind(), err.to_string()),
            (Kind::Retry, expected.clone())
        );
        let content = base.evidence[0].content;
        for err in [
            store.content(content).unwrap_err(),
            temp.save_evidence(content, "base").unwrap_err(),
        ] {
            let expected = format!("evidence `{content}` was pruned meanwhile");
            assert_eq!((err.kind(), err.to_string()), (Kind::Retry, expected));
        }
        // Nothing half is left, and what is read again has numbers that nobody holds.
        for table in TABLES {
            assert_eq!(temp.count(table), 0, "{table}");
        }
        temp.layer("base");
        let again = store.layer(&digest("base")).unwrap();
        assert_ne!(again.id, base.id);
        assert_ne!(again.evidence[0].content, content);
        let err = temp.save_image("image", &[base]).unwrap_err();
        assert_eq!(err.to_string(), expected);
        temp.image("image", &["base"]);
        assert_eq!(
            store
                .sbom(&digest("image"))
                .unwrap()
                .unwrap()
                .packages
                .len(),
            1
        );
    }

    #[test]
    fn an_index_under_way_whose_image_was_pruned_is_tried_again() {
        let temp = Temp::new();
        let store = temp.store();
        temp.image("image", &["base"]);
        temp.age(2 * DAY);
        prune(store);
        let err = index(store, "index", &["image"]).unwrap_err();
        let expected = format!("image `{}` was pruned meanwhile", digest("image"));
        assert_eq!((err.kind(), err.to_string()), (Kind::Retry, expected));
        assert_eq!(temp.count("manifest"), 0);
    }

    #[test]
    fn numbers_of_changes_go_on_behind_a_pruned_tag() {
        let temp = Temp::new();
        let store = temp.store();
        for name in ["a", "b", "c"] {
            temp.see("app", name, "image");
        }
        let last = tag_row(store, "c").1;
        store
            .tag_is_gone(temp.source, &repository("app"), &tag("c"))
            .unwrap();
        temp.age(31 * DAY);
        assert_eq!(prune(store).tags, 1);
        temp.see("app", "d", "image");
        assert!(
            tag_row(store, "d").1 > last + 1,
            "{:?}",
            tag_row(store, "d")
        );
    }

    #[test]
    fn it_ends_when_it_is_told_and_goes_on_with_the_next_call() {
        let temp = Temp::new();
        let store = temp.store();
        temp.gone_tags(1_000);
        temp.age(31 * DAY);
        let mut pruned = Pruned::default();
        let mut n_writes = 0;
        let mut pause = |held: Duration| {
            n_writes += u64::from(!held.is_zero());
            n_writes == 1
        };
        store.prune(KEEP, &mut pruned, &mut pause).unwrap();
        assert!((1..=1_000).contains(&pruned.tags), "{pruned:?}");
        assert_eq!(pruned.repositories, 0);
        assert_eq!(temp.count("tag") + pruned.tags, 1_000);
        let rest = prune(store);
        assert_eq!((pruned.tags + rest.tags, rest.repositories), (1_000, 1));
    }

    /// Figures for a large store: `PRUNE_ROWS=100000 cargo test --release -- figures_of_a_prune --nocapture`.
    #[test]
    fn figures_of_a_prune() {
        let n = std::env::var("PRUNE_ROWS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(20);
        let temp = Temp::new();
        let store = temp.store();
        temp.many_images(n);
        temp.age(31 * DAY);
        let (began, mut longest, mut held_in_all) =
            (Instant::now(), Duration::ZERO, Duration::ZERO);
        let mut pruned = Pruned::default();
        let mut pause = |held: Duration| {
            longest = longest.max(held);
            held_in_all += held;
            false
        };
        store.prune(KEEP, &mut pruned, &mut pause).unwrap();
        let took = began.elapsed();
        assert_eq!((pruned.tags, pruned.manifests, pruned.layers), (n, n, n));
        let again = Instant::now();
        assert_eq!(prune(store), Pruned::default());
        if n > 1_000 {
            let line = format!(
                "{pruned:?} in {took:?}, of them writing {held_in_all:?}, longest {longest:?}; again {:?}\n",
                again.elapsed()
            );
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
        }
    }
}
