//! What a drop would throw away: rows kept aside, conflicts that wait for a person, the history.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::InitError;
use super::remembered::relation_exists;
use super::session::Session;
use crate::wire::RowExt;

/// How much of each a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) aside: i64,
    pub(super) pending: i64,
    pub(super) history: i64,
}

impl Counts {
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Says what the node has, for people.
pub(super) fn told(counts: Counts) -> String {
    let parts = [
        (counts.aside, "row(s) kept aside"),
        (counts.pending, "conflict(s) that wait for a person"),
        (counts.history, "decided conflict(s)"),
    ];
    let some = parts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<String> = some
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    some.join(", ")
}

/// Every record as one JSON object. Servers of an older version lack some columns.
const ASIDE: &str = "select (pg_catalog.to_jsonb(s) - 'relation' || pg_catalog.jsonb_build_object(
        'node', $1::pg_catalog.text, 'kept', 'row aside',
        'table', s.relation::pg_catalog.regclass::pg_catalog.text))::pg_catalog.text
    from mmrepl.shadow s order by s.relation, s.key";
const CONFLICTS: &str = "select (pg_catalog.to_jsonb(c) || pg_catalog.jsonb_build_object(
        'node', $1::pg_catalog.text, 'kept', 'conflict'))::pg_catalog.text
    from mmrepl.conflict c order by c.id";

/// Counts what the session's node has.
pub(super) async fn count(session: &Session) -> Result<Counts, InitError> {
    let mut counts = Counts::default();
    let failed = || InitError::server(session.name(), "count what is kept");
    let unread = || InitError::unread(session.name());
    if relation_exists(session, "mmrepl.shadow").await? {
        let sql = "select pg_catalog.count(*) from mmrepl.shadow";
        let row = session.client.query_one(sql, &[]).await;
        let row = row.map_err(failed())?;
        counts.aside = row.read(0).map_err(unread())?;
    }
    if relation_exists(session, "mmrepl.conflict").await? {
        let sql = "
            select pg_catalog.count(*) filter (where waits),
                   pg_catalog.count(*) filter (where not waits)
            from (select c.outcome = 'pending'
                      and pg_catalog.to_jsonb(c) ->> 'resolved_at' is null as waits
                  from mmrepl.conflict c) c";
        let row = session.client.query_one(sql, &[]).await;
        let row = row.map_err(failed())?;
        counts.pending = row.read(0).map_err(unread())?;
        counts.history = row.read(1).map_err(unread())?;
    }
    Ok(counts)
}

/// Writes the records of these nodes to a new file, one JSON object per line. Returns how many.
pub(super) async fn save(path: &Path, sessions: &[&Session]) -> Result<usize, InitError> {
    let failed = |error: std::io::Error| {
        InitError::Refused(format!(
            "cannot write {}: {error}; nothing was dropped",
            path.display()
        ))
    };
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = BufWriter::new(options.open(path).map_err(failed)?);
    let mut lines = 0;
    for session in sessions {
        for (table, sql) in [("mmrepl.shadow", ASIDE), ("mmrepl.conflict", CONFLICTS)] {
            if !relation_exists(session, table).await? {
                continue;
            }
            let rows = session.client.query(sql, &[&session.name().as_str()]).await;
            let rows = rows.map_err(InitError::server(session.name(), "read what is kept"))?;
            for row in &rows {
                let line: &str = row.read(0).map_err(InitError::unread(session.name()))?;
                writeln!(file, "{line}").map_err(failed)?;
            }
            lines += rows.len();
        }
    }
    let file = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(lines)
}
