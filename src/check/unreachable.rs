//! What to do about a server that cannot be asked. Pure.

use super::Problem;
use crate::error::Retryable;
use crate::ids::NodeName;
use crate::wire::WireError;

/// The problem that a server could not be asked at all.
pub fn unreachable(node: &NodeName, target: &str, error: &WireError) -> Problem {
    let what = format!("cannot connect to {target}: {error}");
    Problem::error(node, what).note(advice(error))
}

fn advice(error: &WireError) -> String {
    match error {
        WireError::Tls { .. } => {
            "mend what the sentence names: sslmode, sslrootcert, sslcert and sslkey in the dsn, or ssl, ssl_cert_file and ssl_key_file of the server".to_owned()
        }
        WireError::Auth { .. } => {
            "set the password in the password file (~/.pgpass, or the one that $PGPASSFILE names), in $PGPASSWORD or in the dsn".to_owned()
        }
        WireError::WrongSession { .. } => {
            "name the primary in the dsn, or take target_session_attrs out of it".to_owned()
        }
        WireError::Protocol(_) => {
            "set the right host and port in the dsn: what answers there may not be PostgreSQL".to_owned()
        }
        _ => by_sqlstate(error.sqlstate(), &error.to_string()).to_owned(),
    }
}

/// What the server said; 28000 is every refusal before a password is looked at.
fn by_sqlstate(sqlstate: Option<&str>, message: &str) -> &'static str {
    match sqlstate {
        Some("28P01") => {
            "set the right password in the dsn, in $PGPASSWORD or in the password file"
        }
        Some("28000") if message.contains("pg_hba.conf") => {
            "allow the role in pg_hba.conf, for the database itself and, for streaming, with the same rights; then: select pg_reload_conf(). Where the server asks for encryption set sslmode in the dsn"
        }
        Some("28000") => {
            "create the role with login and replication, or set the right user in the dsn"
        }
        Some("3D000") => "create the database, or set the right dbname in the dsn",
        Some("42501") => "grant connect on the database to the role",
        Some("53100") => {
            "the server's disk is full: make room there; slots of peers that are away hold WAL (pg_replication_slots)"
        }
        Some("53300") => "raise max_connections or close connections",
        Some("57P03") => "the server starts, stops or recovers: wait, or look at its log",
        Some(_) => "do what the server says; its log may say more",
        None => {
            "start the server, or set the right host and port in the dsn; listen_addresses and firewalls can also be the cause"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_about_what_failed() {
        let peer = || "10.0.0.1:5432".to_owned();
        let tls = WireError::Tls {
            peer: peer(),
            why: "the certificate has expired".to_owned(),
        };
        assert!(advice(&tls).contains("sslrootcert"));
        let login = WireError::Auth {
            peer: peer(),
            user: "mmrepl".to_owned(),
            why: "the server wants a password".to_owned(),
        };
        assert!(advice(&login).contains("password file"));
        assert!(by_sqlstate(Some("28000"), "no pg_hba.conf entry").contains("pg_hba.conf"));
        assert!(by_sqlstate(Some("28000"), "role does not exist").contains("create the role"));
        assert!(by_sqlstate(Some("53100"), "").contains("full"));
        assert!(by_sqlstate(None, "").contains("start the server"));
    }
}
