//! `crowsnest webhook`: how to have a registry send its webhooks, and whether they would be heard.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::flags::{CA_CERT, Command, Flag, Given, INSECURE_HTTP, Positional};
use crate::cli::{self, print};
use crate::distribution::credentials::Keychain;
use crate::error::{Error, Result};
use crate::http::{Http, Request, Url};
use crate::limit;
use crate::registry::webhook::Webhook;
use crate::registry::{self, Setup, Source};
use crate::stop::Stop;

pub(crate) const COMMAND: Command = Command {
    name: "webhook",
    summary: "Set up a registry's webhooks, and check that they are heard",
    usage: "webhook [OPTIONS] --registry REGISTRY ACTION",
    about: &[
        "print tells what to enter in the registry so that it sends its webhooks here: by hand, and as a \
         request to its API. Nothing is sent.",
        "test sends a signed sample to a running watch and says what was answered; then the same without a \
         signature, which must be refused when there is a secret. The sample changes nothing.",
        "The secret is the value of CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET or CROWSNEST_OCI_WEBHOOK_AUTH, as for \
         watch.",
    ],
    flags: &[
        CA_CERT,
        INSECURE_HTTP,
        Flag {
            long: "registry",
            value: Some("REGISTRY"),
            is_repeated: true,
            is_whole: true,
            env: &["CROWSNEST_REGISTRY"],
            summary: "The registry, as it is given to watch",
            ..Flag::NEW
        },
        Flag {
            long: "url",
            value: Some("URL"),
            summary: "Where the registry (print) or this command (test) reaches the watch; by default this \
                      machine's port= of the registry",
            ..Flag::NEW
        },
    ],
    positional: Some(Positional {
        name: "ACTION",
        summary: "print or test",
        is_required: true,
    }),
    examples: &[
        (
            "Tell what to enter in Artifactory",
            "crowsnest webhook print --url https://crowsnest.example.com/ --registry \
             type=artifactory,registry=example.jfrog.io,api=https://example.jfrog.io/artifactory,repository=docker-local",
        ),
        (
            "Check the watch on this machine",
            "crowsnest webhook test --registry type=oci,registry=registry.example.com,port=9000",
        ),
    ],
    exit_codes: &[
        (0, "printed; or the watch heard the sample"),
        (
            1,
            "it could not run; or the watch did not answer as it should",
        ),
    ],
    is_hidden: false,
    check,
    run,
};

/// The port that is named in examples when none was given.
const PORT: u16 = 9000;

fn check(given: &Given) -> Result<()> {
    if !given.is_given("registry") {
        return Err(Error::tell("expected --registry, as it is given to watch"));
    }
    match given.positional() {
        Some("print" | "test") => Ok(()),
        other => Err(Error::tell(format_args!(
            "expected `print` or `test`, found `{}`",
            other.unwrap_or("")
        ))),
    }
}

fn run(given: Given) -> Result<ExitCode> {
    let http = Http::new(&cli::connections(&given), Stop::default())?;
    let keychain = Arc::new(Keychain::load(&cli::variable)?);
    let setup = Setup {
        http: &http,
        keychain: &keychain,
        token_realms: &[],
        variable: &cli::registry_variable,
        tags: &[],
        log: None,
    };
    let sources = given.each("registry", |text| registry::open(text, &setup))?;
    let is_test = given.positional() == Some("test");
    for source in &sources {
        let Some(webhook) = source.webhook() else {
            let name = source.name();
            return Err(Error::tell(format_args!("`{name}` sends no webhooks"))
                .hint("its changes are seen by the listings"));
        };
        let url = match given.one("url") {
            Some(url) => url.to_owned(),
            None if is_test => format!("http://127.0.0.1:{}/", webhook.port().unwrap_or(PORT)),
            None => format!("http://THIS_HOST:{}/", webhook.port().unwrap_or(PORT)),
        };
        if is_test {
            test(&http, source.as_ref(), webhook, &url)?;
        } else {
            describe(source.as_ref(), webhook, &url)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(source: &dyn Source, webhook: &dyn Webhook, url: &str) -> Result<()> {
    let name = source.name();
    let variable = webhook.secret_variable();
    let missing = if webhook.has_secret() {
        String::new()
    } else {
        format!(
            "CROWSNEST_{variable} is not set here: choose 64 or more random characters, enter them below, and set \
             the variable for watch, which else takes webhooks from this machine only.\n\n"
        )
    };
    print(&format!("# {name}\n\n{missing}{}", webhook.setup(url)))
}

fn test(http: &Http, source: &dyn Source, webhook: &dyn Webhook, url: &str) -> Result<()> {
    let url = checked(url)?;
    let (headers, body) = webhook.sample();
    let send = |headers: &[(&'static str, String)]| -> Result<(u16, String)> {
        let headers: Vec<(&'static str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let response = http.send(&Request {
            method: ureq::http::Method::POST,
            url: &url,
            headers: &headers,
            authorization: None,
            body: Some(&body),
        })?;
        let status = response.status;
        let text = limit::read_all(response.body, limit::ERROR_BODY_BYTES, "answer")?;
        Ok((status, String::from_utf8_lossy(&text).trim().to_owned()))
    };
    let name = source.name();
    let (status, text) = send(&headers).map_err(|err| {
        err.context(format_args!("`{name}`: the watch at `{url}`"))
            .hint(
                "is it running, and listening there? it says `listening for webhooks` at its start",
            )
    })?;
    if status != 200 {
        let hint = match status {
            401 => format!(
                "watch and this command must have the same CROWSNEST_{}",
                webhook.secret_variable()
            ),
            _ => "is it a crowsnest watch with this registry?".to_owned(),
        };
        return Err(
            Error::tell(format_args!("`{name}`: `{url}` answered {status}: {text}")).hint(hint),
        );
    }
    if webhook.has_secret() {
        let (status, _) = send(&[])?;
        if status != 401 {
            return Err(Error::tell(format_args!(
                "`{name}`: `{url}` answered {status} to an event without a signature"
            ))
            .hint("the watch runs without the secret, or something else answers there"));
        }
        print(&format!(
            "{name}: heard at {url}; without a signature it is refused\n"
        ))
    } else {
        print(&format!(
            "{name}: heard at {url}; there is no secret, so that anybody is who can reach it\n"
        ))
    }
}

/// The URL of a watch. A bare address is taken too.
fn checked(text: &str) -> Result<Url> {
    let text = match text.parse::<SocketAddr>() {
        Ok(address) => format!("http://{address}/"),
        Err(_) => text.to_owned(),
    };
    text.parse()
        .map_err(|err: Error| Error::tell(err).context("--url"))
}
