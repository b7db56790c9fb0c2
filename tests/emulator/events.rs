//! What happens in the storage as webhook events: which ones, in which order, with which body.
//!
//! Source: `reference/registries.md` A4. A docker event is about a manifest; an artifact event is
//! about any file of the folder. Neither has a time or an id. What A4 calls UNCONFIRMED is a switch
//! (`webhook_order`, `webhook_deleted_sha256`, `webhook_remote_pushed`). *Invariant:* promoting
//! emits no `pushed`, and an event is made after the storage has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::State;
use super::deliveries::{Job, signature};
use super::faults::scramble;
use super::layout::{Manifest, Place, put_manifest};
use super::server::lock;
use super::storage::{Content, Item, Key, Storage, Tree, is_manifest, is_platform_folder, join};
use super::subscriptions::Subscription;

/// A file as it is or was in a repository.
pub(crate) type File = (Arc<Key>, Item);

/// Events of platform manifests that wait for their tag, by repository and image.
pub(crate) type Held = Mutex<BTreeMap<(String, String), Vec<Event>>>;

/// One thing that happened.
#[derive(Clone)]
pub(crate) struct Event {
    domain: &'static str,
    event_type: &'static str,
    data: Map<String, Value>,
    user: String,
}

/// A folder that was promoted.
pub(crate) struct Promoted {
    pub(crate) files: Vec<File>,
    /// Path of the new folder.
    pub(crate) to: String,
    /// The new tag; `None` for a platform folder, which has no docker event of its own.
    pub(crate) tag: Option<String>,
}

impl State {
    /// Stores a manifest as a push does, and emits what a push emits.
    pub(crate) fn put_pushed(
        &self,
        place: &Place,
        bytes: &[u8],
        manifest: &Manifest,
        labels: &[(String, String)],
    ) -> Arc<Content> {
        let path = join(place.image, place.folder);
        let (content, old, new) = {
            let mut storage = self.storage_mut();
            let old = files_in(&storage, place.repo, &path);
            let content = put_manifest(&mut storage, place, bytes, manifest, labels);
            let new = files_in(&storage, place.repo, &path);
            (content, old, new)
        };
        let mut events = Vec::new();
        let is_child = is_platform_folder(place.folder);
        if !is_child {
            // Overwriting a tag is deleting and creating it.
            events.extend(self.docker_events("deleted", place.repo, &old, place.by));
        }
        events.extend(self.docker_events("pushed", place.repo, &new, place.by));
        events.extend(self.artifact_events("deployed", place.repo, &new, place.by));
        let switches = self.switches();
        let order = switches.text("webhook_order");
        let image = (place.repo.to_owned(), place.image.to_owned());
        if is_child && order != "children-first" {
            lock(&self.held).entry(image).or_default().extend(events);
            return content;
        }
        if !is_child {
            let children = lock(&self.held).remove(&image);
            events.extend(children.unwrap_or_default());
        }
        if order == "shuffled" {
            let seed = u64::from_str_radix(&content.sha256[..15], 16).unwrap_or(0);
            shuffle(
                &mut events,
                seed.wrapping_add(switches.number("fault_seed")),
            );
        }
        self.emit(&events);
        content
    }

    /// Removes a file, or a folder with all below it, and emits what that emits; returns the
    /// number of files.
    pub(crate) fn remove_deleted(&self, repo: &str, path: &str, user: &str) -> usize {
        let removed = {
            let mut storage = self.storage_mut();
            let tree = storage.tree_mut(repo);
            let mut removed = copies(tree.below(path));
            let key = Key::parse(path);
            if let Some(item) = tree.remove(&key) {
                removed.push((key, item));
            }
            tree.remove_below(path);
            removed
        };
        let mut events = self.docker_events("deleted", repo, &removed, user);
        events.extend(self.artifact_events("deleted", repo, &removed, user));
        self.emit(&events);
        removed.len()
    }

    /// Emits what promoting emits, which is matched on the source repository.
    pub(crate) fn emit_promoted(
        &self,
        source: &str,
        target: &str,
        promoted: &[Promoted],
        artifact_type: &'static str,
        user: &str,
    ) {
        let mut events = Vec::new();
        for folder in promoted {
            if let Some(tag) = &folder.tag {
                for mut event in self.docker_events("promoted", source, &folder.files, user) {
                    event.data.insert("target_repo".to_owned(), json!(target));
                    event.data.insert("target_tag".to_owned(), json!(tag));
                    events.push(event);
                }
            }
            for (key, item) in &folder.files {
                let file = [(key.clone(), item.clone())];
                for mut event in self.artifact_events(artifact_type, source, &file, user) {
                    let from = format!("{source}/{}", key.full());
                    let to = format!("{target}/{}", join(&folder.to, &key.name));
                    event
                        .data
                        .insert("source_repo_path".to_owned(), json!(from));
                    event.data.insert("target_repo_path".to_owned(), json!(to));
                    events.push(event);
                }
            }
        }
        self.emit(&events);
    }

    /// Emits what pulling a manifest through a remote emits.
    pub(crate) fn emit_cached(&self, cache: &str, files: &[File]) {
        let mut events = self.artifact_events("cached", cache, files, "anonymous");
        if self.switches().on("webhook_remote_pushed") {
            events.extend(self.docker_events("pushed", cache, files, "anonymous"));
        }
        self.emit(&events);
    }

    /// The files of a folder as they are now.
    pub(crate) fn files_of(&self, repo: &str, path: &str) -> Vec<File> {
        files_in(&self.storage(), repo, path)
    }

    /// The placeholder event of a test, ready to be sent.
    pub(crate) fn test_job(&self, subscription: &Subscription) -> Job {
        let filter = &subscription.event_filter;
        let mut data = json!({
            // The name of the repository is our own guess.
            "repo_key": "sample_repo",
            "path": "sample_dir/sample.txt",
            "name": "sample.txt",
            "sha256": "sample_checksum",
            "size": 0,
        });
        if filter.domain == "docker" {
            data["image_name"] = json!("sample_arch");
            data["tag"] = json!("sample_image");
            data["platforms"] = json!([{"architecture": "sample_os", "os": "sample_tag"}]);
        }
        let event_type = filter.event_types.first().map_or("", String::as_str);
        let body = self.body(
            &filter.domain,
            event_type,
            &data,
            &subscription.key,
            "admin",
        );
        self.job(subscription, body)
    }

    fn emit(&self, events: &[Event]) {
        let copies = 1 + self.switches().number("webhook_duplicates");
        for event in events {
            let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or("");
            let (repo, path) = (text("repo_key"), text("path"));
            for subscription in self.subscribers(event.domain, event.event_type, repo, path) {
                let data = Value::Object(event.data.clone());
                let key = &subscription.key;
                let body = self.body(event.domain, event.event_type, &data, key, &event.user);
                let job = self.job(&subscription, body);
                for _ in 0..copies {
                    self.outbox.queue(job.clone());
                }
            }
        }
    }

    fn job(&self, subscription: &Subscription, body: String) -> Job {
        let switches = self.switches();
        let handler = subscription.handler();
        let mut headers = Vec::new();
        if !handler.secret.is_empty() {
            let value = if handler.use_secret_for_signing {
                let form = switches.text("webhook_sign");
                signature(&handler.secret, form, body.as_bytes())
            } else {
                handler.secret.clone()
            };
            headers.push(("X-JFrog-Event-Auth".to_owned(), value));
        }
        for header in &handler.custom_http_headers {
            headers.push((header.name.clone(), header.value.clone()));
        }
        Job {
            subscription: subscription.key.clone(),
            url: handler.url.clone(),
            headers,
            body,
            wait: switches.pause("webhook_retry_wait_ms"),
            timeout: switches.pause("webhook_timeout_ms"),
        }
    }

    fn body(
        &self,
        domain: &str,
        event_type: &str,
        data: &Value,
        subscription: &str,
        user: &str,
    ) -> String {
        let switches = self.switches();
        if switches.is("webhook_form", "flat") {
            let mut flat = data.clone();
            flat["event_type"] = json!(event_type);
            return flat.to_string();
        }
        let mut body = json!({
            "domain": domain,
            "event_type": event_type,
            "data": data,
            "subscription_key": subscription,
            "source": "jfrog/jfrt@emulator-0000-0001",
        });
        if switches.on("webhook_origin") {
            let origin = self.base_url().replace("/artifactory", "");
            body["jpd_origin"] = json!(origin);
        }
        if switches.on("webhook_user_context") {
            body["userContext"] = json!({"id": user, "isToken": false, "realm": "internal"});
        }
        body.to_string()
    }

    /// One event for each manifest among the files.
    fn docker_events(
        &self,
        event_type: &'static str,
        repo: &str,
        files: &[File],
        user: &str,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let whole_name = self.switches().is("webhook_image_name", "full");
        let package_type = self
            .repository(repo.strip_suffix("-cache").unwrap_or(repo))
            .map_or("docker", |repository| repository.package_type.as_str());
        for (key, item) in files.iter().filter(|(key, _)| is_manifest(&key.name)) {
            let Some((image, tag)) = key.path.rsplit_once('/') else {
                continue;
            };
            let last = image.rsplit('/').next().unwrap_or(image);
            let mut data = self.file_data(event_type, repo, key, item);
            let name = if whole_name { image } else { last };
            data.insert("image_name".to_owned(), json!(name));
            data.insert("tag".to_owned(), json!(tag));
            data.insert("platforms".to_owned(), self.platforms(key, item));
            let image_type = match package_type {
                "docker" => "docker",
                _ => "oci",
            };
            data.insert("image_type".to_owned(), json!(image_type));
            events.push(Event {
                domain: "docker",
                event_type,
                data,
                user: user.to_owned(),
            });
        }
        events
    }

    fn artifact_events(
        &self,
        event_type: &'static str,
        repo: &str,
        files: &[File],
        user: &str,
    ) -> Vec<Event> {
        let event = |(key, item): &File| Event {
            domain: "artifact",
            event_type,
            data: self.file_data(event_type, repo, key, item),
            user: user.to_owned(),
        };
        files.iter().map(event).collect()
    }

    /// The fields that both domains have.
    fn file_data(
        &self,
        event_type: &str,
        repo: &str,
        key: &Key,
        item: &Item,
    ) -> Map<String, Value> {
        let is_empty = event_type == "deleted" && !self.switches().on("webhook_deleted_sha256");
        let (sha256, size) = match is_empty {
            true => ("", 0),
            false => (item.content.sha256.as_str(), item.content.size),
        };
        let mut data = Map::new();
        data.insert("repo_key".to_owned(), json!(repo));
        data.insert("path".to_owned(), json!(key.full()));
        data.insert("name".to_owned(), json!(key.name));
        data.insert("sha256".to_owned(), json!(sha256));
        data.insert("size".to_owned(), json!(size));
        data
    }

    /// The platforms a list names; none for a single manifest.
    fn platforms(&self, key: &Key, item: &Item) -> Value {
        if key.name != "list.manifest.json" {
            return json!([]);
        }
        let bytes = self.bytes_of(&item.content).unwrap_or_default();
        let manifest = Manifest::parse(&bytes, &item.media_type);
        let entries = manifest.value["manifests"].as_array().into_iter().flatten();
        let platforms = entries.filter(|entry| entry["platform"].is_object());
        platforms
            .map(|entry| {
                let platform = &entry["platform"];
                json!({"architecture": platform["architecture"], "os": platform["os"]})
            })
            .collect()
    }
}

/// The files of a folder, in order.
pub(crate) fn files_in(storage: &Storage, repo: &str, path: &str) -> Vec<File> {
    let tree = storage.tree(repo);
    copies(
        tree.into_iter()
            .flat_map(|tree: &Tree| tree.in_folder(path)),
    )
}

fn copies<'a>(files: impl IntoIterator<Item = (&'a Arc<Key>, &'a Item)>) -> Vec<File> {
    let files = files.into_iter();
    files
        .map(|(key, item)| (key.clone(), item.clone()))
        .collect()
}

/// Fisher-Yates with numbers drawn from the seed.
fn shuffle(events: &mut [Event], seed: u64) {
    for last in (1..events.len()).rev() {
        let drawn = scramble(seed.wrapping_add(last as u64)) % (last as u64 + 1);
        events.swap(last, usize::try_from(drawn).unwrap_or(0));
    }
}
