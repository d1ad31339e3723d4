//! `mmrepl verify --repair`: what differs is mended by each table's own rule, with the versions
//! that are there, and nothing newer is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::init::assert_says;
use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, Node, Rng, pg};

const TABLES: &str = "
create table items (id int primary key, v text, n numeric);
create table pairs (a int, b text, v int, primary key (a, b));
create table parted (id int, k int, v text, primary key (id, k)) partition by range (k);
create table parted_1 partition of parted for values from (0) to (50);
create table parted_2 partition of parted for values from (50) to (200);
create table counted (id int primary key, v text, rev bigint not null default 0);";

const FILL: &str = "
insert into items select i, 'v' || i, i / 7.0 from generate_series(1, 500) i;
insert into pairs select i % 7, 'b ' || i, i from generate_series(1, 300) i;
insert into parted select i, i % 200, 'v' from generate_series(1, 300) i;
insert into counted select i, 'v', 1 from generate_series(1, 300) i";

const RULES: &str = "[[conflict.table]]\nname = \"public.counted\"\n\
                     strategy = \"version_column\"\nversion_column = \"rev\"\n";

/// Writes on `node` that nobody is sent, as if they had been made on `writer` at `time` (nothing:
/// now).
async fn behind(cluster: &Cluster, node: &Node, (writer, time): (&str, &str), sql: &str) {
    let client = node.client().await;
    let stamp = if time.is_empty() {
        String::new()
    } else {
        format!("select pg_replication_origin_xact_setup('0/1', '{time}');")
    };
    let quiet = format!(
        "begin; set local session_replication_role = replica;
         select pg_replication_origin_session_setup('mmrepl_{}_{writer}-again');
         {stamp} {sql}; commit;
         select pg_replication_origin_session_reset()",
        cluster.name
    );
    pg::execute(&client, &quiet).await;
}

/// Rows as one text each, in order.
async fn rows(node: &Node, sql: &str) -> Vec<String> {
    let rows = node.rows(sql).await;
    let texts = rows.into_iter().map(|row| {
        let values = row.into_iter().map(Option::unwrap_or_default);
        values.collect::<Vec<_>>().join("|")
    });
    texts.collect()
}

const OLD: &str = "2026-01-01 00:00:00+00";

/// Damage on west, and what the row must be afterwards on both nodes.
const DAMAGE: [(&str, &str, &str, &[&str]); 8] = [
    // A row that is older than the other one.
    (
        OLD,
        "update items set v = 'old' where id = 1",
        "select v from items where id = 1",
        &["v1"],
    ),
    // One that is newer.
    (
        "",
        "update items set v = 'newer' where id = 2",
        "select v from items where id = 2",
        &["newer"],
    ),
    // One that is missing, and nobody remembers a delete.
    (
        "",
        "delete from items where id = 3; delete from mmrepl.tombstone",
        "select v from items where id = 3",
        &["v3"],
    ),
    // One that was deleted here, later than it was written.
    (
        "",
        "delete from items where id = 4",
        "select v from items where id = 4",
        &[],
    ),
    // One that only this node has.
    (
        "",
        "insert into pairs values (99, 'extra', 1)",
        "select a, b, v from pairs where a = 99",
        &["99|extra|1"],
    ),
    // One with another key: the old one was deleted here.
    (
        "",
        "update pairs set b = 'moved' where a = 3 and b = 'b 10'",
        "select a, b, v from pairs where b in ('moved', 'b 10')",
        &["3|moved|10"],
    ),
    // Partitions.
    (
        OLD,
        "update parted set v = null where id = 60",
        "select v from parted where id = 60",
        &["v"],
    ),
    // The version is in the row: an old write with a greater one counts.
    (
        OLD,
        "update counted set v = 'greater', rev = 9 where id = 5",
        "select v, rev from counted where id = 5",
        &["greater|9"],
    ),
];

async fn kinds(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let cluster = Cluster::running_with(options, TABLES).await;
    cluster.wait_streaming().await;
    cluster.east().sql(FILL).await;
    cluster.wait_equal().await;
    // A row that east has deleted and west has again, as it was.
    cluster
        .write_on(cluster.east(), "delete from items where id = 7")
        .await;
    let again = "insert into items values (7, 'v7', 1)";
    behind(&cluster, cluster.west(), ("east", OLD), again).await;
    for (time, damage, ..) in DAMAGE {
        behind(&cluster, cluster.west(), ("east", time), damage).await;
    }

    let said = cluster
        .mmrepl_fails(&["verify", "--repair", "--dry-run"])
        .await;
    assert_says(
        &said,
        &[
            "the row of east goes to west",
            "the row of west goes to east",
            "deleted on west: goes on east",
            "deleted on east: goes on west",
        ],
    );
    let none = "select count(*) from mmrepl.conflict where kind = 'repair'";
    for node in [cluster.east(), cluster.west()] {
        assert_eq!(node.value(none).await, "0");
    }
    let said = cluster.mmrepl_ok(&["verify", "--repair"]).await;
    assert_says(&said, &["public.items: 5 row(s) were mended", "are equal"]);
    cluster.mmrepl_ok(&["verify", "--exact"]).await;
    for (_, damage, select, expected) in DAMAGE {
        for node in [cluster.east(), cluster.west()] {
            assert_eq!(rows(node, select).await, expected, "{damage}");
        }
    }
    // Nothing is written twice, and nothing runs in circles.
    let records = [cluster.east(), cluster.west()].map(|node| rows(node, none));
    let records = futures_util::future::join_all(records).await;
    cluster.mmrepl_ok(&["verify", "--repair"]).await;
    let again = [cluster.east(), cluster.west()].map(|node| rows(node, none));
    assert_eq!(records, futures_util::future::join_all(again).await);
    cluster.wait_equal().await;
    undone(&cluster).await;
}

/// Every mended row is in the history, and can be brought back.
async fn undone(cluster: &Cluster) {
    let records = "select key_values[1] || ':' || coalesce(local_values[2], 'none')
        from mmrepl.conflict where kind = 'repair' and table_name = 'items' order by 1";
    assert_eq!(
        rows(cluster.west(), records).await,
        ["1:old", "3:none", "7:v7"]
    );
    assert_eq!(rows(cluster.east(), records).await, ["2:v2", "4:v4"]);
    let id = "select id from mmrepl.conflict
        where kind = 'repair' and table_name = 'items' and key_values[1] = '1'";
    let id = format!("west-{}", cluster.west().value(id).await);
    let said = cluster.mmrepl_ok(&["conflicts", "show", &id]).await;
    assert_says(&said, &["repair in public.items", "old", "v1"]);
    cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    cluster.wait_equal().await;
    for node in [cluster.east(), cluster.west()] {
        assert_eq!(
            rows(node, "select v from items where id = 1").await,
            ["old"]
        );
    }
}
on_usual_majors!(each_kind_of_difference_is_mended, super::kinds);

/// What no version decides is named, everything else is mended, and a person decides the rest.
async fn asked(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), TABLES).await;
    cluster.wait_streaming().await;
    cluster.east().sql(FILL).await;
    cluster.wait_equal().await;
    let (east, west) = (cluster.east(), cluster.west());
    // One version and two values: who made it has the right one.
    let time = "select pg_xact_commit_timestamp(xmin) from items where id = 1";
    let time = east.value(time).await;
    let flip = "update items set v = 'flipped' where id = 1";
    behind(&cluster, west, ("east", &time), flip).await;
    // West made it, and has lost it; there is nobody to ask.
    let flip = "update items set v = 'here' where id = 2";
    behind(&cluster, east, ("west", OLD), flip).await;
    let flip = "update items set v = 'there' where id = 2";
    behind(&cluster, west, ("west", OLD), flip).await;
    let said = cluster.mmrepl_ok(&["verify", "--repair"]).await;
    assert_says(&said, &["2 row(s) were mended"]);
    for node in [east, west] {
        let seen = rows(node, "select v from items where id in (1, 2) order by id").await;
        assert_eq!(seen, ["v1", "there"]);
    }
    let said = cluster
        .mmrepl_fails(&["verify", "--repair", "--from", "north"])
        .await;
    assert_says(&said, &["there is no node `north`"]);
    let json = cluster
        .mmrepl(&["verify", "--repair", "--from", "east", "--json"])
        .await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["equal"], true, "{json}");
}
on_usual_majors!(one_version_is_told_apart_by_who_made_it, super::asked);

/// What the third node made and has lost is asked for; the newest of three counts; a rule that
/// leaves writes to a person does so here.
async fn three(majors: &[u32]) {
    let rule = "[[conflict.table]]\nname = \"public.judged\"\nstrategy = \"manual\"\n";
    let options = ClusterOptions::majors(&[majors[0]; 3]).config(rule);
    let schema = "create table items (id int primary key, v text);
        create table judged (id int primary key, v text)";
    let cluster = Cluster::running_with(options, schema).await;
    cluster.wait_streaming().await;
    let fill = "insert into items select i, 'v' || i from generate_series(1, 100) i;
        insert into judged (id, v) select i, 'v' || i from generate_series(1, 100) i";
    cluster.write_on(cluster.east(), fill).await;
    let (east, west, north) = (cluster.east(), cluster.west(), cluster.node("north"));
    let update = |v: &str, id: u32| format!("update items set v = '{v}' where id = {id}");
    for (node, time, v) in [(west, OLD, "old"), (north, "", "newest")] {
        behind(&cluster, node, ("east", time), &update(v, 1)).await;
    }
    let forget = "delete from items where id in (2, 3); delete from mmrepl.tombstone";
    for node in [west, north] {
        behind(&cluster, node, ("east", ""), forget).await;
    }
    behind(
        &cluster,
        north,
        ("west", ""),
        "delete from items where id = 4",
    )
    .await;
    let said = cluster.mmrepl_ok(&["verify", "--repair"]).await;
    assert_says(&said, &["4 row(s) were mended", "2 table(s) are equal"]);
    for node in [east, west, north] {
        let seen = rows(node, "select id, v from items where id < 6 order by id").await;
        assert_eq!(seen, ["1|newest", "2|v2", "3|v3", "5|v5"]);
    }
    // North made both rows of one version, says each, and has neither.
    behind(&cluster, east, ("north", "2026-02-01"), &update("here", 7)).await;
    behind(&cluster, west, ("north", "2026-02-01"), &update("there", 7)).await;
    behind(&cluster, north, ("north", OLD), &update("old", 7)).await;
    // Two writes that did not know of each other, and nobody was told.
    let judged = "set local mmrepl.applying = 'on';
        update judged set v = 'west', mmrepl_known = '{0,5,0}' where id = 8";
    behind(&cluster, west, ("west", ""), judged).await;
    behind(&cluster, west, ("east", OLD), &update("old", 9)).await;
    let said = cluster.mmrepl_fails(&["verify", "--repair"]).await;
    let told = [
        "1 row(s) were mended",
        "not mended: the rows have one version and different values, and north, where it was made",
        "not mended: neither write knew of the other, and rule manual leaves that to a person",
        "--from NODE",
    ];
    assert_says(&said, &told);
    let said = cluster
        .mmrepl_ok(&["verify", "--repair", "--from", "west"])
        .await;
    assert_says(
        &said,
        &["public.items: 1 row(s)", "public.judged: 1 row(s)"],
    );
    for node in [east, west, north] {
        let seen = rows(
            node,
            "select id, v from items where id in (7, 9) order by id",
        )
        .await;
        assert_eq!(seen, ["7|there", "9|v9"]);
        assert_eq!(
            rows(node, "select v from judged where id = 8").await,
            ["west"]
        );
    }
    cluster.wait_equal().await;
}
on_usual_majors!(the_newest_of_three_counts, super::three);

/// A table without a key, and unique values that have moved.
async fn bags_and_uniques(majors: &[u32]) {
    let schema = "create table loose (a int, v text);
        create table mails (id int primary key, mail text unique, v text)";
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    let fill = "insert into loose select i % 100, 'same' from generate_series(1, 3000) i;
        insert into mails select i, 'mail ' || i, 'v' from generate_series(1, 100) i";
    cluster.write_on(east, fill).await;
    let bag = "delete from loose where ctid in (select ctid from loose where a = 5 limit 3);
        insert into loose values (7, 'same'), (200, null)";
    behind(&cluster, west, ("east", ""), bag).await;
    // East has moved two unique values, and west was not told.
    let swap = "update mails set mail = null where id = 1; update mails set mail = 'mail 1'
        where id = 2; update mails set mail = 'mail 2' where id = 1";
    behind(&cluster, east, ("west", ""), swap).await;
    let said = cluster
        .mmrepl_fails(&["verify", "--repair", "--dry-run"])
        .await;
    assert_says(
        &said,
        &["as often on west as on east", "as often on east as on west"],
    );
    let said = cluster.mmrepl_ok(&["verify", "--repair"]).await;
    assert_says(&said, &["public.loose: 3 row(s)", "public.mails: 2 row(s)"]);
    for node in [east, west] {
        let counts = "select a, count(*) from loose where a in (5, 7, 200) group by a order by a";
        assert_eq!(rows(node, counts).await, ["5|30", "7|31", "200|1"]);
        let mails = "select id, mail from mails where id < 3 order by id";
        assert_eq!(rows(node, mails).await, ["1|mail 2", "2|mail 1"]);
        assert_eq!(
            rows(node, "select count(*) from mmrepl.shadow").await,
            ["0"]
        );
    }
    cluster.wait_equal().await;
    // What one node has too often goes where a person says so, and can be brought back.
    behind(
        &cluster,
        west,
        ("east", ""),
        "insert into loose values (8, 'same'), (8, 'same')",
    )
    .await;
    let from = ["verify", "--repair", "--table", "loose", "--from", "east"];
    cluster.mmrepl_ok(&from).await;
    let count = "select count(*) from loose where a = 8";
    assert_eq!(rows(west, count).await, ["30"]);
    let id = "select max(id) from mmrepl.conflict where kind = 'repair' and rule = 'from'";
    let id = format!("west-{}", west.value(id).await);
    cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
    cluster.wait_equal().await;
    assert_eq!(rows(east, count).await, ["31"]);
}
on_usual_majors!(bags_and_unique_values_are_mended, super::bags_and_uniques);

/// What keys were last set to; nothing where one was deleted.
type Written = BTreeMap<u64, Option<u64>>;

/// An application that sets, deletes and inserts rows that nobody else writes.
fn application(dsn: String, first: u64, stop: Arc<AtomicBool>) -> JoinHandle<Written> {
    tokio::spawn(async move {
        let client = pg::connect(&dsn).await;
        let (mut written, mut rng) = (Written::new(), Rng::from_env(20_261_130 + first));
        for number in 1.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let id = first + 2 * rng.below(KEYS / 2);
            let value = (rng.below(5) > 0).then_some(number);
            let sql = match value {
                None => format!("delete from fresh where id = {id}"),
                Some(n) => format!(
                    "insert into fresh values ({id}, {n})
                     on conflict (id) do update set n = excluded.n"
                ),
            };
            pg::execute(&client, &sql).await;
            written.insert(id, value);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        written
    })
}
/// So many that most damage is found before an application writes over it.
const KEYS: u64 = 2_000;

/// Rows are damaged and mended while applications write them: what was written last is there.
async fn under_load(majors: &[u32]) {
    let schema = "create table fresh (id bigint primary key, n bigint)";
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), schema).await;
    cluster.wait_streaming().await;
    let fill = format!("insert into fresh select i, 0 from generate_series(0, {KEYS} - 1) i");
    cluster.write_on(cluster.east(), &fill).await;
    let stop = Arc::new(AtomicBool::new(false));
    let applications: Vec<JoinHandle<Written>> = [(cluster.east(), 0), (cluster.west(), 1)]
        .map(|(node, first)| application(node.dsn(), first, Arc::clone(&stop)))
        .into();
    let mut rng = Rng::from_env(77);
    let mut mended = 0;
    for _ in 0..6 {
        for _ in 0..10 {
            let id = rng.below(KEYS);
            let damage = match rng.below(3) {
                0 => format!("update fresh set n = -1 where id = {id}"),
                1 => format!("insert into fresh values ({id}, -2) on conflict do nothing"),
                _ => format!(
                    "delete from fresh where id = {id}; delete from mmrepl.tombstone
                    where xmin = pg_current_xact_id()::xid"
                ),
            };
            let node = [cluster.east(), cluster.west()][usize::from(rng.below(2) == 0)];
            let writer = if node.name == "east" { "west" } else { "east" };
            behind(&cluster, node, (writer, OLD), &damage).await;
        }
        let json = cluster.mmrepl(&["verify", "--repair", "--json"]).await;
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        mended += json["tables"][0]["repaired"].as_u64().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut written: Written = (0..KEYS).map(|id| (id, Some(0))).collect();
    for application in applications {
        written.extend(application.await.unwrap());
    }
    cluster.settle().await;
    cluster.mmrepl_ok(&["verify", "--repair"]).await;
    assert!(mended > 0, "nothing was ever mended");
    let expected: Vec<String> = written
        .iter()
        .filter_map(|(id, value)| Some(format!("{id}|{}", (*value)?)))
        .collect();
    for node in [cluster.east(), cluster.west()] {
        let seen = rows(node, "select id, n from fresh where n >= 0 order by id").await;
        assert_eq!(seen, expected, "on {}", node.name);
    }
    cluster.mmrepl_ok(&["verify"]).await;
}
on_usual_majors!(nothing_newer_is_lost_under_load, super::under_load);
