//! Real daemons' doors over loopback; servers that refuse.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admin::{self, AdminState, Incoming, IncomingLinks, PauseControl};
use crate::local::{LocalServer, ServerOptions};
use crate::status::cluster::Verdict;
use crate::status::model::{LinkState, StatusSource};
use crate::status::monitor::LinkMonitor;
use crate::status::node::NodeMonitor;

struct Nothing;

impl PauseControl for Nothing {
    fn set_paused<'a>(&'a self, _: &'a LinkName, _: bool) -> BoxFuture<'a, Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl IncomingLinks for Nothing {
    fn incoming(&self) -> BoxFuture<'_, Vec<Incoming>> {
        std::future::ready(Vec::new()).boxed()
    }
}

/// A door that shows these links, streaming.
async fn daemon(node: &str, links: &[&str]) -> (SocketAddr, CancellationToken) {
    let links = links
        .iter()
        .map(|link| LinkMonitor::new(link.parse().unwrap()));
    let links: Vec<_> = links.collect();
    for link in &links {
        link.set_state(LinkState::Streaming, None);
    }
    let (cluster, node) = ("shop".parse().unwrap(), node.parse::<NodeName>().unwrap());
    let state = AdminState {
        cluster,
        about_node: NodeMonitor::new(node.clone()),
        node,
        links,
        control: Arc::new(Nothing),
        incoming: Arc::new(Nothing),
    };
    let server = admin::bind("127.0.0.1:0".parse().unwrap(), None, state)
        .await
        .unwrap();
    let (addr, shutdown) = (server.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(server.serve(shutdown.clone()));
    (addr, shutdown)
}

/// No server listens at port 1.
fn config(nodes: &[(&str, SocketAddr)]) -> Config {
    let node = |(name, admin): &(&str, SocketAddr)| {
        let dsn = format!("host=127.0.0.1 port=1 dbname={name} user=u");
        format!("[[node]]\nname = \"{name}\"\nadmin = \"{admin}\"\ndsn = \"{dsn}\"\n")
    };
    let nodes: String = nodes.iter().map(node).collect();
    let text = format!("[cluster]\nname = \"shop\"\n{nodes}");
    crate::config::parse(&text, &|_| None).unwrap()
}

fn nobody(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[tokio::test]
async fn daemons_that_answer_are_believed() {
    let (east, _) = daemon("east", &["east->west"]).await;
    let (west, _) = daemon("west", &["west->east"]).await;
    let status = gather(&config(&[("east", east), ("west", west)]), None).await;
    let names: Vec<_> = status
        .links
        .iter()
        .map(|link| link.link().to_string())
        .collect();
    assert_eq!(names, ["east->west", "west->east"]);
    assert!(
        status
            .links
            .iter()
            .all(|link| link.source == StatusSource::Daemon)
    );
    assert_eq!(Verdict::of(&status), Verdict::Well);
}

#[tokio::test]
async fn a_daemon_and_a_server_that_are_down_are_named() {
    let (east, _) = daemon("east", &["east->west"]).await;
    let status = gather(&config(&[("east", east), ("west", nobody(2))]), None).await;
    let west = &status.links[1];
    let reason = west.reason.as_deref().unwrap();
    assert_eq!(
        (west.state, west.source),
        (LinkState::Unreachable, StatusSource::Server)
    );
    let start =
        "the daemon of west does not answer at 127.0.0.1:2: start it with `mmrepl run --node west`";
    assert!(reason.starts_with(start), "{reason}");
    assert!(reason.contains("west cannot be asked: "), "{reason}");
    assert_eq!(Verdict::of(&status), Verdict::Unknown);
}

#[tokio::test]
async fn a_daemon_that_hangs_is_not_taken_for_one_that_is_down() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (east, _) = daemon("east", &["east->west"]).await;
    let nodes = [("east", east), ("west", mute.local_addr().unwrap())];
    let status = gather(&config(&nodes), None).await;
    let reason = status.links[1].reason.as_deref().unwrap();
    assert!(reason.contains("in time: see whether it hangs"), "{reason}");
}

#[tokio::test]
async fn another_nodes_daemon_at_the_address_is_not_believed() {
    let (east, _) = daemon("east", &["east->west"]).await;
    // What two hosts with the same loopback address see; here through two names for one door.
    let mut config = config(&[("east", east), ("west", nobody(2))]);
    config.nodes[1].admin = east;
    let status = gather(&config, None).await;
    let reason = status.links[1].reason.as_deref().unwrap();
    assert!(
        reason.contains("runs the links of east, not of west"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_daemon_with_an_older_configuration_is_told_to_start_again() {
    let (east, _) = daemon("east", &["east->west"]).await;
    let nodes = [("east", east), ("west", nobody(2)), ("north", nobody(3))];
    let status = gather(&config(&nodes), None).await;
    let link = status
        .links
        .iter()
        .find(|link| link.link().to_string() == "east->north");
    let reason = link.unwrap().reason.as_deref().unwrap();
    assert!(
        reason.contains("the daemon of east runs with another configuration"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_checkpoint_on_this_machine_is_shown_and_a_held_store_named() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("east");
    let store = crate::checkpoint::Checkpoints::open(&data_dir).unwrap().0;
    let checkpoint = Checkpoint {
        position: Lsn::new(42),
        target_system_id: crate::ids::SystemId(1),
        target_timeline: crate::ids::TimelineId(1),
        source_system_id: crate::ids::SystemId(2),
        source_timeline: crate::ids::TimelineId(1),
        slot: "mmrepl_shop_west".into(),
        began: CommitTime::default(),
        witness: None,
    };
    store
        .save(&"east->west".parse().unwrap(), checkpoint)
        .await
        .unwrap();
    let config = config(&[("east", nobody(2)), ("west", nobody(3))]);
    let look = || gather(&config, Some(data_dir.clone()));
    let held = look().await.links[0].reason.clone().unwrap();
    assert!(
        held.contains(&format!("process {} holds", std::process::id())),
        "{held}"
    );
    store.close().await;
    let status = look().await;
    let (east, west) = (&status.links[0], &status.links[1]);
    assert_eq!(
        (east.source, east.lsn.durable),
        (StatusSource::Checkpoint, Lsn::new(42))
    );
    assert_eq!(west.source, StatusSource::Server);
}

/// One server with both databases is enough: nothing streams here.
fn server(dir: &std::path::Path) -> LocalServer {
    let binaries = crate::local::find_any().unwrap();
    let options = ServerOptions::default().with("wal_level", "logical");
    LocalServer::start_new(&binaries, &dir.join("server"), &options).unwrap()
}

async fn connect(server: &LocalServer, database: &str) -> Client {
    let dsn = crate::config::conninfo::parse(&server.dsn(database), &|_| None).unwrap();
    control(&dsn, "mmrepl tests").await.unwrap()
}

const SLOT: &str = "select pg_create_logical_replication_slot('mmrepl_shop_west', 'pgoutput')";
const WORK: &str = "create table public.t as select generate_series(1, 1000) i";
const POSITION: &str = "insert into mmrepl.apply_position
    select 'east', confirmed_flush_lsn, confirmed_flush_lsn, now() - interval '1 minute',
        (select system_identifier::text from pg_control_system()), 1
    from pg_replication_slots";

/// A server with the databases `east` and `west`, and a cluster of them without daemons.
async fn two_databases() -> (tempfile::TempDir, LocalServer, Config) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let start = tokio::task::spawn_blocking(move || server(&path));
    let server = start.await.unwrap();
    let postgres = connect(&server, "postgres").await;
    let mut config = config(&[("east", nobody(2)), ("west", nobody(3))]);
    for node in &mut config.nodes {
        let create = format!("create database {}", node.name);
        postgres.batch_execute(&create).await.unwrap();
        node.dsn =
            crate::config::conninfo::parse(&server.dsn(node.name.as_str()), &|_| None).unwrap();
    }
    (dir, server, config)
}

/// What is told about `east->west`, and why.
async fn told(config: &Config) -> (LinkStatus, String) {
    let link = gather(config, None).await.links.remove(0);
    let reason = link.reason.clone().unwrap();
    (link, reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_speak_for_a_daemon_that_is_down() {
    let (_dir, mut server, config) = two_databases().await;
    let (bare, reason) = told(&config).await;
    assert_eq!(
        (bare.state, bare.source),
        (LinkState::Stopped, StatusSource::Server)
    );
    assert!(
        reason.contains("west has no position for it; run `mmrepl init`"),
        "{reason}"
    );

    let mut east = connect(&server, "east").await;
    let mut west = connect(&server, "west").await;
    crate::migrate::migrate(&mut east).await.unwrap();
    crate::migrate::migrate(&mut west).await.unwrap();
    for (client, node) in [(&east, "east"), (&west, "west")] {
        let here = format!(
            "insert into mmrepl.node (name, here, system_id) select '{node}', true, system_identifier from pg_control_system()"
        );
        client.batch_execute(&here).await.unwrap();
    }
    east.batch_execute(SLOT).await.unwrap();
    let (_, reason) = told(&config).await;
    assert!(reason.contains("west has no position for it"), "{reason}");

    west.batch_execute(POSITION).await.unwrap();
    east.batch_execute(WORK).await.unwrap();
    let (down, reason) = told(&config).await;
    for part in ["start it with `mmrepl run --node east`", "on another host"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_behind(&down);

    let link = "east->west".parse().unwrap();
    let paused = crate::catalog::link_control::set_paused(&east, &link, true).await;
    paused.unwrap();
    let (_, reason) = told(&config).await;
    assert!(reason.contains("the link is paused"), "{reason}");

    let kill = tokio::task::spawn_blocking(move || server.kill9());
    kill.await.unwrap();
    assert_eq!(told(&config).await.0.state, LinkState::Unreachable);
}

fn assert_behind(link: &LinkStatus) {
    assert_eq!(link.state, LinkState::Stopped);
    assert!(link.lag.bytes > 10_000 && !link.lag.exact, "{link:?}");
    assert!(
        link.lag.seconds.is_some_and(|seconds| seconds >= 60.0),
        "{link:?}"
    );
    assert!(!link.lsn.confirmed.is_zero() && link.lsn.current > link.lsn.applied);
    let slot = link.slot.as_ref().unwrap();
    assert_eq!(
        (slot.name.as_str(), slot.active),
        ("mmrepl_shop_west", false)
    );
    assert!(slot.retained_bytes > 10_000, "{slot:?}");
}
