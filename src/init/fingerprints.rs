//! What somebody changed and put back before anybody looked.
//!
//! A daemon looks at its server every two seconds, and not at all while it is stopped. Triggers
//! that are off for a moment, a publication that is altered and altered back, a partition that is
//! detached and attached: afterwards everything is as `init` made it, and rows that were written
//! meanwhile may differ on the nodes. The rows of the catalog tell: whatever was written anew has
//! the number of another transaction. `mmrepl.fingerprint` has what it was. Whoever looks, the
//! daemon or `init`, notes each table of which it differs in `mmrepl.gap`; what `init` changes
//! itself gets its new fingerprint in the transaction that changes it.

use tokio_postgres::Client;

use super::InitError;
use super::session::Session;
use crate::catalog::CatalogError;
use crate::catalog::names::readable;
use crate::error::Retryable;
use crate::wire::{RowExt, each};

/// Notes what happened until now.
const NOTE: &str = "select mmrepl.note_changes()";
/// What the transaction has changed is as it should be.
pub(super) const TAKE: &str = "select mmrepl.take_fingerprints()";

/// SQLSTATEs of a server on which `init` of this version was not run, or somebody removed what it
/// made, which is named elsewhere: no such schema, table or function.
const NOT_MADE: [&str; 3] = ["3F000", "42P01", "42883"];
/// SQLSTATEs of somebody who holds a lock on what would be looked at; the next look does it.
const BUSY: [&str; 2] = ["55P03", "40P01"];

/// The statements of one transaction of `init` on triggers or the publication, with what notes
/// changes of others before them.
pub(super) fn around(sql: &[String]) -> Vec<String> {
    let sql = sql.iter().cloned();
    [NOTE.to_owned()]
        .into_iter()
        .chain(sql)
        .chain([TAKE.to_owned()])
        .collect()
}

/// Notes what happened on the server of `session`, where its schema is whole.
pub(super) async fn note(session: &Session) -> Result<(), InitError> {
    let noted = session.client.batch_execute(NOTE).await;
    let error = match noted.map_err(CatalogError::query("look for what was changed behind")) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match error.sqlstate() {
        Some(state) if NOT_MADE.contains(&state) || BUSY.contains(&state) => Ok(()),
        _ => Err(InitError::catalog(session.name())(error)),
    }
}

/// Tables that something happened to that nobody has noted yet, and what, as words.
pub(super) async fn found(client: &Client) -> Result<Vec<(String, String)>, CatalogError> {
    let sql = "select n.nspname::text, c.relname::text, b.happened
               from mmrepl.changed_behind() b
               join pg_catalog.pg_class c on c.oid = b.relation
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               order by 1, 2, 3";
    let rows = client.query(sql, &[]).await;
    let rows = match rows.map_err(CatalogError::query("look for what was changed behind")) {
        Ok(rows) => rows,
        Err(error) if error.sqlstate().is_some_and(|s| NOT_MADE.contains(&s)) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let found = |row: &tokio_postgres::Row| {
        let (schema, name): (&str, &str) = (row.read(0)?, row.read(1)?);
        Ok((readable(schema, name), row.read(2)?))
    };
    Ok(each(&rows, found)?)
}
