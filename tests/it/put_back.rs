//! Failovers, snapshots and DSNs that lead astray: what goes on by itself, and whose rows are
//! never advised to be copied.

use mmrepl::local::ServerOptions;

use super::lineage::{assert_says, one_verdict, pair, put_back, rows, slot_moves, snapshot, write};
use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, LIMIT, pg, pool, wait_until};

/// The files are started as a standby, which is promoted: it goes on on another timeline.
async fn promote(cluster: &mut Cluster, node: &str, kept: &std::path::Path, with_slots: bool) {
    std::fs::write(kept.join("standby.signal"), "").unwrap();
    put_back(cluster, node, kept, with_slots);
    cluster.node(node).sql("select pg_promote()").await;
    wait_until("the end of recovery", LIMIT, async || {
        let standby = cluster.node(node).value("select pg_is_in_recovery()").await;
        ensure(standby == "f", || "it is a standby".to_owned())
    })
    .await;
    let _ = std::fs::remove_file(kept.join("standby.signal"));
}

async fn timeline(cluster: &Cluster, node: &str) -> String {
    let sql = "select timeline_id from pg_control_checkpoint()";
    cluster.node(node).sql("checkpoint").await;
    cluster.node(node).value(sql).await
}

/// Nothing is wrong: not for `check`, nor for `init`, nor for the links.
async fn nothing_is_wrong(cluster: &mut Cluster) {
    cluster.mmrepl_ok(&["check"]).await;
    assert_says(&cluster.mmrepl_ok(&["init"]).await, &["nothing to do"]);
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster.mmrepl_ok(&["status"]).await;
}

on_usual_majors!(a_promoted_standby, super::promoted);

async fn promoted(majors: &[u32]) {
    let mut cluster = pair(majors).await;
    write(&cluster, "east", 0..20).await;
    cluster.wait_equal().await;

    // With everything, slots too: the links go on on the new timeline.
    cluster.stop_daemons();
    let kept = snapshot(&mut cluster, "east");
    promote(&mut cluster, "east", &kept, true).await;
    assert_eq!(timeline(&cluster, "east").await, "2");
    nothing_is_wrong(&mut cluster).await;
    write(&cluster, "east", 20..30).await;
    write(&cluster, "west", 30..40).await;
    cluster.wait_equal().await;

    // Without its slots: nobody has lost a commit, and both have the same.
    cluster.stop_daemons();
    let kept = snapshot(&mut cluster, "east");
    promote(&mut cluster, "east", &kept, false).await;
    let said = cluster.mmrepl_fails(&["check"]).await;
    assert_says(
        &said,
        &["its replication slot is gone", "have the same rows"],
    );
    assert!(!said.contains("lost commits"), "{said}");
    one_verdict(
        &cluster,
        ("east", "west"),
        "east and west have the same rows",
    )
    .await;
    cluster.mmrepl_ok(&["init", "--assume-identical"]).await;
    nothing_is_wrong(&mut cluster).await;
    rows(&cluster, "west", "40").await;

    // Behind: what it lost is on west alone.
    cluster.stop_daemons();
    let kept = snapshot(&mut cluster, "east");
    cluster.start_daemons();
    cluster.wait_streaming().await;
    write(&cluster, "east", 100..150).await;
    write(&cluster, "west", 200..201).await;
    cluster.wait_equal().await;
    slot_moves(&cluster, ("west", "east")).await;
    cluster.stop_daemons();
    promote(&mut cluster, "east", &kept, false).await;
    write(&cluster, "east", 1000..1200).await;
    let apart = "public.t 200 row(s) on east alone, 51 row(s) on west alone";
    one_verdict(&cluster, ("west", "east"), apart).await;
    cluster.start_daemons();
    one_verdict(&cluster, ("west", "east"), apart).await;
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    nothing_is_wrong(&mut cluster).await;
    cluster.wait_equal().await;
    rows(&cluster, "east", "91").await;
}

on_usual_majors!(a_dsn_that_leads_to_an_empty_server, super::led_astray);

/// Nothing is taken from what is empty, and once the DSN is right again nothing has happened.
async fn led_astray(majors: &[u32]) {
    let mut cluster = pair(majors).await;
    cluster.allow_error("was set up before and is not now");
    cluster.allow_error("is another server");
    cluster.allow_error("run `mmrepl init`");
    write(&cluster, "east", 0..20).await;
    cluster.wait_equal().await;
    cluster.stop_daemons();

    // Another database of the server, which is empty.
    let name = cluster.name.clone();
    let empty = format!("{name}_empty");
    cluster
        .east()
        .sql(&format!("create database {empty}"))
        .await;
    cluster.nodes[0].dbname.clone_from(&empty);
    cluster.rewrite_config("");
    astray(&mut cluster).await;
    cluster.nodes[0].dbname.clone_from(&name);
    cluster.rewrite_config("");
    nothing_is_wrong(&mut cluster).await;
    cluster.stop_daemons();

    // Another server, which is empty.
    let major = majors[0];
    let start = move || pool::start(major, &ServerOptions::default());
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let admin = pg::connect(&server.dsn("postgres")).await;
    pg::execute(&admin, &format!("create database {name}")).await;
    let right = cluster.exchange_server("east", server);
    astray(&mut cluster).await;
    let wrong = cluster.exchange_server("east", right);
    nothing_is_wrong(&mut cluster).await;
    drop(wrong);
    write(&cluster, "east", 20..30).await;
    write(&cluster, "west", 30..40).await;
    cluster.wait_equal().await;
}

/// No command says to take the rows of what is empty, and each says what is wrong.
async fn astray(cluster: &mut Cluster) {
    cluster
        .east()
        .sql("create table t (id int primary key, v text)")
        .await;
    for daemons in [false, true] {
        if daemons {
            cluster.start_daemons();
        }
        let check = cluster.mmrepl_fails(&["check"]).await;
        let init = cluster.mmrepl_fails(&["init"]).await;
        for said in [&check, &init] {
            assert_says(said, &["correct the dsn of east"]);
            assert!(!said.contains("--copy-from east"), "{said}");
        }
        assert_says(
            &check,
            &["public.t 0 row(s) on east alone, 20 row(s) on west alone"],
        );
        wait_until("the verdict in the status", LIMIT, async || {
            let status = String::from_utf8(cluster.mmrepl(&["status"]).await.stdout).unwrap();
            assert!(!status.contains("--copy-from east"), "{status}");
            let right = status.matches("correct the dsn of east").count();
            ensure(right == 2, || status.clone())
        })
        .await;
    }
    cluster.stop_daemons();
    rows(cluster, "west", "20").await;
}

on_usual_majors!(snapshots_and_a_long_rest, super::snapshots);

async fn snapshots(majors: &[u32]) {
    let mut cluster = pair(majors).await;
    write(&cluster, "east", 0..20).await;
    cluster.wait_equal().await;
    cluster.stop_daemons();
    let kept = snapshot(&mut cluster, "west");
    cluster.start_daemons();
    cluster.wait_streaming().await;
    write(&cluster, "east", 100..120).await;
    cluster.wait_equal().await;
    slot_moves(&cluster, ("east", "west")).await;

    // The target's alone: what it had applied cannot be sent again.
    cluster.stop_daemons();
    put_back(&mut cluster, "west", &kept, true);
    let apart = "public.t 20 row(s) on east alone, 0 row(s) on west alone";
    one_verdict(&cluster, ("east", "west"), apart).await;
    cluster.start_daemons();
    one_verdict(&cluster, ("east", "west"), apart).await;
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    nothing_is_wrong(&mut cluster).await;
    rows(&cluster, "west", "40").await;

    // Both at one moment, something under way: the links go on from there, as the servers agree on
    // all that is left, however much is written before anybody looks. What was on its way arrives.
    cluster.stop_daemons();
    write(&cluster, "east", 200..210).await;
    let kept = [
        snapshot(&mut cluster, "east"),
        snapshot(&mut cluster, "west"),
    ];
    cluster.start_daemons();
    cluster.wait_streaming().await;
    write(&cluster, "east", 300..400).await;
    write(&cluster, "west", 400..500).await;
    cluster.wait_equal().await;
    cluster.stop_daemons();
    put_back(&mut cluster, "east", &kept[0], true);
    put_back(&mut cluster, "west", &kept[1], true);
    write(&cluster, "east", 500..700).await;
    nothing_is_wrong(&mut cluster).await;
    write(&cluster, "west", 700..710).await;
    rows(&cluster, "west", "260").await;
    rows(&cluster, "east", "260").await;
    cluster.wait_equal().await;

    // A long rest: no commit time is known any more.
    cluster.stop_daemons();
    for node in ["east", "west"] {
        rest(&mut cluster, node).await;
    }
    nothing_is_wrong(&mut cluster).await;
    write(&cluster, "east", 3000..3010).await;
    write(&cluster, "west", 3010..3020).await;
    cluster.wait_equal().await;
}

/// What months do to a server where nobody writes to the database of the cluster: transactions of
/// others, everything frozen, commit times gone, WAL recycled, restarts.
async fn rest(cluster: &mut Cluster, node: &str) {
    let other = cluster.node(node).server().dsn("postgres");
    let client = pg::connect(&other).await;
    let busy = "create table busy (id int);
        alter database template0 with allow_connections true";
    pg::execute(&client, busy).await;
    let burn = "do $$ begin for i in 1..3000 loop insert into busy values (i); commit;
        end loop; end $$";
    pg::execute(&client, burn).await;
    let mut databases = vec!["postgres".to_owned(), "template0".to_owned()];
    databases.extend(["template1".to_owned(), cluster.name.clone()]);
    for database in databases {
        let dsn = cluster.node(node).server().dsn(&database);
        pg::execute(&pg::connect(&dsn).await, "vacuum freeze").await;
    }
    pg::execute(&client, "checkpoint").await;
    for setting in [
        "set track_commit_timestamp = off",
        "reset track_commit_timestamp",
    ] {
        cluster
            .node(node)
            .sql(&format!("alter system {setting}"))
            .await;
        cluster.server_mut(node).restart().unwrap();
    }
}
