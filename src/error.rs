//! What an error means for the one who meets it: may a retry help, or must a person act?

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryClass {
    /// The cause passes by itself: a lost connection, a deadlock, a server that starts.
    Transient,
    /// The same input fails the same way until somebody changes the data or the schema.
    Definite,
    /// History is broken (restored server, dropped slot): only a person can decide how to go on.
    Operator,
}

/// Implemented by every error that can end or interrupt a link.
pub trait Retryable {
    /// Whether a retry can help.
    fn retry_class(&self) -> RetryClass;

    /// The SQLSTATE a server gave, where one did (manual appendix A).
    fn sqlstate(&self) -> Option<&str> {
        None
    }
}

/// Classes of SQLSTATE whose cause passes by itself (manual appendix A).
///
/// 08 connection, 40 rollback (deadlock, serialization), 53 resources, 57 operator intervention
/// (shutdown, cancel), 58 system error; 55P03 lock not available, 55006 object in use,
/// 25006 read-only (a standby about to be promoted) and XX000, which says nothing about the data.
const TRANSIENT_CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
const TRANSIENT_STATES: [&str; 4] = ["55P03", "55006", "25006", "XX000"];

/// Classifies a server error by its SQLSTATE. What is about the data or the schema is definite.
pub fn classify_sqlstate(sqlstate: &str) -> RetryClass {
    let class = sqlstate.get(..2).unwrap_or("");
    if TRANSIENT_CLASSES.contains(&class) || TRANSIENT_STATES.contains(&sqlstate) {
        RetryClass::Transient
    } else {
        RetryClass::Definite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlocks_pass_and_missing_columns_do_not() {
        assert_eq!(classify_sqlstate("40P01"), RetryClass::Transient);
        assert_eq!(classify_sqlstate("57P01"), RetryClass::Transient);
        assert_eq!(classify_sqlstate("55006"), RetryClass::Transient);
        assert_eq!(classify_sqlstate("42703"), RetryClass::Definite);
        assert_eq!(classify_sqlstate("23505"), RetryClass::Definite);
        assert_eq!(classify_sqlstate(""), RetryClass::Definite);
    }
}
