//! Evaluates a [`Query`] over the storage and writes the answer.
//!
//! Source: `reference/registries.md` A2 (AQL: answer, limits, virtual keys). 100,000 rows must
//! take well under two seconds in an unoptimized build, so rows are written straight into one
//! buffer and repositories that cannot match are not walked. *Invariant:* permission filtering
//! comes after `limit`, as in Artifactory.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::State;
use super::aql::{Comparison, Criterion, Field, Order, Query};
use super::auth::User;
use super::message::Response;
use super::repositories::{Class, Source};
use super::storage::{Item, Storage, Tree, join};
use super::time;

/// Fields of an answer when the query names none.
const DEFAULT_FIELDS: &[&str] = &[
    "repo",
    "path",
    "name",
    "type",
    "size",
    "created",
    "created_by",
    "modified",
    "modified_by",
    "updated",
];

/// All fields, for `include("*")`.
const ALL_FIELDS: &[&str] = &[
    "repo",
    "path",
    "name",
    "type",
    "size",
    "depth",
    "created",
    "created_by",
    "modified",
    "modified_by",
    "updated",
    "original_md5",
    "actual_md5",
    "original_sha1",
    "actual_sha1",
    "sha256",
];

/// A file, or a folder that files imply (`item` is then the first of these).
#[derive(Clone, Copy)]
struct Row<'a> {
    repo: &'a str,
    path: &'a str,
    name: &'a str,
    item: &'a Item,
    is_folder: bool,
}

impl State {
    /// `POST api/search/aql`.
    pub(crate) fn answer_aql(&self, text: &str, user: &User) -> Response {
        let running = self.aql_running.fetch_add(1, Ordering::SeqCst) + 1;
        let response = self.aql(text, user, running);
        self.aql_running.fetch_sub(1, Ordering::SeqCst);
        response
    }

    fn aql(&self, text: &str, user: &User, running: u64) -> Response {
        let pause = self.switches().pause("aql_delay_ms");
        std::thread::sleep(pause);
        let switches = self.switches();
        let at_once = switches.number("aql_concurrency");
        let refused = switches.status("aql");
        if refused.is_some() || (at_once > 0 && running > at_once) {
            let response = match refused.unwrap_or(429) {
                400 => Response::status_error(400, "Failed to parse query"),
                403 => Response::status_error(403, "Forbidden"),
                408 => Response::status_error(408, "AQL query timed out"),
                429 => Response::status_error(429, "Too many concurrent AQL queries"),
                status => Response::status_error(status, "Internal Server Error"),
            };
            return match switches.text("aql_retry_after") {
                "" => response,
                seconds => response.header("Retry-After", seconds),
            };
        }
        if text.len() as u64 > switches.number("aql_max_chars") {
            return Response::status_error(400, "AQL query is too long");
        }
        let query = match Query::parse(text).and_then(|query| self.check_query(query, user)) {
            Ok(query) => query,
            Err(message) => return Response::status_error(400, &message),
        };
        drop(switches);
        self.run_query(query, user)
    }

    fn check_query(&self, query: Query, user: &User) -> Result<Query, String> {
        let primary = query.include.iter().all(|field| {
            !field.starts_with("property") && !field.starts_with("stat") && !field.starts_with('@')
        });
        let pages = query.has_sort || query.offset > 0 || query.limit.is_some();
        if query.has_sort && self.switches().on("aql_oss") {
            return Err("Sorting is not supported by AQL in the open source version".to_owned());
        }
        if pages && !primary {
            return Err(
                "Sort, offset and limit are only supported in the primary domain".to_owned(),
            );
        }
        let fields = item_fields(&query.include)?;
        let has = |name: &str| fields.iter().any(|field| field == name);
        let complete = has("repo") && has("path") && has("name");
        if !user.admin && !complete {
            return Err(
                "For permissions reasons AQL demands the following fields: repo, path and name."
                    .to_owned(),
            );
        }
        Ok(query)
    }

    fn run_query(&self, mut query: Query, user: &User) -> Response {
        self.expand_virtual(&mut query.criterion);
        let (hard_limit, reversed, empty) = {
            let switches = self.switches();
            let all = switches.number("aql_row_limit");
            let limit = if user.admin {
                all
            } else {
                all.min(switches.number("aql_user_limit"))
            };
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            (
                limit,
                switches.is("aql_order", "reversed"),
                switches.is("aql", "empty"),
            )
        };
        let limit = query.limit.unwrap_or(usize::MAX).min(hard_limit);
        let storage = self.storage();
        let mut rows = if empty {
            Vec::new()
        } else {
            matching(&storage, &query.criterion)
        };
        if reversed {
            rows.reverse();
        }
        if query.has_sort {
            rows.sort_by(|left, right| {
                let order = query.sort.iter().map(|field| compare(*field, left, right));
                let order = order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then);
                if query.descending {
                    order.reverse()
                } else {
                    order
                }
            });
        }
        let cut = rows.len().saturating_sub(query.offset) > hard_limit && limit == hard_limit;
        let fields = item_fields(&query.include).unwrap_or_default();
        let mut out = String::with_capacity(rows.len().min(limit) * 300 + 200);
        out.push_str("{\n\"results\" : [ ");
        let mut written = 0;
        for row in rows.iter().skip(query.offset).take(limit) {
            if !user.readable.is_empty()
                && !user.may_read(&format!("{}/{}", row.repo, join(row.path, row.name)))
            {
                continue;
            }
            if written > 0 {
                out.push(',');
            }
            write_row(&mut out, row, &fields, &query.include);
            written += 1;
        }
        let mut range = json!({
            "start_pos": query.offset,
            "end_pos": written,
            "total": written,
            "limit": limit,
        });
        if cut {
            range["notification"] =
                json!("AQL query reached the search hard limit, results are trimmed.");
        }
        let _ = write!(out, " ],\n\"range\" : {range}\n}}\n");
        Response::new(200).body("application/json", out.into_bytes())
    }

    /// Replaces virtual keys in conditions on `repo` by what the switch says they mean.
    fn expand_virtual(&self, criterion: &mut Criterion) {
        let expanded = match criterion {
            Criterion::All(list) | Criterion::Any(list) | Criterion::SameProperty(list) => {
                for inner in list {
                    self.expand_virtual(inner);
                }
                return;
            }
            Criterion::Field(Field::Repo, Comparison::Text(Order::Equal, key)) => {
                match self.repository(key).map(|repository| &repository.class) {
                    Some(Class::Virtual { .. }) => self.aql_members(key),
                    // A remote's own key owns nothing; only its cache does.
                    _ => return,
                }
            }
            _ => return,
        };
        let keys = expanded.into_iter();
        let conditions =
            keys.map(|key| Criterion::Field(Field::Repo, Comparison::Text(Order::Equal, key)));
        *criterion = Criterion::Any(conditions.collect());
    }

    fn aql_members(&self, key: &str) -> Vec<String> {
        let switches = self.switches();
        let meaning = switches.text("aql_virtual");
        let sources = self.sources(key).into_iter();
        let kept = sources.filter(|source| match meaning {
            "none" => false,
            "local" => matches!(source, Source::Stored(_)),
            _ => true,
        });
        kept.map(|source| source.owner()).collect()
    }
}

/// The item fields that an `include` names, or the default ones; an error for an unknown name.
fn item_fields(include: &[String]) -> Result<Vec<String>, String> {
    let own = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut fields = Vec::new();
    for name in include {
        let name = name.strip_prefix("item.").unwrap_or(name);
        match name {
            "*" => fields = own(ALL_FIELDS),
            _ if name.starts_with('@')
                || name.starts_with("property")
                || name.starts_with("stat") => {}
            _ => {
                Field::parse(name)?;
                fields.push(name.to_owned());
            }
        }
    }
    if fields.is_empty() {
        fields = own(DEFAULT_FIELDS);
    }
    Ok(fields)
}

/// All rows that satisfy a condition, in order of repository, path and name.
fn matching<'a>(storage: &'a Storage, criterion: &Criterion) -> Vec<Row<'a>> {
    let wants_type = mentions_type(criterion);
    let mut rows = Vec::new();
    for (repo, tree) in storage.trees() {
        if for_repo(criterion, repo) == Some(false) {
            continue;
        }
        for (key, item) in tree.iter() {
            let row = Row {
                repo,
                path: &key.path,
                name: &key.name,
                item,
                is_folder: false,
            };
            if holds(criterion, &row) {
                rows.push(row);
            }
        }
        if wants_type {
            rows.extend(
                folders(repo, tree)
                    .into_iter()
                    .filter(|row| holds(criterion, row)),
            );
        }
    }
    rows
}

fn folders<'a>(repo: &'a str, tree: &'a Tree) -> Vec<Row<'a>> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for (key, item) in tree.iter() {
        let mut folder = key.path.as_str();
        while !folder.is_empty() && seen.insert(folder) {
            let (path, name) = folder.rsplit_once('/').unwrap_or(("", folder));
            rows.push(Row {
                repo,
                path,
                name,
                item,
                is_folder: true,
            });
            folder = path;
        }
    }
    rows
}

fn mentions_type(criterion: &Criterion) -> bool {
    match criterion {
        Criterion::All(list) | Criterion::Any(list) | Criterion::SameProperty(list) => {
            list.iter().any(mentions_type)
        }
        Criterion::Field(field, _) => *field == Field::Type,
        Criterion::Property(..) => false,
    }
}

/// What a condition comes to when only the repository is known.
fn for_repo(criterion: &Criterion, repo: &str) -> Option<bool> {
    match criterion {
        Criterion::All(list) => {
            let no = list
                .iter()
                .any(|inner| for_repo(inner, repo) == Some(false));
            no.then_some(false)
        }
        Criterion::Any(list) => {
            let no = list
                .iter()
                .all(|inner| for_repo(inner, repo) == Some(false));
            no.then_some(false)
        }
        Criterion::Field(Field::Repo, comparison) => Some(text_holds(comparison, repo)),
        _ => None,
    }
}

fn holds(criterion: &Criterion, row: &Row) -> bool {
    match criterion {
        Criterion::All(list) => list.iter().all(|inner| holds(inner, row)),
        Criterion::Any(list) => list.iter().any(|inner| holds(inner, row)),
        Criterion::SameProperty(list) => row
            .item
            .properties
            .iter()
            .any(|(key, value)| list.iter().all(|inner| property_holds(inner, key, value))),
        Criterion::Field(field, comparison) => field_holds(*field, comparison, row),
        Criterion::Property(..) => {
            let mut properties = row.item.properties.iter();
            !row.is_folder && properties.any(|(key, value)| property_holds(criterion, key, value))
        }
    }
}

fn property_holds(criterion: &Criterion, key: &str, value: &str) -> bool {
    match criterion {
        Criterion::Property(pattern, comparison) => {
            pattern.matches(key) && text_holds(comparison, value)
        }
        Criterion::Field(Field::PropertyKey, comparison) => text_holds(comparison, key),
        Criterion::Field(Field::PropertyValue, comparison) => text_holds(comparison, value),
        _ => false,
    }
}

fn field_holds(field: Field, comparison: &Comparison, row: &Row) -> bool {
    if let Comparison::Null(order) = comparison {
        let is_null = match field {
            Field::Downloads | Field::Downloaded | Field::DownloadedBy => row.item.downloads == 0,
            Field::RemoteDownloads => true,
            Field::PropertyKey | Field::PropertyValue => row.item.properties.is_empty(),
            _ => false,
        };
        return is_null == (*order == Order::Equal);
    }
    match field {
        Field::Type => match comparison {
            Comparison::Text(Order::Equal, kind) if kind == "any" => true,
            _ => text_holds(comparison, kind(row)),
        },
        Field::PropertyKey | Field::PropertyValue => {
            let probe = |text: &str| text_holds(comparison, text);
            let mut properties = row.item.properties.iter();
            properties.any(|(key, value)| {
                probe(if field == Field::PropertyKey {
                    key
                } else {
                    value
                })
            })
        }
        Field::RemoteDownloads => false,
        // A file that was never downloaded has no statistics row to compare.
        Field::Downloads | Field::Downloaded if row.item.downloads == 0 => false,
        _ if field.is_number() => match comparison {
            Comparison::Number(order, wanted) => order.holds(&number(field, row), wanted),
            _ => false,
        },
        _ => text_holds(comparison, text(field, row)),
    }
}

fn text_holds(comparison: &Comparison, value: &str) -> bool {
    match comparison {
        Comparison::Text(order, wanted) => order.holds(value, wanted.as_str()),
        Comparison::Match(pattern) => pattern.matches(value),
        Comparison::NoMatch(pattern) => !pattern.matches(value),
        Comparison::Null(order) => *order == Order::NotEqual,
        Comparison::Number(..) => false,
    }
}

fn kind(row: &Row) -> &'static str {
    if row.is_folder { "folder" } else { "file" }
}

fn text<'a>(field: Field, row: &Row<'a>) -> &'a str {
    match field {
        Field::Repo => row.repo,
        Field::Path => shown_path(row.path),
        Field::Name => row.name,
        Field::Type => kind(row),
        Field::CreatedBy | Field::ModifiedBy => &row.item.by,
        Field::DownloadedBy => &row.item.downloaded_by,
        _ if row.is_folder => "",
        Field::ActualSha1 => &row.item.content.sha1,
        Field::ActualMd5 => &row.item.content.md5,
        Field::Sha256 => &row.item.content.sha256,
        _ => "",
    }
}

fn number(field: Field, row: &Row) -> i64 {
    match field {
        Field::Created => row.item.created,
        Field::Modified => row.item.modified,
        Field::Updated => row.item.updated,
        Field::Downloaded => row.item.downloaded,
        Field::Downloads => row.item.downloads.cast_signed(),
        Field::Size if !row.is_folder => row.item.content.size.cast_signed(),
        Field::Depth if row.path.is_empty() => 1,
        Field::Depth => i64::try_from(row.path.split('/').count() + 1).unwrap_or(i64::MAX),
        _ => 0,
    }
}

fn compare(field: Field, left: &Row, right: &Row) -> std::cmp::Ordering {
    if field.is_number() {
        number(field, left).cmp(&number(field, right))
    } else {
        text(field, left).cmp(text(field, right))
    }
}

/// The root is shown as `.`.
fn shown_path(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

fn write_row(out: &mut String, row: &Row, fields: &[String], include: &[String]) {
    out.push('{');
    for (idx, name) in fields.iter().enumerate() {
        let Ok(field) = Field::parse(name) else {
            continue;
        };
        out.push_str(if idx > 0 { ",\n  \"" } else { "\n  \"" });
        out.push_str(name);
        out.push_str("\" : ");
        match field {
            Field::Created | Field::Modified | Field::Updated => {
                out.push('"');
                time::write_iso(out, number(field, row));
                out.push('"');
            }
            Field::VirtualRepos => out.push_str("[]"),
            _ if field.is_number() => {
                let _ = write!(out, "{}", number(field, row));
            }
            _ => write_text(out, text(field, row)),
        }
    }
    write_properties(out, row, include);
    let wants_stat = include.iter().any(|name| name.starts_with("stat"));
    if wants_stat && row.item.downloads > 0 {
        let stats = json!([{
            "downloads": row.item.downloads,
            "downloaded": time::iso(row.item.downloaded),
            "downloaded_by": &*row.item.downloaded_by,
        }]);
        let _ = write!(out, ",\n  \"stats\" : {stats}");
    } else if wants_stat {
        out.push_str(",\n  \"stats\" : [{\"downloads\" : 0}]");
    }
    out.push_str("\n}");
}

fn write_properties(out: &mut String, row: &Row, include: &[String]) {
    let all = include.iter().any(|name| name.starts_with("property"));
    let wanted = |key: &str| {
        all || include
            .iter()
            .any(|name| name.strip_prefix('@') == Some(key))
    };
    let properties = row.item.properties.iter().filter(|(key, _)| wanted(key));
    let mut first = true;
    for (key, value) in properties {
        out.push_str(if first {
            ",\n  \"properties\" : [ "
        } else {
            ", "
        });
        first = false;
        out.push_str("{\"key\" : ");
        write_text(out, key);
        out.push_str(", \"value\" : ");
        write_text(out, value);
        out.push('}');
    }
    if !first {
        out.push_str(" ]");
    }
}

/// A JSON string; the usual text without anything to escape is copied as it is.
fn write_text(out: &mut String, text: &str) {
    let bytes = text.as_bytes();
    if memchr::memchr3(b'"', b'\\', b'\n', bytes).is_none()
        && !bytes.contains(&b'\t')
        && !bytes.contains(&b'\r')
    {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}
