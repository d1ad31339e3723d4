//! Tables without a key: rows are found by all their values.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions};

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
