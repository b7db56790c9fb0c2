//! The emulator as a program, for trying clients by hand.
//!
//! `artifactory-emulator --listen 127.0.0.1:8081 --upstream http://127.0.0.1:5000
//! --repo docker-local=local --repo all=virtual:docker-local+hub>docker-local --repo hub=remote
//! --user admin:password --switch link=numeric`; `--switches` prints the switches. Prints its URL
//! and serves until it is killed.

#[path = "mod.rs"]
mod emulator;

use std::error::Error;
use std::io::Write as _;

use emulator::{Config, Emulator, Repository, SWITCHES, User};
use lexopt::Arg::Long;
use lexopt::ValueExt as _;

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config {
        repositories: Vec::new(),
        users: Vec::new(),
        ..Config::default()
    };
    let mut out = std::io::stdout();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => config.listen = arguments.value()?.string()?,
            Long("upstream") => config.upstream = Some(arguments.value()?.string()?),
            Long("repo") => {
                let text = arguments.value()?.string()?;
                config.repositories.push(Repository::parse(&text)?);
            }
            Long("user") => {
                let text = arguments.value()?.string()?;
                let (name, password) = text.split_once(':').ok_or("--user takes name:password")?;
                config.users.push(User::admin(name, password));
            }
            Long("switch") => {
                let text = arguments.value()?.string()?;
                let (name, value) = text.split_once('=').ok_or("--switch takes name=value")?;
                config.switches.push((name.to_owned(), value.to_owned()));
            }
            Long("switches") => {
                for (name, default, meaning) in SWITCHES {
                    writeln!(out, "{name}={default}\t{meaning}")?;
                }
                return Ok(());
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    let emulator = Emulator::try_start(config)?;
    writeln!(out, "{}", emulator.base_url())?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}
