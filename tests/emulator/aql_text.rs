//! Rows as text: which fields an answer has, and writing them straight into one buffer.

use std::fmt::Write as _;

use serde_json::json;

use super::aql::Field;
use super::aql_rows::{Row, number, text};
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

/// The item fields that an `include` names, or the default ones; an error for an unknown name.
pub(crate) fn item_fields(include: &[String]) -> Result<Vec<String>, String> {
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

/// The root is shown as `.`.
pub(crate) fn shown_path(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

pub(crate) fn write_row(out: &mut String, row: &Row, fields: &[String], include: &[String]) {
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
