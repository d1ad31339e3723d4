//! The orders in which `docs/operations.md` has tables changed, each with writers at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};

const SCHEMA: &str = "
    create table doc (id int primary key, v text, old text not null default 'o', n int default 0);
    insert into doc (id, v) select n, 'start' from generate_series(1, 40) n;
    create table other (id int primary key, v text);
    insert into other select n, 'start' from generate_series(1, 40) n;";

/// Writers on both nodes, which cross on few rows.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Each of the statements in turn, on every node, `$n` being a number.
    async fn start(cluster: &Cluster, statements: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (index, node) in cluster.nodes.iter().enumerate() {
            let (client, stop) = (node.client().await, Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                let mut number = index * 7;
                while !stop.load(Ordering::Relaxed) {
                    for statement in statements {
                        let id = (number * 13 % 50).to_string();
                        let sql = statement.replace("$n", &id);
                        pg::execute(&client, &sql).await;
                        number += 1;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }));
        }
        Self { stop, tasks }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

const DOC: &[&str] = &[
    "update doc set v = 'v$n', n = n + 1 where id = $n",
    "insert into doc (id, v) values ($n, 'new') on conflict (id) do update set v = 'again'",
    "delete from doc where id = $n",
];
const COLOUR: &[&str] = &["update doc set colour = 'c$n' where id = $n"];
const OTHER: &[&str] = &["update other set v = 'v$n' where id = $n"];
const LATER: &[&str] = &[
    "insert into later values ($n, 'new') on conflict (id) do update set v = 'again'",
    "delete from later where id = $n",
];

async fn add_a_column(cluster: &Cluster) {
    let writers = Writers::start(cluster, DOC).await;
    for node in &cluster.nodes {
        node.sql("alter table doc add column colour text default 'none'")
            .await;
        node.sql("alter table doc add column plain int").await;
    }
    let setting = Writers::start(cluster, COLOUR).await;
    cluster.settle().await;
    setting.end().await;
    writers.end().await;
    cluster.wait_equal().await;
}

async fn drop_a_column(cluster: &Cluster) {
    let writers = Writers::start(cluster, DOC).await;
    for drop in ["not null", "default"] {
        let alter = format!("alter table doc alter old drop {drop}");
        cluster.sql_everywhere(&alter).await;
    }
    // A row that was written on another node meanwhile may keep its value: once more.
    wait_until("the column to be NULL everywhere", LIMIT, async || {
        cluster.settle().await;
        let mut left = 0;
        for node in &cluster.nodes {
            let count = node.value("select count(*) from doc where old is not null");
            left += count.await.parse::<i64>().unwrap();
        }
        let unset = "update doc set old = null where old is not null";
        cluster.east().sql(unset).await;
        ensure(left == 0, || format!("{left} rows"))
    })
    .await;
    cluster
        .sql_everywhere("alter table doc drop column old")
        .await;
    cluster.settle().await;
    writers.end().await;
    cluster.wait_equal().await;
}

async fn rename(cluster: &Cluster) {
    let writers = Writers::start(cluster, OTHER).await;
    // Nobody writes `doc`.
    cluster.settle().await;
    cluster
        .sql_everywhere("alter table doc rename v to w; alter table doc rename to paper")
        .await;
    cluster.init().await;
    let renamed: &[&str] = &[
        "update paper set w = 'w$n' where id = $n",
        "delete from paper where id = $n",
        "insert into paper (id, w) values ($n, 'new') on conflict (id) do nothing",
    ];
    let papers = Writers::start(cluster, renamed).await;
    cluster.settle().await;
    papers.end().await;
    writers.end().await;
    cluster.wait_equal().await;
}

async fn add_and_drop_a_table(cluster: &Cluster) {
    let writers = Writers::start(cluster, OTHER).await;
    cluster
        .sql_everywhere("create table later (id int primary key, v text)")
        .await;
    cluster.init().await;
    let later = Writers::start(cluster, LATER).await;
    cluster.settle().await;
    later.end().await;
    cluster.settle().await;
    cluster.sql_everywhere("drop table later").await;
    cluster.settle().await;
    writers.end().await;
    cluster.wait_equal().await;
}

/// Each order as it is written leaves the nodes equal, with nothing blocked and nothing damaged.
async fn as_documented(majors: &[u32]) {
    let mut cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    // One node may have the column a moment before the other.
    cluster.allow_error("colour");
    cluster.wait_streaming().await;
    add_a_column(&cluster).await;
    drop_a_column(&cluster).await;
    rename(&cluster).await;
    add_and_drop_a_table(&cluster).await;
    cluster.wait_streaming().await;
    wait_until("nothing to be damaged", LIMIT, async || {
        let said = cluster.mmrepl(&["status"]).await;
        ensure(said.status.success(), || format!("{said:?}"))
    })
    .await;
    // Set at once, while an older row is under way: what cannot be made equal is told.
    cluster.stop_daemons();
    let (east, west) = (cluster.east(), cluster.west());
    let set = "alter table other add column shape text; update other set shape = 's' where id = 1";
    east.sql(set).await;
    west.sql("update other set v = 'later' where id = 1; alter table other add column shape text")
        .await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster.settle().await;
    let notice = "rows of public.other that west wrote without shape keep the value";
    wait_until("the notice", LIMIT, async || {
        let link = cluster.link_status("west", "east").await?;
        let notices = link["notices"].to_string();
        ensure(notices.contains(notice), || link.to_string())
    })
    .await;
}
on_usual_majors!(go_in_the_documented_order, super::as_documented);
