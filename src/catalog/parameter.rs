//! Parameters of apply sessions that not every role may set.

/// Keeps triggers and foreign keys from firing for applied rows (manual 19.11).
pub const REPLICATION_ROLE: &str = "session_replication_role";
/// After how long a waiting session looks for a circle of waits (manual 19.12).
pub const DEADLOCK_TIMEOUT: &str = "deadlock_timeout";

/// Privileges to set single parameters exist from this version on (manual 5.8, 15).
const PRIVILEGES_SINCE: u32 = 150_000;

/// Whether the current role may set one of them, as an SQL condition. On 14 only superusers may.
pub fn may_set(parameter: &str, server_version: u32) -> String {
    if server_version >= PRIVILEGES_SINCE {
        format!("pg_catalog.has_parameter_privilege('{parameter}', 'SET')")
    } else {
        "pg_catalog.current_setting('is_superuser') = 'on'".to_owned()
    }
}
