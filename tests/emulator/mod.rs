//! An emulator of JFrog Artifactory for tests: storage model, AQL, REST and the registry protocol
//! in front of a real plain registry that keeps the bytes.
//!
//! In: a [`Config`] (repositories, users, the upstream's URL), then HTTP. Out: HTTP as
//! `reference/registries.md` sections A and F say Artifactory answers, a log of all requests, and
//! a storage that can be looked into; and webhooks, with a record of every delivery. Everything listens on 127.0.0.1 and lives in memory, except
//! layers, which stay in the upstream. What differs between servers is a switch, see
//! [`switch_table::TABLE`]. Not here: users' administration, Xray.
//!
//! *Invariant:* the emulator shows our reading of Artifactory and nothing of our own client; it
//! shares no code with `src/`.

// Each user of this module (the tests, the binary of its own) uses a part of it.
#![allow(dead_code, unused_imports)]

mod ant;
mod aql;
mod aql_answer;
mod aql_json;
mod aql_rows;
mod aql_text;
mod auth;
mod deliveries;
mod events;
mod faults;
mod files;
mod layout;
mod listing;
pub(crate) mod message;
mod promote;
mod push;
mod registry;
mod repositories;
mod route;
mod seed;
pub(crate) mod server;
mod storage;
mod storage_api;
mod subscriptions;
mod switch_table;
mod switches;
mod time;
mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use auth::User;
pub(crate) use deliveries::Delivery;
pub(crate) use message::Door;
pub(crate) use repositories::{Class, Repository};
pub(crate) use seed::Times;
pub(crate) use switch_table::TABLE as SWITCHES;

use auth::Sessions;
use deliveries::{Outbox, Sending};
use events::Held;
use message::Request;
use push::Upload;
use server::{Listener, lock};
use storage::Storage;
use subscriptions::Subscriptions;
use switches::Switches;
use upstream::Upstream;

/// What to emulate.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where to listen, such as `127.0.0.1:0`.
    pub(crate) listen: String,
    /// The plain registry behind, such as `http://127.0.0.1:5000`; without one only seeded images
    /// can be read.
    pub(crate) upstream: Option<String>,
    pub(crate) repositories: Vec<Repository>,
    pub(crate) users: Vec<User>,
    /// Switches to set at the start: name and value.
    pub(crate) switches: Vec<(String, String)>,
}

impl Default for Config {
    /// One local repository `docker-local` and the administrator `admin` with password `password`.
    fn default() -> Config {
        Config {
            listen: "127.0.0.1:0".to_owned(),
            upstream: None,
            repositories: vec![Repository::new("docker-local", Class::Local)],
            users: vec![User::admin("admin", "password")],
            switches: Vec::new(),
        }
    }
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) door: Door,
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The text of an AQL query; `None` for everything else.
    pub(crate) body: Option<String>,
}

impl Logged {
    /// The first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A running emulator; stops when dropped.
pub(crate) struct Emulator {
    state: Arc<State>,
    main: Listener,
    blob_host: Listener,
    ports: Mutex<HashMap<String, Listener>>,
    sending: Sending,
}

/// What the threads share.
pub(crate) struct State {
    repositories: Vec<Repository>,
    users: Vec<User>,
    upstream: Option<Upstream>,
    switches: RwLock<Arc<Switches>>,
    storage: RwLock<Storage>,
    sessions: Mutex<Sessions>,
    uploads: Mutex<HashMap<String, Upload>>,
    log: Mutex<Vec<Logged>>,
    subscriptions: Subscriptions,
    held: Held,
    outbox: Arc<Outbox>,
    numbers: AtomicU64,
    faults: AtomicU64,
    blob_faults: AtomicU64,
    fault_turns: AtomicU64,
    fault_draws: AtomicU64,
    aql_running: AtomicU64,
    addresses: OnceLock<(SocketAddr, SocketAddr)>,
}

impl Emulator {
    /// Starts listening. Panics when the address is taken or a switch is wrong: a test cannot go
    /// on without its server.
    pub(crate) fn start(config: Config) -> Emulator {
        Emulator::try_start(config).unwrap_or_else(|text| panic!("starting the emulator: {text}"))
    }

    /// Starts listening; an error when the address is taken or a switch is wrong.
    pub(crate) fn try_start(config: Config) -> Result<Emulator, String> {
        let mut switches = Switches::default();
        for (name, value) in &config.switches {
            switches.set(name, value)?;
        }
        let state = Arc::new(State {
            repositories: config.repositories,
            users: config.users,
            upstream: config.upstream.as_deref().map(Upstream::new),
            switches: RwLock::new(Arc::new(switches)),
            storage: RwLock::default(),
            sessions: Mutex::default(),
            uploads: Mutex::default(),
            log: Mutex::default(),
            subscriptions: Mutex::default(),
            held: Mutex::default(),
            outbox: Arc::default(),
            numbers: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            blob_faults: AtomicU64::new(0),
            fault_turns: AtomicU64::new(0),
            fault_draws: AtomicU64::new(0),
            aql_running: AtomicU64::new(0),
            addresses: OnceLock::new(),
        });
        let listen = |address: &str, door| {
            let handler = handler(&state);
            Listener::start(address, door, handler).map_err(|e| format!("{address}: {e}"))
        };
        let main = listen(&config.listen, Door::Main)?;
        let blob_host = listen("127.0.0.1:0", Door::BlobHost)?;
        state
            .addresses
            .get_or_init(|| (main.address(), blob_host.address()));
        let sending = state.outbox.start();
        Ok(Emulator {
            state,
            main,
            blob_host,
            ports: Mutex::default(),
            sending,
        })
    }

    /// `http://127.0.0.1:PORT/artifactory`, the `api=` option.
    pub(crate) fn base_url(&self) -> String {
        self.state.base_url()
    }

    /// `127.0.0.1:PORT`, the registry of the repository-path method.
    pub(crate) fn host(&self) -> String {
        self.main.address().to_string()
    }

    /// `http://127.0.0.1:PORT` of the listener that redirects point to.
    pub(crate) fn blob_host_url(&self) -> String {
        self.state.blob_host_url()
    }

    /// `127.0.0.1:PORT` of a listener that belongs to one repository (docker's port method).
    pub(crate) fn port_host(&self, key: &str) -> String {
        let mut ports = lock(&self.ports);
        let listener = ports.entry(key.to_owned()).or_insert_with(|| {
            let door = Door::Port(key.to_owned());
            Listener::start("127.0.0.1:0", door, handler(&self.state))
                .unwrap_or_else(|error| panic!("listening for `{key}`: {error}"))
        });
        listener.address().to_string()
    }

    /// Sets a switch; the counts of faults (`fault_every`, `fault_times`, `blob_fault_times`)
    /// and of requests that faults are drawn for begin anew. Panics on an unknown name or a wrong value.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let mut switches = self
            .state
            .switches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Err(text) = Arc::make_mut(&mut switches).set(name, value) {
            panic!("{text}");
        }
        self.state.faults.store(0, Ordering::Relaxed);
        self.state.blob_faults.store(0, Ordering::Relaxed);
        self.state.fault_turns.store(0, Ordering::Relaxed);
        self.state.fault_draws.store(0, Ordering::Relaxed);
    }

    /// All requests so far on all listeners, in order of arrival.
    pub(crate) fn requests(&self) -> Vec<Logged> {
        lock(&self.state.log).clone()
    }

    /// The requests that went to the blob host.
    pub(crate) fn blob_host_requests(&self) -> Vec<Logged> {
        let mut requests = self.requests();
        requests.retain(|request| request.door == Door::BlobHost);
        requests
    }

    /// How many requests had that method and a target containing `text`.
    pub(crate) fn count_requests(&self, method: &str, text: &str) -> usize {
        let log = lock(&self.state.log);
        let fits = |request: &&Logged| request.method == method && request.target.contains(text);
        log.iter().filter(fits).count()
    }

    /// How many requests there were.
    pub(crate) fn n_requests(&self) -> usize {
        lock(&self.state.log).len()
    }

    /// Forgets the requests so far.
    pub(crate) fn clear_requests(&self) {
        lock(&self.state.log).clear();
    }
}

/// The function that a listener calls for each request.
fn handler(state: &Arc<State>) -> Arc<server::Handler> {
    let state = state.clone();
    Arc::new(move |request: &mut Request| {
        lock(&state.log).push(Logged {
            door: request.door.clone(),
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body: None,
        });
        state.answer(request)
    })
}

impl State {
    pub(crate) fn base_url(&self) -> String {
        let addresses = self.addresses.get();
        addresses.map_or(String::new(), |(main, _)| {
            format!("http://{main}/artifactory")
        })
    }

    pub(crate) fn blob_host_url(&self) -> String {
        let addresses = self.addresses.get();
        addresses.map_or(String::new(), |(_, blobs)| format!("http://{blobs}"))
    }

    /// The switches as they are now; a copy, so that no lock is held while answering.
    pub(crate) fn switches(&self) -> Arc<Switches> {
        let switches = self.switches.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&switches)
    }

    pub(crate) fn storage(&self) -> RwLockReadGuard<'_, Storage> {
        self.storage.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn storage_mut(&self) -> RwLockWriteGuard<'_, Storage> {
        self.storage.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that was not given before.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}
