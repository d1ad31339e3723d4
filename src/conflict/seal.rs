//! Seals on what mmrepl says in a server's WAL: any role may write messages there. Pure.
//!
//! A node's secret is in a table that only its owner reads. Whoever writes on the node in the name
//! of the cluster knows it, and so does the daemon that reads the node's WAL. A sealed message that
//! somebody copies says once more what was true before, and so nothing new.

use ring::digest::{SHA256, digest};

/// What is between a message and its seal.
const SEPARATOR: char = ' ';

/// A node's secret.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// From what the node keeps.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    fn seal(&self, content: &str) -> String {
        let whole = [&self.0, content.as_bytes(), &self.0].concat();
        let digest = digest(&SHA256, &whole);
        let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        hex.collect()
    }

    /// `content` with its seal.
    pub fn sealed(&self, content: &str) -> String {
        format!("{content}{SEPARATOR}{}", self.seal(content))
    }

    /// The content of a message, where the seal is this node's.
    pub fn opened<'a>(&self, message: &'a [u8]) -> Option<&'a str> {
        let (content, seal) = std::str::from_utf8(message).ok()?.rsplit_once(SEPARATOR)?;
        (!self.0.is_empty() && seal == self.seal(content)).then_some(content)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_opens_what_was_sealed() {
        let (one, other) = (Secret::new(vec![1; 32]), Secret::new(vec![2; 32]));
        let sealed = one.sealed("applied shop west 1/2 3");
        assert_eq!(
            one.opened(sealed.as_bytes()),
            Some("applied shop west 1/2 3")
        );
        assert_eq!(other.opened(sealed.as_bytes()), None);
        assert_eq!(one.opened(sealed.replace("west", "east").as_bytes()), None);
        assert_eq!(one.opened(b"applied shop west 1/2 3"), None);
        assert_eq!(one.opened(b"\xff"), None);
        // A node without a secret believes nobody.
        let none = Secret::default();
        assert_eq!(none.opened(none.sealed("x").as_bytes()), None);
    }
}
