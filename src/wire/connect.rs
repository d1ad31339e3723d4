//! Trying hosts, addresses and kinds of protection until one works, as libpq does.

use std::net::SocketAddr;

use tokio::time::timeout;

use super::connection::Connection;
use super::error::WireError;
use super::open::{Encryption, open_tcp, open_unix};
use super::startup::{Login, log_in};
use super::stream::Stream;
use crate::config::conninfo::{ConnInfo, Host, SslMode, TargetSession};
use crate::error::{RetryClass, Retryable};

/// The server wants the connection encrypted, or not encrypted, or does not want it at all
/// (`invalid_authorization_specification`: no line of `pg_hba.conf` matches).
const NO_HBA_LINE: &str = "28000";

/// What is done with an open stream to make it a connection.
pub(super) trait Handshake: Sync {
    /// The connection.
    type Output: Send;

    /// Makes the connection; part of one attempt, under its time limit.
    fn run(
        &self,
        stream: Stream,
        host: &Host,
    ) -> impl Future<Output = Result<Self::Output, WireError>> + Send;

    /// Whether the connection is one over which a server streams its changes.
    fn streams(&self) -> bool {
        false
    }

    /// A setting that the server has reported.
    fn parameter<'a>(output: &'a Self::Output, name: &str) -> Option<&'a str>;
}

/// Connects to the first host that works and is of the kind asked for.
///
/// The next host is tried after failures that say nothing about the others; a wrong password,
/// say, ends the search, as in libpq.
pub(super) async fn connect<H: Handshake>(
    info: &ConnInfo,
    handshake: &H,
) -> Result<H::Output, WireError> {
    let mut failure = WireError::Closed;
    for host in info.hosts() {
        let attempt = Attempt {
            info,
            host,
            handshake,
        };
        match attempt.host().await {
            Ok(output) => return Ok(output),
            Err(error) => failure = error,
        }
        if failure.retry_class() != RetryClass::Transient {
            break;
        }
    }
    Err(failure)
}

/// Logs in with our own protocol code.
pub(super) async fn connect_native(login: &Login<'_>) -> Result<Connection, WireError> {
    connect(login.info, login).await
}

/// The last part of connecting, under the same time limit as each attempt.
pub(super) async fn completed<T>(
    info: &ConnInfo,
    completing: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    let limit = info.connect_timeout();
    timeout(limit, completing).await.unwrap_or_else(|_| {
        let what = format!("setting up the session at {}", info.describe());
        Err(WireError::Timeout { what, after: limit })
    })
}

impl Handshake for Login<'_> {
    type Output = Connection;

    async fn run(&self, stream: Stream, host: &Host) -> Result<Connection, WireError> {
        log_in(stream, host, self).await
    }

    fn streams(&self) -> bool {
        self.replication
    }

    fn parameter<'a>(output: &'a Connection, name: &str) -> Option<&'a str> {
        output.parameter(name)
    }
}

/// One host of the list.
struct Attempt<'a, H> {
    info: &'a ConnInfo,
    host: &'a Host,
    handshake: &'a H,
}

impl<H: Handshake> Attempt<'_, H> {
    async fn host(&self) -> Result<H::Output, WireError> {
        let mut failure = WireError::Closed;
        for place in self.places().await? {
            for encryption in plan(self.info.tls().mode, self.host) {
                match self.one(place, *encryption).await {
                    Ok(output) => return self.check_session(output),
                    Err(error) => failure = error,
                }
                if !other_encryption_may_help(&failure) {
                    break;
                }
            }
            if failure.retry_class() != RetryClass::Transient {
                break;
            }
        }
        Err(failure)
    }

    /// Every address of the host; a single nothing for a socket, which has none.
    async fn places(&self) -> Result<Vec<Option<SocketAddr>>, WireError> {
        let Host::Tcp {
            name,
            address,
            port,
        } = self.host
        else {
            return Ok(vec![None]);
        };
        if let Some(address) = address {
            return Ok(vec![Some(SocketAddr::new(*address, *port))]);
        }
        let limit = self.info.connect_timeout();
        let doing = format!("looking up the address of {name}");
        let found = timeout(limit, tokio::net::lookup_host((name.as_str(), *port))).await;
        match found {
            Ok(Ok(addresses)) => Ok(addresses.map(Some).collect()),
            Ok(Err(error)) => Err(WireError::io(doing, error)),
            Err(_) => Err(WireError::Timeout {
                what: doing,
                after: limit,
            }),
        }
    }

    /// From the first packet to the finished login, within the time limit.
    async fn one(
        &self,
        place: Option<SocketAddr>,
        encryption: Encryption,
    ) -> Result<H::Output, WireError> {
        let limit = self.info.connect_timeout();
        let attempt = async {
            let stream = match (place, self.host) {
                (Some(address), host) => {
                    let kind = (encryption, self.handshake.streams());
                    open_tcp(self.info, host, address, kind).await?
                }
                (None, host) => open_unix(host).await?,
            };
            self.handshake.run(stream, self.host).await
        };
        timeout(limit, attempt).await.unwrap_or_else(|_| {
            let what = format!("connecting to {}", self.host);
            Err(WireError::Timeout { what, after: limit })
        })
    }

    /// Both settings are reported by every server since 14 (manual 55.2.7).
    fn check_session(&self, output: H::Output) -> Result<H::Output, WireError> {
        let on = |name| H::parameter(&output, name) == Some("on");
        let standby = on("in_hot_standby");
        let read_only = standby || on("default_transaction_read_only");
        let (wanted, found) = match self.info.target_session() {
            TargetSession::ReadWrite if read_only => ("read-write", "read-only"),
            TargetSession::ReadOnly if !read_only => ("read-only", "read-write"),
            TargetSession::Primary if standby => ("primary", "a standby"),
            TargetSession::Standby if !standby => ("standby", "a primary"),
            _ => return Ok(output),
        };
        Err(WireError::WrongSession {
            peer: self.host.to_string(),
            found,
            wanted,
        })
    }
}

/// The kinds of protection to try, in order (manual 34.19.3). A Unix socket needs none.
fn plan(mode: SslMode, host: &Host) -> &'static [Encryption] {
    match (host, mode) {
        (Host::Unix { .. }, _) | (_, SslMode::Disable) => &[Encryption::Plain],
        (_, SslMode::Allow) => &[Encryption::Plain, Encryption::Required],
        (_, SslMode::Prefer) => &[Encryption::IfOffered, Encryption::Plain],
        _ => &[Encryption::Required],
    }
}

/// True where the failure was about the protection. A wrong password is not sent again.
fn other_encryption_may_help(error: &WireError) -> bool {
    matches!(error, WireError::Tls { .. }) || error.sqlstate() == Some(NO_HBA_LINE)
}

/// Opens the stream to the first host that answers, protected as `sslmode` says. The login is
/// up to the caller, so it cannot decide about hosts (`target_session_attrs`).
pub async fn open(info: &ConnInfo) -> Result<Stream, WireError> {
    connect(info, &OpenOnly).await
}

struct OpenOnly;

impl Handshake for OpenOnly {
    type Output = Stream;

    async fn run(&self, stream: Stream, _host: &Host) -> Result<Stream, WireError> {
        Ok(stream)
    }

    fn parameter<'a>(_output: &'a Stream, _name: &str) -> Option<&'a str> {
        None
    }
}
