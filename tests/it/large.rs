//! Large things in bounded memory. `MMREPL_LARGE=1` (`make soak`) sets the full sizes.

use std::fmt::Write as _;
use std::time::Duration;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};

/// The daemon's promise, whatever the size of a transaction.
const MEMORY_MAX_BYTES: u64 = 100 * 1024 * 1024;
const LONG: Duration = Duration::from_secs(900);

fn full_size() -> bool {
    std::env::var_os("MMREPL_LARGE").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_passes_in_bounded_memory() {
    let rows = if full_size() { 2_000_000 } else { 200_000 };
    let options = ClusterOptions::pair().own_servers();
    let schema = "create table t (id bigint primary key, v text, n int)";
    let mut cluster = Cluster::running_with(options, schema).await;
    cluster.wait_streaming().await;
    let client = cluster.east().client().await;
    let insert = format!(
        "begin; insert into t select g, 'row ' || g, 0 from generate_series(1, {rows}) g;
         update t set n = 1 where id % 10 = 0; delete from t where id % 100 = 0; commit"
    );
    pg::execute(&client, &insert).await;
    cluster.wait_equal_within(LONG).await;
    let expected = (rows / 100 * 99).to_string();
    assert_eq!(
        cluster.west().value("select count(*) from t").await,
        expected
    );
    for name in ["east", "west"] {
        let peak = cluster.daemon(name).peak_memory_bytes();
        println!(
            "{name}: peak memory {} MB with {rows} rows",
            peak / 1024 / 1024
        );
        assert!(peak < MEMORY_MAX_BYTES, "{name} used {peak} bytes");
    }
}

/// A source on this host may send only so much ahead, which must not be less than the network's
/// largest packets: these would then wait for the sender's timer, five a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_wide_rows_does_not_trickle() {
    let cluster = Cluster::running("create table t (id int primary key, v text)").await;
    cluster.wait_streaming().await;
    cluster.mmrepl_ok(&["pause", "east->west"]).await;
    cluster.wait_state("east", "west", &["paused"]).await;
    let backlog = "do $$ begin for i in 0..49 loop
            insert into t select i * 1000 + g, repeat(md5(g::text), 31)
                from generate_series(1, 1000) g;
            commit;
        end loop; end $$";
    cluster.east().sql(backlog).await;
    cluster.mmrepl_ok(&["resume", "east->west"]).await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster.west().value("select count(*) from t").await,
        "50000"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables() {
    let tables = if full_size() { 5000 } else { 500 };
    let mut cluster = Cluster::start(ClusterOptions::pair().own_servers()).await;
    let make = format!(
        "do $$ begin for i in 1..{tables} loop
            execute format('create table t%s (id int primary key, v text)', i);
            if i % 100 = 0 then commit; end if;
         end loop; end $$"
    );
    cluster.sql_everywhere(&make).await;
    cluster.init().await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    for node in &cluster.nodes {
        let mut sql = String::new();
        for table in 1..=tables {
            let id = if node.name == "east" { 1 } else { 2 };
            let _ = writeln!(sql, "insert into t{table} values ({id}, '{}');", node.name);
        }
        node.sql(&sql).await;
    }
    cluster.wait_equal_within(LONG).await;
    assert_eq!(
        cluster
            .west()
            .value(&format!("select count(*) from t{tables}"))
            .await,
        "2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_link_pins_no_wal_and_takes_no_cpu() {
    let options = ClusterOptions::pair().own_servers();
    let mut cluster = Cluster::running_with(options, "create table t (id int primary key)").await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1)").await;
    cluster.wait_equal().await;
    // Another database of the same server is busy.
    let admin = pg::connect(&cluster.east().server().dsn("postgres")).await;
    pg::execute(&admin, "create table busy (v text)").await;
    let ticks = cluster.daemon("east").cpu_ticks();
    for _ in 0..20 {
        pg::execute(
            &admin,
            "insert into busy select repeat('x', 900) from generate_series(1, 5000)",
        )
        .await;
    }
    let end = pg::value(&admin, "select pg_current_wal_lsn()").await;
    let behind = format!(
        "select slot_name, confirmed_flush_lsn, restart_lsn from pg_replication_slots
         where pg_wal_lsn_diff('{end}', confirmed_flush_lsn) > 2000000"
    );
    wait_until("the idle slot to follow", LIMIT, async || {
        let slots = pg::rows(&admin, &behind).await;
        ensure(slots.is_empty(), || format!("{slots:?} behind {end}"))
    })
    .await;
    // Its restart position follows once a later checkpoint record is confirmed, which happens in
    // steps of a mebibyte; then the WAL can go.
    let mut kept = u64::MAX;
    for _ in 0..20 {
        pg::execute(&admin, "checkpoint").await;
        let end = pg::value(&admin, "select pg_current_wal_lsn()").await;
        let more = "insert into busy select repeat('x', 900) from generate_series(1, 2000)";
        pg::execute(&admin, more).await;
        let behind = format!(
            "select slot_name from pg_replication_slots where confirmed_flush_lsn < '{end}'"
        );
        wait_until("the slot to be confirmed", LIMIT, async || {
            let slots = pg::rows(&admin, &behind).await;
            ensure(slots.is_empty(), || format!("{slots:?} before {end}"))
        })
        .await;
        let oldest = "select max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))::bigint
            from pg_replication_slots";
        kept = pg::value(&admin, oldest).await.parse().unwrap();
        if kept < 20 * 1024 * 1024 {
            break;
        }
    }
    assert!(kept < 20 * 1024 * 1024, "{kept} bytes kept");
    let spent = cluster.daemon("east").cpu_ticks() - ticks;
    assert!(spent < 100, "an idle daemon took {spent} clock ticks");
}
