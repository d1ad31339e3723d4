//! Why mmrepl keeps its own position: what `pg_replication_origin_progress` does on each major, and
//! that no row is lost when the apply session ends badly.

use tokio_postgres::Client;

use crate::on_every_major;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, Node, pg, wait_until};

/// From here on the server advances an origin on abort too.
const ABORT_MOVES_SINCE: u32 = 16;

const SCHEMA: &str = "create table t (id int primary key, v text)";

/// How a transaction of an origin session can end without committing.
const BAD_ENDS: [(&str, &str); 3] = [
    ("rollback", "rollback"),
    ("error", "select 1 / 0"),
    ("failed commit", "insert into twice values (1), (1); commit"),
];

async fn what_the_server_does(majors: &[u32]) {
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    for (node, major) in cluster.nodes.iter().zip(majors) {
        let moves = *major >= ABORT_MOVES_SINCE;
        let origin = format!("probe_{}_{}", cluster.name, node.name);
        node.sql(
            "create table t (id int); create table twice (id int unique deferrable initially deferred)",
        )
        .await;
        node.sql(&format!("select pg_replication_origin_create('{origin}')"))
            .await;
        for (number, (name, end)) in BAD_ENDS.into_iter().enumerate() {
            let position = format!("0/{}", 1000 + number);
            let client = node.client().await;
            begin_at(&client, &origin, &position).await;
            assert!(
                client.batch_execute(end).await.is_ok() == (name == "rollback"),
                "{name}"
            );
            let _ = client.batch_execute("rollback").await;
            assert_progress(node, &origin, &position, moves, name).await;
            pg::execute(&client, "select pg_replication_origin_session_reset()").await;
        }
        terminated(node, &origin, moves).await;
        reset_before_rollback(node, &origin).await;
        assert_eq!(node.value("select count(*) from t").await, "0");
        drop_origin(node, &origin).await;
    }
}
on_every_major!(
    the_server_moves_origins_on_abort_from_16_on,
    super::what_the_server_does
);

/// A session that has just ended may hold the origin for a moment.
async fn drop_origin(node: &Node, origin: &str) {
    let client = node.client().await;
    let sql = format!("select pg_replication_origin_drop('{origin}')");
    wait_until("the origin to be free", LIMIT, async || {
        pg::try_rows(&client, &sql)
            .await
            .map_err(|error| pg::explain(&error))
    })
    .await;
}

async fn begin_at(client: &Client, origin: &str, position: &str) {
    let sql = format!(
        "select pg_replication_origin_session_setup('{origin}');
         begin; insert into t values (1);
         select pg_replication_origin_xact_setup('{position}', now())"
    );
    pg::execute(client, &sql).await;
}

async fn assert_progress(node: &Node, origin: &str, position: &str, moved: bool, name: &str) {
    // From 19 on a position is printed with leading zeros.
    let query = format!(
        "select coalesce((pg_replication_origin_progress('{origin}', true) = '{position}')::text, 'none')"
    );
    let progress = node.value(&query).await;
    assert_eq!(
        progress == "true",
        moved,
        "{name} on {}: {progress}",
        node.server().major()
    );
}

async fn terminated(node: &Node, origin: &str, moves: bool) {
    let client = node.client().await;
    let pid = pg::value(&client, "select pg_backend_pid()").await;
    begin_at(&client, origin, "0/2000").await;
    let killer = node.client().await;
    pg::execute(&killer, &format!("select pg_terminate_backend({pid})")).await;
    wait_until("the backend to end", LIMIT, async || {
        let alive = format!("select count(*) from pg_stat_activity where pid = {pid}");
        ensure(pg::value(&killer, &alive).await == "0", || pid.clone())
    })
    .await;
    assert_progress(node, origin, "0/2000", moves, "terminated backend").await;
}

async fn reset_before_rollback(node: &Node, origin: &str) {
    let client = node.client().await;
    begin_at(&client, origin, "0/3000").await;
    pg::execute(
        &client,
        "select pg_replication_origin_xact_reset(); rollback",
    )
    .await;
    assert_progress(node, origin, "0/3000", false, "xact_reset before rollback").await;
}

/// Writes on east while something on west makes the apply transaction fail, then mends it.
async fn no_row_lost(majors: &[u32]) {
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.allow_error("23514");
    cluster.allow_error("no_commit()");
    error_in_a_statement(&cluster).await;
    failed_commit(&cluster).await;
    terminated_apply_sessions(&cluster).await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "340");
    // A restart resumes from the position row, not from the origin.
    cluster.take_daemon("east").kill9();
    cluster
        .east()
        .sql("insert into t values (1000, 'after restart')")
        .await;
    cluster.start_daemon("east");
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "341");
}
on_every_major!(
    no_row_is_lost_when_the_apply_session_ends_badly,
    super::no_row_lost
);

async fn write_twenty(node: &Node, first: u32) {
    let client = node.client().await;
    for id in first..first + 20 {
        pg::execute(&client, &format!("insert into t values ({id}, 'x')")).await;
    }
}

async fn error_in_a_statement(cluster: &Cluster) {
    cluster
        .west()
        .sql("alter table t add constraint not_yet check (id <> 110)")
        .await;
    write_twenty(cluster.east(), 100).await;
    cluster
        .wait_reason(("east", "west"), &["blocked", "retrying"], "not_yet")
        .await;
    restart_apply(cluster.west()).await;
    cluster
        .west()
        .sql("alter table t drop constraint not_yet")
        .await;
    cluster.wait_streaming().await;
}

async fn failed_commit(cluster: &Cluster) {
    cluster
        .west()
        .sql(
            "create function no_commit() returns trigger language plpgsql as $$
                begin if new.id = 210 then raise 'not yet'; end if; return null; end $$;
             create constraint trigger no_commit after insert on t initially deferred
                for each row execute function no_commit();
             alter table t enable always trigger no_commit",
        )
        .await;
    write_twenty(cluster.east(), 200).await;
    cluster
        .wait_reason(("east", "west"), &["blocked", "retrying"], "no_commit()")
        .await;
    restart_apply(cluster.west()).await;
    cluster.west().sql("drop trigger no_commit on t").await;
    cluster.wait_streaming().await;
}

/// Ends the apply sessions of mmrepl on a node, wherever they are in their transaction.
async fn restart_apply(node: &Node) {
    node.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name like 'mmrepl % apply'",
    )
    .await;
}

async fn terminated_apply_sessions(cluster: &Cluster) {
    let client = cluster.east().client().await;
    for id in 300..600 {
        pg::execute(
            &client,
            &format!("insert into t values ({id}, repeat('x', 1000))"),
        )
        .await;
        if id % 50 == 0 {
            restart_apply(cluster.west()).await;
        }
    }
    cluster.wait_streaming().await;
}
