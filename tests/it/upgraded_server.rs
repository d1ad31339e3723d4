//! A node that `pg_upgrade` has moved: its database is what it was, its server is another one.

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

/// What `pg_upgrade` leaves behind, from the state before: the identifier in every row is that of
/// the old server, and slots and origins are gone.
async fn move_west(cluster: &Cluster) {
    cluster
        .west()
        .sql(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots
                 where database = current_database();
             select pg_replication_origin_drop(o.roname)
                 from pg_replication_origin o, mmrepl.node n where n.origin_id = o.roident;
             update mmrepl.node set system_id = '1' where here",
        )
        .await;
    cluster
        .east()
        .sql(
            "update mmrepl.apply_position set source_system_id = 1 where source = 'west';
             update mmrepl.node set system_id = '1' where not here",
        )
        .await;
}

/// `status`, `check` and `init` tell it from a restored server, with and without daemons.
async fn one_verdict(cluster: &Cluster) {
    // A daemon that has just begun says so first.
    let status = wait_until("the verdict in the status", LIMIT, async || {
        let status = String::from_utf8(cluster.mmrepl(&["status"]).await.stdout).unwrap();
        let told = status.matches("as pg_upgrade leaves it").count();
        ensure(told == 2, || status.clone()).map(|()| status)
    })
    .await;
    let check = cluster.mmrepl_fails(&["check"]).await;
    let init = cluster.mmrepl_fails(&["init"]).await;
    for said in [status, check, init] {
        for part in [
            "west is on a new server",
            "as pg_upgrade leaves it",
            "`mmrepl init --assume-identical`",
            "if it is an older copy, its own last writes are missing",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert!(!said.contains("--copy-from west"), "{said}");
    }
}

async fn moved(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text)";
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.allow_error("as pg_upgrade leaves it");
    cluster.wait_streaming().await;
    let insert = |node: &str, id: u32| format!("insert into t values ({id}, '{node}')");
    cluster
        .write_apart(&insert("east", 1), &insert("west", 2))
        .await;
    cluster.stop_daemons();
    move_west(&cluster).await;
    // The others go on meanwhile.
    cluster.east().sql("update t set v = 'meanwhile'").await;
    one_verdict(&cluster).await;
    cluster.start_daemons();
    for link in [("east", "west"), ("west", "east")] {
        cluster
            .wait_reason(link, &["stopped"], "as pg_upgrade leaves it")
            .await;
    }
    one_verdict(&cluster).await;
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["init", "--assume-identical"]).await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster
        .write_apart(&insert("east", 3), &insert("west", 4))
        .await;
    let rows = "select string_agg(id || v, ' ' order by id) from t";
    assert_eq!(
        cluster.west().value(rows).await,
        "1meanwhile 2meanwhile 3east 4west"
    );
    assert!(cluster.mmrepl_ok(&["init"]).await.contains("nothing to do"));
}
crate::on_usual_majors!(init_tells_an_upgraded_node, super::moved);
