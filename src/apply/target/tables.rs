//! The target's tables as this link has met them, looked up once per relation.

use std::collections::HashMap;
use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::shape::guard::Guard;
use crate::apply::shape::mapping::TableMap;
use crate::apply::shape::origins::Origins;
use crate::apply::shape::versions::Versions;
use crate::apply::target::statement::Target;
use crate::assemble::Change;
use crate::catalog::CatalogError;
use crate::catalog::load_tables::{load_named, load_table};
use crate::catalog::names::{ident, literal};
use crate::catalog::read_ahead::ReadAhead;
use crate::catalog::table::Table;
use crate::conflict::Rules;
use crate::ids::{NodeName, RelationId};
use crate::relation::Relation;

/// What an operator should know of a table, where the target says yes to the question.
#[derive(Clone, Debug)]
pub struct Remark {
    /// One sentence.
    pub text: String,
    /// SQL that answers with one truth value.
    pub question: String,
}

/// Cache from a relation of the stream to the target's table.
pub struct Tables {
    node: NodeName,
    guard: Guard,
    third: Vec<(u32, String)>,
    source: NodeName,
    rules: Rules,
    known: HashMap<RelationId, Arc<Target>>,
    ahead: ReadAhead,
    /// What an operator should know of them, and has not been told.
    remarks: Vec<Remark>,
}

impl Tables {
    /// An empty cache for writing to the target of `origins` by these rules.
    pub fn new(origins: &Origins, guard: Guard, rules: Rules) -> Self {
        let (node, third) = origins.others();
        let third = third.into_iter();
        Self {
            node: node.clone(),
            guard,
            source: origins.source().clone(),
            rules,
            third: third.map(|(id, node)| (id, node.to_string())).collect(),
            known: HashMap::new(),
            ahead: ReadAhead::default(),
            remarks: Vec::new(),
        }
    }

    /// All tables are being read meanwhile.
    pub(in crate::apply) fn read_ahead(&mut self, ahead: ReadAhead) {
        self.ahead = ahead;
    }

    /// What an operator should know, once.
    pub(in crate::apply) fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// Rows of the source that lack a column keep the value that the target has there, which the
    /// source does not know: where it has added the column meanwhile, the nodes differ.
    fn remark_on_columns(&mut self, map: &TableMap) {
        let before = self.known.get(&map.relation.id);
        let lacking = columns_not_sent(map, before.map(|target| &*target.map.relation));
        if lacking.is_empty() {
            return;
        }
        let (table, source, node) = (map.label(), &self.source, &self.node);
        let text = format!(
            "rows of {table} that {source} wrote without {} keep the value that {node} has there: if it was set on {node} before {source} had the column, compare the table on both",
            lacking.join(", ")
        );
        let question = any_value(&map.table, &lacking);
        self.remarks.push(Remark { text, question });
    }

    /// Reads every table from the catalog again when it is next needed.
    pub(in crate::apply) fn forget(&mut self) {
        self.known.clear();
        self.ahead.forget();
    }

    /// The target of `relation`, read from the catalog the first time and after a change of shape.
    ///
    /// The server sends a relation again after every invalidation (an ANALYZE is enough), most
    /// often unchanged: then the statements already prepared stay in use.
    pub async fn target(
        &mut self,
        catalog: &tokio_postgres::Client,
        relation: &Arc<Relation>,
    ) -> Result<Arc<Target>, ApplyError> {
        if let Some(known) = self.known(relation) {
            return Ok(Arc::clone(known));
        }
        let one = HashMap::from([((&*relation.schema, &*relation.name), relation)]);
        if let Some(known) = self.meet_ahead(catalog, &one).await.pop() {
            return Ok(known);
        }
        let table = load_table(catalog, &relation.schema, &relation.name).await;
        let table = table.map_err(|error| failed(relation, error))?;
        self.meet(relation, table)
    }

    /// Reads the tables of `changes` that are not known, all at once: a schema has hundreds. What
    /// does not fit is told when its first change comes.
    pub(in crate::apply) async fn meet_all<'c>(
        &mut self,
        catalog: &tokio_postgres::Client,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Result<(), ApplyError> {
        let mut unknown = self.unknown(changes);
        self.meet_ahead(catalog, &unknown).await;
        unknown.retain(|_, relation| self.known(relation).is_none());
        let Some(first) = unknown.values().next().filter(|_| unknown.len() > 1) else {
            return Ok(());
        };
        let names: Vec<_> = unknown.keys().copied().collect();
        let tables = load_named(catalog, &names).await;
        for table in tables.map_err(|error| failed(first, error))? {
            if let Some(relation) = unknown.get(&table.id()) {
                let relation = Arc::clone(relation);
                // An error comes again.
                let _ = self.meet(&relation, Some(table));
            }
        }
        Ok(())
    }

    /// Those of the targets that were read ahead.
    async fn meet_ahead(
        &mut self,
        catalog: &tokio_postgres::Client,
        unknown: &HashMap<(&str, &str), &Arc<Relation>>,
    ) -> Vec<Arc<Target>> {
        let relations: Vec<&Relation> = unknown.values().map(|relation| &***relation).collect();
        let tables = self.ahead.take(catalog, &relations).await;
        let meet = |table: Table| {
            let relation = Arc::clone(unknown.get(&table.id())?);
            self.meet(&relation, Some(table)).ok()
        };
        tables.into_iter().filter_map(meet).collect()
    }

    /// By schema and name. Neighbours are mostly of one table.
    fn unknown<'c>(
        &self,
        changes: impl Iterator<Item = &'c Change>,
    ) -> HashMap<(&'c str, &'c str), &'c Arc<Relation>> {
        let mut unknown = HashMap::new();
        let mut before: Option<&Arc<Relation>> = None;
        for relation in changes.filter_map(Change::relation) {
            if before.is_some_and(|before| Arc::ptr_eq(before, relation)) {
                continue;
            }
            before = Some(relation);
            if self.known(relation).is_none() {
                unknown.insert((&*relation.schema, &*relation.name), relation);
            }
        }
        unknown
    }

    fn known(&self, relation: &Arc<Relation>) -> Option<&Arc<Target>> {
        let known = self.known.get(&relation.id)?;
        let same = Arc::ptr_eq(&known.map.relation, relation);
        (same || *known.map.relation == **relation).then_some(known)
    }

    fn meet(
        &mut self,
        relation: &Arc<Relation>,
        table: Option<Table>,
    ) -> Result<Arc<Target>, ApplyError> {
        let map = TableMap::new(Arc::clone(relation), table, self.node.as_str())?;
        self.remark_on_columns(&map);
        let rule = self
            .rules
            .of(&relation.schema, &relation.name, map.key.is_some());
        let versions = Versions::new(rule.clone(), self.source.clone(), &map)?;
        let third = self.third.clone();
        let target = Arc::new(Target::new(map, self.guard.clone(), third, versions));
        self.known.insert(relation.id, Arc::clone(&target));
        Ok(target)
    }
}

fn failed(relation: &Relation, error: CatalogError) -> ApplyError {
    ApplyError::Catalog {
        table: format!("{}.{}", relation.schema, relation.name),
        source: Box::new(error),
    }
}

/// Whether a row has another value in one of the columns than rows get when a column is added.
fn any_value(table: &Table, columns: &[String]) -> String {
    let differs = |column: &String| {
        format!(
            "r.{}::pg_catalog.text is distinct from
                 (select (a.attmissingval::pg_catalog.text::pg_catalog.text[])[1]
                  from pg_catalog.pg_attribute a where a.attrelid = {} and a.attname = {})",
            ident(column),
            table.oid,
            literal(column)
        )
    };
    let differ: Vec<String> = columns.iter().map(differs).collect();
    let (rows, differ) = (table.only(), differ.join(" or "));
    format!("select exists (select from {rows} r where {differ})")
}

/// The target's columns that the source does not send, or did not send until now.
fn columns_not_sent(map: &TableMap, before: Option<&Relation>) -> Vec<String> {
    let sends = |relation: &Relation, name: &str| {
        let mut columns = relation.columns.iter();
        columns.any(|column| column.name == name)
    };
    let columns = map.table.columns.iter().filter(|column| !column.generated);
    let lacking = columns.filter(|column| {
        let newly = before.is_some_and(|before| !sends(before, &column.name));
        newly || !sends(&map.relation, &column.name)
    });
    lacking.map(|column| column.name.clone()).collect()
}
