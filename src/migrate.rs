//! Brings schema `mmrepl` of one server up to date: numbered files, embedded in the program.
//!
//! Each file runs once, in its own transaction, under an advisory lock so that two programs never
//! migrate at once. A file that ran is remembered with its checksum; if it changed since, the
//! server was set up by another build, and going on would leave nobody knowing what is there.

use tokio_postgres::Client;

use crate::error::{RetryClass, Retryable};
use crate::wire::WireError;
use crate::wire::from_tokio_postgres;

/// One file of `migrations/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its place in the order, from 1.
    pub number: i32,
    /// The file name without `.sql`.
    pub name: &'static str,
    /// The SQL.
    pub sql: &'static str,
}

/// Every migration in order.
pub const MIGRATIONS: [Migration; 16] = [
    Migration {
        number: 1,
        name: "001_base",
        sql: include_str!("../migrations/001_base.sql"),
    },
    Migration {
        number: 2,
        name: "002_conflict",
        sql: include_str!("../migrations/002_conflict.sql"),
    },
    Migration {
        number: 3,
        name: "003_versions",
        sql: include_str!("../migrations/003_versions.sql"),
    },
    Migration {
        number: 4,
        name: "004_shadows",
        sql: include_str!("../migrations/004_shadows.sql"),
    },
    Migration {
        number: 5,
        name: "005_merge",
        sql: include_str!("../migrations/005_merge.sql"),
    },
    Migration {
        number: 6,
        name: "006_manual",
        sql: include_str!("../migrations/006_manual.sql"),
    },
    Migration {
        number: 7,
        name: "007_pipeline",
        sql: include_str!("../migrations/007_pipeline.sql"),
    },
    Migration {
        number: 8,
        name: "008_custom",
        sql: include_str!("../migrations/008_custom.sql"),
    },
    Migration {
        number: 9,
        name: "009_deletes",
        sql: include_str!("../migrations/009_deletes.sql"),
    },
    Migration {
        number: 10,
        name: "010_turns",
        sql: include_str!("../migrations/010_turns.sql"),
    },
    Migration {
        number: 11,
        name: "011_delete_keys",
        sql: include_str!("../migrations/011_delete_keys.sql"),
    },
    Migration {
        number: 12,
        name: "012_source_times",
        sql: include_str!("../migrations/012_source_times.sql"),
    },
    Migration {
        number: 13,
        name: "013_expect_types",
        sql: include_str!("../migrations/013_expect_types.sql"),
    },
    Migration {
        number: 14,
        name: "014_deletes_in_order",
        sql: include_str!("../migrations/014_deletes_in_order.sql"),
    },
    Migration {
        number: 15,
        name: "015_finish",
        sql: include_str!("../migrations/015_finish.sql"),
    },
    Migration {
        number: 16,
        name: "016_applied_deletes",
        sql: include_str!("../migrations/016_applied_deletes.sql"),
    },
];

/// Held while a server is migrated. The number is the text `mmrepl` in ASCII.
const ADVISORY_LOCK: i64 = 0x6D6D_7265_706C;

/// The schema and the runner's own table; harmless to run again.
const PREPARE: &str = "
create schema if not exists mmrepl;
create table if not exists mmrepl.migration (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
);";

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
        "this server was set up by a newer mmrepl (it has migration {name}): use that version here too"
    )]
    Newer {
        /// The file this program does not have.
        name: String,
    },
}

impl Retryable for MigrateError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Server { source, .. } => source.retry_class(),
            Self::Changed { .. } | Self::Newer { .. } => RetryClass::Operator,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { source, .. } => source.sqlstate(),
            Self::Changed { .. } | Self::Newer { .. } => None,
        }
    }
}

fn server(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> MigrateError {
    move |error| MigrateError::Server {
        what: what.into(),
        source: from_tokio_postgres(error),
    }
}

/// A migration that a server has run.
struct Applied {
    number: i32,
    name: String,
    checksum: String,
}

/// Runs what is missing; returns it. Runs nothing, not even part of a file, when it fails there.
pub async fn migrate(client: &mut Client) -> Result<Vec<Migration>, MigrateError> {
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

async fn migrate_locked(client: &mut Client) -> Result<Vec<Migration>, MigrateError> {
    let pending = pending(client).await?;
    if !pending.is_empty() {
        client
            .batch_execute(PREPARE)
            .await
            .map_err(server("create schema mmrepl"))?;
    }
    for migration in &pending {
        run(client, migration).await?;
    }
    Ok(pending)
}

/// What `migrate` would run, without changing anything.
pub async fn pending(client: &Client) -> Result<Vec<Migration>, MigrateError> {
    compare(&applied(client).await?, &MIGRATIONS)
}

/// Whether the server lacks one of them. Those that a newer program has run there are no matter.
pub async fn is_behind(client: &Client) -> Result<bool, MigrateError> {
    let applied = applied(client).await?;
    let is_missing = |ours: &Migration| applied.iter().all(|there| there.number != ours.number);
    Ok(MIGRATIONS.iter().any(is_missing))
}

async fn applied(client: &Client) -> Result<Vec<Applied>, MigrateError> {
    let exists = "select pg_catalog.to_regclass('mmrepl.migration') is not null";
    let exists = client
        .query_one(exists, &[])
        .await
        .map_err(server("look for schema mmrepl"))?;
    if !exists.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let sql = "select number, name, checksum from mmrepl.migration order by number";
    let rows = client
        .query(sql, &[])
        .await
        .map_err(server("read mmrepl.migration"))?;
    let applied = |row: &tokio_postgres::Row| Applied {
        number: row.get(0),
        name: row.get(1),
        checksum: row.get(2),
    };
    Ok(rows.iter().map(applied).collect())
}

/// The migrations of `known` that are not in `applied`.
fn compare(applied: &[Applied], known: &[Migration]) -> Result<Vec<Migration>, MigrateError> {
    for there in applied {
        let ours = known.iter().find(|ours| ours.number == there.number);
        let ours = ours.ok_or_else(|| MigrateError::Newer {
            name: there.name.clone(),
        })?;
        if checksum(ours.sql) != there.checksum {
            return Err(MigrateError::Changed {
                name: ours.name.to_owned(),
            });
        }
    }
    let ran =
        |migration: &&Migration| !applied.iter().any(|there| there.number == migration.number);
    Ok(known.iter().filter(ran).copied().collect())
}

async fn run(client: &mut Client, migration: &Migration) -> Result<(), MigrateError> {
    let what = || format!("run migration {}", migration.name);
    let transaction = client.transaction().await.map_err(server(what()))?;
    transaction
        .batch_execute(migration.sql)
        .await
        .map_err(server(what()))?;
    let record = "insert into mmrepl.migration (number, name, checksum) values ($1, $2, $3)";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&migration.number, &migration.name, &checksum(migration.sql)];
    transaction
        .execute(record, &values)
        .await
        .map_err(server(what()))?;
    transaction.commit().await.map_err(server(what()))
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

    fn applied(number: i32, sql: &str) -> Applied {
        Applied {
            number,
            name: format!("{number:03}"),
            checksum: checksum(sql),
        }
    }

    const TWO: [Migration; 2] = [
        Migration {
            number: 1,
            name: "001_a",
            sql: "a",
        },
        Migration {
            number: 2,
            name: "002_b",
            sql: "b",
        },
    ];

    #[test]
    fn only_what_is_missing_runs() {
        assert_eq!(compare(&[], &TWO).unwrap(), TWO);
        assert_eq!(compare(&[applied(1, "a")], &TWO).unwrap(), TWO[1..]);
    }

    #[test]
    fn a_changed_or_unknown_file_stops_everything() {
        assert!(matches!(
            compare(&[applied(1, "x")], &TWO),
            Err(MigrateError::Changed { .. })
        ));
        assert!(matches!(
            compare(&[applied(3, "c")], &TWO),
            Err(MigrateError::Newer { .. })
        ));
    }

    #[test]
    fn every_file_is_listed_in_order() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let listed: Vec<String> = MIGRATIONS
            .iter()
            .map(|m| format!("{}.sql", m.name))
            .collect();
        assert_eq!(files, listed);
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert!(migration.name.starts_with(&format!("{:03}_", index + 1)));
            assert_eq!(usize::try_from(migration.number), Ok(index + 1));
        }
    }

    #[test]
    fn line_ends_do_not_change_a_checksum() {
        assert_eq!(checksum("a\r\nb"), checksum("a\nb"));
        assert_ne!(checksum("a"), checksum("b"));
    }
}
