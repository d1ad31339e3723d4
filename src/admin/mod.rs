//! The daemon's HTTP door: status, metrics, health, and pausing a link.
//!
//! Everything is bounded: connections, the time and the bytes a request may take. One request per
//! connection, so that no idle peer holds a place. Beyond the loopback interface nothing is served
//! without a token.

mod caller;
pub mod client;
mod error;
mod places;
mod ready;
mod routes;
mod state;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::commit_time::CommitTime;
use crate::status::monitor::LinkMonitor;

use places::{Place, Places};

pub use client::Peer;
pub use error::AdminError;
pub use ready::{PeerDaemons, READY_LAG_SECONDS};
pub use state::{AdminState, Incoming, IncomingLinks, PauseControl};

/// Connections served at once; when more come, those whose callers dawdle make room.
const CONNECTIONS_MAX: usize = 32;
/// A whole exchange, from the accepted connection to the last byte of the answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of a request must be there after this long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);
/// hyper's read buffer: also the limit of a request's head.
const BUFFER_BYTES: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// When accepting fails (no file descriptor is left), try again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Binds `addr`; refuses an address beyond loopback without a token.
pub async fn bind(
    addr: SocketAddr,
    token_file: Option<&Path>,
    state: AdminState,
) -> Result<AdminServer, AdminError> {
    let token = match token_file {
        Some(path) => Some(token::Token::read(path).await?),
        None if addr.ip().to_canonical().is_loopback() => None,
        None => return Err(AdminError::TokenNeeded { addr }),
    };
    let bound = TcpListener::bind(addr).await;
    let listener = bound.map_err(|source| AdminError::Bind { addr, source })?;
    let door = Arc::new(routes::Door { state, token });
    Ok(AdminServer {
        listener,
        door,
        header_timeout: HEADER_TIMEOUT,
    })
}

/// Binds `addr` and serves until `shutdown`.
pub async fn serve(
    addr: SocketAddr,
    token_file: Option<&Path>,
    state: AdminState,
    shutdown: CancellationToken,
) -> Result<(), AdminError> {
    bind(addr, token_file, state).await?.serve(shutdown).await;
    Ok(())
}

/// A bound door that does not serve yet.
pub struct AdminServer {
    listener: TcpListener,
    door: Arc<routes::Door>,
    header_timeout: Duration,
}

impl AdminServer {
    /// The address that was bound, with the port the kernel chose where 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; open connections end with it.
    pub async fn serve(self, shutdown: CancellationToken) {
        let door = self.door;
        let places = Places::new(CONNECTIONS_MAX);
        let connections = TaskTracker::new();
        let serve = async {
            loop {
                let Some((stream, peer)) = accept(&self.listener).await else {
                    continue;
                };
                let place = places.take(peer.ip());
                let (door, shutdown) = (Arc::clone(&door), shutdown.clone());
                connections.spawn(async move {
                    let place = Arc::new(place);
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = place.is_needed() => {}
                        () = exchange(stream, (door, &place), self.header_timeout) => {}
                    }
                });
            }
        };
        tokio::select! {
            () = serve => {}
            () = sample(&door.state.links) => {}
            () = shutdown.cancelled() => {}
        }
        connections.close();
        connections.wait().await;
    }
}

/// `None` after a failure, which is waited out: the next attempt may find a free descriptor.
async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(caller) => Some(caller),
        Err(error) => {
            tracing::warn!(%error, "cannot accept an admin connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// One connection, one request, one answer.
async fn exchange(
    stream: TcpStream,
    (door, place): (Arc<routes::Door>, &Arc<Place>),
    header_timeout: Duration,
) {
    let place = Arc::clone(place);
    let service = service_fn(move |request| {
        let (door, place) = (Arc::clone(&door), Arc::clone(&place));
        async move { Ok::<_, std::convert::Infallible>(door.answer(request, &place).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // A caller that breaks off or dawdles concerns nobody else.
    match tokio::time::timeout(EXCHANGE_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}

/// Keeps the links' rates fresh, see [`LinkMonitor::sample`].
async fn sample(links: &[LinkMonitor]) {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let now = CommitTime::now();
        for link in links {
            link.sample(now);
        }
    }
}
