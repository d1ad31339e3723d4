//! Every keyword libpq knows, where its default comes from, and what mmrepl does with it.

use super::error::ConnInfoError;

/// What mmrepl does with a keyword's value.
enum Support {
    /// Has its meaning.
    Used,
    /// Cannot matter here (a GSSAPI name, say), so any value will do.
    Ignored,
    /// Only these values mean what mmrepl does anyway; others need what it does not have.
    Only(&'static [&'static str], &'static str),
    /// Ignoring it would be wrong, mostly because it asks for more safety.
    Refused(&'static str),
}
use Support::{Ignored, Only, Refused, Used};

struct Keyword {
    name: &'static str,
    env: Option<&'static str>,
    support: Support,
}

const fn keyword(name: &'static str, env: &'static str, support: Support) -> Keyword {
    let env = if env.is_empty() { None } else { Some(env) };
    Keyword { name, env, support }
}

const NO_GSS: &str = "mmrepl has no GSSAPI encryption; use sslmode";
const NO_CRL: &str = "mmrepl does not read revocation lists; remove it";
const NO_SERVICE: &str = "mmrepl does not read service files; write the settings into the DSN";
const NO_BINDING: &str = "mmrepl has no channel binding; use sslmode=verify-full";
const NO_METHODS: &str = "mmrepl cannot restrict the methods; use sslmode=verify-full";
const NO_PROTOCOL: &str = "mmrepl always speaks protocol 3.0; remove it";

/// The keywords of libpq 18 (manual 34.1.2) with their environment variables (manual 34.15).
const KEYWORDS: &[Keyword] = &[
    keyword("application_name", "PGAPPNAME", Used),
    keyword(
        "channel_binding",
        "PGCHANNELBINDING",
        Only(&["disable", "prefer"], NO_BINDING),
    ),
    keyword("client_encoding", "PGCLIENTENCODING", Ignored),
    keyword("connect_timeout", "PGCONNECT_TIMEOUT", Used),
    keyword("dbname", "PGDATABASE", Used),
    keyword("fallback_application_name", "", Used),
    keyword("gssdelegation", "PGGSSDELEGATION", Ignored),
    keyword(
        "gssencmode",
        "PGGSSENCMODE",
        Only(&["disable", "prefer"], NO_GSS),
    ),
    keyword("gsslib", "PGGSSLIB", Ignored),
    keyword("host", "PGHOST", Used),
    keyword("hostaddr", "PGHOSTADDR", Used),
    keyword("keepalives", "", Used),
    keyword("keepalives_count", "", Used),
    keyword("keepalives_idle", "", Used),
    keyword("keepalives_interval", "", Used),
    keyword("krbsrvname", "PGKRBSRVNAME", Ignored),
    keyword(
        "load_balance_hosts",
        "PGLOADBALANCEHOSTS",
        Only(&["disable"], "mmrepl tries the hosts in order"),
    ),
    keyword("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored),
    keyword(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        Only(&["3.0"], NO_PROTOCOL),
    ),
    keyword("options", "PGOPTIONS", Used),
    keyword("passfile", "PGPASSFILE", Used),
    keyword("password", "PGPASSWORD", Used),
    keyword("port", "PGPORT", Used),
    keyword(
        "replication",
        "",
        Refused("mmrepl sets it where it is needed; remove it"),
    ),
    keyword("require_auth", "PGREQUIREAUTH", Refused(NO_METHODS)),
    keyword(
        "requirepeer",
        "PGREQUIREPEER",
        Refused("mmrepl cannot check the server's owner"),
    ),
    keyword("service", "PGSERVICE", Refused(NO_SERVICE)),
    keyword("servicefile", "", Refused(NO_SERVICE)),
    keyword(
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        Only(&["TLSv1.3"], NO_TLS_MAX),
    ),
    keyword(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        Only(TLS_MIN, NO_TLS_MIN),
    ),
    keyword("sslcert", "PGSSLCERT", Used),
    keyword(
        "sslcertmode",
        "PGSSLCERTMODE",
        Only(&["allow"], "mmrepl sends the certificate when asked"),
    ),
    keyword("sslcompression", "PGSSLCOMPRESSION", Ignored),
    keyword("sslcrl", "PGSSLCRL", Refused(NO_CRL)),
    keyword("sslcrldir", "PGSSLCRLDIR", Refused(NO_CRL)),
    keyword("sslkey", "PGSSLKEY", Used),
    keyword("sslmode", "PGSSLMODE", Used),
    keyword(
        "sslnegotiation",
        "PGSSLNEGOTIATION",
        Only(
            &["postgres"],
            "mmrepl asks for TLS in the classic way, which every server answers",
        ),
    ),
    keyword(
        "sslpassword",
        "",
        Refused("mmrepl reads only keys without a passphrase"),
    ),
    keyword("sslrootcert", "PGSSLROOTCERT", Used),
    keyword("sslsni", "PGSSLSNI", Used),
    keyword("target_session_attrs", "PGTARGETSESSIONATTRS", Used),
    keyword("tcp_user_timeout", "", Used),
    keyword("user", "PGUSER", Used),
];

const TLS_MIN: &[&str] = &["TLSv1", "TLSv1.1", "TLSv1.2"];
const NO_TLS_MIN: &str = "mmrepl speaks TLS 1.2 and 1.3; set the minimum on the server";
const NO_TLS_MAX: &str = "mmrepl speaks TLS 1.2 and 1.3; set the maximum on the server";

/// Words that are farther than this from a known keyword are not taken for a slip of the pen.
const NEAREST_MAX_EDITS: usize = 3;

/// A value and where it came from, for error messages.
pub(super) struct Value {
    pub(super) keyword: &'static str,
    pub(super) from_env: Option<&'static str>,
    pub(super) text: String,
}

impl Value {
    /// The error that says what the value should have been.
    pub(super) fn bad(&self, expected: &'static str) -> ConnInfoError {
        ConnInfoError::BadValue {
            keyword: self.keyword,
            from_env: self.from_env,
            expected,
        }
    }
}

/// The settings of one connection string over those of the environment.
pub(super) struct Settings<'a> {
    pairs: Vec<(String, String)>,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Settings<'a> {
    /// Checks every keyword and refuses what cannot be honoured.
    pub(super) fn new(
        pairs: Vec<(String, String)>,
        env: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnInfoError> {
        if let Some((name, _)) = pairs.iter().find(|(name, _)| find(name).is_none()) {
            return Err(unknown(name));
        }
        let settings = Self { pairs, env };
        for keyword in KEYWORDS {
            settings.check(keyword)?;
        }
        Ok(settings)
    }

    /// The value of a keyword: the last in the string, else the environment's.
    ///
    /// An empty value means the default, and hides the environment's, as in libpq.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let keyword = find(name)?;
        let value = |text: String, from_env| {
            (!text.is_empty()).then_some(Value {
                keyword: keyword.name,
                from_env,
                text,
            })
        };
        match self.pairs.iter().rev().find(|(key, _)| key == name) {
            Some((_, text)) => value(text.clone(), None),
            None => value((self.env)(keyword.env?)?, keyword.env),
        }
    }

    /// A variable of the environment that is not a default of a keyword, such as HOME.
    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn check(&self, keyword: &Keyword) -> Result<(), ConnInfoError> {
        let why = match keyword.support {
            Used | Ignored => return Ok(()),
            Only(_, why) | Refused(why) => why,
        };
        match (self.get(keyword.name), &keyword.support) {
            (None, _) => Ok(()),
            (Some(value), Only(values, _)) if values.contains(&value.text.as_str()) => Ok(()),
            (
                Some(Value {
                    keyword, from_env, ..
                }),
                _,
            ) => Err(ConnInfoError::Unsupported {
                keyword,
                from_env,
                why,
            }),
        }
    }
}

fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// Names the keyword only where it looks like one: a password with a space in it that was not
/// quoted ends up here too.
fn unknown(name: &str) -> ConnInfoError {
    let plausible = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    let nearest = KEYWORDS
        .iter()
        .filter(|_| plausible)
        .filter(|known| !matches!(known.support, Refused(_)))
        .map(|known| (distance(known.name), known.name))
        .min()
        .filter(|(edits, _)| *edits <= NEAREST_MAX_EDITS)
        .map(|(_, known)| known);
    ConnInfoError::UnknownKeyword {
        keyword: plausible.then(|| name.to_owned()),
        nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<(), String> {
        let pairs = crate::config::conninfo::keyvalue::split(text).unwrap();
        Settings::new(pairs, &|_| None)
            .map(|_| ())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn names_the_nearest_keyword() {
        assert_eq!(
            settings("hsot=a").unwrap_err(),
            "the DSN has an unknown keyword `hsot`: did you mean `host`?"
        );
        assert_eq!(
            settings("sslrootcrt=a").unwrap_err(),
            "the DSN has an unknown keyword `sslrootcrt`: did you mean `sslrootcert`?"
        );
        assert_eq!(
            settings("quite_something=a").unwrap_err(),
            "the DSN has an unknown keyword `quite_something`"
        );
    }

    #[test]
    fn never_repeats_what_may_be_a_piece_of_a_password() {
        let error = settings("password=my S3cret=x").unwrap_err();
        assert!(!error.contains("S3cret"), "{error}");
    }

    #[test]
    fn refuses_what_would_weaken_the_connection_when_ignored() {
        let error = settings("channel_binding=require").unwrap_err();
        assert!(error.contains("channel_binding"), "{error}");
        assert_eq!(
            settings("channel_binding=prefer gssencmode=disable"),
            Ok(())
        );
        assert!(settings("sslcrl=/x").is_err());
        let env = |name: &str| (name == "PGREQUIREAUTH").then(|| "none".to_owned());
        let error = Settings::new(vec![], &env)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("(from $PGREQUIREAUTH)"), "{error}");
    }

    #[test]
    fn keywords_are_sorted_and_unique() {
        assert!(KEYWORDS.is_sorted_by(|a, b| a.name < b.name));
    }
}
