//! The calls of the API.

use std::sync::Arc;

use serde::Deserialize;
use ureq::http::Method;

use super::auth::{Access, Auth};
use super::blob::Resuming;
use super::page::{self, Extent, Page};
use super::status::status_error;
use crate::error::{Error, Result};
use crate::http::retry::retrying;
use crate::http::{Http, Request, Response, Url};
use crate::image::manifest::{ACCEPT, RawManifest};
use crate::image::{Descriptor, Digest, Repository, Version};
use crate::limit;

/// Page sizes: distribution refuses more than 1,000 for its catalog and answers 100 when not asked.
const CATALOG_PAGE: usize = 100;
const TAGS_PAGE: usize = 1_000;

/// One registry, or one repository key of an Artifactory.
pub(crate) struct Client {
    http: Http,
    /// `https://host/v2/` or `https://host/artifactory/api/docker/<key>/v2/`.
    base: Url,
    auth: Arc<Auth>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default, deserialize_with = "page::names")]
    repositories: Vec<String>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default, deserialize_with = "page::names")]
    tags: Vec<String>,
}

impl Client {
    /// `base` ends with `/v2/`.
    pub(crate) fn new(http: Http, base: Url, access: Access) -> Self {
        let auth = Arc::new(Auth::new(base.origin(), access));
        Client { http, base, auth }
    }

    /// A client of another base on the same server, with the same credentials, tokens and count of refusals.
    pub(crate) fn sibling(&self, path: &str) -> Result<Self> {
        Ok(Client {
            http: self.http.clone(),
            base: self.base.join(path)?,
            auth: Arc::clone(&self.auth),
        })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Forgets what the credentials led to: tokens, the way to sign, refusals. Of all siblings.
    pub(crate) fn forget_credentials(&self) {
        self.auth.forget();
    }

    /// Sends one request to `path`, relative to the base, and returns whatever is answered but a 401.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<&str>,
    ) -> Result<Response> {
        let url = self.base.join(path)?;
        self.auth.send(
            &self.http,
            &Request {
                method,
                url: &url,
                headers,
                authorization: None,
                body,
            },
            "",
        )
    }

    /// Calls `each` for every repository of the catalog. Names that are no repositories are handed on too.
    pub(crate) fn catalog(&self, each: &mut dyn FnMut(&str) -> Result<()>) -> Result<Extent> {
        let fetch = |query: &str| {
            let (catalog, next) =
                self.json::<Catalog>(&format!("_catalog{query}"), "registry:catalog:*")?;
            Ok(Page {
                names: catalog.repositories,
                next,
            })
        };
        page::walk(CATALOG_PAGE, fetch, each).map_err(|err| err.context("listing the catalog"))
    }

    /// Calls `each` for every tag of `repository`.
    pub(crate) fn tags(
        &self,
        repository: &Repository,
        each: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Extent> {
        let fetch = |query: &str| {
            let (tags, next) = self.json::<Tags>(
                &format!("{repository}/tags/list{query}"),
                &scope(repository),
            )?;
            // A repository whose tags were all deleted has `null`.
            Ok(Page {
                names: tags.tags,
                next,
            })
        };
        page::walk(TAGS_PAGE, fetch, each)
            .map_err(|err| err.context(format_args!("listing the tags of `{repository}`")))
    }

    /// The digest that `version` stands for now, by a HEAD request. `None` when the server does not say it.
    pub(crate) fn digest_of(
        &self,
        repository: &Repository,
        version: &Version,
    ) -> Result<Option<Digest>> {
        let path = format!("{repository}/manifests/{version}");
        let response = self.call(
            Method::HEAD,
            &path,
            &[("accept", ACCEPT)],
            &scope(repository),
        )?;
        Ok(response
            .header("docker-content-digest")
            .and_then(|digest| digest.parse().ok()))
    }

    /// A manifest or index with its bytes as received, checked against the digest it was asked by, or else
    /// that the server claims.
    pub(crate) fn manifest(
        &self,
        repository: &Repository,
        version: &Version,
    ) -> Result<RawManifest> {
        let path = format!("{repository}/manifests/{version}");
        retrying(self.http.stop(), || {
            let response = self.call_once(
                Method::GET,
                &path,
                &[("accept", ACCEPT)],
                &scope(repository),
            )?;
            let claimed = response
                .header("docker-content-digest")
                .and_then(|digest| digest.parse::<Digest>().ok());
            let media_type = response.header("content-type").unwrap_or("").to_owned();
            refuse_web_page(&media_type)?;
            let bytes = limit::read_all(response.body, limit::MANIFEST_BYTES, "manifest")?;
            RawManifest::checked(bytes, media_type, version, claimed.as_ref())
        })
    }

    /// The blob of `descriptor` as a reader; its bytes are not checked here.
    pub(crate) fn blob<'a>(
        &'a self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Resuming<'a>> {
        let path = format!("{repository}/blobs/{}", descriptor.digest);
        let scope = scope(repository);
        let open = move |offset: u64| self.open(&path, offset, &scope);
        Resuming::new(descriptor.size, &self.http, Box::new(open))
    }

    /// Asks for a blob from `offset` on; for readers that outlive a borrow of the client.
    pub(crate) fn open(&self, path: &str, offset: u64, scope: &str) -> Result<Response> {
        let range = format!("bytes={offset}-");
        let headers = [("range", range.as_str())];
        self.call(
            Method::GET,
            path,
            if offset == 0 { &[] } else { &headers },
            scope,
        )
    }

    fn json<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        scope: &str,
    ) -> Result<(T, Option<String>)> {
        retrying(self.http.stop(), || {
            let response =
                self.call_once(Method::GET, path, &[("accept", "application/json")], scope)?;
            refuse_web_page(response.header("content-type").unwrap_or(""))?;
            let next = page::next_link(&response);
            let bytes = limit::read_all(response.body, limit::PAGE_BYTES, "page of the listing")?;
            let value = serde_json::from_slice(&bytes).map_err(|err| {
                Error::skip(format_args!(
                    "the answer is not what a registry sends: {err}"
                ))
            })?;
            Ok((value, next))
        })
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        scope: &str,
    ) -> Result<Response> {
        retrying(self.http.stop(), || {
            self.call_once(method.clone(), path, headers, scope)
        })
    }

    fn call_once(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        scope: &str,
    ) -> Result<Response> {
        let url = self.base.join(path)?;
        let request = Request {
            method,
            url: &url,
            headers,
            authorization: None,
            body: None,
        };
        let response = self.auth.send(&self.http, &request, scope)?;
        if matches!(response.status, 200 | 206) {
            Ok(response)
        } else {
            Err(status_error(response))
        }
    }
}

fn scope(repository: &Repository) -> String {
    format!("repository:{repository}:pull")
}

/// A proxy's login page comes with status 200.
fn refuse_web_page(content_type: &str) -> Result<()> {
    if content_type.trim_start().starts_with("text/html") {
        return Err(
            Error::tell("the server answered with a web page, not as a registry")
                .hint("check the address, and whether a login is needed in front of it"),
        );
    }
    Ok(())
}
