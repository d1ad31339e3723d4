//! The replication connection and its stream.

use std::time::Duration;

use mmrepl::commit_time::CommitTime;
use mmrepl::error::{RetryClass, Retryable};
use mmrepl::lsn::Lsn;
use mmrepl::wire::{
    Frame, PgoutputOptions, ReplicationConnection, ReplicationStream, Session, StandbyStatus,
    Streaming,
};
use tokio::time::timeout;

use crate::server::{Server, parse};

const PATIENCE: Duration = Duration::from_secs(60);

fn options(publication: &str) -> PgoutputOptions {
    PgoutputOptions {
        proto_version: 1,
        publication: publication.to_owned(),
        messages: true,
        origin_none: false,
        streaming: Streaming::Off,
        binary: false,
    }
}

/// A new database with a published table `public.t (id int, v text)`.
struct Source {
    server: std::sync::Arc<Server>,
    name: &'static str,
    sql: Session,
}

impl Source {
    async fn new(name: &'static str, encoding: &str) -> Self {
        let server = Server::shared();
        let mut admin = server.superuser().await;
        let create = format!("create database {name} template template0 encoding '{encoding}'");
        admin.simple(&create).await.unwrap();
        let info = parse(&format!(
            "postgresql://postgres@127.0.0.1:{}/{name}",
            server.port()
        ));
        let mut sql = Session::connect(&info, "t", &[]).await.unwrap();
        let table = "create table public.t (id int primary key, v text); \
                     alter table public.t alter v set storage external; \
                     create publication \"it's mine\" for table public.t";
        sql.simple(table).await.unwrap();
        Self { server, name, sql }
    }

    async fn connect(&self) -> ReplicationConnection {
        let port = self.server.port();
        let info = parse(&format!(
            "postgresql://postgres@127.0.0.1:{port}/{}",
            self.name
        ));
        ReplicationConnection::connect(&info, "mmrepl test stream")
            .await
            .unwrap()
    }

    async fn ask(&mut self, query: &str) -> Option<String> {
        self.sql.simple(query).await.unwrap()[0]
            .text(0, 0)
            .map(str::to_owned)
    }

    /// Ends what a failed test would leave: the slot pins nothing, the database is dropped
    /// with the server.
    async fn confirmed(&mut self) -> Lsn {
        let query = format!(
            "select confirmed_flush_lsn from pg_catalog.pg_replication_slots where slot_name = '{}'",
            self.name
        );
        self.ask(&query).await.unwrap().parse().unwrap()
    }
}

async fn next_data(stream: &mut ReplicationStream) -> (Lsn, bytes::Bytes) {
    loop {
        let frame = timeout(PATIENCE, stream.next())
            .await
            .expect("a message")
            .unwrap();
        if let Frame::Data {
            wal_end, payload, ..
        } = frame
        {
            return (wal_end, payload);
        }
    }
}

/// The next whole transaction: its messages, and where it ends.
async fn next_transaction(stream: &mut ReplicationStream) -> (Vec<bytes::Bytes>, Lsn) {
    let mut messages = Vec::new();
    loop {
        let (_, payload) = next_data(stream).await;
        let commit = payload.first() == Some(&b'C');
        messages.push(payload.clone());
        if commit {
            // Commit: tag, flags, commit LSN, end LSN (manual 55.9).
            let end = u64::from_be_bytes(payload[10..18].try_into().unwrap());
            return (messages, Lsn::new(end));
        }
    }
}

fn status(at: Lsn) -> StandbyStatus {
    let now = CommitTime::now();
    StandbyStatus {
        written: at,
        flushed: at,
        applied: at,
        now,
        reply: true,
    }
}

#[tokio::test]
async fn an_insert_arrives_is_confirmed_and_the_slot_is_free_again() {
    let mut source = Source::new("one_insert", "UTF8").await;
    let mut connection = source.connect().await;
    assert!(connection.server_version() >= 140_000);
    let system = connection.identify_system().await.unwrap();
    assert_eq!(system.dbname.as_deref(), Some("one_insert"));
    assert_eq!(system.timeline.0, 1);
    let control_file = source.ask("select system_identifier from pg_catalog.pg_control_system()");
    assert_eq!(control_file.await, Some(system.system_id.to_string()));

    let slot = connection.create_slot(source.name, true).await.unwrap();
    assert!(slot.consistent_point >= system.flushed);
    let snapshot = slot.snapshot.clone().unwrap();
    let import = format!(
        "begin isolation level repeatable read; set transaction snapshot '{snapshot}'; commit"
    );
    source.sql.simple(&import).await.unwrap();

    let mut stream = connection
        .start(source.name, Lsn::ZERO, &options("it's mine"))
        .await
        .unwrap();
    source
        .sql
        .simple("insert into public.t values (1, 'é')")
        .await
        .unwrap();
    let (messages, end) = next_transaction(&mut stream).await;
    let tags: String = messages.iter().map(|m| char::from(m[0])).collect();
    assert_eq!(tags, "BRIC");
    assert!(messages[2].windows(2).any(|pair| pair == "é".as_bytes()));

    // A keepalive answers each report, but one may have been under way before.
    let confirmed = async {
        while source.confirmed().await < end {
            stream.send_status(&status(end)).await.unwrap();
            while !matches!(stream.next().await.unwrap(), Frame::Keepalive { .. }) {}
        }
    };
    timeout(PATIENCE, confirmed)
        .await
        .expect("the report to count");

    let busy = source
        .connect()
        .await
        .start(source.name, Lsn::ZERO, &options("it's mine"))
        .await;
    let busy = busy.map(|_| ()).unwrap_err();
    assert_eq!(
        (busy.sqlstate(), busy.retry_class()),
        (Some("55006"), RetryClass::Transient)
    );
    stream.stop().await.unwrap();
    let again = source
        .connect()
        .await
        .start(source.name, Lsn::ZERO, &options("it's mine"))
        .await;
    again.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn waiting_for_a_message_may_be_given_up_at_any_time() {
    let mut source = Source::new("cancelled", "UTF8").await;
    let mut connection = source.connect().await;
    let slot = connection.create_slot(source.name, false).await.unwrap();
    assert_eq!(slot.snapshot, None);
    let mut stream = connection
        .start(source.name, Lsn::ZERO, &options("it's mine"))
        .await
        .unwrap();
    let insert =
        "insert into public.t select i, repeat('x', 20000000) from generate_series(1, 3) i";
    source.sql.simple(insert).await.unwrap();
    let (mut bytes, mut given_up) = (0, 0);
    let all = async {
        while bytes < 60_000_000 {
            // Give up at every point where the stream has to wait.
            let frame = tokio::select! {
                biased;
                frame = stream.next() => Some(frame.unwrap()),
                () = std::future::ready(()) => None,
            };
            match frame {
                Some(Frame::Data { payload, .. }) => bytes += payload.len(),
                Some(Frame::Keepalive { .. }) => {}
                None => {
                    given_up += 1;
                    if given_up % 10 == 0 {
                        stream.send_status(&status(Lsn::ZERO)).await.unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    timeout(PATIENCE, all).await.expect("all rows");
    assert!(given_up > 1, "the messages were too small to be given up");
    // 20 MB of text and a header of some bytes, three times, and nothing lost or repeated.
    assert!(bytes < 60_001_000, "{bytes}");
    stream.stop().await.unwrap();
}

#[tokio::test]
async fn reports_go_on_while_nothing_is_read() {
    let mut source = Source::new("slow_reader", "UTF8").await;
    let mut connection = source.connect().await;
    connection.create_slot(source.name, false).await.unwrap();
    let mut stream = connection
        .start(source.name, Lsn::ZERO, &options("it's mine"))
        .await
        .unwrap();
    let insert =
        "insert into public.t select i, repeat('x', 1000000) from generate_series(1, 40) i";
    source.sql.simple(insert).await.unwrap();
    // The server cannot send all of it, and still takes the reports.
    for _ in 0..1000 {
        timeout(PATIENCE, stream.send_status(&status(Lsn::ZERO)))
            .await
            .unwrap()
            .unwrap();
    }
    let (messages, _) = next_transaction(&mut stream).await;
    assert_eq!(messages.len(), 43);
    stream.stop().await.unwrap();
}

#[tokio::test]
async fn a_latin1_database_speaks_utf8() {
    let mut source = Source::new("latin1", "LATIN1").await;
    let mut connection = source.connect().await;
    connection.create_slot(source.name, false).await.unwrap();
    let mut stream = connection
        .start(source.name, Lsn::ZERO, &options("it's mine"))
        .await
        .unwrap();
    source
        .sql
        .simple("insert into public.t values (1, 'é')")
        .await
        .unwrap();
    let (messages, _) = next_transaction(&mut stream).await;
    assert!(messages[2].windows(2).any(|pair| pair == "é".as_bytes()));
    assert_eq!(source.sql.parameter("server_encoding"), Some("LATIN1"));
    stream.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_the_server_ends_is_an_error() {
    let mut source = Source::new("ended", "UTF8").await;
    let mut connection = source.connect().await;
    connection.create_slot(source.name, false).await.unwrap();
    let pid = connection.backend_pid();
    let mut stream = connection
        .start(source.name, Lsn::ZERO, &options("it's mine"))
        .await
        .unwrap();
    let kill = format!("select pg_catalog.pg_terminate_backend({pid})");
    assert_eq!(source.ask(&kill).await.as_deref(), Some("t"));
    let error = loop {
        match timeout(PATIENCE, stream.next()).await.expect("an end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    assert_eq!(error.retry_class(), RetryClass::Transient);
}

#[tokio::test]
async fn a_missing_slot_or_publication_is_named() {
    let mut source = Source::new("missing", "UTF8").await;
    let connection = source.connect().await;
    let error = connection
        .start("no_such_slot", Lsn::ZERO, &options("x"))
        .await;
    let error = error.map(|_| ()).unwrap_err();
    assert_eq!(error.sqlstate(), Some("42704"));
    assert!(error.to_string().contains("no_such_slot"), "{error}");

    let mut connection = source.connect().await;
    connection.create_slot(source.name, false).await.unwrap();
    let mut stream = connection
        .start(source.name, Lsn::ZERO, &options("gone"))
        .await
        .unwrap();
    source
        .sql
        .simple("insert into public.t values (1, 'x')")
        .await
        .unwrap();
    let error = loop {
        if let Err(error) = timeout(PATIENCE, stream.next()).await.expect("an error") {
            break error;
        }
    };
    assert!(error.to_string().contains("gone"), "{error}");
}
