//! Long runs of inserts are copied, and what COPY cannot do is done otherwise.

use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions};

const TABLE: &str = "create table t (id int generated always as identity primary key, v text,
    doubled int generated always as (length(v) * 2) stored, big bytea, tags text[],
    d numeric(9, 2))";

/// West remembers with what statements its rows were inserted; in sequences, which are no rows.
fn witness(table: &str) -> String {
    format!(
        "create schema witness;
         create sequence witness.copy; create sequence witness.binary;
         create sequence witness.insert;
         create function witness.note() returns trigger language plpgsql as $$ declare
             said text := case when current_query() like '%(format binary)' then 'binary'
                 else split_part(current_query(), ' ', 1) end;
         begin perform nextval(format('witness.%I', said)::regclass); return null; end $$;
         create trigger note after insert on {table}
             for each statement execute function witness.note();
         alter table {table} enable always trigger note"
    )
}

async fn with_witness(majors: &[u32]) -> Cluster {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), TABLE).await;
    cluster.west().sql(&witness("t")).await;
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

/// Every type that goes in binary form …
const PLAIN: &str = "create table plain (id int primary key, b boolean, i2 smallint, i8 bigint,
    f4 real, f8 double precision, n numeric, n2 numeric(20, 3), c char(9), vc varchar(9), y bytea,
    j json, jb jsonb, d date, ts timestamp, tz timestamptz, tz3 timestamptz(3), u uuid)";
/// … with values at its edges …
const EDGES: &str = r#"insert into plain select g, (array[true, false, null])[1 + g % 3],
    (array[-32768, 32767, 0])[1 + g % 3],
    (array[-9223372036854775808, 9223372036854775807])[1 + g % 2],
    (array['NaN', '-Infinity', '1e-45', '3.4028235e38', '-0', '0.1'])[1 + g % 6]::real,
    (array['NaN', 'Infinity', '5e-324', '1.7976931348623157e308', '-0', '0.1'])[1 + g % 6]::float8,
    case when g % 2 = 0 then (g - 300) * power(10::numeric, g % 61 - 30) / 7
        else round((random() * 1e9)::numeric, g % 9) * (g % 3 - 1) end,
    (g - 300) * 1234567.891, (array['', 'a ', 'bc', null])[1 + g % 4], repeat('ü', g % 9),
    decode(md5(g::text), 'hex'), ('{"a":  [' || g || ']}')::json, ('{"a":  [' || g || ']}')::jsonb,
    date '0001-01-01' + g * 9973, timestamp '0001-01-01' + g * interval '499 days 1:02:03.000457',
    timestamptz '1600-02-29 00:00:00+00' + g * interval '1 year 1 day 1:02:03.987654',
    timestamptz '1999-12-31 23:59:59.9994+00' + g * interval '0.0001 s', md5(g::text)::uuid
    from generate_series(1, 600) g"#;
/// … and with values that only the server can read: these rows go as text.
const TOLD: &str = "insert into plain (id, n, d, ts, tz) select g,
    (array['NaN', '1', '2'])[1 + g % 3]::numeric,
    (array['infinity', '2000-01-01', '-infinity', '0044-03-15 BC'])[1 + g % 4]::date,
    (array['infinity', '2000-01-01', '-infinity', '0044-03-15 BC'])[1 + g % 4]::timestamp,
    (array['infinity', '2000-01-01', '-infinity', '0044-03-15 BC'])[1 + g % 4]::timestamptz
    from generate_series(1001, 1200) g";

async fn plain_values_are_copied(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), PLAIN).await;
    cluster.west().sql(&witness("plain")).await;
    cluster.wait_streaming().await;
    cluster.east().sql(EDGES).await;
    cluster.wait_equal().await;
    assert_eq!(statements(&cluster).await, "binary");
    cluster.east().sql(TOLD).await;
    cluster.wait_equal().await;
    assert_eq!(statements(&cluster).await, "binary,copy");
    assert_eq!(
        cluster.west().value("select count(*) from plain").await,
        "800"
    );
}
on_every_major!(
    plain_values_are_copied_in_binary_form,
    super::plain_values_are_copied
);

/// Eight bytes are a number or a time: nothing in them tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changed_its_type_is_not_misread() {
    let table = "create table t (id int primary key, v bigint)";
    let cluster = Cluster::running_with(ClusterOptions::pair(), table).await;
    let many =
        "insert into t select (select count(*) from t) + g, g from generate_series(1, 300) g";
    cluster.east().sql(many).await;
    cluster.wait_equal().await;
    let sql = "alter table t alter column v type double precision";
    cluster.west().sql(sql).await;
    cluster.east().sql(many).await;
    cluster.settle().await;
    let sums = "select count(*) || ' ' || sum(v) from t";
    assert_eq!(cluster.west().value(sums).await, "600 90300");
    cluster.east().sql(sql).await;
    cluster.east().sql(many).await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value(sums).await, "900 135450");
}

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
    let many = "insert into t (v) select 'east' from generate_series(1, 30000)";
    cluster.east().sql(many).await;
    let one = "insert into t (id, v) overriding system value values (27777, 'west')";
    cluster.west().sql(one).await;
    cluster.start_daemons();
    cluster.wait_equal().await;
    let newest = "select v from t where id = 27777";
    assert_eq!(cluster.east().value(newest).await, "west");
    assert_eq!(
        cluster.west().value("select count(*) from t").await,
        "30000"
    );
    // Hundreds of rows each, although what was written before had to be given up.
    let inserts = "select last_value < 1000 from witness.insert";
    assert_eq!(cluster.west().value(inserts).await, "t");
}
on_every_major!(
    a_row_that_is_there_restarts_a_large_transaction,
    super::a_row_is_in_the_way_of_a_large_transaction
);
