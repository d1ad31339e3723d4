//! Policies that hide rows from us are an error that is shown, never rows that stay behind.

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, pg};

const SCHEMA: &str = "
    create table t (id int primary key, v text);
    create table counted (id int primary key, v text);
    create table parted (id int primary key, v text) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (100);";
const RULES: &str = "
[[conflict.table]]
name = \"public.counted\"
strategy = \"hybrid_clock\"
";

/// Commands and daemons run as an ordinary role that owns the tables.
pub(super) async fn as_owner(cluster: &mut Cluster, tables: &[&str]) -> String {
    let role = format!("r_{}", cluster.name);
    let owner = |table: &&str| format!("alter table {table} owner to {role};");
    let owners: String = tables.iter().map(owner).collect();
    let create = format!("create role {role} login; {owners}");
    cluster.sql_everywhere(&create).await;
    cluster.log_in_as(&role);
    for _ in 0..4 {
        let output = cluster.mmrepl(&["check", "--json"]).await;
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems = found["problems"].as_array().unwrap().iter();
        for problem in problems.filter(|problem| problem["fix"].is_string()) {
            let node = cluster.node(problem["node"].as_str().unwrap());
            node.sql(problem["fix"].as_str().unwrap()).await;
        }
    }
    role
}

async fn shown(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let mut cluster = Cluster::start(options).await;
    cluster.sql_everywhere(SCHEMA).await;
    let role = as_owner(&mut cluster, &["t", "parted", "parted_1", "counted"]).await;
    cluster.init().await;
    cluster.start_daemons();
    let fill = "insert into t select i, 'a' from generate_series(1, 200) i;
        insert into counted values (1, 'a'); insert into parted values (1, 'a')";
    cluster.east().sql(fill).await;
    cluster.wait_equal().await;
    cluster.allow_error("row-level security");
    cluster.allow_error("row level security");
    let writes = [
        ("delete from t where id <= 100", "t"),
        ("update t set v = 'b' where id = 150", "t"),
        (
            "insert into t select i, 'c' from generate_series(1000, 1200) i",
            "t",
        ),
        ("delete from counted", "counted"),
        ("delete from parted", "parted"),
    ];
    for (write, table) in writes {
        let forced =
            format!("alter table {table} enable row level security, force row level security");
        cluster.west().sql(&forced).await;
        cluster.east().sql(write).await;
        let said = cluster
            .wait_reason(("east", "west"), &["blocked"], "bypassrls")
            .await;
        assert!(
            said.contains(&format!("alter role \"{role}\" bypassrls")),
            "{said}"
        );
        let said = cluster.mmrepl_fails(&["check"]).await;
        assert!(said.contains("bypassrls"), "{said}");
        cluster
            .west()
            .sql(&format!("alter role {role} bypassrls"))
            .await;
        cluster.wait_equal().await;
        let open = format!(
            "alter table {table} no force row level security, disable row level security;
             alter role {role} nobypassrls"
        );
        cluster.west().sql(&open).await;
    }
    truncated_partition(&cluster).await;
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    cluster
        .sql_everywhere(&format!("drop owned by {role} cascade; drop role {role}"))
        .await;
}
on_usual_majors!(a_policy_never_hides_rows_from_us_in_silence, super::shown);

/// An application may truncate what a policy hides from it: all rows go, on every node.
async fn truncated_partition(cluster: &Cluster) {
    let app = format!("app_{}", cluster.name);
    let setup = format!(
        "insert into parted values (2, 'b'); insert into counted values (2, 'b');
         create role {app}; grant truncate on counted, parted_1 to {app};
         alter table counted enable row level security;
         alter table parted_1 enable row level security;"
    );
    cluster.east().sql(&setup).await;
    cluster.wait_equal().await;
    cluster
        .east()
        .sql(&format!("set role {app}; truncate counted, parted_1"))
        .await;
    cluster.wait_equal().await;
    let forced =
        format!("alter table parted_1 force row level security; set role {app}; truncate parted_1");
    let refused = cluster.east().client().await.batch_execute(&forced).await;
    let refused = pg::explain(&refused.unwrap_err());
    assert!(refused.contains("row-level security"), "{refused}");
    for table in ["counted", "parted"] {
        let left = format!("select count(*) from {table}");
        assert_eq!(cluster.west().value(&left).await, "0", "{table}");
    }
    cluster
        .east()
        .sql(&format!("drop owned by {app}; drop role {app}"))
        .await;
}
