//! Servers that were put back, replaced or failed over; copies over nodes that have something of
//! their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

const TABLE: &str = "create table t (id int primary key, v text)";

pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success(), "cannot copy {}", from.display());
}

/// A copy of a node's stopped server; it is started again.
pub fn snapshot(cluster: &mut Cluster, node: &str) -> PathBuf {
    let server = cluster.server_mut(node);
    server.stop();
    let kept = server.data_dir().with_extension("kept");
    copy_dir(&server.data_dir(), &kept);
    server.start().unwrap();
    kept
}

/// The node's server as it was; a base backup has no slots.
pub fn put_back(cluster: &mut Cluster, node: &str, kept: &Path, with_slots: bool) {
    let server = cluster.server_mut(node);
    server.stop();
    let data = server.data_dir();
    copy_dir(kept, &data);
    if !with_slots {
        for slot in std::fs::read_dir(data.join("pg_replslot")).unwrap() {
            std::fs::remove_dir_all(slot.unwrap().path()).unwrap();
        }
    }
    server.start().unwrap();
}

/// One row per transaction.
pub async fn write(cluster: &Cluster, node: &str, ids: std::ops::Range<u32>) {
    let sql = format!(
        "do $$ begin for i in {}..{} loop
             insert into t values (i, '{node}'); commit; end loop; end $$",
        ids.start,
        ids.end - 1
    );
    cluster.node(node).sql(&sql).await;
}

pub async fn rows(cluster: &Cluster, node: &str, expected: &str) {
    wait_until("the rows", LIMIT, async || {
        let count = cluster.node(node).value("select count(*) from t").await;
        ensure(count == expected, || format!("{count} on {node}"))
    })
    .await;
}

/// What `status`, `check` and `init` say of a broken pair: the same, and never to copy from the
/// loser.
pub async fn one_verdict(cluster: &Cluster, (whole, loser): (&str, &str), apart: &str) {
    let right = format!("--copy-from {whole}");
    let wrong = format!("--copy-from {loser}");
    // A daemon that has just begun says so first.
    let status = wait_until("the verdict in the status", LIMIT, async || {
        let status = String::from_utf8(cluster.mmrepl(&["status"]).await.stdout).unwrap();
        ensure(status.contains(&right), || status.clone()).map(|()| status)
    })
    .await;
    assert_says(&status, &["`mmrepl check` counts the rows"]);
    let check = cluster.mmrepl_fails(&["check"]).await;
    let init = cluster.mmrepl_fails(&["init"]).await;
    for said in [&status, &check, &init] {
        assert_says(said, &[&right]);
        assert!(!said.contains(&wrong), "{said}");
    }
    // What each node has alone is counted for who has to decide.
    assert_says(&check, &[apart]);
    assert_says(&init, &[apart]);
}

pub async fn pair(majors: &[u32]) -> Cluster {
    let options = ClusterOptions::majors(majors).durable();
    let mut cluster = Cluster::running_with(options, TABLE).await;
    for text in ["lost commits", "its replication slot", "lost its position"] {
        cluster.allow_error(text);
    }
    cluster.wait_streaming().await;
    cluster
}

on_usual_majors!(a_source_that_was_put_back, super::put_back_and_written_on);

/// A restart after a crash goes on; a snapshot that was put back, slots and all, and has written
/// more than it lost, does not.
async fn put_back_and_written_on(majors: &[u32]) {
    let mut cluster = pair(majors).await;
    write(&cluster, "east", 0..20).await;
    cluster.wait_equal().await;
    cluster.server_mut("east").kill9();
    cluster.server_mut("east").start().unwrap();
    cluster.wait_streaming().await;

    cluster.stop_daemons();
    let kept = snapshot(&mut cluster, "east");
    cluster.start_daemons();
    cluster.wait_streaming().await;
    write(&cluster, "east", 100..220).await;
    cluster.wait_equal().await;
    cluster.stop_daemons();
    put_back(&mut cluster, "east", &kept, true);
    write(&cluster, "east", 1000..1220).await;
    // Without daemons, and with them.
    let apart = "public.t 220 row(s) on east alone, 120 row(s) on west alone, 0 with other values";
    one_verdict(&cluster, ("west", "east"), apart).await;
    cluster.start_daemons();
    cluster
        .wait_reason(("east", "west"), &["stopped"], "has lost commits")
        .await;
    one_verdict(&cluster, ("west", "east"), apart).await;
    // Nothing half done beside daemons.
    let before = cluster.east().value("select count(*) from t").await;
    let said = cluster.mmrepl_fails(&["init", "--copy-from", "west"]).await;
    assert_says(&said, &["stop the daemon of west"]);
    assert_eq!(cluster.east().value("select count(*) from t").await, before);
    cluster.stop_daemons();
    let said = cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    assert_says(&said, &["kept 220 overwritten row(s) in the history"]);
    cluster.start_daemons();
    cluster.wait_streaming().await;
    rows(&cluster, "east", "140").await;
    // A row that only east had comes back, on both.
    let kept = "select 'east-' || min(id) from mmrepl.conflict where kind = 'overwritten'
        and key_values = array['1000']";
    let id = cluster.east().value(kept).await;
    cluster.mmrepl_ok(&["conflicts", "show", &id]).await;
    cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    rows(&cluster, "west", "141").await;
    write(&cluster, "west", 5000..5010).await;
    rows(&cluster, "east", "151").await;
    cluster.wait_equal().await;
}

/// Waits until the link's slot has moved on: nothing before the position can be asked for then.
pub async fn slot_moves(cluster: &Cluster, (from, to): (&str, &str)) {
    let position = format!("select end_lsn from mmrepl.apply_position where source = '{from}'");
    let position = cluster.node(to).value(&position).await;
    let slot = format!(
        "select confirmed_flush_lsn >= '{position}' from pg_replication_slots
            where slot_name = 'mmrepl_{}_{to}'",
        cluster.name
    );
    wait_until("the slot to move", LIMIT, async || {
        let moved = cluster.node(from).value(&slot).await;
        ensure(moved == "t", || moved)
    })
    .await;
}

on_usual_majors!(a_base_backup_without_slots, super::base_backup);

/// East comes back from a base backup: what west wrote since is on west only, and stays.
async fn base_backup(majors: &[u32]) {
    let mut cluster = pair(majors).await;
    write(&cluster, "east", 0..20).await;
    cluster.wait_equal().await;
    let kept = snapshot(&mut cluster, "east");
    cluster.wait_streaming().await;
    write(&cluster, "west", 41..42).await;
    cluster.wait_equal().await;
    slot_moves(&cluster, ("west", "east")).await;
    cluster.stop_daemons();
    put_back(&mut cluster, "east", &kept, false);
    let apart = "public.t 0 row(s) on east alone, 1 row(s) on west alone, 0 with other values";
    one_verdict(&cluster, ("west", "east"), apart).await;
    cluster.start_daemons();
    for link in [("east", "west"), ("west", "east")] {
        cluster
            .wait_reason(link, &["stopped"], "--copy-from west")
            .await;
    }
    one_verdict(&cluster, ("west", "east"), apart).await;
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    rows(&cluster, "east", "21").await;
    rows(&cluster, "west", "21").await;
}

on_usual_majors!(
    nothing_of_another_replicator_is_overwritten,
    super::undelivered_of_others
);

/// Rows that came to west under an origin that is gone by now, while the daemons were stopped.
async fn undelivered_of_others(majors: &[u32]) {
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), TABLE).await;
    cluster.allow_error("its replication slot");
    cluster.wait_streaming().await;
    write(&cluster, "east", 0..10).await;
    cluster.wait_equal().await;
    cluster.stop_daemons();
    write(&cluster, "east", 10..12).await;
    let client = cluster.west().client().await;
    for sql in [
        "select pg_replication_origin_create('passing_by')",
        "select pg_replication_origin_session_setup('passing_by')",
        "insert into t (id) select generate_series(2100, 2102)",
        "select pg_replication_origin_session_reset()",
        "select pg_replication_origin_drop('passing_by')",
    ] {
        crate::support::pg::execute(&client, sql).await;
    }
    let drop = format!(
        "select pg_drop_replication_slot('mmrepl_{}_west')",
        cluster.name
    );
    cluster.east().sql(&drop).await;
    let said = cluster.mmrepl_fails(&["init", "--copy-from", "east"]).await;
    assert_says(&said, &["3 row(s) of public.t", "mmrepl run --node west"]);
    rows(&cluster, "west", "13").await;
    cluster.start_daemons();
    rows(&cluster, "east", "15").await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.wait_streaming().await;
    rows(&cluster, "west", "15").await;
    cluster.wait_equal().await;
}

on_usual_majors!(nothing_undelivered_is_overwritten, super::undelivered);

/// A slot is dropped while the other node has something that has not arrived: it arrives first.
async fn undelivered(majors: &[u32]) {
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), TABLE).await;
    cluster.allow_error("its replication slot");
    cluster.wait_streaming().await;
    write(&cluster, "east", 0..10).await;
    cluster.wait_equal().await;
    cluster.stop_daemons();
    write(&cluster, "west", 2100..2103).await;
    let name = cluster.name.clone();
    let drop = |peer: &str| format!("select pg_drop_replication_slot('mmrepl_{name}_{peer}')");
    cluster.east().sql(&drop("west")).await;
    let advice = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&advice, &["--copy-from east"]);
    let said = cluster.mmrepl_fails(&["init", "--copy-from", "east"]).await;
    assert_says(&said, &["3 row(s) of public.t", "mmrepl run --node west"]);
    rows(&cluster, "west", "13").await;
    cluster.start_daemons();
    cluster.wait_state("west", "east", &["streaming"]).await;
    let said = cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    assert!(!said.contains("overwritten"), "{said}");
    cluster.wait_streaming().await;
    rows(&cluster, "west", "13").await;
    rows(&cluster, "east", "13").await;
    cluster.wait_equal().await;

    // Both slots are gone: what west has alone cannot arrive any more, and is kept.
    cluster.stop_daemons();
    write(&cluster, "west", 3000..3001).await;
    cluster
        .west()
        .sql("update t set v = 'mine' where id = 1")
        .await;
    cluster.east().sql(&drop("west")).await;
    cluster.west().sql(&drop("east")).await;
    let said = cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    assert_says(&said, &["kept 2 overwritten row(s) in the history"]);
    cluster.start_daemons();
    cluster.wait_streaming().await;
    rows(&cluster, "west", "13").await;
    let ids = "select 'west-' || id from mmrepl.conflict order by key_values";
    for id in cluster.west().rows(ids).await {
        let id = id[0].clone().unwrap();
        cluster.mmrepl_ok(&["conflicts", "show", &id]).await;
        cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    }
    rows(&cluster, "east", "14").await;
    wait_until("the old value", LIMIT, async || {
        let value = cluster.east().value("select v from t where id = 1").await;
        ensure(value == "mine", || value)
    })
    .await;
}
