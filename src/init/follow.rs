//! The event triggers by which what `init` made on a table follows changes of the table, as SQL.
//!
//! Only a superuser can make them. Without them the daemon's look at its server (`damage`) tells
//! when something has to be made anew.

use tokio_postgres::Client;

use crate::catalog::CatalogError;
use crate::wire::{RowExt, each};

/// Name, event, tags and function of each.
const WANTED: [(&str, &str, &str, &str); 7] = [
    (
        "mmrepl_caller",
        "ddl_command_start",
        "'ALTER TABLE'",
        "note_caller",
    ),
    (
        "mmrepl_release_columns",
        "ddl_command_start",
        "'ALTER TABLE'",
        "release_columns",
    ),
    (
        "mmrepl_follow_tables",
        "ddl_command_end",
        "'ALTER TABLE', 'CREATE TABLE'",
        "follow_tables",
    ),
    (
        "mmrepl_rewrite_may_begin",
        "ddl_command_start",
        "'ALTER TABLE'",
        "rewrite_may_begin",
    ),
    (
        "mmrepl_rewrite_begins",
        "table_rewrite",
        "'ALTER TABLE', 'ALTER TYPE'",
        "rewrite_begins",
    ),
    (
        "mmrepl_rewrite_ends",
        "ddl_command_end",
        "'ALTER TABLE', 'ALTER TYPE'",
        "rewrite_ends",
    ),
    (
        "mmrepl_subscription",
        "ddl_command_start",
        "'CREATE SUBSCRIPTION'",
        "subscription_begins",
    ),
];

/// The event triggers as a server has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventTriggers {
    /// Whether the role may make them.
    may_make: bool,
    /// Name and `pg_event_trigger.evtenabled` of those that are there.
    there: Vec<(String, String)>,
}

impl EventTriggers {
    /// Reads them.
    pub(super) async fn read(client: &Client) -> Result<Self, CatalogError> {
        let failed = || CatalogError::query("read event triggers");
        let sql = "select rolsuper from pg_catalog.pg_roles where rolname = current_user";
        let row = client.query_one(sql, &[]).await.map_err(failed())?;
        let names: Vec<&str> = WANTED.iter().map(|wanted| wanted.0).collect();
        let sql = "select evtname::text, evtenabled::text from pg_catalog.pg_event_trigger
                   where evtname::text = any($1)";
        let rows = client.query(sql, &[&names]).await.map_err(failed())?;
        let there = each(&rows, |row| Ok((row.read(0)?, row.read(1)?)))?;
        Ok(Self {
            may_make: row.read(0)?,
            there,
        })
    }

    /// Whether triggers let go of columns in time.
    pub(super) fn release_columns(&self) -> bool {
        self.may_make
    }

    /// Those that are missing, or do not fire always, where the role could mend that.
    pub(super) fn faults(&self) -> Vec<&'static str> {
        let right = |name: &str| {
            self.there
                .iter()
                .any(|(n, fires)| n == name && fires == "A")
        };
        let wanted = WANTED.iter().filter(|_| self.may_make);
        let wrong = wanted.filter(|wanted| !right(wanted.0));
        wrong.map(|wanted| wanted.0).collect()
    }

    /// The statements that make what is missing.
    pub(super) fn statements(&self) -> Vec<String> {
        let faults = self.faults();
        let wrong = WANTED.iter().filter(|wanted| faults.contains(&wanted.0));
        wrong
            .flat_map(|(name, event, tags, function)| {
                [
                    format!("drop event trigger if exists {name}"),
                    format!(
                        "create event trigger {name} on {event} when tag in ({tags}) execute function mmrepl.{function}()"
                    ),
                    format!("alter event trigger {name} enable always"),
                ]
            })
            .collect()
    }
}
