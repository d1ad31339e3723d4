//! Schema `mmrepl`: what `init` runs once, what it runs again, and whose work it leaves alone.

use mmrepl::migrate::{FUNCTIONS, migrate};
use tokio_postgres::Client;

use super::init::{PLAIN, assert_says, both_have, pair};
use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

/// The functions of the schema, each with everything that makes it what it is.
const DEFINITIONS: &str = "
select coalesce(string_agg(pg_get_functiondef(p.oid), chr(10) order by p.oid::regprocedure::text),
    '') from pg_proc p where p.pronamespace = 'mmrepl'::regnamespace";

/// `west` has other functions that leave tombstones than this program wants.
const OTHER_FUNCTIONS: &str = "
create or replace function mmrepl.leave_tombstone() returns trigger
    language plpgsql as 'begin return null; end';
create or replace function mmrepl.delete_begins() returns trigger
    language plpgsql as 'begin return null; end';
update mmrepl.migration set checksum = 'other' where file = 'functions/tombstones'";

async fn links_and_triggers(cluster: &Cluster) -> Vec<String> {
    let sql = "
        select coalesce((select string_agg(source || began || source_timeline, ' ' order by source)
            from mmrepl.apply_position), '')
        || (select string_agg(t.oid || tgname, ' ' order by t.oid) from pg_trigger t)";
    let mut found = Vec::new();
    for node in &cluster.nodes {
        found.push(node.value(sql).await);
    }
    found
}

async fn changed_functions_come_with_init_alone(majors: &[u32]) {
    let options = ClusterOptions::majors(majors);
    let mut cluster = Cluster::running_with(options, PLAIN).await;
    cluster.wait_streaming().await;
    let before = links_and_triggers(&cluster).await;
    let definitions = cluster.west().value(DEFINITIONS).await;
    cluster.allow_error("this version");
    cluster.take_daemon("east").terminate();
    cluster.west().sql(OTHER_FUNCTIONS).await;
    cluster.start_daemon("east");
    let reason = "west has no schema mmrepl of this version: run `mmrepl init`";
    let link = ("east", "west");
    cluster.wait_reason(link, &["blocked"], reason).await;

    let shown = cluster.mmrepl_ok(&["init", "--dry-run"]).await;
    assert_says(&shown, &["-- migrations/functions/tombstones.sql"]);
    assert_eq!(shown.matches("migrations/").count(), 1, "{shown}");
    assert_ne!(cluster.west().value(DEFINITIONS).await, definitions);

    let said = cluster.mmrepl_ok(&["init"]).await;
    assert_says(
        &said,
        &["west: set up schema mmrepl (functions/tombstones)\n"],
    );
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(cluster.west().value(DEFINITIONS).await, definitions);
    assert_eq!(links_and_triggers(&cluster).await, before);
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");

    cluster.wait_streaming().await;
    let write = "insert into t select i from generate_series(1, 30) i; delete from t";
    cluster.west().sql(write).await;
    let count = "select count(*) from mmrepl.tombstone";
    assert_eq!(cluster.west().value(count).await, "30");
    cluster.wait_equal().await;
}

crate::on_usual_majors!(
    functions_that_changed_come_with_init_alone,
    super::changed_functions_come_with_init_alone
);

#[tokio::test(flavor = "multi_thread")]
async fn what_another_build_has_set_up_is_refused() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let west = cluster.west();
    let functions = "where file = 'functions/clock'";
    west.sql(&format!(
        "update mmrepl.migration set checksum = 'x', version = '4000.1.2' {functions}"
    ))
    .await;
    let definitions = west.value(DEFINITIONS).await;
    for command in [&["init"][..], &["init", "--dry-run"]] {
        let said = cluster.mmrepl_fails(command).await;
        let newer = [
            "node west",
            "newer mmrepl",
            "functions/clock of version 4000.1.2",
        ];
        assert_says(&said, &newer);
    }
    assert_eq!(west.value(DEFINITIONS).await, definitions);
    west.sql(&format!(
        "update mmrepl.migration set version = '0.0.1' {functions};
        update mmrepl.migration set checksum = 'x' where file = 'tables/001_nodes'"
    ))
    .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    let changed = "migration tables/001_nodes on this server differs";
    assert_says(&said, &["node west", changed]);
    west.sql(
        "update mmrepl.migration set file = 'tables/900_future' where file = 'tables/001_nodes'",
    )
    .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["newer mmrepl", "tables/900_future"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_old_numbering_is_told_what_to_do() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let old = "drop table mmrepl.migration;
        create table mmrepl.migration (number integer primary key, name text, checksum text);
        insert into mmrepl.migration values (1, '001_base', 'x')";
    cluster.west().sql(old).await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    let what = "from before its first release: run `mmrepl drop`, then `mmrepl init`";
    assert_says(&said, &["node west", what]);
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    cluster.init().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_run_everything_once() {
    let cluster = pair(PLAIN).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..4 {
        clients.push(cluster.east().client().await);
    }
    let [a, b, c, d] = &mut clients[..] else {
        unreachable!("there are four")
    };
    let ran = tokio::join!(migrate(a), migrate(b), migrate(c), migrate(d));
    let counts = [ran.0, ran.1, ran.2, ran.3].map(|ran| ran.unwrap().len());
    assert_eq!(
        counts.iter().filter(|count| **count > 0).count(),
        1,
        "{counts:?}"
    );
    cluster.init().await;
    both_have(&cluster, "select count(*) from mmrepl.node", "2").await;
}

/// The order of the files does not matter to the server, so nothing has looked into the functions.
async fn every_function_is_what_the_server_accepts(majors: &[u32]) {
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    let mut client = cluster.east().client().await;
    migrate(&mut client).await.unwrap();
    let before = cluster.east().value(DEFINITIONS).await;
    for file in FUNCTIONS.iter().rev() {
        let checked = format!("set check_function_bodies = on; {}", file.sql);
        client.batch_execute(&checked).await.unwrap();
    }
    assert_eq!(cluster.east().value(DEFINITIONS).await, before);
}

crate::on_every_major!(
    functions_are_accepted,
    super::every_function_is_what_the_server_accepts
);

/// Every table of schema `mmrepl`, emptied as test cleaners do.
pub const EMPTY_ALL: &str = "do $$ begin execute (select 'truncate ' || string_agg(
    format('%I.%I', schemaname, tablename), ', ') || ' cascade' from pg_tables
    where schemaname = 'mmrepl'); end $$";

async fn emptied_tables_are_filled_again(majors: &[u32]) {
    let options = ClusterOptions::majors(majors);
    let mut cluster = Cluster::running_with(options, PLAIN).await;
    cluster.allow_error("\"level\":\"ERROR\"");
    cluster.east().sql("insert into t values (1, 'a')").await;
    cluster.wait_equal().await;
    cluster.west().sql(EMPTY_ALL).await;
    wait_until("the status to say so", LIMIT, async || {
        let output = cluster.mmrepl(&["status"]).await;
        ensure(output.status.code() == Some(1), || format!("{output:?}"))
    })
    .await;
    cluster.stop_daemons();
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &["west lost its position", "`mmrepl init --copy-from east`"],
    );
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.start_daemons();
    cluster.east().sql("insert into t values (2, 'b')").await;
    cluster.west().sql("delete from t where id = 1").await;
    cluster.wait_equal().await;
    both_have(&cluster, "select string_agg(v, '') from t", "b").await;
}
on_usual_majors!(emptied_tables, super::emptied_tables_are_filled_again);
