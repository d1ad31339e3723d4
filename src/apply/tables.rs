//! The target's tables as this link has met them, looked up once per relation.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::ApplyError;
use super::mapping::TableMap;
use super::origins::Origins;
use super::sql::Guard;
use super::target::Target;
use crate::catalog::table::load_table;
use crate::ids::{NodeName, RelationId};
use crate::relation::Relation;

/// Cache from a relation of the stream to the target's table.
pub struct Tables {
    node: NodeName,
    guard: Guard,
    third: Vec<(u32, String)>,
    known: HashMap<RelationId, Arc<Target>>,
}

impl Tables {
    /// An empty cache for writing to the target of `origins`.
    pub fn new(origins: &Origins, guard: Guard) -> Self {
        let (node, third) = origins.others();
        let third = third.into_iter();
        Self {
            node: node.clone(),
            guard,
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
        let target = Arc::new(Target::new(map, self.guard.clone(), self.third.clone()));
        self.known.insert(relation.id, Arc::clone(&target));
        Ok(target)
    }
}
