//! What to do about errors of a target whose own words do not help, as commands.

use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::sessions::open_control;
use crate::assemble::TxHeader;
use crate::catalog::names::ident;
use crate::catalog::search_path::{describe, may_be_by_search_path, of_table};
use crate::commit_time::CommitTime;
use crate::error::Retryable;
use crate::wire::RowExt;

/// SQLSTATEs of a policy that would hide rows: no right to see them, and no COPY into the table.
const HIDDEN: [&str; 2] = ["42501", "0A000"];

const IS_HIDDEN: &str = "
    select coalesce(pg_catalog.bool_or(pg_catalog.row_security_active(p.relid)), false)
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    cross join lateral (
        select c.oid union select t.relid from pg_catalog.pg_partition_tree(c.oid) t
    ) p(relid)
    where n.nspname || '.' || c.relname = $1";

/// The error, with what to do about it where that can be told.
pub(super) async fn advised(context: &LinkContext, error: LinkError) -> LinkError {
    if let LinkError::ClockSkew {
        change: Some(change),
        ..
    } = &error
    {
        let future = from_the_future(context, *change).await;
        return future.unwrap_or(error);
    }
    let Some(table) = error.relation().map(str::to_owned) else {
        return without_publication(context, error);
    };
    match find(context, &table, &error).await {
        Some(remedy) => LinkError::Advised {
            source: Box::new(error),
            remedy,
        },
        None => error,
    }
}

/// The source's clock, and the origin of a transaction where it has one.
const MADE_BY: &str = "
    select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8 - 946684800000000,
           (select o.roname from pg_catalog.pg_replication_origin o
            where o.roident = (pg_catalog.pg_xact_commit_timestamp_origin($1::text::xid)).roident)";
/// Clocks that a transaction is ahead of by less are not asked well enough to say so.
const AHEAD_MIN_MICROS: i64 = 1_000_000;

/// A transaction that is ahead of its own source's clock as well: setting clocks does not help.
async fn from_the_future(context: &LinkContext, change: TxHeader) -> Option<LinkError> {
    let client = open_control(context, &context.source).await.ok()?;
    let row = client.query_one(MADE_BY, &[&change.xid.to_string()]).await;
    let row = row.ok()?;
    let clock = CommitTime::from_postgres_micros(row.read(0).ok()?);
    let ahead = change.commit_time.micros_since(clock);
    (ahead > AHEAD_MIN_MICROS).then(|| LinkError::FromTheFuture {
        link: context.link.clone(),
        commit: change.final_lsn,
        time: change.commit_time,
        ahead_s: ahead / 1_000_000,
        origin: row.read(1).ok().flatten(),
    })
}

/// A source up to 17 stops where the publication did not exist when a change was made.
fn without_publication(context: &LinkContext, error: LinkError) -> LinkError {
    let source = &context.source.name;
    let missing = error.sqlstate() == Some("42704")
        && matches!(&error, LinkError::Node { node, .. } if node == source);
    if !missing {
        return error;
    }
    LinkError::Advised {
        source: Box::new(error),
        remedy: format!(
            "what was written on {source} without its publication cannot be sent: `mmrepl init` makes the publication and the link's slot anew, and compares rows; where they differ, `mmrepl init --copy-from {source}` loses nothing of {source}"
        ),
    }
}

async fn find(context: &LinkContext, table: &str, error: &LinkError) -> Option<String> {
    let (node, state) = (&context.target, error.sqlstate());
    if matches!(error, LinkError::Apply { source, .. } if source.lacks_identity()) {
        let name = &node.name;
        return Some(format!(
            "`mmrepl init` gives {table} on {name} its replica identity back"
        ));
    }
    let hidden = state.is_some_and(|state| HIDDEN.contains(&state));
    if !hidden && !may_be_by_search_path(state) {
        return None;
    }
    let client = open_control(context, node).await.ok()?;
    let said = if hidden {
        rows_are_hidden(&client, table, node.dsn.user()).await?
    } else {
        describe(&of_table(&client, table).await.ok()?)?
    };
    Some(format!("on {} {said}", node.name))
}

async fn rows_are_hidden(client: &Client, table: &str, user: &str) -> Option<String> {
    let row = client.query_one(IS_HIDDEN, &[&table]).await.ok()?;
    let active: bool = row.read(0).ok()?;
    active.then(|| {
        format!(
            "row level security would hide rows of {table} from mmrepl, which must see all: `alter role {} bypassrls`",
            ident(user)
        )
    })
}
