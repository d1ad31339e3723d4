//! Where a server is and how to get in: libpq's connection strings (manual 34.1.1).
//!
//! Keywords, URIs, the `PG*` environment and the password file mean what they mean to libpq,
//! with three deliberate differences, all because a daemon must never wait for ever:
//! `connect_timeout` is 10 s unless it is set, TCP keepalives start after 30 s, and a root
//! certificate that is named but missing is an error in every mode.

mod error;
mod info;
mod keyvalue;
mod keywords;
pub(crate) mod passfile;
mod resolve;
mod uri;

pub use error::ConnInfoError;
pub use info::{
    CertFile, ConnInfo, Host, Keepalives, RootCert, SslMode, TargetSession, TlsOptions,
};
pub use keyvalue::quote_value;
pub use passfile::{Passfile, PassfileNotice};

/// Reads a connection string. `env` answers for the `PG*` variables, HOME and USER.
pub fn parse(dsn: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<ConnInfo, ConnInfoError> {
    if let Some(at) = dsn.find('\0') {
        return Err(ConnInfoError::Syntax {
            what: "it holds a zero byte",
            at,
        });
    }
    let pairs = if uri::is_uri(dsn) {
        uri::split(dsn)?
    } else {
        keyvalue::split(dsn)?
    };
    resolve::resolve(&keywords::Settings::new(pairs, env)?)
}

/// Reads a connection string with the environment of this process.
pub fn parse_with_process_env(dsn: &str) -> Result<ConnInfo, ConnInfoError> {
    parse(dsn, &|name| std::env::var(name).ok())
}

#[cfg(test)]
mod tests;
