//! A network that can fail: a TCP proxy in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What the network does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards.
    Open,
    /// Forwards everything this much later.
    Delayed(Duration),
    /// Half-open: takes connections and bytes, forwards nothing, closes nothing.
    Paused,
    /// Closes every connection at once.
    Cut,
}

/// Chunks under way in one direction of one connection.
const CHUNKS_MAX: usize = 64;
const CHUNK_BYTES: usize = 64 * 1024;

/// Forwards 127.0.0.1:`port` to a server. Lives as long as the test's runtime.
pub struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    /// Counts up to end what is connected now.
    severed: watch::Sender<u64>,
}

impl Proxy {
    /// Starts to forward to a port of this machine.
    pub async fn start(target_port: u16) -> Self {
        let listener = bind().await;
        let port = listener.local_addr().unwrap().port();
        let (mode, mode_seen) = watch::channel(Mode::Open);
        let (severed, severed_seen) = watch::channel(0);
        tokio::spawn(accept(listener, target_port, mode_seen, severed_seen));
        Self {
            port,
            mode,
            severed,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what the network does, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Cut {
            self.sever();
        }
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.set(Mode::Cut);
    }

    /// Half-open: nothing comes through, nothing is closed.
    pub fn pause(&self) {
        self.set(Mode::Paused);
    }

    /// All is well again.
    pub fn resume(&self) {
        self.set(Mode::Open);
    }

    /// Closes every connection once; new ones work.
    pub fn sever(&self) {
        self.severed.send_modify(|count| *count += 1);
    }
}

/// Outside the kernel's range for outgoing connections, as servers are.
async fn bind() -> TcpListener {
    for _ in 0..50 {
        let port = mmrepl::local::free_port().unwrap();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return listener;
        }
    }
    panic!("no port for a proxy");
}

async fn accept(
    listener: TcpListener,
    target_port: u16,
    mode: watch::Receiver<Mode>,
    severed: watch::Receiver<u64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let mut line = Line {
            mode: mode.clone(),
            severed: severed.clone(),
        };
        line.severed.mark_unchanged();
        // Asked after the mark: a cut in between is seen by one of the two.
        if *mode.borrow() == Mode::Cut {
            continue;
        }
        let forwarding = forward(client, target_port, line.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = forwarding => {}
                _ = line.severed.changed() => {}
            }
        });
    }
}

/// What one connection knows of the network.
#[derive(Clone)]
struct Line {
    mode: watch::Receiver<Mode>,
    severed: watch::Receiver<u64>,
}

impl Line {
    /// Waits while half-open; false once this connection was cut. Asked for every chunk, so that
    /// nothing sent after [`Proxy::cut`] returned comes through, whenever the task is woken.
    async fn open(&mut self) -> bool {
        let open = self.mode.wait_for(|mode| *mode != Mode::Paused).await;
        open.is_ok() && self.severed.has_changed().is_ok_and(|severed| !severed)
    }
}

async fn forward(client: TcpStream, target_port: u16, mut line: Line) {
    // While half-open not even a connection comes through.
    if !line.open().await {
        return;
    }
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target_port));
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    // Either side closing ends both directions, as a closed PostgreSQL session does.
    tokio::select! {
        () = pump(client_reads, server_writes, line.clone()) => {}
        () = pump(server_reads, client_writes, line) => {}
    }
}

/// Copies one direction. Reading and writing are apart, so that a delay costs latency only.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut line: Line) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let mode = line.mode.clone();
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay(*mode.borrow());
            if sender.send((due, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, chunk)) = receiver.recv().await {
            // Timers are a millisecond coarse: without a delay none is used.
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            if !line.open().await || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

fn delay(mode: Mode) -> Duration {
    if let Mode::Delayed(delay) = mode {
        delay
    } else {
        Duration::ZERO
    }
}
