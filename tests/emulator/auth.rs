//! Who asks: Basic, access tokens, API keys, registry tokens, and the challenges for those who
//! did not say.
//!
//! Source: `reference/registries.md` A3. *Invariant:* a credential is compared and forgotten; only
//! the request log of the tests keeps it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::State;
use super::message::{Request, Response};
use super::server::lock;

/// Someone who may log in.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: String,
    /// Accepted as bearer token, as password and in `X-JFrog-Art-Api`.
    pub(crate) access_token: Option<String>,
    pub(crate) admin: bool,
    /// Patterns of `repo/path/name` that may be read; empty: everything.
    pub(crate) readable: Vec<String>,
}

impl User {
    /// An administrator.
    pub(crate) fn admin(name: &str, password: &str) -> User {
        User {
            name: name.to_owned(),
            password: password.to_owned(),
            access_token: None,
            admin: true,
            readable: Vec::new(),
        }
    }

    /// Someone who may only read what matches `readable`.
    pub(crate) fn reader(name: &str, password: &str, readable: &[&str]) -> User {
        User {
            admin: false,
            readable: readable.iter().map(|&glob| glob.to_owned()).collect(),
            ..User::admin(name, password)
        }
    }

    /// True when the user may read `repo/path`.
    pub(crate) fn may_read(&self, full: &str) -> bool {
        self.readable.is_empty()
            || self
                .readable
                .iter()
                .any(|glob| wildmatch::WildMatch::new(glob).matches(full))
    }
}

/// Registry tokens handed out, and failed logins so far.
#[derive(Default)]
pub(crate) struct Sessions {
    tokens: HashMap<String, (User, Instant)>,
    failures: HashMap<String, u64>,
}

/// What the credentials of a request are worth.
enum Login {
    Nobody,
    Known(User),
    Wrong(&'static str),
    Locked,
}

impl State {
    /// The user of a REST request, or the refusal.
    pub(crate) fn authenticate(&self, request: &Request) -> Result<User, Response> {
        match self.login(request) {
            Login::Known(user) => Ok(user),
            Login::Locked => Err(locked()),
            Login::Wrong(message) => Err(basic_challenge(message)),
            Login::Nobody if self.switches().on("anonymous") => Ok(anonymous()),
            Login::Nobody => Err(basic_challenge("Authentication is required")),
        }
    }

    /// The user of a registry request, or the refusal; `key` and `image` shape the challenge.
    pub(crate) fn authenticate_registry(
        &self,
        request: &Request,
        realm: &str,
        key: Option<&str>,
        image: Option<&str>,
    ) -> Result<User, Response> {
        match self.login(request) {
            Login::Known(user) => Ok(user),
            Login::Locked => Err(locked()),
            Login::Wrong(message) => Err(basic_challenge(message)),
            Login::Nobody if self.switches().on("anonymous") => Ok(anonymous()),
            Login::Nobody => Err(self.bearer_challenge(request, realm, key, image)),
        }
    }

    fn bearer_challenge(
        &self,
        request: &Request,
        realm: &str,
        key: Option<&str>,
        image: Option<&str>,
    ) -> Response {
        let switches = self.switches();
        if switches.is("challenge", "basic") {
            return basic_challenge("Authentication is required");
        }
        let action = if request.is_read() {
            "pull"
        } else {
            "pull,push"
        };
        let scope = match (switches.text("scope"), key, image) {
            ("none", ..) | (_, _, None) => String::new(),
            ("none-on-head", ..) if request.is_head() => String::new(),
            ("without-key", _, Some(image)) | (_, None, Some(image)) => {
                format!(",scope=\"repository:{image}:{action}\"")
            }
            (_, Some(key), Some(image)) => {
                format!(",scope=\"repository:{key}/{image}:{action}\"")
            }
        };
        let service = request.header("host").unwrap_or("artifactory");
        let challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"{scope}");
        Response::registry_error(
            401,
            "UNAUTHORIZED",
            "The access controller was unable to authenticate the client. Often this will be \
             accompanied by a Www-Authenticate HTTP response header indicating how to authenticate.",
            json!(null),
        )
        .header("WWW-Authenticate", challenge)
    }

    /// `GET .../v2/token`, and the OAuth form by `POST` where the switch allows it.
    pub(crate) fn answer_token(&self, request: &mut Request) -> Response {
        let form;
        let login = match request.method.as_str() {
            "GET" => self.login(request),
            "POST" if self.switches().on("token_post") => {
                let body = request.read_body(64 * 1024).unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                form = super::message::split_target(&format!("?{body}")).1;
                let field = |name: &str| {
                    let found = form.iter().find(|(key, _)| key == name);
                    found.map_or("", |(_, value)| value.as_str())
                };
                self.password(field("username"), field("password"))
            }
            _ => return Response::status_error(404, "Not Found"),
        };
        let user = match login {
            Login::Known(user) if !self.switches().is("token", "refused") => user,
            Login::Nobody if self.switches().on("anonymous") => anonymous(),
            Login::Locked => return locked(),
            _ if self.switches().is("token_error", "old") => {
                let body = json!({"statusCode": 401, "details": "BAD_CREDENTIAL"});
                return Response::json(401, &body);
            }
            _ => return basic_challenge("Bad Credentials"),
        };
        let seconds = self.switches().number("token_expires");
        let token = format!("registry-token-{}-{}", user.name, self.next_number());
        let until = Instant::now() + Duration::from_secs(seconds);
        lock(&self.sessions)
            .tokens
            .insert(token.clone(), (user, until));
        let mut answer = json!({"token": token});
        if self.switches().on("token_expires_sent") {
            answer["expires_in"] = json!(seconds);
        }
        Response::json(200, &answer)
    }

    fn login(&self, request: &Request) -> Login {
        if let Some(key) = request.header("x-jfrog-art-api") {
            return self.access_token(key, "Bad Credentials");
        }
        let Some(header) = request.header("authorization") else {
            return Login::Nobody;
        };
        let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
            let decoded = String::from_utf8_lossy(&decoded).into_owned();
            let (name, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
            self.password(name, password)
        } else if scheme.eq_ignore_ascii_case("bearer") {
            self.registry_token(value.trim())
        } else {
            Login::Wrong("Bad Credentials")
        }
    }

    fn password(&self, name: &str, password: &str) -> Login {
        let limit = self.switches().number("lock_after");
        let mut sessions = lock(&self.sessions);
        let failures = sessions.failures.entry(name.to_owned()).or_default();
        if limit > 0 && *failures >= limit {
            return Login::Locked;
        }
        let known = self.users.iter().find(|user| {
            user.name == name
                && (user.password == password || user.access_token.as_deref() == Some(password))
        });
        match known {
            Some(user) => {
                *failures = 0;
                Login::Known(user.clone())
            }
            None => {
                *failures += 1;
                Login::Wrong("Bad Credentials")
            }
        }
    }

    fn registry_token(&self, token: &str) -> Login {
        let found = lock(&self.sessions).tokens.get(token).cloned();
        match found {
            Some(_) if self.switches().is("token", "rejected") => {
                Login::Wrong("Token failed verification: parse")
            }
            Some((_, until)) if until <= Instant::now() => {
                Login::Wrong("Token failed verification: expired")
            }
            Some((user, _)) => Login::Known(user),
            None => self.access_token(token, "Props Authentication Token not found"),
        }
    }

    fn access_token(&self, token: &str, otherwise: &'static str) -> Login {
        let known = self
            .users
            .iter()
            .find(|user| user.access_token.as_deref() == Some(token));
        known.map_or(Login::Wrong(otherwise), |user| Login::Known(user.clone()))
    }
}

fn anonymous() -> User {
    User {
        admin: false,
        ..User::admin("anonymous", "")
    }
}

fn basic_challenge(message: &str) -> Response {
    Response::status_error(401, message)
        .header("WWW-Authenticate", "Basic realm=\"Artifactory Realm\"")
}

fn locked() -> Response {
    Response::status_error(
        403,
        "This request is blocked due to recurrent login failures, please try again in 10 seconds",
    )
}
