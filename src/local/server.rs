//! One throw-away server: made by `initdb`, run as an unprivileged account, ended in every case.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::guard::Guard;
use super::port::{free_port, is_free};
use super::ready::accepts_sessions;
use super::signal::{self, Signal};
use super::user::{self, Account};
use super::{LocalError, ServerBinaries};

/// How long a server may take to accept sessions; recovery after a crash is part of it.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a server may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often to look.
const POLL: Duration = Duration::from_millis(20);
/// How many ports to try for a new server.
const PORT_TRIES: u32 = 20;
/// Unix socket paths are limited to 107 bytes; `.s.PGSQL.65535.lock` needs 20 of them.
const SOCKET_DIR_MAX_BYTES: usize = 80;

/// What every server gets. Small, quick to start, and able to replicate.
const SETTINGS: [(&str, &str); 14] = [
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
    ("track_commit_timestamp", "on"),
    ("shared_buffers", "32MB"),
    ("max_connections", "150"),
    ("max_wal_senders", "50"),
    ("max_replication_slots", "150"),
    ("max_worker_processes", "8"),
    ("max_locks_per_transaction", "256"),
    ("max_wal_size", "1GB"),
    ("jit", "off"),
    ("autovacuum_naptime", "10s"),
    ("log_line_prefix", "%m [%p] %a "),
    ("log_timezone", "UTC"),
];

/// How to make a server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Keep committed rows across a crash. Off is quicker, and enough where no server is killed.
    pub fsync: bool,
    /// Ask for this password (SCRAM) instead of trusting everybody on loopback.
    pub password: Option<String>,
    /// Further settings; they win over those that every server gets.
    pub settings: Vec<(String, String)>,
    /// Environment of the server, such as a clock of its own.
    pub env: Vec<(String, String)>,
}

impl ServerOptions {
    /// A server that keeps what it committed, for tests that kill servers.
    pub fn durable() -> Self {
        Self {
            fsync: true,
            ..Self::default()
        }
    }

    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running (or stopped, or killed) server of ours. Dropping it stops it and removes its folder,
/// unless the thread panics: then folder and log stay for a look.
#[derive(Debug)]
pub struct LocalServer {
    binaries: ServerBinaries,
    dir: PathBuf,
    account: Option<Account>,
    port: u16,
    child: Option<Child>,
    env: Vec<(String, String)>,
    keep: bool,
    _guard: Guard,
}

impl LocalServer {
    /// Makes a server in `dir` with a system identifier of its own and starts it.
    pub fn start_new(
        binaries: &ServerBinaries,
        dir: &Path,
        options: &ServerOptions,
    ) -> Result<Self, LocalError> {
        let account = user::server_account();
        user::make_dir(dir, account)?;
        initdb(binaries, dir, account, options)?;
        write_settings(dir, options)?;
        let mut server = Self {
            binaries: binaries.clone(),
            dir: dir.to_owned(),
            account,
            port: free_port()?,
            child: None,
            env: options.env.clone(),
            keep: false,
            _guard: Guard::server(dir),
        };
        server.start_on_some_port()?;
        Ok(server)
    }

    /// Connection string for the superuser `postgres`, without a password.
    pub fn dsn(&self, dbname: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname={dbname}",
            self.port
        )
    }

    /// The TCP port on 127.0.0.1; it stays the same across restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket, where its path is short enough for one.
    pub fn socket_dir(&self) -> Option<&Path> {
        socket_dir(&self.dir)
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.binaries.major
    }

    /// The binaries it runs from.
    pub fn binaries(&self) -> &ServerBinaries {
        &self.binaries
    }

    /// The postmaster's process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the postmaster lives.
    pub fn is_running(&self) -> bool {
        self.pid().is_some_and(signal::is_alive)
    }

    /// The server's log file.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Leaves folder and log in place when the server is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        // Tells the guard too; without the file it removes the folder, which is only less helpful.
        let _ = File::create(self.dir.join("keep"));
    }

    /// `kill -9` of the whole server, as when the machine loses power.
    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // Frozen first, so that it cannot start a process that would be missed.
        signal::freeze(child.id());
        let mut pids = vec![child.id()];
        pids.extend(signal::children(child.id()));
        signal::send(Signal::Kill, &pids);
        let _ = child.wait();
        wait_until(STOP_LIMIT, || {
            !pids.iter().any(|pid| signal::is_alive(*pid))
        });
    }

    /// Freezes every process of the server: connections stay open and nothing answers.
    pub fn sigstop(&self) {
        let Some(pid) = self.pid() else { return };
        signal::freeze(pid);
        signal::send(Signal::Stop, &signal::children(pid));
    }

    /// Lets a frozen server go on.
    pub fn sigcont(&self) {
        let Some(pid) = self.pid() else { return };
        signal::send(Signal::Cont, &signal::children(pid));
        signal::send(Signal::Cont, &[pid]);
    }

    /// An orderly, fast shutdown: sessions are ended, everything is written.
    pub fn stop(&mut self) {
        self.end_with(Signal::Int);
    }

    /// Starts a server that was stopped or killed, on the same port.
    pub fn start(&mut self) -> Result<(), LocalError> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.start_once() {
                // After a crash the old shared memory, or the port, may take a moment to come free.
                Err(_) if Instant::now() < deadline && self.passing_cause() => {
                    std::thread::sleep(POLL * 10);
                }
                result => return result,
            }
        }
    }

    /// Stops it in an orderly way if it runs, and starts it again.
    pub fn restart(&mut self) -> Result<(), LocalError> {
        self.stop();
        self.start()
    }

    fn start_on_some_port(&mut self) -> Result<(), LocalError> {
        for _ in 1..PORT_TRIES {
            if self.start_once().is_ok() || is_free(self.port) {
                break;
            }
            self.port = free_port()?;
        }
        if self.is_running() {
            Ok(())
        } else {
            self.start()
        }
    }

    fn start_once(&mut self) -> Result<(), LocalError> {
        let log = self.log_path();
        let out = File::options().create(true).append(true).open(&log);
        let out = out.map_err(LocalError::io("cannot write", &log))?;
        let error_out = out
            .try_clone()
            .map_err(LocalError::io("cannot write", &log))?;
        let program = self.binaries.dir.join("postgres");
        let mut command = Command::new(&program);
        command
            .arg("-D")
            .arg(self.data_dir())
            .arg("-p")
            .arg(self.port.to_string());
        command
            .current_dir(&self.dir)
            .env("LC_ALL", "C")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env_remove("PGDATA");
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(error_out)
            .process_group(0);
        user::run_as(&mut command, self.account);
        self.child = Some(
            command
                .spawn()
                .map_err(LocalError::io("cannot run", program))?,
        );
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<(), LocalError> {
        let (port, pid) = (self.port, self.pid());
        let mut accepted = false;
        wait_until(START_LIMIT, || {
            accepted = self.exited() || accepts_sessions(port);
            accepted
        });
        // Somebody else's server may answer on our port while ours has ended.
        if accepted && pid.is_some() && !self.exited() {
            return Ok(());
        }
        self.end_with(Signal::Quit);
        let said = last_line(&self.log_path());
        Err(LocalError::NotReady {
            dir: self.dir.clone(),
            log: self.log_path(),
            said,
        })
    }

    fn exited(&mut self) -> bool {
        self.child
            .as_mut()
            .is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Whether the log names a cause that passes by itself.
    fn passing_cause(&self) -> bool {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let recent = log.lines().rev().take(6).collect::<String>();
        [
            "shared memory block",
            "lock file",
            "could not bind",
            "Address already in use",
        ]
        .iter()
        .any(|cause| recent.contains(cause))
    }

    fn end_with(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        signal::send(signal, &[child.id()]);
        let ended = wait_until(STOP_LIMIT, || !matches!(child.try_wait(), Ok(None)));
        if !ended {
            self.child = Some(child);
            self.kill9();
        }
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.sigcont();
        self.end_with(Signal::Quit);
        if std::thread::panicking() || self.keep {
            self.keep();
        } else {
            // A folder that cannot be removed is in a temporary place anyway.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn initdb(
    binaries: &ServerBinaries,
    dir: &Path,
    account: Option<Account>,
    options: &ServerOptions,
) -> Result<(), LocalError> {
    let program = binaries.dir.join("initdb");
    let mut command = Command::new(&program);
    command.arg("-D").arg(dir.join("data"));
    command.args([
        "--username=postgres",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
    ]);
    command.args(auth_arguments(dir, options)?);
    command
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    user::run_as(&mut command, account);
    let output = command
        .output()
        .map_err(LocalError::io("cannot run", program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr)
        .trim()
        .lines()
        .last()
        .unwrap_or("")
        .into();
    Err(LocalError::Initdb {
        dir: dir.to_owned(),
        said,
    })
}

fn auth_arguments(dir: &Path, options: &ServerOptions) -> Result<Vec<String>, LocalError> {
    let Some(password) = &options.password else {
        return Ok(vec!["--auth=trust".to_owned()]);
    };
    let file = dir.join("password");
    fs::write(&file, password).map_err(LocalError::io("cannot write", &file))?;
    Ok(vec![
        "--auth=scram-sha-256".to_owned(),
        format!("--pwfile={}", file.display()),
    ])
}

fn write_settings(dir: &Path, options: &ServerOptions) -> Result<(), LocalError> {
    let path = dir.join("data/postgresql.conf");
    let sockets = socket_dir(dir).map_or_else(String::new, |dir| dir.display().to_string());
    let fsync = if options.fsync { "on" } else { "off" };
    let mut all: Vec<(&str, &str)> = SETTINGS.to_vec();
    all.extend([("unix_socket_directories", sockets.as_str())]);
    all.extend([("fsync", fsync), ("full_page_writes", fsync)]);
    all.extend(
        options
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let line = |(name, value): &(&str, &str)| format!("{name} = '{}'\n", value.replace('\'', "''"));
    let text: String = all.iter().map(line).collect();
    let mut file = File::options().append(true).open(&path);
    file.as_mut()
        .map_err(|error| std::io::Error::new(error.kind(), error.to_string()))
        .and_then(|file| file.write_all(text.as_bytes()))
        .map_err(LocalError::io("cannot write", path))
}

fn socket_dir(dir: &Path) -> Option<&Path> {
    (dir.as_os_str().len() <= SOCKET_DIR_MAX_BYTES).then_some(dir)
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no log")
        .to_owned()
}

/// Polls until `done` or the limit; says whether it was done.
fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}
