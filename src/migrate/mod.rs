//! Brings schema `mmrepl` of one server up to date, from files that are embedded in the program.
//!
//! `migrations/tables/` are numbered and run once. `migrations/functions/` say how every function
//! reads now and run again when they have changed; triggers keep the function that they call. A
//! function whose arguments or result change needs a `drop function if exists` of its earlier
//! form before it.
//!
//! Whatever is missing runs in one transaction, so no writer meets new tables with old functions,
//! under an advisory lock, so that two programs never migrate at once. Each file is remembered with
//! its checksum and the program's version: what a newer program has set up is left alone.

mod files;

use tokio_postgres::{Client, Transaction};

pub use files::{FUNCTIONS, File, TABLES};

use crate::error::{RetryClass, Retryable};
use crate::wire::{RowExt, Unread, WireError, each, from_tokio_postgres};

/// Held while a server is migrated. The number is the text `mmrepl` in ASCII.
const ADVISORY_LOCK: i64 = 0x6D6D_7265_706C;

/// The version that is remembered with the files.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The schema and the runner's own table; harmless to run again. Functions name each other, and
/// their order is not to matter.
const PREPARE: &str = "
create schema if not exists mmrepl;
create table if not exists mmrepl.migration (
    file text primary key,
    checksum text not null,
    version text not null,
    applied_at timestamptz not null default now()
);
set local check_function_bodies = off;";

/// A server could not be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server refused.
    #[error("cannot {what}: {source}")]
    Server {
        /// What was being done.
        what: String,
        /// The server's answer.
        source: WireError,
    },
    /// A file that ran there differs from the one in this program.
    #[error(
        "migration {name} on this server differs from the one in this build of mmrepl: use the build that set the server up, or `mmrepl drop` and `mmrepl init` anew"
    )]
    Changed {
        /// The file.
        name: String,
    },
    /// The server was migrated by a newer program.
    #[error(
        "this server was set up by a newer mmrepl (it has migration {name} of version {version}): use that version here too"
    )]
    Newer {
        /// The file that this program does not have, or has otherwise.
        name: String,
        /// The version that set it up.
        version: String,
    },
    /// The server was migrated before files were kept in two folders.
    #[error(
        "this server was set up by a build of mmrepl from before its first release: run `mmrepl drop`, then `mmrepl init`"
    )]
    Unreleased,
}

impl Retryable for MigrateError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Server { source, .. } => source.retry_class(),
            Self::Changed { .. } | Self::Newer { .. } | Self::Unreleased => RetryClass::Operator,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { source, .. } => source.sqlstate(),
            Self::Changed { .. } | Self::Newer { .. } | Self::Unreleased => None,
        }
    }
}

fn server(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> MigrateError {
    move |error| MigrateError::Server {
        what: what.into(),
        source: from_tokio_postgres(error),
    }
}

fn unread(unread: Unread) -> MigrateError {
    MigrateError::Server {
        what: "read which migrations have run".to_owned(),
        source: unread.into(),
    }
}

/// A file that a server has run.
struct Applied {
    name: String,
    checksum: String,
    version: String,
}

impl Applied {
    fn is(&self, file: &File) -> bool {
        self.name == file.name
    }

    fn equals(&self, file: &File) -> bool {
        self.is(file) && self.checksum == checksum(file.sql)
    }

    fn is_newer(&self) -> bool {
        numbers(&self.version) > numbers(VERSION)
    }
}

/// The parts of a version, to compare them by.
fn numbers(version: &str) -> Vec<u32> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let part = |part: &str| part.parse().unwrap_or(u32::MAX);
    release.split('.').map(part).collect()
}

/// Runs what is missing; returns it. Runs nothing, not even part of a file, when it fails.
pub async fn migrate(client: &mut Client) -> Result<Vec<File>, MigrateError> {
    let lock = format!("select pg_catalog.pg_advisory_lock({ADVISORY_LOCK})");
    client
        .batch_execute(&lock)
        .await
        .map_err(server("lock out other migrations"))?;
    let done = migrate_locked(client).await;
    let unlock = format!("select pg_catalog.pg_advisory_unlock({ADVISORY_LOCK})");
    let unlocked = client.batch_execute(&unlock).await;
    let done = done?;
    unlocked.map_err(server("unlock migrations"))?;
    Ok(done)
}

async fn migrate_locked(client: &mut Client) -> Result<Vec<File>, MigrateError> {
    let pending = pending(client).await?;
    if pending.is_empty() {
        return Ok(pending);
    }
    let begin = client.transaction().await;
    let transaction = begin.map_err(server("begin to migrate"))?;
    transaction
        .batch_execute(PREPARE)
        .await
        .map_err(server("create schema mmrepl"))?;
    for file in &pending {
        run(&transaction, file).await?;
    }
    transaction
        .batch_execute(&remark())
        .await
        .map_err(server("remark on schema mmrepl"))?;
    transaction
        .commit()
        .await
        .map_err(server("commit the migrations"))?;
    Ok(pending)
}

/// What `migrate` would run, without changing anything.
pub async fn pending(client: &Client) -> Result<Vec<File>, MigrateError> {
    compare(&applied(client).await?, TABLES, FUNCTIONS)
}

/// Whether the server lacks one of them. What a newer program has run there is no matter.
pub async fn is_behind(client: &Client) -> Result<bool, MigrateError> {
    let applied = applied(client).await?;
    let has_table = |ours: &File| applied.iter().any(|there| there.is(ours));
    let has_functions = |ours: &File| {
        let is_right = |there: &Applied| there.equals(ours) || there.is(ours) && there.is_newer();
        applied.iter().any(is_right)
    };
    Ok(!TABLES.iter().all(has_table) || !FUNCTIONS.iter().all(has_functions))
}

/// Whether `migrate` has ever run there.
pub async fn is_set_up(client: &Client) -> Result<bool, MigrateError> {
    Ok(!applied(client).await?.is_empty())
}

async fn applied(client: &Client) -> Result<Vec<Applied>, MigrateError> {
    let columns = "select a.attname::text from pg_catalog.pg_attribute a
        where a.attrelid = pg_catalog.to_regclass('mmrepl.migration') and a.attnum > 0";
    let columns = client
        .query(columns, &[])
        .await
        .map_err(server("look for schema mmrepl"))?;
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = each(&columns, |row| row.read(0)).map_err(unread)?;
    if !names.contains(&"file") {
        return Err(MigrateError::Unreleased);
    }
    let sql = "select file, checksum, version from mmrepl.migration order by file";
    let rows = client
        .query(sql, &[])
        .await
        .map_err(server("read mmrepl.migration"))?;
    let applied = |row: &tokio_postgres::Row| {
        Ok(Applied {
            name: row.read(0)?,
            checksum: row.read(1)?,
            version: row.read(2)?,
        })
    };
    let mut all: Vec<Applied> = each(&rows, applied).map_err(unread)?;
    for table in remarked(client).await? {
        if !all.iter().any(|there| there.name == table.name) {
            all.push(table);
        }
    }
    Ok(all)
}

/// What begins the remark on schema `mmrepl`; the last file of tables follows.
const REMARK: &str = "made by mmrepl, up to ";

/// Says on the schema itself how far its tables are. Whoever empties all tables of a database, as
/// test cleaners do, empties the record of files too and leaves the tables where they are.
fn remark() -> String {
    let last = TABLES.last().map_or("", |file| file.name);
    format!("comment on schema mmrepl is '{REMARK}{last}'")
}

/// The tables that are there even where nothing is on record. Functions have no such remark: they
/// run again.
async fn remarked(client: &Client) -> Result<Vec<Applied>, MigrateError> {
    let sql = "select coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '')
        from pg_catalog.pg_namespace n where n.nspname = 'mmrepl'";
    let row = client
        .query_opt(sql, &[])
        .await
        .map_err(server("read the remark on schema mmrepl"))?;
    let remark = row.map_or_else(|| Ok(String::new()), |row| row.read(0));
    let remark = remark.map_err(unread)?;
    Ok(up_to(remark.strip_prefix(REMARK), TABLES))
}

/// The files of tables up to the one of this name; none where there is no such file.
fn up_to(last: Option<&str>, tables: &[File]) -> Vec<Applied> {
    let place = tables.iter().position(|file| Some(file.name) == last);
    let there = &tables[..place.map_or(0, |place| place + 1)];
    let applied = |file: &File| Applied {
        name: file.name.to_owned(),
        checksum: checksum(file.sql),
        version: VERSION.to_owned(),
    };
    there.iter().map(applied).collect()
}

/// The files that are to run where `applied` ran, in their order.
fn compare(
    applied: &[Applied],
    tables: &[File],
    functions: &[File],
) -> Result<Vec<File>, MigrateError> {
    for there in applied {
        let ours = tables.iter().find(|ours| there.is(ours));
        let is_table = there.name.starts_with("tables/");
        let mut all = tables.iter().chain(functions);
        let is_equal = all.any(|ours| there.equals(ours));
        if !is_equal && (there.is_newer() || is_table && ours.is_none()) {
            return Err(MigrateError::Newer {
                name: there.name.clone(),
                version: there.version.clone(),
            });
        }
        if !is_equal && is_table {
            return Err(MigrateError::Changed {
                name: there.name.clone(),
            });
        }
    }
    let missing = |ours: &&File| !applied.iter().any(|there| there.equals(ours));
    let files = tables.iter().chain(functions);
    Ok(files.filter(missing).copied().collect())
}

async fn run(transaction: &Transaction<'_>, file: &File) -> Result<(), MigrateError> {
    let what = || format!("run migration {}", file.name);
    transaction
        .batch_execute(file.sql)
        .await
        .map_err(server(what()))?;
    let record = "insert into mmrepl.migration (file, checksum, version) values ($1, $2, $3)
        on conflict (file) do update
        set checksum = excluded.checksum, version = excluded.version, applied_at = now()";
    transaction
        .execute(record, &[&file.name, &checksum(file.sql), &VERSION])
        .await
        .map_err(server(what()))?;
    Ok(())
}

/// CRC-32 and length of the text with line ends made equal: it guards against mix-ups, not
/// attackers.
fn checksum(sql: &str) -> String {
    let text = sql.replace("\r\n", "\n");
    format!("{:08x}-{}", crc32fast::hash(text.as_bytes()), text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(name: &str, sql: &str) -> Applied {
        Applied {
            name: name.to_owned(),
            checksum: checksum(sql),
            version: VERSION.to_owned(),
        }
    }

    fn newer(name: &str, sql: &str) -> Applied {
        Applied {
            version: "4000.0.0".to_owned(),
            ..applied(name, sql)
        }
    }

    const TWO: [File; 2] = [
        File {
            name: "tables/001_a",
            sql: "a",
        },
        File {
            name: "tables/002_b",
            sql: "b",
        },
    ];

    const ONE: [File; 1] = [File {
        name: "functions/f",
        sql: "f",
    }];

    fn to_run(there: &[Applied]) -> Result<Vec<&'static str>, MigrateError> {
        let files = compare(there, &TWO, &ONE)?;
        Ok(files.iter().map(|file| file.name).collect())
    }

    #[test]
    fn emptied_records_leave_the_tables_of_the_remark() {
        let names = |last| {
            let there = up_to(last, &TWO);
            there
                .iter()
                .map(|file| file.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Some("tables/001_a")), ["tables/001_a"]);
        assert_eq!(names(Some("tables/002_b")).len(), 2);
        assert!(names(None).is_empty() && names(Some("tables/009")).is_empty());
    }

    #[test]
    fn only_what_is_missing_runs() {
        let all = ["tables/001_a", "tables/002_b", "functions/f"];
        assert_eq!(to_run(&[]).unwrap(), all);
        assert_eq!(to_run(&[applied("tables/001_a", "a")]).unwrap(), all[1..]);
        let there = [applied("tables/001_a", "a"), applied("functions/f", "f")];
        assert_eq!(to_run(&there).unwrap(), [all[1]]);
    }

    #[test]
    fn changed_functions_run_again_and_unknown_ones_are_left() {
        let mut there = vec![
            applied("functions/earlier", "e"),
            applied("functions/f", "otherwise"),
            applied("tables/001_a", "a"),
            applied("tables/002_b", "b"),
        ];
        assert_eq!(to_run(&there).unwrap(), ["functions/f"]);
        there[1] = newer("functions/f", "f");
        assert_eq!(to_run(&there).unwrap(), [""; 0]);
    }

    #[test]
    fn a_changed_or_unknown_table_stops_everything() {
        let changed = to_run(&[applied("tables/001_a", "x")]);
        assert!(matches!(changed, Err(MigrateError::Changed { .. })));
        let unknown = to_run(&[applied("tables/003_c", "c")]);
        assert!(matches!(unknown, Err(MigrateError::Newer { .. })));
    }

    #[test]
    fn what_a_newer_version_has_made_otherwise_stops_everything() {
        for there in [
            newer("tables/001_a", "x"),
            newer("functions/f", "x"),
            newer("functions/g", "g"),
        ] {
            assert!(matches!(to_run(&[there]), Err(MigrateError::Newer { .. })));
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.12"));
        assert!(numbers("1.0.0") > numbers("0.10.0"));
        assert_eq!(numbers("1.2.0-rc.1"), numbers("1.2.0"));
        assert!(numbers("what is this") > numbers(VERSION));
    }

    #[test]
    fn line_ends_do_not_change_a_checksum() {
        assert_eq!(checksum("a\r\nb"), checksum("a\nb"));
        assert_ne!(checksum("a"), checksum("b"));
    }
}
