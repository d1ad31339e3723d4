//! The apply session: batches, failures in them, the statement cache, very large ones.

use std::sync::Arc;
use std::time::Duration;

use mmrepl::error::{RetryClass, Retryable};
use mmrepl::wire::{
    Batch, Outcome, RowExt, Session, TransactionStatus, WireError, control, each,
    from_tokio_postgres,
};
use tokio::time::timeout;

use crate::server::Server;

/// Far above what any of these take, so that a hang is a failure and not a stuck run.
const PATIENCE: Duration = Duration::from_secs(120);

fn sql(text: &str) -> Arc<str> {
    text.into()
}

fn push(batch: &mut Batch<'_>, text: &str, params: &[Option<&str>]) {
    let params: Vec<_> = params.iter().map(|p| p.map(str::as_bytes)).collect();
    batch.push(&sql(text), &params).unwrap();
}

async fn count(session: &mut Session, query: &str) -> u64 {
    session.simple(query).await.unwrap()[0]
        .text(0, 0)
        .unwrap()
        .parse()
        .unwrap()
}

const PREPARED: &str = "select count(*) from pg_catalog.pg_prepared_statements";

#[tokio::test]
async fn outcomes_come_in_the_order_of_pushing() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    session
        .simple("create temporary table t (id int primary key, v text)")
        .await
        .unwrap();
    let mut batch = session.batch();
    let insert = "insert into pg_temp.t values ($1, $2), ($1::int + 1, NULL)";
    push(&mut batch, insert, &[Some("1"), Some("it's")]);
    push(&mut batch, insert, &[Some("5"), None]);
    push(&mut batch, "select id, v from pg_temp.t order by id", &[]);
    push(
        &mut batch,
        "delete from pg_temp.t where id > $1",
        &[Some("1")],
    );
    push(&mut batch, "", &[]);
    assert_eq!(batch.len(), 5);
    assert!(batch.encoded_bytes() > 100);
    let outcomes = batch.run().await.unwrap();
    assert_eq!(
        outcomes.iter().map(|o| o.affected).collect::<Vec<_>>(),
        [2, 2, 4, 3, 0]
    );
    assert_eq!(
        (outcomes[2].text(0, 0), outcomes[2].text(0, 1)),
        (Some("1"), Some("it's"))
    );
    assert_eq!(outcomes[2].rows[1][1], None);
    assert!(outcomes[0].rows.is_empty());
    assert!(
        session.batch().run().await.unwrap().is_empty(),
        "an empty batch is no mistake"
    );
    assert!(!format!("{outcomes:?}").contains("it's"));
}

#[tokio::test]
async fn a_failure_in_the_middle_is_located_and_the_session_lives_on() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    session
        .simple("create temporary table t (id int primary key)")
        .await
        .unwrap();
    session.simple("begin").await.unwrap();
    assert_eq!(session.transaction_status(), TransactionStatus::Open);
    let insert = "insert into pg_temp.t values ($1)";
    let mut batch = session.batch();
    push(&mut batch, insert, &[Some("1")]);
    push(&mut batch, "select 1", &[]);
    push(&mut batch, insert, &[Some("1")]);
    push(&mut batch, "select 2", &[]);
    push(&mut batch, "select nonsense", &[]);
    let error = batch.run().await.unwrap_err();
    assert_eq!((error.index, error.sqlstate()), (Some(2), Some("23505")));
    assert!(
        error.to_string().starts_with("statement 2 of the batch: "),
        "{error}"
    );
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    session.simple("rollback").await.unwrap();
    assert_eq!(session.transaction_status(), TransactionStatus::Idle);

    // Statements that were parsed stay, those that were not are parsed now.
    let mut batch = session.batch();
    for text in ["select 2", "select 1", "select 2"] {
        push(&mut batch, text, &[]);
    }
    push(&mut batch, insert, &[Some("1")]);
    assert_eq!(batch.run().await.unwrap().len(), 4);
    assert_eq!(session.prepared_statements(), 3);
    assert_eq!(count(&mut session, PREPARED).await, 3);

    // A statement that cannot be parsed fails at its own place.
    let mut batch = session.batch();
    push(&mut batch, "select 1", &[]);
    push(&mut batch, "select no_such_column from pg_temp.t", &[]);
    let error = batch.run().await.unwrap_err();
    assert_eq!((error.index, error.sqlstate()), (Some(1), Some("42703")));
    assert_eq!(error.retry_class(), RetryClass::Definite);
}

#[tokio::test]
async fn a_deferred_constraint_fails_without_a_statement() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    session
        .simple("create temporary table t (id int unique deferrable initially deferred)")
        .await
        .unwrap();
    let mut batch = session.batch();
    for _ in 0..2 {
        push(
            &mut batch,
            "insert into pg_temp.t values ($1)",
            &[Some("7")],
        );
    }
    let error = batch.run().await.unwrap_err();
    assert_eq!((error.index, error.sqlstate()), (None, Some("23505")));
    assert_eq!(
        count(&mut session, "select count(*) from pg_temp.t").await,
        0
    );
}

#[tokio::test]
async fn the_statement_cache_is_bounded() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    for round in 0..9 {
        let mut batch = session.batch();
        for i in 0..500 {
            push(&mut batch, &format!("select {}", round * 500 + i), &[]);
        }
        assert_eq!(batch.run().await.unwrap().len(), 500);
    }
    assert_eq!(session.prepared_statements(), 4096);
    // What was pushed out is closed with the next batch.
    let mut batch = session.batch();
    push(&mut batch, "select 4499", &[]);
    batch.run().await.unwrap();
    assert_eq!(count(&mut session, PREPARED).await, 4096);
    let mut batch = session.batch();
    push(&mut batch, "select 0", &[]);
    assert_eq!(batch.run().await.unwrap()[0].text(0, 0), Some("0"));
}

#[tokio::test]
async fn a_batch_that_is_not_sent_leaves_nothing_behind() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    // Pushed and never run.
    push(&mut session.batch(), "select 1", &[]);
    let mut batch = session.batch();
    assert!(batch.is_empty());
    push(&mut batch, "select 1", &[]);
    let too_many = vec![None; 70_000];
    assert!(batch.push(&sql("select 1"), &too_many).is_err());
    assert!(batch.push(&sql("select '\0'"), &[]).is_err());
    assert_eq!(batch.len(), 1);
    assert_eq!(batch.run().await.unwrap()[0].text(0, 0), Some("1"));
}

#[tokio::test]
async fn batches_may_overlap() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    session
        .simple("create temporary table t (id int primary key)")
        .await
        .unwrap();
    let insert = "insert into pg_temp.t values ($1)";
    let mut submitted = Vec::new();
    for id in ["1", "2", "2", "3", "4"] {
        let mut batch = session.batch();
        push(&mut batch, insert, &[Some(id)]);
        push(&mut batch, &format!("select {id}"), &[]);
        submitted.push(batch.submit().await.unwrap());
    }
    let mut results = Vec::new();
    let last = submitted.pop().unwrap();
    let _ignored = submitted.pop().unwrap();
    for pending in submitted {
        results.push(
            session
                .collect(pending)
                .await
                .map(|o| o.len())
                .map_err(|e| e.index),
        );
    }
    assert_eq!(results, [Ok(2), Ok(2), Err(Some(0))]);
    // One that nobody collects is read over.
    assert_eq!(
        session.collect(last).await.unwrap()[1].text(0, 0),
        Some("4")
    );
    assert_eq!(
        count(&mut session, "select count(*) from pg_temp.t").await,
        4
    );
}

#[tokio::test]
async fn a_changed_table_is_noticed_after_one_failure() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    session
        .simple("create temporary table t (id int)")
        .await
        .unwrap();
    let (all, insert) = (
        "select * from pg_temp.t",
        "insert into pg_temp.t values ($1)",
    );
    let mut batch = session.batch();
    push(&mut batch, insert, &[Some("1")]);
    push(&mut batch, all, &[]);
    batch.run().await.unwrap();
    session
        .simple("alter table pg_temp.t alter id type text, add v int")
        .await
        .unwrap();
    for (text, params, sqlstate) in [(all, &[][..], "0A000"), (insert, &[Some("x")][..], "22P02")] {
        let mut batch = session.batch();
        push(&mut batch, text, params);
        assert_eq!(batch.run().await.unwrap_err().sqlstate(), Some(sqlstate));
        let mut batch = session.batch();
        push(&mut batch, text, params);
        batch.run().await.unwrap();
    }
}

#[tokio::test]
async fn a_huge_batch_with_huge_answers_does_not_deadlock() {
    const BYTES: usize = 50_000;
    const STATEMENTS: usize = 4_000;
    let server = Server::shared();
    for rest in [
        "user=postgres sslmode=disable",
        "user=postgres sslmode=require",
    ] {
        let mut session = server.session(rest).await.unwrap();
        let value = vec![b'x'; BYTES];
        let echo = sql("select $1::text");
        let mut batch = session.batch();
        for _ in 0..STATEMENTS {
            batch.push(&echo, &[Some(&value)]).unwrap();
        }
        assert!(batch.encoded_bytes() > BYTES * STATEMENTS);
        let outcomes = timeout(PATIENCE, batch.run())
            .await
            .expect("no deadlock")
            .unwrap();
        let lengths = |o: &Outcome| o.rows[0][0].as_ref().map(bytes::Bytes::len);
        assert_eq!(outcomes.len(), STATEMENTS);
        assert!(
            outcomes
                .iter()
                .all(|outcome| lengths(outcome) == Some(BYTES))
        );
    }
}

#[tokio::test]
async fn a_value_of_50_mb_arrives_whole() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    let value: Vec<u8> = (0..50_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
    let mut batch = session.batch();
    batch
        .push(&sql("select $1::text, md5($1::text)"), &[Some(&value)])
        .unwrap();
    let outcomes = timeout(PATIENCE, batch.run())
        .await
        .expect("no hang")
        .unwrap();
    assert!(outcomes[0].rows[0][0].as_deref() == Some(&value[..]));
    let mut batch = session.batch();
    let error = batch
        .push(&sql("select $1"), &[Some(&vec![0; 1 << 30])])
        .unwrap_err();
    assert!(matches!(error, WireError::MessageTooBig { .. }), "{error}");
    assert_eq!(error.retry_class(), RetryClass::Definite);
}

#[tokio::test]
async fn errors_about_data_do_not_repeat_the_data() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    let client = control(&server.info("user=postgres"), "t").await.unwrap();
    session
        .simple("create temporary table t (v varchar(3), n int check (n > 0))")
        .await
        .unwrap();
    for (text, value) in [
        ("select $1::int", "s3cret"),
        ("select $1::int", "99999999999"),
        ("select $1::date", "2026-99-99 s3cret"),
        ("select $1::json", "{\"s3cret"),
        ("select $1::int[]", "{\"s3cret"),
        ("select $1::xml", "<s3cret"),
        ("insert into pg_temp.t values ($1)", "s3cret"),
        ("insert into pg_temp.t values (NULL, $1)", "-99999"),
        ("select ('x' || $1)::uuid", "s3cret"),
    ] {
        let mut batch = session.batch();
        push(&mut batch, text, &[Some(value)]);
        let error = batch.run().await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("99999"),
            "{shown}"
        );
        assert_eq!(error.retry_class(), RetryClass::Definite);
    }
    let error = client
        .simple_query("select 's3cret'::int")
        .await
        .unwrap_err();
    let error = from_tokio_postgres(error);
    assert_eq!(error.sqlstate(), Some("22P02"));
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_column_that_cannot_be_read_is_an_error_and_no_panic() {
    let server = Server::shared();
    let client = control(&server.info("user=postgres"), "t").await.unwrap();
    let sql = "select null::text as name, 4711::int8 as total";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.read::<Option<&str>>(0), Ok(None));
    assert_eq!(row.read(1), Ok(4711_i64));
    let null = row.read::<&str>(0).unwrap_err();
    assert_eq!(null.column, "1 (`name`)");
    assert!(null.place.contains("batches.rs"), "{null}");
    let other_type = row.read::<i32>(1).unwrap_err().to_string();
    assert!(other_type.contains("2 (`total`)"), "{other_type}");
    assert!(!other_type.contains("4711"), "{other_type}");
    assert!(row.read::<i32>(2).is_err());
    let rows = [row];
    let names: Result<Vec<&str>, _> = each(&rows, |row| row.read(0));
    assert_eq!(
        WireError::from(names.unwrap_err()).retry_class(),
        RetryClass::Definite
    );
}

#[tokio::test]
async fn a_session_that_the_server_ends_says_why() {
    let server = Server::shared();
    let (mut admin, mut session) = (server.superuser().await, server.superuser().await);
    let kill = format!(
        "select pg_catalog.pg_terminate_backend({}, 5000)",
        session.backend_pid()
    );
    let mut batch = session.batch();
    push(&mut batch, "select pg_catalog.pg_sleep(60)", &[]);
    let pending = batch.submit().await.unwrap();
    admin.simple(&kill).await.unwrap();
    let error = timeout(PATIENCE, session.collect(pending))
        .await
        .expect("no hang")
        .unwrap_err();
    assert_eq!((error.index, error.sqlstate()), (None, Some("57P01")));
    assert_eq!(error.retry_class(), RetryClass::Transient);
    let error = session.simple("select 1").await.unwrap_err();
    assert!(matches!(error, WireError::Abandoned), "{error}");
}

#[tokio::test]
async fn a_session_left_half_way_refuses_to_go_on() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    let sleep = session.simple("select pg_catalog.pg_sleep(60)");
    assert!(timeout(Duration::from_millis(50), sleep).await.is_err());
    assert!(matches!(
        session.simple("select 1").await,
        Err(WireError::Abandoned)
    ));
    let mut batch = session.batch();
    assert!(matches!(
        batch.push(&sql("select 1"), &[]),
        Err(WireError::Abandoned)
    ));
}

#[tokio::test]
async fn copy_is_refused_and_does_not_hang() {
    let server = Server::shared();
    let mut session = server.superuser().await;
    let copy = session.simple("copy pg_catalog.pg_class to stdout");
    assert!(matches!(
        timeout(PATIENCE, copy).await.unwrap(),
        Err(WireError::Protocol(_))
    ));
    assert!(matches!(
        session.simple("select 1").await,
        Err(WireError::Abandoned)
    ));
}
