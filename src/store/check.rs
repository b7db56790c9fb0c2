//! Whether the store is sound: what SQLite can say of its file, and what this program holds true of its rows.

use rusqlite::Row;

use super::Store;
use super::lease::lives;
use crate::error::Result;

/// Problems that SQLite lists of its file before it gives up.
const DAMAGES: u32 = 1_000;

/// SQL for texts, one for each row that should not be as it is.
const UNTRUE: &[&str] = &[
    "SELECT 'image `' || m.digest || '` is indexed without all of its layers' FROM manifest m
     WHERE m.kind = 'image' AND m.indexed_at IS NOT NULL
       AND (SELECT coalesce(max(position) + 1, 0) <> count(*) FROM image_layer il WHERE il.manifest_id = m.id)",
    "SELECT 'image `' || m.digest || '` is indexed and its layer ' || il.position || ' was never read'
     FROM manifest m JOIN image_layer il ON il.manifest_id = m.id LEFT JOIN layer l ON l.id = il.layer_id
     WHERE m.indexed_at IS NOT NULL AND l.diff_id IS NULL AND l.refused IS NULL",
    "SELECT 'index `' || i.digest || '` is indexed without its image `' || e.digest || '`'
     FROM manifest i JOIN index_entry e ON e.index_id = i.id
     WHERE i.indexed_at IS NOT NULL AND i.platforms = '' AND e.kind = 'image'
       AND NOT EXISTS (SELECT 1 FROM manifest m WHERE m.digest = e.digest)",
    "SELECT 'layer `' || coalesce(l.digest, le.layer_id) || '` has a file without content: ' || le.path
     FROM layer_evidence le LEFT JOIN layer l ON l.id = le.layer_id
     WHERE NOT EXISTS (SELECT 1 FROM content c WHERE c.id = le.content_id)",
    "SELECT 'evidence ' || e.id || ' has no content' FROM evidence e
     WHERE NOT EXISTS (SELECT 1 FROM content c WHERE c.id = e.content_id)",
    "SELECT 'job ' || job.id || ' has no tag' FROM job WHERE NOT EXISTS (SELECT 1 FROM tag WHERE tag.id = tag_id)",
    "SELECT 'job ' || job.id || ' is for a tag that is gone' FROM job JOIN tag ON tag.id = tag_id
     WHERE gone_at IS NOT NULL",
];

/// SQL for the owners of leases and what they hold.
const HELD: &[&str] = &[
    "SELECT lease_owner, 'images: ' || count(*) || ',' FROM job WHERE lease_owner IS NOT NULL GROUP BY 1",
    "SELECT lease_owner, 'webhooks: ' || count(*) || ',' FROM event WHERE lease_owner IS NOT NULL GROUP BY 1",
];

impl Store {
    /// Looks for everything that is wrong and hands it to `tell`, a line each, as it is found; ends when that
    /// returns `false`. Returns how many there were. Reads the whole file, a few pages of it at a time.
    /// Errors as every read: a file that is damaged badly cannot be looked through.
    pub(crate) fn check(&self, tell: &mut dyn FnMut(&str) -> bool) -> Result<u64> {
        let mut n_wrong = 0;
        let quick_check = format!("PRAGMA quick_check({DAMAGES})");
        // One question after the other, since a reader keeps the log from being started anew.
        let questions = [
            (quick_check.as_str(), damage as Text),
            ("PRAGMA foreign_key_check", reference),
        ];
        let rows = UNTRUE.iter().map(|sql| (*sql, untrue as Text));
        let held = HELD.iter().map(|sql| (*sql, held as Text));
        for (sql, text) in questions.into_iter().chain(rows).chain(held) {
            let goes_on = self.read(|db| {
                let mut query = db.prepare(sql)?;
                let mut rows = query.query([])?;
                while let Some(row) = rows.next()? {
                    if let Some(text) = text(row)? {
                        n_wrong += 1;
                        if !tell(&text) {
                            return Ok(false);
                        }
                    }
                }
                Ok(true)
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(n_wrong)
    }
}

/// What is wrong with a row of an answer; `None` when nothing is.
type Text = fn(&Row<'_>) -> rusqlite::Result<Option<String>>;

fn damage(row: &Row<'_>) -> rusqlite::Result<Option<String>> {
    let text: String = row.get(0)?;
    Ok((text != "ok").then(|| format!("file: {text}")))
}

fn reference(row: &Row<'_>) -> rusqlite::Result<Option<String>> {
    let (table, other): (String, String) = (row.get(0)?, row.get(2)?);
    let id: Option<i64> = row.get(1)?;
    let id = id.map(|id| format!(" {id}")).unwrap_or_default();
    Ok(Some(format!(
        "row{id} of {table} refers to a row of {other} that is not there"
    )))
}

fn untrue(row: &Row<'_>) -> rusqlite::Result<Option<String>> {
    row.get(0).map(Some)
}

fn held(row: &Row<'_>) -> rusqlite::Result<Option<String>> {
    let (owner, what): (String, String) = (row.get(0)?, row.get(1)?);
    if lives(&owner) != Some(false) {
        return Ok(None);
    }
    let process = owner.split(':').next().unwrap_or_default();
    Ok(Some(format!(
        "{what} held by process {process}, which has ended; the next crowsnest watch takes over"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testdata::{Temp, digest};

    fn check(store: &Store) -> Vec<String> {
        let mut lines = Vec::new();
        let n = store.check(&mut |line| {
            lines.push(line.to_owned());
            true
        });
        assert_eq!(n.unwrap(), lines.len() as u64);
        lines
    }

    fn temp() -> Temp {
        let temp = Temp::new();
        temp.image("one", &["base", "top"]);
        temp.image("two", &["base"]);
        temp.index("index", &["one", "two"]);
        temp.see("app", "1", "index");
        temp.queue("app", "2", "later");
        temp
    }

    #[test]
    fn a_sound_store_has_no_problems() {
        assert!(check(temp().store()).is_empty());
    }

    #[test]
    fn each_problem_is_a_line() {
        let (one, two, top) = (digest("one"), digest("two"), digest("top"));
        let index = digest("index");
        for (sql, lines) in [
            (
                "DELETE FROM image_layer WHERE position = 0 AND manifest_id = 1",
                vec![format!(
                    "image `{one}` is indexed without all of its layers"
                )],
            ),
            (
                "UPDATE layer SET diff_id = NULL WHERE id = 2",
                vec![format!(
                    "image `{one}` is indexed and its layer 1 was never read"
                )],
            ),
            (
                "UPDATE manifest SET digest = 'sha256:x' WHERE id = 2",
                vec![format!(
                    "index `{index}` is indexed without its image `{two}`"
                )],
            ),
            (
                "DELETE FROM content WHERE id = 2",
                vec![
                    "row 2 of evidence refers to a row of content that is not there".to_owned(),
                    "row of layer_evidence refers to a row of content that is not there".to_owned(),
                    format!("layer `{top}` has a file without content: top/package.json"),
                    "evidence 2 has no content".to_owned(),
                ],
            ),
            (
                "DELETE FROM tag WHERE name = '2'",
                vec![
                    "row 1 of job refers to a row of tag that is not there".to_owned(),
                    "job 1 has no tag".to_owned(),
                ],
            ),
            (
                "UPDATE tag SET gone_at = 1",
                vec!["job 1 is for a tag that is gone".to_owned()],
            ),
            (
                "DELETE FROM layer WHERE id = 1",
                vec![
                    "row of image_layer refers to a row of layer that is not there".to_owned(),
                    "row of image_layer refers to a row of layer that is not there".to_owned(),
                    "row of layer_evidence refers to a row of layer that is not there".to_owned(),
                    "row of layer_problem refers to a row of layer that is not there".to_owned(),
                    format!("image `{one}` is indexed and its layer 0 was never read"),
                    format!("image `{two}` is indexed and its layer 0 was never read"),
                ],
            ),
        ] {
            let temp = temp();
            temp.break_with(sql);
            let mut found = check(temp.store());
            found.sort();
            let mut lines = lines;
            lines.sort();
            assert_eq!(found, lines, "{sql}");
        }
    }

    #[test]
    fn a_lease_of_a_process_that_ended_is_a_problem() {
        let temp = temp();
        let me = crate::store::lease::this_process();
        let owner = me.splitn(3, ':').nth(2).unwrap();
        temp.run(&format!("UPDATE job SET lease_owner = '1:1:{owner}'"));
        assert_eq!(
            check(temp.store()),
            ["images: 1, held by process 1, which has ended; the next crowsnest watch takes over"]
        );
        temp.run(&format!("UPDATE job SET lease_owner = '{me}'"));
        assert!(check(temp.store()).is_empty());
    }

    #[test]
    fn it_ends_when_nobody_listens() {
        let temp = temp();
        temp.break_with("DELETE FROM content");
        assert!(temp.store().check(&mut |_| false).unwrap() == 1);
    }
}
