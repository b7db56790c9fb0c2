//! `POST api/docker/<key>/v2/promote`: moves or copies tags to another repository.
//!
//! Source: `reference/registries.md` A2 (other REST). The upstream gets the same by mounting the
//! blobs. *Invariant:* digests do not change.

use std::sync::Arc;

use serde::Deserialize;

use super::State;
use super::events::Promoted;
use super::layout::{Manifest, find_manifest};
use super::message::{Request, Response};
use super::storage::{Item, Key, Storage, is_manifest, is_platform_folder, join};
use super::time::now;

/// The request body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promotion {
    target_repo: String,
    docker_repository: String,
    target_docker_repository: Option<String>,
    tag: Option<String>,
    target_tag: Option<String>,
    #[serde(default)]
    copy: bool,
}

impl State {
    pub(crate) fn answer_promote(
        &self,
        request: &mut Request,
        user: &str,
        source: &str,
    ) -> Response {
        let body = request.read_body(64 * 1024).unwrap_or_default();
        let promotion: Promotion = match serde_json::from_slice(&body) {
            Ok(promotion) => promotion,
            Err(error) => return Response::status_error(400, &error.to_string()),
        };
        let target = match self.push_target(&promotion.target_repo) {
            Ok(target) => target,
            Err(response) => return response,
        };
        let image = &promotion.docker_repository;
        let target_image = promotion
            .target_docker_repository
            .as_deref()
            .unwrap_or(image);
        let tags = match &promotion.tag {
            Some(tag) => vec![tag.clone()],
            None => self.storage().tags(source, image).into_iter().collect(),
        };
        let mut moved = Vec::new();
        let mut promoted = Vec::new();
        for tag in &tags {
            let target_tag = match (&promotion.tag, &promotion.target_tag) {
                (Some(_), Some(target_tag)) => target_tag,
                _ => tag,
            };
            let folders = {
                let storage = self.storage();
                self.folders_of(&storage, source, image, tag)
            };
            if folders.is_empty() {
                let message = format!("Unable to find tag '{tag}' of '{image}' in '{source}'");
                return Response::status_error(404, &message);
            }
            for folder in &folders {
                let new = if folder == tag { target_tag } else { folder };
                let from = (source, join(image, folder));
                let to = (target.as_str(), join(target_image, new));
                promoted.push(Promoted {
                    files: self.files_of(source, &from.1),
                    to: to.1.clone(),
                    tag: Some(target_tag.clone()).filter(|_| folder == tag),
                });
                let copied = self.copy_folder(&from, &to, target_image, new, user);
                if let Err(response) =
                    self.copy_upstream(&copied, source, image, &to, target_image, new)
                {
                    return response;
                }
            }
            moved.extend(folders);
        }
        if tags.is_empty() {
            return Response::status_error(404, &format!("Unable to find image '{image}'"));
        }
        if !promotion.copy {
            self.remove_moved(source, image, &tags, &moved);
        }
        let kind = if promotion.copy { "copied" } else { "moved" };
        self.emit_promoted(source, &target, &promoted, kind, user);
        Response::text(200, "Promotion ended successfully\n")
    }

    /// The platform folders of a tag, then the tag's own; empty when there is no such tag.
    fn folders_of(&self, storage: &Storage, repo: &str, image: &str, tag: &str) -> Vec<String> {
        let mut folders = Vec::new();
        let Some(key) = find_manifest(storage, repo, image, tag) else {
            return folders;
        };
        let item = storage.tree(repo).and_then(|tree| tree.get(&key));
        let bytes = item.and_then(|item| self.bytes_of(&item.content).ok());
        let manifest = Manifest::parse(&bytes.unwrap_or_default(), "");
        for digest in &manifest.children {
            let child = find_manifest(storage, repo, image, digest);
            let folder = child.and_then(|key| Some(key.path.rsplit_once('/')?.1.to_owned()));
            folders.extend(folder.filter(|folder| is_platform_folder(folder)));
        }
        folders.push(tag.to_owned());
        folders
    }

    /// Copies a folder's items; returns the manifests among them.
    fn copy_folder(
        &self,
        from: &(&str, String),
        to: &(&str, String),
        image: &str,
        folder: &str,
        user: &str,
    ) -> Vec<Item> {
        let keeps = self.switches().on("promote_keeps_modified");
        let mut storage = self.storage_mut();
        let items: Vec<(Arc<Key>, Item)> = storage
            .tree_mut(from.0)
            .in_folder(&from.1)
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect();
        let mut manifests = Vec::new();
        for (key, item) in items {
            let mut copy = Item {
                updated: now(),
                created: now(),
                modified: if keeps { item.modified } else { now() },
                by: user.into(),
                downloads: 0,
                downloaded: 0,
                ..item
            };
            for (name, value) in &mut copy.properties {
                match name.as_ref() {
                    "docker.repoName" => image.clone_into(value),
                    "docker.manifest" => folder.clone_into(value),
                    _ => {}
                }
            }
            if is_manifest(&key.name) {
                manifests.push(copy.clone());
            }
            storage
                .tree_mut(to.0)
                .insert(Key::new(&to.1, &key.name), copy);
        }
        manifests
    }

    fn copy_upstream(
        &self,
        manifests: &[Item],
        source: &str,
        image: &str,
        to: &(&str, String),
        target_image: &str,
        folder: &str,
    ) -> Result<(), Response> {
        let Some(upstream) = &self.upstream else {
            return Ok(());
        };
        let target = format!("{}/{target_image}", to.0);
        for item in manifests {
            let bytes = self.bytes_of(&item.content).unwrap_or_default();
            let manifest = Manifest::parse(&bytes, &item.media_type);
            if upstream
                .manifest(
                    &format!("{source}/{image}"),
                    &format!("sha256:{}", item.content.sha256),
                )
                .is_err()
            {
                // A seeded manifest, which the upstream never saw.
                continue;
            }
            for digest in &manifest.blobs {
                // A blob that is absent at the source stays absent; the upstream says so below.
                let _ = upstream.mount(&format!("{source}/{image}"), &target, digest);
            }
            upstream.put_manifest(&target, folder, &item.media_type, &bytes)?;
        }
        Ok(())
    }

    /// Removes the promoted folders, but keeps platform folders that another tag still names.
    fn remove_moved(&self, repo: &str, image: &str, tags: &[String], moved: &[String]) {
        for tag in tags {
            self.storage_mut()
                .tree_mut(repo)
                .remove_below(&join(image, tag));
        }
        let needed: Vec<String> = {
            let storage = self.storage();
            let rest = storage.tags(repo, image);
            rest.iter()
                .flat_map(|tag| self.folders_of(&storage, repo, image, tag))
                .collect()
        };
        for folder in moved.iter().filter(|folder| !needed.contains(folder)) {
            let path = join(image, folder);
            self.storage_mut().tree_mut(repo).remove_below(&path);
        }
    }
}
