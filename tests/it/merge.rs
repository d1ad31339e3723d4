//! Rows of which more than one write survives: counters, and columns decided each by itself.

use crate::on_every_major;
use crate::support::{Cluster, ClusterOptions};

/// `stock` under a rule.
fn options(majors: &[u32], rule: &str) -> ClusterOptions {
    let table = format!("[[conflict.table]]\nname = \"public.stock\"\n{rule}\n");
    ClusterOptions::majors(majors).config(&table)
}

fn pair(rule: &str) -> ClusterOptions {
    options(&ClusterOptions::pair().majors, rule)
}

const COUNTERS: &str = "strategy = \"hybrid_clock\"\ndelta_columns = [\"on_hand\", \"worth\"]";
const COLUMNS: &str = "strategy = \"column_merge\"";
const BOTH: &str = "strategy = \"column_merge\"\ndelta_columns = [\"on_hand\", \"worth\"]";

const SCHEMA: &str = "create table stock (id int primary key, on_hand int not null default 0,
    worth numeric(12,2) not null default 0, note text, place text)";

async fn start(options: ClusterOptions) -> Cluster {
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
}

/// What all nodes have, as `1:7:10.00:note:place`.
async fn stock(cluster: &Cluster) -> String {
    let sql = "select coalesce(string_agg(concat_ws(':', id, on_hand, worth, note, place), ' '
        order by id), 'none') from stock";
    cluster.west().value(sql).await
}

const FILL: &str = "insert into stock values (1, 10, 5.00, 'n', 'p'), (2, 20, 0, 'n', 'p')";

async fn changes_add_up(majors: &[u32]) {
    for rule in [COUNTERS, BOTH] {
        let cluster = start(options(majors, rule)).await;
        cluster.write_on(cluster.east(), FILL).await;
        let east = "update stock set on_hand = on_hand - 3, worth = worth + 0.5 where id = 1;
            update stock set on_hand = on_hand - 1 where id = 1;
            update stock set note = 'east' where id = 2";
        let west = "update stock set on_hand = on_hand + 4, worth = worth * 2 where id = 1;
            update stock set on_hand = 25 where id = 2";
        cluster.write_apart(east, west).await;
        assert_eq!(
            stock(&cluster).await.split(' ').next().unwrap(),
            "1:10:10.50:n:p"
        );
        let on_hand = "select string_agg(on_hand::text, ' ' order by id) from stock";
        assert_eq!(cluster.east().value(on_hand).await, "10 25");
        // With what the other did in view: nothing counts twice.
        cluster
            .write_on(cluster.west(), "update stock set on_hand = on_hand + 1")
            .await;
        cluster
            .write_on(cluster.east(), "update stock set on_hand = on_hand + 1")
            .await;
        assert_eq!(cluster.west().value(on_hand).await, "12 27");
    }
}
on_every_major!(changes_on_both_nodes_add_up, super::changes_add_up);

async fn both_editors_win(majors: &[u32]) {
    for rule in [COLUMNS, BOTH] {
        let cluster = start(options(majors, rule)).await;
        cluster.write_on(cluster.east(), FILL).await;
        let east = "update stock set note = 'east' where id = 1;
            update stock set place = 'east' where id = 2";
        let west = "update stock set place = 'west'";
        cluster.write_apart(east, west).await;
        assert_eq!(
            stock(&cluster).await,
            "1:10:5.00:east:west 2:20:0.00:n:west"
        );
        // Also to NULL, and by a statement that names every column.
        let east = "update stock set note = null where id = 1;
            insert into stock values (2, 20, 0, 'upsert', 'west') on conflict (id)
            do update set note = excluded.note, place = excluded.place";
        cluster
            .write_apart(east, "update stock set place = 'p2'")
            .await;
        assert_eq!(stock(&cluster).await, "1:10:5.00:p2 2:20:0.00:upsert:p2");
    }
}
on_every_major!(two_people_may_edit_one_row, super::both_editors_win);

/// Deletes, rows that come back, the same row made twice.
async fn rows_come_and_go(majors: &[u32]) {
    let cluster = start(options(majors, BOTH)).await;
    cluster.write_on(cluster.east(), FILL).await;
    // The delete is later: what was written before it is gone.
    cluster
        .write_apart(
            "update stock set on_hand = on_hand + 1 where id = 1; delete from stock where id = 2",
            "delete from stock where id = 1; update stock set note = 'w', on_hand = 7 where id = 2",
        )
        .await;
    // West's update is later than east's delete: the row is back, as a whole.
    assert_eq!(stock(&cluster).await, "2:7:0.00:w:p");
    // A row that is made anew begins anew.
    cluster
        .write_apart(
            "update stock set on_hand = on_hand + 100 where id = 2",
            "delete from stock where id = 2; insert into stock values (2, 50, 1, 'new', 'new')",
        )
        .await;
    assert_eq!(stock(&cluster).await, "2:50:1.00:new:new");
    cluster
        .write_on(cluster.east(), "update stock set on_hand = on_hand - 1")
        .await;
    assert_eq!(stock(&cluster).await, "2:49:1.00:new:new");
    // Made on both: the later insert counts, and what was changed after it.
    cluster.write_apart("insert into stock values (3, 1, 1, 'e', 'e')",
        "insert into stock values (3, 2, 2, 'w', 'w'); update stock set on_hand = 5 where id = 3",
    )
    .await;
    assert_eq!(stock(&cluster).await, "2:49:1.00:new:new 3:5:2.00:w:w");
    // Another key begins anew; a truncate deletes.
    cluster
        .write_apart(
            "update stock set id = 4, on_hand = on_hand + 1 where id = 3",
            "update stock set on_hand = on_hand + 1 where id = 2",
        )
        .await;
    assert_eq!(stock(&cluster).await, "2:50:1.00:new:new 4:6:2.00:w:w");
    cluster
        .write_apart("update stock set on_hand = 1", "truncate stock")
        .await;
    assert_eq!(stock(&cluster).await, "none");
    cluster
        .write_on(cluster.east(), "insert into stock values (2, 8), (4, 9)")
        .await;
    assert_eq!(stock(&cluster).await, "2:8:0.00 4:9:0.00");
}
on_every_major!(rows_that_merge_come_and_go, super::rows_come_and_go);

/// What arrives too late for the row to be there is still known when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_keeps_what_the_row_held() {
    let majors = vec![ClusterOptions::pair().majors[0]; 3];
    let cluster = start(options(&majors, BOTH)).await;
    cluster.write_on(cluster.east(), FILL).await;
    cluster.pause_all().await;
    cluster
        .node("north")
        .sql("update stock set note = 'north', on_hand = on_hand + 1")
        .await;
    cluster.east().sql("delete from stock where id = 1").await;
    cluster
        .west()
        .sql("update stock set place = 'west', on_hand = on_hand + 10")
        .await;
    // West hears of the delete, which loses, then of north's edit; east the other way round.
    for (from, to) in [
        ("east", "west"),
        ("north", "east"),
        ("west", "east"),
        ("north", "west"),
    ] {
        cluster.let_through(from, to).await;
    }
    cluster.resume_all().await;
    cluster.wait_equal().await;
    assert_eq!(
        stock(&cluster).await,
        "1:21:5.00:north:west 2:31:0.00:north:west"
    );
}

/// Every node counts on its own, and all have the sum.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_add_up() {
    let majors = vec![ClusterOptions::pair().majors[0]; 3];
    let cluster = start(options(&majors, COUNTERS)).await;
    cluster.write_on(cluster.east(), FILL).await;
    for round in 0..3 {
        if round != 1 {
            cluster.pause_all().await;
        }
        for (node, by) in [("east", 1), ("west", 10), ("north", 100)] {
            for _ in 0..3 {
                let sql = format!("update stock set on_hand = on_hand + {by}");
                cluster.node(node).sql(&sql).await;
            }
        }
        cluster.resume_all().await;
        cluster.wait_equal().await;
        let more = 333 * (round + 1);
        let wanted = format!("1:{}:5.00:n:p 2:{}:0.00:n:p", 10 + more, 20 + more);
        assert_eq!(stock(&cluster).await, wanted);
    }
}

/// A link that starts again does not count twice what it had applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_does_not_count_twice() {
    let mut cluster = start(pair(COUNTERS)).await;
    cluster.write_on(cluster.east(), FILL).await;
    for _ in 0..3 {
        for _ in 0..10 {
            cluster
                .east()
                .sql("update stock set on_hand = on_hand + 1")
                .await;
            cluster
                .west()
                .sql("update stock set on_hand = on_hand + 1")
                .await;
        }
        cluster.take_daemon("west").kill9();
        cluster
            .east()
            .sql("update stock set on_hand = on_hand + 1")
            .await;
        cluster.start_daemon("west");
    }
    cluster.wait_equal().await;
    assert_eq!(stock(&cluster).await, "1:73:5.00:n:p 2:83:0.00:n:p");
}

/// Values of every kind go through a merge as they are, large ones too.
#[tokio::test(flavor = "multi_thread")]
async fn values_stay_as_they_are() {
    let schema = "create type pair as (a int, b text);
        create table stock (id numeric primary key, on_hand numeric not null, worth bigint not null,
        note text, place text, t timestamptz, i interval, f float8, b bytea, j json, jb jsonb,
        x text[], c char(5), p pair, m point, \"odd \"\"name\" text,
        g int generated always as (length(note)) stored, k int generated always as identity)";
    let cluster = Cluster::running_with(pair(BOTH), schema).await;
    cluster.wait_streaming().await;
    let fill = "alter table stock alter note set storage external;
        insert into stock select 1.50, 1.5, 9223372036854775000, repeat('x', 100000), 'p',
        '0044-03-15 12:00+00 BC', '1 mon -3 days', 'nan', '\\x00ff', '{\"a\":  1}', '{\"b\": 1.0}',
        array['a', null, '\"q'], 'ab', row(null, 'x')::pair, '(1,2)', 'o''\\dd'";
    cluster
        .east()
        .sql("alter table stock alter note set storage external")
        .await;
    cluster.write_on(cluster.east(), fill).await;
    let all = "select md5(stock::text) from stock";
    let east =
        "update stock set on_hand = on_hand + 0.25, f = 0.1::float8 + 0.2, p = row(null, null)";
    let west = "update stock set on_hand = on_hand + 1, worth = worth + 7, place = 'w', x[2] = 'y'";
    cluster.write_apart(east, west).await;
    let same = "select on_hand || ' ' || worth || ' ' || f || ' ' || place || ' ' || x::text || ' '
        || length(note) || ' ' || g || ' ' || (p is null)::text from stock";
    assert_eq!(
        cluster.west().value(same).await,
        "2.75 9223372036854775007 0.30000000000000004 w {a,y,\"\\\"q\"} 100000 100000 true"
    );
    assert_eq!(
        cluster.east().value(all).await,
        cluster.west().value(all).await
    );
    // A scale that shrinks again, a delete that loses, the whole row once more.
    cluster
        .write_on(cluster.east(), "update stock set on_hand = 3")
        .await;
    cluster.pause_all().await;
    cluster.east().sql("delete from stock").await;
    cluster.west().sql("update stock set place = 'later'").await;
    cluster.resume_all().await;
    cluster.wait_equal().await;
    assert_eq!(
        cluster.east().value(all).await,
        cluster.west().value(all).await
    );
    assert_eq!(
        cluster
            .east()
            .value("select on_hand || place from stock")
            .await,
        "3.00later"
    );
}

/// Rows from before the rule, and an application's own trigger that changes the row last.
#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_the_rule_merge() {
    let mut cluster = Cluster::running_with(ClusterOptions::pair(), SCHEMA).await;
    cluster.wait_streaming().await;
    cluster.write_on(cluster.east(), FILL).await;
    cluster.stop_daemons();
    cluster.rewrite_config(&format!(
        "[[conflict.table]]\nname = \"public.stock\"\n{BOTH}\n"
    ));
    cluster
        .sql_everywhere(
            "create function later() returns trigger language plpgsql as
                 $$ begin new.place := new.place || '!'; return new; end $$;
             create trigger zz_later before update on stock for each row
                 when (old.note is distinct from new.note) execute function later()",
        )
        .await;
    cluster.init().await;
    assert!(cluster.mmrepl_ok(&["init"]).await.contains("nothing"));
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster
        .write_apart(
            "update stock set on_hand = on_hand + 1, note = 'e' where id = 1;
         delete from stock where id = 2",
            "update stock set on_hand = on_hand + 2, worth = 6 where id = 1",
        )
        .await;
    assert_eq!(stock(&cluster).await, "1:13:6.00:e:p!");
    // A column that is new goes with the row until `init` knows it.
    cluster
        .sql_everywhere("alter table stock add column colour text")
        .await;
    cluster
        .write_on(cluster.west(), "update stock set colour = 'red'")
        .await;
    assert!(
        cluster
            .mmrepl_ok(&["init"])
            .await
            .contains("prepare public.stock")
    );
    cluster
        .write_apart(
            "update stock set colour = 'blue'",
            "update stock set note = 'w'",
        )
        .await;
    assert_eq!(
        cluster
            .east()
            .value("select note || colour || place from stock")
            .await,
        "wbluep!!"
    );
    cluster.stop_daemons();
    cluster.mmrepl_ok(&["drop", "--yes", "--discard"]).await;
    let ours = "select (select count(*) from pg_attribute where attname like 'mmrepl%'
            and not attisdropped)
        + (select count(*) from pg_trigger where tgname like '%mmrepl%')";
    assert_eq!(cluster.east().value(ours).await, "0");
}

/// What met what is in the history; where neither side's row stayed, it says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_merged() {
    let cluster = start(pair(BOTH)).await;
    cluster.write_on(cluster.east(), FILL).await;
    cluster
        .write_apart(
            "update stock set note = 'e' where id = 1",
            "update stock set place = 'w' where id = 1",
        )
        .await;
    let said =
        "select string_agg(distinct concat_ws(' ', kind, rule, outcome), ',') from mmrepl.conflict";
    for node in [cluster.east(), cluster.west()] {
        assert_eq!(node.value(said).await, "update_update column_merge merged");
    }
    let shown = cluster.mmrepl_ok(&["conflicts", "list"]).await;
    assert!(shown.contains("merged"), "{shown}");
}

/// Of two writes that both won in part, what each lost comes back, and nothing else is touched.
#[tokio::test(flavor = "multi_thread")]
async fn lost_values_of_a_merge_are_restored() {
    for node in ["east", "west"] {
        let cluster = start(pair(BOTH)).await;
        cluster.write_on(cluster.west(), FILL).await;
        cluster
            .write_apart(
                "update stock set note = 'e', place = 'pe', on_hand = on_hand + 1 where id = 1",
                "update stock set note = 'w', on_hand = on_hand + 2 where id = 1",
            )
            .await;
        assert_eq!(
            stock(&cluster).await.split(' ').next().unwrap(),
            "1:13:5.00:w:pe"
        );
        let number = cluster
            .node(node)
            .value("select id from mmrepl.conflict")
            .await;
        let id = format!("{node}-{number}");
        cluster.mmrepl_ok(&["conflicts", "restore", &id]).await;
        cluster.wait_equal().await;
        assert_eq!(
            stock(&cluster).await.split(' ').next().unwrap(),
            "1:13:5.00:e:pe",
            "restored on {node}"
        );
    }
}

/// What cannot add up is refused before anything is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_cannot_add_up_is_refused() {
    let table = |columns: &str| format!("create table stock (id int primary key, {columns})");
    for (columns, said) in [
        (
            "on_hand int not null",
            "column worth of public.stock does not exist",
        ),
        (
            "on_hand int not null, worth real not null",
            "worth of public.stock is real and not",
        ),
        (
            "on_hand int, worth int not null",
            "alter column \"on_hand\" set not null",
        ),
    ] {
        let cluster = Cluster::start(pair(COUNTERS)).await;
        cluster.sql_everywhere(&table(columns)).await;
        let output = cluster.mmrepl_fails(&["init"]).await;
        assert!(output.contains(said), "{output}");
    }
    let cluster = Cluster::start(pair(COUNTERS)).await;
    let columns = "on_hand int not null check (on_hand >= 0), worth numeric not null";
    cluster.sql_everywhere(&table(columns)).await;
    let output = cluster.mmrepl_ok(&["check"]).await;
    assert!(output.contains("stock_on_hand_check checks it"), "{output}");
    cluster.init().await;
    let refused = cluster.east().client().await;
    let refused = refused
        .batch_execute("insert into stock values (1, 1, 'NaN')")
        .await;
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "22003");
}
