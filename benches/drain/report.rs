//! The document.

use std::fs::write;

use crate::results::Results;
use crate::{machine, micro, plot, tables};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.svg");

const TEMPLATE: &str = include_str!("performance.md");
/// What another bench measured.
const OVERHEAD: &str = include_str!("../overhead/figures.md");
/// Kept by hand.
const NOTES: &str = include_str!("notes.md");

/// All of it.
pub(crate) fn document(results: &Results) -> String {
    let majors = results.majors();
    let all = |table: fn(&Results, u32) -> String| -> String {
        majors.iter().map(|major| table(results, *major)).collect()
    };
    // What has few lines for each major is one table.
    let one = |table: fn(&Results, u32) -> String| one_table(&all(table));
    let parts = [
        ("machine", measured_on(results)),
        ("speed", all(tables::speed)),
        ("cost", all(tables::cost)),
        ("socket", one(tables::socket)),
        ("workers", one(tables::workers)),
        ("three_nodes", one(tables::three_nodes)),
        ("latency", one(tables::latency)),
        ("rate", one(tables::highest_rate)),
        ("far", one(tables::far)),
        ("conflicts", one(tables::conflicts)),
        ("overhead", OVERHEAD.to_owned()),
        ("micro", micro::table()),
        ("notes", NOTES.to_owned()),
    ];
    parts
        .iter()
        .fold(TEMPLATE.to_owned(), |text, (name, part)| {
            let shown = if part.is_empty() {
                "Not measured."
            } else {
                part.trim()
            };
            text.replace(&format!("{{{name}}}"), shown)
        })
        + "\n"
}

/// Joins tables that have the same head; sentences under them come last.
fn one_table(tables: &str) -> String {
    let (rows, others): (Vec<&str>, Vec<&str>) = tables
        .lines()
        .filter(|line| !line.is_empty())
        .partition(|line| line.starts_with('|'));
    let head: Vec<&str> = rows.iter().copied().take(2).collect();
    let first = rows.iter().take(2);
    let others = others.iter().flat_map(|line| ["", line]);
    let body = rows.iter().skip(2).filter(|line| !head.contains(line));
    let lines: Vec<&str> = first.chain(body).copied().chain(others).collect();
    lines.join("\n")
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
