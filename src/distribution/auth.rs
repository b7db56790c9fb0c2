//! Signing requests: Basic at once where that is known to work, else as the challenge says.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::Method;

use super::challenge::{self, Challenge};
use super::credentials::Credential;
use super::status::status_error;
use crate::error::{Error, Result};
use crate::http::{Authorization, Http, Origin, Request, Response, Url};
use crate::limit;
use crate::secret::Secret;

/// Refused credentials on one host after which no more are sent: servers lock accounts (Artifactory answers
/// 403 to everything then). It is looked at right before each request, so what comes on top of them are the
/// requests that other threads have sent already.
const MAX_REFUSALS: u32 = 2;
/// How long a token is good when the answer does not say (distribution token specification).
const DEFAULT_EXPIRY: Duration = Duration::from_secs(60);
/// How long refused credentials are not sent again.
const FORGIVE: Duration = Duration::from_secs(900);
/// Tokens that are kept, one a repository.
const MAX_TOKENS: usize = 1_000;
/// Tokens are renewed this early.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// Docker Hub's registry and its token service are two hosts, and both are Docker's.
const HUB: (&str, &str) = ("registry-1.docker.io", "auth.docker.io");

/// Whether Basic credentials go with the first request already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preemptive {
    Yes,
    No,
}

/// Looks a credential up each time it is needed: those of helpers expire.
pub(crate) type CredentialSource = Box<dyn Fn() -> Result<Credential> + Send + Sync>;

/// What the user allows a registry to know.
pub(crate) struct Access {
    pub(crate) credential: CredentialSource,
    pub(crate) preemptive: Preemptive,
    /// Further hosts whose token endpoints may get the credential.
    pub(crate) token_realms: Vec<String>,
}

/// Credentials and tokens for one origin.
pub(super) struct Auth {
    origin: Origin,
    access: Access,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often all of this was forgotten: what a request learns with credentials from before is not kept.
    age: u64,
    /// The last challenge, so that later requests need not be refused first.
    challenge: Option<Challenge>,
    /// By scope.
    tokens: HashMap<String, (Secret, Instant)>,
    refusals: u32,
    /// The last of them.
    refused_at: Option<Instant>,
    /// A server that hands out tokens and does not take them (Artifactory 6).
    prefers_basic: bool,
}

impl State {
    fn refuse(&mut self) {
        self.refusals += 1;
        self.refused_at = Some(Instant::now());
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    pub(super) fn new(origin: Origin, access: Access) -> Self {
        Auth {
            origin,
            access,
            state: Mutex::default(),
        }
    }

    /// Forgets tokens, challenges and refusals, since the credentials may be others now.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        *state = State {
            age: state.age.wrapping_add(1),
            ..State::default()
        };
    }

    /// The age of what is known. Errors (`Tell`) when credentials were refused too often to be sent again.
    fn may_send(&self) -> Result<u64> {
        let mut state = self.lock();
        if state
            .refused_at
            .is_some_and(|refused_at| refused_at.elapsed() >= FORGIVE)
        {
            // It may have been a bad moment of the server; and a watch goes on for months.
            state.refusals = 0;
            state.refused_at = None;
        }
        if state.refusals < MAX_REFUSALS {
            return Ok(state.age);
        }
        let host = self.origin.authority();
        Err(Error::tell(format_args!("`{host}` refused the credentials before"))
            .with_status(401)
            .hint("correct the credentials, and start again or send SIGHUP; no more tries are made for 15 minutes, since servers lock accounts"))
    }

    /// Sends `request` with what it takes. `scope` is asked for when the server names none.
    /// Errors: `Tell` when credentials are refused; else as [`Http::send`].
    pub(super) fn send(&self, http: &Http, request: &Request<'_>, scope: &str) -> Result<Response> {
        let age = self.may_send()?;
        let first = self.known_authorization(http, scope)?;
        let response = self.send_with(http, request, first.as_ref())?;
        if response.status != 401 {
            return Ok(response);
        }
        let challenges: Vec<Challenge> = response
            .headers
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        // Reads the body: the next request may need its place at the host.
        let mut refusal = status_error(response);
        let bearer = challenges
            .iter()
            .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        if let Some(challenge @ Challenge::Bearer { .. }) = bearer {
            self.forget_token(scope);
            let token = self.token(http, challenge, scope)?;
            let authorization = self.authorization("Bearer", token.reveal());
            let response = self.send_with(http, request, Some(&authorization))?;
            if response.status != 401 {
                self.note(age, |state| state.challenge = Some(challenge.clone()));
                return Ok(response);
            }
            refusal = status_error(response);
        }
        let was_basic = first
            .as_ref()
            .is_some_and(|first| first.value.reveal().starts_with("Basic "));
        if let Some(basic) = self.basic()?.filter(|_| !was_basic) {
            let response = self.send_with(http, request, Some(&basic))?;
            if response.status != 401 {
                self.note(age, |state| {
                    state.prefers_basic = true;
                    state.challenge = Some(Challenge::Basic);
                });
                return Ok(response);
            }
            refusal = status_error(response);
        }
        let is_anonymous = matches!((self.access.credential)()?, Credential::Anonymous);
        if !is_anonymous {
            self.note(age, |state| state.refuse());
        }
        Err(self.refused(refusal, bearer, is_anonymous))
    }

    fn refused(&self, err: Error, bearer: Option<&Challenge>, is_anonymous: bool) -> Error {
        if let Some(Challenge::Bearer { realm, .. }) = bearer
            && let Ok(url) = realm.parse::<Url>()
            && !self.may_get_credentials(&url.origin())
            && !is_anonymous
        {
            let host = url.origin().authority();
            return Error::tell(format_args!(
                "{err}; the token realm `{host}` is another host and got no credentials"
            ))
            .with_status(401)
            .hint(format!(
                "if it belongs to the registry, allow it with --token-realm {host}"
            ));
        }
        err
    }

    /// What to send before any answer is known.
    fn known_authorization(&self, http: &Http, scope: &str) -> Result<Option<Authorization>> {
        if let Credential::Bearer { token } = (self.access.credential)()? {
            return Ok(Some(self.authorization("Bearer", token.reveal())));
        }
        let (challenge, prefers_basic) = {
            let state = self.lock();
            if let Some((token, until)) = state.tokens.get(scope)
                && *until > Instant::now()
                && !state.prefers_basic
            {
                return Ok(Some(self.authorization("Bearer", token.reveal())));
            }
            (state.challenge.clone(), state.prefers_basic)
        };
        if self.access.preemptive == Preemptive::Yes && challenge.is_none() || prefers_basic {
            return self.basic();
        }
        match challenge {
            Some(Challenge::Basic) => self.basic(),
            // The scope of the last challenge was for another repository.
            Some(Challenge::Bearer { realm, service, .. }) => {
                let challenge = Challenge::Bearer {
                    realm,
                    service,
                    scope: None,
                };
                let token = self.token(http, &challenge, scope)?;
                Ok(Some(self.authorization("Bearer", token.reveal())))
            }
            None => Ok(None),
        }
    }

    fn basic(&self) -> Result<Option<Authorization>> {
        Ok(match (self.access.credential)()? {
            Credential::Basic { user, password } => {
                let pair = STANDARD.encode(format!("{user}:{}", password.reveal()));
                Some(self.authorization("Basic", &pair))
            }
            _ => None,
        })
    }

    fn authorization(&self, scheme: &str, value: &str) -> Authorization {
        Authorization {
            origin: self.origin.clone(),
            value: Secret::new(format!("{scheme} {value}")),
        }
    }

    /// Gets a token for `scope`, or for the one that the challenge names.
    fn token(&self, http: &Http, challenge: &Challenge, scope: &str) -> Result<Secret> {
        let Challenge::Bearer {
            realm,
            service,
            scope: named,
        } = challenge
        else {
            return Err(Error::skip("not a bearer challenge"));
        };
        let realm: Url = realm
            .parse()
            .map_err(|err: Error| err.context("token realm"))?;
        self.check_realm(&realm)?;
        let age = self.may_send()?;
        let asked = named
            .as_deref()
            .filter(|named| !named.is_empty())
            .unwrap_or(scope);
        let service = service.as_deref().unwrap_or("");
        let is_trusted = self.may_get_credentials(&realm.origin());
        let response = match (self.access.credential)()? {
            Credential::Identity { token } if is_trusted => {
                let form = format!(
                    "grant_type=refresh_token&service={}&client_id=crowsnest&scope={}&refresh_token={}",
                    escaped(service),
                    escaped(asked),
                    escaped(token.reveal())
                );
                let headers = [("content-type", "application/x-www-form-urlencoded")];
                http.send(&Request {
                    method: Method::POST,
                    url: &realm,
                    headers: &headers,
                    authorization: None,
                    body: Some(&form),
                })
            }
            _ => {
                let separator = if realm.query().is_some() { '&' } else { '?' };
                let query = format!("{separator}service={}&scope={}", escaped(service), escaped(asked));
                let url = realm.with_path(&format!("{}{query}", realm.path_and_query()))?;
                let authorization = self
                    .basic()?
                    .filter(|_| is_trusted)
                    .map(|basic| Authorization { origin: realm.origin(), value: basic.value });
                http.send(&Request { authorization: authorization.as_ref(), ..Request::get(&url) })
            }
        }
        .map_err(|err| err.context(format_args!("asking `{realm}` for a token")))?;
        if response.status != 200 {
            let is_anonymous = matches!((self.access.credential)()?, Credential::Anonymous);
            if response.status == 401 && is_trusted && !is_anonymous {
                self.note(age, |state| state.refuse());
            }
            return Err(
                status_error(response).context(format_args!("asking `{realm}` for a token"))
            );
        }
        let bytes = limit::read_all(response.body, limit::TOKEN_BYTES, "token answer")?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| {
            Error::tell(format_args!(
                "`{realm}` answered with something that is no token"
            ))
        })?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| is_header_text(token));
        let token = Secret::new(
            token.ok_or_else(|| Error::tell(format_args!("`{realm}` answered without a token")))?,
        );
        let good_for = answer
            .expires_in
            .map_or(DEFAULT_EXPIRY, Duration::from_secs);
        let until = Instant::now()
            + good_for
                .saturating_sub(EXPIRY_MARGIN)
                .min(Duration::from_secs(3600));
        self.note(age, |state| {
            if state.tokens.len() >= MAX_TOKENS {
                state.tokens.retain(|_, (_, until)| *until > Instant::now());
                if state.tokens.len() >= MAX_TOKENS {
                    state.tokens.clear();
                }
            }
            let known = (token.clone(), until);
            state.tokens.insert(scope.to_owned(), known);
        });
        Ok(token)
    }

    /// Whether the realm may be asked at all (the rules of go-containerregistry).
    fn check_realm(&self, realm: &Url) -> Result<()> {
        let target = realm.origin();
        if target.scheme == "http" && self.origin.scheme == "https" {
            return Err(Error::tell(format_args!(
                "token realm `{realm}` is plain HTTP, the registry is not"
            )));
        }
        if target.is_internal_to(&self.origin) {
            return Err(Error::tell(format_args!(
                "token realm `{realm}` is an internal address"
            )));
        }
        Ok(())
    }

    fn may_get_credentials(&self, realm: &Origin) -> bool {
        *realm == self.origin
            || (self.origin.host == HUB.0 && realm.host == HUB.1 && realm.scheme == "https")
            || self
                .access
                .token_realms
                .iter()
                .any(|host| *host == realm.authority() || *host == realm.host)
    }

    fn forget_token(&self, scope: &str) {
        self.lock().tokens.remove(scope);
    }

    /// Keeps what was learnt, unless it was about credentials that are forgotten.
    fn note(&self, age: u64, learn: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if state.age == age {
            learn(&mut state);
        }
    }

    /// Sends with what may have been refused meanwhile, by another thread's request: then nothing is sent.
    fn send_with(
        &self,
        http: &Http,
        request: &Request<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Response> {
        self.may_send()?;
        http.send(&Request {
            method: request.method.clone(),
            authorization,
            ..*request
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A token with a line break would be a header of its own.
fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_with_forgotten_credentials_learn_is_not_kept() {
        let origin = "https://r.example/".parse::<Url>().unwrap().origin();
        let access = Access {
            credential: Box::new(|| Ok(Credential::Anonymous)),
            preemptive: Preemptive::No,
            token_realms: Vec::new(),
        };
        let auth = Auth::new(origin, access);
        let old = auth.may_send().unwrap();
        auth.note(old, |state| state.refusals = MAX_REFUSALS);
        let err = auth.may_send().unwrap_err();
        assert_eq!(
            err.to_string(),
            "`r.example` refused the credentials before"
        );
        auth.forget();
        let new = auth.may_send().unwrap();
        auth.note(old, |state| state.refusals = MAX_REFUSALS);
        assert_eq!(auth.may_send().unwrap(), new);
        auth.note(new, |state| state.refusals = MAX_REFUSALS);
        assert!(auth.may_send().is_err());
    }

    #[test]
    fn realms_that_are_plain_or_internal_are_not_asked() {
        for (registry, realm, gets_credentials, wrong) in [
            ("https://r.example/", "https://r.example/token", true, ""),
            ("https://r.example/", "https://auth.example/token", true, ""),
            (
                "https://r.example/",
                "https://r.example.evil/token",
                false,
                "",
            ),
            (
                "https://r.example/",
                "https://r.example:8443/token",
                false,
                "",
            ),
            (
                "https://r.example/",
                "http://r.example/token",
                false,
                "is plain HTTP",
            ),
            (
                "https://r.example/",
                "http://auth.example/token",
                true,
                "is plain HTTP",
            ),
            (
                "https://r.example/",
                "https://127.0.0.1/token",
                false,
                "is an internal address",
            ),
            (
                "https://r.example/",
                "https://169.254.169.254/x",
                false,
                "is an internal address",
            ),
            (
                "https://r.example/",
                "https://[::ffff:169.254.169.254]/x",
                false,
                "is an internal address",
            ),
            (
                "http://127.0.0.1:5000/",
                "http://169.254.169.254/x",
                false,
                "is an internal address",
            ),
            (
                "http://127.0.0.1:5000/",
                "http://127.0.0.1:6000/token",
                false,
                "",
            ),
        ] {
            let origin = registry.parse::<Url>().unwrap().origin();
            let access = Access {
                credential: Box::new(|| Ok(Credential::Anonymous)),
                preemptive: Preemptive::No,
                token_realms: vec!["auth.example".to_owned()],
            };
            let auth = Auth::new(origin, access);
            let url: Url = realm.parse().unwrap();
            assert_eq!(
                auth.may_get_credentials(&url.origin()),
                gets_credentials,
                "{realm}"
            );
            match auth.check_realm(&url) {
                Ok(()) => assert_eq!(wrong, "", "{realm}"),
                Err(err) => {
                    let text = err.to_string();
                    assert!(!wrong.is_empty() && text.contains(wrong), "{text}");
                }
            }
        }
    }
}
