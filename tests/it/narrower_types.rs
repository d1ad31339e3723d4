//! Columns whose type on one node cannot hold what the other's holds, and would not say so.

use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

/// Type on east, narrower type on west, a value that would be changed.
const TYPES: [(&str, &str, &str); 15] = [
    ("numeric", "numeric(10,1)", "1.25"),
    ("numeric(10,3)", "numeric(10,1)", "1.25"),
    ("double precision", "real", "1.23456789"),
    (
        "timestamp(3) with time zone",
        "timestamp(0) with time zone",
        "'2026-01-01 10:00:00.7Z'",
    ),
    (
        "timestamp without time zone",
        "date",
        "'2026-01-01 10:00:00'",
    ),
    (
        "time without time zone",
        "time(0) without time zone",
        "'10:00:00.7'",
    ),
    ("interval", "interval day", "'1 day 10:00'"),
    ("interval", "interval(0)", "'1.7 seconds'"),
    ("text", "character(5)", "'ab '"),
    ("text", "character varying(2)", "'ab   '"),
    ("bit(3)", "bit(8)", "'101'"),
    ("numeric[]", "numeric(10,1)[]", "'{1.25}'"),
    ("json", "jsonb", "'{\"a\": 1, \"a\": 2}'"),
    ("bigint", "double precision", "9007199254740993"),
    ("numeric", "rounded_again", "1.25"),
];

async fn blocks(majors: &[u32]) {
    let mut cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    for (number, (wide, ..)) in TYPES.iter().enumerate() {
        let create = format!("create table n{number} (id int primary key, v {wide})");
        cluster.sql_everywhere(&create).await;
    }
    cluster
        .sql_everywhere(
            "create table fits (id int primary key, v text);
             create domain rounded as numeric(10,1);
             create domain rounded_again as rounded",
        )
        .await;
    cluster.init().await;
    for (number, (_, narrow, _)) in TYPES.iter().enumerate() {
        cluster
            .west()
            .sql(&format!(
                "alter table n{number} alter v type {narrow} using null"
            ))
            .await;
    }
    let shorter = "alter table fits alter v type varchar(3)";
    cluster.west().sql(shorter).await;
    cluster.allow_error("without a word");
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    // Short texts go on, as the type is the only thing that is short.
    east.sql("insert into fits values (1, 'abc')").await;
    wait_until("a short text", LIMIT, async || {
        let there = west.value("select count(*) from fits").await;
        ensure(there == "1", || there)
    })
    .await;
    for (number, (wide, narrow, value)) in TYPES.iter().enumerate() {
        let table = format!("n{number}");
        east.sql(&format!("insert into {table} values (1, {value})"))
            .await;
        let link = ("east", "west");
        let reason = cluster.wait_reason(link, &["blocked"], &table).await;
        for part in [*wide, *narrow, "\"v\""] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        assert_eq!(
            west.value(&format!("select count(*) from {table}")).await,
            "0"
        );
        // What the reason says mends it.
        let command = reason.split('`').nth(1).expect("a command");
        west.sql(command).await;
        let query = format!("select string_agg(v::text, ' ') from {table}");
        let wanted = east.value(&query).await;
        wait_until("the value", LIMIT, async || {
            let there = west.rows(&query).await[0][0].clone().unwrap_or_default();
            ensure(there == wanted, || format!("{there} and not {wanted}"))
        })
        .await;
    }
}
on_usual_majors!(are_never_written_to, super::blocks);
