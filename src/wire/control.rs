//! The control plane: tokio-postgres over our own stream, so that every connection follows the
//! same connection string, TLS included.

use std::error::Error as _;

use futures_util::TryFutureExt;
use secrecy::ExposeSecret;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::{DbError, ErrorPosition};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, NoTls};

use super::connect::{Handshake, completed, connect};
use super::error::{ServerError, WireError};
use super::redact::Raised;
use super::settings::{self, ServerSays};
use super::startup::version_number;
use super::stream::Stream;
use crate::config::conninfo::passfile::wanted;
use crate::config::conninfo::{ConnInfo, Host};

/// Connects for SQL that is not on the hot path. The connection ends with the client.
///
/// The pinned settings hold here too; with the empty `search_path` every name is qualified.
pub async fn control(info: &ConnInfo, application_name: &str) -> Result<Client, WireError> {
    let (client, connection) = connect(
        info,
        &ControlLogin {
            info,
            application_name,
        },
    )
    .await?;
    let version = connection.parameter("server_version");
    let says = ServerSays {
        version: version.and_then(version_number).unwrap_or_default(),
        encoding: None,
    };
    let complete = settings::after_login(says, false, false);
    let server = info.describe();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            let error = from_tokio_postgres(error);
            tracing::debug!(%server, %error, "a control connection has ended");
        }
    });
    let completing = client.batch_execute(&complete).map_err(from_tokio_postgres);
    completed(info, completing).await?;
    Ok(client)
}

struct ControlLogin<'a> {
    info: &'a ConnInfo,
    application_name: &'a str,
}

type ControlConnection = tokio_postgres::Connection<Stream, NoTlsStream>;

impl Handshake for ControlLogin<'_> {
    type Output = (Client, ControlConnection);

    async fn run(&self, stream: Stream, host: &Host) -> Result<Self::Output, WireError> {
        let mut config = Config::new();
        config
            .user(self.info.user())
            .dbname(self.info.dbname())
            .application_name(self.application_name)
            .options(settings::all_as_options(self.info.options()))
            // The stream is protected already.
            .ssl_mode(SslMode::Disable);
        let found = self.info.password_for(host);
        if let Some(password) = &found.password {
            config.password(password.expose_secret());
        }
        config.connect_raw(stream, NoTls).await.map_err(|error| {
            let refused = error.as_db_error().is_none() && !error.is_closed();
            match from_tokio_postgres(error) {
                WireError::Protocol(why) if refused => {
                    let notice = found.notice.map(|n| format!(" ({n})")).unwrap_or_default();
                    let (peer, user) = (host.to_string(), self.info.user().to_owned());
                    let why = if found.password.is_none() && why.contains("password missing") {
                        wanted(&peer, &user)
                    } else {
                        why
                    };
                    WireError::Auth {
                        peer,
                        user,
                        why: format!("{why}{notice}"),
                    }
                }
                other => other,
            }
        })
    }

    fn parameter<'a>(output: &'a Self::Output, name: &str) -> Option<&'a str> {
        output.1.parameter(name)
    }
}

/// Translates an error of tokio-postgres, keeping its SQLSTATE and dropping row values.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub fn from_tokio_postgres(error: tokio_postgres::Error) -> WireError {
    if let Some(db) = error.as_db_error() {
        return server_error(db).into();
    }
    if error.is_closed() {
        return WireError::Closed;
    }
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    if let Some(io) = io {
        let doing = error.to_string();
        let source = std::io::Error::new(io.kind(), io.to_string());
        return WireError::Io { doing, source };
    }
    match error.source() {
        Some(source) => WireError::Protocol(format!("{error}: {source}")),
        None => WireError::Protocol(error.to_string()),
    }
}

fn server_error(db: &DbError) -> ServerError {
    let text = |field: Option<&str>| field.map(str::to_owned);
    let severity = db.parsed_severity().map(|severity| severity.to_string());
    let position = match db.position() {
        Some(ErrorPosition::Original(position)) => Some(*position),
        _ => None,
    };
    let error = ServerError {
        severity: severity.unwrap_or_else(|| db.severity().to_owned()),
        sqlstate: db.code().code().to_owned(),
        message: db.message().to_owned(),
        hint: text(db.hint()),
        schema: text(db.schema()),
        table: text(db.table()),
        column: text(db.column()),
        data_type: text(db.datatype()),
        constraint: text(db.constraint()),
        position,
    };
    error.made_safe(Raised {
        file: db.file(),
        routine: db.routine(),
        context: db.where_(),
        has_query: matches!(db.position(), Some(ErrorPosition::Internal { .. })),
    })
}
