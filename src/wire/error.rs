//! What can go wrong between mmrepl and a server.

use std::fmt;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorResponseBody;

use super::answer::Unread;
use super::redact::{self, Raised};
use crate::error::{RetryClass, Retryable, classify_sqlstate};
use crate::text;

/// An error of a connection. Never holds a password or a row value.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The operating system or the network failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the server's address where it is known.
        doing: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// No encrypted connection could be made as `sslmode` demands.
    #[error("TLS with {peer} failed: {why}")]
    Tls {
        /// The server's address.
        peer: String,
        /// What to change.
        why: String,
    },
    /// Logging in failed on this side; what the server refuses is `Server`.
    #[error("cannot log in to {peer} as {user}: {why}")]
    Auth {
        /// The server's address.
        peer: String,
        /// The role.
        user: String,
        /// What to change.
        why: String,
    },
    /// The server reported an error.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The server sent something that does not fit; it may not be PostgreSQL.
    #[error("unexpected answer from the server: {0}")]
    Protocol(String),
    /// A value that must be there is missing or of another type.
    #[error("the server's answer cannot be read: {what} is missing or is no such value")]
    Unreadable {
        /// What was asked for.
        what: &'static str,
    },
    /// A column of a row that a control connection gave back is not what it must be.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// A message is larger than PostgreSQL itself allows.
    #[error(
        "a message of {announced} bytes is over the limit of {limit}: the row is too big to send"
    )]
    MessageTooBig {
        /// The size of the message.
        announced: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// Nothing happened for too long.
    #[error("{what} took longer than {} s", after.as_secs_f64())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// A connection works but the server is not of the kind that was asked for.
    #[error("{peer} is {found}, but target_session_attrs={wanted} was asked for")]
    WrongSession {
        /// The server's address.
        peer: String,
        /// What it is.
        found: &'static str,
        /// What `target_session_attrs` says.
        wanted: &'static str,
    },
    /// An earlier operation on this connection was given up half way; connect again.
    #[error("the session was left in the middle of an exchange and cannot be used again")]
    Abandoned,
    /// The connection is gone.
    #[error("the server closed the connection")]
    Closed,
}

impl WireError {
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }

    pub(super) fn unexpected(message: &'static str, during: &str) -> Self {
        Self::Protocol(format!("{message} during {during}"))
    }
}

impl Retryable for WireError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Tls { .. }
            | Self::Auth { .. }
            | Self::MessageTooBig { .. }
            | Self::Unreadable { .. }
            | Self::Unread(_) => RetryClass::Definite,
            Self::Server(error) => classify_sqlstate(&error.sqlstate),
            Self::Io { .. }
            | Self::Protocol(_)
            | Self::Timeout { .. }
            | Self::WrongSession { .. }
            | Self::Abandoned
            | Self::Closed => RetryClass::Transient,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.sqlstate),
            _ => None,
        }
    }
}

impl From<ServerError> for WireError {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}

/// An `ErrorResponse` (manual 55.8). DETAIL, CONTEXT and the internal query are dropped, because
/// they hold row values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL or PANIC, never translated.
    pub severity: String,
    /// Five characters (manual appendix A).
    pub sqlstate: String,
    /// The message, with values masked where it may hold some.
    pub message: String,
    /// What the server suggests.
    pub hint: Option<String>,
    /// Schema of the table the error is about.
    pub schema: Option<String>,
    /// Table the error is about.
    pub table: Option<String>,
    /// Column the error is about.
    pub column: Option<String>,
    /// Data type the error is about.
    pub data_type: Option<String>,
    /// Constraint the error is about.
    pub constraint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl ServerError {
    /// Reads an `ErrorResponse`; fields that are not text are read as well as they can be.
    pub(super) fn parse(body: &ErrorResponseBody) -> Self {
        let mut error = Self {
            sqlstate: "XX000".to_owned(),
            ..Self::default()
        };
        let (mut file, mut routine, mut context, mut has_query) = (None, None, None, false);
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'S' if error.severity.is_empty() => error.severity = value,
                b'V' => error.severity = value,
                b'C' => error.sqlstate = value,
                b'M' => error.message = value,
                b'H' => error.hint = Some(value),
                b's' => error.schema = Some(value),
                b't' => error.table = Some(value),
                b'c' => error.column = Some(value),
                b'd' => error.data_type = Some(value),
                b'n' => error.constraint = Some(value),
                b'P' => error.position = value.parse().ok(),
                b'F' => file = Some(value),
                b'R' => routine = Some(value),
                b'W' => context = Some(value),
                b'q' => has_query = true,
                _ => {}
            }
        }
        error.made_safe(Raised {
            file: file.as_deref(),
            routine: routine.as_deref(),
            context: context.as_deref(),
            has_query,
        })
    }

    /// Removes what may be a row value, and whatever is long or does something to a terminal.
    #[must_use]
    pub(super) fn made_safe(mut self, raised: Raised<'_>) -> Self {
        let message = redact::safe_message(&self.sqlstate, raised, &self.message);
        self.message = text::message(&message);
        let may_hint = redact::may_hint(&self.sqlstate, raised);
        let hint = self.hint.take().filter(|_| may_hint);
        self.hint = hint.map(|hint| text::message(&hint));
        self.severity = text::name(&self.severity);
        self.sqlstate = text::name(&self.sqlstate);
        for name in [
            &mut self.schema,
            &mut self.table,
            &mut self.column,
            &mut self.data_type,
            &mut self.constraint,
        ] {
            *name = name.take().map(|name| text::name(&name));
        }
        self
    }

    /// True when the server ends the session with this error.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl fmt::Display for ServerError {
    /// One line: the message, the SQLSTATE, the constraint where the message does not name it, and
    /// the hint where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server says: {} (SQLSTATE {}",
            self.message, self.sqlstate
        )?;
        let unnamed = |name: &&String| !self.message.contains(name.as_str());
        if let Some(constraint) = self.constraint.as_ref().filter(unnamed) {
            write!(f, ", constraint {constraint}")?;
        }
        f.write_str(")")?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};
    use postgres_protocol::message::backend::Message;

    fn response(fields: &[(u8, &str)]) -> ServerError {
        let mut body = BytesMut::new();
        for (kind, value) in fields {
            body.put_u8(*kind);
            body.put_slice(value.as_bytes());
            body.put_u8(0);
        }
        body.put_u8(0);
        let mut message = BytesMut::new();
        message.put_u8(b'E');
        message.put_u32(u32::try_from(body.len() + 4).unwrap());
        message.put_slice(&body);
        match Message::parse(&mut message).unwrap().unwrap() {
            Message::ErrorResponse(body) => ServerError::parse(&body),
            _ => panic!("not an error"),
        }
    }

    #[test]
    fn keeps_what_helps_and_drops_what_holds_values() {
        let error = response(&[
            (b'S', "FEHLER"),
            (b'V', "ERROR"),
            (b'C', "23505"),
            (
                b'M',
                "duplicate key value violates unique constraint \"t_pkey\"",
            ),
            (b'D', "Key (id)=(s3cret) already exists."),
            (b'W', "unnamed portal parameter $1 = 's3cret'"),
            (b's', "public"),
            (b't', "t"),
            (b'n', "t_pkey"),
        ]);
        assert_eq!(error.severity, "ERROR");
        assert_eq!(
            (error.table.as_deref(), error.constraint.as_deref()),
            (Some("t"), Some("t_pkey"))
        );
        assert!(error.message.contains("t_pkey"));
        assert!(!format!("{error:?} {error}").contains("s3cret"));
        let error = WireError::from(error);
        assert_eq!(
            (error.sqlstate(), error.retry_class()),
            (Some("23505"), RetryClass::Definite)
        );
    }

    #[test]
    fn masks_values_in_messages_about_data() {
        let error = response(&[
            (b'C', "22P02"),
            (b'M', "invalid input syntax for type integer: \"s3cret\""),
            (b'H', "s3cret"),
        ]);
        assert!(!format!("{error:?} {error}").contains("s3cret"));
        assert!(error.to_string().contains("type integer"));
    }

    #[test]
    fn what_is_long_or_does_something_is_made_safe() {
        let long = format!("{}\u{1b}[31m\nERROR forged", "x".repeat(3_000_000));
        let error = response(&[(b'C', "XX000"), (b'M', &long), (b't', "a\u{1b}[2Jb")]);
        let words = error.to_string();
        assert!(
            words.len() < 1_200 && !words.contains(['\u{1b}', '\n']),
            "{words}"
        );
        assert_eq!(error.table.as_deref(), Some("a\\u{1b}[2Jb"));
    }

    #[test]
    fn a_raised_message_is_replaced_by_who_raised_it() {
        let error = response(&[
            (b'C', "23514"),
            (b'M', "refused value s3cret"),
            (b'n', "t_v_check"),
            (b'R', "exec_stmt_raise"),
            (b'W', "PL/pgSQL function guard() line 3 at RAISE"),
        ]);
        assert_eq!(
            error.to_string(),
            "the server says: function guard() line 3 raised an error, whose text is in the \
             server's log (SQLSTATE 23514, constraint t_v_check)"
        );
    }

    #[test]
    fn an_answer_without_fields_is_still_an_error() {
        assert_eq!(response(&[]).sqlstate, "XX000");
    }
}
