//! `tags/list`, `_catalog` and `referrers`, with every form of `Link` that was seen.
//!
//! Source: `reference/registries.md` A2 (listing), G 1-6. *Invariant:* `last` is exclusive and
//! lexicographic, except where the switch `link` makes it a number.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::State;
use super::layout::Manifest;
use super::message::{Request, Response};
use super::repositories::Source;

/// A page of a list and where the next one is.
struct Page {
    entries: Vec<String>,
    link: Option<String>,
}

impl State {
    /// `GET .../tags/list`; `base` is the URL path in front of `/<image>`.
    pub(crate) fn answer_tags(
        &self,
        request: &Request,
        base: &str,
        key: &str,
        image: &str,
    ) -> Response {
        if let Some(status) = self.switches().status("tags") {
            return Response::status_error(status, "Forbidden");
        }
        let mut tags = BTreeSet::new();
        for source in self.sources(key) {
            tags.extend(self.storage().tags(&source.owner(), image));
            if let (Source::Remote(remote), Some(upstream)) = (&source, &self.upstream) {
                if let Some(status) = self.switches().status("remote_status") {
                    return Response::registry_error(
                        status,
                        "TOOMANYREQUESTS",
                        "upstream",
                        json!(null),
                    );
                }
                let upstream_tags = upstream.tags(&format!("{remote}/{image}"));
                tags.extend(upstream_tags.unwrap_or_default());
            }
        }
        if tags.is_empty() {
            return self.missing(
                "NAME_UNKNOWN",
                "Repository name not known to registry",
                image,
            );
        }
        let page = match self.page(request, base, key, &format!("/{image}/tags/list"), tags) {
            Ok(page) => page,
            Err(response) => return response,
        };
        let tags = if self.switches().is("tags", "null") {
            Value::Null
        } else {
            json!(page.entries)
        };
        linked(
            Response::json(200, &json!({"name": image, "tags": tags})),
            page.link,
        )
    }

    /// `GET .../v2/_catalog`.
    pub(crate) fn answer_catalog(&self, request: &Request, base: &str, key: &str) -> Response {
        if let Some(status) = self.switches().status("catalog") {
            return Response::status_error(status, "Forbidden");
        }
        let mut images = BTreeSet::new();
        for source in self.sources(key) {
            if matches!(source, Source::Remote(_)) {
                let pause = self.switches().pause("remote_catalog_delay_ms");
                std::thread::sleep(pause);
                if self.switches().is("remote_catalog", "empty") {
                    continue;
                }
            }
            images.extend(self.storage().images(&source.owner()));
        }
        match self.page(request, base, key, "/_catalog", images) {
            Ok(page) => linked(
                Response::json(200, &json!({"repositories": page.entries})),
                page.link,
            ),
            Err(response) => response,
        }
    }

    /// Cuts a list to the page that was asked for; `tail` is the path behind `base`.
    fn page(
        &self,
        request: &Request,
        base: &str,
        key: &str,
        tail: &str,
        entries: BTreeSet<String>,
    ) -> Result<Page, Response> {
        let switches = self.switches();
        let style = switches.text("link");
        let asked = match request.parameter("n").map(str::parse::<u64>) {
            Some(Err(_)) => return Err(Response::status_error(404, "Not Found")),
            Some(Ok(n)) => Some(n),
            None => None,
        };
        let refuse_over = switches.number("page_refuse_over");
        if refuse_over > 0 && asked.is_some_and(|n| n > refuse_over) {
            let detail = json!({"n": asked});
            let message = "invalid number of results requested";
            return Err(Response::registry_error(
                400,
                "PAGINATION_NUMBER_INVALID",
                message,
                detail,
            ));
        }
        let cap = match switches.number("page_max") {
            0 => u64::MAX,
            cap => cap,
        };
        let size = usize::try_from(asked.unwrap_or(cap).min(cap)).unwrap_or(usize::MAX);
        let last = request.parameter("last").unwrap_or("");
        let start = if style == "numeric" {
            last.parse().unwrap_or(0)
        } else {
            // BTreeSet is sorted, so this is the number of entries up to and including `last`.
            match last {
                "" => 0,
                last => entries
                    .iter()
                    .take_while(|entry| entry.as_str() <= last)
                    .count(),
            }
        };
        let total = entries.len();
        let entries: Vec<String> = entries.into_iter().skip(start).take(size).collect();
        let truncated = size > 0 && start + entries.len() < total;
        let next = match style {
            "numeric" => (start + entries.len()).to_string(),
            "loop" => last.to_owned(),
            _ => entries.last().cloned().unwrap_or_default(),
        };
        let without_key = format!("/v2{tail}");
        let with_key = format!("/v2/{key}{tail}");
        let same_base = format!("{base}{tail}");
        let path = match style {
            "absent" => None,
            "live" if tail == "/_catalog" => Some(without_key),
            "live" => Some(with_key),
            "no-key" | "numeric" => Some(without_key),
            "foreign" => Some(format!("http://foreign.invalid{same_base}")),
            "absolute" => {
                let host = request.header("host").unwrap_or("localhost");
                Some(format!("http://{host}{same_base}"))
            }
            _ => Some(same_base),
        };
        let link = path
            .filter(|_| truncated)
            .map(|path| format!("<{path}?last={next}&n={size}>; rel=\"next\""));
        Ok(Page { entries, link })
    }

    /// `GET .../referrers/<digest>`.
    pub(crate) fn answer_referrers(
        &self,
        request: &Request,
        key: &str,
        image: &str,
        digest: &str,
    ) -> Response {
        if !self.switches().on("referrers") {
            return Response::status_error(404, "Not Found");
        }
        let wanted = request.parameter("artifactType");
        let mut descriptors = Vec::new();
        for source in self.sources(key) {
            let storage = self.storage();
            let Some(tree) = storage.tree(&source.owner()) else {
                continue;
            };
            for (_, item) in tree.below(image) {
                if item.subject.as_deref() != Some(digest) {
                    continue;
                }
                let bytes = self.bytes_of(&item.content).unwrap_or_default();
                let manifest = Manifest::parse(&bytes, &item.media_type);
                let kind = match manifest.value["artifactType"].as_str() {
                    Some(kind) => Some(kind),
                    None => manifest.value["config"]["mediaType"].as_str(),
                };
                if wanted.is_some() && wanted != kind {
                    continue;
                }
                let mut descriptor = json!({
                    "mediaType": manifest.media_type,
                    "digest": format!("sha256:{}", item.content.sha256),
                    "size": item.content.size,
                    "artifactType": kind,
                });
                if manifest.value["annotations"].is_object() {
                    descriptor["annotations"] = manifest.value["annotations"].clone();
                }
                // The same manifest can be stored under a tag and under its digest.
                if !descriptors.contains(&descriptor) {
                    descriptors.push(descriptor);
                }
            }
        }
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": descriptors});
        let response = Response::new(200).body(media_type, index.to_string().into_bytes());
        match wanted {
            Some(_) => response.header("OCI-Filters-Applied", "artifactType"),
            None => response,
        }
    }
}

fn linked(response: Response, link: Option<String>) -> Response {
    match link {
        Some(link) => response.header("Link", link),
        None => response,
    }
}
