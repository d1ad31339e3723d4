//! The prepared statements of one session, found by their SQL text.

use std::collections::HashMap;
use std::sync::Arc;

/// More shapes of statements than this are kept by no table in practice; a server needs some
/// tens of kilobytes for each.
pub(super) const STATEMENTS_MAX: usize = 4096;

/// Numbers batches, so that a statement knows which of them parses it.
pub(super) type Ticket = u64;

/// A statement that exists on the server, or will once its batch has run.
#[derive(Debug)]
struct Statement {
    name: Arc<str>,
    /// The batch that parses it; none once the server has confirmed it.
    parsed_by: Option<Ticket>,
    last_used: u64,
}

/// How to refer to a statement in a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    /// The server has it, or the same batch parses it earlier.
    Known(Arc<str>),
    /// Parse it under this name first.
    New(Arc<str>),
    /// Another batch that is still under way parses it and may fail before it does: use the
    /// unnamed statement this time.
    InDoubt,
}

/// A bounded map from SQL text to prepared statement.
#[derive(Debug)]
pub(super) struct StatementCache {
    statements: HashMap<Arc<str>, Statement>,
    limit: usize,
    clock: u64,
    /// Names to close with the next batch.
    discarded: Vec<Arc<str>>,
}

impl StatementCache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            statements: HashMap::new(),
            limit,
            clock: 0,
            discarded: Vec::new(),
        }
    }

    /// How many statements there are.
    pub(super) fn len(&self) -> usize {
        self.statements.len()
    }

    /// Finds a statement for the batch `ticket`, making room for it where it is new.
    pub(super) fn prepare(&mut self, sql: &Arc<str>, ticket: Ticket) -> Prepared {
        self.clock += 1;
        if let Some(statement) = self.statements.get_mut(sql) {
            statement.last_used = self.clock;
            return match statement.parsed_by {
                Some(other) if other != ticket => Prepared::InDoubt,
                _ => Prepared::Known(Arc::clone(&statement.name)),
            };
        }
        if self.statements.len() >= self.limit {
            self.evict();
        }
        // The clock never repeats, so neither do names: a late Close cannot hit a newer one.
        let name: Arc<str> = format!("mmrepl_{}", self.clock).into();
        let (parsed_by, last_used) = (Some(ticket), self.clock);
        let statement = Statement {
            name: Arc::clone(&name),
            parsed_by,
            last_used,
        };
        self.statements.insert(Arc::clone(sql), statement);
        Prepared::New(name)
    }

    /// The server has parsed the statement under this name.
    pub(super) fn confirm(&mut self, sql: &Arc<str>, name: &Arc<str>) {
        if let Some(statement) = self.statements.get_mut(sql).filter(|s| s.name == *name) {
            statement.parsed_by = None;
        }
    }

    /// The server never saw the statement, or refused it.
    pub(super) fn forget(&mut self, sql: &Arc<str>, name: &Arc<str>) {
        if self
            .statements
            .get(sql)
            .is_some_and(|statement| statement.name == *name)
        {
            self.statements.remove(sql);
        }
    }

    /// The statement failed: parse it anew next time, because the cause may be that a table
    /// has changed since (0A000, "cached plan must not change result type", is one such).
    pub(super) fn invalidate(&mut self, sql: &Arc<str>) {
        if let Some(statement) = self.statements.remove(sql) {
            self.discarded.push(statement.name);
        }
    }

    /// A name to close, if there is one.
    pub(super) fn pop_discarded(&mut self) -> Option<Arc<str>> {
        self.discarded.pop()
    }

    /// A Close that did not run must be sent again.
    pub(super) fn discard(&mut self, name: Arc<str>) {
        self.discarded.push(name);
    }

    /// Drops the statement that was not used for the longest time. A batch under way that uses
    /// it is not disturbed: the Close comes after it in the stream.
    fn evict(&mut self) {
        let oldest = self
            .statements
            .iter()
            .min_by_key(|(_, statement)| statement.last_used);
        if let Some(sql) = oldest.map(|(sql, _)| Arc::clone(sql)) {
            self.invalidate(&sql);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_parsed_once_and_only_by_its_batch() {
        let mut cache = StatementCache::new(10);
        let sql: Arc<str> = "select 1".into();
        let Prepared::New(name) = cache.prepare(&sql, 1) else {
            panic!("known already")
        };
        assert_eq!(cache.prepare(&sql, 1), Prepared::Known(Arc::clone(&name)));
        assert_eq!(cache.prepare(&sql, 2), Prepared::InDoubt);
        cache.confirm(&sql, &"another".into());
        assert_eq!(
            cache.prepare(&sql, 2),
            Prepared::InDoubt,
            "that was another one"
        );
        cache.confirm(&sql, &name);
        assert_eq!(cache.prepare(&sql, 2), Prepared::Known(Arc::clone(&name)));
        assert_eq!(cache.prepare(&sql, 3), Prepared::Known(Arc::clone(&name)));
        cache.invalidate(&sql);
        assert_eq!(cache.pop_discarded(), Some(name));
    }

    #[test]
    fn an_unparsed_statement_gets_a_new_name_next_time() {
        let mut cache = StatementCache::new(10);
        let sql: Arc<str> = "select 1".into();
        let Prepared::New(first) = cache.prepare(&sql, 1) else {
            panic!("known already")
        };
        cache.forget(&sql, &"another".into());
        assert_eq!(cache.len(), 1, "that was another one");
        cache.forget(&sql, &first);
        let Prepared::New(second) = cache.prepare(&sql, 2) else {
            panic!("known already")
        };
        assert_ne!(first, second);
    }

    #[test]
    fn the_least_recently_used_statement_is_closed() {
        let mut cache = StatementCache::new(2);
        let [a, b, c]: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        cache.prepare(&a, 1);
        let Prepared::New(b_name) = cache.prepare(&b, 1) else {
            panic!("known already")
        };
        cache.prepare(&a, 1);
        cache.prepare(&c, 1);
        assert_eq!(cache.len(), 2);
        assert_eq!(cache.pop_discarded(), Some(b_name));
        assert_eq!(cache.pop_discarded(), None);
        assert!(matches!(cache.prepare(&a, 1), Prepared::Known(_)));
    }
}
