//! The case table of docs/conflicts.md, every row by name, on real servers.
//!
//! Each case has a table of its own, so that all of them share one cluster and its pauses. The
//! statements of a case run one after the other, so the later one has the later commit time.
//! Equal commit times cannot be had from servers; `tests/model` has them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cases::{Case, MESH, PAIR};
use crate::on_every_major;
use crate::support::pg::TextRow;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, pg, pool, wait_until};

const EQUAL_LIMIT: Duration = Duration::from_secs(30);

/// A large value that ends in the text; stored out of line, so that the stream leaves it out of
/// updates that do not change it.
const LARGE: &str = "create function large(text) returns text language sql immutable
    as $$ select repeat('.', 2500) || $1 $$;";

/// Every case twice: the second table sends whole old rows.
struct Played<'a> {
    case: &'a Case,
    table: String,
    full: bool,
}

fn played(cases: &[Case]) -> Vec<Played<'_>> {
    let tables = cases.iter().enumerate().flat_map(|(number, case)| {
        [false, true].map(|full| Played {
            case,
            table: format!("c{number}{}", if full { "_full" } else { "" }),
            full,
        })
    });
    tables.collect()
}

impl Played<'_> {
    fn create(&self) -> String {
        let table = &self.table;
        let identity = if self.full { "full" } else { "default" };
        format!(
            "create table {table} (id int primary key, small text, large text);
             alter table {table} alter column large set storage external;
             alter table {table} replica identity {identity};"
        )
    }

    fn sql(&self, text: &str) -> String {
        text.replace("{t}", &self.table)
    }
}

async fn write(cluster: &Cluster, played: &[Played<'_>], of: impl Fn(&Case) -> Writes) {
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

/// Statements, each on a node.
pub type Writes = &'static [(&'static str, &'static str)];

/// What each table holds: `1=small/large`, in the order of keys.
async fn contents(cluster: &Cluster, played: &[Played<'_>], node: usize) -> Vec<TextRow> {
    let of = |one: &Played<'_>| {
        format!(
            "select '{0}', coalesce(string_agg(id || '=' || small || '/' ||
             substr(large, 2501), ' ' order by id), '') from {0}",
            one.table
        )
    };
    let all: Vec<String> = played.iter().map(of).collect();
    cluster.nodes[node].rows(&all.join(" union all ")).await
}

async fn compare(cluster: &Cluster, played: &[Played<'_>]) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let rows = contents(cluster, played, index).await;
        let found: BTreeMap<_, _> = rows
            .iter()
            .map(|row| (row[0].as_deref(), &row[1]))
            .collect();
        for one in played {
            let found = found[&Some(one.table.as_str())]
                .as_deref()
                .unwrap_or("nothing");
            if found != one.case.wanted {
                let (name, wanted) = (one.case.name, one.case.wanted);
                let full = if one.full {
                    " (replica identity full)"
                } else {
                    ""
                };
                wrong.push(format!(
                    "{name}{full}: {} has `{found}`, not `{wanted}`",
                    node.name
                ));
            }
        }
    }
    ensure(wrong.is_empty(), || wrong.join("\n"))
}

/// `before` is written on the first node and goes everywhere, `apart` is written while nothing is
/// applied, then `ahead` gets through to east, then `after` is written, then everything is applied.
async fn play(majors: &[u32], cases: &[Case], ahead: &str) {
    let played = played(cases);
    let tables = played.iter().map(Played::create);
    let schema: String = std::iter::once(LARGE.to_owned()).chain(tables).collect();
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), &schema).await;
    cluster.wait_streaming().await;
    write(&cluster, &played, |case| case.before).await;
    cluster.settle().await;
    cluster.pause_all().await;
    write(&cluster, &played, |case| case.apart).await;
    if cases.iter().any(|case| !case.after.is_empty()) {
        cluster.let_through(ahead, "east").await;
        write(&cluster, &played, |case| case.after).await;
    }
    cluster.resume_all().await;
    cluster.settle().await;
    wait_until("every case", EQUAL_LIMIT, async || {
        compare(&cluster, &played).await
    })
    .await;
}

async fn a_pair(majors: &[u32]) {
    play(majors, &PAIR, "west").await;
}
on_every_major!(two_nodes, super::a_pair);

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes() {
    play(&[pool::usual_major(); 3], &MESH, "north").await;
}

/// Links that apply one after the other must come to the same end as links that run at once.
#[tokio::test(flavor = "multi_thread")]
async fn either_link_may_be_first() {
    for first in ["west", "east"] {
        let played = played(&PAIR);
        let tables = played.iter().map(Played::create);
        let schema: String = std::iter::once(LARGE.to_owned()).chain(tables).collect();
        let cluster = Cluster::running(&schema).await;
        cluster.wait_streaming().await;
        write(&cluster, &played, |case| case.before).await;
        cluster.settle().await;
        cluster.pause_all().await;
        write(&cluster, &played, |case| case.apart).await;
        cluster.let_through("west", "east").await;
        write(&cluster, &played, |case| case.after).await;
        let second = if first == "west" { "east" } else { "west" };
        cluster.let_through(first, second).await;
        cluster.let_through(second, first).await;
        compare(&cluster, &played).await.unwrap();
        cluster.resume_all().await;
    }
}
