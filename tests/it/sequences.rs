//! Sequences of two nodes: which give the same values, and what becomes of those that are mended.

use super::init::assert_says;
use crate::support::{Cluster, ClusterOptions};

/// Tables whose numbers are made in every way that there is. All have 500 rows on both nodes.
const SCHEMA: &str = r#"
create table by_serial (id serial primary key, v text);
create table by_restart (id bigint generated always as identity primary key, v text);
create sequence high minvalue 1000 start with 1000;
create table by_high (id bigint primary key default nextval('high'), v text);
create table fresh (id serial primary key, v text);
create table behind (id serial primary key, v text);
create table short (id smallserial primary key, v text);
create table blocks (id serial primary key, v text);
alter sequence blocks_id_seq increment by 50;
create sequence "by Trigger";
create table by_trigger (id bigint primary key, v text);
create function number_it() returns trigger language plpgsql as $$
    begin new.id := nextval('public."by Trigger"'); return new; end $$;
create trigger number_it before insert on by_trigger for each row execute function number_it();
create sequence by_function;
create function next_number() returns bigint language sql
    as $$ select nextval('public.by_function') $$;
create table by_call (id bigint primary key default public.next_number(), v text);
create sequence by_text;
create table by_name (id bigint primary key default nextval('public.by_text'::text), v text);
create table rooted (id bigserial, v text) partition by range (id);
create table rooted1 partition of rooted for values from (1) to (100000);
create unique index on rooted1 (id);
alter table rooted1 alter id set not null;
create table equal_phase (id serial primary key, v text);
alter sequence equal_phase_id_seq increment by 2;
create table down (id int primary key, v text);
create sequence down_seq increment by -1 owned by down.id;
alter table down alter id set default nextval('down_seq');
create table apart (id serial primary key, v text);
alter sequence apart_id_seq increment by 2;
create table unkeyed_number (id uuid primary key default gen_random_uuid(), n serial);
do $$ begin
    for number in 1..500 loop
        insert into by_serial values (number);
        insert into by_restart overriding system value values (number);
        insert into behind values (number);
    end loop;
end $$;
select setval('by_serial_id_seq', 501, false);
alter table by_restart alter id restart with 501;
select setval('equal_phase_id_seq', 700, false);
select setval('down_seq', -40);
select setval('short_id_seq', 9);
"#;

/// Tables that get rows on both nodes.
const FILLED: [&str; 14] = [
    "by_serial",
    "by_restart",
    "by_high",
    "fresh",
    "behind",
    "short",
    "blocks",
    "by_trigger",
    "by_call",
    "by_name",
    "rooted",
    "equal_phase",
    "down",
    "apart",
];

/// Every sequence that gives the same values, as `check` names it.
const NAMED: [&str; 13] = [
    "public.by_serial.id",
    "public.by_restart.id",
    "public.by_high.id",
    "public.fresh.id",
    "public.behind.id",
    "public.short.id",
    "public.blocks.id",
    "public.\"by Trigger\"",
    "public.by_function",
    "public.by_text",
    "public.rooted.id",
    "public.equal_phase.id",
    "public.down.id",
];

async fn sequence_warnings(cluster: &Cluster) -> Vec<(String, String)> {
    let found = cluster.mmrepl(&["check", "--json"]).await;
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let text =
        |problem: &serde_json::Value, field: &str| problem[field].as_str().unwrap().to_owned();
    let problems = found["problems"].as_array().unwrap().iter();
    let sequences = problems.filter(|p| text(p, "what").starts_with("sequences give"));
    sequences
        .map(|p| (text(p, "node"), text(p, "what")))
        .collect()
}

/// What each node's script says, run there.
async fn run_scripts(cluster: &Cluster) {
    let mut scripts = Vec::new();
    for node in &cluster.nodes {
        let script = cluster.mmrepl(&["check", "--script", node.name]).await;
        scripts.push(String::from_utf8(script.stdout).unwrap());
    }
    for (node, script) in cluster.nodes.iter().zip(&scripts) {
        node.sql(script).await;
    }
}

async fn mended_sequences_go_on(majors: &[u32]) {
    let mut cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster.sql_everywhere(SCHEMA).await;
    let (odd, even) = (
        "select setval('apart_id_seq', 501, false)",
        "select setval('apart_id_seq', 502, false)",
    );
    cluster.east().sql(odd).await;
    cluster.west().sql(even).await;
    let warnings = sequence_warnings(&cluster).await;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (_, what) in &warnings {
        assert_says(what, &NAMED);
        assert_eq!(what.matches("public.").count(), NAMED.len(), "{what}");
    }
    let shown = cluster.mmrepl(&["check"]).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    let cut = ["and 8 more", "mmrepl check --script west"];
    assert_says(&shown, &cut);

    run_scripts(&cluster).await;
    assert_eq!(sequence_warnings(&cluster).await, []);
    let apart = "select last_value || ' ' || is_called from apart_id_seq";
    assert_eq!(cluster.east().value(apart).await, "501 false");

    cluster.init().await;
    cluster.start_daemons();
    for node in &cluster.nodes {
        let insert = |table: &&str| {
            let rows = format!("select '{}' from generate_series(1, 20)", node.name);
            format!("insert into {table} (v) {rows}")
        };
        let inserts: Vec<String> = FILLED.iter().map(insert).collect();
        node.sql(&inserts.join(";")).await;
    }
    cluster.wait_equal().await;
    let count = |table: &&str| format!("(select count(*) from {table} where v is not null)");
    let counts: Vec<String> = FILLED.iter().map(count).collect();
    let counts = format!(
        "select array_agg(distinct c) from unnest(array[{}]) c",
        counts.join(",")
    );
    assert_eq!(cluster.east().value(&counts).await, "{40}");
    let lowest = "select min(id) > 500 from by_serial where v is not null";
    assert_eq!(cluster.west().value(lowest).await, "t");
    assert_eq!(sequence_warnings(&cluster).await, []);
}

crate::on_usual_majors!(mended_sequences_go_on_apart, super::mended_sequences_go_on);
