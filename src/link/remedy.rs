//! What to do about errors of a target whose own words do not help, as commands.

use tokio_postgres::Client;

use super::LinkContext;
use super::connect::open_control;
use super::error::LinkError;
use crate::catalog::names::ident;
use crate::catalog::search_path::{describe, may_be_by_search_path, of_table};
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
