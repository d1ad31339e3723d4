//! What can be wrong with a connection string. No variant ever holds a password.

use crate::error::{RetryClass, Retryable};

/// A connection string that cannot be used, in one sentence that says what to change.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConnInfoError {
    /// A keyword libpq does not have either.
    #[error("the DSN has an unknown keyword{}{}", named(.keyword.as_deref()), meant(*.nearest))]
    UnknownKeyword {
        /// The keyword, unless it might be a piece of a badly quoted password.
        keyword: Option<String>,
        /// The known keyword that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A keyword of libpq that mmrepl cannot honour, so that ignoring it would be wrong.
    #[error("the DSN keyword `{keyword}`{} cannot be used: {why}", source_of(*.from_env))]
    Unsupported {
        /// The keyword.
        keyword: &'static str,
        /// The environment variable the value came from, where it did.
        from_env: Option<&'static str>,
        /// What to do instead.
        why: &'static str,
    },
    /// A value that its keyword does not allow.
    #[error("the DSN keyword `{keyword}`{} needs {expected} as its value", source_of(*.from_env))]
    BadValue {
        /// The keyword.
        keyword: &'static str,
        /// The environment variable the value came from, where it did.
        from_env: Option<&'static str>,
        /// What the value should look like.
        expected: &'static str,
    },
    /// `host`, `hostaddr` and `port` name different numbers of servers.
    #[error(
        "the DSN has {hosts} hosts but {others} values for `{keyword}`: give one for each host"
    )]
    CountMismatch {
        /// How many hosts there are.
        hosts: usize,
        /// How many values the other list has.
        others: usize,
        /// The other list.
        keyword: &'static str,
    },
    /// The text does not follow the grammar of connection strings.
    #[error("the DSN cannot be read: {what} (at byte {at})")]
    Syntax {
        /// What is wrong there.
        what: &'static str,
        /// Where, in bytes from the start.
        at: usize,
    },
    /// Neither the DSN nor the environment says who connects.
    #[error("the DSN names no user: add user=NAME (or set PGUSER)")]
    NoUser,
    /// The weaker modes would accept any certificate that any public authority signed.
    #[error(
        "sslrootcert=system needs sslmode=verify-full, because anyone can have a public certificate"
    )]
    WeakModeForSystemRoots,
}

impl Retryable for ConnInfoError {
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}

fn named(keyword: Option<&str>) -> String {
    keyword.map_or_else(
        || ": put values that hold spaces in single quotes".to_owned(),
        |keyword| format!(" `{keyword}`"),
    )
}

fn meant(nearest: Option<&'static str>) -> String {
    nearest
        .map(|known| format!(": did you mean `{known}`?"))
        .unwrap_or_default()
}

fn source_of(from_env: Option<&'static str>) -> String {
    from_env
        .map(|name| format!(" (from ${name})"))
        .unwrap_or_default()
}
