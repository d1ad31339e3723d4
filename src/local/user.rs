//! Who a server runs as: `initdb` and `postgres` refuse to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::LocalError;

/// Another account on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// Accounts that are made for this, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// The number of `nobody` where there is no `/etc/passwd` (Linux, the overflow uid).
const OVERFLOW: Account = Account {
    uid: 65534,
    gid: 65534,
};

/// Whether this process is root, read off the owner of its own entry in `/proc`. Where there is no
/// `/proc` the answer is no, and `initdb` says what is wrong.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// The account that servers run as: our own, or an unprivileged one when we are root.
pub fn server_account() -> Option<Account> {
    is_root().then(|| {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        UNPRIVILEGED
            .iter()
            .find_map(|name| lookup(&passwd, name))
            .unwrap_or(OVERFLOW)
    })
}

/// Makes `command` run as `account`.
pub(crate) fn run_as(command: &mut Command, account: Option<Account>) {
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
}

/// Makes the folder, gives it to `account`, and opens the way to it for that account.
pub(crate) fn make_dir(dir: &Path, account: Option<Account>) -> Result<(), LocalError> {
    fs::create_dir_all(dir).map_err(LocalError::io("cannot create", dir))?;
    let Some(account) = account else {
        return Ok(());
    };
    chown(dir, Some(account.uid), Some(account.gid))
        .map_err(LocalError::io("cannot change the owner of", dir))?;
    dir.ancestors().skip(1).try_for_each(open_way)
}

/// Lets everybody pass through a folder of ours (not list it); others' folders are left alone.
fn open_way(dir: &Path) -> Result<(), LocalError> {
    let Ok(meta) = fs::metadata(dir) else {
        return Ok(());
    };
    let mode = meta.permissions().mode();
    if mode & 0o001 != 0 || !dir.starts_with(std::env::temp_dir()) {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o011))
        .map_err(LocalError::io("cannot open the way through", dir))
}

fn lookup(passwd: &str, name: &str) -> Option<Account> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = passwd
        .lines()
        .map(fields)
        .find(|entry| entry.first().is_some_and(|n| n == name))?;
    Some(Account {
        uid: entry.get(2)?.parse().ok()?,
        gid: entry.get(3)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533::/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(
            lookup(passwd, "nobody"),
            Some(Account {
                uid: 65534,
                gid: 65533
            })
        );
        assert_eq!(lookup(passwd, "postgres"), None);
    }
}
