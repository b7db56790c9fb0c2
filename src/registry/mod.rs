//! Products that hold images: what they have, and how its bytes are read.
//!
//! In: a `--registry` string. Out: a [`Source`], which lists tags and hands out manifests and blobs. One file
//! or folder per product, each with a `const ROW: Kind`; to add one: a new file and its name in [`ALL`].
//!
//! Errors: `Tell` for wrong options and refused credentials, else as [`crate::distribution`].
//!
//! *Invariant:* a source lists and reads; it never decides what is new or wanted, and keeps nothing but what
//! it learnt of its server ([`Source::facts`]).

mod artifactory;
mod dir;
pub(crate) mod filter;
mod notifications;
mod oci;
pub(crate) mod webhook;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use crate::distribution::Extent;
use crate::distribution::credentials::Keychain;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::image::manifest::RawManifest;
use crate::image::{Descriptor, Digest, Repository, Tag};
use crate::log::Log;
use crate::options::{self, OptionRow, Parsed, Values};
use crate::secret::Secret;
use filter::Filter;
use webhook::Webhook;

/// Every product, in the order in which help shows them.
pub(crate) const ALL: &[&Kind] = &[&artifactory::ROW, &HARBOR, &NEXUS, &oci::ROW, &dir::ROW];

/// A product: one row of the table.
pub(crate) struct Kind {
    /// The value of `type=`.
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) options: &'static [OptionRow],
    /// Checks the options and makes the source. Sends nothing.
    pub(crate) open: fn(&Values, &Setup<'_>) -> Result<Box<dyn Source>>,
}

/// Harbor and Nexus keep their row, so that a pasted command line is understood.
const HARBOR: Kind = Kind {
    name: "harbor",
    summary: "Harbor (not supported yet)",
    options: LATER,
    open: not_yet,
};
const NEXUS: Kind = Kind {
    name: "nexus",
    summary: "Sonatype Nexus (not supported yet)",
    options: LATER,
    open: not_yet,
};
const LATER: &[OptionRow] = &[TYPE, REGISTRY, API, REPOSITORY, INCLUDE, EXCLUDE, PORT];

fn not_yet(values: &Values, _: &Setup<'_>) -> Result<Box<dyn Source>> {
    let kind = values.one("type").unwrap_or("");
    Err(
        Error::tell(format_args!("type={kind} is not supported yet"))
            .hint("its images can be read by name: type=oci,registry=HOST"),
    )
}

/// What a source is made with, besides its options.
pub(crate) struct Setup<'a> {
    pub(crate) http: &'a Http,
    pub(crate) keychain: &'a Arc<Keychain>,
    /// Hosts beside a registry's own whose token endpoints may get its credentials.
    pub(crate) token_realms: &'a [String],
    /// An environment variable, by the name behind `CROWSNEST_` (or, as a fallback, `DOCKER_SCOUT_`).
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The filter of `--tag`.
    pub(crate) tags: &'a [String],
    /// Told what is left out.
    pub(crate) log: Option<&'a Arc<Log>>,
}

/// A tag in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Unique inside the source: for Artifactory it begins with the repository key.
    pub(crate) repository: Repository,
    pub(crate) tag: Tag,
    /// When the listing says it.
    pub(crate) digest: Option<Digest>,
}

/// How a listing went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Whether a tag that is not in it does not exist any more. A cache lists what it fetched.
    pub(crate) is_complete: bool,
    /// The repositories of which that is so, when it is not of all.
    pub(crate) complete: Vec<Repository>,
    /// Names that were left out and why; at most a few, the rest is in `n_left_out`.
    pub(crate) left_out: Vec<String>,
    pub(crate) n_left_out: u64,
    /// Repositories of which nothing is known, though something is there.
    pub(crate) n_failed: u64,
}

impl Listing {
    /// Notes that a part of the listing, named by `what`, was not seen to its end.
    fn note(&mut self, extent: Extent, what: &str) {
        if extent == Extent::Cut {
            self.is_complete = false;
            self.leave_out(format!(
                "the pages of {what} go in circles; there may be more"
            ));
        }
    }

    /// Counts something that was left out of the listing, and keeps the first reasons.
    pub(crate) fn leave_out(&mut self, reason: impl Into<String>) {
        self.n_left_out += 1;
        if self.left_out.len() < 10 {
            self.left_out.push(reason.into());
        }
    }

    /// Counts a repository whose tags cannot be had; its reason goes before those of single names.
    pub(crate) fn fail(&mut self, reason: impl Into<String>) {
        self.is_complete = false;
        self.n_failed += 1;
        self.n_left_out += 1;
        self.left_out.insert(0, reason.into());
        self.left_out.truncate(10);
    }
}

/// A manifest to be read; blobs of an image are asked for at its manifest's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) repository: Repository,
    /// The tag under which it stands; `None` for a manifest inside an index.
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Digest,
}

/// A registry, an Artifactory, a folder.
pub(crate) trait Source: Send + Sync {
    /// Names the source in the store and in messages: `oci registry.example.com`.
    fn name(&self) -> String;

    /// Calls `each` for every tag that the filter takes.
    fn list(&self, each: &mut dyn FnMut(Listed) -> Result<()>) -> Result<Listing>;

    /// The digest a tag points to now.
    fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Digest>;

    /// A manifest or index, its digest checked.
    fn manifest(&self, place: &Place) -> Result<RawManifest>;

    /// A blob of the manifest at `place`; its bytes are not checked here.
    fn blob(&self, place: &Place, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>>;

    /// The repository as users name it when they pull.
    fn shown(&self, repository: &Repository) -> String;

    /// The webhook that tells of its changes, where there is one.
    fn webhook(&self) -> Option<&dyn Webhook> {
        None
    }

    /// What was learnt of the server, to be given back by [`Source::remember`] in the next process.
    fn facts(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Takes what an earlier process learnt.
    fn remember(&self, _facts: &BTreeMap<String, String>) {}

    /// Forgets what was learnt with credentials that may be others now: tokens, refusals, what was forbidden.
    fn forget_credentials(&self) {}
}

/// Reads the files of credentials again and lets all sources begin anew with them. Those that variables gave
/// stay as they are. Errors as [`Keychain::reload`]; then nothing has changed.
pub(crate) fn reload_credentials(keychain: &Keychain, sources: &[Box<dyn Source>]) -> Result<()> {
    keychain.reload()?;
    for source in sources {
        source.forget_credentials();
    }
    Ok(())
}

// The options that several products share, with one meaning each.
const REGISTRY: OptionRow = OptionRow {
    key: "registry",
    aliases: &[],
    value: "HOST[:PORT]",
    summary: "host that images are pulled from",
    is_required: true,
    is_list: false,
};
const API: OptionRow = OptionRow {
    key: "api",
    aliases: &[],
    value: "URL",
    summary: "base URL of the product's REST API",
    is_required: true,
    is_list: false,
};
const REPOSITORY: OptionRow = OptionRow {
    key: "repository",
    aliases: &[],
    value: "NAME",
    summary: "repository of the product to read; several in quotes",
    is_required: false,
    is_list: true,
};
const INCLUDE: OptionRow = OptionRow {
    key: "include",
    aliases: &["includes"],
    value: "GLOB",
    summary: "only images whose name matches; `*` crosses `/`",
    is_required: false,
    is_list: true,
};
const EXCLUDE: OptionRow = OptionRow {
    key: "exclude",
    aliases: &["excludes"],
    value: "GLOB",
    summary: "no images whose name matches, whatever is included",
    is_required: false,
    is_list: true,
};
const PORT: OptionRow = OptionRow {
    key: "port",
    aliases: &[],
    value: "PORT",
    summary: "port of this machine to receive webhooks on",
    is_required: false,
    is_list: false,
};
const TYPE: OptionRow = OptionRow {
    key: "type",
    aliases: &[],
    value: "KIND",
    summary: "artifactory, harbor, nexus, oci or dir",
    is_required: true,
    is_list: false,
};

/// Makes the source that a `--registry` value describes. Errors (`Tell`) name the key and its place.
pub(crate) fn open(text: &str, setup: &Setup<'_>) -> Result<Box<dyn Source>> {
    let pairs = match options::parse(text)? {
        Parsed::Host(host) => return oci::open_host(&host, &[], setup),
        Parsed::Pairs(pairs) => pairs,
    };
    let Some(kind) = pairs.iter().find(|pair| pair.key == "type") else {
        return Err(Error::tell("key `type` is missing")
            .hint("begin with type=artifactory, type=oci or type=dir"));
    };
    let names = || ALL.iter().map(|row| row.name);
    let Some(row) = ALL.iter().find(|row| row.name == kind.value) else {
        let guess = options::nearest(&kind.value, names())
            .map(|name| format!("; did you mean `{name}`?"))
            .unwrap_or_default();
        let known = options::listed(names());
        return Err(Error::tell(format_args!(
            "column {}: key `type`: expected {known}{guess}",
            kind.column
        )));
    };
    let values = options::check(&pairs, row.options, &format!("type={}", row.name))?;
    (row.open)(&values, setup)
}

/// Makes the sources of `--repository` references, one for each registry host.
pub(crate) fn open_repositories(
    references: &[String],
    setup: &Setup<'_>,
) -> Result<Vec<Box<dyn Source>>> {
    let mut by_host: BTreeMap<String, Vec<Repository>> = BTreeMap::new();
    for text in references {
        let reference: crate::image::Reference = text
            .parse()
            .map_err(|err: Error| Error::tell(err).context("--repository"))?;
        if reference.tag.is_some() || reference.digest.is_some() {
            return Err(
                Error::tell(format_args!("--repository: `{text}` names one image"))
                    .hint("give the repository alone; choose tags with --tag"),
            );
        }
        let (host, repository) = match reference.host {
            Some(host) => (host, reference.repository),
            None => (
                oci::HUB_NAME.to_owned(),
                oci::hub_repository(&reference.repository)?,
            ),
        };
        by_host.entry(host).or_default().push(repository);
    }
    by_host
        .iter()
        .map(|(host, repositories)| oci::open_host(host, repositories, setup))
        .collect()
}

/// The port for webhooks.
fn port(values: &Values) -> Result<Option<u16>> {
    let port = values.number("port", 1..=65_535)?;
    Ok(port.and_then(|port| u16::try_from(port).ok()))
}

/// The value of a variable that holds a webhook's secret, unless it is empty.
fn webhook_secret(name: &str, setup: &Setup<'_>) -> Option<Secret> {
    (setup.variable)(name)
        .filter(|value| !value.is_empty())
        .map(Secret::new)
}

/// The filter that a source's options and `--tag` make.
fn filter_of(values: &Values, setup: &Setup<'_>) -> Result<Filter> {
    let filter = Filter::new(&values.many("include"), &values.many("exclude"), setup.tags)?;
    Ok(filter.telling(setup.log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Settings;
    use crate::stop::Stop;

    /// What making the source of `text` comes to: its name, or the error.
    fn opened(text: &str) -> String {
        let http = Http::new(&Settings::default(), Stop::default()).unwrap();
        let keychain = Arc::new(Keychain::load(&|_| None).unwrap());
        let setup = Setup {
            http: &http,
            keychain: &keychain,
            token_realms: &[],
            variable: &|_| None,
            tags: &[],
            log: None,
        };
        open(text, &setup).map_or_else(|err| err.to_string(), |source| source.name())
    }

    #[test]
    fn command_lines_of_docker_scout_are_understood() {
        for (text, want) in [
            (
                "type=artifactory,registry=example.jfrog.io,api=https://example.jfrog.io/artifactory,\
                 include=*/frontend*,exclude=*/dta/*,repository=docker-local,port=9000,subdomain-mode=true",
                "artifactory example.jfrog.io",
            ),
            (
                "type=harbor,registry=demo.goharbor.io,api=https://demo.goharbor.io,include=*/foo/*,exclude=*/bar/*,port=9000",
                "type=harbor is not supported yet",
            ),
            (
                "type=nexus,registry=localhost:8082,api=http://localhost:8081,include=*/foo/*,exclude=*/bar/*,\
                 \"repository=docker-test1,docker-test2\",port=9000",
                "type=nexus is not supported yet",
            ),
            (
                "type=oci,registry=registry.example.com,include=*/scout-artifact-registry/*",
                "oci registry.example.com",
            ),
            ("registry.example.com:5000", "oci registry.example.com:5000"),
            ("docker.io", "oci docker.io"),
        ] {
            assert_eq!(opened(text), want, "{text}");
        }
    }

    #[test]
    fn a_reload_of_credentials_is_a_new_chance() {
        let refusal =
            "HTTP/1.1 401 \r\nWWW-Authenticate: Basic realm=\"r\"\r\nConnection: close\r\n\r\n";
        let digest = format!("sha256:{}", "0".repeat(64));
        let good = format!(
            "HTTP/1.1 200 \r\nDocker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n"
        );
        let mut answers = vec![refusal.to_owned(); 4];
        answers.push(good);
        let (url, serving) = crate::http::tests::server(answers);
        let http = Http::new(&Settings::default(), Stop::default()).unwrap();
        let keychain = Arc::new(Keychain::load(&|_| None).unwrap());
        let setup = Setup {
            http: &http,
            keychain: &keychain,
            token_realms: &[],
            variable: &|name| {
                name.starts_with("REGISTRY_")
                    .then(|| "x".to_owned())
                    .filter(|_| name != "REGISTRY_TOKEN")
            },
            tags: &[],
            log: None,
        };
        let sources = [open(&url.origin().authority(), &setup).unwrap()];
        let ask = || sources[0].resolve(&"app".parse().unwrap(), &"1".parse().unwrap());
        for said in [
            "answered 401",
            "answered 401",
            "refused the credentials before",
        ] {
            let err = ask().unwrap_err().to_string();
            assert!(err.contains(said), "{err}");
        }
        reload_credentials(&keychain, &sources).unwrap();
        assert_eq!(ask().unwrap().to_string(), digest);
        assert_eq!(serving.join().unwrap(), 5);
    }

    #[test]
    fn mistakes_name_the_key_and_its_place() {
        for (text, want) in [
            (
                "type=artifactry,registry=x",
                "column 1: key `type`: expected",
            ),
            ("registry=x", "key `type` is missing"),
            ("type=oci,registry=x,port=0", "key `port`"),
            ("type=oci,registy=x", "did you mean `registry`?"),
            (
                "type=artifactory,registry=x,api=x,repository=y",
                "key `api`: expected a URL",
            ),
        ] {
            let found = opened(text);
            assert!(found.contains(want), "{text}: {found}");
        }
    }
}
