//! Opens a byte stream to one host, and protects it where that is asked for.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::error::WireError;
use super::stream::Stream;
use super::tls;
use crate::config::conninfo::{ConnInfo, Host};

/// How far a server on this very host may send ahead of what was read from a stream of changes. It
/// then collects what it has to say, instead of paying for a packet (and both for a wake-up) with
/// every message.
const WINDOW_BYTES: u32 = 32 * 1024;
/// The largest segment there. The loopback's own are larger than that window, and a window below
/// two segments is opened again by the sender's probes only, five times a second.
#[cfg(target_os = "linux")]
const SEGMENT_BYTES: u32 = 8 * 1024;

/// How the stream to one host is to be protected, in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// None.
    Plain,
    /// TLS if the server has it.
    IfOffered,
    /// TLS or nothing.
    Required,
}

/// Connects to one address of a TCP host and protects the stream. One that `streams` changes from
/// this host gets a small window.
pub(super) async fn open_tcp(
    info: &ConnInfo,
    host: &Host,
    address: SocketAddr,
    (encryption, streams): (Encryption, bool),
) -> Result<Stream, WireError> {
    let doing = || format!("connecting to {host}");
    let tcp = connect_tcp(address, streams)
        .await
        .map_err(|e| WireError::io(doing(), e))?;
    configure(&tcp, info).map_err(|e| WireError::io(doing(), e))?;
    if encryption == Encryption::Plain {
        return Ok(Stream::Tcp(tcp));
    }
    ask_for_tls(tcp, info, host, encryption).await
}

/// Over a network the window has to be as large as the way is long, and stays as it is.
async fn connect_tcp(address: SocketAddr, streams: bool) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if streams && address.ip().is_loopback() {
        // Both take part in the first packets, so they are set before these.
        socket.set_recv_buffer_size(WINDOW_BYTES)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES)?;
    }
    socket.connect(address).await
}

/// Connects to a Unix socket.
pub(super) async fn open_unix(host: &Host) -> Result<Stream, WireError> {
    let path = match host {
        Host::Unix { dir, port } => Host::socket_path(dir, *port),
        Host::Tcp { .. } => return Err(WireError::Protocol(format!("{host} is no socket"))),
    };
    let socket = UnixStream::connect(path).await;
    socket
        .map(Stream::Unix)
        .map_err(|e| WireError::io(format!("connecting to {host}"), e))
}

/// Small messages must not wait for more, and a dead peer must be noticed.
fn configure(tcp: &TcpStream, info: &ConnInfo) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(tcp);
    if let Some(keepalives) = info.keepalives() {
        let probes = socket2::TcpKeepalive::new()
            .with_time(keepalives.idle)
            .with_interval(keepalives.interval)
            .with_retries(keepalives.count);
        socket.set_tcp_keepalive(&probes)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(timeout) = info.tcp_user_timeout() {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}

/// Sends `SSLRequest` and does what the answer says (manual 55.2.11).
async fn ask_for_tls(
    mut tcp: TcpStream,
    info: &ConnInfo,
    host: &Host,
    encryption: Encryption,
) -> Result<Stream, WireError> {
    let refused = |why: &str| WireError::Tls {
        peer: host.to_string(),
        why: why.to_owned(),
    };
    let io_error = |e| WireError::io(format!("asking {host} for TLS"), e);
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(io_error)?;

    // Room for two bytes: whatever follows the answer before the handshake was put there by
    // somebody in between, who hopes that we take it for part of the session (CVE-2021-23222).
    let mut answer = [0; 2];
    let read = tcp.read(&mut answer).await.map_err(io_error)?;
    match (read, answer[0]) {
        (0, _) => Err(WireError::Closed),
        (2.., b'S') => Err(refused(
            "unencrypted bytes follow the server's answer; somebody may be tampering",
        )),
        (_, b'S') => tls::handshake(tcp, info.tls(), host).await,
        (1, b'N') if encryption == Encryption::IfOffered => Ok(Stream::Tcp(tcp)),
        (_, b'N') => Err(refused(
            "the server has no TLS: set ssl=on there, or a weaker sslmode here",
        )),
        // An error before TLS could come from anybody: its text is not shown (CVE-2024-10977).
        _ => Err(WireError::Protocol(format!(
            "{host} did not answer the request for TLS"
        ))),
    }
}
