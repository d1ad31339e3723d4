//! Opens the stream of a link's source.

use std::io;
use std::sync::Arc;

use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::reading::ReadingThread;
use super::sessions::{
    OBJECT_IN_USE, TAKE_OVER_PAUSE, TAKE_OVER_TRIES, application_name, at, end_backends,
};
use crate::error::Retryable;
use crate::ids::{PUBLICATION, slot_name};
use crate::lsn::Lsn;
use crate::wire::{
    PgoutputOptions, ReplicationConnection, ReplicationStream, Streaming, WireError,
};

/// What of a source's changes is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Where the stream begins.
    pub from: Lsn,
    /// Transactions are sent while they are still running.
    pub streaming: bool,
    /// What has an origin is sent too.
    pub with_all: bool,
}

/// Opens the stream on the thread that will read it.
pub(super) async fn open_stream(
    context: &LinkContext,
    control: &Arc<Client>,
    wanted: Wanted,
) -> Result<(ReadingThread, ReplicationStream), LinkError> {
    let failed = |error: io::Error| {
        let source = WireError::io(
            "starting the thread that reads the stream".to_owned(),
            error,
        );
        at(&context.source.name, source)
    };
    let thread = ReadingThread::start().map_err(failed)?;
    let opening = start_stream(context.clone(), Arc::clone(control), wanted);
    match thread.spawn(opening).await {
        Ok(stream) => Ok((thread, stream?)),
        Err(error) => Err(failed(error.into())),
    }
}

async fn start_stream(
    context: LinkContext,
    control: Arc<Client>,
    wanted: Wanted,
) -> Result<ReplicationStream, LinkError> {
    let node = &context.source;
    let name = application_name(&context, "stream");
    let slot = slot_name(&context.cluster, &context.target.name);
    let mut tries = 0;
    loop {
        let connection = ReplicationConnection::connect(&node.dsn, &name)
            .await
            .map_err(|source| at(&node.name, source))?;
        let options = PgoutputOptions {
            proto_version: if wanted.streaming { 2 } else { 1 },
            publication: PUBLICATION.to_owned(),
            messages: true,
            origin_none: !wanted.with_all,
            streaming: if wanted.streaming {
                Streaming::On
            } else {
                Streaming::Off
            },
            binary: false,
        };
        match connection.start(&slot, wanted.from, &options).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.sqlstate() == Some(OBJECT_IN_USE) && tries < TAKE_OVER_TRIES => {
                tries += 1;
                end_backends(&control, &name, 0).await;
                tokio::time::sleep(TAKE_OVER_PAUSE).await;
            }
            Err(error) => return Err(at(&node.name, error)),
        }
    }
}
