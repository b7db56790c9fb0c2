//! The rows that satisfy the condition of a query.
//!
//! 100,000 rows must take well under two seconds in an unoptimized build, so repositories that
//! cannot match are not walked. *Invariant:* only what is stored is looked at; no permissions.

use std::collections::BTreeSet;

use super::aql::{Comparison, Criterion, Field, Order};
use super::aql_text::shown_path;
use super::storage::{Item, Storage, Tree};

/// A file, or a folder that files imply (`item` is then the first of these).
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) repo: &'a str,
    pub(crate) path: &'a str,
    pub(crate) name: &'a str,
    pub(crate) item: &'a Item,
    pub(crate) is_folder: bool,
}

/// All rows that satisfy a condition, in order of repository, path and name.
pub(crate) fn matching<'a>(storage: &'a Storage, criterion: &Criterion) -> Vec<Row<'a>> {
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

pub(crate) fn text<'a>(field: Field, row: &Row<'a>) -> &'a str {
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

pub(crate) fn number(field: Field, row: &Row) -> i64 {
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

pub(crate) fn compare(field: Field, left: &Row, right: &Row) -> std::cmp::Ordering {
    if field.is_number() {
        number(field, left).cmp(&number(field, right))
    } else {
        text(field, left).cmp(text(field, right))
    }
}
