//! Listing by AQL: one answer holds every tag of a repository with its digest, read row by row.
//!
//! The file `manifest.json` or `list.manifest.json` in a tag's folder is the manifest, and its SHA-256 the
//! digest. A folder can hold both (older manifest-tool); then the registry has to say which counts. Rows are
//! asked for sorted, so that the two stand together; the edition that refuses to sort gets its rows gathered.
//! When the server cuts an answer short, the next query goes on at the last path.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufReader;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use ureq::http::Method;

use super::Artifactory;
use crate::distribution::status_error;
use crate::error::{Error, Kind, Result};
use crate::http::retry::retrying;
use crate::image::Digest;
use crate::limit::{self, Limited};

/// Takes image, tag, and the digest when it is certain.
type Each<'a> = dyn FnMut(&str, &str, Option<Digest>) -> Result<()> + 'a;

/// Whether the server will not answer AQL at all, so that another way of listing is due.
pub(super) fn is_refusal(err: &Error) -> bool {
    matches!(err.status(), Some(400 | 403 | 404 | 405 | 501))
}

/// Lists one repository.
pub(super) fn list(server: &Artifactory, repo: &str, each: &mut Each<'_>) -> Result<()> {
    if server.fact("aql").as_deref() != Some("unsorted") {
        match list_sorted(server, repo, each) {
            Err(err) if err.status() == Some(400) => {}
            other => return other,
        }
    }
    list_unsorted(server, repo, each)?;
    server.learn("aql", "unsorted");
    Ok(())
}

fn list_sorted(server: &Artifactory, repo: &str, each: &mut Each<'_>) -> Result<()> {
    let mut from = String::new();
    loop {
        let mut held: Option<Row> = None;
        let mut n_rows = 0u64;
        let is_cut = query(server, &text(repo, &from, true), &mut |row| {
            n_rows += 1;
            match held.take() {
                Some(mut last) if last.path == row.path => {
                    last.is_certain = false;
                    held = Some(last);
                    Ok(())
                }
                last => {
                    held = Some(row);
                    last.map_or(Ok(()), |last| last.emit(each))
                }
            }
        })?;
        let Some(last) = held else { return Ok(()) };
        // The last folder of a cut answer may be incomplete: the next answer begins with it.
        if !is_cut || last.path == from {
            return last.emit(each);
        }
        from = last.path;
    }
}

fn list_unsorted(server: &Artifactory, repo: &str, each: &mut Each<'_>) -> Result<()> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let is_cut = query(server, &text(repo, "", false), &mut |row| {
        match rows.get_mut(&row.path) {
            Some(known) => known.is_certain = false,
            None => {
                rows.insert(row.path.clone(), row);
            }
        }
        Ok(())
    })?;
    if is_cut {
        let message = format!(
            "the server cut the listing of `{repo}` after {} images and cannot sort it",
            rows.len()
        );
        return Err(Error::tell(message).with_status(403));
    }
    rows.into_values().try_for_each(|row| row.emit(each))
}

/// The query. Permissions are looked at behind a limit, so none is set.
fn text(repo: &str, from: &str, is_sorted: bool) -> String {
    let repo = serde_json::json!(repo);
    let range = if from.is_empty() {
        String::new()
    } else {
        format!(r#","path":{{"$gte":{}}}"#, serde_json::json!(from))
    };
    let sort = if is_sorted {
        r#".sort({"$asc":["path","name"]})"#
    } else {
        ""
    };
    format!(
        r#"items.find({{"repo":{repo}{range},"$or":[{{"name":"manifest.json"}},{{"name":"list.manifest.json"}}]}}).include("repo","path","name","sha256"){sort}"#
    )
}

/// Sends a query and hands on its rows. Returns whether the server cut the answer.
fn query(
    server: &Artifactory,
    text: &str,
    each: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<bool> {
    let path = format!("{}api/search/aql", server.api_path);
    let mut response = retrying(server.http.stop(), || {
        let response = server.api.request(
            Method::POST,
            &path,
            &[("content-type", "text/plain")],
            Some(text),
        )?;
        if response.status == 200 {
            Ok(response)
        } else {
            Err(status_error(response))
        }
    })?;
    // A row can make us wait for a worker, which may wait for a place at this host.
    response.body.leave_place();
    let reader = BufReader::with_capacity(
        64 << 10,
        Limited::new(response.body, limit::AQL_BYTES, "AQL answer"),
    );
    let mut answer = Answer {
        each,
        failure: None,
        is_cut: false,
    };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let result = answer.deserialize(&mut json);
    if let Some(failure) = answer.failure {
        return Err(failure);
    }
    result.map_err(|err| {
        let kind = if err.is_io() || err.is_eof() {
            Kind::Retry
        } else {
            Kind::Tell
        };
        Error::new(
            kind,
            format_args!("the answer to the AQL query cannot be read: {err}"),
        )
    })?;
    Ok(answer.is_cut)
}

/// A manifest file: what we use of an AQL item.
struct Row {
    path: String,
    digest: Option<Digest>,
    /// Whether it is the only manifest of its folder.
    is_certain: bool,
}

impl Row {
    /// Hands on the tag that a row stands for. Folders of platform manifests and of uploads are none.
    fn emit(self, each: &mut Each<'_>) -> Result<()> {
        let Some((image, tag)) = self.path.rsplit_once('/') else {
            return Ok(());
        };
        if tag.starts_with("sha256:")
            || tag.starts_with("sha256__")
            || self.path.split('/').any(|part| part == "_uploads")
        {
            return Ok(());
        }
        each(image, tag, self.digest.filter(|_| self.is_certain))
    }
}

/// Reads the answer as it streams by.
struct Answer<'a> {
    each: &'a mut dyn FnMut(Row) -> Result<()>,
    /// An error of `each`, which serde's errors cannot carry.
    failure: Option<Error>,
    is_cut: bool,
}

impl<'de> Answer<'_> {
    fn deserialize<D: Deserializer<'de>>(
        &mut self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Answer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AQL answer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "results" => map.next_value_seed(Rows(self))?,
                "range" => {
                    let range: BTreeMap<String, serde_json::Value> = map.next_value()?;
                    self.is_cut = range.contains_key("notification");
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Rows<'a, 'b>(&'a mut Answer<'b>);

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> std::result::Result<(), A::Error> {
        #[derive(serde::Deserialize)]
        struct Item {
            path: String,
            sha256: Option<String>,
        }
        while let Some(item) = rows.next_element::<Item>()? {
            let digest = item
                .sha256
                .as_deref()
                .and_then(|hex| Digest::from_sha256_hex(hex).ok());
            if let Err(err) = (self.0.each)(Row {
                path: item.path,
                digest,
                is_certain: true,
            }) {
                self.0.failure = Some(err);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_quotes_what_it_is_given() {
        assert_eq!(
            text("a\"b", "x", true),
            r#"items.find({"repo":"a\"b","path":{"$gte":"x"},"$or":[{"name":"manifest.json"},{"name":"list.manifest.json"}]}).include("repo","path","name","sha256").sort({"$asc":["path","name"]})"#
        );
    }

    #[test]
    fn rows_become_tags() {
        for (path, want) in [
            ("team/app/1.0", Some(("team/app", "1.0"))),
            ("app/sha256:abc", None),
            ("app/sha256__abc", None),
            ("app/_uploads/1.0", None),
            ("app", None),
        ] {
            let mut found = None;
            let row = Row {
                path: path.to_owned(),
                digest: None,
                is_certain: true,
            };
            row.emit(&mut |image, tag, _| {
                found = Some((image.to_owned(), tag.to_owned()));
                Ok(())
            })
            .unwrap();
            assert_eq!(
                found,
                want.map(|(image, tag)| (image.to_owned(), tag.to_owned())),
                "{path}"
            );
        }
    }
}
