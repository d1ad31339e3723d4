//! A daemon that reaches its own server in another way than its peers do.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, Node, pg, pool};

const SCHEMA: &str = "create table t (id int primary key)";

/// By the Unix-domain socket.
fn socket_dsn(node: &Node) -> String {
    let dir = node.server().socket_dir().expect("a short path").display();
    let (port, dbname) = (node.server().port(), &node.dbname);
    format!("host={dir} port={port} user=postgres dbname={dbname}")
}

async fn by_socket(majors: &[u32]) {
    let mut cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    for name in ["east", "west"] {
        let dsn = socket_dsn(cluster.node(name));
        cluster.set_local_dsn(name, &dsn);
    }
    cluster.sql_everywhere(SCHEMA).await;
    cluster.init().await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    for (node, from, to) in [("east", "east", "west"), ("west", "west", "east")] {
        let ours = |what: &str| {
            format!(
                "select coalesce(string_agg(distinct
                     coalesce(host(client_addr), 'socket'), ','), '')
                 from pg_stat_activity where application_name like 'mmrepl {} {what}'",
                cluster.name
            )
        };
        let on = cluster.node(node);
        assert_eq!(
            on.value(&ours(&format!("{from}->{to} stream"))).await,
            "socket"
        );
        assert_eq!(
            on.value(&ours(&format!("{from}->{to} control"))).await,
            "socket"
        );
        assert_eq!(on.value(&ours(&format!("{node} returns"))).await, "socket");
        assert_eq!(
            on.value(&ours(&format!("{to}->{from} apply"))).await,
            "127.0.0.1"
        );
    }
    cluster.east().sql("insert into t values (1)").await;
    cluster.west().sql("insert into t values (2)").await;
    cluster.wait_equal().await;
    assert_eq!(cluster.east().value("select count(*) from t").await, "2");
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert!(!said.contains("local_dsn"), "{said}");
}
on_usual_majors!(a_daemon_may_use_the_socket, super::by_socket);

/// A database of the same name on another server: `check` says so where that is no other node's,
/// and the daemon in any case.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_to_another_server_is_refused() {
    let mut cluster = Cluster::start(ClusterOptions::pair()).await;
    cluster.sql_everywhere(SCHEMA).await;
    cluster.init().await;
    let to_west = socket_dsn(cluster.west());
    cluster.set_local_dsn("east", &to_west);
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert!(
        !said.contains("local_dsn"),
        "as on the host of west: {said}"
    );
    cluster.start_daemons();
    cluster.allow_error("lead to two servers");
    let blocked = ["blocked"];
    let reason = cluster.wait_reason(("east", "west"), &blocked, "lead to two servers");
    let reason = reason.await;
    assert!(reason.contains("system identifiers"), "{reason}");
    let start = || pool::shared(pool::usual_major(), 2);
    let third = tokio::task::spawn_blocking(start).await.unwrap();
    let admin = pg::connect(&third.dsn("postgres")).await;
    let name = cluster.name.clone();
    pg::execute(&admin, &format!("create database {name}")).await;
    cluster.set_local_dsn("east", &third.dsn(&name));
    let said = cluster.mmrepl_fails(&["check"]).await;
    assert!(
        said.contains("lead to two servers: system identifiers"),
        "{said}"
    );
    cluster.stop_daemons();
    pg::execute(&admin, &format!("drop database {name} with (force)")).await;
}
