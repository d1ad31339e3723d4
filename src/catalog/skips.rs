//! `mmrepl.skip`: changes that a person lets go by, kept on the link's target.

use tokio_postgres::Client;

use super::CatalogError;
use crate::ids::NodeName;
use crate::lsn::Lsn;
use crate::wire::RowExt;

/// What was asked for and is not done: where transactions of `source` commit, and `schema.table`,
/// empty for all of one.
pub async fn read_skips(
    target: &Client,
    source: &NodeName,
) -> Result<Vec<(Lsn, String)>, CatalogError> {
    let sql = "select commit_lsn::text, table_name from mmrepl.skip
               where source = $1 and done_at is null";
    let rows = target.query(sql, &[&source.as_str()]).await;
    let rows = rows.map_err(CatalogError::query("read what is to be skipped"))?;
    let skip = |row: &tokio_postgres::Row| {
        let commit = CatalogError::parse("mmrepl.skip.commit_lsn", row.read(0)?)?;
        Ok((commit, row.read(1)?))
    };
    rows.iter().map(skip).collect()
}

/// Asks for it.
pub async fn ask_to_skip(
    target: &Client,
    source: &NodeName,
    (commit, table): (Lsn, &str),
) -> Result<(), CatalogError> {
    let sql = "insert into mmrepl.skip (source, commit_lsn, table_name)
               values ($1, $2::text::pg_lsn, $3) on conflict do nothing";
    let commit = commit.to_string();
    let asked = target
        .execute(sql, &[&source.as_str(), &commit, &table])
        .await;
    asked
        .map(drop)
        .map_err(CatalogError::query("write down what is to be skipped"))
}

/// How many changes were let go by, once that is done.
pub async fn skipped(
    target: &Client,
    source: &NodeName,
    (commit, table): (Lsn, &str),
) -> Result<Option<i64>, CatalogError> {
    let sql = "select changes from mmrepl.skip where source = $1
               and commit_lsn = $2::text::pg_lsn and table_name = $3 and done_at is not null";
    let commit = commit.to_string();
    let row = target
        .query_opt(sql, &[&source.as_str(), &commit, &table])
        .await;
    let row = row.map_err(CatalogError::query("read what was skipped"))?;
    Ok(row.map_or(Ok(None), |row| row.read(0))?)
}
