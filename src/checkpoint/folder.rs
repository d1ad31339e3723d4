//! The data directory is its daemon's alone: where a link stands is nobody else's to read or move.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::store::STORE_DIR;

const PRIVATE: u32 = 0o700;
/// Rights of the group and of everybody.
const OTHERS: u32 = 0o077;

/// Makes the directory where it is missing, and takes away the rights of others where they have
/// some. A directory that holds other things too, such as `/tmp`, is left as it is.
pub(super) fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let closed = holds_only_ours(dir).and_then(|ours| {
        ours.then(|| fs::set_permissions(dir, Permissions::from_mode(PRIVATE)))
            .transpose()
    });
    if !matches!(closed, Ok(Some(()))) {
        tracing::warn!(
            dir = %dir.display(),
            "others may use the data directory: give the daemon one of its own with mode 0700"
        );
    }
    Ok(())
}

fn holds_only_ours(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(STORE_DIR) && !name.starts_with("mmrepl") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(dir: &Path) -> u32 {
        fs::metadata(dir).unwrap().permissions().mode() & 0o777
    }

    fn opened(dir: &Path) {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_new_directory_and_one_of_ours_become_private() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/b");
        make_private(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        fs::write(dir.join("mmrepl.lock"), "1").unwrap();
        fs::create_dir(dir.join(STORE_DIR)).unwrap();
        opened(&dir);
        make_private(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("letters.txt"), "").unwrap();
        opened(base.path());
        make_private(base.path()).unwrap();
        assert_eq!(mode(base.path()), 0o755);
    }
}
