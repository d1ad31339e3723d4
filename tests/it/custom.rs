//! Rule `custom`: a function makes one row of what was written without knowledge of each other.

use serde_json::Value;
use tokio_postgres::error::SqlState;

use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions, Node, Rng};

/// Of every kind of column, a few.
const SCHEMA: &str = "create table t (id int primary key, v text, at timestamptz, j jsonb,
        amount numeric(9, 2), tags text[], raw bytea, big text);
    alter table t alter big set storage external;";
/// Neither associative nor commutative: it shows who stood where. A row that is made with `kill`
/// goes, and a side that was deleted shows as `-`.
const FUNCTION: &str = "create or replace function public.join_t(a jsonb, b jsonb, meta jsonb)
    returns jsonb language plpgsql immutable as $$
    declare
        v text := '(' || coalesce(a ->> 'v', '-') || '+' || coalesce(b ->> 'v', '-') || ')';
    begin
        if v like '%kill%' then
            return null;
        end if;
        return coalesce(a, b) || jsonb_build_object('v', v);
    end $$;";
const RULE: &str = "[[conflict.table]]\nname = \"public.t\"\nstrategy = \"custom\"\n\
    function = \"public.join_t\"\n";
/// A row with a value in every column.
const WHOLE: &str = "values (1, 'a', '2024-02-29 12:00:00.123456+03', '{\"x\": [1, null]}', 12.50,
    array['p', null, 'q\"r'], '\\x00ff', repeat('x', 9000))";

async fn running_with(majors: &[u32], function: &str) -> Cluster {
    let schema = format!("{SCHEMA}{function}");
    let options = ClusterOptions::majors(majors).config(RULE);
    let cluster = Cluster::running_with(options, &schema).await;
    cluster.wait_streaming().await;
    cluster
}

async fn running(majors: &[u32]) -> Cluster {
    running_with(majors, FUNCTION).await
}

fn pair() -> Vec<u32> {
    ClusterOptions::pair().majors
}

/// Writes of both nodes, neither knowing of the other's; then all of it has been applied, and both
/// have the same rows with the same versions.
async fn apart(cluster: &Cluster, east: &str, west: &str) {
    cluster.write_unknowing(east, west).await;
    cluster.wait_equal().await;
}

async fn value(node: &Node) -> String {
    let sql = "select coalesce(string_agg(id || coalesce(v, ''), ' ' order by id), 'none') from t";
    node.value(sql).await
}

/// Conflicts that the nodes recorded, in all.
async fn recorded(cluster: &Cluster) -> u32 {
    let mut all = 0;
    for node in &cluster.nodes {
        let count = node.value("select count(*) from mmrepl.conflict").await;
        all += count.parse::<u32>().unwrap();
    }
    all
}

/// What east and west do apart, and what both have then.
const CASES: [(&str, &str, &str); 11] = [
    (
        "update t set v = 'e' where id = 1",
        "update t set v = 'w' where id = 1",
        "1(e+w) 2a",
    ),
    (
        "insert into t values (3, 'e')",
        "insert into t values (3, 'w')",
        "1a 2a 3(e+w)",
    ),
    (
        "update t set v = 'e' where id = 1",
        "delete from t where id = 1",
        "1(e+-) 2a",
    ),
    (
        "delete from t where id = 1",
        "update t set v = 'w' where id = 1",
        "1(-+w) 2a",
    ),
    ("delete from t", "delete from t", "none"),
    (
        "update t set v = 'kill' where id = 1",
        "update t set v = 'w'",
        "2w",
    ),
    (
        "update t set v = 'kill' where id = 1",
        "delete from t where id = 1",
        "2a",
    ),
    (
        "update t set id = 3 where id = 1",
        "insert into t values (3, 'w')",
        "2a 3(a+w)",
    ),
    (
        "delete from t where id = 1; insert into t values (1, 'e')",
        "update t set v = 'w' where id = 1",
        "1(e+w) 2a",
    ),
    (
        "truncate t",
        "update t set v = 'w' where id = 2; update t set v = 'x' where id = 2",
        "2(-+x)",
    ),
    (
        "insert into t values (1, 'x') on conflict (id) do update set v = 'e1';
         update t set v = 'e2' where id = 1",
        "update t set v = 'w', big = 'small' where id = 1",
        "1(e2+w) 2a",
    ),
];

async fn every_kind(majors: &[u32]) {
    let cluster = running(majors).await;
    let (east, west) = (cluster.east(), cluster.west());
    for (at_east, at_west, wanted) in CASES {
        let what = format!("{at_east} / {at_west}");
        // The key was deleted with or without siblings before.
        east.sql(&format!(
            "delete from t; insert into t {WHOLE}; insert into t values (2, 'a')"
        ))
        .await;
        cluster.wait_equal().await;
        apart(&cluster, at_east, at_west).await;
        assert_eq!(
            [value(east).await, value(west).await],
            [wanted, wanted],
            "{what}"
        );
        // What is written on top knows both, so the siblings are spent.
        let before = recorded(&cluster).await;
        west.sql("update t set v = 'on top'").await;
        cluster.wait_equal().await;
        east.sql("insert into t values (1, 'again') on conflict (id) do update set v = 'again'")
            .await;
        cluster.wait_equal().await;
        assert!(value(west).await.starts_with("1again"), "{what}");
        assert_eq!(recorded(&cluster).await, before, "{what}");
    }
    let left = "select count(*) from mmrepl.sibling where key in ('{1}', '{3}')";
    east.sql("update t set v = 'once more'; delete from t where id = 1")
        .await;
    cluster.wait_equal().await;
    west.sql("delete from t").await;
    cluster.wait_equal().await;
    let kept = west.value(left).await;
    assert!(kept.parse::<u32>().unwrap() <= 4, "{kept}");
}
on_every_major!(what_was_written_apart_becomes_one_row, super::every_kind);

/// All columns come through the function as they went in.
async fn values_survive(majors: &[u32]) {
    let cluster = running(majors).await;
    let (east, west) = (cluster.east(), cluster.west());
    let whole = format!("insert into t {WHOLE}");
    apart(&cluster, &whole, "insert into t values (1, 'w')").await;
    let same = format!(
        "select (t.at, t.j, t.amount, t.tags, t.raw, t.big) = (x.at::timestamptz, x.j::jsonb,
             x.amount, x.tags, x.raw::bytea, x.big) and t.v = '(a+w)'
         from t, ({WHOLE}) x(id, v, at, j, amount, tags, raw, big)"
    );
    for node in [east, west] {
        assert_eq!(node.value(&same).await, "t", "{}", node.name);
    }
}
on_every_major!(columns_come_through_the_function, super::values_survive);

/// Three nodes: whatever each heard of first, the row is the same.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_make_the_same_row() {
    let usual = crate::support::pool::usual_major();
    let cluster = running(&[usual; 3]).await;
    let (east, north) = (cluster.east(), cluster.node("north"));
    east.sql("insert into t values (1, 'a'), (2, 'a')").await;
    cluster.wait_equal().await;
    cluster.pause_all().await;
    for node in &cluster.nodes {
        let first = &node.name[..1];
        node.sql(&format!("update t set v = '{first}'")).await;
    }
    cluster.let_through("west", "east").await;
    assert_eq!(value(east).await, "1(e+w) 2(e+w)");
    // This knows both, but not what north wrote.
    east.sql("update t set v = 'E' where id = 2").await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    assert_eq!(value(north).await, "1((e+n)+w) 2(E+n)");
    north.sql("update t set v = 'on top'").await;
    cluster.wait_equal().await;
    assert_eq!(value(east).await, "1on top 2on top");
    // Deleted on one, edited on another, inserted anew on the third.
    cluster.pause_all().await;
    east.sql("delete from t where id = 1").await;
    cluster
        .west()
        .sql("update t set v = 'w' where id = 1")
        .await;
    north
        .sql("delete from t where id = 1; insert into t values (1, 'n')")
        .await;
    cluster.let_through("north", "west").await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    assert_eq!(value(north).await, "1((-+n)+w) 2on top");
}

/// Both rows are in the history of both nodes, and either can be brought back.
#[tokio::test(flavor = "multi_thread")]
async fn both_rows_are_recorded() {
    let cluster = running(&pair()).await;
    let (east, west) = (cluster.east(), cluster.west());
    east.sql("insert into t values (1, 'a')").await;
    cluster.wait_equal().await;
    apart(&cluster, "update t set v = 'e'", "update t set v = 'w'").await;
    let listed = cluster.mmrepl_ok(&["conflicts", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let listed = listed["conflicts"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    for record in listed {
        assert_eq!(
            [&record["rule"], &record["outcome"], &record["kind"]],
            ["custom", "merged", "update_update"]
        );
    }
    let id = "select 'east-' || id from mmrepl.conflict";
    let id = east.value(id).await;
    let shown = cluster.mmrepl_ok(&["conflicts", "show", &id]).await;
    assert!(
        shown.contains("by custom: the function made one row of both"),
        "{shown}"
    );
    cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    cluster.wait_equal().await;
    assert_eq!([value(east).await, value(west).await], ["1w", "1w"]);
    apart(&cluster, "delete from t", "delete from t").await;
    assert_eq!(recorded(&cluster).await, 2, "two deletes are no conflict");
}

/// What the function is told: who wrote what, when, of which table and key.
#[tokio::test(flavor = "multi_thread")]
async fn the_function_is_told_about_both_sides() {
    let tells = "create function public.join_t(a jsonb, b jsonb, meta jsonb) returns jsonb
        language sql immutable as $$ select a || jsonb_build_object('j', meta) $$;";
    let cluster = running_with(&pair(), tells).await;
    apart(
        &cluster,
        "insert into t values (7, 'e')",
        "insert into t values (7, 'w')",
    )
    .await;
    let told = cluster.west().value("select j from t").await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["table"], "public.t");
    assert_eq!(told["key"], serde_json::json!({ "id": 7 }));
    assert_eq!([&told["a"]["node"], &told["b"]["node"]], ["east", "west"]);
    let joined = "select mmrepl.join_known((j #>> '{a,version}')::bigint[],
            (j #>> '{b,version}')::bigint[]) = mmrepl_known
        and (j #>> '{a,time}')::timestamptz between now() - interval '1 hour' and now() from t";
    assert_eq!(cluster.east().value(joined).await, "t");
}

/// An error blocks the links and is named, without what it says of the rows; they go on by
/// themselves once it is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_blocks_until_it_is_mended() {
    let fails = FUNCTION.replace("begin", "begin raise exception 'not on my watch';");
    let mut cluster = running_with(&pair(), &fails).await;
    cluster.allow_error("public.join_t");
    cluster
        .east()
        .sql("insert into t values (1, 'a'), (2, 'a')")
        .await;
    cluster.wait_equal().await;
    cluster
        .write_unknowing(
            "update t set v = 'e' where id = 1",
            "update t set v = 'w' where id = 1",
        )
        .await;
    let says = "public.t: function public.join_t(jsonb, jsonb, jsonb)";
    for (from, to) in [("west", "east"), ("east", "west")] {
        cluster.wait_reason((from, to), &["blocked"], says).await;
        cluster
            .wait_reason((from, to), &["blocked"], "raised an error, whose text")
            .await;
    }
    // Applications go on; their later writes wait behind.
    cluster
        .east()
        .sql("update t set v = 'later' where id = 2")
        .await;
    cluster.sql_everywhere(FUNCTION).await;
    cluster.wait_equal().await;
    assert_eq!(value(cluster.west()).await, "1(e+w) 2later");
}

/// Results that are no row of the table, and what the link says of them.
const BAD: [(&str, &str); 5] = [
    (
        "a || '{\"nope\": 1}'",
        "a column \"nope\" that the table does not have",
    ),
    ("a || '{\"id\": 9}'", "another key than that of the rows"),
    ("a - 'id'", "another key than that of the rows"),
    ("'[1]'::jsonb", "no JSON object"),
    ("a || '{\"amount\": \"much\"}'", "22P02"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_no_row_is_refused() {
    let returns = |result: &str| {
        format!(
            "create or replace function public.join_t(a jsonb, b jsonb, meta jsonb) returns jsonb
             language sql immutable as $$ select {result} $$;"
        )
    };
    let mut cluster = running_with(&pair(), &returns("a")).await;
    cluster.allow_error("public.join_t");
    cluster.east().sql("insert into t values (1, 'a')").await;
    cluster.wait_equal().await;
    for (number, (result, says)) in BAD.into_iter().enumerate() {
        cluster.sql_everywhere(&returns(result)).await;
        let write = |side: &str| format!("update t set v = '{side}{number}'");
        cluster.write_unknowing(&write("e"), &write("w")).await;
        cluster
            .wait_reason(("west", "east"), &["blocked"], says)
            .await;
        // What is left out is NULL; JSON null deletes the row.
        cluster.sql_everywhere(&returns("a - 'big'")).await;
        cluster.wait_equal().await;
        assert_eq!(value(cluster.west()).await, format!("1e{number}"));
    }
    let (east, west) = ("update t set big = 'b'", "update t set v = 'w'");
    apart(&cluster, east, west).await;
    assert_eq!(cluster.west().value("select big is null from t").await, "t");
    cluster.sql_everywhere(&returns("'null'::jsonb")).await;
    apart(&cluster, "update t set v = 'e'", "update t set v = 'w'").await;
    assert_eq!(value(cluster.east()).await, "none");
}

/// A function that is not there, cannot decide, or decides otherwise elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_is_wrong_with_the_function() {
    let options = ClusterOptions::pair().config(RULE);
    let cluster = Cluster::start(options).await;
    cluster.sql_everywhere(SCHEMA).await;
    let (east, west) = ("east", "west");
    let missing = "function public.join_t(jsonb, jsonb, jsonb), which decides about public.t, \
        does not exist here";
    let says = |said: &str, node: &str, what: &str| {
        assert!(
            said.contains(&format!("{node}: {what}")),
            "{node}: {what}\n{said}"
        );
    };
    let said = cluster.mmrepl_fails(&["check"]).await;
    says(&said, east, missing);
    says(&said, west, missing);
    assert!(said.contains("create function public.join_t(a jsonb, b jsonb, meta jsonb)"));
    let said = cluster.mmrepl_fails(&["init"]).await;
    says(&said, west, missing);
    cluster.east().sql(FUNCTION).await;
    let said = cluster.mmrepl_fails(&["check"]).await;
    says(&said, west, missing);
    assert!(
        said.contains("create it as it is on east: select pg_get_functiondef("),
        "{said}"
    );
    let wrong = "create function public.join_t(jsonb, jsonb, jsonb) returns text
        language sql immutable as 'select null::text'";
    cluster.west().sql(wrong).await;
    let said = cluster.mmrepl_fails(&["check"]).await;
    says(
        &said,
        west,
        "public.join_t(jsonb, jsonb, jsonb), which decides about public.t, is a \
        function that returns text: it must return jsonb",
    );
    cluster
        .west()
        .sql("drop function public.join_t(jsonb, jsonb, jsonb)")
        .await;
    let other = FUNCTION
        .replace("kill", "gone")
        .replace("immutable", "volatile");
    cluster.west().sql(&other).await;
    let said = cluster.mmrepl_ok(&["check"]).await;
    says(
        &said,
        west,
        "public.join_t(jsonb, jsonb, jsonb), which decides about public.t, has \
        another body here than on east",
    );
    assert!(
        said.contains("alter function public.join_t(jsonb, jsonb, jsonb) immutable"),
        "{said}"
    );
    cluster.sql_everywhere(FUNCTION).await;
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert!(!said.contains("join_t"), "{said}");
    cluster.init().await;
}

/// Dropped while the link is at work: it says so, and goes on once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_dropped_blocks_until_it_is_back() {
    let mut cluster = running(&pair()).await;
    cluster.allow_error("public.join_t");
    cluster
        .sql_everywhere("drop function public.join_t(jsonb, jsonb, jsonb)")
        .await;
    let insert = |side| format!("insert into t values (1, '{side}')");
    cluster.write_unknowing(&insert("e"), &insert("w")).await;
    cluster
        .wait_reason(("west", "east"), &["blocked"], "does not exist")
        .await;
    cluster.sql_everywhere(FUNCTION).await;
    cluster.wait_equal().await;
    assert_eq!(value(cluster.east()).await, "1(e+w)");
}

/// The writes that the row was made of go with it to a node that is copied to.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_brings_the_siblings() {
    let mut cluster = running(&pair()).await;
    cluster.east().sql("insert into t values (1, 'a')").await;
    cluster.wait_equal().await;
    apart(&cluster, "update t set v = 'e'", "update t set v = 'w'").await;
    cluster.stop_daemons();
    let siblings = "select string_agg(node || version || vals::text, ' ' order by node)
        from mmrepl.sibling";
    let there = cluster.east().value(siblings).await;
    assert!(
        there.contains("{1,e,") && there.contains("{1,w,"),
        "{there}"
    );
    cluster
        .mmrepl_ok(&["drop", "--node", "west", "--yes", "--discard"])
        .await;
    cluster.west().sql("truncate t").await;
    cluster
        .mmrepl_ok(&["init", "--rejoin", "west", "--copy-from", "east"])
        .await;
    assert_eq!(cluster.west().value(siblings).await, there);
    cluster.start_daemons();
    cluster.wait_streaming().await;
    apart(&cluster, "update t set v = 'e2'", "update t set v = 'w2'").await;
    assert_eq!(value(cluster.west()).await, "1(e2+w2)");
}

/// Statements of each writer of `everybody_writes_the_same_keys`.
const STATEMENTS: u32 = 150;
/// Keys that all of them write.
const HOT_KEYS: u64 = 4;

/// One statement on one of a few keys; a server may end it to let another through, as it says.
async fn write_hot(client: &tokio_postgres::Client, rng: &mut Rng, text: &str) {
    let key = rng.below(HOT_KEYS);
    let sql = match rng.below(5) {
        0 => format!("delete from t where id = {key}"),
        1 => format!("update t set v = '{text}' where id = {key}"),
        _ => format!(
            "insert into t values ({key}, '{text}') on conflict (id) do update set v = excluded.v"
        ),
    };
    if let Err(error) = client.batch_execute(&sql).await {
        let code = error.code().map(SqlState::code);
        assert_eq!(code, Some("40P01"), "{sql}: {error}");
    }
}

/// Every node writes the same few keys while all links run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_writes_the_same_keys() {
    let short = FUNCTION.replace(
        "return coalesce(a, b)",
        "v := left(md5(v), 6); if v < '4' then return null; end if; return coalesce(a, b)",
    );
    let usual = crate::support::pool::usual_major();
    let cluster = running_with(&[usual; 3], &short).await;
    let mut rng = Rng::from_env(31);
    let mut writers = tokio::task::JoinSet::new();
    for node in &cluster.nodes {
        for _ in 0..2 {
            let (client, mut own) = (node.client().await, rng.fork());
            let name = node.name;
            writers.spawn(async move {
                for number in 0..STATEMENTS {
                    write_hot(&client, &mut own, &format!("{name}{number}")).await;
                }
            });
        }
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    cluster.wait_equal().await;
    assert!(recorded(&cluster).await > 0, "nothing ever met");
}
