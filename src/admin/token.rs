//! The secret a caller must know where one is configured.

use std::hint::black_box;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::AdminError;

/// More is no token but a mistake in the path.
const TOKEN_BYTES_MAX: u64 = 4096;
/// Fewer signs can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Readable or writable by everybody; a group may be trusted with it.
const OTHERS: u32 = 0o007;

/// The token of this daemon. Never printed.
#[derive(Debug)]
pub(super) struct Token(SecretString);

impl Token {
    /// Reads the first line of `path`.
    pub(super) async fn read(path: &Path) -> Result<Self, AdminError> {
        let owned = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_token(&owned)).await;
        read.unwrap_or_else(|e| Err(problem(path, e.to_string())))
            .map(Self)
    }

    /// The token, to be sent to the daemon that wants it.
    pub(super) fn into_secret(self) -> SecretString {
        self.0
    }

    /// Whether `offered` is the token; takes the same time wherever they differ.
    pub(super) fn matches(&self, offered: &[u8]) -> bool {
        let expected = self.0.expose_secret().as_bytes();
        let differences = expected
            .iter()
            .zip(offered)
            .fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        expected.len() == offered.len() && differences == 0
    }
}

/// Blocks.
fn read_token(path: &Path) -> Result<SecretString, AdminError> {
    let failed = |e: std::io::Error| problem(path, e.to_string());
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.permissions().mode() & OTHERS != 0 {
        return Err(problem(path, "everybody may use it".to_owned()));
    }
    if metadata.len() > TOKEN_BYTES_MAX {
        return Err(problem(
            path,
            format!("it is larger than {TOKEN_BYTES_MAX} bytes"),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    match text.lines().next().map(str::trim) {
        None | Some("") => Err(problem(path, "its first line is empty".to_owned())),
        Some(line) if line.len() < TOKEN_BYTES_MIN => Err(problem(
            path,
            format!(
                "its first line is shorter than {TOKEN_BYTES_MIN} signs, which can be guessed: `openssl rand -hex 32` makes a good one"
            ),
        )),
        Some(line) if line.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(line.into()),
        Some(_) => Err(problem(
            path,
            "its first line has blanks or unprintable signs".to_owned(),
        )),
    }
}

fn problem(path: &Path, problem: String) -> AdminError {
    AdminError::Token {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_first_line_is_the_token() {
        let token = read_token(file("secret-of-16-signs-1\nrest\n", 0o600).path()).unwrap();
        assert_eq!(token.expose_secret(), "secret-of-16-signs-1");
        let token = Token(token);
        assert!(token.matches(b"secret-of-16-signs-1"));
        for wrong in ["", "secret-2", "secret-", "secret-of-16-signs-11"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
        assert!(!format!("{token:?}").contains("secret-of-16-signs-1"));
    }

    #[test]
    fn files_that_protect_nothing_are_refused_without_their_content() {
        for (text, mode, words) in [
            ("hush", 0o604, "everybody may use it"),
            ("", 0o600, "first line is empty"),
            ("hush hush hush hush", 0o600, "blanks"),
            ("h", 0o600, "shorter than 16 signs"),
            ("hush-hush-hush", 0o600, "can be guessed"),
            (&"x".repeat(5000), 0o600, "larger than"),
        ] {
            let error = read_token(file(text, mode).path()).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hush"), "{error}");
        }
        assert!(read_token(Path::new("/nonexistent/token")).is_err());
    }
}
