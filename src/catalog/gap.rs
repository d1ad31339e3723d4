//! `mmrepl.gap`: tables of a node whose writes did not all go to its peers, until `init` has
//! compared them.

use tokio_postgres::Client;

use super::CatalogError;

/// Notes on `source` that something of these tables was left out.
pub async fn note_gaps(
    source: &Client,
    tables: impl Iterator<Item = &(String, String)>,
    left_out: &str,
) -> Result<(), CatalogError> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.map(|(schema, name)| (&**schema, &**name)).unzip();
    let sql = "insert into mmrepl.gap as g (schema_name, table_name, left_out)
        select t.s, t.n, $3::text
        from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) t (s, n)
        on conflict (schema_name, table_name) do update
            set left_out = g.left_out || ', ' || excluded.left_out
            where pg_catalog.strpos(g.left_out, excluded.left_out) = 0";
    let noted = source.execute(sql, &[&schemas, &names, &left_out]).await;
    noted
        .map(drop)
        .map_err(CatalogError::query("note what was left out"))
}
