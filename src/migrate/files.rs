//! The files of `migrations/`, embedded in the program.

/// One file of `migrations/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its place below `migrations/`, without `.sql`.
    pub name: &'static str,
    /// The SQL.
    pub sql: &'static str,
}

/// Embeds files of one folder.
macro_rules! embed {
    ($folder:literal: $($name:literal)+) => {
        &[$(File {
            name: concat!($folder, "/", $name),
            sql: include_str!(concat!("../../migrations/", $folder, "/", $name, ".sql")),
        }),+]
    };
}

/// What runs once, in this order.
pub const TABLES: &[File] = embed!("tables":
    "001_nodes"
    "002_versions"
    "003_conflicts"
    "004_rewrites"
    "005_skips"
    "006_secret"
    "007_witnesses"
    "008_gaps"
    "009_early_notes"
    "010_others"
    "011_released"
    "012_fingerprints"
    "013_dropped"
    "014_tombstone_blocks"
);

/// What runs again whenever it has changed. The order does not matter.
pub const FUNCTIONS: &[File] = embed!("functions":
    "apply"
    "blocks"
    "clock"
    "counters"
    "fingerprints"
    "follow"
    "history"
    "keys"
    "known"
    "lifting"
    "position"
    "rewrite_events"
    "rewrites"
    "shadows"
    "source_times"
    "subscriptions"
    "tombstones"
    "truncates"
    "versions"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn in_folder(folder: &str) -> Vec<String> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let entries = std::fs::read_dir(path.join(folder)).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            let file = entry.unwrap().file_name();
            format!("{folder}/{}", file.to_string_lossy())
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    fn listed(files: &[File]) -> Vec<String> {
        files.iter().map(|f| format!("{}.sql", f.name)).collect()
    }

    #[test]
    fn every_file_is_embedded() {
        assert_eq!(in_folder("tables"), listed(TABLES));
        assert_eq!(in_folder("functions"), listed(FUNCTIONS));
    }

    #[test]
    fn tables_are_numbered_without_a_gap() {
        for (index, file) in TABLES.iter().enumerate() {
            let number = format!("tables/{:03}_", index + 1);
            assert!(
                file.name.starts_with(&number),
                "{} is not {number}",
                file.name
            );
        }
    }

    /// A function that is made by `create function` could not be made again.
    #[test]
    fn functions_can_be_made_again() {
        for file in FUNCTIONS {
            let again = file.sql.lines().filter(|line| {
                line.starts_with("create ") && !line.starts_with("create or replace function ")
            });
            assert_eq!(
                again.collect::<Vec<_>>(),
                Vec::<&str>::new(),
                "{}",
                file.name
            );
        }
    }
}
