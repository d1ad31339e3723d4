//! The harness itself: if it lies, every other test does.

use std::time::Duration;

use mmrepl::local::ServerOptions;

use crate::on_every_major;
use crate::support::compare::difference;
use crate::support::proxy::Proxy;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, pool, wait_until};

async fn killed_server_keeps_rows(majors: &[u32]) {
    let major = majors[0];
    let work = move || pool::start(major, &ServerOptions::durable());
    let mut server = tokio::task::spawn_blocking(work).await.unwrap();
    let client = pg::connect(&server.dsn("postgres")).await;
    pg::execute(
        &client,
        "create table t (id int); insert into t values (1), (2)",
    )
    .await;
    for round in 0..2 {
        server.kill9();
        assert!(!server.is_running());
        assert!(pg::try_connect(&server.dsn("postgres")).await.is_err());
        server.start().unwrap();
        let client = pg::connect(&server.dsn("postgres")).await;
        assert_eq!(
            pg::value(&client, "select count(*) from t").await,
            "2",
            "round {round}"
        );
    }
}
on_every_major!(
    a_killed_server_keeps_committed_rows,
    super::killed_server_keeps_rows
);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_have_system_identifiers_of_their_own() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    let query = "select system_identifier from pg_control_system()";
    assert_ne!(
        cluster.east().value(query).await,
        cluster.west().value(query).await
    );
    assert_eq!(cluster.east().value("show wal_level").await, "logical");
    assert_eq!(
        cluster.east().value("show track_commit_timestamp").await,
        "on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_does_not_answer_and_then_does() {
    let work = || pool::start(pool::usual_major(), &ServerOptions::default());
    let server = tokio::task::spawn_blocking(work).await.unwrap();
    let client = pg::connect(&server.dsn("postgres")).await;
    server.sigstop();
    let answer = tokio::spawn(async move { pg::value(&client, "select 1").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!answer.is_finished());
    server.sigcont();
    assert_eq!(answer.await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_cuts_pauses_and_delays() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    let proxy = Proxy::start(cluster.east().server().port()).await;
    let dsn = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres",
        proxy.port()
    );
    let client = pg::connect(&dsn).await;
    assert_eq!(pg::value(&client, "select 1").await, "1");

    proxy.pause();
    let half_open = tokio::spawn(async move {
        let one = pg::value(&client, "select 1").await;
        (client, one)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!half_open.is_finished());
    proxy.resume();
    let (client, one) = half_open.await.unwrap();
    assert_eq!(one, "1");

    proxy.set(crate::support::proxy::Mode::Delayed(Duration::from_millis(
        50,
    )));
    let start = std::time::Instant::now();
    assert_eq!(pg::value(&client, "select 1").await, "1");
    assert!(start.elapsed() >= Duration::from_millis(100));

    proxy.cut();
    assert!(pg::try_rows(&client, "select 1").await.is_err());
    assert!(pg::try_connect(&dsn).await.is_err());
    proxy.resume();
    assert_eq!(pg::value(&pg::connect(&dsn).await, "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_seen_and_shown() {
    let cluster = Cluster::start(ClusterOptions::pair().encodings(&["LATIN1", "UTF8"])).await;
    cluster
        .sql_everywhere("create table t (id int primary key, v text)")
        .await;
    cluster
        .sql_everywhere("insert into t values (1, 'é'), (2, null)")
        .await;
    assert_eq!(difference(cluster.east(), cluster.west()).await, Ok(()));
    cluster
        .west()
        .sql("insert into t values (3, 'only here')")
        .await;
    let difference = difference(cluster.east(), cluster.west())
        .await
        .unwrap_err();
    assert!(
        difference.contains("only on west: Some(\"(3,\\\"only here\\\")\")"),
        "{difference}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_password_asks_for_it() {
    let options = ServerOptions {
        password: Some("se cret".to_owned()),
        ..Default::default()
    };
    let work = move || pool::start(pool::usual_major(), &options);
    let server = tokio::task::spawn_blocking(work).await.unwrap();
    let dsn = server.dsn("postgres");
    assert!(pg::try_connect(&dsn).await.is_err());
    let client = pg::connect(&format!("{dsn} password='se cret'")).await;
    assert_eq!(pg::value(&client, "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_value() {
    let mut left = 3;
    let value = wait_until("a countdown", LIMIT, async || {
        left -= 1;
        if left == 0 {
            Ok(7)
        } else {
            Err(format!("{left} left"))
        }
    })
    .await;
    assert_eq!(value, 7);
}
