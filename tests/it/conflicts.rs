//! What is recorded as a conflict, what is not, and bringing losing values back.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, Node, pg, wait_until};
use crate::{on_every_major, on_majors};

const SCHEMA: &str = "
    create table t (id int primary key, v text, big text, n numeric);
    alter table t alter big set storage external;
    create table pair (a int, b text, v text, primary key (a, b));";

const COUNT: &str = "select count(*) from mmrepl.conflict";
const LINKS: [(&str, &str); 2] = [("east", "west"), ("west", "east")];

/// Both links stand still.
async fn pause(cluster: &Cluster) {
    for (from, to) in LINKS {
        cluster
            .mmrepl_ok(&["pause", &format!("{from}->{to}")])
            .await;
        cluster.wait_state(from, to, &["paused"]).await;
    }
}

/// Both links run, and the nodes become equal.
async fn resume(cluster: &Cluster) {
    for (from, to) in LINKS {
        cluster
            .mmrepl_ok(&["resume", &format!("{from}->{to}")])
            .await;
    }
    cluster.wait_equal().await;
}

/// Writes of both nodes, east's first, neither knowing of the other's.
async fn concurrently(cluster: &Cluster, east: &str, west: &str) {
    pause(cluster).await;
    cluster.east().sql(east).await;
    cluster.west().sql(west).await;
    resume(cluster).await;
}

async fn counts(cluster: &Cluster) -> [String; 2] {
    [
        cluster.east().value(COUNT).await,
        cluster.west().value(COUNT).await,
    ]
}

/// `kind outcome` of a node's records, in order.
async fn records(node: &Node) -> Vec<String> {
    let sql = "select kind || ' ' || outcome from mmrepl.conflict order by id";
    let rows = node.rows(sql).await;
    rows.into_iter().flatten().flatten().collect()
}

async fn forget(cluster: &Cluster) {
    cluster
        .sql_everywhere("delete from mmrepl.conflict; delete from mmrepl.conflict_left_out")
        .await;
}

async fn total(cluster: &Cluster, (from, to): (&str, &str)) -> u64 {
    let link = cluster.link_status(from, to).await.unwrap();
    link["totals"]["conflicts"].as_u64().unwrap()
}

async fn until_seen(client: &tokio_postgres::Client, wanted: &str) {
    let started = Instant::now();
    while pg::value(client, "select v from t where id = 1").await != wanted {
        assert!(started.elapsed() < LIMIT, "{wanted} did not arrive");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One row edited by both nodes in turn, each after it has seen the other's edit.
async fn back_and_forth(majors: &[u32]) {
    let rounds = std::env::var("MMREPL_CONFLICT_ROUNDS").map_or(200, |n| n.parse().unwrap());
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    let mut cluster = cluster;
    cluster.sql_everywhere(SCHEMA).await;
    // There before the links are: both know it.
    cluster
        .sql_everywhere("insert into t values (1, 'first'), (2, 'quiet')")
        .await;
    cluster.init().await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east().client().await, cluster.west().client().await);
    for round in 0..rounds {
        if round == rounds / 2 {
            let status = cluster.take_daemon("east").terminate();
            assert!(status.success());
            cluster.start_daemon("east");
        }
        for (name, here, there) in [("east", &east, &west), ("west", &west, &east)] {
            let value = format!("{name} {round}");
            pg::execute(here, &format!("update t set v = '{value}' where id = 1")).await;
            until_seen(there, &value).await;
        }
    }
    pg::execute(&west, "update t set v = 'loud' where id = 2").await;
    pg::execute(&east, "delete from t where id = 1").await;
    cluster.wait_equal().await;
    pg::execute(&west, "insert into t values (1, 'again')").await;
    cluster.wait_equal().await;
    assert_eq!(counts(&cluster).await, ["0", "0"]);
    assert_eq!(total(&cluster, ("west", "east")).await, 0);
}
on_every_major!(back_and_forth_edits_are_no_conflict, super::back_and_forth);

/// Every row edited on both nodes at once, by one large and many small transactions.
async fn all_are_recorded(majors: &[u32]) {
    let rows: u64 = std::env::var("MMREPL_CONFLICT_EDITS").map_or(400, |n| n.parse().unwrap());
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    let fill = format!("insert into t select g, 'x', null, g from generate_series(1, {rows}) g");
    cluster.east().sql(&fill).await;
    cluster.wait_equal().await;
    pause(&cluster).await;
    cluster.east().sql("update t set v = 'east'").await;
    let west = cluster.west().client().await;
    for id in 1..=rows {
        pg::execute(&west, &format!("update t set v = 'west' where id = {id}")).await;
    }
    let started = Instant::now();
    resume(&cluster).await;
    let took = started.elapsed();
    println!("{rows} concurrent edits in {took:?}, both directions");
    let rows_text = rows.to_string();
    assert_eq!(counts(&cluster).await, [&rows_text[..], &rows_text[..]]);
    for link in LINKS {
        assert_eq!(total(&cluster, link).await, rows, "{link:?}");
    }
    let losers = "select count(*) from mmrepl.conflict where key_values[1] = incoming_values[1]
        and array['east', 'west'] <@ array[incoming_values[2], local_values[2]]
        and array['east', 'west'] <@ array[source, local_node] and local_time is not null";
    for node in [cluster.east(), cluster.west()] {
        assert_eq!(node.value(losers).await, rows_text);
    }
}
on_every_major!(every_concurrent_edit_is_recorded, super::all_are_recorded);

/// What both sides write at once, what they record of it, and what is there again after the
/// losing write was restored. East writes first, so west's write is the newer one.
struct Case {
    name: &'static str,
    before: &'static str,
    east: &'static str,
    west: &'static str,
    on_east: &'static str,
    on_west: &'static str,
    look: &'static str,
    after: &'static str,
    restored: &'static str,
}

const CASES: [Case; 8] = [
    Case {
        name: "insert_insert",
        before: "",
        east: "insert into t values (1, 'east', null, 1.50)",
        west: "insert into t values (1, 'west', 'w', null)",
        on_east: "insert_insert applied",
        on_west: "insert_insert kept_local",
        look: "select concat(v, '|', coalesce(big, 'NULL'), '|', coalesce(n::text, 'NULL')) from t",
        after: "west|w|NULL",
        restored: "east|NULL|1.50",
    },
    Case {
        name: "update_update",
        before: "insert into t values (1, 'old', 'b', 1)",
        east: r#"update t set v = E'ea\\st "q", {x}', n = 2"#,
        west: "update t set v = null where id = 1",
        on_east: "update_update applied",
        on_west: "update_update kept_local",
        look: "select concat(coalesce(v, 'NULL'), '|', big, '|', n) from t",
        after: "NULL|b|1",
        restored: r#"ea\st "q", {x}|b|2"#,
    },
    Case {
        name: "update_delete",
        before: "insert into t values (1, 'old')",
        east: "delete from t",
        west: "update t set v = 'west'",
        on_east: "update_delete applied",
        on_west: "delete_update kept_local",
        look: "select count(*) from t",
        after: "1",
        restored: "0",
    },
    Case {
        name: "delete_update",
        before: "insert into t values (1, 'old', 'b', 7)",
        east: "update t set v = 'east'",
        west: "delete from t",
        on_east: "delete_update applied",
        on_west: "update_delete kept_local",
        look: "select coalesce((select concat(v, '|', big, '|', n) from t), 'none')",
        after: "none",
        restored: "east|b|7",
    },
    Case {
        name: "key_change onto a key that was taken",
        before: "insert into pair values (1, 'x', 'old')",
        east: "insert into pair values (2, 'x', 'east')",
        west: "update pair set a = 2, v = 'west'",
        on_east: "key_change applied",
        on_west: "insert_insert kept_local",
        look: "select string_agg(concat(a, v), ' ' order by a) from pair",
        after: "2west",
        restored: "2east",
    },
    Case {
        name: "key_change of a row that was updated",
        before: "insert into pair values (1, 'x', 'old')",
        east: "update pair set v = 'east'",
        west: "update pair set a = 2",
        on_east: "key_change applied",
        on_west: "update_delete kept_local",
        look: "select string_agg(concat(a, v), ' ' order by a) from pair",
        after: "2old",
        restored: "1east 2old",
    },
    Case {
        name: "delete and insert again, without knowing of a delete",
        before: "insert into t values (1, 'old')",
        east: "delete from t",
        west: "delete from t; insert into t values (1, 'again')",
        on_east: "insert_delete applied",
        on_west: "delete_update kept_local",
        look: "select count(*) from t",
        after: "1",
        restored: "0",
    },
    Case {
        name: "truncate",
        before: "insert into t values (1, 'old', 'b', 7)",
        east: "update t set v = 'east'",
        west: "truncate t",
        on_east: "truncate applied",
        on_west: "update_delete kept_local",
        look: "select coalesce((select concat(v, '|', big, '|', n) from t), 'none')",
        after: "none",
        restored: "east|b|7",
    },
];

async fn play(cluster: &Cluster, case: &Case, decided_on: usize) {
    let name = case.name;
    forget(cluster).await;
    cluster.east().sql("delete from t; delete from pair").await;
    cluster.wait_equal().await;
    cluster.east().sql(case.before).await;
    cluster.wait_equal().await;
    assert_eq!(counts(cluster).await, ["0", "0"], "{name}: setting up");
    concurrently(cluster, case.east, case.west).await;
    assert_eq!(records(cluster.east()).await, [case.on_east], "{name}");
    assert_eq!(records(cluster.west()).await, [case.on_west], "{name}");
    for node in &cluster.nodes {
        assert_eq!(
            node.value(case.look).await,
            case.after,
            "{name}: {}",
            node.name
        );
    }
    let node = &cluster.nodes[decided_on];
    let number = node.value("select id from mmrepl.conflict").await;
    let id = format!("{}-{number}", node.name);
    let shown = cluster.mmrepl_ok(&["conflicts", "show", &id]).await;
    assert!(
        shown.contains("(won)") && shown.contains("(lost)"),
        "{shown}"
    );
    let said = cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    assert!(said.contains("is replicated"), "{name}: {said}");
    cluster.wait_equal().await;
    for node in &cluster.nodes {
        assert_eq!(
            node.value(case.look).await,
            case.restored,
            "{name}: {}",
            node.name
        );
    }
    let marked = "select count(restored_at) from mmrepl.conflict";
    assert_eq!(node.value(marked).await, "1", "{name}");
}

/// Either node's record brings the same value back.
async fn kinds(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    for decided_on in [0, 1] {
        for case in &CASES {
            play(&cluster, case, decided_on).await;
        }
    }
}
mod every_kind_is_recorded_and_restored {
    super::on_majors!(pg14, super::kinds, 14, 14);
    super::on_majors!(pg15, super::kinds, 15, 15);
    super::on_majors!(pg18, super::kinds, 18, 18);
}

/// A losing update that left a large value alone: the record holds that value as it was then, or
/// not at all; never what another write put there.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_in_a_record_is_the_writes_own() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .east()
        .sql("insert into t values (1, 'old', repeat('b', 5000), 1)")
        .await;
    cluster.wait_equal().await;
    concurrently(
        &cluster,
        "update t set v = 'east'",
        "update t set big = repeat('w', 6000)",
    )
    .await;
    let foreign = "select count(*) from mmrepl.conflict, unnest(incoming_values) v
        where v like 'ww%' and source = 'east'";
    assert_eq!(cluster.west().value(foreign).await, "0");
    let first = "select min(id) from mmrepl.conflict";
    let look = "select concat(v, '|', left(big, 1), length(big)) from t";
    assert_eq!(cluster.west().value(look).await, "old|w6000");
    let id = format!("east-{}", cluster.east().value(first).await);
    cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    cluster.wait_equal().await;
    assert_eq!(cluster.west().value(look).await, "east|b5000");
}

/// Edits that arrive together are judged one by one: how many records there are does not depend on
/// what happened to be applied with what.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_edits_that_arrive_together_is_judged() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    east.sql("insert into t (id, v) values (1, 'old'), (2, 'old')")
        .await;
    cluster.wait_equal().await;
    pause(&cluster).await;
    east.sql("update t set v = 'one' where id = 1").await;
    east.sql("update t set v = 'two' where id = 1").await;
    west.sql("update t set v = 'west' where id = 1").await;
    east.sql("update t set v = 'three' where id = 1").await;
    east.sql("update t set v = 'four' where id = 1").await;
    // A row that west does not have any more, nor knows that it is wanted again.
    west.sql("insert into t (id, v) values (3, 'x')").await;
    west.sql("delete from t where id = 3").await;
    east.sql("insert into t (id, v) values (3, 'new')").await;
    east.sql("update t set v = 'newer' where id = 3").await;
    resume(&cluster).await;
    let sql = "select key_values[1], kind, outcome, incoming_values[2], local_values[2]
        from mmrepl.conflict order by incoming_time, id";
    let line = |row: pg::TextRow| {
        let words = row.iter().map(|word| word.as_deref().unwrap_or("-"));
        words.collect::<Vec<_>>().join(" ")
    };
    let on_west: Vec<String> = west.rows(sql).await.into_iter().map(line).collect();
    let expected = [
        "1 update_update kept_local one west",
        "1 update_update kept_local two west",
        "1 update_update applied three west",
        "3 insert_delete applied new -",
    ];
    assert_eq!(on_west, expected);
    let on_east: Vec<String> = east.rows(sql).await.into_iter().map(line).collect();
    let expected = [
        "1 update_update kept_local west four",
        "3 insert_insert kept_local x newer",
        "3 delete_update kept_local - newer",
    ];
    assert_eq!(on_east, expected);
}

/// A truncate spares newer rows: those are recorded too, and restoring is deleting them.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_that_spares_rows_says_so() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    let rows = "insert into t select g, 'old' from generate_series(1, 5) g";
    cluster.east().sql(rows).await;
    cluster.wait_equal().await;
    concurrently(
        &cluster,
        "truncate t",
        "update t set v = 'west' where id < 3",
    )
    .await;
    assert_eq!(cluster.east().value("select count(*) from t").await, "2");
    let on_west = records(cluster.west()).await;
    assert_eq!(on_west, ["truncate kept_local"; 2]);
    let on_east = records(cluster.east()).await;
    assert_eq!(on_east, ["update_delete applied"; 2]);
    let first = "select min(id) from mmrepl.conflict";
    let id = format!("west-{}", cluster.west().value(first).await);
    cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    cluster.wait_equal().await;
    assert_eq!(cluster.east().value("select count(*) from t").await, "1");
}

/// Three nodes: what came from a third node and was seen is no conflict, what was not seen is.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_know_what_each_had_seen() {
    let major = crate::support::pool::usual_major();
    let options = ClusterOptions::majors(&[major; 3]);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let north = cluster.node("north");
    cluster.east().sql("insert into t values (1, 'east')").await;
    cluster.wait_equal().await;
    for node in [cluster.west(), north, cluster.east(), north] {
        let name = node.name;
        node.sql(&format!("update t set v = '{name}'")).await;
        cluster.wait_equal().await;
    }
    for node in &cluster.nodes {
        assert_eq!(node.value(COUNT).await, "0", "{}", node.name);
    }
    pause(&cluster).await;
    cluster.east().sql("update t set v = 'east again'").await;
    cluster.west().sql("update t set v = 'west again'").await;
    resume(&cluster).await;
    for node in &cluster.nodes {
        assert_eq!(node.value(COUNT).await, "1", "{}", node.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_go() {
    let options = ClusterOptions::pair().config("\n[conflict]\nhistory = \"3s\"\n");
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let old = "insert into mmrepl.conflict (decided_at, source, target, schema_name, table_name,
            kind, rule, outcome, incoming_time, incoming_origin)
        select now() - interval '1 hour', 'west', 'east', 'public', 't', 'update_update',
            'last_write_wins', 'applied', now(), 1 from generate_series(1, 2500);
        insert into mmrepl.conflict_left_out
            values (now() - interval '1 hour', 'west', 'east', 'public', 't', 5)";
    cluster.sql_everywhere(old).await;
    concurrently(
        &cluster,
        "insert into t values (1, 'east')",
        "insert into t values (1, 'west')",
    )
    .await;
    for node in &cluster.nodes {
        wait_until("the history to be pruned", LIMIT, async || {
            let left = node.value(COUNT).await;
            let counted = "select count(*) from mmrepl.conflict_left_out";
            let counted = node.value(counted).await;
            ensure(left == "0" && counted == "0", || {
                format!("{left}, {counted}")
            })
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_is_sampled_and_counted() {
    let options = ClusterOptions::pair().config("\n[conflict]\nhistory_per_minute = 10\n");
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let rows = "insert into t select g, 'old' from generate_series(1, 1010) g";
    cluster.east().sql(rows).await;
    cluster.wait_equal().await;
    concurrently(
        &cluster,
        "update t set v = 'east'",
        "update t set v = 'west'",
    )
    .await;
    for (index, link) in [(0, LINKS[1]), (1, LINKS[0])] {
        let node = &cluster.nodes[index];
        let recorded: u64 = node.value(COUNT).await.parse().unwrap();
        let left_out = "select coalesce(sum(left_out), 0) from mmrepl.conflict_left_out";
        let left_out: u64 = node.value(left_out).await.parse().unwrap();
        // Ten and one in a hundred, in each of the one or two minutes that this took.
        assert!((20..=30).contains(&recorded), "{recorded} on {}", node.name);
        assert_eq!(recorded + left_out, 1010);
        assert_eq!(total(&cluster, link).await, 1010);
    }
    let stats = cluster.mmrepl_ok(&["conflicts", "stats"]).await;
    assert!(stats.contains("not recorded: there were more"), "{stats}");
    // The rows of a truncate count too.
    forget(&cluster).await;
    concurrently(&cluster, "update t set v = 'x'", "truncate t").await;
    let recorded: u64 = cluster.east().value(COUNT).await.parse().unwrap();
    assert!(recorded <= 10, "{recorded}");
}

async fn json(cluster: &Cluster, arguments: &[&str]) -> (Value, Option<i32>, String) {
    let output = cluster.mmrepl(arguments).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_str(&text).unwrap_or(Value::Null);
    (value, output.status.code(), errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_all_nodes_is_listed_and_filtered() {
    let mut cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    concurrently(
        &cluster,
        "insert into t values (1, 'east'); insert into pair values (1, 'x', 'east')",
        "insert into t values (1, 'west'); insert into pair values (1, 'x', 'west')",
    )
    .await;
    let (all, code, _) = json(&cluster, &["conflicts", "--json"]).await;
    assert_eq!(code, Some(0));
    let found = all["conflicts"].as_array().unwrap();
    assert_eq!(found.len(), 4);
    let table = json(
        &cluster,
        &["conflicts", "list", "--json", "--table", "public.t"],
    )
    .await;
    assert_eq!(table.0["conflicts"].as_array().unwrap().len(), 2);
    let none = json(&cluster, &["conflicts", "--json", "--since", "0s"]).await;
    assert_eq!(none.0["conflicts"].as_array().unwrap().len(), 0);
    let recent = json(
        &cluster,
        &["conflicts", "--json", "--since", "1h", "--table", "pair"],
    )
    .await;
    assert_eq!(recent.0["conflicts"].as_array().unwrap().len(), 2);
    let (stats, ..) = json(&cluster, &["conflicts", "stats", "--json"]).await;
    assert_eq!(stats["stats"].as_array().unwrap().len(), 4, "{stats}");
    let text = cluster.mmrepl_ok(&["conflicts"]).await;
    assert_eq!(text.lines().count(), 5, "{text}");

    let on_east = found
        .iter()
        .find(|c| c["link"] == "west->east" && c["table"] == "t");
    let on_east = on_east.unwrap();
    let id = on_east["id"].as_str().unwrap();
    assert!(id.starts_with("east-"), "{id}");
    let (one, ..) = json(&cluster, &["conflicts", "show", id, "--json"]).await;
    assert_eq!(one, *on_east);
    assert_eq!(one["incoming"]["node"], "west");
    assert_eq!(one["local"]["origin"], 0);
    assert_eq!(one["local"]["row"][1]["value"], "east");

    let (_, code, said) = json(&cluster, &["conflicts", "show", "east-999999"]).await;
    assert_eq!(
        (code, said.contains("no conflict east-999999")),
        (Some(2), true),
        "{said}"
    );
    let (_, code, said) = json(&cluster, &["conflicts", "restore", "nowhere-1"]).await;
    assert_eq!((code, said.contains("nowhere")), (Some(2), true), "{said}");
    let (_, code, _) = json(&cluster, &["conflicts", "show"]).await;
    assert_eq!(code, Some(2));

    // A node that does not answer is named; the other is shown.
    cluster.stop_daemons();
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let port = format!("port={} ", cluster.west().server().port());
    let away = config.replacen(&port, "port=1 ", 2);
    assert_ne!(config, away);
    std::fs::write(cluster.config(), away).unwrap();
    let (some, code, said) = json(&cluster, &["conflicts", "--json"]).await;
    std::fs::write(cluster.config(), config).unwrap();
    assert_eq!(code, Some(2));
    assert_eq!(some["conflicts"].as_array().unwrap().len(), 2);
    assert_eq!(some["unreachable"][0]["node"], "west");
    assert!(said.contains("west is not shown"), "{said}");
}
