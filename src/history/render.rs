//! The history for people. Pure.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};

use super::model::{Column, Conflict, Side, StatsLine};
use crate::commit_time::CommitTime;
use crate::text::visible;

/// Longest key shown in a list, in characters.
const KEY_MAX: usize = 40;
/// Widest value shown side by side, in characters; `--json` has all of it.
const VALUE_MAX: usize = 60;

/// One line per conflict.
pub fn list(conflicts: &[Conflict]) -> String {
    if conflicts.is_empty() {
        return "no conflicts\n".to_owned();
    }
    let headers = ["ID", "DECIDED", "LINK", "TABLE", "KEY", "KIND", "OUTCOME"];
    let mut table = plain(&headers);
    for conflict in conflicts {
        let restored = conflict.restored_at.map_or("", |_| ", restored");
        let resolved = conflict.resolved_as.as_ref();
        let resolved = resolved.map_or_else(String::new, |how| format!(", resolved: {how}"));
        table.add_row([
            conflict.id.to_string(),
            seconds(conflict.decided_at),
            conflict.link.to_string(),
            visible(&conflict.table_name()).into_owned(),
            shortened(&key(conflict), KEY_MAX),
            conflict.kind.clone(),
            format!("{}{restored}{resolved}", conflict.outcome),
        ]);
    }
    trimmed(&table)
}

/// How often what happened.
pub fn stats(lines: &[StatsLine]) -> String {
    if lines.is_empty() {
        return "no conflicts\n".to_owned();
    }
    let headers = ["TABLE", "KIND", "OUTCOME", "DECIDED ON", "COUNT", "LAST"];
    let mut table = plain(&headers);
    for line in lines {
        table.add_row([
            visible(&format!("{}.{}", line.schema, line.table)).into_owned(),
            line.kind.clone().unwrap_or_else(|| "(any)".to_owned()),
            line.outcome
                .clone()
                .unwrap_or_else(|| "not recorded".to_owned()),
            line.node.to_string(),
            line.count.to_string(),
            seconds(line.last),
        ]);
    }
    if let Some(column) = table.column_mut(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = trimmed(&table);
    if lines.iter().any(|line| line.kind.is_none()) {
        text.push_str(
            "\nnot recorded: there were more than `history_per_minute` in a minute; \
             only one in a hundred of those was recorded, the others were counted\n",
        );
    }
    text
}

/// Both rows side by side; `*` marks the columns that differ.
pub fn show(conflict: &Conflict) -> String {
    let mut text = format!(
        "conflict {}: {} in {}, {}\n",
        conflict.id,
        conflict.kind,
        conflict.table_name(),
        key(conflict)
    );
    let outcome = match conflict.outcome.as_str() {
        "applied" => "the incoming write won",
        "pending" => "what was there stays until a person decides",
        "merged" if conflict.rule == "custom" => "the function made one row of both",
        "merged" => "parts of both stayed",
        _ => "what was there stayed",
    };
    let _ = writeln!(
        text,
        "decided on {} at {} by {}: {outcome}",
        conflict.id.node, conflict.decided_at, conflict.rule
    );
    if let Some(at) = conflict.restored_at {
        let _ = writeln!(text, "the losing write was brought back at {at}");
    }
    if let (Some(at), Some(how)) = (conflict.resolved_at, &conflict.resolved_as) {
        let _ = writeln!(text, "resolved at {at}: {how}");
    }
    let _ = write!(text, "\n{}", side_by_side(conflict));
    if conflict.is_pending() {
        let (id, from) = (&conflict.id, &conflict.link.from);
        let _ = writeln!(
            text,
            "\n`mmrepl conflicts resolve {id} --take local` keeps the row of {} on every node, \
             `--take remote` that of {from}",
            id.node
        );
    } else if conflict.outcome != "pending" && conflict.restored_at.is_none() {
        let _ = writeln!(
            text,
            "\n`mmrepl conflicts restore {}` brings the losing write back",
            conflict.id
        );
    }
    text
}

fn side_by_side(conflict: &Conflict) -> String {
    let (won, lost) = (" (won)", " (lost)");
    let marks = match conflict.outcome.as_str() {
        "applied" => (won, lost),
        "pending" => ("", ""),
        _ => (lost, won),
    };
    let mut table = plain(&["", "COLUMN", "INCOMING", "LOCAL"]);
    table.add_row([
        String::new(),
        String::new(),
        format!("{}{}", made(&conflict.incoming), marks.0),
        format!("{}{}", made(&conflict.local), marks.1),
    ]);
    let none = Vec::new();
    let incoming = conflict.incoming.row.as_ref().unwrap_or(&none);
    let local = conflict.local.row.as_ref().unwrap_or(&none);
    let only_local = local.iter().filter(|c| find(incoming, &c.name).is_none());
    for column in incoming.iter().chain(only_local) {
        let (left, right) = (find(incoming, &column.name), find(local, &column.name));
        let both = !incoming.is_empty() && !local.is_empty();
        let differs = both && left.map(|c| &c.value) != right.map(|c| &c.value);
        table.add_row([
            if differs { "*" } else { "" }.to_owned(),
            visible(&column.name).into_owned(),
            shown(left, conflict.incoming.row.is_some()),
            shown(right, conflict.local.row.is_some()),
        ]);
    }
    trimmed(&table)
}

fn find<'a>(row: &'a [Column], name: &str) -> Option<&'a Column> {
    row.iter().find(|column| column.name == name)
}

fn shown(column: Option<&Column>, has_row: bool) -> String {
    match column {
        Some(Column { value: None, .. }) => "NULL".to_owned(),
        Some(Column {
            value: Some(value), ..
        }) => shortened(&visible(value), VALUE_MAX),
        None if has_row => "(not known)".to_owned(),
        None => String::new(),
    }
}

/// `east, 2026-01-31T12:00:00.000000Z`, or that it was a delete.
fn made(side: &Side) -> String {
    let node = side.node.as_ref().map_or("?", |node| node.as_str());
    let at = side.at.map_or_else(|| "?".to_owned(), |at| at.to_string());
    let what = if side.row.is_some() {
        ""
    } else {
        "deleted on "
    };
    let version = side.version.as_ref();
    let version = version.map_or_else(String::new, |version| format!(", version {version}"));
    format!("{what}{node}, {at}{version}")
}

/// `id=7, line=2`.
fn key(conflict: &Conflict) -> String {
    let one = |column: &Column| {
        let value = column
            .value
            .as_deref()
            .map_or_else(|| "NULL".to_owned(), |value| visible(value).into_owned());
        format!("{}={value}", visible(&column.name))
    };
    let columns: Vec<String> = conflict.key.iter().map(one).collect();
    if columns.is_empty() {
        return "(no key)".to_owned();
    }
    columns.join(", ")
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most - 1).collect();
    format!("{start}…")
}

/// A moment without fractions of a second.
fn seconds(at: CommitTime) -> String {
    let text = at.to_string();
    let whole = text.split('.').next().unwrap_or(&text);
    format!("{whole}Z")
}

fn plain(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(headers.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn trimmed(table: &Table) -> String {
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, value: Option<&str>) -> Column {
        Column {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            escaped: false,
        }
    }

    fn conflict() -> Conflict {
        let side = |node: &str, micros, row| Side {
            node: Some(node.parse().unwrap()),
            at: Some(CommitTime::from_postgres_micros(micros)),
            origin: Some(0),
            version: None,
            row,
        };
        let id = || column("id", Some("1"));
        Conflict {
            id: "east-17".parse().unwrap(),
            decided_at: CommitTime::from_postgres_micros(1_500_000),
            link: "west->east".parse().unwrap(),
            schema: "public".to_owned(),
            table: "t".to_owned(),
            key: vec![id()],
            kind: "update_update".to_owned(),
            rule: "last_write_wins".to_owned(),
            outcome: "applied".to_owned(),
            incoming: side("west", 7, Some(vec![id(), column("v", Some("a\x1b[2J"))])),
            local: side("east", 5, Some(vec![id(), column("v", None)])),
            restored_at: None,
            resolved_at: None,
            resolved_as: None,
        }
    }

    #[test]
    fn what_waits_says_how_it_is_decided() {
        let mut waits = conflict();
        waits.outcome = "pending".to_owned();
        let text = show(&waits);
        assert!(
            !text.contains("(won)") && !text.contains("restore"),
            "{text}"
        );
        assert!(text.contains("resolve east-17 --take local` keeps the row of east"));
        waits.resolved_at = Some(CommitTime::default());
        waits.resolved_as = Some("remote".to_owned());
        assert!(show(&waits).contains("resolved at") && !show(&waits).contains("--take"));
        assert!(list(&[waits]).contains("pending, resolved: remote"));
    }

    #[test]
    fn both_rows_stand_side_by_side() {
        let text = show(&conflict());
        assert!(
            text.starts_with("conflict east-17: update_update in public.t, id=1\n"),
            "{text}"
        );
        let line = |name: &str| text.lines().find(|l| l.contains(name)).unwrap().to_owned();
        assert!(line(" v ").starts_with('*'), "{text}");
        assert!(
            line(" v ").contains("a\\u{1b}[2J") && line(" v ").ends_with("NULL"),
            "{text}"
        );
        assert!(
            text.contains("(won)") && text.contains("conflicts restore east-17"),
            "{text}"
        );
    }

    #[test]
    fn a_delete_has_no_row() {
        let mut deleted = conflict();
        deleted.incoming.row = None;
        let text = show(&deleted);
        assert!(text.contains("deleted on west"), "{text}");
        assert!(!text.contains("* "), "{text}");
    }

    #[test]
    fn a_list_has_a_line_each() {
        let text = list(&[conflict()]);
        assert_eq!(text.lines().count(), 2);
        let line = text.lines().nth(1).unwrap();
        for part in ["east-17", "2000-01-01T00:00:01Z", "west->east", "id=1"] {
            assert!(line.contains(part), "{part}: {text}");
        }
        assert_eq!(list(&[]), "no conflicts\n");
    }

    #[test]
    fn what_was_not_recorded_is_said() {
        let line = StatsLine {
            node: "east".parse().unwrap(),
            schema: "public".to_owned(),
            table: "t".to_owned(),
            kind: None,
            outcome: None,
            count: 99,
            last: CommitTime::default(),
        };
        let text = stats(&[line]);
        assert!(
            text.contains("not recorded") && text.contains("99"),
            "{text}"
        );
    }
}
