//! The status for people: one line per link, below it what is wrong and what to do.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};

use super::model::{ClusterStatus, Lag, LastError, LinkState, LinkStatus, StatusSource, Workers};
use super::node::NodeStatus;
use crate::commit_time::CommitTime;
use crate::text::visible;

const HEADERS: [&str; 11] = [
    "LINK",
    "STATE",
    "FOR",
    "LAG",
    "TX/S",
    "ROWS/S",
    "APPLIED",
    "CONFLICTS",
    "RETAINED",
    "CLOCK",
    "FROM",
];
/// Columns of numbers are aligned to the right.
const NUMBERS: std::ops::RangeInclusive<usize> = 2..=9;
/// What stands where nobody can know.
const UNKNOWN: &str = "?";
const INDENT: &str = "    ";
/// An error that has passed is told for so long, in microseconds.
const PASSED_MICROS_MAX: i64 = 600_000_000;

const DAEMON_NOTE: &str = "daemon: told by the link's own daemon; rates are of the last 5 seconds, totals since it started.";
const CHECKPOINT_NOTE: &str = "checkpoint: the daemon did not answer; from its checkpoint on this machine, the slot on the source and the position on the target.";
const SERVER_NOTE: &str = "server: the daemon did not answer; from the slot on the source and the position on the target.";
const LIMITS_NOTE: &str = "Without the daemon, lag is an upper bound (<=), and rates, totals, conflicts, clock offset and since when (?) cannot be known.";

const ALONE: &str =
    "no links: the file has one node; a second [[node]] section and `mmrepl init` make two\n";

/// The whole status as text; `color` only for a terminal.
pub fn render(status: &ClusterStatus, color: bool) -> String {
    let mut text = format!("cluster {}, {}\n\n", status.cluster, moment(status.at));
    let table = table(status);
    let mut lines = table.lines().map(|line| line.trim_end().to_owned());
    let head = lines.next().unwrap_or_default();
    text.push_str(&paint(&head, BOLD, color));
    text.push('\n');
    for (line, link) in lines.zip(&status.links) {
        text.push_str(&paint_state(&line, link, color));
        text.push('\n');
        details(&mut text, link, status.at);
    }
    if status.links.is_empty() {
        text.push_str(ALONE);
    }
    for node in &status.nodes {
        about_node(&mut text, node);
    }
    legend(&mut text, status);
    text
}

fn table(status: &ClusterStatus) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(HEADERS);
    for link in &status.links {
        table.add_row(row(link, status.at));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if NUMBERS.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(link: &LinkStatus, now: CommitTime) -> [String; 11] {
    let daemon = link.source == StatusSource::Daemon;
    let known = |text: String| if daemon { text } else { UNKNOWN.to_owned() };
    let applied = link.lsn.applied;
    let offset = link
        .clock_offset_ms
        .map_or(UNKNOWN.to_owned(), |ms| format!("{ms:+.1} ms"));
    [
        link.link().to_string(),
        link.state.to_string(),
        known(duration(now.micros_since(link.since))),
        lag(link.lag),
        known(format!("{:.1}", link.rates.transactions_per_second)),
        known(format!("{:.1}", link.rates.rows_per_second)),
        if applied.is_zero() {
            UNKNOWN.to_owned()
        } else {
            applied.to_string()
        },
        known(link.totals.conflicts.to_string()),
        link.slot
            .as_ref()
            .map_or(UNKNOWN.to_owned(), |slot| bytes(slot.retained_bytes)),
        offset,
        link.source.as_str().to_owned(),
    ]
}

/// What is below a link's line: why it does not stream, a slot in danger, the last error.
fn details(text: &mut String, link: &LinkStatus, now: CommitTime) {
    if let Some(reason) = &link.reason {
        line(text, reason);
    }
    if let Some(slot) = &link.slot
        && !matches!(slot.wal_status.as_str(), "reserved" | "extended")
    {
        line(
            text,
            &format!("WAL of slot {} is {}", slot.name, slot.wal_status),
        );
    }
    if let Some(rows) = link.running_rows {
        let from = &link.from;
        line(
            text,
            &format!("a transaction still running on {from} is being applied: {rows} rows so far"),
        );
    }
    if let Some(workers) = link.workers.filter(|workers| workers.busy > 1) {
        let Workers { busy, all } = workers;
        line(text, &format!("{busy} of {all} workers are writing"));
    }
    for notice in &link.notices {
        line(text, &format!("{}: {}", moment(notice.at), notice.message));
    }
    if let Some(error) = &link.last_error {
        last_error(text, link, (error, now));
    }
}

/// What a link has met and the reason does not say. Once it streams again, only for a while.
fn last_error(text: &mut String, link: &LinkStatus, (error, now): (&LastError, CommitTime)) {
    let streams = link.state == LinkState::Streaming;
    let told = link.reason.as_ref();
    let told = told.is_some_and(|reason| reason.contains(&error.message));
    if told || (streams && now.micros_since(error.at) > PASSED_MICROS_MAX) {
        return;
    }
    let passed = if streams { ", which has passed," } else { "" };
    let word = |before: &str, word: &Option<String>| {
        let word = word.as_ref();
        word.map_or_else(String::new, |word| format!("{before}{word}"))
    };
    let (state, table) = (word(" ", &error.sqlstate), word(" in ", &error.relation));
    let (at, message) = (moment(error.at), &error.message);
    line(
        text,
        &format!("last error{passed} {at}{state}{table}: {message}"),
    );
}

/// Rows that are kept aside, damage, and tombstones that are kept longer than was asked for.
fn about_node(text: &mut String, node: &NodeStatus) {
    if let Some(kept) = node
        .shadows
        .map(|shadows| shadows.kept)
        .filter(|kept| *kept > 0)
    {
        let node = &node.node;
        let sentence = format!(
            "{node} keeps {kept} row(s) aside in mmrepl.shadow: newer rows hold their unique values"
        );
        line(text, &sentence);
    }
    damage(text, node);
    let Some(tombstones) = &node.tombstones else {
        return;
    };
    if let Some(why) = &tombstones.waits_for {
        let (node, kept) = (&node.node, tombstones.kept);
        line(
            text,
            &format!("{node} keeps {kept} tombstones, some for longer than asked: {why}"),
        );
    }
}

/// What is damaged, the first of many.
fn damage(text: &mut String, node: &NodeStatus) {
    const SHOWN: usize = 20;
    for damage in node.damage.iter().take(SHOWN) {
        line(text, &format!("{}: {damage}", node.node));
    }
    let more = node.damage.len().saturating_sub(SHOWN);
    if more > 0 {
        let sentence = format!(
            "{}: {more} more; all are in `mmrepl status --json`",
            node.node
        );
        line(text, &sentence);
    }
}

fn line(text: &mut String, sentence: &str) {
    text.push_str(INDENT);
    text.push_str(&visible(sentence));
    text.push('\n');
}

fn legend(text: &mut String, status: &ClusterStatus) {
    let used = |source| status.links.iter().any(|link| link.source == source);
    text.push('\n');
    let notes = [
        (StatusSource::Daemon, DAEMON_NOTE),
        (StatusSource::Checkpoint, CHECKPOINT_NOTE),
        (StatusSource::Server, SERVER_NOTE),
    ];
    for (_, note) in notes.into_iter().filter(|&(source, _)| used(source)) {
        text.push_str(note);
        text.push('\n');
    }
    if status
        .links
        .iter()
        .any(|link| link.source != StatusSource::Daemon)
    {
        text.push_str(LIMITS_NOTE);
        text.push('\n');
    }
}

fn lag(lag: Lag) -> String {
    let bound = if lag.exact { "" } else { "<= " };
    match lag.seconds {
        None if lag.bytes == 0 => UNKNOWN.to_owned(),
        None => format!("{bound}{} / {UNKNOWN}", bytes(lag.bytes)),
        Some(seconds) => format!("{bound}{} / {seconds:.1} s", bytes(lag.bytes)),
    }
}

/// Bytes in the largest binary unit that keeps the number above 1.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss)] // one decimal is shown
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span of time in its two largest units.
pub fn duration(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `2026-01-31 12:00:00 UTC`.
fn moment(time: CommitTime) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{} UTC", seconds.replace('T', " ")),
        None => text,
    }
}

const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

const fn state_color(state: LinkState) -> &'static str {
    match state {
        LinkState::Streaming => GREEN,
        LinkState::Blocked | LinkState::Stopped | LinkState::Unreachable => RED,
        LinkState::Starting
        | LinkState::Copying
        | LinkState::CatchingUp
        | LinkState::Waiting
        | LinkState::Retrying
        | LinkState::Paused => YELLOW,
    }
}

/// Paints the state in a link's line; the link's own name is left alone, whatever it is.
fn paint_state(row: &str, link: &LinkStatus, color: bool) -> String {
    let state = link.state.as_str();
    let name_length = link.link().to_string().len();
    let (name, rest) = row.split_at_checked(name_length).unwrap_or(("", row));
    format!(
        "{name}{}",
        rest.replacen(state, &paint(state, state_color(link.state), color), 1)
    )
}

fn paint(text: &str, code: &str, color: bool) -> String {
    let mut painted = String::new();
    if color {
        // Writing to a String cannot fail.
        let _ = write!(painted, "\x1b[{code}m{text}\x1b[0m");
    } else {
        painted.push_str(text);
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::status::model::{LastError, Rates, SlotStatus};

    fn at(seconds: i64) -> CommitTime {
        let noon: CommitTime = serde_json::from_str("\"2026-01-31T12:00:00Z\"").unwrap();
        noon.plus_micros(seconds * 1_000_000)
    }

    fn streaming() -> LinkStatus {
        let link = "east->west".parse().unwrap();
        let (name, wal_status) = ("mmrepl_shop_west".into(), "reserved".into());
        let mut status =
            LinkStatus::new(&link, LinkState::Streaming, StatusSource::Daemon, at(-3725));
        status.rates = Rates {
            transactions_per_second: 12.0,
            rows_per_second: 40.25,
        };
        status.slot = Some(SlotStatus {
            name,
            active: true,
            retained_bytes: 1536,
            wal_status,
        });
        status.lsn.applied = Lsn::new(0x1_2345);
        status.clock_offset_ms = Some(0.4);
        status
    }

    fn stopped() -> LinkStatus {
        let link = "west->east".parse().unwrap();
        let mut status = LinkStatus::new(&link, LinkState::Stopped, StatusSource::Server, at(0));
        status.lag = Lag {
            bytes: 3 << 20,
            seconds: Some(61.25),
            exact: false,
        };
        status.reason = Some("the daemon of west does not answer".into());
        status
    }

    fn cluster(links: Vec<LinkStatus>) -> ClusterStatus {
        ClusterStatus {
            cluster: "shop".parse().unwrap(),
            at: at(0),
            links,
            nodes: vec![],
        }
    }

    #[test]
    fn a_line_per_link_and_the_reason_below() {
        let text = render(&cluster(vec![streaming(), stopped()]), false);
        let expected = "\
cluster shop, 2026-01-31 12:00:00 UTC

LINK        STATE            FOR                 LAG  TX/S  ROWS/S  APPLIED  CONFLICTS  RETAINED    CLOCK  FROM
east->west  streaming  1 h 2 min         0 B / 0.0 s  12.0    40.2  0/12345          0    1.5 kB  +0.4 ms  daemon
west->east  stopped            ?  <= 3.0 MB / 61.2 s     ?       ?        ?          ?         ?        ?  server
    the daemon of west does not answer
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with(&format!("\n{DAEMON_NOTE}\n{SERVER_NOTE}\n{LIMITS_NOTE}\n")));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let status = cluster(vec![streaming(), stopped()]);
        let painted = render(&status, true);
        assert!(painted.contains("\x1b[32mstreaming\x1b[0m"), "{painted}");
        assert!(painted.contains("\x1b[31mstopped\x1b[0m"), "{painted}");
        let mut plain = painted;
        for code in [BOLD, GREEN, RED, "0"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, render(&status, false));
    }

    #[test]
    fn errors_and_slots_in_danger_are_told_without_control_characters() {
        let mut status = streaming();
        status.slot.as_mut().unwrap().wal_status = "unreserved".into();
        status.last_error = Some(LastError {
            at: at(-1),
            sqlstate: Some("42703".into()),
            message: "column \"x\" is missing\x1b[2J\nsecond line".into(),
            relation: Some("public.t".into()),
            retryable: false,
        });
        let text = render(&cluster(vec![status]), false);
        assert!(
            text.contains("    WAL of slot mmrepl_shop_west is unreserved\n"),
            "{text}"
        );
        let error = "    last error, which has passed, 2026-01-31 11:59:59 UTC 42703 in public.t: column \"x\" is missing\\u{1b}[2J\\nsecond line\n";
        assert!(text.contains(error), "{text}");
    }

    #[test]
    fn what_nobody_knows_is_a_question_mark() {
        assert_eq!(
            lag(Lag {
                bytes: 0,
                seconds: None,
                exact: false
            }),
            "?"
        );
        assert_eq!(
            lag(Lag {
                bytes: 5,
                seconds: None,
                exact: false
            }),
            "<= 5 B / ?"
        );
        assert_eq!(lag(Lag::default()), "0 B / 0.0 s");
    }

    #[test]
    fn units_grow_with_the_number() {
        assert_eq!(
            [0, 1023, 1024, 5 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 kB", "5.0 GB"]
        );
        assert_eq!(bytes(u64::MAX), "16384.0 PB");
        let micros = [-5, 59, 61, 3600, 90_000].map(|seconds: i64| duration(seconds * 1_000_000));
        assert_eq!(micros, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
    }
}
