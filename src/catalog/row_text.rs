//! Values as text that is the same on every node, whatever its version and encoding. Pure.

use super::names::ident;
use super::table::Table;

/// Where any bytes may be, they are no characters; every node is like that then (`check`).
const COMMON_ENCODING: &str = "case pg_catalog.current_setting('server_encoding') \
     when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end";

/// The hash of a text, the same whatever the databases' encodings are.
pub fn hash_of(text: &str) -> String {
    format!("pg_catalog.md5(pg_catalog.convert_to({text}::pg_catalog.text, {COMMON_ENCODING}))")
}

/// `pg_lsn` in `pg_type.dat`.
pub(super) const PG_LSN: u32 = 3_220;

/// A column as text, the same on every version: from 19 on a WAL position has leading zeros.
pub fn text_of(table: &Table, name: &str, positions: bool) -> String {
    let column = ident(name);
    if !positions {
        return format!("{column}::pg_catalog.text");
    }
    let is_one = table.column(name).is_some_and(|c| c.base_type.0 == PG_LSN);
    if is_one {
        format!("({column}::pg_catalog.pg_lsn - '0/0'::pg_catalog.pg_lsn)::pg_catalog.text")
    } else {
        format!("pg_catalog.regexp_replace({column}::pg_catalog.text, '/0+(?=[0-9A-F])', '/', 'g')")
    }
}
