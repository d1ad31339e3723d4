//! The prepared statements of one session, found by their SQL text.
//!
//! A statement counts as there from the moment its Parse is sent, so that of groups that are sent
//! one behind another only the first parses it. When that one fails before, the later ones fail for
//! want of the statement. They may not succeed in any case: each builds on what the one before it
//! has committed, and all that was sent ahead is given up with it.

use std::collections::HashMap;
use std::sync::Arc;

/// More shapes of statements than this are kept by no table in practice; a server needs some
/// tens of kilobytes for each.
pub(super) const STATEMENTS_MAX: usize = 4096;

/// A statement that exists on the server, or will once its batch has run.
#[derive(Debug)]
struct Statement {
    name: Arc<str>,
    last_used: u64,
}

/// How to refer to a statement in a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    /// The server has it, or will once what was sent before has run.
    Known(Arc<str>),
    /// Parse it under this name first.
    New(Arc<str>),
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

    /// Finds a statement, making room for it where it is new.
    pub(super) fn prepare(&mut self, sql: &Arc<str>) -> Prepared {
        self.clock += 1;
        if let Some(statement) = self.statements.get_mut(sql) {
            statement.last_used = self.clock;
            return Prepared::Known(Arc::clone(&statement.name));
        }
        if self.statements.len() >= self.limit {
            self.evict();
        }
        // The clock never repeats, so neither do names: a late Close cannot hit a newer one.
        let name: Arc<str> = format!("mmrepl_{}", self.clock).into();
        let statement = Statement {
            name: Arc::clone(&name),
            last_used: self.clock,
        };
        self.statements.insert(Arc::clone(sql), statement);
        Prepared::New(name)
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
    fn a_statement_is_parsed_once() {
        let mut cache = StatementCache::new(10);
        let sql: Arc<str> = "select 1".into();
        let Prepared::New(name) = cache.prepare(&sql) else {
            panic!("known already")
        };
        assert_eq!(cache.prepare(&sql), Prepared::Known(Arc::clone(&name)));
        assert_eq!(cache.prepare(&sql), Prepared::Known(Arc::clone(&name)));
        cache.invalidate(&sql);
        assert_eq!(cache.pop_discarded(), Some(name));
    }

    #[test]
    fn an_unparsed_statement_gets_a_new_name_next_time() {
        let mut cache = StatementCache::new(10);
        let sql: Arc<str> = "select 1".into();
        let Prepared::New(first) = cache.prepare(&sql) else {
            panic!("known already")
        };
        cache.forget(&sql, &"another".into());
        assert_eq!(cache.len(), 1, "that was another one");
        cache.forget(&sql, &first);
        let Prepared::New(second) = cache.prepare(&sql) else {
            panic!("known already")
        };
        assert_ne!(first, second);
    }

    #[test]
    fn the_least_recently_used_statement_is_closed() {
        let mut cache = StatementCache::new(2);
        let [a, b, c]: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        cache.prepare(&a);
        let Prepared::New(b_name) = cache.prepare(&b) else {
            panic!("known already")
        };
        cache.prepare(&a);
        cache.prepare(&c);
        assert_eq!(cache.len(), 2);
        assert_eq!(cache.pop_discarded(), Some(b_name));
        assert_eq!(cache.pop_discarded(), None);
        assert!(matches!(cache.prepare(&a), Prepared::Known(_)));
    }
}
