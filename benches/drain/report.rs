//! The document.

use std::fs::write;

use crate::results::Results;
use crate::{machine, micro, plot, tables};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.svg");

const INTRODUCTION: &str = include_str!("introduction.md");
/// Kept by hand.
const NOTES: &str = include_str!("notes.md");

const BACKLOGS: &str = "A backlog is written while everything is off; then one engine after the other is switched on, and \
the time until its target has all of it is taken. All three read the same WAL (of w5, each its own: mmrepl's triggers \
write there), and the tables must be equal in the end.";
const ONE_TO_ONE: &str = "With two nodes, source transactions that wait together share a target transaction. In a cluster of \
three each is a target transaction of its own, as with the subscription:";
const LATENCY: &str = "Transactions of one insert at a fixed rate by pgbench. The time is that from the commit on the source, by the \
server's own commit timestamp, until a client of the target is notified that the row is there, which happens after \
the commit there; both on one clock. CPU is the share of one core.";
const RATE: &str = "The rate is raised (1000, 2000, 4000, 6000, 8000, 12,000, 16,000, 24,000 per second) until the last tenth of the \
rows is seen more than 250 ms late, or the writers cannot reach it:";
const FAR: &str = "The same backlogs with 10 ms for a round trip between the nodes, made by a proxy that delays what passes and \
limits nothing. A daemon stands beside its source, so all it writes goes through the proxy; a subscription's worker \
stands beside the target and reads through it.";
const CONFLICTS: &str = "Both nodes change every row of a table, each in its own transactions, while nothing is replicated. Then one \
direction is let go: all of its changes are conflicts, which are settled and recorded with both rows. Afterwards the \
other direction is, and both nodes must have the same rows.";

/// All of it.
pub(crate) fn document(results: &Results) -> String {
    let majors = results.majors();
    let all = |table: fn(&Results, u32) -> String| -> String {
        majors
            .iter()
            .map(|major| table(results, *major))
            .collect::<Vec<_>>()
            .join("")
    };
    // Tables of single majors are one table: the heads after the first are left out.
    let one = |table: fn(&Results, u32) -> String| one_table(&all(table));
    let mut text = format!("{INTRODUCTION}\n{}\n", measured_on(results));
    let mut add = |heading: &str, words: &str, body: String| {
        if !body.is_empty() {
            text += &format!("## {heading}\n\n{words}\n\n{}\n\n", body.trim());
        }
    };
    let picture = "![Speed of draining a backlog](performance.svg)\n\n".to_owned();
    add(
        "Backlogs",
        BACKLOGS,
        picture + &all(tables::speed) + &all(tables::cost),
    );
    add("One to one", ONE_TO_ONE, one(tables::one_to_one));
    add("Latency", LATENCY, one(tables::latency));
    add("The highest rate", RATE, one(tables::highest_rate));
    add("Far apart", FAR, one(tables::far));
    add("Conflicts", CONFLICTS, one(tables::conflicts));
    add("The daemon's own work", micro::WORDS, micro::table());
    text + NOTES
}

/// Joins tables that have the same head.
fn one_table(tables: &str) -> String {
    let mut head = Vec::new();
    let mut text = String::new();
    for line in tables.lines() {
        let is_head = head.len() < 2;
        if is_head {
            head.push(line);
        }
        if is_head || !head.contains(&line) {
            text = text + line + "\n";
        }
    }
    text
}

fn measured_on(results: &Results) -> String {
    let mut days: Vec<&str> = results
        .records
        .iter()
        .map(|r| r.at.split(' ').next().unwrap_or(""))
        .collect();
    days.dedup();
    let servers: std::collections::BTreeSet<&str> = results
        .records
        .iter()
        .map(|record| record.server.as_str())
        .collect();
    let servers: Vec<&str> = servers.into_iter().collect();
    format!(
        "{}- PostgreSQL {}; mmrepl {}\n- measured: {}\n",
        machine::describe(),
        servers.join(", "),
        env!("CARGO_PKG_VERSION"),
        days.join(", ")
    )
}

pub(crate) fn write_all(results: &Results) {
    write(DOCUMENT, document(results)).expect("docs/performance.md is writable");
    write(PICTURE, plot::draw(results)).expect("docs/performance.svg is writable");
    println!("wrote docs/performance.md and docs/performance.svg");
}
