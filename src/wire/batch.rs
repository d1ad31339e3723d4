//! Many statements in one round trip: Parse where needed, Bind and Execute for each, one Sync.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::cache::{Prepared, STATEMENTS_MAX, StatementCache};
use super::codec::MESSAGE_MAX_BYTES;
use super::error::WireError;
use crate::error::{RetryClass, Retryable};

/// Bind counts its parameters in 16 bits (manual 55.7).
const PARAMETERS_MAX: usize = 65_535;
/// The server refuses messages from here on (`PQ_LARGE_MESSAGE_LIMIT`, 1 GiB less two bytes);
/// the rest is room for names and lengths.
const BIND_MAX_BYTES: usize = MESSAGE_MAX_BYTES - 4096;
/// Format code of binary parameters in Bind.
const BINARY: i16 = 1;
/// Data of a copy travels in messages of at most this size.
const COPY_CHUNK_BYTES: usize = 256 * 1024;

/// A batch did not run to its end. The server has skipped everything after the failure; a
/// transaction that was open is now failed, and ending it is up to the caller.
#[derive(Debug, thiserror::Error)]
#[error("{}{error}", at(*.index))]
pub struct BatchError {
    /// The statement that failed, in the order of pushing; none when it was not a statement
    /// (a lost connection, a deferred constraint at the implicit commit).
    pub index: Option<usize>,
    /// What went wrong.
    #[source]
    pub error: WireError,
}

fn at(index: Option<usize>) -> String {
    index
        .map(|index| format!("statement {index} of the batch: "))
        .unwrap_or_default()
}

impl From<WireError> for BatchError {
    fn from(error: WireError) -> Self {
        Self { index: None, error }
    }
}

impl Retryable for BatchError {
    fn retry_class(&self) -> RetryClass {
        self.error.retry_class()
    }

    fn sqlstate(&self) -> Option<&str> {
        self.error.sqlstate()
    }
}

/// Numbers batches, in the order in which they are sent.
pub(super) type Ticket = u64;

/// What a batch makes the server do, in order, so that its answers can be told apart.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) ticket: Ticket,
    /// One for each Execute.
    pub(super) statements: Vec<Arc<str>>,
    /// SQL and name for each Parse.
    pub(super) parses: VecDeque<(Arc<str>, Arc<str>)>,
    /// Name for each Close.
    pub(super) closes: VecDeque<Arc<str>>,
    /// How many statements are copies whose data goes with them.
    pub(super) copies: usize,
}

/// The statements of a batch, put together as bytes. Pure.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) cache: StatementCache,
    /// What the batch makes the server do.
    pub(super) plan: Plan,
    /// The batch, encoded.
    pub(super) encoded: BytesMut,
}

impl Statements {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            cache: StatementCache::new(STATEMENTS_MAX),
            plan: Plan::default(),
            encoded: BytesMut::new(),
        }
    }

    /// Adds a statement with its parameters as text. On an error nothing was added.
    ///
    /// The same `sql` is parsed once per session. Parameter types are inferred by the server;
    /// add casts where the text alone is ambiguous.
    pub(super) fn push(
        &mut self,
        sql: &Arc<str>,
        params: &[Option<&[u8]>],
    ) -> Result<(), WireError> {
        check_size(sql, params)?;
        self.add(sql, |name, out| bind(name, &[], params, out))
    }

    /// Adds a statement whose parameters are all in their types' binary form, as arrays are that
    /// were put together here.
    pub(super) fn push_binary(
        &mut self,
        sql: &Arc<str>,
        params: &[Vec<u8>],
    ) -> Result<(), WireError> {
        let params: Vec<Option<&[u8]>> = params.iter().map(|param| Some(&param[..])).collect();
        check_size(sql, &params)?;
        self.add(sql, |name, out| bind(name, &[BINARY], &params, out))
    }

    /// Adds a `copy … from stdin` with its data, in the format that `sql` names.
    pub(super) fn push_copy(&mut self, sql: &Arc<str>, data: &[u8]) -> Result<(), WireError> {
        check_size(sql, &[])?;
        self.add(sql, |name, out| bind(name, &[], &[], out))?;
        self.plan.copies += 1;
        let out = &mut self.encoded;
        for chunk in data.chunks(COPY_CHUNK_BYTES) {
            let message = frontend::CopyData::new(chunk);
            message
                .map_err(|error| WireError::Protocol(error.to_string()))?
                .write(out);
        }
        frontend::copy_done(out);
        Ok(())
    }

    /// Parse where needed, what `bind` writes for the statement's name, Execute.
    fn add(
        &mut self,
        sql: &Arc<str>,
        bind: impl FnOnce(&str, &mut BytesMut) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let prepared = self.cache.prepare(sql);
        let (plan, out) = (&mut self.plan, &mut self.encoded);
        while let Some(name) = self.cache.pop_discarded() {
            cannot_fail(frontend::close(b'S', &name, out))?;
            plan.closes.push_back(name);
        }
        let name = match prepared {
            Prepared::Known(name) => name,
            Prepared::New(name) => {
                cannot_fail(frontend::parse(&name, sql, [], out))?;
                plan.parses.push_back((Arc::clone(sql), Arc::clone(&name)));
                name
            }
        };
        bind(&name, out)?;
        cannot_fail(frontend::execute("", 0, out))?;
        plan.statements.push(Arc::clone(sql));
        Ok(())
    }
}

fn check_size(sql: &str, params: &[Option<&[u8]>]) -> Result<(), WireError> {
    let bytes: usize = params
        .iter()
        .map(|param| 4 + param.map_or(0, <[u8]>::len))
        .sum();
    let announced = bytes.max(sql.len());
    if announced > BIND_MAX_BYTES {
        let limit = BIND_MAX_BYTES as u64;
        return Err(WireError::MessageTooBig {
            announced: announced as u64,
            limit,
        });
    }
    if params.len() > PARAMETERS_MAX {
        let text = format!(
            "a statement has {} parameters, over the limit of 65535",
            params.len()
        );
        return Err(WireError::Protocol(text));
    }
    if sql.contains('\0') {
        return Err(WireError::Protocol(
            "a statement holds a zero byte".to_owned(),
        ));
    }
    Ok(())
}

/// Bind with every result as text, and every parameter as text (no formats means that) or in the
/// one format given (manual 55.7).
fn bind(
    name: &str,
    formats: &[i16],
    params: &[Option<&[u8]>],
    out: &mut BytesMut,
) -> Result<(), WireError> {
    let put = |param: Option<&[u8]>, out: &mut BytesMut| match param {
        Some(value) => {
            out.put_slice(value);
            Ok(IsNull::No)
        }
        None => Ok(IsNull::Yes),
    };
    let formats = formats.iter().copied();
    frontend::bind("", name, formats, params.iter().copied(), put, [], out)
        .map_err(|_| WireError::Protocol("a statement cannot be encoded".to_owned()))
}

/// The encoders fail on zero bytes and lengths over 2 GiB only, which `check_size` excludes.
fn cannot_fail(result: std::io::Result<()>) -> Result<(), WireError> {
    result.map_err(|error| WireError::Protocol(error.to_string()))
}
