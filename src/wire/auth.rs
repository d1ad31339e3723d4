//! Proving who we are: cleartext, MD5 and SCRAM-SHA-256 (manual 55.2.1 and 55.3).

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret, SecretString};

use super::codec::WireFrame;
use super::connection::{Connection, misplaced};
use super::error::WireError;
use crate::config::conninfo::passfile::wanted;
use crate::config::conninfo::{ConnInfo, Host};

/// Answers the server's requests until it is content.
pub(super) async fn authenticate(
    connection: &mut Connection,
    info: &ConnInfo,
    host: &Host,
) -> Result<(), WireError> {
    loop {
        match connection.receive().await? {
            WireFrame::Message(Message::AuthenticationOk) => return Ok(()),
            WireFrame::Message(Message::AuthenticationCleartextPassword) => {
                let password = password(info, host)?;
                send_password(connection, password.expose_secret().as_bytes())?;
            }
            WireFrame::Message(Message::AuthenticationMd5Password(body)) => {
                let password = password(info, host)?;
                let secret = password.expose_secret().as_bytes();
                let hash = md5_hash(info.user().as_bytes(), secret, body.salt());
                send_password(connection, hash.as_bytes())?;
            }
            WireFrame::Message(Message::AuthenticationSasl(body)) => {
                let password = password(info, host)?;
                scram(connection, &body, &password)
                    .await
                    .map_err(|e| e.for_user(info, host))?;
            }
            WireFrame::Message(
                Message::AuthenticationGss
                | Message::AuthenticationSspi
                | Message::AuthenticationKerberosV5
                | Message::AuthenticationScmCredential,
            ) => {
                let why = "the server wants a method mmrepl does not have: give this role \
                           scram-sha-256 in pg_hba.conf";
                return Err(auth_error(info, host, why.to_owned()));
            }
            frame => return Err(misplaced(&frame, "the login")),
        }
    }
}

fn auth_error(info: &ConnInfo, host: &Host, why: String) -> WireError {
    WireError::Auth {
        peer: host.to_string(),
        user: info.user().to_owned(),
        why,
    }
}

/// The password, with the reason where there is none.
pub(super) fn password(info: &ConnInfo, host: &Host) -> Result<SecretString, WireError> {
    let found = info.password_for(host);
    found.password.ok_or_else(|| {
        let mut why = wanted(&host.to_string(), info.user());
        if let Some(notice) = found.notice {
            why = format!("{why} ({notice})");
        }
        auth_error(info, host, why)
    })
}

fn send_password(connection: &mut Connection, password: &[u8]) -> Result<(), WireError> {
    let written = frontend::password_message(password, connection.output());
    written.map_err(|e| WireError::Protocol(e.to_string()))
}

/// Why a SCRAM exchange ended without a login.
enum ScramError {
    /// The two sides do not agree; the text says about what.
    Refused(String),
    /// Anything else.
    Wire(WireError),
}

impl ScramError {
    fn for_user(self, info: &ConnInfo, host: &Host) -> WireError {
        match self {
            Self::Refused(why) => auth_error(info, host, why),
            Self::Wire(error) => error,
        }
    }
}

impl From<WireError> for ScramError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// The whole exchange, strictly in order: a server that skips its proof is not believed.
async fn scram(
    connection: &mut Connection,
    offer: &AuthenticationSaslBody,
    password: &SecretString,
) -> Result<(), ScramError> {
    let refused = |e: std::io::Error| ScramError::Refused(e.to_string());
    let mut mechanisms = offer.mechanisms();
    if !mechanisms
        .any(|name| Ok(name == SCRAM_SHA_256))
        .map_err(refused)?
    {
        let why = "the server offers no SCRAM-SHA-256: give this role scram-sha-256 in pg_hba.conf";
        return Err(ScramError::Refused(why.to_owned()));
    }
    let secret = password.expose_secret().as_bytes();
    // No channel binding: rustls has no API for the certificate's hash. Saying "unsupported"
    // (and not "not offered by you") is what keeps the exchange valid over TLS.
    let mut scram = ScramSha256::new(secret, ChannelBinding::unsupported());
    let output = connection.output();
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), output).map_err(refused)?;

    match connection.receive().await? {
        WireFrame::Message(Message::AuthenticationSaslContinue(body)) => {
            scram.update(body.data()).map_err(refused)?;
        }
        frame => return Err(misplaced(&frame, "the SCRAM exchange").into()),
    }
    frontend::sasl_response(scram.message(), connection.output()).map_err(refused)?;
    match connection.receive().await? {
        WireFrame::Message(Message::AuthenticationSaslFinal(body)) => {
            scram.finish(body.data()).map_err(|_| {
                let why = "the server does not know this password itself: it may be an impostor";
                ScramError::Refused(why.to_owned())
            })
        }
        frame => Err(misplaced(&frame, "the SCRAM exchange").into()),
    }
}
