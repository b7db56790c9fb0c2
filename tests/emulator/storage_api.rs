//! `api/storage`, `api/metadata` and files by their path.
//!
//! Source: `reference/registries.md` A2 (other REST). *Invariant:* a size is a string here and a
//! number in AQL, as in Artifactory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::State;
use super::auth::User;
use super::message::{Request, Response};
use super::registry::{file_headers, not_modified};
use super::storage::{Item, Key, Tree, join};
use super::time::{iso, now};

impl State {
    /// `api/storage/<repo>/<path>` with all its variants.
    pub(crate) fn answer_storage(&self, request: &Request, user: &User, full: &str) -> Response {
        if let Some(status) = self.switches().status("storage") {
            return Response::status_error(status, "Forbidden");
        }
        let full = full.trim_matches('/');
        let (key, path) = full.split_once('/').unwrap_or((full, ""));
        let Some(repo) = self.owner_of(key, path) else {
            return no_item();
        };
        if !user.may_read(&format!("{repo}/{path}")) {
            return Response::status_error(403, "Forbidden");
        }
        match (request.method.as_str(), request.parameter("properties")) {
            ("PUT", Some(text)) => {
                let changes = parse_properties(text);
                self.change_properties(request, &repo, path, &changes)
            }
            ("DELETE", Some(names)) => {
                let removals = names.split(',').map(|name| (name.to_owned(), None));
                self.change_properties(request, &repo, path, &removals.collect())
            }
            ("GET", Some(names)) => self.properties(&repo, path, names),
            ("GET", None) => {
                let storage = self.storage();
                let Some(tree) = storage.tree(&repo) else {
                    return no_item();
                };
                let uri = format!("{}/api/storage/{repo}/{path}", self.base_url());
                let item = tree.get(&Key::parse(path));
                if request.parameter("list").is_some() {
                    return list(request, tree, path, &uri);
                }
                match item {
                    Some(item) if request.parameter("stats").is_some() => {
                        Response::json(200, &stats(item, &uri))
                    }
                    Some(item) => Response::json(200, &self.describe_file(&repo, path, item, &uri)),
                    None => folder(tree, &repo, path, &uri),
                }
            }
            _ => Response::status_error(405, "Method Not Allowed"),
        }
    }

    /// The key that owns `path` when `key` is asked; `None` when there is no such item.
    fn owner_of(&self, key: &str, path: &str) -> Option<String> {
        let storage = self.storage();
        let owners: Vec<String> = self
            .sources(key)
            .iter()
            .map(|source| source.owner())
            .collect();
        let holds = |owner: &&String| {
            path.is_empty()
                || storage.tree(owner).is_some_and(|tree| {
                    tree.get(&Key::parse(path)).is_some() || !tree.below(path).is_empty()
                })
        };
        owners.iter().find(holds).cloned()
    }

    fn describe_file(&self, repo: &str, path: &str, item: &Item, uri: &str) -> Value {
        let content = &item.content;
        let sums = json!({"sha1": content.sha1, "md5": content.md5, "sha256": content.sha256});
        json!({
            "repo": repo,
            "path": format!("/{path}"),
            "created": iso(item.created),
            "createdBy": &*item.by,
            "lastModified": iso(item.modified),
            "modifiedBy": &*item.by,
            "lastUpdated": iso(item.updated),
            "downloadUri": format!("{}/{repo}/{path}", self.base_url()),
            "mimeType": if path.ends_with(".json") { "application/json" } else { "application/octet-stream" },
            "size": content.size.to_string(),
            "checksums": sums,
            "originalChecksums": {"sha256": content.sha256},
            "uri": uri,
        })
    }

    fn properties(&self, repo: &str, path: &str, names: &str) -> Response {
        let storage = self.storage();
        let Some(tree) = storage.tree(repo) else {
            return no_item();
        };
        let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
        let mut properties: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let item = tree.get(&Key::parse(path));
        for (key, value) in item.iter().flat_map(|item| &item.properties) {
            if names.is_empty() || names.contains(&key.as_ref()) {
                properties.entry(key).or_default().push(value);
            }
        }
        if properties.is_empty() {
            return Response::status_error(404, "No properties could be found.");
        }
        let uri = format!("{}/api/storage/{repo}/{path}", self.base_url());
        Response::json(200, &json!({"properties": properties, "uri": uri}))
    }

    /// Sets (or with `None` removes) properties of a file, or of all files below a folder.
    fn change_properties(
        &self,
        request: &Request,
        repo: &str,
        path: &str,
        changes: &Vec<(String, Option<Vec<String>>)>,
    ) -> Response {
        let recursive = request.parameter("recursive") != Some("0");
        let mut storage = self.storage_mut();
        let tree = storage.tree_mut(repo);
        let mut keys: Vec<Arc<Key>> = Vec::new();
        if tree.get(&Key::parse(path)).is_some() {
            keys.push(Key::parse(path));
        } else if recursive {
            keys.extend(tree.below(path).iter().map(|(key, _)| (*key).clone()));
        }
        for key in keys {
            let Some(item) = tree.get_mut(&key) else {
                continue;
            };
            for (name, values) in changes {
                item.properties.retain(|(key, _)| key.as_ref() != name);
                for value in values.iter().flatten() {
                    item.properties.push((name.as_str().into(), value.clone()));
                }
            }
            item.updated = now();
        }
        Response::new(204)
    }

    /// `PATCH api/metadata/<repo>/<path>` with `{"props": {...}}`.
    pub(crate) fn answer_metadata(&self, request: &mut Request, full: &str) -> Response {
        let body = request.read_body(1024 * 1024).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(properties) = body["props"].as_object() else {
            return Response::status_error(400, "Bad Request");
        };
        let texts = |value: &Value| match value {
            Value::Null => None,
            Value::Array(list) => Some(list.iter().map(plain).collect()),
            value => Some(vec![plain(value)]),
        };
        let changes = properties
            .iter()
            .map(|(key, value)| (key.clone(), texts(value)));
        let full = full.trim_matches('/');
        let (key, path) = full.split_once('/').unwrap_or((full, ""));
        match self.owner_of(key, path) {
            Some(repo) => self.change_properties(request, &repo, path, &changes.collect()),
            None => no_item(),
        }
    }

    /// `GET`, `HEAD` and `DELETE` of `<repo>/<path>`.
    pub(crate) fn answer_file(&self, request: &Request, user: &User, full: &str) -> Response {
        let full = full.trim_matches('/');
        let (key, path) = full.split_once('/').unwrap_or((full, ""));
        let found = self.owner_of(key, path).and_then(|repo| {
            let storage = self.storage();
            let item = storage.tree(&repo)?.get(&Key::parse(path)).cloned();
            drop(storage);
            Some((repo, item))
        });
        let Some((repo, item)) = found else {
            return Response::status_error(404, "File not found.");
        };
        if !user.may_read(&format!("{repo}/{path}")) {
            return Response::status_error(403, "Forbidden");
        }
        if request.method == "DELETE" {
            self.remove_deleted(&repo, path, &user.name);
            return Response::new(204);
        }
        let Some(item) = item.filter(|_| request.is_read()) else {
            return Response::status_error(404, "File not found.");
        };
        let key = Key::parse(path);
        if request.method == "GET" && not_modified(request, &item) {
            return Response::new(304);
        }
        if self.redirects(request, "all") && self.switches().is("redirect", "all") {
            return self.redirect(&repo, &key);
        }
        self.count(request, &repo, &key, &user.name);
        file_headers(self.send_file(request, &item), &key, &item)
    }
}

/// The text of a JSON scalar.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn no_item() -> Response {
    Response::status_error(404, "Unable to find item")
}

fn stats(item: &Item, uri: &str) -> Value {
    let mut answer = json!({
        "uri": uri,
        "downloadCount": item.downloads,
        "lastDownloaded": item.downloaded,
        "remoteDownloadCount": 0,
        "remoteLastDownloaded": 0,
    });
    if item.downloads > 0 {
        answer["lastDownloadedBy"] = json!(&*item.downloaded_by);
    }
    answer
}

/// A folder with its direct children.
fn folder(tree: &Tree, repo: &str, path: &str, uri: &str) -> Response {
    let below = tree.below(path);
    let Some((_, first)) = below.first().filter(|_| !below.is_empty()) else {
        return no_item();
    };
    let mut children: BTreeSet<(String, bool)> = BTreeSet::new();
    for (key, _) in &below {
        let full = key.full();
        let relative = if path.is_empty() {
            &full
        } else {
            &full[path.len() + 1..]
        };
        match relative.split_once('/') {
            Some((folder, _)) => children.insert((folder.to_owned(), true)),
            None => children.insert((relative.to_owned(), false)),
        };
    }
    let children = children
        .into_iter()
        .map(|(name, is_folder)| json!({"uri": format!("/{name}"), "folder": is_folder}));
    Response::json(
        200,
        &json!({
            "repo": repo,
            "path": format!("/{path}"),
            "created": iso(first.created),
            "createdBy": &*first.by,
            "lastModified": iso(first.modified),
            "modifiedBy": &*first.by,
            "lastUpdated": iso(first.updated),
            "children": children.collect::<Vec<_>>(),
            "uri": uri,
        }),
    )
}

/// `?list`, with `deep=1` and `listFolders=1`.
fn list(request: &Request, tree: &Tree, path: &str, uri: &str) -> Response {
    let deep = request.parameter("deep") == Some("1");
    let with_folders = request.parameter("listFolders") == Some("1");
    let below = tree.below(path);
    if below.is_empty() {
        return no_item();
    }
    let relative = |full: &str| match path {
        "" => format!("/{full}"),
        path => full[path.len()..].to_owned(),
    };
    let mut files = BTreeMap::new();
    for (key, item) in below {
        if with_folders {
            let mut folder = key.path.as_str();
            while folder.len() > path.len() {
                let uri = relative(folder);
                if deep || uri.matches('/').count() == 1 {
                    let row = json!({"uri": uri, "size": -1, "lastModified": iso(item.modified), "folder": true});
                    files.entry(uri).or_insert(row);
                }
                folder = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
            }
        }
        if deep || key.path == path {
            let uri = relative(&join(&key.path, &key.name));
            let mut row = json!({
                "uri": uri,
                "size": item.content.size,
                "lastModified": iso(item.modified),
                "folder": false,
                "sha1": item.content.sha1,
                "sha2": item.content.sha256,
            });
            if request.parameter("mdTimestamps") == Some("1") {
                row["mdTimestamps"] = json!({"properties": iso(item.updated)});
            }
            files.insert(uri, row);
        }
    }
    let files: Vec<Value> = files.into_values().collect();
    Response::json(
        200,
        &json!({"uri": uri, "created": iso(now()), "files": files}),
    )
}

/// Reads `a=b,c;d=e`, where `\` hides the character behind it.
fn parse_properties(text: &str) -> Vec<(String, Option<Vec<String>>)> {
    let mut properties = Vec::new();
    let (mut name, mut values, mut word) = (None, Vec::new(), String::new());
    let mut letters = text.chars();
    let mut finish = |name: &mut Option<String>, values: &mut Vec<String>, word: &mut String| {
        values.push(std::mem::take(word));
        if let Some(name) = name.take() {
            properties.push((name, Some(std::mem::take(values))));
        }
        values.clear();
    };
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.extend(letters.next()),
            '=' if name.is_none() => name = Some(std::mem::take(&mut word)),
            ',' => values.push(std::mem::take(&mut word)),
            ';' | '|' => finish(&mut name, &mut values, &mut word),
            _ => word.push(letter),
        }
    }
    finish(&mut name, &mut values, &mut word);
    properties
}
