//! Tables without a key: rows are found by all their values.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, Node};

const SCHEMA: &str = "
    create table log (a int, b text, c numeric, d timestamptz, e boolean);
    create index on log (a);
    create index log_e on log (e, c) where e;
    create index on log (lower(b));
    insert into log select n, 'row ' || n, n * 1.10, '2026-01-01', n % 2 = 0
        from generate_series(1, 20000) n;
    analyze log;";

/// How often the table was read whole and how often its index was asked.
const SCANS: &str = "select seq_scan || ' ' || (idx_scan > 50)::text
    from pg_stat_user_tables where relname = 'log'";

async fn an_index_finds_them(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    let before = west.value("select seq_scan::text from pg_stat_user_tables where relname = 'log'");
    let before = before.await;
    east.sql("update log set b = b || '!' where a between 100 and 160")
        .await;
    east.sql("delete from log where a between 200 and 230")
        .await;
    // A NULL is looked up as well.
    east.sql("insert into log values (null, 'nothing', 1.50, null, null)")
        .await;
    east.sql("update log set a = 5 where a is null; update log set a = null where a = 6")
        .await;
    cluster.settle().await;
    let count = "select count(*) || ' ' || count(a) || ' ' || sum(a)
        || ' ' || count(*) filter (where b like '%!') from log";
    assert_eq!(west.value(count).await, east.value(count).await);
    crate::support::wait_until("the statistics", crate::support::LIMIT, async || {
        let scans = west.value(SCANS).await;
        let (whole, by_index) = scans.split_once(' ').unwrap();
        let more = whole.parse::<i64>().unwrap() - before.parse::<i64>().unwrap();
        crate::support::wait::ensure(more < 20 && by_index == "true", || {
            format!("{more} times whole; by an index: {by_index}")
        })
    })
    .await;
}
on_usual_majors!(are_found_by_an_index, super::an_index_finds_them);

const EMPTIED: &str = "
    create table k (a int, b text);
    create table m (a int, b text);
    create table p (a int, b text) partition by list (a);
    create table p1 partition of p for values in (1);
    create table p2 partition of p default;
    insert into k select n, 'before' from generate_series(1, 20) n;
    insert into m select n, 'before' from generate_series(1, 20) n;
    insert into p select n, 'before' from generate_series(1, 3) n";

/// What every node has, in the end, of a table that one of them emptied.
const LEFT: &str = "select string_agg(concat_ws(' ', b, n), ', ' order by b collate \"C\")
    from (select b, count(*) n from {t} group by b) g";

/// Writes older than the truncate, of every kind, then those that are newer than it.
async fn written_around(emptied: &Node, other: &Node, table: &str) {
    other
        .sql(&format!(
            "insert into {table} values (1, 'older');
             insert into {table} select n, 'many older' from generate_series(1, 50) n;
             update {table} set b = 'older update' where a = 2 and b = 'before';
             delete from {table} where a = 3 and b = 'before'"
        ))
        .await;
    emptied.sql(&format!("truncate {table}")).await;
    // A row that is equal to one that an older delete removed.
    emptied
        .sql(&format!(
            "insert into {table} values (3, 'before'), (1, 'after')"
        ))
        .await;
    other
        .sql(&format!(
            "insert into {table} select n, 'newer' from generate_series(1, 30) n;
             update {table} set b = 'newer update' where a = 4 and b = 'before'"
        ))
        .await;
}

/// A truncate takes what is older on every node, and nothing else, whichever comes first.
async fn a_truncate_takes_what_is_older(majors: &[u32]) {
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), EMPTIED).await;
    cluster.wait_streaming().await;
    cluster.settle().await;
    cluster.stop_daemons();
    let (east, west) = (cluster.east(), cluster.west());
    written_around(west, east, "k").await;
    written_around(east, west, "m").await;
    written_around(west, east, "p").await;
    cluster.start_daemons();
    cluster.wait_equal().await;
    for table in ["k", "m", "p"] {
        let updated = if table == "p" { "" } else { ", newer update 1" };
        for node in [cluster.east(), cluster.west()] {
            let left = node.value(&LEFT.replace("{t}", table)).await;
            let wanted = format!("after 1, before 1, newer 30{updated}");
            assert_eq!(left, wanted, "{table} on {}", node.name);
        }
    }
    // What it took without knowing it is told on both nodes, and comes back by command.
    let told = "select string_agg(kind || ' ' || outcome || ' ' || n, ', ' order by kind)
        from (select kind, outcome, count(*) n from mmrepl.conflict where table_name = 'k'
        group by kind, outcome) g";
    let west = cluster.west().value(told).await;
    assert_eq!(
        west,
        "insert_delete kept_local 51, update_delete kept_local 1"
    );
    cluster.mmrepl_ok(&["conflicts", "restore", "west-1"]).await;
    // Rows that come while the table is emptied.
    let insert = "do $$ begin for n in 1..300 loop
        insert into k values (n, 'live'); commit; end loop; end $$";
    let empty = "do $$ begin for n in 1..20 loop
        truncate k; commit; perform pg_sleep(0.005); end loop; end $$";
    let (east, west) = (cluster.east(), cluster.west());
    tokio::join!(east.sql(insert), west.sql(empty));
    cluster.wait_equal().await;
    // One partition: its rows are deleted.
    cluster.east().sql("truncate p1").await;
    cluster.wait_equal().await;
    let left = cluster.west().value("select count(*) from p where a = 1");
    assert_eq!(left.await, "0");
}
on_usual_majors!(are_emptied_alike, super::a_truncate_takes_what_is_older);
