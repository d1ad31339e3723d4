//! The rows that differ, for people.

use super::error::AskError;
use super::judge::is_equal;
use super::report::{Difference, DifferenceKind, NodeRow, Repair};
use super::scan::{Seen, Side, Suspect};

/// Reads both rows and their versions of each suspect that was found to differ.
pub(super) async fn differences(
    sides: &[Side<'_>],
    found: Vec<(Suspect, Option<Repair>)>,
) -> Result<Vec<Difference>, AskError> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let (found, told): (Vec<Suspect>, Vec<Option<Repair>>) = found.into_iter().unzip();
    let mut looks = Vec::new();
    for side in sides {
        looks.push(side.look(&found, true).await?);
    }
    let difference = |((at, suspect), repair): ((usize, &Suspect), Option<Repair>)| {
        let seen: Vec<Option<Seen>> = looks.iter().map(|look| look[at].clone()).collect();
        Difference {
            key: key(sides, suspect),
            kind: kind(&seen, suspect),
            rows: sides
                .iter()
                .zip(seen)
                .map(|(side, seen)| row(side, seen))
                .collect(),
            repair,
        }
    };
    let mut differences: Vec<Difference> =
        found.iter().enumerate().zip(told).map(difference).collect();
    differences.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(differences)
}

fn key(sides: &[Side<'_>], suspect: &Suspect) -> std::collections::BTreeMap<String, String> {
    let key = sides
        .first()
        .and_then(|side| side.compared.table.key.as_ref());
    let columns = key.iter().flat_map(|key| &key.columns);
    let names = columns.map(|column| column.name.clone());
    names.zip(suspect.key.iter().cloned()).collect()
}

/// A row that somebody has mended since is told as what it was.
fn kind(seen: &[Option<Seen>], suspect: &Suspect) -> DifferenceKind {
    let is_somewhere_missing = seen.iter().any(Option::is_none);
    if suspect.key.is_empty() {
        DifferenceKind::Count
    } else if is_somewhere_missing && !is_equal(seen) {
        DifferenceKind::Missing
    } else {
        DifferenceKind::Value
    }
}

fn row(side: &Side<'_>, seen: Option<Seen>) -> NodeRow {
    let has_key = side.compared.table.key.is_some();
    let count = seen
        .as_ref()
        .map_or(0, |seen| if has_key { 1 } else { seen.content });
    let shown = seen.and_then(|seen| seen.shown);
    let values = shown.as_ref().map(|shown| {
        let names = side.compared.columns.iter().cloned();
        names.zip(shown.values.iter().cloned()).collect()
    });
    let (written_at, written_by) =
        shown.map_or((None, None), |shown| (shown.written_at, shown.written_by));
    NodeRow {
        node: side.node.clone(),
        count,
        row: values,
        written_at,
        written_by,
    }
}
