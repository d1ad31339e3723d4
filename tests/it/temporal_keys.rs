//! Keys of PostgreSQL 18 and newer: periods without overlaps, and NOT NULL that is not valid.

use crate::on_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

/// `stay` has a primary key, `plan` a unique constraint on columns that take no NULL.
const SCHEMA: &str = "
    create extension btree_gist;
    create table stay (
        room int, during daterange, guest text, primary key (room, during without overlaps));
    create table plan (
        room int4range not null, during nummultirange not null, guest text,
        unique (room, during without overlaps))";

/// Rows of `stay`, and how many rows are kept aside.
async fn until_all_have(cluster: &Cluster, wanted: &str) {
    let query = "select coalesce(string_agg(
            format('%s %s %s', room, lower(during) - date '2026-01-01', guest),
            ', ' order by room, during), '') || ' aside ' || (select count(*) from mmrepl.shadow)
        from stay";
    wait_until(wanted, LIMIT, async || {
        for node in &cluster.nodes {
            let found = node.value(query).await;
            ensure(found == wanted, || format!("{} has {found}", node.name))?;
        }
        Ok::<(), String>(())
    })
    .await;
}

fn stay(room: u32, from: &str, to: &str, guest: &str) -> String {
    format!("insert into stay values ({room}, '[2026-{from},2026-{to})', '{guest}');")
}

async fn periods(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    let check = cluster.mmrepl_ok(&["check"]).await;
    assert!(!check.contains("no key"), "{check}");
    cluster.wait_streaming().await;
    // Equal values and periods are one row: the newest has it, none is kept aside.
    let one = |guest| stay(1, "01-01", "01-11", guest);
    cluster.write_apart(&one("east"), &one("west")).await;
    until_all_have(&cluster, "1 0 west aside 0").await;
    let change = |guest| format!("update stay set guest = '{guest}' where room = 1");
    cluster
        .write_apart(&change("first"), &change("second"))
        .await;
    until_all_have(&cluster, "1 0 second aside 0").await;
    // A deleted row does not come back by an older update.
    cluster
        .write_apart(&change("late"), "delete from stay")
        .await;
    until_all_have(&cluster, " aside 0").await;
    // Periods that overlap: the newest is there, the older one returns when it has gone.
    let early = stay(2, "01-01", "01-11", "early");
    let late = stay(2, "01-06", "01-16", "late");
    cluster.write_apart(&early, &late).await;
    until_all_have(&cluster, "2 5 late aside 1").await;
    cluster
        .write_on(cluster.east(), "delete from stay where guest = 'late'")
        .await;
    until_all_have(&cluster, "2 0 early aside 0").await;
    // A period that is cut, in one transaction and in several.
    let cut = "begin;
        update stay set during = '[2026-01-01,2026-01-04)' where room = 2;
        insert into stay values (2, '[2026-01-04,2026-01-11)', 'more');
        commit;
        begin; delete from stay where guest = 'more'; commit;
        begin;
        insert into stay values (2, '[2026-01-03,2026-01-12)', 'nobody') on conflict do nothing;
        update stay set during = '[2026-01-01,2026-01-03)' where room = 2; commit;
        begin; insert into stay values (2, '[2026-01-03,2026-01-12)', 'last'); commit";
    cluster.write_on(cluster.west(), cut).await;
    until_all_have(&cluster, "2 0 early, 2 2 last aside 0").await;
    others(&cluster).await;
}
on_majors!(periods_on_18, periods, 18, 18);
on_majors!(periods_on_19, periods, 19, 19);

/// The unique constraint.
async fn others(cluster: &Cluster) {
    let add = |guest: &str| format!("insert into plan values ('[1,2)', '{{[1.0,5)}}', '{guest}')");
    cluster.write_apart(&add("east"), &add("west")).await;
    let rows = "select string_agg(guest, ' ') || (select count(*) from mmrepl.shadow) from plan";
    assert_eq!(cluster.east().value(rows).await, "west0");
    cluster
        .write_on(cluster.east(), "update plan set guest = 'both'")
        .await;
    cluster.write_on(cluster.west(), "delete from plan").await;
    assert_eq!(cluster.east().value("select count(*) from plan").await, "0");
}

/// Such a column holds NULLs, which no key does: rows are matched whole.
async fn not_valid(majors: &[u32]) {
    let schema = "
        create table n (a int, b text);
        insert into n values (null, 'one'), (null, 'two'), (1, 'three');
        alter table n add constraint n_a not null a not valid;
        create unique index on n (a)";
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    cluster
        .write_on(cluster.east(), "update n set b = 'three!' where a = 1")
        .await;
    cluster
        .write_on(cluster.west(), "delete from n where b = 'two'")
        .await;
    cluster
        .write_on(cluster.east(), "insert into n values (2, 'four')")
        .await;
    let rows = "select string_agg(format('%s %s', a, b), ', ' order by a nulls first) from n";
    assert_eq!(cluster.west().value(rows).await, " one, 1 three!, 2 four");
}
on_majors!(a_not_null_that_is_not_valid_makes_no_key, not_valid, 18, 19);
