//! From an open stream to a usable session (manual 55.2.1).

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::auth;
use super::codec::WireFrame;
use super::connection::{Connection, misplaced};
use super::error::WireError;
use super::settings;
use super::stream::Stream;
use crate::config::conninfo::{ConnInfo, Host};

/// What a new session is to be.
#[derive(Clone, Debug)]
pub(super) struct Login<'a> {
    /// Who and where.
    pub(super) info: &'a ConnInfo,
    /// Shown in `pg_stat_activity`.
    pub(super) application_name: &'a str,
    /// True for a connection that takes replication commands as well as SQL.
    pub(super) replication: bool,
    /// More settings; those of [`settings::TEXT`] come after them and win.
    pub(super) settings: &'a [(&'a str, &'a str)],
}

/// Sends the startup packet, authenticates, and waits until the server is ready.
pub(super) async fn log_in(
    stream: Stream,
    host: &Host,
    login: &Login<'_>,
) -> Result<Connection, WireError> {
    let mut connection = Connection::new(stream, host.to_string());
    let options = settings::options(login.info.options());
    frontend::startup_message(parameters(login, &options), connection.output())
        .map_err(|e| WireError::Protocol(format!("the connection settings cannot be sent: {e}")))?;
    auth::authenticate(&mut connection, login.info, host).await?;
    loop {
        match connection.receive().await? {
            WireFrame::Message(Message::BackendKeyData(body)) => {
                connection.backend_pid = body.process_id();
            }
            WireFrame::Message(Message::ReadyForQuery(_)) => break,
            frame => return Err(misplaced(&frame, "the start of the session")),
        }
    }
    connection.logged_in();
    Ok(connection)
}

fn parameters<'a>(login: &'a Login<'_>, options: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut parameters = vec![
        ("user", login.info.user()),
        ("database", login.info.dbname()),
        ("application_name", login.application_name),
    ];
    if login.replication {
        parameters.push(("replication", "database"));
    }
    parameters.push(("options", options));
    // The server lets the last value of a setting win.
    parameters.extend_from_slice(&settings::BASE);
    parameters.extend_from_slice(login.settings);
    parameters.extend_from_slice(&settings::TEXT);
    parameters
}

/// `server_version` as a number, 160014 for 16.14; betas count as .0.
pub(super) fn version_number(text: &str) -> Option<u32> {
    let digits = |text: &str| -> Option<u32> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        text.get(..end)?.parse().ok()
    };
    let major = digits(text)?;
    let minor = text
        .split_once('.')
        .filter(|(head, _)| head.parse::<u32>().is_ok());
    let minor = minor.and_then(|(_, tail)| digits(tail)).unwrap_or(0);
    major.checked_mul(10_000)?.checked_add(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        for (text, number) in [
            ("16.14", Some(160_014)),
            ("15.18 (Debian 15.18-0+deb12u1)", Some(150_018)),
            ("18beta1", Some(180_000)),
            ("14rc1 (a 1.5)", Some(140_000)),
            ("19devel", Some(190_000)),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
