//! What `init` made in schema `mmrepl` beside the tables: functions, the trigger on rewrites, the
//! secret. Functions are compared with those that are embedded in the program.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::catalog::CatalogError;
use crate::migrate::{FUNCTIONS, File, TABLES};
use crate::wire::{RowExt, each};

/// The file that makes the secret.
const SECRET: &str = "tables/006_secret";

/// What is not as it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    /// Functions that are missing or do something else.
    functions: BTreeSet<&'static str>,
    /// The trigger on `mmrepl.rewrite` is missing or disabled.
    lacks_commits: bool,
    /// The table of the secret is missing; nothing else is empty where it is there.
    lacks_secret_table: bool,
    /// The secret is missing.
    lacks_secret: bool,
}

/// A function as a file makes it, or as a server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Function<'a> {
    name: &'a str,
    body: &'a str,
    definer: bool,
}

/// The functions of a file.
fn functions(file: &File) -> impl Iterator<Item = Function<'static>> {
    let statements = file.sql.split("create or replace function mmrepl.").skip(1);
    statements.filter_map(|statement| {
        let (head, rest) = statement.split_once("$$")?;
        Some(Function {
            name: head.split_once('(')?.0,
            body: rest.split_once("$$")?.0,
            definer: head.contains("security definer"),
        })
    })
}

impl Made {
    /// Compares a server that this program has set up.
    pub(super) async fn read(client: &Client) -> Result<Self, CatalogError> {
        let sql = "select proname::text, prosrc, prosecdef from pg_catalog.pg_proc
                   where pronamespace = (select oid from pg_catalog.pg_namespace
                                         where nspname = 'mmrepl')";
        let rows = client.query(sql, &[]).await;
        let rows = rows.map_err(CatalogError::query("read the functions of schema mmrepl"))?;
        let there: Vec<Function<'_>> = each(&rows, |row| {
            Ok(Function {
                name: row.read(0)?,
                body: row.read(1)?,
                definer: row.read(2)?,
            })
        })?;
        let wanted = FUNCTIONS.iter().flat_map(functions);
        let wrong = wanted.filter(|function| !there.contains(function));
        let sql = "select exists (
                       select from pg_catalog.pg_trigger
                       where tgrelid = pg_catalog.to_regclass('mmrepl.rewrite')
                         and tgname = 'mmrepl_commits' and tgenabled = 'A'),
                   pg_catalog.to_regclass('mmrepl.secret') is not null";
        let row = client.query_one(sql, &[]).await;
        let row = row.map_err(CatalogError::query("look at schema mmrepl"))?;
        let has_table: bool = row.read(1)?;
        Ok(Self {
            functions: wrong.map(|function| function.name).collect(),
            lacks_commits: !row.read::<bool>(0)?,
            lacks_secret_table: !has_table,
            lacks_secret: has_table && !has_secret(client).await?,
        })
    }

    /// What is wrong, as words.
    pub(super) fn faults(&self) -> Vec<String> {
        let functions = self.functions.iter();
        let mut faults: Vec<String> = functions
            .map(|name| format!("function mmrepl.{name} is missing or was replaced"))
            .collect();
        if self.lacks_commits {
            faults.push("trigger mmrepl_commits on mmrepl.rewrite is missing or disabled".into());
        }
        if self.lacks_secret || self.lacks_secret_table {
            faults.push("mmrepl.secret is empty or missing".into());
        }
        faults
    }

    /// The statements that make it again.
    pub(super) fn statements(&self) -> Vec<String> {
        let mut sql = Vec::new();
        let is_wrong = |file: &&File| functions(file).any(|f| self.functions.contains(f.name));
        let files: Vec<&File> = FUNCTIONS.iter().filter(is_wrong).collect();
        if !files.is_empty() {
            // Functions name each other, and their order is not to matter.
            sql.push("set local check_function_bodies = off".to_owned());
        }
        sql.extend(files.iter().map(|file| file.sql.to_owned()));
        if self.lacks_commits {
            sql.push("select mmrepl.make_event_triggers()".to_owned());
        }
        if self.lacks_secret_table {
            let files = TABLES.iter().filter(|file| file.name == SECRET);
            sql.extend(files.map(|file| file.sql.to_owned()));
        }
        if self.lacks_secret {
            sql.push("insert into mmrepl.secret default values".to_owned());
        }
        sql
    }
}

async fn has_secret(client: &Client) -> Result<bool, CatalogError> {
    let sql = "select exists (select from mmrepl.secret)";
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(CatalogError::query("look for the secret"))?;
    Ok(row.read(0)?)
}

/// Tables of schema `mmrepl` that are gone, but for the secret's, which is made again.
pub(super) async fn lost_tables(client: &Client) -> Result<Vec<String>, CatalogError> {
    let set_up = "select pg_catalog.to_regclass('mmrepl.migration') is not null";
    let set_up = client.query_one(set_up, &[]).await;
    let set_up = set_up.map_err(CatalogError::query("look for schema mmrepl"))?;
    if !set_up.read::<bool>(0)? {
        return Ok(Vec::new());
    }
    let files = TABLES.iter().filter(|file| file.name != SECRET);
    let made = files.flat_map(|file| {
        let statements = file.sql.split("create table mmrepl.").skip(1);
        statements.filter_map(|text| Some((file.name, text.split(' ').next()?)))
    });
    let (files, names): (Vec<&str>, Vec<&str>) = made.unzip();
    let sql =
        "select t.name from unnest($1::pg_catalog.text[], $2::pg_catalog.text[]) t(file, name)
               join mmrepl.migration m on m.file = t.file
               where pg_catalog.to_regclass('mmrepl.' || t.name) is null order by 1";
    let rows = client.query(sql, &[&files, &names]).await;
    let rows = rows.map_err(CatalogError::query("look for the tables of schema mmrepl"))?;
    Ok(each(&rows, |row| row.read(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_a_file_is_found() {
        for file in FUNCTIONS {
            let made = file.sql.matches("create or replace function ").count();
            assert_eq!(functions(file).count(), made, "{}", file.name);
        }
        let mut all = FUNCTIONS.iter().flat_map(functions);
        let apply = all.find(|function| function.name == "keep_version");
        assert!(
            apply.is_some_and(|function| !function.definer && function.body.contains("populate"))
        );
    }
}
