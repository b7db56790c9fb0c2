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
/// 403 to everything then).
const MAX_REFUSALS: u32 = 2;
/// How long a token is good when the answer does not say (distribution token specification).
const DEFAULT_EXPIRY: Duration = Duration::from_secs(60);
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
    /// The last challenge, so that later requests need not be refused first.
    challenge: Option<Challenge>,
    /// By scope.
    tokens: HashMap<String, (Secret, Instant)>,
    refusals: u32,
    /// A server that hands out tokens and does not take them (Artifactory 6).
    prefers_basic: bool,
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

    /// Sends `request` with what it takes. `scope` is asked for when the server names none.
    /// Errors: `Tell` when credentials are refused; else as [`Http::send`].
    pub(super) fn send(&self, http: &Http, request: &Request<'_>, scope: &str) -> Result<Response> {
        if self.lock().refusals >= MAX_REFUSALS {
            return Err(Error::tell(format_args!("`{}` refused the credentials before", self.origin.authority()))
                .with_status(401)
                .hint("correct the credentials and start again; no more tries are made, since servers lock accounts"));
        }
        let first = self.known_authorization(http, scope)?;
        let response = send_with(http, request, first.as_ref())?;
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
        let mut last = response;
        let bearer = challenges
            .iter()
            .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        if let Some(challenge @ Challenge::Bearer { .. }) = bearer {
            self.forget_token(scope);
            let token = self.token(http, challenge, scope)?;
            last = send_with(
                http,
                request,
                Some(&self.authorization("Bearer", token.reveal())),
            )?;
            if last.status != 401 {
                self.lock().challenge = Some(challenge.clone());
                return Ok(last);
            }
        }
        let was_basic = first
            .as_ref()
            .is_some_and(|first| first.value.reveal().starts_with("Basic "));
        if let Some(basic) = self.basic()?.filter(|_| !was_basic) {
            last = send_with(http, request, Some(&basic))?;
            if last.status != 401 {
                let mut state = self.lock();
                state.prefers_basic = true;
                state.challenge = Some(Challenge::Basic);
                return Ok(last);
            }
        }
        let is_anonymous = matches!((self.access.credential)()?, Credential::Anonymous);
        if !is_anonymous {
            self.lock().refusals += 1;
        }
        Err(self.refused(last, bearer, is_anonymous))
    }

    fn refused(&self, last: Response, bearer: Option<&Challenge>, is_anonymous: bool) -> Error {
        let err = status_error(last);
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
            if response.status == 401 {
                self.lock().refusals += 1;
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
        self.lock()
            .tokens
            .insert(scope.to_owned(), (token.clone(), until));
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

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_with(
    http: &Http,
    request: &Request<'_>,
    authorization: Option<&Authorization>,
) -> Result<Response> {
    http.send(&Request {
        method: request.method.clone(),
        authorization,
        ..*request
    })
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A token with a line break would be a header of its own.
fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}
