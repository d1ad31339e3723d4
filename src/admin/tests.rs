//! The real server over loopback, asked by the real client and by raw sockets.

use crate::error::{RetryClass, Retryable};
use crate::ids::{ClusterName, LinkName, NodeName};
use crate::status::node::NodeMonitor;
use futures_util::future::BoxFuture;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use futures_util::future::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::client::{ClientError, Peer, ask, get_status, post_control};
use super::*;
use crate::config::Node;
use crate::status::model::LinkState;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(5);

/// Notes what was asked; refuses to resume.
#[derive(Default)]
struct Notes(Mutex<Vec<(String, bool)>>);

impl PauseControl for Notes {
    fn set_paused<'a>(
        &'a self,
        link: &'a LinkName,
        paused: bool,
    ) -> BoxFuture<'a, Result<(), String>> {
        self.0.lock().unwrap().push((link.to_string(), paused));
        let answer = if paused {
            Ok(())
        } else {
            Err("the source is down".to_owned())
        };
        std::future::ready(answer).boxed()
    }
}

struct NobodyElse;

impl IncomingLinks for NobodyElse {
    fn incoming(&self) -> BoxFuture<'_, Vec<Incoming>> {
        std::future::ready(Vec::new()).boxed()
    }
}

struct Running {
    addr: SocketAddr,
    monitor: LinkMonitor,
    notes: Arc<Notes>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(token: Option<&Path>, incoming: Arc<dyn IncomingLinks>, from: &str) -> Running {
    let to = if from == "east" { "west" } else { "east" };
    let monitor = LinkMonitor::new(format!("{from}->{to}").parse().unwrap());
    let notes = Arc::new(Notes::default());
    let state = state(from, monitor.clone(), Arc::clone(&notes), incoming);
    let server = bind(ANY, token, state).await.unwrap();
    let addr = server.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.serve(shutdown.clone()));
    Running {
        addr,
        monitor,
        notes,
        shutdown,
        task,
    }
}

fn state(
    node: &str,
    monitor: LinkMonitor,
    control: Arc<Notes>,
    incoming: Arc<dyn IncomingLinks>,
) -> AdminState {
    let (cluster, node) = ("shop".parse().unwrap(), node.parse::<NodeName>().unwrap());
    AdminState {
        cluster,
        about_node: NodeMonitor::new(node.clone()),
        node,
        links: vec![monitor],
        control,
        incoming,
    }
}

fn alone() -> AdminState {
    let monitor = LinkMonitor::new("east->west".parse().unwrap());
    state("east", monitor, Arc::default(), Arc::new(NobodyElse))
}

/// Sends `request` as it is and reads until the server closes.
async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn get(addr: SocketAddr, path: &str) -> String {
    raw(
        addr,
        &format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn the_client_reads_what_the_monitor_knows() {
    let running = start(None, Arc::new(NobodyElse), "east").await;
    running.monitor.set_state(LinkState::Streaming, None);
    running.monitor.add_rows(7);
    let status = get_status(running.addr, None, PATIENCE).await.unwrap();
    assert_eq!(
        (status.links[0].totals.rows, status.links[0].state),
        (7, LinkState::Streaming)
    );
    let metrics = get(running.addr, "/metrics").await;
    assert!(
        metrics.contains("mmrepl_rows_total{from=\"east\",to=\"west\"} 7"),
        "{metrics}"
    );
    assert!(
        metrics.contains("content-type: application/openmetrics-text"),
        "{metrics}"
    );
    assert!(
        get(running.addr, "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    running.shutdown.cancel();
    running.task.await.unwrap();
    let error = get_status(running.addr, None, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn links_are_paused_and_resumed_by_their_owner_alone() {
    let running = start(None, Arc::new(NobodyElse), "east").await;
    let ours = "east->west".parse().unwrap();
    post_control(running.addr, None, (&ours, true), PATIENCE)
        .await
        .unwrap();
    let error = post_control(running.addr, None, (&ours, false), PATIENCE)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the source is down");
    assert_eq!(error.retry_class(), RetryClass::Transient);
    let theirs = "west->east".parse().unwrap();
    let error = post_control(running.addr, None, (&theirs, true), PATIENCE)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { status: 404, .. }),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "the daemon of east does not run the link west->east"
    );
    let asked = running.notes.0.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            ("east->west".to_owned(), true),
            ("east->west".to_owned(), false)
        ]
    );
}

#[tokio::test]
async fn wrong_requests_are_answered_and_change_nothing() {
    let running = start(None, Arc::new(NobodyElse), "east").await;
    let big = format!("content-length: 2000\r\n\r\n{}", "x".repeat(2000));
    for (request, answer) in [
        (
            "GET /links/east/west/pause HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
            "405",
        ),
        ("DELETE /status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", "405"),
        (
            "GET /links/east/west/explode HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
            "404",
        ),
        ("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", "404"),
        (
            "POST /links/East/west/pause HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
            "404",
        ),
        (
            "POST /links/east/west/pause HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil\r\n\r\n",
            "403",
        ),
        (
            &format!("POST /links/east/west/pause HTTP/1.1\r\nhost: 127.0.0.1\r\n{big}"),
            "413",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let found = raw(running.addr, request).await;
        assert!(
            found.starts_with(&format!("HTTP/1.1 {answer}")),
            "{request} got {found}"
        );
    }
    assert!(running.notes.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn connections_are_not_kept_and_silent_ones_end_with_the_server() {
    let running = start(None, Arc::new(NobodyElse), "east").await;
    let mut silent = TcpStream::connect(running.addr).await.unwrap();
    assert!(
        get(running.addr, "/healthz")
            .await
            .contains("connection: close")
    );
    running.shutdown.cancel();
    tokio::time::timeout(PATIENCE, running.task)
        .await
        .unwrap()
        .unwrap();
    let ended = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 8]))
        .await
        .unwrap();
    assert!(!matches!(ended, Ok(1..)), "the server said something");
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_shown_out() {
    let server = bind(ANY, None, alone()).await.unwrap();
    let server = AdminServer {
        header_timeout: Duration::from_millis(20),
        ..server
    };
    let addr = server.local_addr().unwrap();
    let _serving = tokio::spawn(server.serve(CancellationToken::new()));
    let answer = raw(addr, "GET /status HTTP/1.1\r\n").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
}

fn token_file(token: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, token).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[tokio::test]
async fn with_a_token_only_the_health_checks_are_open() {
    let file = token_file("s3cret-of-16-signs\n");
    let running = start(Some(file.path()), Arc::new(NobodyElse), "east").await;
    running.monitor.set_state(LinkState::Streaming, None);
    for path in ["/status", "/metrics"] {
        assert!(
            get(running.addr, path).await.starts_with("HTTP/1.1 401"),
            "{path}"
        );
    }
    for path in ["/healthz", "/readyz"] {
        assert!(
            get(running.addr, path).await.starts_with("HTTP/1.1 200"),
            "{path}"
        );
    }
    let link = "east->west".parse().unwrap();
    let wrong = "s3creT-of-16-signs".into();
    let error = post_control(running.addr, Some(&wrong), (&link, true), PATIENCE).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { status: 401, .. }),
        "{error:?}"
    );
    assert!(running.notes.0.lock().unwrap().is_empty());
    let right = "s3cret-of-16-signs".into();
    post_control(running.addr, Some(&right), (&link, true), PATIENCE)
        .await
        .unwrap();
    get_status(running.addr, Some(&right), PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_served_to_other_machines_without_a_token() {
    let open = "0.0.0.0:0".parse().unwrap();
    let error = bind(open, None, alone()).await.err().unwrap();
    assert!(matches!(error, AdminError::TokenNeeded { .. }), "{error}");
    let taken = start(None, Arc::new(NobodyElse), "east").await;
    let error = bind(taken.addr, None, alone()).await.err().unwrap();
    assert!(matches!(error, AdminError::Bind { .. }), "{error}");
}

#[tokio::test]
async fn ready_means_ready_in_both_directions() {
    let west = start(None, Arc::new(NobodyElse), "west").await;
    let peer = Node {
        name: "west".parse().unwrap(),
        dsn: crate::config::conninfo::parse("host=127.0.0.1 dbname=west user=u", &|_| None)
            .unwrap(),
        local_dsn: None,
        admin: west.addr,
        admin_token_file: None,
    };
    let (cluster, node) = ("shop".parse().unwrap(), "east".parse().unwrap());
    let peers = PeerDaemons::new(cluster, node, vec![peer]);
    let east = start(None, Arc::new(peers), "east").await;
    east.monitor.set_state(LinkState::Streaming, None);
    let answer = get(east.addr, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("west->east is starting"), "{answer}");
    west.monitor.set_state(LinkState::Streaming, None);
    assert!(get(east.addr, "/readyz").await.starts_with("HTTP/1.1 200"));
    west.shutdown.cancel();
    west.task.await.unwrap();
    let answer = get(east.addr, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("nothing answers"),
        "{answer}"
    );
}

#[tokio::test]
async fn another_daemon_at_the_address_is_told_apart() {
    let east = start(None, Arc::new(NobodyElse), "east").await;
    let peer = |node: &str| Peer {
        node: node.parse().unwrap(),
        admin: east.addr,
        token: None,
    };
    let (shop, other): (ClusterName, ClusterName) =
        ("shop".parse().unwrap(), "other".parse().unwrap());
    assert!(ask(&peer("east"), &shop, PATIENCE).await.is_ok());
    let error = ask(&peer("west"), &shop, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::OtherNode { .. }), "{error}");
    let error = ask(&peer("east"), &other, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::NotADaemon { .. }), "{error}");
}

#[tokio::test]
async fn a_silent_peer_costs_the_time_out_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let error = get_status(addr, None, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn many_slow_callers_keep_nobody_out() {
    let west = start(None, Arc::new(NobodyElse), "west").await;
    let peer = Node {
        name: "west".parse().unwrap(),
        dsn: crate::config::conninfo::parse("host=127.0.0.1 dbname=west user=u", &|_| None)
            .unwrap(),
        local_dsn: None,
        admin: west.addr,
        admin_token_file: None,
    };
    let (cluster, node) = ("shop".parse().unwrap(), "east".parse().unwrap());
    let peers = PeerDaemons::new(cluster, node, vec![peer]);
    let east = start(None, Arc::new(peers), "east").await;
    east.monitor.set_state(LinkState::Streaming, None);
    west.monitor.set_state(LinkState::Streaming, None);
    let mut slow = Vec::new();
    for number in 0..3 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(west.addr).await.unwrap();
        let begun = [
            "",
            "GET /status HTT",
            "POST /links/west/east/pause HTTP/1.1\r\nhost: w\r\ncontent-length: 9\r\n\r\nx",
        ];
        stream
            .write_all(begun[number % 3].as_bytes())
            .await
            .unwrap();
        slow.push(stream);
    }
    for path in ["/status", "/metrics", "/readyz", "/healthz"] {
        let answer = get(west.addr, path).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
    }
    let answer = get(east.addr, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_body_is_not_waited_for_where_the_caller_may_not_ask() {
    let file = token_file("s3cret-of-16-signs\n");
    let running = start(Some(file.path()), Arc::new(NobodyElse), "east").await;
    let head = "POST /links/east/west/pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n";
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream
        .write_all(format!("{head}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    // In lower case the scheme is the same.
    let token = "authorization: bearer s3cret-of-16-signs";
    let request = format!("GET /status HTTP/1.1\r\nhost: any.example\r\n{token}\r\n\r\n");
    let answer = raw(running.addr, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn web_pages_and_strange_names_are_turned_away() {
    let running = start(None, Arc::new(NobodyElse), "east").await;
    for (line, answer) in [
        ("host: evil.example", "403"),
        ("host: 127.0.0.1\r\nsec-fetch-site: cross-site", "403"),
        ("host: 127.0.0.1\r\nreferer: http://evil.example/", "403"),
        ("host: localhost\r\ncontent-type: text/plain", "403"),
        ("host: localhost\r\nuser-agent: curl/8.5", "200"),
    ] {
        let request = format!("POST /links/east/west/pause HTTP/1.1\r\n{line}\r\n\r\n");
        let found = raw(running.addr, &request).await;
        assert!(
            found.starts_with(&format!("HTTP/1.1 {answer}")),
            "{line}: {found}"
        );
    }
    let found = raw(
        running.addr,
        "GET /status HTTP/1.1\r\nhost: evil.example\r\n\r\n",
    )
    .await;
    assert!(found.starts_with("HTTP/1.1 403"), "{found}");
    assert_eq!(running.notes.0.lock().unwrap().len(), 1);
}
