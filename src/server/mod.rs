//! HTTP in: webhooks, and whether all is well.
//!
//! In: connections on the ports that the user named. Out: durable events ([`Inbox::take`]), answers. The threads
//! are handed to `watch::run` as [`Service`]s:
//!
//! ```text
//! port ─► accept ─► connection (bounds) ─► tiny_http on loopback ─► webhook (who, what) ─► commit ─► answer
//! ```
//!
//! Nothing reaches tiny_http, which has no bounds of its own, but whole requests of bounded size that somebody
//! still waits for; see [`guard`]. What is answered 202 is on the disk.
//!
//! *Invariant:* whatever clients do, a new connection is let in (the one that has done nothing for longest makes
//! room), and memory stays within [`guard::CONNECTIONS`] times a small request, and [`guard::LARGE_BYTES`].

mod accept;
mod answer;
mod connection;
mod guard;
mod health;
mod inner;
mod socket;
mod webhook;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use crossbeam_channel::bounded;

use crate::error::{Error, Result};
use crate::registry::Source;
use crate::watch::Service;
use guard::Guard;
use webhook::Pending;

/// Deliveries that wait for their commit; more are refused with 503.
const PENDING: usize = 4_096;

/// The bound ports, before anything is served.
pub(crate) struct Server {
    ports: Vec<Port>,
}

/// One bound address, and whose webhooks it takes.
struct Port {
    listener: TcpListener,
    address: SocketAddr,
    /// Indexes of sources.
    sources: Vec<usize>,
}

/// Where to listen, and what a person should know about it.
pub(crate) struct Opened {
    pub(crate) server: Server,
    /// A line each: what is served where.
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Binds the ports of the sources (`port=`), and `listen` for all of them.
///
/// A port without an address is bound on all interfaces when every source behind it has a secret, else on
/// loopback only. Errors (`Tell`) when an address is taken or not ours.
pub(crate) fn open(sources: &[Box<dyn Source>], listen: &[SocketAddr]) -> Result<Opened> {
    let has_secret = |idx: &usize| {
        let webhook = sources.get(*idx).and_then(|source| source.webhook());
        webhook.is_some_and(|webhook| webhook.has_secret())
    };
    let all: Vec<usize> = (0..sources.len())
        .filter(|&idx| sources[idx].webhook().is_some())
        .collect();
    let mut wanted: Vec<(SocketAddr, Vec<usize>)> = listen
        .iter()
        .map(|&address| (address, all.clone()))
        .collect();
    for &idx in &all {
        let Some(port) = sources[idx].webhook().and_then(|webhook| webhook.port()) else {
            continue;
        };
        match wanted
            .iter_mut()
            .find(|(address, _)| address.port() == port)
        {
            Some((_, served)) if served.contains(&idx) => {}
            Some((_, served)) => served.push(idx),
            None => {
                let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
                wanted.push((any, vec![idx]));
            }
        }
    }
    let mut opened = Opened {
        server: Server { ports: Vec::new() },
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    for (mut address, sources_here) in wanted {
        if let Some(&idx) = sources_here.iter().find(|idx| !has_secret(idx)) {
            let is_chosen = listen.contains(&address);
            if !is_chosen {
                address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            let variable = sources[idx]
                .webhook()
                .map_or("", |webhook| webhook.secret_variable());
            let name = sources[idx].name();
            opened.warnings.push(if address.ip().is_loopback() {
                format!(
                    "port {} takes webhooks of `{name}` from this machine only: CROWSNEST_{variable} is not set",
                    address.port()
                )
            } else {
                format!(
                    "{address} takes webhooks of `{name}` from everybody: CROWSNEST_{variable} is not set"
                )
            });
        }
        let listener = socket::bind(address).map_err(|err| {
            Error::tell(format_args!("cannot listen on {address}: {err}"))
                .hint("choose another port with port= or --listen")
        })?;
        let address = listener
            .local_addr()
            .map_err(|err| Error::tell(format_args!("listening on {address}: {err}")))?;
        let names: Vec<String> = sources_here
            .iter()
            .map(|&idx| sources[idx].name())
            .collect();
        opened
            .notes
            .push(format!("{address} for {}", names.join(", ")));
        opened.server.ports.push(Port {
            listener,
            address,
            sources: sources_here,
        });
    }
    Ok(opened)
}

impl Server {
    pub(crate) fn is_idle(&self) -> bool {
        self.ports.is_empty()
    }

    /// The threads that serve. Errors (`Stop`) when loopback cannot be listened on.
    pub(crate) fn services(self) -> Result<Vec<Service<'static>>> {
        let inner = inner::start()?;
        let mut services = Vec::new();
        let mut served = Vec::new();
        let guard = Arc::new(Guard::new(
            inner.address,
            self.ports.iter().map(|port| port.address).collect(),
        ));
        for (idx, port) in self.ports.into_iter().enumerate() {
            served.push(port.sources);
            let guard = Arc::clone(&guard);
            services.push(Service {
                name: format!("accept-{}", port.address.port()),
                run: Box::new(move |inbox| accept::run(&guard, idx, &port.listener, inbox)),
            });
        }
        let (sender, pending) = bounded::<Pending>(PENDING);
        services.push(Service {
            name: "webhook".to_owned(),
            run: Box::new(move |inbox| {
                webhook::serve(inner.server, &guard, &served, &sender, inbox)
            }),
        });
        services.push(Service {
            name: "commit".to_owned(),
            run: Box::new(move |inbox| webhook::commit(&pending, inbox)),
        });
        Ok(services)
    }
}
