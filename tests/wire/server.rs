//! One real server for all tests of this file, stopped when the last of them ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use mmrepl::config::conninfo::ConnInfo;
use mmrepl::wire::{Session, WireError};

use crate::certs::{Identity, Wanted, wanted};

/// Which role may log in how. Passwords are the word `secret`.
const HBA: &str = "\
local all all trust
host all md5_role 127.0.0.1/32 md5
host all scram_role 127.0.0.1/32 scram-sha-256
host all clear_role 127.0.0.1/32 password
hostssl all cert_role 127.0.0.1/32 cert
hostssl all tls_role 127.0.0.1/32 trust
hostnossl all plain_role 127.0.0.1/32 trust
host all postgres,slow_role,odd_role,read_only_role 127.0.0.1/32 trust
";

const SETUP: &str = "\
set password_encryption = 'md5';
create role md5_role login password 'secret';
set password_encryption = 'scram-sha-256';
create role scram_role login password 'secret';
create role clear_role login password 'secret';
create role cert_role login;
create role tls_role login;
create role plain_role login;
create role read_only_role login;
alter role read_only_role set default_transaction_read_only = on;
create role odd_role login replication;
alter role odd_role set datestyle = 'German';
alter role odd_role set intervalstyle = 'sql_standard';
alter role odd_role set extra_float_digits = -5;
alter role odd_role set timezone = 'Asia/Tokyo';
alter role odd_role set bytea_output = 'escape';
alter role odd_role set search_path = 'public';
alter role odd_role set client_encoding = 'LATIN1';
alter role odd_role set array_nulls = off";

pub(crate) struct Server {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// The server that the tests share.
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Self {
        let bin = find_binaries();
        let dir = tempfile::Builder::new()
            .prefix("mmrepl-wire")
            .tempdir_in("/tmp")
            .unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        save_certificates(dir.path());
        give_away(dir.path());
        let initdb = [
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ];
        let made = as_server(&bin.join("initdb"))
            .args(initdb)
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        let port = free_port();
        let child = start_postgres(&bin, dir.path(), port);
        let server = Self { dir, port, child };
        server.wait_and_set_up();
        server
    }

    /// In a thread of its own, because a test's runtime cannot wait for another one.
    fn wait_and_set_up(&self) {
        let info = self.info("user=postgres");
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        std::thread::scope(|scope| {
            let ready = scope.spawn(|| runtime().block_on(set_up(&info)));
            let ready = ready.join().unwrap();
            ready.unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A file beside the server: `ca.crt`, `other.crt`, `cert_role.crt` …
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Connects to this server over TCP, as `rest` says.
    pub(crate) fn info(&self, rest: &str) -> ConnInfo {
        parse(&format!(
            "host=127.0.0.1 port={} dbname=postgres {rest}",
            self.port
        ))
    }

    pub(crate) async fn session(&self, rest: &str) -> Result<Session, WireError> {
        Session::connect(&self.info(rest), "wire test", &[]).await
    }

    pub(crate) async fn superuser(&self) -> Session {
        self.session("user=postgres").await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the server is up, then makes the roles.
async fn set_up(info: &ConnInfo) -> Result<(), WireError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match Session::connect(info, "set up", &[]).await {
            Ok(mut session) => return session.simple(SETUP).await.map(|_| ()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Parses a connection string in an empty environment.
pub(crate) fn parse(dsn: &str) -> ConnInfo {
    mmrepl::config::conninfo::parse(dsn, &|_| None).unwrap()
}

fn find_binaries() -> PathBuf {
    if let Some(dir) =
        std::env::var_os("MMREPL_PG_BIN").and_then(|v| std::env::split_paths(&v).next())
    {
        return dir;
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("install postgresql");
    let mut dirs: Vec<PathBuf> = versions
        .map(|entry| entry.unwrap().path().join("bin"))
        .collect();
    dirs.sort();
    dirs.pop().expect("install postgresql")
}

/// The server refuses to run as root; nobody is on every machine.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn as_server(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/tmp").env("LC_ALL", "C");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn give_away(dir: &Path) {
    if !is_root() {
        return;
    }
    std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        std::os::unix::fs::chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn start_postgres(bin: &Path, dir: &Path, port: u16) -> Child {
    let shown = dir.display();
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={shown}"),
        "wal_level=logical".to_owned(),
        "fsync=off".to_owned(),
        "shared_buffers=32MB".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={shown}/server.crt"),
        format!("ssl_key_file={shown}/server.key"),
        format!("ssl_ca_file={shown}/ca.crt"),
    ];
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = as_server(&bin.join("postgres"));
    command.arg("-D").arg(dir.join("data"));
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn save_certificates(dir: &Path) {
    let ca = Identity::new(
        Wanted {
            authority: true,
            ..wanted("test authority")
        },
        None,
    );
    let other = Identity::new(
        Wanted {
            authority: true,
            ..wanted("another authority")
        },
        None,
    );
    let server = Wanted {
        alt_name: Some("localhost"),
        ..wanted("the server")
    };
    ca.save(dir, "ca");
    other.save(dir, "other");
    Identity::new(server, Some(&ca)).save(dir, "server");
    Identity::new(wanted("cert_role"), Some(&ca)).save(dir, "cert_role");
}
