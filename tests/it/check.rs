//! `mmrepl check` on real servers: what differs and what is not allowed.

use super::init::{PLAIN, assert_says, pair};

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_role_needs_exactly_the_named_grants() {
    let mut cluster = pair(PLAIN).await;
    if cluster
        .east()
        .value("select current_setting('server_version_num')::int >= 150000")
        .await
        == "f"
    {
        return;
    }
    let role = format!("r_{}", cluster.name);
    let roles = format!("create role {role} login; create role {role}_owner");
    cluster.sql_everywhere(&roles).await;
    let owner = format!(
        "alter table t owner to {role}_owner; alter table t enable row level security; alter table t force row level security"
    );
    cluster.sql_everywhere(&owner).await;
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let user = config.replace("user=postgres", &format!("user={role}"));
    assert_ne!(user, config, "the harness names its user");
    std::fs::write(cluster.config(), user).unwrap();
    for _ in 0..4 {
        let output = cluster.mmrepl(&["check", "--json"]).await;
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors: Vec<&serde_json::Value> = found["problems"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["severity"] == "error")
            .collect();
        if errors.is_empty() {
            break;
        }
        for error in errors {
            let fix = error["fix"]
                .as_str()
                .unwrap_or_else(|| panic!("no fix: {error}"));
            cluster.node(error["node"].as_str().unwrap()).sql(fix).await;
        }
    }
    let grant = format!("grant set on parameter deadlock_timeout to \"{role}\"");
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert_says(&said, &[&grant]);
    cluster.sql_everywhere(&grant).await;
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert!(!said.contains("deadlock_timeout"), "{said}");
    cluster.mmrepl_ok(&["init"]).await;
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    cluster
        .sql_everywhere(&format!("drop owned by {role}, {role}_owner cascade"))
        .await;
    let roles = format!("drop role {role}; drop role {role}_owner");
    cluster.sql_everywhere(&roles).await;
    cluster.rewrite_config("");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_differs_between_the_nodes() {
    let cluster = pair("create table a (id int primary key)").await;
    let east = "create table b (id int primary key, n int, g int, x text);
        create table c (id int primary key, k int not null unique)";
    let west = "create table b (id int primary key, n bigint,
            g int generated always as (1) stored, must int not null);
        create table c (id int, k int not null unique);
        create table d (id serial primary key, u int unique)";
    cluster.east().sql(east).await;
    cluster.west().sql(west).await;
    let said = cluster.mmrepl_fails(&["check"]).await;
    assert_says(
        &said,
        &[
            "west: column x of public.b is on east but not here",
            "alter table public.b add column \"x\" text",
            "west: column n of public.b is bigint here and integer on east",
            "west: column g of public.b is generated here but written on east",
            "west: column must of public.b is NOT NULL without a default",
            "west: public.c is looked up by (k) here and by (id) on east",
            "east: table public.d is on west but not here",
            "d_u_key on public.d",
        ],
    );
    assert_eq!(cluster.mmrepl(&["check"]).await.status.code(), Some(1));
}
