//! A node that `pg_upgrade` has moved: its database is what it was, its server is another one.

use crate::support::{Cluster, ClusterOptions};

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

async fn moved(majors: &[u32]) {
    let schema = "create table t (id int primary key, v text)";
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    let insert = |node: &str, id: u32| format!("insert into t values ({id}, '{node}')");
    cluster
        .write_apart(&insert("east", 1), &insert("west", 2))
        .await;
    cluster.stop_daemons();
    move_west(&cluster).await;
    // The others go on meanwhile.
    cluster.east().sql("update t set v = 'meanwhile'").await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    for part in ["west", "pg_upgrade", "`mmrepl init --assume-identical`"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
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
