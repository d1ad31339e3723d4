//! The password file, `~/.pgpass` (manual 34.16).

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// Any group or world permission makes the file unusable (manual 34.16).
const OTHERS_MODE_BITS: u32 = 0o077;

/// Why a password file that exists was not used. A warning, not an error, as in libpq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassfileNotice {
    /// Group or others may read it.
    TooOpen {
        /// The file.
        path: PathBuf,
    },
    /// It is a folder or a device.
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is there but this process may not read it.
    Unreadable {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for PassfileNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOpen { path } => {
                let path = path.display();
                write!(
                    f,
                    "password file {path} is ignored because others can read it: chmod 0600 {path}"
                )
            }
            Self::NotAFile { path } => {
                write!(
                    f,
                    "password file {} is ignored because it is not a plain file",
                    path.display()
                )
            }
            Self::Unreadable { path } => {
                write!(
                    f,
                    "password file {} is ignored because it cannot be read",
                    path.display()
                )
            }
        }
    }
}

/// Where a password is looked for, as what to do where `user` has none for the server at `host`,
/// an address with its port.
pub(crate) fn wanted(host: &str, user: &str) -> String {
    format!(
        "the server wants a password: put the line {host}:*:{user}:PASSWORD into ~/.pgpass of the user that runs mmrepl (chmod 0600 ~/.pgpass), or into the password file that the dsn or $PGPASSFILE names, or write password=… into the dsn"
    )
}

/// What a password file said.
#[derive(Debug, Default)]
pub struct Passfile {
    /// The password of the first line that matches.
    pub password: Option<SecretString>,
    /// Why the file was not used, where it was not.
    pub notice: Option<PassfileNotice>,
}

/// The connection a password is wanted for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

/// Reads the file anew, so that a rotated password works without a restart.
pub(super) fn look_up(path: &Path, wanted: Wanted<'_>) -> Passfile {
    let notice = |notice| Passfile {
        password: None,
        notice: Some(notice),
    };
    let path_buf = || path.to_owned();
    let Ok(metadata) = std::fs::metadata(path) else {
        return Passfile::default();
    };
    if !metadata.is_file() {
        return notice(PassfileNotice::NotAFile { path: path_buf() });
    }
    if metadata.permissions().mode() & OTHERS_MODE_BITS != 0 {
        return notice(PassfileNotice::TooOpen { path: path_buf() });
    }
    match std::fs::read(path) {
        Ok(bytes) => Passfile {
            password: search(&String::from_utf8_lossy(&bytes), wanted).map(SecretString::from),
            notice: None,
        },
        Err(_) => notice(PassfileNotice::Unreadable { path: path_buf() }),
    }
}

/// The password of the first line whose four fields match. A line that starts with `#` is a
/// comment.
fn search(text: &str, wanted: Wanted<'_>) -> Option<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| match_line(line, wanted))
}

fn match_line(line: &str, wanted: Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    let mut rest = line;
    for expected in [wanted.host, &port, wanted.dbname, wanted.user] {
        let (raw, field, after) = take_field(rest)?;
        // Only a bare star is the wildcard; `\*` means a star.
        if raw != "*" && field != expected {
            return None;
        }
        rest = after;
    }
    // The password ends at the first colon that is not escaped, as libpq has it since 2009.
    let password = take_field(rest).map_or_else(|| unescape(rest), |(_, field, _)| field);
    (!password.is_empty()).then_some(password)
}

/// The text before the next colon, raw and unescaped, and what comes after the colon.
fn take_field(text: &str) -> Option<(&str, String, &str)> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((&text[..i], unescape(&text[..i]), &text[i + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    const WANTED: Wanted<'_> = Wanted {
        host: "::1",
        port: 5432,
        dbname: "a:b",
        user: "u\\x",
    };

    #[test]
    fn finds_the_first_match_with_escapes_and_wildcards() {
        let text = "# comment\n\
                    \\:\\:1:5433:*:*:wrong port\n\
                    \\*:5432:*:*:a star is not every host\n\
                    \\:\\:1:5432:a\\:b:u\\\\x:p\\:w\\\\d\n\
                    *:*:*:*:too late\n";
        assert_eq!(search(text, WANTED).as_deref(), Some("p:w\\d"));
        assert_eq!(search("*:*:*:*:x", WANTED).as_deref(), Some("x"));
        assert_eq!(search("*:*:*:*:x\r\n", WANTED).as_deref(), Some("x"));
        assert_eq!(search("*:*:*:x", WANTED), None);
        assert_eq!(search("*:*:*:*:\n*:*:*:*:y", WANTED).as_deref(), Some("y"));
    }

    #[test]
    fn a_file_others_can_read_is_ignored_with_a_notice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        std::fs::write(&path, "*:*:*:*:secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let found = look_up(&path, WANTED);
        assert!(found.password.is_none());
        assert_eq!(
            found.notice,
            Some(PassfileNotice::TooOpen { path: path.clone() })
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let found = look_up(&path, WANTED);
        assert_eq!(
            found.password.as_ref().map(ExposeSecret::expose_secret),
            Some("secret")
        );
        assert_eq!(found.notice, None);
        let folder = look_up(dir.path(), WANTED);
        assert!(matches!(
            folder.notice,
            Some(PassfileNotice::NotAFile { .. })
        ));
        let missing = look_up(&dir.path().join("none"), WANTED);
        assert!(missing.password.is_none() && missing.notice.is_none());
    }

    proptest! {
        #[test]
        fn any_file_is_searched_without_a_panic(text in "[:*\\\\a#\n]*") {
            let _ = search(&text, WANTED);
        }
    }
}
