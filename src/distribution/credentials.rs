//! Who we are to a registry, as `docker login` and its kin have stored it.
//!
//! In: the environment, `config.json` of Docker or `auth.json` of podman, credential helpers. Out: a
//! [`Credential`] for a host. The order is that of the Docker CLI (docker/cli, `cli/config/configfile`):
//! `DOCKER_AUTH_CONFIG`, then `credHelpers` of the host, then `credsStore`, and the `auths` of the file
//! only when no helper is named. Podman's files (containers-auth.json(5)) are read when Docker has none;
//! their keys may be narrower than a host, `host/namespace/repository`, and the longest counts.
//!
//! What a helper says is kept for [`KEPT`], and so is the file, since helpers give secrets that expire and
//! people log in while we run. [`Keychain::reload`] reads both anew at once.
//!
//! *Invariant:* a secret is in a [`Secret`] or on the stack of a function here, and no error quotes a file;
//! no lock is held while a helper runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::distribution::credential_helper::{HELPER_TIME, ask};
use crate::error::{Context, Error, Result};
use crate::limit::{self, read_all};
use crate::secret::Secret;

/// How long an answer of a helper, and the file, are used before they are asked for again.
const KEPT: Duration = Duration::from_secs(300);
/// The key of Docker Hub in files and for helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The names of Docker Hub's registry.
const HUB_HOSTS: &[&str] = &["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Some tools leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What to show to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    Anonymous,
    Basic {
        user: String,
        password: Secret,
    },
    /// An OAuth refresh token, to be exchanged at the token realm.
    Identity {
        token: Secret,
    },
    /// A token for the registry itself.
    Bearer {
        token: Secret,
    },
}

/// Finds credentials. Shared by all threads.
pub(crate) struct Keychain {
    /// Of `DOCKER_AUTH_CONFIG`.
    inline: BTreeMap<String, Credential>,
    warning: Option<String>,
    /// Files in the order in which they are looked for.
    candidates: Vec<(PathBuf, Dialect)>,
    /// The folders of `PATH`.
    path: Vec<PathBuf>,
    file: Mutex<(Instant, Arc<AuthFile>)>,
    /// By helper and key.
    answers: Mutex<BTreeMap<(String, String), (Instant, Credential)>>,
}

/// Whose rules a file follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Docker,
    Podman,
}

/// A file as read, or what stands for it when there is none.
struct AuthFile {
    path: PathBuf,
    dialect: Dialect,
    config: Config,
}

/// Docker's `config.json`, what concerns us.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
    auths: Option<BTreeMap<String, Option<Entry>>>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The JSON of `DOCKER_AUTH_CONFIG`, stricter than the file as in the Docker CLI.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InlineConfig {
    #[serde(default)]
    auths: BTreeMap<String, InlineEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InlineEntry {
    auth: String,
}

impl Keychain {
    /// Reads the environment and the file that is there, if any. Errors (`Tell`) when a file is there and
    /// cannot be read, is larger than [`limit::CREDENTIAL_FILE_BYTES`], or is not the JSON expected.
    pub(crate) fn load(env: &dyn Fn(&str) -> Option<String>) -> Result<Keychain> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let (inline, warning) = match set("DOCKER_AUTH_CONFIG").map(|text| inline(&text)) {
            None => (BTreeMap::new(), None),
            Some(Ok(inline)) => (inline, None),
            Some(Err(err)) => (
                BTreeMap::new(),
                Some(format!("DOCKER_AUTH_CONFIG is ignored: {err}")),
            ),
        };
        let candidates = candidates(&set);
        let path = set("PATH")
            .map(|path| std::env::split_paths(&path).collect())
            .unwrap_or_default();
        let file = read_first(&candidates)?;
        Ok(Keychain {
            inline,
            warning,
            candidates,
            path,
            file: Mutex::new((Instant::now(), Arc::new(file))),
            answers: Mutex::default(),
        })
    }

    /// Reads the file anew and forgets what helpers said, so that the next request shows what is there now.
    /// `DOCKER_AUTH_CONFIG` stays, since the environment of a process does. Errors as [`Keychain::load`]; then
    /// the file and the answers from before are still used.
    pub(crate) fn reload(&self) -> Result<()> {
        let file = Arc::new(read_first(&self.candidates)?);
        *lock(&self.file) = (Instant::now(), file);
        // Behind the file: who asked a helper of the old one may still add its answer until then.
        lock(&self.answers).clear();
        Ok(())
    }

    /// What was ignored while loading, to be logged once. Without secrets.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The credential for `host` (`registry.example.com:5000`, as in references) and, where the file is
    /// podman's, for the repository in it. Anonymous when nothing is known. Errors when the helper does,
    /// see [`ask`], when the entry is malformed (`Tell`), and as in [`Keychain::load`] when the file has
    /// been made unreadable meanwhile.
    pub(crate) fn credential(&self, host: &str, repository: Option<&str>) -> Result<Credential> {
        self.credential_at(Instant::now(), host, repository)
    }

    fn credential_at(
        &self,
        now: Instant,
        host: &str,
        repository: Option<&str>,
    ) -> Result<Credential> {
        let names = names(host);
        if let Some(credential) = names.iter().find_map(|name| self.inline.get(*name)) {
            return Ok(credential.clone());
        }
        let file = self.file(now)?;
        match file.helper(&names) {
            Some(helper) => self.ask(now, &file, helper, names[0]),
            None => file
                .credential(&names, repository)
                .context(|| format!("credentials of `{host}` in `{}`", file.path.display())),
        }
    }

    /// The file, read again when it is older than [`KEPT`].
    fn file(&self, now: Instant) -> Result<Arc<AuthFile>> {
        let is_fresh = |read: Instant| now.saturating_duration_since(read) < KEPT;
        {
            let kept = lock(&self.file);
            if is_fresh(kept.0) {
                return Ok(Arc::clone(&kept.1));
            }
        }
        let file = Arc::new(read_first(&self.candidates)?);
        *lock(&self.file) = (now, Arc::clone(&file));
        Ok(file)
    }

    fn ask(
        &self,
        now: Instant,
        file: &Arc<AuthFile>,
        helper: &str,
        key: &str,
    ) -> Result<Credential> {
        let place = (helper.to_owned(), key.to_owned());
        if let Some((asked, credential)) = lock(&self.answers).get(&place)
            && now.saturating_duration_since(*asked) < KEPT
        {
            return Ok(credential.clone());
        }
        let credential = ask(helper, key, &self.path, HELPER_TIME)?;
        let mut answers = lock(&self.answers);
        // One that was asked before a reload may be the old one.
        if Arc::ptr_eq(&lock(&self.file).1, file) {
            answers.insert(place, (now, credential.clone()));
        }
        Ok(credential)
    }
}

impl AuthFile {
    /// The helper for the host with these names. An empty name in `credHelpers` means: none for this host.
    fn helper(&self, names: &[&str]) -> Option<&str> {
        let helpers = self.config.cred_helpers.as_ref();
        helpers
            .and_then(|helpers| names.iter().find_map(|name| helpers.get(*name)))
            .or(self.config.creds_store.as_ref())
            .map(String::as_str)
            .filter(|helper| !helper.is_empty())
    }

    fn credential(&self, names: &[&str], repository: Option<&str>) -> Result<Credential> {
        let Some(auths) = &self.config.auths else {
            return Ok(Credential::Anonymous);
        };
        let scopes = match self.dialect {
            Dialect::Docker => Vec::new(),
            Dialect::Podman => scopes(names, repository),
        };
        let exact = scopes
            .iter()
            .map(String::as_str)
            .chain(names.iter().copied())
            .find_map(|key| auths.get_key_value(key));
        let entry = exact.or_else(|| {
            auths.iter().find(|(key, _)| {
                let host = match self.dialect {
                    Dialect::Docker => Some(without_scheme(key).0),
                    // Here only a key with a scheme stands for a host although it has a path.
                    Dialect::Podman => {
                        Some(without_scheme(key)).and_then(|(host, had)| had.then_some(host))
                    }
                };
                host.is_some_and(|host| names.contains(&host))
            })
        });
        match entry {
            Some((key, Some(entry))) => entry
                .credential()
                .context(|| format!("entry `{}`", without_scheme(key).0)),
            _ => Ok(Credential::Anonymous),
        }
    }
}

impl Entry {
    fn credential(&self) -> Result<Credential> {
        let filled = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.registrytoken) {
            let token = Secret::new(token);
            return Ok(Credential::Bearer { token });
        }
        if let Some(token) = filled(&self.identitytoken) {
            let token = Secret::new(token);
            return Ok(Credential::Identity { token });
        }
        if let Some(auth) = filled(&self.auth) {
            return decode(&auth);
        }
        Ok(match (filled(&self.username), &self.password) {
            (Some(user), Some(password)) => Credential::Basic {
                user,
                password: Secret::new(password.as_str()),
            },
            _ => Credential::Anonymous,
        })
    }
}

/// The keys under which a host may stand, first the one that helpers are asked with. Never empty.
fn names(host: &str) -> Vec<&str> {
    match HUB_HOSTS.contains(&host) {
        true => std::iter::once(HUB_KEY)
            .chain(HUB_HOSTS.iter().copied())
            .collect(),
        false => vec![host],
    }
}

/// The keys of podman that are narrower than the host, longest first: `host/a/b`, `host/a`.
fn scopes(names: &[&str], repository: Option<&str>) -> Vec<String> {
    let mut scopes = Vec::new();
    let mut scope = repository;
    while let Some(path) = scope.filter(|path| !path.is_empty()) {
        scopes.extend(names.iter().map(|name| format!("{name}/{path}")));
        scope = path.rsplit_once('/').map(|(parent, _)| parent);
    }
    scopes
}

/// The host of a key, and whether the key had a scheme: `https://r.example/v2/` to `r.example`.
fn without_scheme(key: &str) -> (&str, bool) {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let host = bare.unwrap_or(key).split('/').next().unwrap_or_default();
    (host, bare.is_some())
}

/// Reads base64 of `user:password`. Errors (`Tell`) on anything else.
fn decode(auth: &str) -> Result<Credential> {
    let wrong = || Error::tell("field `auth`: expected base64 of user:password");
    let bytes = BASE64.decode(auth.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok(Credential::Basic {
            user: user.to_owned(),
            password: Secret::new(password.trim_end_matches('\0')),
        }),
        _ => Err(wrong()),
    }
}

fn inline(text: &str) -> Result<BTreeMap<String, Credential>> {
    let config: InlineConfig = serde_json::from_str(text).map_err(|err| not_json(&err))?;
    config
        .auths
        .into_iter()
        .map(|(key, entry)| {
            let credential =
                decode(&entry.auth).context(|| format!("entry `{}`", without_scheme(&key).0))?;
            Ok((key, credential))
        })
        .collect()
}

/// Errors of serde_json can quote the text, so only the place is told.
fn not_json(err: &serde_json::Error) -> Error {
    Error::tell(format_args!(
        "not the JSON expected, line {} column {}",
        err.line(),
        err.column()
    ))
}

fn candidates(set: &dyn Fn(&str) -> Option<String>) -> Vec<(PathBuf, Dialect)> {
    let folder = |name: &str| set(name).map(PathBuf::from);
    let home = folder("HOME");
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let podman = |folder: PathBuf| folder.join("containers/auth.json");
    [
        docker.map(|folder| (folder.join("config.json"), Dialect::Docker)),
        folder("REGISTRY_AUTH_FILE").map(|file| (file, Dialect::Podman)),
        folder("XDG_RUNTIME_DIR").map(|folder| (podman(folder), Dialect::Podman)),
        config.map(|folder| (podman(folder), Dialect::Podman)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Reads the first file that is there; an empty one when none is.
fn read_first(candidates: &[(PathBuf, Dialect)]) -> Result<AuthFile> {
    for (path, dialect) in candidates {
        let config = read(path).context(|| format!("reading `{}`", path.display()))?;
        if let Some(config) = config {
            let (path, dialect) = (path.clone(), *dialect);
            return Ok(AuthFile {
                path,
                dialect,
                config,
            });
        }
    }
    Ok(AuthFile {
        path: PathBuf::new(),
        dialect: Dialect::Docker,
        config: Config::default(),
    })
}

/// `None` when there is no such file.
fn read(path: &Path) -> Result<Option<Config>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(err) if is_absent(&err) => return Ok(None),
        Err(err) => return Err(Error::tell(err)),
    };
    let bytes = read_all(file, limit::CREDENTIAL_FILE_BYTES, "file").map_err(Error::tell)?;
    // Docker takes an empty file for an empty configuration, and `touch` makes such files.
    if bytes.trim_ascii().is_empty() {
        return Ok(Some(Config::default()));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|err| not_json(&err))
}

fn is_absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// What is behind these locks is replaced in one step, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::credential_helper::tests::Folder;
    use crate::error::Kind;

    /// base64 of `ann:pass:word` with two NULs behind it.
    const AUTH: &str = "YW5uOnBhc3M6d29yZAAA";

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic {
            user: user.to_owned(),
            password: Secret::new(password),
        }
    }

    /// `user:user` as an entry.
    fn entry(user: &str) -> String {
        format!(r#"{{"username":"{user}","password":"{user}"}}"#)
    }

    fn load(variables: &[(&str, &str)]) -> Result<Keychain> {
        Keychain::load(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn write(folder: &Folder, file: &str, text: &str) -> String {
        let path = folder.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The credential that a Docker file of this text gives.
    fn of_docker(text: &str, host: &str) -> Result<Credential> {
        let folder = Folder::new();
        write(&folder, "config.json", text);
        let dir = folder.0.display().to_string();
        load(&[("DOCKER_CONFIG", &dir)])?.credential(host, Some("team/app"))
    }

    #[test]
    fn entries_become_credentials() {
        let bearer = Credential::Bearer {
            token: Secret::new("b"),
        };
        let identity = Credential::Identity {
            token: Secret::new("i"),
        };
        for (entry, credential) in [
            (format!(r#"{{"auth":"{AUTH}"}}"#), basic("ann", "pass:word")),
            (r#"{"auth":"YW5uOng"}"#.to_owned(), basic("ann", "x")),
            (
                format!(r#"{{"auth":"{AUTH}","username":"bob","password":"x","email":"e"}}"#),
                basic("ann", "pass:word"),
            ),
            (entry("bob"), basic("bob", "bob")),
            (
                format!(r#"{{"auth":"{AUTH}","identitytoken":"i"}}"#),
                identity,
            ),
            (
                r#"{"identitytoken":"i","registrytoken":"b"}"#.to_owned(),
                bearer,
            ),
            ("{}".to_owned(), Credential::Anonymous),
            ("null".to_owned(), Credential::Anonymous),
            (r#"{"auth":""}"#.to_owned(), Credential::Anonymous),
        ] {
            let text = format!(r#"{{"auths":{{"r.example":{entry}}}}}"#);
            assert_eq!(
                of_docker(&text, "r.example").unwrap(),
                credential,
                "{entry}"
            );
        }
    }

    #[test]
    fn keys_match_exactly_then_without_scheme_and_path() {
        let one = |key: &str| format!(r#"{{"auths":{{"{key}":{}}}}}"#, entry("u"));
        for (key, host, is_match) in [
            ("r.example", "r.example", true),
            ("r.example:5000", "r.example:5000", true),
            ("r.example:5000", "r.example", false),
            ("https://r.example/v2/", "r.example", true),
            ("http://r.example:5000", "r.example:5000", true),
            ("r.example/team", "r.example", true),
            ("r.example.evil", "r.example", false),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("https://index.docker.io/v1/", "index.docker.io", true),
            ("https://index.docker.io/v1/", "registry-1.docker.io", true),
            ("docker.io", "registry-1.docker.io", true),
            ("https://docker.io/", "index.docker.io", true),
            ("r.example", "docker.io", false),
        ] {
            let found = of_docker(&one(key), host).unwrap();
            let expected = match is_match {
                true => basic("u", "u"),
                false => Credential::Anonymous,
            };
            assert_eq!(found, expected, "{key} for {host}");
        }
        let both = format!(
            r#"{{"auths":{{"https://r.example":{},"r.example":{}}}}}"#,
            entry("a"),
            entry("b")
        );
        assert_eq!(of_docker(&both, "r.example").unwrap(), basic("b", "b"));
    }

    #[test]
    fn podman_files_have_keys_narrower_than_a_host() {
        let folder = Folder::new();
        let text = format!(
            r#"{{"auths":{{"r.example/team/app":{},"r.example/team":{},"r.example":{},
                "other.example/team":{},"https://old.example/v2/":{},"docker.io/library":{}}}}}"#,
            entry("app"),
            entry("team"),
            entry("host"),
            entry("other"),
            entry("old"),
            entry("library")
        );
        let file = write(&folder, "auth.json", &text);
        let keychain = load(&[("REGISTRY_AUTH_FILE", &file)]).unwrap();
        for (host, repository, user) in [
            ("r.example", Some("team/app"), Some("app")),
            ("r.example", Some("team/app/deep"), Some("app")),
            ("r.example", Some("team/application"), Some("team")),
            ("r.example", Some("else"), Some("host")),
            ("r.example", None, Some("host")),
            ("other.example", Some("team/x"), Some("other")),
            ("other.example", Some("x"), None),
            ("other.example", None, None),
            ("old.example", Some("x"), Some("old")),
            (
                "registry-1.docker.io",
                Some("library/alpine"),
                Some("library"),
            ),
            ("registry-1.docker.io", Some("acme/x"), None),
        ] {
            let expected = user.map_or(Credential::Anonymous, |user| basic(user, user));
            let found = keychain.credential(host, repository).unwrap();
            assert_eq!(found, expected, "{host} {repository:?}");
        }
    }

    #[test]
    fn files_are_looked_for_in_order() {
        let folder = Folder::new();
        let text = |user: &str| format!(r#"{{"auths":{{"r.example":{}}}}}"#, entry(user));
        let at = |path: &str| folder.0.join(path).display().to_string();
        write(&folder, "docker/config.json", &text("docker"));
        write(&folder, "home/.docker/config.json", &text("home"));
        write(&folder, "xdg/containers/auth.json", &text("xdg"));
        write(
            &folder,
            "podhome/.config/containers/auth.json",
            &text("podhome"),
        );
        write(&folder, "auth.json", &text("auth"));
        let (docker, home, none) = (at("docker"), at("home"), at("none"));
        let (xdg, podhome, auth) = (at("xdg"), at("podhome"), at("auth.json"));
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("DOCKER_CONFIG", &docker), ("HOME", &home)], "docker"),
            (&[("DOCKER_CONFIG", ""), ("HOME", &home)], "home"),
            (&[("HOME", &home), ("REGISTRY_AUTH_FILE", &auth)], "home"),
            (
                &[("DOCKER_CONFIG", &none), ("REGISTRY_AUTH_FILE", &auth)],
                "auth",
            ),
            (
                &[("REGISTRY_AUTH_FILE", &none), ("XDG_RUNTIME_DIR", &xdg)],
                "xdg",
            ),
            (&[("XDG_CONFIG_HOME", &xdg), ("HOME", &podhome)], "xdg"),
            (&[("HOME", &podhome)], "podhome"),
        ];
        for (variables, user) in cases {
            let found = load(variables).unwrap().credential("r.example", None);
            assert_eq!(found.unwrap(), basic(user, user), "{variables:?}");
        }
        let nothing = load(&[]).unwrap().credential("r.example", None).unwrap();
        assert_eq!(nothing, Credential::Anonymous);
    }

    #[test]
    fn the_variable_wins_and_a_wrong_one_is_reported_and_ignored() {
        let folder = Folder::new();
        let text = format!(
            r#"{{"credsStore":"missing","auths":{{"r.example":{}}}}}"#,
            entry("file")
        );
        write(&folder, "config.json", &text);
        let dir = folder.0.display().to_string();
        let variable = format!(
            r#"{{"auths":{{"r.example":{{"auth":"{AUTH}"}},
                "https://index.docker.io/v1/":{{"auth":"{AUTH}"}}}}}}"#
        );
        let keychain = load(&[("DOCKER_CONFIG", &dir), ("DOCKER_AUTH_CONFIG", &variable)]).unwrap();
        for host in ["r.example", "docker.io"] {
            let found = keychain.credential(host, None).unwrap();
            assert_eq!(found, basic("ann", "pass:word"), "{host}");
        }
        assert!(keychain.credential("other.example", None).is_err());
        for (text, warning) in [
            (
                r#"{"auths":{"r.example":{"auth":"YW5uOng=","email":"e"}}}"#,
                "DOCKER_AUTH_CONFIG is ignored: not the JSON expected, line 1 column 48",
            ),
            (
                r#"{"auths":{"r.example":{"auth":"hunter2!"}}}"#,
                "DOCKER_AUTH_CONFIG is ignored: entry `r.example`: field `auth`: expected base64 \
                 of user:password",
            ),
        ] {
            let keychain = load(&[("DOCKER_AUTH_CONFIG", text)]).unwrap();
            assert_eq!(keychain.warning(), Some(warning));
            let found = keychain.credential("r.example", None).unwrap();
            assert_eq!(found, Credential::Anonymous);
        }
    }

    #[test]
    fn helpers_come_before_the_file_and_keep_their_answer_for_a_while() {
        let folder = Folder::new();
        // Counts its calls, and answers with its name and the key it was asked with.
        let script = r#"read key
            echo x >> "$0.calls"
            printf '{"Username":"%s","Secret":"%s"}' "$(basename "$0")" "$key""#;
        folder.helper("store", script);
        folder.helper("own", script);
        let text = format!(
            r#"{{"credsStore":"store","credHelpers":{{"own.example":"own","file.example":"",
                "docker.io":"own"}},"auths":{{"r.example":{0},"file.example":{0}}}}}"#,
            entry("file")
        );
        write(&folder, "config.json", &text);
        let dir = folder.0.display().to_string();
        let keychain = load(&[("DOCKER_CONFIG", &dir), ("PATH", &dir)]).unwrap();
        let start = Instant::now();
        let later = start + KEPT - Duration::from_secs(1);
        for (now, host, credential) in [
            (
                start,
                "r.example",
                basic("docker-credential-store", "r.example"),
            ),
            (
                start,
                "own.example",
                basic("docker-credential-own", "own.example"),
            ),
            (start, "file.example", basic("file", "file")),
            (start, "docker.io", basic("docker-credential-own", HUB_KEY)),
            (
                start,
                "registry-1.docker.io",
                basic("docker-credential-own", HUB_KEY),
            ),
            (
                later,
                "r.example",
                basic("docker-credential-store", "r.example"),
            ),
        ] {
            let found = keychain.credential_at(now, host, None).unwrap();
            assert_eq!(found, credential, "{host}");
        }
        let n_calls = |name: &str| {
            let calls = folder.0.join(format!("docker-credential-{name}.calls"));
            std::fs::read_to_string(calls).unwrap().lines().count()
        };
        assert_eq!((n_calls("store"), n_calls("own")), (1, 2));
        keychain
            .credential_at(start + KEPT, "r.example", None)
            .unwrap();
        assert_eq!(n_calls("store"), 2);
    }

    #[test]
    fn a_login_while_we_run_is_seen() {
        let folder = Folder::new();
        let dir = folder.0.display().to_string();
        let keychain = load(&[("DOCKER_CONFIG", &dir)]).unwrap();
        let text = format!(r#"{{"auths":{{"r.example":{}}}}}"#, entry("new"));
        write(&folder, "config.json", &text);
        let at = |now| keychain.credential_at(now, "r.example", None);
        let start = Instant::now();
        assert_eq!(at(start).unwrap(), Credential::Anonymous);
        assert_eq!(at(start + KEPT).unwrap(), basic("new", "new"));
        write(&folder, "config.json", "{");
        assert!(at(start + KEPT + KEPT).is_err());
    }

    #[test]
    fn a_reload_brings_new_ones_at_once_or_keeps_the_old() {
        let folder = Folder::new();
        let helper = |secret: &str| {
            let script = format!(r#"printf '{{"Username":"u","Secret":"{secret}"}}'"#);
            folder.helper("own", &script);
        };
        let text = |user: &str| {
            let entry = entry(user);
            format!(r#"{{"credHelpers":{{"own.example":"own"}},"auths":{{"r.example":{entry}}}}}"#)
        };
        let file = write(&folder, "config.json", &text("old"));
        helper("old");
        let dir = folder.0.display().to_string();
        let keychain = load(&[("DOCKER_CONFIG", &dir), ("PATH", &dir)]).unwrap();
        let both = || {
            let at = |host| keychain.credential(host, None).unwrap();
            (at("r.example"), at("own.example"))
        };
        let old = (basic("old", "old"), basic("u", "old"));
        assert_eq!(both(), old);
        helper("new");
        write(&folder, "config.json", "{");
        let err = keychain.reload().unwrap_err();
        assert_eq!(
            err.to_string(),
            format!("reading `{file}`: not the JSON expected, line 1 column 1")
        );
        assert_eq!(both(), old);
        write(&folder, "config.json", &text("new"));
        assert_eq!(both(), old);
        keychain.reload().unwrap();
        assert_eq!(both(), (basic("new", "new"), basic("u", "new")));
    }

    #[test]
    fn files_that_cannot_be_read_are_named_and_not_quoted() {
        for (text, message) in [
            (
                r#"{"auths":"hunter2"}"#,
                "not the JSON expected, line 1 column 18",
            ),
            ("{\n\"auths\":", "not the JSON expected, line 2 column 8"),
            (
                &" ".repeat((1 << 20) + 1),
                "file is larger than the limit of 1048576 bytes",
            ),
        ] {
            let folder = Folder::new();
            let file = write(&folder, "config.json", text);
            let dir = folder.0.display().to_string();
            let err = load(&[("DOCKER_CONFIG", &dir)]).err().unwrap();
            assert_eq!(err.to_string(), format!("reading `{file}`: {message}"));
            assert_eq!(err.kind(), Kind::Tell);
        }
        for text in ["", " \n", "{}", r#"{"auths":null,"credHelpers":null}"#] {
            let found = of_docker(text, "r.example").unwrap();
            assert_eq!(found, Credential::Anonymous, "{text}");
        }
    }

    #[test]
    fn a_malformed_entry_fails_its_own_host_only() {
        let folder = Folder::new();
        let text = format!(
            r#"{{"auths":{{"bad.example":{{"auth":"aHVudGVyMg=="}},"r.example":{}}}}}"#,
            entry("u")
        );
        let file = write(&folder, "config.json", &text);
        let dir = folder.0.display().to_string();
        let keychain = load(&[("DOCKER_CONFIG", &dir)]).unwrap();
        let err = keychain.credential("bad.example", None).unwrap_err();
        assert_eq!(
            err.to_string(),
            format!(
                "credentials of `bad.example` in `{file}`: entry `bad.example`: field `auth`: \
                 expected base64 of user:password"
            )
        );
        let found = keychain.credential("r.example", None).unwrap();
        assert_eq!(found, basic("u", "u"));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let text = format!("{:?}", basic("ann", "hunter2"));
        assert_eq!(text, "Basic { user: \"ann\", password: *** }");
    }
}
