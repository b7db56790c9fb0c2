//! From the command line to a running pipeline, and from its outcome to the closing lines and the exit code.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::cli;
use crate::cli::flags::Given;
use crate::distribution::credentials::Keychain;
use crate::error::{Error, Result};
use crate::http::{Http, Settings, Timeouts};
use crate::image::Platform;
use crate::log::{Format, Level, Log};
use crate::registry::{self, Setup, Source};
use crate::server;
use crate::stop::Stop;
use crate::store::Store;
use crate::time::for_people;
use crate::watch::dry_run::DryRun;
use crate::watch::{self, Mode, Outcome, Plan, Service, megabytes};

/// Jobs and layers at a time that make any sense on one machine.
const WORKERS: std::ops::RangeInclusive<u64> = 1..=256;
/// Seconds between listings: up to a day.
const INTERVAL: std::ops::RangeInclusive<u64> = 1..=86_400;
/// Seconds of a time-out: a server that takes longer is no use.
const TIMEOUT: std::ops::RangeInclusive<u64> = 1..=3_600;
/// Requests at a time to one host.
const PER_HOST: std::ops::RangeInclusive<u64> = 1..=1_024;
/// Days that what is gone may be kept: up to a hundred years.
const KEEP: std::ops::RangeInclusive<u64> = 1..=36_500;

pub(super) fn run(given: Given) -> Result<ExitCode> {
    let log = Arc::new(log_of(&given));
    let stop = Stop::default();
    let timeout = |flag: &str| given.number(flag, TIMEOUT).map(Duration::from_secs);
    let settings = Settings {
        timeouts: Timeouts {
            connect: timeout("connect-timeout")?,
            response: timeout("response-timeout")?,
            stall: timeout("stall-timeout")?,
        },
        max_per_host: usize::try_from(given.number("max-per-host", PER_HOST)?).unwrap_or(1),
        ..cli::connections(&given)
    };
    let http = Http::new(&settings, stop.clone())?.telling(Arc::clone(&log));
    let keychain = Arc::new(Keychain::load(&cli::variable)?);
    if let Some(warning) = keychain.warning() {
        log.warn("credentials", &[("warning", &warning)]);
    }
    let owned = |name: &str| {
        given
            .many(name)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    let (token_realms, tags) = (owned("token-realm"), owned("tag"));
    let setup = Setup {
        http: &http,
        keychain: &keychain,
        token_realms: &token_realms,
        variable: &cli::registry_variable,
        tags: &tags,
        log: Some(&log),
    };
    let mut sources = given.each("registry", |text| registry::open(text, &setup))?;
    sources.extend(registry::open_repositories(&owned("repository"), &setup)?);
    let mut names: Vec<String> = sources.iter().map(|source| source.name()).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(
            Error::tell(format_args!("`{}` is named twice", twice[0])).hint(
                "give all of its repositories in one, such as \"repository=a,b\": each would take the tags of \
                 the other for gone",
            ),
        );
    }
    let interval = Duration::from_secs(given.number("interval", INTERVAL)?);
    let all_images = given.is_set("all-images");
    let mode = if all_images && !given.is_set("refresh-registry") && !given.is_given("interval") {
        Mode::Once
    } else {
        Mode::Watch {
            interval,
            all_images,
        }
    };
    let listen = given.each("listen", address)?;
    let n_workers = usize::try_from(given.number("workers", WORKERS)?).unwrap_or(1);
    let platforms = given.each("platform", str::parse::<Platform>)?;
    let max_layer_bytes = given.size("max-layer-size")?;
    let keep = match given.is_given("keep") {
        true => Some(Duration::from_secs(given.number("keep", KEEP)? * 86_400)),
        false => None,
    };
    let data_dir = cli::data_dir(&given)?;
    if given.is_set("dry-run") {
        let store = if Store::exists(&data_dir)? {
            Some(Store::open(&data_dir)?)
        } else {
            None
        };
        let (store, platforms) = (store.as_ref(), &platforms[..]);
        let plan = DryRun {
            store,
            sources: &sources,
            mode,
            platforms,
            max_layer_bytes,
        };
        return dry_run(&plan, &log, &stop);
    }
    let store = Store::open(&data_dir)?;
    let services = match mode {
        Mode::Once => {
            let has_port = sources
                .iter()
                .filter_map(|source| source.webhook())
                .any(|webhook| webhook.port().is_some());
            if !listen.is_empty() || has_port {
                log.info("a single pass receives no webhooks", &[]);
            }
            Vec::new()
        }
        Mode::Watch { .. } => services(&sources, &listen, &log)?,
    };
    let plan = Plan {
        store: &store,
        sources: &sources,
        http: &http,
        mode,
        n_workers,
        platforms,
        max_layer_bytes,
        with_sbom: given.is_set("sbom"),
        keep,
        reload: &|| registry::reload_credentials(&keychain, &sources),
    };
    let outcome = watch::run(&plan, services, &log, &stop)?;
    close(&log, &outcome, &store)
}

/// Binds the ports for webhooks, and says where they are.
fn services(
    sources: &[Box<dyn Source>],
    listen: &[SocketAddr],
    log: &Log,
) -> Result<Vec<Service<'static>>> {
    let opened = server::open(sources, listen)?;
    for warning in &opened.warnings {
        log.warn("webhooks", &[("warning", warning)]);
    }
    for note in &opened.notes {
        log.info("listening for webhooks", &[("on", note)]);
    }
    if opened.server.is_idle() {
        return Ok(Vec::new());
    }
    opened.server.services()
}

/// An address to listen on. Errors (`Tell`) when it has no port.
fn address(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        Error::tell(format_args!(
            "expected an IP address and port, found `{text}`"
        ))
        .hint("for example 0.0.0.0:9000, or 127.0.0.1:9000 behind a proxy")
    })
}

/// Prints what would be read: one line an image, bytes and layers first, then the totals.
fn dry_run(plan: &DryRun<'_>, log: &Log, stop: &Stop) -> Result<ExitCode> {
    let totals = watch::dry_run::run(plan, log, stop, &mut |planned| {
        if let Some(err) = &planned.error {
            log.error(
                "image cannot be looked at",
                &[("image", &planned.image), ("error", err)],
            );
            return Ok(());
        }
        let layers = if planned.n_layers == 1 {
            "layer"
        } else {
            "layers"
        };
        cli::print(&format!(
            "{:>9}  {:>3} {layers:<6}  {}\n",
            megabytes(planned.bytes),
            planned.n_layers,
            planned.image
        ))
    })?;
    cli::print(&format!(
        "{} of {} tags would be read: {} layers, {}; nothing was read or stored\n",
        totals.images - totals.failed,
        totals.tags,
        totals.layers,
        megabytes(totals.bytes)
    ))?;
    Ok(if totals.failed > 0 {
        ExitCode::from(FAILURES)
    } else {
        ExitCode::SUCCESS
    })
}

fn log_of(given: &Given) -> Log {
    let level = if given.is_set("debug") || given.is_set("verbose-debug") {
        Level::Debug
    } else if given.is_set("quiet") {
        Level::Warn
    } else {
        Level::Info
    };
    Log::new(
        level,
        if given.one("log-format") == Some("json") {
            Format::Json
        } else {
            Format::Text
        },
    )
}

/// The closing summary, what failed by name, what to type next, and the exit code.
fn close(log: &Log, outcome: &Outcome, store: &Store) -> Result<ExitCode> {
    let totals = &outcome.summary;
    log.info(
        "done",
        &[
            ("images_new", &totals.indexed),
            ("unchanged", &totals.unchanged),
            ("failed", &outcome.n_failed),
            ("unresolved", &totals.unresolved),
            ("sources_failed", &totals.unlisted),
            ("incomplete", &store.partial_images()?),
            ("gone", &totals.gone),
            ("layers_read", &totals.layers_read),
            ("layers_reused", &totals.layers_reused),
            ("read", &megabytes(totals.bytes_read)),
            ("saved", &megabytes(totals.bytes_saved)),
            ("time", &for_people(totals.elapsed)),
        ],
    );
    if outcome.n_failed > 0 {
        for trouble in store.troubles(&outcome.source_names, NAMED)? {
            let (image, error) = (&trouble.image, &trouble.error);
            log.error(
                "not indexed",
                &[
                    ("image", image),
                    ("error", error),
                    ("hint", &trouble.hint.unwrap_or_default()),
                ],
            );
        }
        if outcome.n_failed > NAMED as u64 {
            log.error(
                "more images failed",
                &[
                    ("count", &(outcome.n_failed - NAMED as u64)),
                    ("see", &"crowsnest status"),
                ],
            );
        }
    }
    if outcome.was_stopped {
        log.info(
            "stopped before the end; the next run goes on from here",
            &[],
        );
    }
    if totals.tags > 0 {
        log.info(
            "next: crowsnest images, crowsnest sbom IMAGE, crowsnest status",
            &[],
        );
    }
    let is_failed = outcome.n_failed + totals.unresolved + totals.unlisted > 0;
    Ok(if is_failed && !outcome.was_stopped {
        ExitCode::from(FAILURES)
    } else {
        ExitCode::SUCCESS
    })
}

/// Exit code of a pass that ended with failures.
const FAILURES: u8 = 3;
/// Failed images that are named at the end.
const NAMED: usize = 1_000;
