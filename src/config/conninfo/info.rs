//! What a connection string says, with every default filled in.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::passfile::{self, Passfile};

/// Where a server without a host is looked for: Debian's place, then PostgreSQL's own.
pub(super) const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A server on the network.
    Tcp {
        /// Name or address as given; certificates and the password file are checked against it.
        name: String,
        /// Where to connect, when `hostaddr` says so and the name need not be looked up.
        address: Option<IpAddr>,
        /// TCP port.
        port: u16,
    },
    /// A server on this machine, at `<dir>/.s.PGSQL.<port>`.
    Unix {
        /// Folder of the socket.
        dir: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

impl Host {
    /// The path of the Unix socket.
    pub fn socket_path(dir: &Path, port: u16) -> PathBuf {
        dir.join(format!(".s.PGSQL.{port}"))
    }
}

impl fmt::Display for Host {
    /// `10.0.0.1:5432`, `[::1]:5432` or `/tmp:5432`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Unix { dir, port } => write!(f, "{}:{port}", dir.display()),
        }
    }
}

/// How much the connection is protected (manual 34.19.3), weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server refuses without it.
    Allow,
    /// TLS if the server has it. libpq's default.
    Prefer,
    /// TLS; the certificate is checked only if there is a root certificate file.
    Require,
    /// TLS with a certificate that a trusted authority signed.
    VerifyCa,
    /// As `VerifyCa`, and the certificate is for this host name.
    VerifyFull,
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCert {
    /// The public authorities this machine trusts (`sslrootcert=system`).
    System,
    /// A file of certificates.
    File(CertFile),
}

/// A file in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFile {
    /// Where it is.
    pub path: PathBuf,
    /// True when the DSN names it; libpq's own place in the home folder may be empty.
    pub must_exist: bool,
}

/// Everything about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// How much protection is wanted.
    pub mode: SslMode,
    /// Whom to trust; none when there is no home folder to look in.
    pub root: Option<RootCert>,
    /// The certificate to show a server that asks for one.
    pub cert: Option<CertFile>,
    /// The key of that certificate.
    pub key: Option<CertFile>,
    /// Whether to tell the server, in the clear, which host name is wanted.
    pub sni: bool,
}

/// When a silent TCP connection is probed, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is lost.
    pub count: u32,
}

/// What kind of server will do (`target_session_attrs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    /// Any.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// Not a standby.
    Primary,
    /// A standby.
    Standby,
}

/// One parsed connection string. Printing it never shows the password.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) password: Option<SecretString>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) dbname: String,
    pub(super) options: Option<String>,
    pub(super) application_name: Option<String>,
    pub(super) tls: TlsOptions,
    pub(super) connect_timeout: Duration,
    pub(super) keepalives: Option<Keepalives>,
    pub(super) tcp_user_timeout: Option<Duration>,
    pub(super) target_session: TargetSession,
}

impl ConnInfo {
    /// `10.0.0.1:5432/app`: enough to know which server is meant, and nothing secret.
    pub fn describe(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        format!("{}/{}", hosts.join(","), self.dbname)
    }

    /// The places to try, in order; never empty.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The database.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The role that logs in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Everything about TLS.
    pub fn tls(&self) -> &TlsOptions {
        &self.tls
    }

    /// `-c name=value` settings for the server, as the user wrote them.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// The name the user gave. mmrepl names its connections itself; this is for tools.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// How long one host may take from the first packet to a usable session.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Keepalive probes; none where they were switched off.
    pub fn keepalives(&self) -> Option<Keepalives> {
        self.keepalives
    }

    /// How long sent data may stay unacknowledged; none leaves it to the kernel.
    pub fn tcp_user_timeout(&self) -> Option<Duration> {
        self.tcp_user_timeout
    }

    /// What kind of server will do.
    pub fn target_session(&self) -> TargetSession {
        self.target_session
    }

    /// The password for a host: the DSN's, else what the password file says now.
    pub fn password_for(&self, host: &Host) -> Passfile {
        if self.password.is_some() {
            return Passfile {
                password: self.password.clone(),
                notice: None,
            };
        }
        let Some(path) = &self.passfile else {
            return Passfile::default();
        };
        let (name, port) = match host {
            Host::Tcp { name, port, .. } => (name.as_str(), *port),
            Host::Unix { dir, port } => (passfile_name(dir), *port),
        };
        let (dbname, user) = (self.dbname.as_str(), self.user.as_str());
        passfile::look_up(
            path,
            passfile::Wanted {
                host: name,
                port,
                dbname,
                user,
            },
        )
    }
}

/// The name a socket folder has in the password file: `localhost` for the usual ones.
fn passfile_name(dir: &Path) -> &str {
    let usual = SOCKET_DIRS.iter().any(|usual| Path::new(usual) == dir);
    if usual {
        "localhost"
    } else {
        dir.to_str().unwrap_or("localhost")
    }
}
