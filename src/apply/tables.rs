//! The target's tables as this link has met them, looked up once per relation.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::ApplyError;
use super::guard::Guard;
use super::mapping::TableMap;
use super::origins::Origins;
use super::target::Target;
use super::versions::Versions;
use crate::catalog::table::load_table;
use crate::conflict::Rules;
use crate::ids::{NodeName, RelationId};
use crate::relation::Relation;

/// Cache from a relation of the stream to the target's table.
pub struct Tables {
    node: NodeName,
    guard: Guard,
    third: Vec<(u32, String)>,
    source: NodeName,
    rules: Rules,
    known: HashMap<RelationId, Arc<Target>>,
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
        }
    }

    /// Reads every table from the catalog again when it is next needed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
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
        if let Some(known) = self.known.get(&relation.id) {
            let same = Arc::ptr_eq(&known.map.relation, relation);
            if same || *known.map.relation == **relation {
                return Ok(Arc::clone(known));
            }
        }
        let table = load_table(catalog, &relation.schema, &relation.name).await;
        let table = table.map_err(|error| ApplyError::Catalog {
            table: format!("{}.{}", relation.schema, relation.name),
            source: Box::new(error),
        })?;
        let map = TableMap::new(Arc::clone(relation), table, self.node.as_str())?;
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
