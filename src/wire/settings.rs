//! What every session of ours is set to, whatever the database, the role or the server sets.
//! Pure.
//!
//! Most settings go with the first packet, where they win over `alter database … set` and
//! `alter role … set`. A few cannot: an older server does not know them, or they would hide what
//! `target_session_attrs` asks for; [`after_login`] has those.

/// Settings that decide what a value looks like as text. The stream that produces the text and
/// the session that consumes it have the same.
///
/// `client_encoding` lets databases of different encodings exchange text. `extra_float_digits`
/// 1 is the shortest text that reads back exactly (since 12). The empty `search_path` makes the
/// server qualify names in values of types such as `regclass`, and keeps functions that others
/// may plant out of our statements. `lc_monetary` is the text of `money`.
pub(super) const TEXT: [(&str, &str); 12] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "1"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("search_path", ""),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("array_nulls", "on"),
    ("standard_conforming_strings", "on"),
    ("quote_all_identifiers", "off"),
];

/// How statements run. A session that needs something else says so, and wins.
///
/// Limits of time are ours to set, where there are any. A policy that hides rows is an error and
/// not silence (`row_security`). Commits wait for this server's own disk, never for a standby.
pub(super) const BASE: [(&str, &str); 12] = [
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("row_security", "off"),
    ("synchronous_commit", "local"),
    ("jit", "off"),
    ("transform_null_equals", "off"),
    ("default_table_access_method", "heap"),
    ("check_function_bodies", "on"),
];

/// A session that writes what other nodes wrote: triggers and foreign keys do not fire, and
/// commits do not wait for the disk, as how far that has come is asked for apart.
///
/// Our own triggers go by [`APPLIES`] and not by the role: others load rows in that role too, and
/// those are new writes.
pub const APPLYING: [(&str, &str); 3] = [
    ("session_replication_role", "replica"),
    (APPLIES, "on"),
    ("synchronous_commit", "off"),
];

/// The setting by which our triggers know a session that applies what other nodes wrote.
pub const APPLIES: &str = "mmrepl.applying";

/// `role` may be set for a database or a role. The connection string may ask for one itself.
const OWN_ROLE: &str = "-c role=none";

/// From this version on a transaction may be limited in time (manual 19.11, 17).
const TRANSACTION_TIMEOUT_SINCE: u32 = 170_000;

/// The role that [`APPLYING`] sessions have, and others must not, as their writes are new ones.
const PLAIN_ROLE: &str = "select pg_catalog.set_config(s.name, 'origin', false)
    from (select 'session_replication_role') s(name)
    where pg_catalog.current_setting(s.name) <> 'origin'";

/// The encoding of a database that keeps any bytes.
const ANY_BYTES: &str = "SQL_ASCII";

/// What the connection string's own options become.
pub(super) fn options(user_options: Option<&str>) -> String {
    let parts = [Some(OWN_ROLE), user_options];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// All settings as `-c name=value` options, for clients that only know those.
pub(super) fn all_as_options(user_options: Option<&str>) -> String {
    let pinned = BASE.iter().chain(&TEXT).map(|(name, value)| {
        // A backslash keeps a space inside the value (manual 55.7, StartupMessage).
        format!("-c {name}={}", value.replace(' ', "\\ "))
    });
    let all = std::iter::once(options(user_options)).chain(pinned);
    all.collect::<Vec<_>>().join(" ")
}

/// What a server says of itself when a session begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerSays<'a> {
    /// `server_version` as a number.
    pub(super) version: u32,
    /// `server_encoding`.
    pub(super) encoding: Option<&'a str>,
}

/// The statements that complete a session of which the server `says` so; `applying` where its
/// writes are those of other nodes.
///
/// A database that keeps any bytes cannot convert them, and would refuse those that are no UTF-8:
/// sessions that only pass values on (`raw`) take them as they are.
pub(super) fn after_login(says: ServerSays<'_>, applying: bool, raw: bool) -> String {
    let mut statements = Vec::new();
    if says.version >= TRANSACTION_TIMEOUT_SINCE {
        // The first: it ends the limit of this very transaction.
        statements.push("set transaction_timeout = 0");
    }
    statements.push("set default_transaction_read_only = off");
    if raw && says.encoding == Some(ANY_BYTES) {
        statements.push("set client_encoding = 'SQL_ASCII'");
    }
    if !applying {
        statements.push(PLAIN_ROLE);
    }
    statements.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_spaces_inside_values() {
        let options = all_as_options(Some("-c a=b"));
        assert!(options.starts_with("-c role=none -c a=b -c statement_timeout=0 "));
        assert!(options.contains(" -c datestyle=ISO,\\ YMD "));
    }

    #[test]
    fn only_what_the_server_knows_is_set_after_login() {
        let says = |version, encoding| ServerSays {
            version,
            encoding: Some(encoding),
        };
        let old = after_login(says(140_000, "UTF8"), true, true);
        assert_eq!(old, "set default_transaction_read_only = off");
        let new = after_login(says(170_001, "SQL_ASCII"), false, true);
        assert!(new.starts_with("set transaction_timeout = 0; set default_"));
        assert!(new.contains("; set client_encoding = 'SQL_ASCII'; select"));
        assert!(!after_login(says(170_001, "SQL_ASCII"), false, false).contains("SQL_ASCII"));
    }
}
