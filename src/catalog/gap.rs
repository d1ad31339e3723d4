//! `mmrepl.gap`: tables of a node whose writes did not all go to its peers, until `init` has
//! compared them.

use tokio_postgres::Client;

use super::CatalogError;
use super::names::literal;

/// The statement that notes what was left out of tables: schema, name, and in words what it was.
/// Nothing for no table.
pub fn note_sql(gaps: &[[&str; 3]]) -> Option<String> {
    let row = |gap: &[&str; 3]| format!("({})", gap.map(literal).join(", "));
    let rows: Vec<String> = gaps.iter().map(row).collect();
    (!rows.is_empty()).then(|| {
        format!(
            "insert into mmrepl.gap as g (schema_name, table_name, left_out) values {}
             on conflict (schema_name, table_name) do update
                 set left_out = g.left_out || ', ' || excluded.left_out
                 where pg_catalog.strpos(g.left_out, excluded.left_out) = 0",
            rows.join(", ")
        )
    })
}

/// Notes it on `source`.
pub async fn note_gaps(source: &Client, gaps: &[[&str; 3]]) -> Result<(), CatalogError> {
    let Some(sql) = note_sql(gaps) else {
        return Ok(());
    };
    let noted = source.batch_execute(&sql).await;
    noted.map_err(CatalogError::query("note what was left out"))
}
