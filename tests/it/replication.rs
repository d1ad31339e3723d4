//! Two servers, two daemons, writes on both sides: the main job, on every major.

use serde_json::Value;

use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions, Node};

const SCHEMA: &str = "
    create table orders (id int primary key, customer text not null, total numeric(10, 2));
    create table notes (written_by text, note text);";

/// Rows of its own on every node, in both tables, as three transactions.
async fn write_own_rows(node: &Node, first: u32) {
    let (name, last) = (node.name, first + 99);
    let client = node.client().await;
    for sql in [
        format!("insert into orders select g, '{name}', g from generate_series({first}, {last}) g"),
        format!("update orders set total = total * 2 where id between {first} and {first} + 9"),
        format!("insert into notes values ('{name}', 'one'), ('{name}', 'one'), ('{name}', null)"),
    ] {
        crate::support::pg::execute(&client, &sql).await;
    }
}

async fn both_ways(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    write_own_rows(cluster.east(), 1).await;
    write_own_rows(cluster.west(), 1001).await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster.east().value("select count(*) from orders").await,
        "200"
    );
    assert_eq!(
        cluster.west().value("select count(*) from notes").await,
        "6"
    );

    // Each side changes what the other wrote.
    cluster
        .east()
        .sql("update orders set customer = 'changed' where id > 1050")
        .await;
    cluster
        .west()
        .sql("delete from orders where id <= 10")
        .await;
    cluster
        .west()
        .sql("update orders set id = id + 5000 where id = 50")
        .await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster
            .east()
            .value("select count(*) from orders where id <= 10")
            .await,
        "0"
    );
    assert_eq!(
        cluster
            .east()
            .value("select id from orders where total = 50")
            .await,
        "5050"
    );
    assert_nothing_loops(&cluster, [4, 5]).await;
}
on_every_major!(rows_go_both_ways, super::both_ways);

/// Each link sends exactly the transactions that were written on its source.
async fn assert_nothing_loops(cluster: &Cluster, written: [u64; 2]) {
    for ((from, to), written) in [("east", "west"), ("west", "east")]
        .into_iter()
        .zip(written)
    {
        let link = cluster.link_status(from, to).await.unwrap();
        assert_eq!(
            link["totals"]["transactions"],
            Value::from(written),
            "{link}"
        );
    }
}

async fn same_row_on_both(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into orders values (1, 'both', 0)")
        .await;
    cluster.wait_equal().await;
    for link in ["east->west", "west->east"] {
        cluster.mmrepl_ok(&["pause", link]).await;
    }
    cluster.wait_state("east", "west", &["paused"]).await;
    cluster.wait_state("west", "east", &["paused"]).await;
    cluster
        .east()
        .sql("update orders set customer = 'east wrote first' where id = 1")
        .await;
    cluster
        .west()
        .sql("update orders set customer = 'west wrote last' where id = 1")
        .await;
    cluster
        .west()
        .sql("insert into orders values (2, 'west first', 1)")
        .await;
    cluster
        .east()
        .sql("insert into orders values (2, 'east last', 2)")
        .await;
    for link in ["east->west", "west->east"] {
        cluster.mmrepl_ok(&["resume", link]).await;
    }
    cluster.wait_equal().await;
    let rows = cluster
        .east()
        .rows("select customer from orders order by id")
        .await;
    let texts: Vec<_> = rows.iter().map(|row| row[0].as_deref().unwrap()).collect();
    assert_eq!(texts, ["west wrote last", "east last"]);
}
on_every_major!(the_last_write_wins, super::same_row_on_both);

async fn killed_daemon(majors: &[u32]) {
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    write_own_rows(cluster.east(), 1).await;
    cluster.take_daemon("east").kill9();
    write_own_rows(cluster.east(), 101).await;
    write_own_rows(cluster.west(), 1001).await;
    cluster.start_daemon("east");
    cluster.wait_equal().await;
    assert_eq!(
        cluster.west().value("select count(*) from orders").await,
        "300"
    );
    assert_eq!(
        cluster.west().value("select count(*) from notes").await,
        "9"
    );
    cluster.stop_daemons();
}
on_every_major!(a_killed_daemon_goes_on_where_it_was, super::killed_daemon);

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_form_a_mesh() {
    let major = crate::support::pool::usual_major();
    let cluster = Cluster::running_with(ClusterOptions::majors(&[major; 3]), SCHEMA).await;
    cluster.wait_streaming().await;
    for (index, node) in (0..).zip(&cluster.nodes) {
        write_own_rows(node, index * 1000 + 1).await;
    }
    cluster.wait_equal().await;
    assert_eq!(
        cluster.nodes[2].value("select count(*) from orders").await,
        "300"
    );
    assert_eq!(
        cluster.nodes[2].value("select count(*) from notes").await,
        "9"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn init_can_run_again_and_adds_new_tables() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .sql_everywhere("create table late (id int primary key, v text)")
        .await;
    cluster.init().await;
    cluster.init().await;
    cluster
        .east()
        .sql("insert into late values (1, 'from east')")
        .await;
    cluster
        .west()
        .sql("insert into late values (2, 'from west')")
        .await;
    cluster.wait_equal().await;
    assert_eq!(cluster.east().value("select count(*) from late").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_drop_removes_everything() {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    cluster.sql_everywhere(SCHEMA).await;
    let made = "select (select count(*) from pg_namespace where nspname = 'mmrepl')
        + (select count(*) from pg_publication)
        + (select count(*) from pg_trigger where not tgisinternal)
        + (select count(*) from pg_replication_slots where database = current_database())
        + (select count(*) from pg_replication_origin where roname like 'mmrepl\\_'
            || replace(current_database(), '_', '\\_') || '\\_%')";
    cluster.mmrepl_ok(&["init", "--dry-run"]).await;
    assert_eq!(cluster.east().value(made).await, "0");
    cluster.init().await;
    assert_ne!(cluster.east().value(made).await, "0");
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    assert_eq!(cluster.east().value(made).await, "0");
    assert_eq!(cluster.west().value(made).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_goes_both_ways() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    write_own_rows(cluster.east(), 1).await;
    write_own_rows(cluster.west(), 1001).await;
    cluster.wait_equal().await;
    cluster.east().sql("truncate orders, notes").await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster.west().value("select count(*) from orders").await,
        "0"
    );
    cluster
        .west()
        .sql("insert into orders values (1, 'after', 0)")
        .await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster.east().value("select count(*) from orders").await,
        "1"
    );
}
