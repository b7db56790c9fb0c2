//! Runs commands and measures them: wall seconds, processor seconds, peak memory.
//!
//! Figures of a child come from `/usr/bin/time`, which gets them from the kernel when the child has ended:
//! polling /proc would miss the last moments, and std has no `wait4`. Those of running processes and of the
//! machine come from proc(5).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::temp_dir::TempDir;

/// `USER_HZ`, 100 on every architecture that Linux is used on.
const TICKS_PER_SECOND: f64 = 100.0;

/// One run of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Processor seconds of the command and its children, user and system.
    pub(crate) cpu: f64,
    /// The same of the server it talked to; 0 when it is not known.
    pub(crate) server_cpu: f64,
    /// The same of everything else on the machine.
    pub(crate) other_cpu: f64,
    /// Bytes of resident memory at most; of a pipeline, of its largest process.
    pub(crate) peak: u64,
}

/// Whose processor time counts as the server's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    /// The emulator, which runs in this process.
    Here,
    /// A process of its own.
    Process(u32),
    Unknown,
}

impl Server {
    /// The process of this machine that listens on the port of `host:port`.
    pub(crate) fn listening_on(host: &str) -> Server {
        let port = host
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        port.and_then(find_listener)
            .map_or(Server::Unknown, Server::Process)
    }

    fn cpu(self) -> f64 {
        match self {
            Server::Here => cpu_of("self"),
            Server::Process(pid) => cpu_of(&pid.to_string()),
            Server::Unknown => 0.0,
        }
    }
}

/// Runs a command to its end. Returns the measurement, the exit code and what it wrote to stderr.
/// Panics when it cannot be started.
pub(crate) fn run(command: &mut Command, server: Server) -> (Sample, i32, String) {
    let folder = TempDir::new("bench-run");
    let (figures, errors) = (folder.path().join("figures"), folder.path().join("errors"));
    let mut timed = Command::new("/usr/bin/time");
    timed
        .args(["-q", "-f", "%U %S %M", "-o"])
        .arg(&figures)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    timed
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&errors).unwrap());
    let (server_before, machine_before) = (server.cpu(), busy());
    let started = Instant::now();
    let status = timed
        .status()
        .unwrap_or_else(|err| panic!("/usr/bin/time: {err} (install it: apt-get install time)"));
    let wall = started.elapsed().as_secs_f64();
    let (server_cpu, machine) = (server.cpu() - server_before, busy() - machine_before);
    let text = fs::read_to_string(&figures).unwrap();
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(|word| {
            word.parse()
                .unwrap_or_else(|_| panic!("time said `{text}`"))
        })
        .collect();
    let cpu = numbers[0] + numbers[1];
    let sample = Sample {
        wall,
        cpu,
        server_cpu,
        other_cpu: (machine - cpu - server_cpu).max(0.0),
        peak: numbers[2] as u64 * 1024,
    };
    let errors = fs::read(&errors).unwrap();
    let errors = String::from_utf8_lossy(&errors).into_owned();
    (sample, status.code().unwrap_or(-1), errors)
}

/// A run of crowsnest.
pub(crate) struct Pass {
    pub(crate) sample: Sample,
    /// What the last line of its log says, such as `unchanged`; null when it was quiet.
    pub(crate) done: Value,
    /// Packages of all images that it indexed.
    pub(crate) n_packages: u64,
}

impl Pass {
    /// A count of the last line. Panics when it has none of that name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.done[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no `{name}` in {:?}", self.done))
    }
}

/// Runs `crowsnest watch --all-images`, with the store in `data_dir`. Panics with its last words when it fails.
pub(crate) fn watch(
    data_dir: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
    server: Server,
) -> Pass {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crowsnest"));
    command
        .args([
            "watch",
            "--all-images",
            "--log-format",
            "json",
            "--data-dir",
        ])
        .arg(data_dir)
        .args(arguments)
        .envs(variables.iter().copied());
    let (sample, code, errors) = run(&mut command, server);
    if code != 0 {
        let lines: Vec<&str> = errors.lines().collect();
        let last = &lines[lines.len().saturating_sub(20)..];
        panic!("crowsnest ended with {code}:\n{}", last.join("\n"));
    }
    let mut pass = Pass {
        sample,
        done: Value::Null,
        n_packages: 0,
    };
    for line in errors.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        match line["message"].as_str() {
            Some("image indexed") => pass.n_packages += line["packages"].as_u64().unwrap_or(0),
            Some("done") => pass.done = line,
            _ => {}
        }
    }
    pass
}

/// Processor seconds of a process so far; 0 when it is gone.
fn cpu_of(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces. Fields 14 and 15 of proc(5) are user and system time.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS_PER_SECOND
}

/// Seconds that all processors of the machine were busy so far.
fn busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice and system, interrupts, and what a host took away; not idle and waiting for disks.
    let counted = [0, 1, 2, 5, 6, 7];
    let ticks = counted.iter().filter_map(|at| fields.get(*at));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// The process that holds the listening socket of a port, by proc_net(5); `None` when it cannot be seen.
fn find_listener(port: u16) -> Option<u32> {
    const LISTEN: &str = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let text = fs::read_to_string(table).ok()?;
            text.lines().find_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let is_it =
                    fields.get(1)?.ends_with(&format!(":{port:04X}")) && fields[3] == LISTEN;
                is_it.then(|| format!("socket:[{}]", fields[9]))
            })
        })?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let holds = files.any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == inode.as_str())
        });
        holds.then_some(pid)
    })
}
