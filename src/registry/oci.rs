//! Any registry that speaks the OCI distribution API, listed by its catalog or by names.

use std::io::Read;
use std::sync::Arc;

use super::filter::Filter;
use super::webhook::Webhook;
use super::{
    EXCLUDE, INCLUDE, Kind, Listed, Listing, PORT, Place, REGISTRY, REPOSITORY, Setup, Source,
    TYPE, filter_of,
};
use crate::distribution::credentials::Credential;
use crate::distribution::{Access, Client, CredentialSource, Preemptive};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::image::manifest::RawManifest;
use crate::image::{Descriptor, Digest, Repository, Tag, Version};
use crate::options::{OptionRow, Values};
use crate::secret::Secret;

pub(crate) const ROW: Kind = Kind {
    name: "oci",
    summary: "any registry of the OCI distribution API",
    options: OPTIONS,
    open,
};

const OPTIONS: &[OptionRow] = &[TYPE, REGISTRY, REPOSITORY, INCLUDE, EXCLUDE, PORT];

/// The variable, behind its prefix, that holds the expected value of `Authorization`.
pub(super) const SECRET_VARIABLE: &str = "OCI_WEBHOOK_AUTH";

/// How people call Docker Hub, and where its API is.
pub(super) const HUB_NAME: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

pub(super) struct Oci {
    client: Client,
    /// As users name it.
    pub(super) host: String,
    /// Empty means all of the catalog.
    pub(super) repositories: Vec<Repository>,
    pub(super) filter: Filter,
    /// Of `port=`.
    pub(super) port: Option<u16>,
    /// What senders of notifications know.
    pub(super) secret: Option<Secret>,
}

fn open(values: &Values, setup: &Setup<'_>) -> Result<Box<dyn Source>> {
    let host = values.one("registry").unwrap_or("");
    let repositories = values
        .many("repository")
        .into_iter()
        .map(|name| {
            name.parse()
                .map_err(|_| values.wrong("repository", "a repository name, such as team/app"))
        })
        .collect::<Result<Vec<Repository>>>()?;
    let port = super::port(values)?;
    make(host, repositories, filter_of(values, setup)?, port, setup)
}

/// The source of a plain host.
pub(super) fn open_host(
    host: &str,
    repositories: &[Repository],
    setup: &Setup<'_>,
) -> Result<Box<dyn Source>> {
    make(
        host,
        repositories.to_vec(),
        Filter::new(&[], &[], setup.tags)?.telling(setup.log),
        None,
        setup,
    )
}

fn make(
    host: &str,
    repositories: Vec<Repository>,
    filter: Filter,
    port: Option<u16>,
    setup: &Setup<'_>,
) -> Result<Box<dyn Source>> {
    let is_hub = matches!(host, HUB_NAME | "index.docker.io" | HUB_HOST);
    let (host, api_host) = if is_hub {
        (HUB_NAME, HUB_HOST)
    } else {
        (host, host)
    };
    let base = setup
        .http
        .base_url(api_host)
        .and_then(|url| url.join("/v2/"))
        .map_err(|err| err.context(format_args!("registry `{host}`")))?;
    let access = Access {
        credential: pull_credential(host, setup),
        preemptive: Preemptive::No,
        token_realms: setup.token_realms.to_vec(),
    };
    let client = Client::new(setup.http.clone(), base, access);
    Ok(Box::new(Oci {
        client,
        host: host.to_owned(),
        repositories,
        filter,
        port,
        secret: super::webhook_secret(SECRET_VARIABLE, setup),
    }))
}

/// Credentials for pulls: the variables for any registry, then Docker's own.
pub(super) fn pull_credential(host: &str, setup: &Setup<'_>) -> CredentialSource {
    let variable = |name: &str| (setup.variable)(name).filter(|value| !value.is_empty());
    let given = match (
        variable("REGISTRY_TOKEN"),
        variable("REGISTRY_USER"),
        variable("REGISTRY_PASSWORD"),
    ) {
        (Some(token), _, _) => Some(Credential::Bearer {
            token: Secret::new(token),
        }),
        (None, Some(user), Some(password)) => Some(Credential::Basic {
            user,
            password: Secret::new(password),
        }),
        _ => None,
    };
    let (keychain, host) = (Arc::clone(setup.keychain), host.to_owned());
    Box::new(move || match &given {
        Some(credential) => Ok(credential.clone()),
        None => keychain.credential(&host, None),
    })
}

/// Docker Hub's official images live under `library/`.
pub(super) fn hub_repository(repository: &Repository) -> Result<Repository> {
    if repository.as_str().contains('/') {
        Ok(repository.clone())
    } else {
        format!("library/{repository}").parse()
    }
}

impl Oci {
    fn list_tags(
        &self,
        repository: &Repository,
        listing: &mut Listing,
        each: &mut dyn FnMut(Listed) -> Result<()>,
    ) -> Result<()> {
        list_tags(
            &self.client,
            repository,
            repository,
            &self.filter,
            listing,
            each,
        )
    }
}

/// Lists the tags of `repository`, which the source calls `name`. A repository of the catalog whose tags are
/// all deleted answers 404, and has none. A repository that cannot be listed is noted and does not stop the
/// others; errors concern the whole server.
pub(super) fn list_tags(
    client: &Client,
    repository: &Repository,
    name: &Repository,
    filter: &Filter,
    listing: &mut Listing,
    each: &mut dyn FnMut(Listed) -> Result<()>,
) -> Result<()> {
    let result = client.tags(repository, &mut |tag| match tag.parse::<Tag>() {
        Ok(tag) if filter.takes_tag(name.as_str(), tag.as_str()) => each(Listed {
            repository: name.clone(),
            tag,
            digest: None,
        }),
        Ok(_) => Ok(()),
        Err(err) => {
            listing.leave_out(format!("{name}: {err}"));
            Ok(())
        }
    });
    match result {
        Ok(extent) => {
            listing.note(extent, &format!("`{name}`"));
            Ok(())
        }
        Err(err) if err.status() == Some(404) => Ok(()),
        Err(err) if err.kind() == ErrorKind::Tell && err.status() == Some(403) => {
            listing.is_complete = false;
            listing.leave_out(format!("{name}: {err}"));
            Ok(())
        }
        Err(err)
            if matches!(err.kind(), ErrorKind::Skip | ErrorKind::Limit)
                || err.status().is_some_and(|status| status >= 500) =>
        {
            listing.fail(format!("{name}: {err}"));
            Ok(())
        }
        Err(err) => Err(err),
    }
}

impl Source for Oci {
    fn name(&self) -> String {
        format!("oci {}", self.host)
    }

    fn list(&self, each: &mut dyn FnMut(Listed) -> Result<()>) -> Result<Listing> {
        let mut listing = Listing {
            is_complete: true,
            ..Listing::default()
        };
        if !self.repositories.is_empty() {
            for repository in &self.repositories {
                listing.is_complete = true;
                self.list_tags(repository, &mut listing, each)?;
                if listing.is_complete {
                    listing.complete.push(repository.clone());
                }
            }
            // Repositories that were not asked for are not gone.
            listing.is_complete = false;
            return Ok(listing);
        }
        // One text, since half a million values of their own would take several times its memory.
        let mut names = String::new();
        let mut n_names = 0;
        let result = self.client.catalog(&mut |name| {
            n_names += 1;
            match name.parse::<Repository>() {
                Ok(_) => {
                    if self
                        .filter
                        .takes_name(&[name, &format!("{}/{name}", self.host)])
                    {
                        names.push_str(name);
                        names.push('\n');
                    }
                }
                Err(err) => listing.leave_out(err.to_string()),
            }
            Ok(())
        });
        let by_name = "registries may hide their catalog; name the repositories with --repository";
        let result = result.map_err(|err| match err.status() {
            Some(status @ (403 | 404 | 405 | 501)) => {
                Error::tell(err).with_status(status).hint(by_name)
            }
            _ => err,
        });
        listing.note(result?, "the catalog");
        if n_names == 0 {
            listing.is_complete = false;
            listing.leave_out(format!(
                "the catalog of `{}` is empty: {by_name}",
                self.host
            ));
        }
        for name in names.lines() {
            self.list_tags(&name.parse()?, &mut listing, each)?;
        }
        Ok(listing)
    }

    fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Digest> {
        let version = Version::Tag(tag.clone());
        match self.client.digest_of(repository, &version)? {
            Some(digest) => Ok(digest),
            None => Ok(self.client.manifest(repository, &version)?.digest),
        }
    }

    fn manifest(&self, place: &Place) -> Result<RawManifest> {
        self.client
            .manifest(&place.repository, &Version::Digest(place.digest.clone()))
    }

    fn blob(&self, place: &Place, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        if blob.is_foreign {
            return self
                .client
                .blob(&place.repository, blob)
                .map(|blob| Box::new(blob) as _)
                .map_err(|err| {
                    let is_missing = err.status() == Some(404);
                    let err = err.context("layer outside of the registry");
                    if is_missing {
                        Error::new(ErrorKind::Limit, err)
                            .hint("such layers are not fetched from elsewhere")
                    } else {
                        err
                    }
                });
        }
        Ok(Box::new(self.client.blob(&place.repository, blob)?))
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }

    fn shown(&self, repository: &Repository) -> String {
        format!("{}/{repository}", self.host)
    }

    fn forget_credentials(&self) {
        self.client.forget_credentials();
    }
}
