//! Asking a daemon, from the command line or from another daemon. Every call has a limit in time
//! and in bytes; dropping a future closes its connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use super::AdminError;
use super::token::Token;
use crate::config::Node;
use crate::error::{RetryClass, Retryable};
use crate::ids::{ClusterName, LinkName, NodeName};
use crate::status::model::ClusterStatus;

/// A status of a hundred links is some 100 kB.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A daemon that can be asked.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its node.
    pub node: NodeName,
    /// Its `admin` address.
    pub admin: SocketAddr,
    /// Its token, where it wants one.
    pub token: Option<SecretString>,
}

impl Peer {
    /// The daemon of `node`, with the token of its token file, where it has one.
    pub async fn of(node: &Node) -> Result<Self, AdminError> {
        let token = match &node.admin_token_file {
            Some(path) => Some(Token::read(path).await?.into_secret()),
            None => None,
        };
        Ok(Self {
            node: node.name.clone(),
            admin: node.admin,
            token,
        })
    }
}

/// Why a daemon gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("nothing answers at {addr}")]
    Unreachable {
        /// Where.
        addr: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The time was up.
    #[error("{addr} does not answer in time")]
    Timeout {
        /// Where.
        addr: SocketAddr,
    },
    /// The exchange broke off or was no HTTP.
    #[error("the exchange with {addr} broke off")]
    Broken {
        /// Where.
        addr: SocketAddr,
        /// What hyper found.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon said no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The daemon's own sentence.
        message: String,
    },
    /// Another program listens there.
    #[error(
        "what answers at {addr} is not this cluster's mmrepl daemon: check the node's `admin` address"
    )]
    NotADaemon {
        /// Where.
        addr: SocketAddr,
    },
    /// Another node's daemon listens there.
    #[error(
        "the daemon at {addr} runs the links of {found}, not of {expected}: check the node's `admin` address"
    )]
    OtherNode {
        /// Where.
        addr: SocketAddr,
        /// Whose daemon it is.
        found: NodeName,
        /// Whose was wanted.
        expected: NodeName,
    },
}

impl Retryable for ClientError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::NotADaemon { .. } | Self::OtherNode { .. } => RetryClass::Operator,
            Self::Refused {
                status: 400..=499, ..
            } => RetryClass::Definite,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Refused { .. } => RetryClass::Transient,
        }
    }
}

/// The status of every link that the daemon at `addr` runs.
pub async fn get_status(
    addr: SocketAddr,
    token: Option<&SecretString>,
    timeout: Duration,
) -> Result<ClusterStatus, ClientError> {
    let (status, body) = exchange(addr, token, (Method::GET, "/status"), timeout).await?;
    if status != StatusCode::OK {
        return Err(refused(addr, status, &body));
    }
    serde_json::from_slice(&body).map_err(|_| ClientError::NotADaemon { addr })
}

/// As [`get_status`], and makes sure that it is `peer`'s daemon that answered: two hosts often
/// have the same loopback address in their configuration.
pub async fn ask(
    peer: &Peer,
    cluster: &ClusterName,
    timeout: Duration,
) -> Result<ClusterStatus, ClientError> {
    let addr = peer.admin;
    let status = get_status(addr, peer.token.as_ref(), timeout).await?;
    if status.cluster != *cluster {
        return Err(ClientError::NotADaemon { addr });
    }
    let stranger = status
        .links
        .iter()
        .map(|link| &link.from)
        .find(|from| **from != peer.node);
    match stranger.cloned() {
        Some(found) => Err(ClientError::OtherNode {
            addr,
            found,
            expected: peer.node.clone(),
        }),
        None => Ok(status),
    }
}

/// Pauses or resumes `link`; the daemon has written it down when this returns.
pub async fn post_control(
    addr: SocketAddr,
    token: Option<&SecretString>,
    (link, paused): (&LinkName, bool),
    timeout: Duration,
) -> Result<(), ClientError> {
    let action = if paused { "pause" } else { "resume" };
    let path = format!("/links/{}/{}/{action}", link.from, link.to);
    let (status, body) = exchange(addr, token, (Method::POST, &path), timeout).await?;
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(refused(addr, status, &body))
    }
}

async fn exchange(
    addr: SocketAddr,
    token: Option<&SecretString>,
    request: (Method, &str),
    timeout: Duration,
) -> Result<(StatusCode, Bytes), ClientError> {
    let exchange = async {
        let stream = TcpStream::connect(addr)
            .await
            .map_err(|source| ClientError::Unreachable { addr, source })?;
        send(stream, prepare(addr, token, request))
            .await
            .map_err(|source| ClientError::Broken { addr, source })
    };
    tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or(Err(ClientError::Timeout { addr }))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn prepare(
    addr: SocketAddr,
    token: Option<&SecretString>,
    (method, path): (Method, &str),
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, addr.to_string());
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
    }
    request.body(Empty::new())
}

async fn send(
    stream: TcpStream,
    request: Result<Request<Empty<Bytes>>, hyper::http::Error>,
) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    // Driven here and not in a task of its own, so that nothing outlives this future.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection may end as soon as the last byte is read; the answer is complete then.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}

fn refused(addr: SocketAddr, status: StatusCode, body: &[u8]) -> ClientError {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = value
        .as_ref()
        .and_then(|value| value.get("error")?.as_str());
    match message {
        Some(message) => ClientError::Refused {
            status: status.as_u16(),
            message: message.to_owned(),
        },
        None => ClientError::NotADaemon { addr },
    }
}
