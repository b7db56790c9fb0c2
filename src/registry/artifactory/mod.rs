//! JFrog Artifactory: listed by AQL, one query a repository key, read without counting as downloads.
//!
//! The REST base `api/docker/<key>/v2` serves every addressing method, so the method only decides how images
//! are shown. Files are read by their storage path with `skipUpdateStats`, since retention tools delete what
//! nobody downloads and must not take us for somebody; what is not there is read through the registry API.
//!
//! Repository classes: a remote key lists under `<key>-cache`, a virtual one by its members in their order.
//! What a server is like (classes, addressing, whether AQL sorts) is kept for a day, so that a pass over an
//! unchanged key is one request.

mod addressing;
mod aql;
mod files;
mod keys;
mod webhook;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::filter::Filter;
use super::webhook::Webhook;
use super::{
    API, EXCLUDE, INCLUDE, Kind, Listed, Listing, PORT, Place, REGISTRY, REPOSITORY, Setup, Source,
    TYPE, filter_of, oci,
};
use crate::distribution::credentials::Credential;
use crate::distribution::{Access, Client, CredentialSource, Preemptive, Resuming};
use crate::error::{Error, Result};
use crate::http::{Http, Url};
use crate::image::manifest::RawManifest;
use crate::image::{Descriptor, Digest, Repository, Tag, Version};
use crate::limit;
use crate::options::{OptionRow, Values};
use crate::secret::Secret;
use addressing::{Addressing, subdomain_host};
use files::is_absent;
use keys::Member;

pub(crate) const ROW: Kind = Kind {
    name: "artifactory",
    summary: "JFrog Artifactory, self-hosted or in its cloud",
    options: OPTIONS,
    open,
};

const OPTIONS: &[OptionRow] = &[
    TYPE,
    REGISTRY,
    API,
    OptionRow {
        summary: "repository key, such as docker-local; several in quotes",
        is_required: true,
        ..REPOSITORY
    },
    INCLUDE,
    EXCLUDE,
    PORT,
    OptionRow {
        key: "subdomain-mode",
        aliases: &[],
        value: "BOOL",
        summary: "whether images are pulled from <key>.<registry>; found out when not said",
        is_required: false,
        is_list: false,
    },
];

struct Artifactory {
    http: Http,
    /// Base `<api>/`.
    api: Client,
    /// The path of `api`, ending with a slash.
    api_path: String,
    registry: String,
    keys: Vec<String>,
    filter: Filter,
    /// As told by the user.
    addressing: Option<Addressing>,
    learnt: Mutex<BTreeMap<String, String>>,
    n_misses: AtomicU32,
    /// Of `port=`.
    port: Option<u16>,
    /// What senders of webhooks know.
    secret: Option<Secret>,
}

fn open(values: &Values, setup: &Setup<'_>) -> Result<Box<dyn Source>> {
    let text = values.one("api").unwrap_or("").trim_end_matches('/');
    let api: Url = format!("{text}/")
        .parse()
        .map_err(|_| values.wrong("api", "a URL such as https://example.jfrog.io/artifactory"))?;
    let keys: Vec<String> = values
        .many("repository")
        .into_iter()
        .map(str::to_owned)
        .collect();
    if keys
        .iter()
        .any(|key| key.contains('/') || key.parse::<Repository>().is_err())
    {
        return Err(values.wrong("repository", "a repository key, such as docker-local"));
    }
    let registry = values.one("registry").unwrap_or("");
    setup
        .http
        .base_url(registry)
        .map_err(|_| values.wrong("registry", "a host, such as example.jfrog.io"))?;
    let addressing = values.boolean("subdomain-mode")?.map(|is_subdomain| {
        if is_subdomain {
            Addressing::Subdomain
        } else {
            Addressing::Path
        }
    });
    let access = Access {
        credential: credential(registry, setup),
        preemptive: Preemptive::Yes,
        token_realms: setup.token_realms.to_vec(),
    };
    let api_path = api.path().to_owned();
    Ok(Box::new(Artifactory {
        http: setup.http.clone(),
        api: Client::new(setup.http.clone(), api, access),
        api_path,
        registry: registry.to_owned(),
        keys,
        filter: filter_of(values, setup)?,
        addressing,
        learnt: Mutex::default(),
        n_misses: AtomicU32::new(0),
        port: super::port(values)?,
        secret: super::webhook_secret(webhook::SECRET_VARIABLE, setup),
    }))
}

/// The product's own variables, then those for any registry, then Docker's credentials of the registry.
fn credential(registry: &str, setup: &Setup<'_>) -> CredentialSource {
    let variable = |name: &str| (setup.variable)(name).filter(|value| !value.is_empty());
    match (
        variable("ARTIFACTORY_API_USER"),
        variable("ARTIFACTORY_API_PASSWORD"),
    ) {
        (Some(user), Some(password)) => {
            let password = Secret::new(password);
            Box::new(move || {
                Ok(Credential::Basic {
                    user: user.clone(),
                    password: password.clone(),
                })
            })
        }
        // An access token needs no user.
        (None, Some(token)) => {
            let token = Secret::new(token);
            Box::new(move || {
                Ok(Credential::Bearer {
                    token: token.clone(),
                })
            })
        }
        _ => oci::pull_credential(registry, setup),
    }
}

impl Artifactory {
    /// A client of the registry API of one key.
    fn registry_api(&self, key: &str) -> Result<Client> {
        self.api
            .sibling(&format!("{}api/docker/{key}/v2/", self.api_path))
    }

    /// The configured key and the image of a repository of this source.
    fn split<'a>(&self, repository: &'a Repository) -> Result<(&'a str, Repository)> {
        let (key, image) = repository
            .as_str()
            .split_once('/')
            .ok_or_else(|| Error::skip(format_args!("`{repository}` has no repository key")))?;
        Ok((key, image.parse()?))
    }

    /// Lists one configured key: by AQL where it is allowed, else by the registry API.
    fn list_key(
        &self,
        key: &str,
        listing: &mut Listing,
        each: &mut dyn FnMut(Listed) -> Result<()>,
    ) -> Result<()> {
        let class = self.class_of(key)?;
        let members = self.members(key, &class)?;
        for member in &members {
            listing.is_complete &= member.is_complete;
            let refused = match self.list_member(key, member, listing, each) {
                Ok(()) => continue,
                Err(err) if aql::is_refusal(&err) => err,
                Err(err) => return Err(err),
            };
            let result = self.list_by_registry_api(key, listing, each);
            return result
                .map_err(|err| err.context(format_args!("AQL was refused ({refused}), and")));
        }
        Ok(())
    }

    fn list_member(
        &self,
        key: &str,
        member: &Member,
        listing: &mut Listing,
        each: &mut dyn FnMut(Listed) -> Result<()>,
    ) -> Result<()> {
        aql::list(self, &member.key, &mut |image, tag, digest| {
            if !self.takes(key, image) || !self.filter.takes_tag(image, tag) {
                return Ok(());
            }
            match (format!("{key}/{image}").parse(), tag.parse()) {
                (Ok(repository), Ok(tag)) => each(Listed {
                    repository,
                    tag,
                    digest,
                }),
                (Err(err), _) | (_, Err(err)) => {
                    listing.leave_out(format!("{key}/{image}: {err}"));
                    Ok(())
                }
            }
        })
        .map_err(|err| err.context(format_args!("listing `{}`", member.key)))
    }

    fn list_by_registry_api(
        &self,
        key: &str,
        listing: &mut Listing,
        each: &mut dyn FnMut(Listed) -> Result<()>,
    ) -> Result<()> {
        let client = self.registry_api(key)?;
        let mut images = Vec::new();
        let extent = client.catalog(&mut |name| {
            match name.parse::<Repository>() {
                // A name may begin with the key itself; it is an image's name all the same.
                Ok(image) if self.takes(key, name) => images.push(image),
                Ok(_) => {}
                Err(err) => listing.leave_out(err.to_string()),
            }
            Ok(())
        })?;
        listing.note(extent, &format!("the catalog of `{key}`"));
        if images.is_empty() {
            listing.is_complete = false;
            listing.leave_out(format!(
                "the catalog of `{key}` is empty: remote repositories have none; allow AQL for the account, or name a local key"
            ));
        }
        for image in &images {
            let name = format!("{key}/{image}").parse()?;
            oci::list_tags(&client, image, &name, &self.filter, listing, each)?;
        }
        Ok(())
    }

    fn takes(&self, key: &str, image: &str) -> bool {
        self.filter.takes_name(&[
            image,
            &format!("{key}/{image}"),
            &format!("{}/{key}/{image}", self.registry),
        ])
    }

    fn fact(&self, name: &str) -> Option<String> {
        self.learnt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    fn learn(&self, name: &str, value: &str) {
        self.learnt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), value.to_owned());
    }
}

impl Source for Artifactory {
    fn name(&self) -> String {
        format!("artifactory {}", self.registry)
    }

    fn list(&self, each: &mut dyn FnMut(Listed) -> Result<()>) -> Result<Listing> {
        let mut listing = Listing {
            is_complete: true,
            ..Listing::default()
        };
        self.forget_old();
        for key in &self.keys {
            self.probe_addressing(key);
            self.list_key(key, &mut listing, each)
                .map_err(|err| err.context(format_args!("repository key `{key}`")))?;
        }
        Ok(listing)
    }

    fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Digest> {
        let (key, image) = self.split(repository)?;
        let client = self.registry_api(key)?;
        let version = Version::Tag(tag.clone());
        match client.digest_of(&image, &version)? {
            Some(digest) => Ok(digest),
            None => Ok(client.manifest(&image, &version)?.digest),
        }
    }

    fn manifest(&self, place: &Place) -> Result<RawManifest> {
        let asked = Version::Digest(place.digest.clone());
        if let Some(folder) = self.folder(place)? {
            let names = if place.tag.is_some() {
                &["manifest.json", "list.manifest.json"][..]
            } else {
                &["manifest.json"]
            };
            for name in names {
                let response = match self.fetch_file(&format!("{folder}/{name}"), 0) {
                    Ok(response) => response,
                    Err(err) if is_absent(&err) => continue,
                    // The registry API would have it, and count it as a download.
                    Err(err) => return Err(err),
                };
                let bytes = limit::read_all(response.body, limit::MANIFEST_BYTES, "manifest")?;
                // The folder may hold both files, or the tag moved on: then the digest decides.
                if let Ok(manifest) = RawManifest::checked(bytes, String::new(), &asked, None) {
                    self.note(true);
                    return Ok(manifest);
                }
            }
            self.note(false);
        }
        let (key, image) = self.split(&place.repository)?;
        self.registry_api(key)?.manifest(&image, &asked)
    }

    fn blob(&self, place: &Place, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        if let Some(folder) = self.folder(place)? {
            let path = format!(
                "{folder}/{}__{}",
                blob.digest.algorithm(),
                blob.digest.hex()
            );
            let open = move |offset: u64| self.fetch_file(&path, offset);
            match Resuming::new(blob.size, &self.http, Box::new(open)) {
                Ok(blob) => {
                    self.note(true);
                    return Ok(Box::new(blob));
                }
                Err(err) if is_absent(&err) => self.note(false),
                Err(err) => return Err(err),
            }
        }
        let (key, image) = self.split(&place.repository)?;
        let (client, scope) = (self.registry_api(key)?, format!("repository:{image}:pull"));
        let path = format!("{image}/blobs/{}", blob.digest);
        let open = move |offset: u64| client.open(&path, offset, &scope);
        let blob = Resuming::new(blob.size, &self.http, Box::new(open))?;
        Ok(Box::new(blob))
    }

    fn shown(&self, repository: &Repository) -> String {
        match (self.addressing(), repository.as_str().split_once('/')) {
            (Addressing::Subdomain, Some((key, image))) => {
                format!("{}/{image}", subdomain_host(key, &self.registry))
            }
            _ => format!("{}/{repository}", self.registry),
        }
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }

    fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = self
            .learnt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        facts.retain(|_, value| value != keys::UNKNOWN);
        facts
    }

    fn remember(&self, facts: &BTreeMap<String, String>) {
        if keys::are_fresh(facts) {
            self.learnt
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(facts.clone());
        }
    }

    fn forget_credentials(&self) {
        self.api.forget_credentials();
        self.n_misses.store(0, Ordering::Relaxed);
        // What the old ones could not look at.
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        learnt.retain(|_, value| value != keys::UNKNOWN);
    }
}
