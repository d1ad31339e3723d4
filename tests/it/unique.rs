//! Unique values on several nodes: nothing stops, nothing is lost, all nodes show the same rows.

use std::collections::BTreeMap;

use crate::on_every_major;
use crate::support::pg::TextRow;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, Node, pg, wait_until};
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
