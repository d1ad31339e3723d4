//! Long runs of inserts are copied, and what COPY cannot do is done otherwise.

use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions};

const TABLE: &str = "create table t (id int generated always as identity primary key, v text,
    doubled int generated always as (length(v) * 2) stored, big bytea, tags text[],
    d numeric(9, 2))";

/// West remembers with what statements its rows were inserted; in sequences, which are no rows.
const WITNESS: &str = "create schema witness;
    create sequence witness.copy; create sequence witness.insert;
    create function witness.note() returns trigger language plpgsql as $$ begin
        perform nextval(format('witness.%I', split_part(current_query(), ' ', 1))::regclass);
        return null;
    end $$;
    create trigger note after insert on t for each statement execute function witness.note();
    alter table t enable always trigger note";

async fn with_witness(majors: &[u32]) -> Cluster {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), TABLE).await;
    cluster.west().sql(WITNESS).await;
    cluster.wait_streaming().await;
    cluster
}

async fn statements(cluster: &Cluster) -> String {
    let list = "select string_agg(sequencename::text, ',' order by sequencename)
                from pg_sequences where schemaname = 'witness' and last_value is not null";
    cluster.west().value(list).await
}

async fn every_value_is_copied(majors: &[u32]) {
    let cluster = with_witness(majors).await;
    let insert = r"insert into t (v, big, tags, d)
        select (array[null, '', '\N', '\.', E'\t', E'a\nb\r', 'back\slash\\',
                         E'\x01\x0b\x08', '日本'])
                   [1 + g % 9] || repeat('x', g % 3),
               decode(lpad(to_hex(g), 8, '0'), 'hex'), array[g::text, null, '\', '{'], g / 8.0
        from generate_series(1, 500) g";
    cluster.east().sql(insert).await;
    cluster.wait_equal().await;
    assert_eq!(statements(&cluster).await, "copy");
    assert_eq!(cluster.west().value("select count(*) from t").await, "500");
}
on_every_major!(every_kind_of_value_is_copied, super::every_value_is_copied);

/// What was written on both sides while the daemons were down: a copy fails on it.
async fn a_row_is_there(majors: &[u32]) {
    let mut cluster = with_witness(majors).await;
    cluster.stop_daemons();
    let many = "insert into t (v) select 'east' from generate_series(1, 300)";
    cluster.east().sql(many).await;
    let one = "insert into t (id, v) overriding system value values (30, 'west')";
    cluster.west().sql(one).await;
    cluster.start_daemons();
    cluster.wait_equal().await;
    let newest = "select v from t where id = 30";
    assert_eq!(cluster.east().value(newest).await, "west");
    assert_eq!(cluster.west().value("select count(*) from t").await, "300");
    assert_eq!(statements(&cluster).await, "insert");
    let conflicts = "select count(*) from mmrepl.conflict";
    assert_eq!(cluster.west().value(conflicts).await, "1");
    // Once is enough: the next rows are not copied either, for a while.
    cluster.east().sql(many).await;
    cluster.wait_equal().await;
    assert_eq!(statements(&cluster).await, "insert");
}
on_every_major!(a_row_that_is_there_fails_no_group, super::a_row_is_there);

/// A large transaction that has begun to be applied meets the row in one of its later parts.
async fn a_row_is_in_the_way_of_a_large_transaction(majors: &[u32]) {
    let mut cluster = with_witness(majors).await;
    cluster.stop_daemons();
    let many = "insert into t (v) select 'east' from generate_series(1, 10000)";
    cluster.east().sql(many).await;
    let one = "insert into t (id, v) overriding system value values (7777, 'west')";
    cluster.west().sql(one).await;
    cluster.start_daemons();
    cluster.wait_equal().await;
    let newest = "select v from t where id = 7777";
    assert_eq!(cluster.east().value(newest).await, "west");
    assert_eq!(
        cluster.west().value("select count(*) from t").await,
        "10000"
    );
}
on_every_major!(
    a_row_that_is_there_restarts_a_large_transaction,
    super::a_row_is_in_the_way_of_a_large_transaction
);
