//! Something that replication depends on is changed and put back before anybody looks: rows that
//! were written meanwhile may differ, and whoever looks is told so until they have been compared.

use super::damage::{all_well, running, shown};
use super::init::{assert_says, soon};
use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions};

const TABLES: &str = "
create table t (id int primary key, v text);
create table other (id int primary key, v text);
create table p (id int, k int, v text, primary key (id, k)) partition by range (k);
create table p1 partition of p for values from (0) to (10);";

/// What was done on east, what is said of it, and what makes the nodes equal again on east.
const UNDONE: [(&str, &str, &str); 5] = [
    (
        "alter publication mmrepl set (publish = 'insert'); insert into other values (0, 'sent');
         delete from t where id = 1;
         alter publication mmrepl set (publish = 'insert, update, delete, truncate')",
        "public.t: its part in publication mmrepl was changed",
        "insert into t values (1, 'a')",
    ),
    (
        "alter table t disable trigger mmrepl_delete; delete from t where id = 1;
         alter table t enable always trigger mmrepl_delete",
        "public.t: triggers of mmrepl were off or changed",
        "",
    ),
    (
        "alter table p detach partition p1; insert into p1 values (9, 1, 'by the way');
         alter table p attach partition p1 for values from (0) to (10)",
        "public.p: partition public.p1 was detached for a while",
        "delete from p where id = 9",
    ),
    (
        "create table p2 (like p); insert into p2 values (20, 12, 'old');
         alter table p attach partition p2 for values from (10) to (20)",
        "public.p: partition public.p2 was attached with rows",
        "delete from p where id = 20",
    ),
    (
        "begin; create table p3 (like p); insert into p3 values (30, 22, 'old');
         alter table p attach partition p3 for values from (20) to (30); commit",
        "public.p: partition public.p3 was attached with rows",
        "delete from p where id = 30",
    ),
];

/// Beside running daemons, or while they are stopped.
async fn told(majors: &[u32], stopped: bool) {
    let mut cluster = running(majors, TABLES).await;
    let ready = "create table p2 partition of p for values from (10) to (20);
                 create table p3 partition of p for values from (20) to (30)";
    cluster.west().sql(ready).await;
    for (done, said, undo) in UNDONE {
        if stopped {
            cluster.stop_daemons();
        }
        cluster
            .east()
            .sql("delete from t; insert into t values (1, 'a')")
            .await;
        // As they would come from psql: each in a transaction of its own.
        let at_once = done.starts_with("begin");
        for statement in done.split(if at_once { "\0" } else { ";\n" }) {
            cluster.east().sql(statement).await;
        }
        if stopped {
            let check = cluster.mmrepl_fails(&["check"]).await;
            assert_says(&check, &[said, "run mmrepl init"]);
            cluster.start_daemons();
        }
        let entry = shown(&cluster, "east", said).await;
        assert_eq!(entry["kind"], "gap", "{entry}");
        assert_eq!(entry["mend"], "mmrepl init", "{entry}");
        assert_eq!(cluster.mmrepl(&["status"]).await.status.code(), Some(1));
        let check = cluster.mmrepl_fails(&["check"]).await;
        assert_says(&check, &[said]);
        if undo.is_empty() {
            soon(&cluster, "select count(*) from t", "0").await;
        } else {
            let refused = cluster.mmrepl_fails(&["init"]).await;
            assert_says(&refused, &["lacks rows that", "--copy-from"]);
            shown(&cluster, "east", said).await;
            cluster.east().sql(undo).await;
        }
        cluster.mmrepl_ok(&["init"]).await;
        all_well(&cluster).await;
        let again = cluster.mmrepl_ok(&["init"]).await;
        assert!(again.ends_with("nothing to do\n"), "{done}: {again}");
        cluster.mmrepl_ok(&["check"]).await;
    }
}

async fn told_at_once(majors: &[u32]) {
    told(majors, false).await;
}
on_usual_majors!(
    what_was_put_back_at_once_is_told_all_the_same,
    super::told_at_once
);

async fn told_after(majors: &[u32]) {
    told(majors, true).await;
}
on_usual_majors!(
    what_was_put_back_while_nobody_looked_is_told,
    super::told_after
);

/// What people do every day, and what mmrepl does itself, is no reason to compare anything.
const HARMLESS: [&str; 11] = [
    "create table p2 partition of p for values from (10) to (20)",
    "begin; create table p3 partition of p for values from (20) to (30);
     insert into p values (20, 22, 'new') on conflict do nothing; commit",
    "insert into p values (21, 13, 'new') on conflict do nothing; update p set v = 'newer'",
    "alter table t alter v type varchar(90)",
    "alter table t add n int, add constraint more check (n > 0); alter table t rename n to m",
    "create index on t (v); alter table t rename constraint more to less",
    "vacuum full t",
    "vacuum full pg_trigger",
    "vacuum freeze pg_publication",
    "alter publication mmrepl owner to current_user",
    "create table fresh (id int primary key); drop table fresh",
];

async fn not_told(majors: &[u32]) {
    let mut cluster = running(majors, TABLES).await;
    for done in HARMLESS {
        // The partition's rows may come before the partition, and are tried again.
        for node in &cluster.nodes {
            node.sql(done).await;
        }
    }
    let gaps = "select count(*) from mmrepl.gap";
    for round in 0..2 {
        if round == 1 {
            cluster.stop_daemons();
            cluster.start_daemons();
        }
        cluster.wait_streaming().await;
        cluster.mmrepl_ok(&["init"]).await;
        all_well(&cluster).await;
        for node in &cluster.nodes {
            assert_eq!(node.value(gaps).await, "0");
        }
    }
}
on_usual_majors!(what_changes_nothing_is_not_told, super::not_told);

/// Rows that were written while a server kept no commit times have no version to go by.
async fn times_lost(majors: &[u32]) {
    let options = ClusterOptions {
        majors: majors.to_vec(),
        ..ClusterOptions::pair()
    };
    let mut cluster = Cluster::running_with(options.own_servers(), TABLES).await;
    cluster.wait_streaming().await;
    cluster.east().sql("insert into t values (1, 'a')").await;
    soon(&cluster, "select coalesce(min(v), '') from t", "a").await;
    cluster.stop_daemons();
    for setting in ["off", "on"] {
        let sql = format!("alter system set track_commit_timestamp = {setting}");
        cluster.west().sql(&sql).await;
        cluster.server_mut("west").restart().unwrap();
        if setting == "off" {
            cluster.west().sql("update t set v = 'w'").await;
        }
    }
    let check = cluster.mmrepl_fails(&["check"]).await;
    assert_says(&check, &["track_commit_timestamp was off"]);
    cluster.start_daemons();
    shown(&cluster, "west", "public.t: track_commit_timestamp was off").await;
    soon(&cluster, "select coalesce(min(v), '') from t", "w").await;
    cluster.mmrepl_ok(&["init"]).await;
    all_well(&cluster).await;
    cluster.mmrepl_ok(&["check"]).await;
}
on_usual_majors!(commit_times_that_were_not_kept_are_told, super::times_lost);
