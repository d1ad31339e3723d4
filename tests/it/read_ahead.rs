//! Tables that were read before they are needed: one that was altered since is read anew.

use mmrepl::catalog::load_tables::load_published;
use mmrepl::catalog::read_ahead::ReadAhead;
use mmrepl::ids::RelationId;
use mmrepl::relation::{Relation, RelationColumn, ReplicaIdentity};
use tokio_postgres::Client;

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, pg};

const SCHEMA: &str = "
    create type kind as enum ('a');
    create table t (id int primary key, v text, k kind);
    create table other (id int primary key, v text, k kind);";

/// What alters `t`, though the stream describes it as it did.
const ALTERED: [&str; 8] = [
    "drop table t; create table t (id int primary key, v text, k kind)",
    "alter table t rename to gone; create table t (id int primary key, v text, k kind)",
    "create unique index on t (v)",
    "drop index t_v_idx",
    "alter table t alter v set not null",
    "alter table t add made text generated always as (v || 'x') stored",
    "create type other_kind as enum ('a'); alter table t alter k type other_kind using null",
    "alter table t replica identity full",
];

/// What leaves `t` as it is.
const LEFT: [&str; 2] = ["insert into t values (1, 'v', null); analyze t", "vacuum t"];

fn relation(name: &str) -> Relation {
    let column = |(name, type_oid): (&str, u32)| RelationColumn {
        name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        is_key: name == "id",
    };
    Relation {
        id: RelationId(1),
        schema: "public".to_owned(),
        name: name.to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: [("id", 23), ("v", 25), ("k", 99_999)].map(column).to_vec(),
    }
}

/// The names of the tables that may be used though `sql` was run since they were read.
async fn taken_after(client: &Client, sql: &str) -> String {
    let read = load_published(client).await.unwrap();
    let mut ahead = ReadAhead::start(std::future::ready(Some(read)));
    pg::execute(client, sql).await;
    let (t, other) = (relation("t"), relation("other"));
    let taken = ahead.take(client, &[&t, &other]).await;
    let mut names: Vec<String> = taken.into_iter().map(|table| table.name).collect();
    names.sort();
    names.join(" ")
}

async fn altered(majors: &[u32]) {
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster.sql_everywhere(SCHEMA).await;
    cluster.init().await;
    let client = cluster.east().client().await;
    for sql in LEFT {
        assert_eq!(taken_after(&client, sql).await, "other t", "{sql}");
    }
    for sql in ALTERED {
        assert_eq!(taken_after(&client, sql).await, "other", "{sql}");
        let publish = "do $$ begin alter publication mmrepl add table t;
            exception when duplicate_object then null; end $$";
        pg::execute(&client, publish).await;
    }
}

on_usual_majors!(an_altered_table_is_read_anew, super::altered);
