//! What each of two nodes has alone, table by table, for a person who must decide whose rows count.
//!
//! A quick look: it ends after a few seconds, waits for no lock, and says where it did not count.
//! Only numbers are told, never keys or values.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use tokio_postgres::Row;

use super::InitError;
use super::compare::{Shared, Tables, positions, row_text, shared, with_rows};
use super::session::{self, Session};
use super::state::NodeState;
use crate::catalog::key_text::key_expression;
use crate::catalog::names::ident;
use crate::catalog::row_text::hash_of;
use crate::catalog::table::Table;
use crate::ids::NodeName;
use crate::lineage::Finding;
use crate::wire::{RowExt, each};

/// How long the whole look takes at most.
const LOOK_MAX: Duration = Duration::from_secs(6);
/// How long one question about one table takes at most.
const SETTINGS: &str = "set statement_timeout = '3s'; set lock_timeout = '500ms';
    set default_transaction_read_only = on";
/// Rows that are compared one by one on each node; what differs beyond is not counted.
const ROWS_MAX: i64 = 100_000;
/// Rows fall into 4096 groups by their keys, and only groups that differ are looked into.
const GROUP: &str = "('x' || pg_catalog.substr(k, 1, 3))::bit(12)::int4";

/// Rows by what the two nodes have of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Keys of the first and of the second node alone.
    alone: [u64; 2],
    /// Keys that both have, with other values.
    other: u64,
    /// There may be more.
    at_least: bool,
}

impl Counts {
    /// What each of the two nodes has alone, as words.
    pub(super) fn told(&self, [a, b]: [&NodeName; 2]) -> String {
        let [on_a, on_b] = self.alone;
        let (about, other) = (if self.at_least { "at least " } else { "" }, self.other);
        format!(
            "{about}{on_a} row(s) on {a} alone, {on_b} row(s) on {b} alone, {other} with other values"
        )
    }

    /// Counts the rows of keys that were looked into.
    pub(super) fn of(keys: &Keys, at_least: bool) -> Self {
        let mut counts = Self {
            at_least,
            ..Self::default()
        };
        for [a, b] in keys.values() {
            counts.alone[0] += a.0.saturating_sub(b.0);
            counts.alone[1] += b.0.saturating_sub(a.0);
            if a.0 == b.0 && a.1 != b.1 {
                counts.other += a.0;
            }
        }
        counts
    }
}

/// How many rows each of two nodes has of a key, by the key's hash, and the sum of their hashes.
pub(super) type Keys = HashMap<i64, [(u64, i64); 2]>;

/// One table that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TableApart {
    table: String,
    /// Nothing where it was not counted.
    counts: Option<Counts>,
}

/// What two nodes do not have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Apart {
    nodes: [NodeName; 2],
    tables: Vec<TableApart>,
    /// Tables that were compared, and those that were not for want of time.
    looked: usize,
    left: usize,
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.nodes;
        let clauses = self.clauses();
        if clauses.is_empty() {
            let looked = self.looked;
            return write!(
                f,
                "{a} and {b} have the same rows in the {looked} table(s) with rows"
            );
        }
        let clauses = clauses.join("; ");
        write!(f, "rows that {a} and {b} do not have in common: {clauses}")
    }
}

impl Apart {
    /// One clause for each table that differs.
    fn clauses(&self) -> Vec<String> {
        let [a, b] = &self.nodes;
        let clause = |TableApart { table, counts }: &TableApart| match counts {
            None => format!("{table} too large for a quick look, not counted"),
            Some(counts) => format!("{table} {}", counts.told([a, b])),
        };
        let mut clauses: Vec<String> = self.tables.iter().map(clause).collect();
        if self.left > 0 {
            clauses.push(format!("{} table(s) not looked at in time", self.left));
        }
        clauses
    }
}

/// Looks at the two ends of the finding's link, where rows say something about it.
pub(super) async fn look(
    finding: &Finding,
    states: &[NodeState],
    sessions: &[Session],
) -> Option<Apart> {
    if !finding.is_about_rows() {
        return None;
    }
    let state = |name: &NodeName| states.iter().find(|state| state.name == *name);
    let names = [&finding.link.from, &finding.link.to];
    let sessions = names.map(|name| session::of(sessions, name));
    let tables = [state(names[0])?, state(names[1])?].map(|state| -> Tables<'_> {
        let tables = state.tables.iter();
        tables.map(|s| (s.table.id(), &s.table)).collect()
    });
    // A server that cannot be asked now has said so before, or says so next.
    look_at(sessions, &tables).await.ok()
}

async fn look_at(sessions: [&Session; 2], tables: &[Tables<'_>; 2]) -> Result<Apart, InitError> {
    for session in sessions {
        session.batch("limit a quick look", SETTINGS).await?;
    }
    let began = Instant::now();
    let mut apart = Apart {
        nodes: sessions.map(|session| session.name().clone()),
        tables: Vec::new(),
        looked: 0,
        left: 0,
    };
    let both = filled(sessions, tables).await?;
    for (at, pair) in both.iter().enumerate() {
        if began.elapsed() > LOOK_MAX {
            apart.left = both.len() - at;
            break;
        }
        apart.looked += 1;
        let shared = shared(pair[0].id(), tables);
        let found = compare(sessions, *pair, &shared).await;
        let counts = found.ok().flatten();
        if counts != Some(Counts::default()) {
            let table = pair[0].readable();
            apart.tables.push(TableApart { table, counts });
        }
    }
    Ok(apart)
}

/// Tables of both nodes that hold rows on one of them, in the order of their names.
async fn filled<'a>(
    sessions: [&Session; 2],
    tables: &[Tables<'a>; 2],
) -> Result<Vec<[&'a Table; 2]>, InitError> {
    let both = |(id, first): (&(&str, &str), &&'a Table)| {
        let second = tables[1].get(id)?;
        Some([*first, *second])
    };
    let mut both: Vec<[&Table; 2]> = tables[0].iter().filter_map(both).collect();
    both.sort_by_key(|pair| pair[0].id());
    let mut filled = vec![false; both.len()];
    for (side, session) in sessions.into_iter().enumerate() {
        let here: Vec<&Table> = both.iter().map(|pair| pair[side]).collect();
        let answers = with_rows(session, &here).await?;
        for (filled, answer) in filled.iter_mut().zip(answers) {
            *filled |= answer;
        }
    }
    let pairs = both.into_iter().zip(filled);
    Ok(pairs
        .filter(|(_, filled)| *filled)
        .map(|(pair, _)| pair)
        .collect())
}

/// Compares one table. Nothing where it is too large.
async fn compare(
    sessions: [&Session; 2],
    pair: [&Table; 2],
    shared: &Shared,
) -> Result<Option<Counts>, InitError> {
    let (keys, is_all) = differing(sessions, pair, shared).await?;
    let counted = is_all || !keys.is_empty();
    Ok(counted.then(|| Counts::of(&keys, !is_all)))
}

/// The keys of one table whose rows differ, and whether those are all: first groups of rows are
/// compared, then the rows of groups that differ, as many as are looked into.
pub(super) async fn differing(
    sessions: [&Session; 2],
    pair: [&Table; 2],
    shared: &Shared,
) -> Result<(Keys, bool), InitError> {
    let (a, b) = tokio::try_join!(
        groups(sessions[0], pair[0], shared),
        groups(sessions[1], pair[1], shared)
    )?;
    let (chosen, is_all) = choose(&a, &b);
    if chosen.is_empty() {
        return Ok((Keys::new(), is_all));
    }
    let (a, b) = tokio::try_join!(
        rows(sessions[0], (pair[0], shared), &chosen),
        rows(sessions[1], (pair[1], shared), &chosen)
    )?;
    Ok((unequal(&a, &b), is_all))
}

/// A group's number, how many rows it has, and the sum of their hashes.
type Groups = HashMap<i32, (i64, String)>;

/// The groups that differ, as many as are looked into, and whether those are all.
fn choose(a: &Groups, b: &Groups) -> (Vec<i32>, bool) {
    let all: BTreeSet<i32> = a.keys().chain(b.keys()).copied().collect();
    let differ = all.into_iter().filter(|group| a.get(group) != b.get(group));
    let (mut chosen, mut is_all, mut sum) = (Vec::new(), true, 0);
    for group in differ {
        let size = |side: &Groups| side.get(&group).map_or(0, |(rows, _)| *rows);
        sum += size(a).max(size(b));
        if sum > ROWS_MAX {
            is_all = false;
            break;
        }
        chosen.push(group);
    }
    (chosen, is_all)
}

async fn groups(session: &Session, table: &Table, shared: &Shared) -> Result<Groups, InitError> {
    let sql = format!(
        "select {GROUP}, pg_catalog.count(*),
             pg_catalog.sum(('x' || pg_catalog.substr(h, 1, 16))::bit(64)::int8)::pg_catalog.text
         from {} group by 1",
        hashed(session, table, shared).await?
    );
    let rows = session.client.query(&sql, &[]).await;
    let what = format!("compare the rows of {}", shared.readable());
    let rows = rows.map_err(InitError::server(session.name(), what))?;
    let group = |row: &Row| Ok((row.read(0)?, (row.read(1)?, row.read(2)?)));
    each(&rows, group).map_err(InitError::unread(session.name()))
}

/// Hashes of key and row.
async fn rows(
    session: &Session,
    (table, shared): (&Table, &Shared),
    groups: &[i32],
) -> Result<Vec<(i64, i64)>, InitError> {
    let sql = format!(
        "select ('x' || pg_catalog.substr(k, 1, 16))::bit(64)::int8,
                ('x' || pg_catalog.substr(h, 1, 16))::bit(64)::int8
         from {} where {GROUP} = any($1)",
        hashed(session, table, shared).await?
    );
    let rows = session.client.query(&sql, &[&groups]).await;
    let what = format!("compare the rows of {}", shared.readable());
    let rows = rows.map_err(InitError::server(session.name(), what))?;
    each(&rows, |row| Ok((row.read(0)?, row.read(1)?))).map_err(InitError::unread(session.name()))
}

/// A table of the hashes of its keys and rows; without a key the whole row is one.
async fn hashed(session: &Session, table: &Table, shared: &Shared) -> Result<String, InitError> {
    let positions = positions(session, table).await?;
    let row = hash_of(&row_text(table, shared, &positions));
    let key = table.key.as_ref().map_or_else(
        || row.clone(),
        |key| hash_of(&key_expression(key, |_, column| ident(&column.name))),
    );
    let rows = table.only();
    Ok(format!("(select {key} as k, {row} as h from {rows}) r"))
}

/// The keys of which the two sides do not have the same rows.
fn unequal(a: &[(i64, i64)], b: &[(i64, i64)]) -> Keys {
    let mut keys = Keys::new();
    for (side, rows) in [a, b].into_iter().enumerate() {
        for (key, hash) in rows {
            let entry = &mut keys.entry(*key).or_default()[side];
            *entry = (entry.0 + 1, entry.1.wrapping_add(*hash));
        }
    }
    keys.retain(|_, [a, b]| a != b);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_by_key() {
        let keys = unequal(
            &[(1, 10), (2, 20), (3, 30), (9, 9), (9, 9)],
            &[(1, 10), (3, 31), (4, 40), (9, 9)],
        );
        let counts = Counts::of(&keys, false);
        assert_eq!((counts.alone, counts.other), ([2, 1], 1));
    }

    #[test]
    fn only_what_differs_is_looked_into_up_to_a_limit() {
        let groups = |list: &[(i32, i64)]| -> Groups {
            let group = |(group, rows): &(i32, i64)| (*group, (*rows, String::new()));
            list.iter().map(group).collect()
        };
        let a = groups(&[(1, 5), (2, 6), (3, 7)]);
        assert_eq!(choose(&a, &a), (vec![], true));
        assert_eq!(choose(&a, &groups(&[(1, 5), (2, 5)])), (vec![2, 3], true));
        let large = groups(&[(1, 5), (2, ROWS_MAX), (3, 1)]);
        assert_eq!(choose(&a, &large), (vec![2], false));
        assert_eq!(
            choose(&groups(&[]), &groups(&[(1, ROWS_MAX + 1)])),
            (vec![], false)
        );
    }

    #[test]
    fn the_sentence_says_what_was_not_counted() {
        let table = |table: &str, counts| TableApart {
            table: table.to_owned(),
            counts,
        };
        let counts = Counts {
            alone: [2, 0],
            other: 1,
            at_least: true,
        };
        let mut apart = Apart {
            nodes: ["east".parse().unwrap(), "west".parse().unwrap()],
            tables: vec![table("public.t", Some(counts)), table("public.u", None)],
            looked: 2,
            left: 3,
        };
        assert_eq!(
            apart.to_string(),
            "rows that east and west do not have in common: public.t at least 2 row(s) on east \
             alone, 0 row(s) on west alone, 1 with other values; public.u too large for a quick look, \
             not counted; 3 table(s) not looked at in time"
        );
        apart.tables.clear();
        apart.left = 0;
        assert_eq!(
            apart.to_string(),
            "east and west have the same rows in the 2 table(s) with rows"
        );
    }
}
