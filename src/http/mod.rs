//! Outbound HTTP: one agent with its time-outs, certificates and proxies.
//!
//! In: a [`Request`]. Out: a [`Response`] of whatever status, or an error when there was none. Redirects are
//! followed here, at most [`limit::REDIRECTS`], so that credentials can be held back: an [`Authorization`]
//! names the scheme, host and port that it is for and is sent nowhere else (RFC 9110 section 11.6.2; the
//! distribution-spec forbids it across hosts). All clones share one budget a host ([`budget`]): a request waits
//! for its place, and for the time that the host asked for.
//!
//! *Invariant:* nothing is sent twice here, and no body is read: the callers know their limits. Whoever holds a
//! body asks the same host for nothing before it is dropped.

mod body;
mod budget;
pub(crate) mod retry;
mod timeouts;
mod tls;
pub(crate) mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, Method, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};

pub(crate) use body::Body;
use budget::{Budget, Hold};
pub(crate) use timeouts::{Pace, Timeouts};
pub(crate) use url::{Origin, Url};

use crate::error::{Error, Result};
use crate::limit;
use crate::log::Log;
use crate::secret::Secret;
use crate::stop::Stop;
use crate::time::for_people;

/// Requests at a time to one host. Registries allow more, and one machine is busy with fewer.
const MAX_PER_HOST: usize = 16;
/// Idle connections kept of all hosts.
const IDLE: usize = 32;

/// What the user says of connections.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ca_certs: Vec<PathBuf>,
    /// `host` or `host:port` that plain HTTP is allowed to, beside this machine.
    pub(crate) insecure_http: Vec<String>,
    pub(crate) timeouts: Timeouts,
    /// Requests at a time to one host, their bodies included.
    pub(crate) max_per_host: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            ca_certs: Vec::new(),
            insecure_http: Vec::new(),
            timeouts: Timeouts::default(),
            max_per_host: MAX_PER_HOST,
        }
    }
}

/// The agent. Cheap to clone; all clones share its connections and the budgets of hosts.
#[derive(Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    insecure_http: Vec<String>,
    timeouts: Timeouts,
    budget: Arc<Budget>,
    log: Option<Arc<Log>>,
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
    /// How long the host is left alone, or what `Retry-After` says of this request alone.
    pub(crate) retry_after: Option<Duration>,
    /// Dropping it gives its place at the host to another request.
    pub(crate) body: Body,
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
        let Settings {
            timeouts,
            max_per_host,
            ..
        } = *settings;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("crowsnest/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_send_request(Some(timeouts.stall))
            .timeout_recv_response(Some(timeouts.response))
            .timeout_per_write(Some(timeouts.stall))
            .max_idle_connections(IDLE.max(max_per_host))
            .max_idle_connections_per_host(max_per_host)
            .tls_config(tls::config(&settings.ca_certs)?)
            .build();
        let connector = DefaultConnector::default().chain(timeouts::Silence(timeouts.stall));
        Ok(Http {
            agent: ureq::Agent::with_parts(config, connector, DefaultResolver::default()),
            insecure_http: settings.insecure_http.clone(),
            timeouts,
            budget: Budget::new(max_per_host),
            log: None,
            stop,
        })
    }

    /// The same, which tells `log` when a host asks to wait. To be called before it is cloned.
    pub(crate) fn telling(mut self, log: Arc<Log>) -> Self {
        self.log = Some(log);
        self
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
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
    /// Errors: `Retry` when no answer came, or none may be asked for now (then nothing was sent, and
    /// [`Error::retry_after`] says how long), `Tell` for an untrusted certificate or forbidden plain HTTP,
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
        let mut place = self.budget.enter(&origin, &self.stop)?;
        let answer = match request.body {
            Some(body) => builder.body(body).map(|request| self.agent.run(request)),
            None => builder.body(()).map(|request| self.agent.run(request)),
        };
        let answer =
            answer.map_err(|err| Error::tell(format_args!("request to `{url}`: {err}")))?;
        let answer = answer.map_err(|err| transport_error(err, &origin, &self.timeouts))?;
        let (parts, body) = answer.into_parts();
        let status = parts.status.as_u16();
        let named = retry_after(&parts.headers);
        let hold = place.answered(status, named);
        if let Some(hold) = &hold {
            self.tell(&origin, status, hold);
        }
        let body = Box::new(body.into_reader());
        Ok(Response {
            status,
            headers: parts.headers,
            url: url.clone(),
            retry_after: hold.map(|hold| hold.wait).or(named),
            body: Body::new(body, self.timeouts, origin.authority(), place),
        })
    }

    fn tell(&self, origin: &Origin, status: u16, hold: &Hold) {
        let Some(log) = self.log.as_ref().filter(|_| hold.is_news) else {
            return;
        };
        let (host, wait) = (origin.authority(), for_people(hold.wait));
        let data: [(&str, &dyn std::fmt::Display); 3] =
            [("host", &host), ("status", &status), ("wait", &wait)];
        // Work is put back for the longer waits.
        if hold.wait > retry::LONGEST {
            log.warn("host asks to wait", &data);
        } else {
            log.info("host asks to wait", &data);
        }
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

fn transport_error(err: ureq::Error, origin: &Origin, timeouts: &Timeouts) -> Error {
    let host = origin.authority();
    let text = err.to_string();
    let is_certificate = text.contains("certificate") || text.contains("UnknownIssuer");
    match err {
        ureq::Error::Timeout(phase) => timeouts.error(phase, &host),
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

/// Reads `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3), which is compared with the server's own
/// `Date`, since clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = |date: &str| {
        jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(date)
            .ok()
            .map(|date| date.as_millisecond())
    };
    let value = text("retry-after")?;
    if let Ok(secs) = value.parse::<u64>() {
        return Some(Duration::from_secs(secs));
    }
    // The last day of 9999, which people write for ever, is past what jiff holds.
    let then = millis(value).or_else(|| value.contains(" 9999 ").then_some(i64::MAX))?;
    let now = text("date").and_then(millis);
    let now = now.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond());
    let wait = then.saturating_sub(now);
    Some(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}

#[cfg(test)]
pub(crate) mod tests {
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
        let date = "Fri, 31 Dec 1999 23:59:59 GMT";
        let secs = |secs| Some(Duration::from_secs(secs));
        for (value, now, want) in [
            ("7", date, secs(7)),
            (" 7 ", "", secs(7)),
            ("99999999999999999999", "", None),
            ("18446744073709551615", "", secs(u64::MAX)),
            ("-1", "", None),
            ("soon", date, None),
            (
                "Fri, 31 Dec 9999 23:59:59 GMT",
                date,
                Some(Duration::from_millis(i64::MAX as u64 - 946_684_799_000)),
            ),
            (date, "", secs(0)),
            (date, "Fri, 31 Dec 1999 23:59:00 GMT", secs(59)),
            (date, "Sat, 01 Jan 2000 00:00:00 GMT", secs(0)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", value.parse().unwrap());
            if !now.is_empty() {
                headers.insert("date", now.parse().unwrap());
            }
            assert_eq!(retry_after(&headers), want, "{value}");
        }
    }

    /// A server on this machine that gives these answers, one a connection, in turn; and how many it gave.
    pub(crate) fn server(answers: Vec<String>) -> (Url, std::thread::JoinHandle<usize>) {
        use std::io::{Read, Write};
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            for answer in &answers {
                let (mut stream, _) = socket.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            answers.len()
        });
        (url.parse().unwrap(), serving)
    }

    #[test]
    fn a_refusal_keeps_all_clones_away_from_the_host() {
        let busy = "HTTP/1.1 429 \r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
        let long = "HTTP/1.1 429 \r\nRetry-After: 1000\r\nContent-Length: 0\r\n\r\n";
        let good = "HTTP/1.1 200 \r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        let (url, serving) = server([busy, good, long].map(str::to_owned).to_vec());
        let http = Http::new(&Settings::default(), Stop::default()).unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(http.send(&Request::get(&url)).unwrap().status, 429);
        let other = http.clone();
        let second = other.send(&Request::get(&url)).unwrap();
        assert_eq!(second.status, 200);
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let body = limit::read_all(second.body, 10, "body").unwrap();
        assert_eq!(body, b"hi");
        let refused = http.send(&Request::get(&url)).unwrap();
        assert!(refused.retry_after.unwrap() > Duration::from_secs(990));
        assert_eq!(serving.join().unwrap(), 3);
        // Nobody listens any more: it is not even tried.
        let err = other.send(&Request::get(&url)).err().unwrap();
        let host = url.origin().authority();
        assert!(
            err.to_string()
                .starts_with(&format!("`{host}` asked to wait: nothing is sent")),
            "{err}"
        );
        assert!(err.retry_after().unwrap() > Duration::from_secs(990));
    }
}
