//! Unique values on several nodes: nothing stops, nothing is lost, all nodes show the same rows.

use std::collections::BTreeMap;

use crate::on_every_major;
use crate::support::pg::TextRow;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, Node, pg, pool, wait_until};
use crate::unique_cases::{UNIQUE, UniqueCase};

const PRELUDE: &str = "
    create function large(text) returns text language sql immutable
        as $$ select repeat('.', 2500) || $1 $$;
    create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

/// A case with its table.
struct Played {
    case: &'static UniqueCase,
    table: String,
}

impl Played {
    fn create(&self) -> String {
        let (columns, more) = (self.case.columns, self.case.more);
        let sql = format!("create table {{t}} ({columns}); {more};");
        self.sql(&sql)
    }

    fn sql(&self, text: &str) -> String {
        text.replace("{t}", &self.table)
    }

    /// The rows and how many are kept aside.
    fn query(&self) -> String {
        let rows = "coalesce(string_agg(replace({t}::text, repeat('.', 2500), ''), ' '
             order by {t}::text), '')";
        let kept = "select count(*) from mmrepl.shadow where relation = '{t}'::regclass";
        self.sql(&format!("select '{{t}}', {rows}, ({kept}) from {{t}}"))
    }
}

async fn write(
    cluster: &Cluster,
    played: &[Played],
    of: impl Fn(&UniqueCase) -> super::case_table::Writes,
) {
    let mut clients = BTreeMap::new();
    for node in &cluster.nodes {
        clients.insert(node.name, node.client().await);
    }
    for one in played {
        for (node, sql) in of(one.case) {
            pg::execute(&clients[node], &one.sql(sql)).await;
        }
    }
}

async fn compare(
    nodes: &[Node],
    played: &[Played],
    wanted: impl Fn(&UniqueCase) -> (&'static str, u32),
) -> Result<(), String> {
    let all: Vec<String> = played.iter().map(Played::query).collect();
    let mut wrong = Vec::new();
    for node in nodes {
        let rows = node.rows(&all.join(" union all ")).await;
        for one in played {
            let of_table = |row: &&TextRow| row[0].as_deref() == Some(&one.table);
            let row = rows.iter().find(of_table).expect("a row for each table");
            let (rows, kept) = wanted(one.case);
            let found = (row[1].as_deref().unwrap(), row[2].as_deref().unwrap());
            if found != (rows, kept.to_string().as_str()) {
                let (case, name) = (one.case.name, node.name);
                wrong.push(format!(
                    "{case}: {name} has {found:?}, not {rows:?} and {kept}"
                ));
            }
        }
    }
    ensure(wrong.is_empty(), || wrong.join("\n"))
}

async fn until(
    cluster: &Cluster,
    played: &[Played],
    of: impl Fn(&UniqueCase) -> (&'static str, u32),
) {
    wait_until("every case", LIMIT, async || {
        compare(&cluster.nodes, played, &of).await
    })
    .await;
}

async fn cases(majors: &[u32]) {
    let oldest = majors.iter().min().copied().unwrap();
    let known = UNIQUE.iter().filter(|case| case.since <= oldest);
    let played: Vec<Played> = (0..)
        .zip(known)
        .map(|(number, case)| Played {
            case,
            table: format!("u{number:02}"),
        })
        .collect();
    let tables: String = played.iter().map(Played::create).collect();
    let schema = format!("{PRELUDE}{tables}");
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), &schema).await;
    cluster.wait_streaming().await;
    write(&cluster, &played, |case| case.before).await;
    cluster.settle().await;
    cluster.pause_all().await;
    write(&cluster, &played, |case| case.apart).await;
    cluster.resume_all().await;
    cluster.settle().await;
    until(&cluster, &played, |case| case.wanted).await;
    write(&cluster, &played, |case| case.after).await;
    cluster.settle().await;
    until(&cluster, &played, |case| case.at_last).await;
    for (from, to) in [("east", "west"), ("west", "east")] {
        cluster.wait_state(from, to, &["streaming"]).await;
    }
}
on_every_major!(every_case, super::cases);

const USERS: &str = "create table t (id int primary key, u text unique)";
const ROWS: &str = "select coalesce(string_agg(t::text, ' ' order by id), '') || ' aside ' ||
    (select count(*) from mmrepl.shadow) from t";

async fn until_all_have(cluster: &Cluster, wanted: &str) {
    wait_until(wanted, LIMIT, async || {
        for node in &cluster.nodes {
            let found = node.value(ROWS).await;
            ensure(found == wanted, || format!("{} has {found}", node.name))?;
        }
        Ok::<_, String>(())
    })
    .await;
}

/// The rows are the same whoever hears of whom first, and a shadow may be deleted where it is a
/// row.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_in_every_order_of_arrival() {
    let majors = [pool::usual_major(); 3];
    let cluster = Cluster::running_with(ClusterOptions::majors(&majors), USERS).await;
    cluster.wait_streaming().await;
    cluster.pause_all().await;
    let (east, west, north) = (cluster.east(), cluster.west(), cluster.node("north"));
    east.sql("insert into t values (1, 'a'), (4, 'b')").await;
    west.sql("insert into t values (2, 'a')").await;
    north.sql("insert into t values (3, 'a'), (5, 'b')").await;
    cluster.let_through("west", "east").await;
    assert_eq!(east.value(ROWS).await, "(2,a) (4,b) aside 1");
    // On north this row is still to come, and older than what is there.
    west.sql("update t set u = 'b' where id = 2").await;
    cluster.resume_all().await;
    until_all_have(&cluster, "(2,b) (3,a) aside 3").await;
    north.sql("delete from t where id in (2, 3)").await;
    until_all_have(&cluster, "(1,a) (5,b) aside 1").await;
    east.sql("delete from t").await;
    until_all_have(&cluster, "(4,b) aside 0").await;
}

/// On east the row was never a shadow: it is deleted there, and must not return on west.
#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_deleted_from_a_node_where_it_is_a_row() {
    let cluster = Cluster::running(USERS).await;
    cluster.wait_streaming().await;
    cluster.pause_all().await;
    cluster
        .east()
        .sql("insert into t values (1, 'a'), (3, 'c')")
        .await;
    cluster
        .west()
        .sql("insert into t values (2, 'a'), (4, 'c')")
        .await;
    cluster.let_through("east", "west").await;
    assert_eq!(cluster.west().value(ROWS).await, "(2,a) (4,c) aside 2");
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert!(said.contains("2 row(s) are kept aside"), "{said}");
    let east = cluster.east();
    east.sql("delete from t where id = 1; update t set u = 'd' where id = 3")
        .await;
    cluster.resume_all().await;
    until_all_have(&cluster, "(2,a) (3,d) (4,c) aside 0").await;
    cluster.west().sql("delete from t where id = 2").await;
    until_all_have(&cluster, "(3,d) (4,c) aside 0").await;
}

/// Who lost what to whom is in the history where it was decided; an update that saw the other row
/// is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_unique_value_taken_twice_is_recorded() {
    let cluster = Cluster::running(USERS).await;
    cluster.wait_streaming().await;
    cluster.pause_all().await;
    cluster.east().sql("insert into t values (1, 'a')").await;
    cluster.west().sql("insert into t values (2, 'a')").await;
    cluster.resume_all().await;
    until_all_have(&cluster, "(2,a) aside 1").await;
    let record = "select kind || ' ' || outcome || ' ' || key_values::text || ' '
        || incoming_values::text || ' ' || local_values::text || ' ' || local_node
        from mmrepl.conflict";
    assert_eq!(
        cluster.east().value(record).await,
        "unique applied {2} {2,a} {1,a} east"
    );
    assert_eq!(
        cluster.west().value(record).await,
        "unique kept_local {1} {1,a} {2,a} west"
    );
    let id = cluster
        .east()
        .value("select 'east-' || id from mmrepl.conflict")
        .await;
    let said = cluster.mmrepl_fails(&["conflicts", "restore", &id]).await;
    assert!(said.contains("kept aside"), "{said}");
    wait_until("the status to count it", LIMIT, async || {
        let status = cluster.mmrepl(&["status", "--json"]).await;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let kept = status["nodes"][0]["shadows"]["kept"].as_u64();
        ensure(kept == Some(1), || status["nodes"].to_string())
    })
    .await;
    cluster.east().sql("update t set u = 'b'").await;
    until_all_have(&cluster, "(1,a) (2,b) aside 0").await;
    cluster
        .west()
        .sql("begin; delete from t where id = 1; update t set u = 'a'; commit")
        .await;
    until_all_have(&cluster, "(2,a) aside 0").await;
    for node in &cluster.nodes {
        assert_eq!(
            node.value("select count(*) from mmrepl.conflict").await,
            "1"
        );
    }
}

/// Daemons are killed while rows go aside and return.
#[tokio::test(flavor = "multi_thread")]
async fn killed_daemons_leave_no_row_behind() {
    let schema = format!("{USERS}; create table fence (id int primary key)");
    let mut cluster = Cluster::running(&schema).await;
    cluster.wait_streaming().await;
    for round in 0..3 {
        let first = round * 1000;
        cluster.pause_all().await;
        for (node, offset) in [(cluster.east(), 0), (cluster.west(), 500)] {
            let rows = format!(
                "insert into t select {first} + {offset} + n, 'v' || {first} + n
                 from generate_series(1, 200) n"
            );
            node.sql(&rows).await;
        }
        cluster.resume_all().await;
        // Killed at whatever they are doing.
        for name in ["east", "west"] {
            cluster.take_daemon(name).kill9();
            cluster.start_daemon(name);
        }
        let freed = format!("delete from t where id > {first} + 500 and id % 2 = 0");
        cluster.wait_streaming().await;
        cluster.settle().await;
        cluster.east().sql(&freed).await;
        for name in ["west", "east"] {
            cluster.take_daemon(name).kill9();
            cluster.start_daemon(name);
        }
        cluster.wait_streaming().await;
        cluster.settle().await;
    }
    // Of each value one row is left to see: the newer one where it was not deleted.
    let count = "select count(*) || ' ' || count(distinct u) || ' ' ||
        (select count(*) from mmrepl.shadow) from t";
    wait_until("every row in its place", LIMIT, async || {
        for node in &cluster.nodes {
            let found = node.value(count).await;
            ensure(found == "600 600 300", || {
                format!("{} has {found}", node.name)
            })?;
        }
        Ok::<_, String>(())
    })
    .await;
    cluster.wait_equal().await;
}

/// Rows kept aside are copied with the tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_brings_rows_kept_aside() {
    let mut cluster = Cluster::running(USERS).await;
    cluster.wait_streaming().await;
    cluster.pause_all().await;
    cluster.east().sql("insert into t values (1, 'a')").await;
    cluster.west().sql("insert into t values (2, 'a')").await;
    cluster.resume_all().await;
    until_all_have(&cluster, "(2,a) aside 1").await;
    cluster.stop_daemons();
    cluster
        .mmrepl_ok(&["drop", "--node", "west", "--yes", "--discard"])
        .await;
    cluster.west().sql("truncate t").await;
    cluster
        .mmrepl_ok(&["init", "--rejoin", "west", "--copy-from", "east"])
        .await;
    cluster.start_daemons();
    until_all_have(&cluster, "(2,a) aside 1").await;
    cluster.west().sql("delete from t").await;
    until_all_have(&cluster, "(1,a) aside 0").await;
}
