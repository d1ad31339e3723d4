//! Where server binaries are on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::LocalError;
use super::user;

/// The majors mmrepl works with.
pub const MAJORS: std::ops::RangeInclusive<u32> = 14..=19;

/// A folder with `postgres` and `initdb` that really run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerBinaries {
    /// The folder.
    pub dir: PathBuf,
    /// The major version, 14 to 19.
    pub major: u32,
}

impl ServerBinaries {
    /// The folder's binaries when they run and are of a major that mmrepl supports.
    pub fn at(dir: &Path) -> Option<Self> {
        let output = Command::new(dir.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let major = parse_major(&String::from_utf8_lossy(&output.stdout))?;
        let usable = MAJORS.contains(&major) && dir.join("initdb").is_file();
        usable.then(|| Self {
            dir: dir.to_owned(),
            major,
        })
    }

    /// A client program such as `psql` or `pgbench`, where this folder has it.
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|path| path.is_file())
    }
}

/// One folder per major, the first found in the order of [`candidates`]; sorted by major.
pub fn find_all() -> Vec<ServerBinaries> {
    let mut found: Vec<ServerBinaries> = Vec::new();
    for binaries in candidates()
        .iter()
        .filter_map(|dir| ServerBinaries::at(dir))
    {
        if found.iter().all(|other| other.major != binaries.major) {
            found.push(binaries);
        }
    }
    found.sort_by_key(|binaries| binaries.major);
    found
}

/// The newest major found.
pub fn find_any() -> Result<ServerBinaries, LocalError> {
    find_all().pop().ok_or(LocalError::NoBinaries)
}

/// One major.
pub fn find_major(major: u32) -> Result<ServerBinaries, LocalError> {
    let wanted = |binaries: &ServerBinaries| binaries.major == major;
    find_all()
        .into_iter()
        .find(wanted)
        .ok_or(LocalError::NoMajor(major))
}

/// Where `tools/postgres.sh` keeps what it fetched. Outside a home folder for root, because the
/// server runs as somebody else, who could not read it there.
pub fn cache_dir() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = variable("MMREPL_PG_CACHE") {
        return dir.into();
    }
    if user::is_root() {
        return "/var/cache/mmrepl".into();
    }
    let home = || Path::new(&variable("HOME").unwrap_or_default()).join(".cache");
    variable("XDG_CACHE_HOME")
        .map_or_else(home, PathBuf::from)
        .join("mmrepl")
}

/// All folders worth a look: `MMREPL_PG_BIN`, the cache, Debian's, `pg_config`'s, and `PATH`.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = split_path("MMREPL_PG_BIN");
    dirs.extend(versioned(&cache_dir().join("postgresql")));
    dirs.extend(versioned(Path::new("/usr/lib/postgresql")));
    dirs.extend(pg_config_bindir());
    dirs.extend(split_path("PATH"));
    dirs.retain(|dir| dir.join("postgres").is_file());
    dirs
}

fn split_path(variable: &str) -> Vec<PathBuf> {
    std::env::var_os(variable).map_or_else(Vec::new, |list| std::env::split_paths(&list).collect())
}

/// `base/16/bin` and its like.
fn versioned(base: &Path) -> Vec<PathBuf> {
    MAJORS
        .rev()
        .map(|major| base.join(major.to_string()).join("bin"))
        .collect()
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// The major in `postgres (PostgreSQL) 16.14 (Debian …)`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split("(PostgreSQL)").nth(1)?.trim();
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_is_read_from_what_the_server_prints() {
        assert_eq!(parse_major("postgres (PostgreSQL) 16.14"), Some(16));
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn an_empty_folder_holds_no_server() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ServerBinaries::at(dir.path()), None);
    }
}
