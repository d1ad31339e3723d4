//! What must be unique in a table beside its key: unique indexes and exclusion constraints.
//!
//! Two rows are *rivals* when one of them may not be there beside the other. The server says so by
//! an index: equal in all its columns or expressions (for an exclusion constraint: related by all
//! its operators), both within its predicate. To find the rivals of a row before it is written, the
//! same expressions are evaluated for it and compared with the index's own operators; this module
//! reads them from the catalog.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::CatalogError;
use crate::wire::RowExt;

/// The unique indexes and exclusion constraints of a table, without the one that is its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uniques {
    /// Each of them.
    pub indexes: Vec<Unique>,
    /// Every column of the table, where there is an index.
    pub columns: Vec<UniqueColumn>,
}

/// One unique index or exclusion constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The index's name (in the table's schema).
    pub index: String,
    /// What is compared, in index order.
    pub parts: Vec<UniquePart>,
    /// The condition of a partial index, naming columns without a table.
    pub predicate: Option<String>,
    /// NULL equals NULL (`nulls not distinct`, since 15).
    pub nulls_equal: bool,
}

/// One column or expression of such an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniquePart {
    /// A column's name in quotes or an expression, naming columns without a table.
    pub expression: String,
    /// What relates two rivals: `OPERATOR(pg_catalog.=)`.
    pub operator: String,
    /// The index's collation, ready for SQL, where the type has any.
    pub collation: Option<String>,
}

/// A column as an expression of an index sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueColumn {
    /// Its name.
    pub name: String,
    /// The type as SQL, with its modifier.
    pub type_name: String,
    /// Its collation, ready for SQL, where it is not the type's own.
    pub collation: Option<String>,
    /// How it is computed from other columns (`generated always as`).
    pub generation: Option<String>,
}

impl Uniques {
    /// Whether a row can have a rival under another key.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Whether an index may look at this column, perhaps through one that is computed from it. Goes
    /// by the names in the text of the indexes, so it may say yes too often.
    pub fn may_read(&self, column: &str) -> bool {
        // As it stands in quotes.
        let name = column.replace('"', "\"\"");
        let computed = self.columns.iter().filter(|other| {
            let generation = other.generation.as_ref();
            generation.is_some_and(|text| text.contains(&name))
        });
        let mut names = std::iter::once(name.as_str()).chain(computed.map(|c| c.name.as_str()));
        names.any(|name| self.texts().any(|text| text.contains(name)))
    }

    /// What the indexes compare, and their conditions.
    fn texts(&self) -> impl Iterator<Item = &String> {
        self.indexes.iter().flat_map(|index| {
            let parts = index.parts.iter().map(|part| &part.expression);
            parts.chain(&index.predicate)
        })
    }
}

/// An index that is not valid yet, or never became so, keeps duplicates out as soon as it is ready.
/// `indnullsnotdistinct` is there since 15.
const INDEXES: &str = "
select i.indrelid, ic.relname::text,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid),
       coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::pg_catalog.bool, false),
       pg_catalog.pg_get_indexdef(i.indexrelid, g.k + 1, true),
       pg_catalog.format('OPERATOR(%I.%s)', opn.nspname, op.oprname),
       case when coll.oid is not null
            then pg_catalog.format('%I.%I', colln.nspname, coll.collname) end
from pg_catalog.pg_index i
join pg_catalog.pg_class ic on ic.oid = i.indexrelid
cross join lateral pg_catalog.generate_series(0, i.indnkeyatts - 1) g(k)
left join pg_catalog.pg_constraint c
     on c.conindid = i.indexrelid and c.conrelid = i.indrelid and c.conexclop is not null
join pg_catalog.pg_opclass oc on oc.oid = i.indclass[g.k]
left join pg_catalog.pg_amop ao on ao.amopfamily = oc.opcfamily and ao.amopstrategy = 3
     and ao.amoplefttype = oc.opcintype and ao.amoprighttype = oc.opcintype
     and c.oid is null
join pg_catalog.pg_operator op on op.oid = coalesce(c.conexclop[g.k + 1], ao.amopopr)
join pg_catalog.pg_namespace opn on opn.oid = op.oprnamespace
left join pg_catalog.pg_collation coll on coll.oid = i.indcollation[g.k]
left join pg_catalog.pg_namespace colln on colln.oid = coll.collnamespace
where i.indrelid = any($1) and (i.indisunique or i.indisexclusion) and i.indisready
  and (i.indisexclusion or not exists (
      select from rows from (
          pg_catalog.unnest($2::pg_catalog.oid[]), pg_catalog.unnest($3::pg_catalog.text[])
      ) key (relation, index)
      where key.relation = i.indrelid and key.index = ic.relname))
order by i.indrelid, ic.relname, g.k";

const COLUMNS: &str = "
select a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
       case when a.attcollation <> t.typcollation
            then pg_catalog.format('%I.%I', colln.nspname, coll.collname) end,
       case when a.attgenerated <> '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_collation coll on coll.oid = a.attcollation
left join pg_catalog.pg_namespace colln on colln.oid = coll.collnamespace
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum";

/// The unique indexes of each table; `keys` names the index that is a table's key, whose text
/// nobody needs to print. One without overlaps keeps out more than equal keys, and is among them
/// all the same.
pub(super) async fn uniques(
    client: &Client,
    oids: &[u32],
    keys: &HashMap<u32, String>,
) -> Result<HashMap<u32, Uniques>, CatalogError> {
    let (keyed, names): (Vec<u32>, Vec<&str>) =
        keys.iter().map(|(oid, name)| (*oid, name.as_str())).unzip();
    let rows = client
        .query(INDEXES, &[&oids, &keyed, &names])
        .await
        .map_err(CatalogError::query("read unique indexes"))?;
    let mut uniques: HashMap<u32, Uniques> = HashMap::new();
    for row in &rows {
        let (oid, index): (u32, &str) = (row.read(0)?, row.read(1)?);
        // Nothing where the index has been dropped since the query began.
        let Some(expression) = row.read(4)? else {
            continue;
        };
        let list = &mut uniques.entry(oid).or_default().indexes;
        if list.last().is_none_or(|last| last.index != index) {
            list.push(Unique {
                index: index.to_owned(),
                parts: Vec::new(),
                predicate: row.read(2)?,
                nulls_equal: row.read(3)?,
            });
        }
        let part = UniquePart {
            expression,
            operator: row.read(5)?,
            collation: row.read(6)?,
        };
        list.last_mut().expect("pushed just above").parts.push(part);
    }
    columns(client, &mut uniques).await?;
    Ok(uniques)
}

async fn columns(client: &Client, uniques: &mut HashMap<u32, Uniques>) -> Result<(), CatalogError> {
    let oids: Vec<u32> = uniques.keys().copied().collect();
    if oids.is_empty() {
        return Ok(());
    }
    let rows = client
        .query(COLUMNS, &[&oids])
        .await
        .map_err(CatalogError::query("read columns of unique indexes"))?;
    for row in &rows {
        if let Some(of_table) = uniques.get_mut(&row.read(0)?) {
            of_table.columns.push(UniqueColumn {
                name: row.read(1)?,
                type_name: row.read(2)?,
                collation: row.read(3)?,
                generation: row.read(4)?,
            });
        }
    }
    Ok(())
}
