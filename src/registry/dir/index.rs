//! `index.json` of an OCI layout (OCI image-spec, image-layout.md): which names it gives to which digests.
//!
//! Several entries of one name that differ in their platform become one index, made here.

use serde::Serialize;

use super::contents::Contents;
use super::name;
use crate::error::{Error, Result};
use crate::image::manifest::{self, Entry, OCI_INDEX, OCI_MANIFEST};
use crate::image::{Descriptor, Manifest, Repository, Tag};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    platform: Platform<'a>,
}

#[derive(Serialize)]
struct Platform<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
}

/// Reads an `index.json`. `default` is the repository of images whose annotation is a tag alone, or missing;
/// `repo_tags` are the names that a `manifest.json` beside it gives to the same images.
/// Errors (`Skip`, `Limit`) when it is no index or names too many images.
pub(super) fn contents(
    bytes: &[u8],
    default: &Repository,
    repo_tags: &[String],
) -> Result<Contents> {
    let mut contents = Contents::default();
    let index = match Manifest::parse(bytes, OCI_INDEX)? {
        Manifest::Index(index) => index,
        Manifest::Image(_) => {
            return Err(Error::skip("`index.json` is not an index"));
        }
    };
    let images: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| manifest::entry_of(entry) == Entry::Image)
        .collect();
    let is_alone = images.len() == 1;
    let mut groups: Vec<((Repository, Tag), Vec<&Descriptor>)> = Vec::new();
    for image in images {
        let only = match repo_tags {
            [only] if is_alone => name::of_repo_tag(only),
            _ => None,
        };
        let key = match annotated(image, default, repo_tags).or(only) {
            Some(name) => name,
            None => (default.clone(), name::of_nameless(&image.digest, is_alone)?),
        };
        match groups.iter_mut().find(|(name, _)| *name == key) {
            Some((_, group)) => group.push(image),
            None => groups.push((key, vec![image])),
        }
    }
    for ((repository, tag), mut group) in groups {
        group.dedup_by(|a, b| a.digest == b.digest);
        if group.len() > 1
            && let Some(bytes) = joined(&group)
        {
            let digest = contents.make(bytes)?;
            contents.add(repository, tag, digest)?;
            continue;
        }
        for image in group {
            contents.add(repository.clone(), tag.clone(), image.digest.clone())?;
        }
    }
    Ok(contents)
}

/// The name that annotations give; of one that `docker save` also lists, the spelling of its list.
fn annotated(
    image: &Descriptor,
    default: &Repository,
    repo_tags: &[String],
) -> Option<(Repository, Tag)> {
    let full = image.annotations.get(CONTAINERD_NAME);
    if let Some(full) = full {
        let listed = repo_tags
            .iter()
            .find(|text| name::in_full(text) == name::in_full(full));
        if let Some(name) = listed.and_then(|text| name::of_repo_tag(text)) {
            return Some(name);
        }
    }
    [full, image.annotations.get(REF_NAME)]
        .into_iter()
        .flatten()
        .find_map(|text| name::of_annotation(text, default))
}

/// An index of `group`; `None` when their platforms are not said or not distinct.
fn joined(group: &[&Descriptor]) -> Option<Vec<u8>> {
    let mut manifests = Vec::new();
    for (at, image) in group.iter().enumerate() {
        let platform = image.platform.as_ref()?;
        let is_taken = |other: &&Descriptor| other.platform.as_ref() == Some(platform);
        if group[..at].iter().any(is_taken) {
            return None;
        }
        manifests.push(Item {
            media_type: match image.media_type.as_str() {
                "" => OCI_MANIFEST,
                media_type => media_type,
            },
            digest: image.digest.as_str(),
            size: image.size,
            platform: Platform {
                architecture: &platform.architecture,
                os: &platform.os,
                variant: platform.variant.as_deref(),
            },
        });
    }
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX,
        manifests,
    };
    serde_json::to_vec(&index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    fn entry(letter: char, more: &str) -> String {
        let digest = letter.to_string().repeat(64);
        format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{digest}","size":5{more}}}"#)
    }

    fn read(entries: &[String], repo_tags: &[&str]) -> Contents {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        );
        let repo_tags: Vec<String> = repo_tags.iter().map(|&text| text.to_owned()).collect();
        contents(text.as_bytes(), &"folder".parse().unwrap(), &repo_tags).unwrap()
    }

    fn names(contents: &Contents) -> Vec<String> {
        let name = |image: &super::super::contents::Image| {
            format!(
                "{}:{} {}",
                image.repository,
                image.tag,
                &image.digest.hex()[..1]
            )
        };
        contents.images.iter().map(name).collect()
    }

    fn named(key: &str, value: &str) -> String {
        format!(r#","annotations":{{"{key}":"{value}"}}"#)
    }

    #[test]
    fn names_come_from_annotations_or_the_place() {
        let attestation = named("vnd.docker.reference.type", "attestation-manifest");
        for (what, entries, repo_tags, want) in [
            (
                "alone",
                vec![entry('a', "")],
                vec![],
                vec!["folder:latest a"],
            ),
            (
                "two without names",
                vec![entry('a', ""), entry('b', "")],
                vec![],
                vec!["folder:aaaaaaaaaaaa a", "folder:bbbbbbbbbbbb b"],
            ),
            (
                "an attestation is no image",
                vec![entry('a', ""), entry('b', &attestation)],
                vec![],
                vec!["folder:latest a"],
            ),
            (
                "tag and reference",
                vec![
                    entry('a', &named(REF_NAME, "1.0")),
                    entry('b', &named(REF_NAME, "r.example/App:2")),
                ],
                vec![],
                vec!["folder:1.0 a", "app:2 b"],
            ),
            (
                "neither tag nor reference",
                vec![entry('a', &named(REF_NAME, "no name"))],
                vec![],
                vec!["folder:latest a"],
            ),
            (
                "containerd",
                vec![entry(
                    'a',
                    &named(CONTAINERD_NAME, "docker.io/library/app:1"),
                )],
                vec![],
                vec!["library/app:1 a"],
            ),
            (
                "docker save lists it too",
                vec![entry(
                    'a',
                    &named(CONTAINERD_NAME, "docker.io/library/app:1"),
                )],
                vec!["other:1", "app:1"],
                vec!["app:1 a"],
            ),
            (
                "docker save lists the only one",
                vec![entry('a', "")],
                vec!["app:1"],
                vec!["app:1 a"],
            ),
        ] {
            assert_eq!(names(&read(&entries, &repo_tags)), want, "{what}");
        }
    }

    #[test]
    fn platforms_of_one_name_become_an_index() {
        let on = |architecture: &str| {
            format!(
                r#","platform":{{"os":"linux","architecture":"{architecture}"}}{}"#,
                named(REF_NAME, "1.0")
            )
        };
        let contents = read(&[entry('a', &on("amd64")), entry('b', &on("arm64"))], &[]);
        let [image] = &contents.images[..] else {
            panic!("{contents:?}")
        };
        let bytes = &contents.made[&image.digest];
        assert_eq!(Digest::of(bytes), image.digest);
        let Manifest::Index(index) = Manifest::parse(bytes, "").unwrap() else {
            panic!("an index")
        };
        let platforms: Vec<String> = index
            .manifests
            .iter()
            .map(|entry| entry.platform.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);

        let contents = read(&[entry('a', &on("amd64")), entry('b', &on("amd64"))], &[]);
        assert_eq!(names(&contents), ["folder:1.0 a"]);
        assert_eq!(
            contents.left_out,
            ["`folder:1.0` names `aaaaaaaaaaaa` already and not `bbbbbbbbbbbb`"]
        );
    }
}
