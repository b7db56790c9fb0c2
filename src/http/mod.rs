//! Outbound HTTP: one agent with its time-outs, certificates and proxies.
//!
//! In: a [`Request`]. Out: a [`Response`] of whatever status, or an error when there was none. Redirects are
//! followed here, at most [`limit::REDIRECTS`], so that credentials can be held back: an [`Authorization`]
//! names the scheme, host and port that it is for and is sent nowhere else (RFC 9110 section 11.6.2; the
//! distribution-spec forbids it across hosts).
//!
//! *Invariant:* nothing is retried here, and no body is read: the callers know their limits.

pub(crate) mod retry;
mod tls;
pub(crate) mod url;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{HeaderMap, Method, StatusCode};
pub(crate) use url::{Origin, Url};

use crate::error::{Error, Result};
use crate::limit;
use crate::secret::Secret;
use crate::stop::Stop;

/// To reach the server.
const CONNECT: Duration = Duration::from_secs(10);
/// Until the answer begins; a remote repository asks its upstream first.
const FIRST_BYTE: Duration = Duration::from_secs(60);
/// Without any byte of a body.
const STALLED: Duration = Duration::from_secs(30);
/// Idle connections kept; a few per worker.
const IDLE: usize = 32;

/// What the user says of connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) ca_certs: Vec<PathBuf>,
    /// `host` or `host:port` that plain HTTP is allowed to, beside this machine.
    pub(crate) insecure_http: Vec<String>,
}

/// The agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    insecure_http: Vec<String>,
    stop: Stop,
}

/// Credentials for one origin.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) origin: Origin,
    /// The whole header value.
    pub(crate) value: Secret,
}

/// A request. Header values are ASCII.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) authorization: Option<&'a Authorization>,
    pub(crate) body: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(url: &'a Url) -> Self {
        Request {
            method: Method::GET,
            url,
            headers: &[],
            authorization: None,
            body: None,
        }
    }
}

/// An answer whose body is still to be read.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Where it came from in the end.
    pub(crate) url: Url,
    pub(crate) body: Box<dyn Read + Send>,
}

impl Response {
    /// A header as text, when there is one that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Http {
    /// Errors (`Tell`) when a certificate file cannot be used.
    pub(crate) fn new(settings: &Settings, stop: Stop) -> Result<Self> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("crowsnest/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(STALLED))
            .timeout_recv_response(Some(FIRST_BYTE))
            .timeout_per_read(Some(FIRST_BYTE.max(STALLED)))
            .timeout_per_write(Some(STALLED))
            .max_idle_connections(IDLE)
            .max_idle_connections_per_host(IDLE)
            .tls_config(tls::config(&settings.ca_certs)?)
            .build()
            .new_agent();
        Ok(Http {
            agent,
            insecure_http: settings.insecure_http.clone(),
            stop,
        })
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Breaks off every request under way, of all clones.
    pub(crate) fn shut_down(&self) {
        self.agent.clone().shutdown();
    }

    /// The scheme to use for a host that was given without one: plain HTTP only where it is allowed.
    pub(crate) fn base_url(&self, host: &str) -> Result<Url> {
        let plain: Url = format!("http://{host}/").parse()?;
        if self.allows_plain(&plain.origin()) {
            Ok(plain)
        } else {
            format!("https://{host}/").parse()
        }
    }

    /// Sends `request` and follows its redirects.
    /// Errors: `Retry` when no answer came, `Tell` for an untrusted certificate or forbidden plain HTTP,
    /// `Skip` for a redirect that must not be followed.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut url = request.url.clone();
        for _ in 0..=limit::REDIRECTS {
            let response = self.send_once(request, &url)?;
            let is_redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = response
                .header("location")
                .filter(|_| is_redirect && request.method != Method::POST)
            else {
                return Ok(response);
            };
            let next = url.join(location)?;
            may_follow(&url.origin(), &next)?;
            url = next;
        }
        Err(Error::skip(format_args!(
            "more than {} redirects from `{}`",
            limit::REDIRECTS,
            request.url
        )))
    }

    fn send_once(&self, request: &Request<'_>, url: &Url) -> Result<Response> {
        let origin = url.origin();
        if origin.scheme == "http" && !self.allows_plain(&origin) {
            return Err(Error::tell(format_args!(
                "plain HTTP to `{}` is not allowed",
                origin.authority()
            ))
            .hint(format!(
                "use https, or allow it with --insecure-http {}",
                origin.authority()
            )));
        }
        let mut builder = ureq::http::Request::builder()
            .method(request.method.clone())
            .uri(url.uri().clone());
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some(authorization) = request
            .authorization
            .filter(|authorization| authorization.origin == origin)
        {
            builder = builder.header("authorization", authorization.value.reveal());
        }
        let answer = match request.body {
            Some(body) => builder.body(body).map(|request| self.agent.run(request)),
            None => builder.body(()).map(|request| self.agent.run(request)),
        };
        let answer =
            answer.map_err(|err| Error::tell(format_args!("request to `{url}`: {err}")))?;
        let answer = answer.map_err(|err| transport_error(err, &origin))?;
        let (parts, body) = answer.into_parts();
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            url: url.clone(),
            body: Box::new(body.into_reader()),
        })
    }

    fn allows_plain(&self, origin: &Origin) -> bool {
        origin.is_loopback()
            || self.insecure_http.iter().any(|allowed| {
                *allowed == origin.host || *allowed == format!("{}:{}", origin.host, origin.port)
            })
    }
}

/// Whether a redirect from `from` may be followed. The target gets no credentials, but what is there could
/// still be reached through us.
fn may_follow(from: &Origin, to: &Url) -> Result<()> {
    let target = to.origin();
    if target.host == "landing.jfrog.com" || to.path().contains("reactivate-server") {
        return Err(Error::tell(format_args!(
            "`{}` is suspended: it redirects to `{to}`",
            from.authority()
        ))
        .hint("reactivate the JFrog instance"));
    }
    if from.scheme == "https" && target.scheme == "http" {
        return Err(Error::skip(format_args!(
            "redirect from https to plain `{to}` is not followed"
        )));
    }
    if target.is_internal_to(from) {
        return Err(Error::skip(format_args!(
            "redirect to the internal address `{}` is not followed",
            target.authority()
        )));
    }
    Ok(())
}

fn transport_error(err: ureq::Error, origin: &Origin) -> Error {
    let host = origin.authority();
    let text = err.to_string();
    let is_certificate = text.contains("certificate") || text.contains("UnknownIssuer");
    match err {
        ureq::Error::Timeout(phase) => Error::retry(format_args!("`{host}` timed out: {phase}")),
        ureq::Error::HostNotFound => {
            Error::retry(format_args!("host `{host}` is not known to the resolver"))
        }
        ureq::Error::ConnectionFailed => Error::retry(format_args!("cannot connect to `{host}`")),
        _ if is_certificate => Error::tell(format_args!("certificate of `{host}`: {text}"))
            .hint("name your authority's certificate with --ca-cert FILE"),
        _ => Error::retry(format_args!("`{host}`: {text}")),
    }
}

/// Whether a status means that the same request may succeed later.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
        || (500..600).contains(&status) && status != StatusCode::NOT_IMPLEMENTED.as_u16()
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(secs) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(secs));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value.trim())
        .ok()?;
    let wait = date
        .as_millisecond()
        .saturating_sub(jiff::Timestamp::now().as_millisecond());
    Some(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_to_internal_or_plain_places_are_refused() {
        let public: Url = "https://r.example/".parse().unwrap();
        let local: Url = "http://127.0.0.1:5000/".parse().unwrap();
        for (from, to, want) in [
            (&public, "https://s3.example/x", None),
            (&public, "http://s3.example/x", Some("plain")),
            (&public, "https://169.254.169.254/latest", Some("internal")),
            (&public, "https://localhost/x", Some("internal")),
            (&public, "https://landing.jfrog.com/", Some("suspended")),
            (
                &public,
                "https://x.example/reactivate-server/y",
                Some("suspended"),
            ),
            (&local, "http://127.0.0.1:6000/x", None),
            (&local, "http://169.254.169.254/latest", Some("internal")),
        ] {
            let result = may_follow(&from.origin(), &to.parse().unwrap());
            match (result, want) {
                (Ok(()), None) => {}
                (Err(err), Some(word)) => assert!(err.to_string().contains(word), "{err}"),
                (result, _) => panic!("{to}: {result:?}"),
            }
        }
    }

    #[test]
    fn plain_http_needs_permission() {
        let settings = Settings {
            insecure_http: vec!["r.internal:5000".to_owned()],
            ..Settings::default()
        };
        let http = Http::new(&settings, Stop::default()).unwrap();
        assert_eq!(
            http.base_url("r.internal:5000").unwrap().origin().scheme,
            "http"
        );
        assert_eq!(
            http.base_url("localhost:5000").unwrap().origin().scheme,
            "http"
        );
        assert_eq!(http.base_url("r.example").unwrap().origin().scheme, "https");
        let url: Url = "http://r.example/v2/".parse().unwrap();
        let err = http.send(&Request::get(&url)).err().unwrap();
        assert!(
            err.to_string()
                .contains("plain HTTP to `r.example` is not allowed"),
            "{err}"
        );
    }

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Fri, 31 Dec 1999 23:59:59 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon"), None);
    }
}
