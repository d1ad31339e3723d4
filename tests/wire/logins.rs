//! Getting in: password methods, TLS modes, sockets, several hosts.

use std::os::unix::fs::PermissionsExt;

use mmrepl::config::conninfo::ConnInfo;
use mmrepl::error::{RetryClass, Retryable};
use mmrepl::wire::{Session, WireError, control};

use crate::server::{Server, parse};

async fn uses_tls(info: &ConnInfo) -> Result<bool, WireError> {
    let mut session = Session::connect(info, "tls test", &[]).await?;
    let sql = "select ssl from pg_catalog.pg_stat_ssl where pid = pg_catalog.pg_backend_pid()";
    let outcomes = session.simple(sql).await?;
    Ok(outcomes[0].text(0, 0) == Some("t"))
}

#[tokio::test]
async fn every_password_method_works_with_and_without_tls() {
    let server = Server::shared();
    for role in ["md5_role", "scram_role", "clear_role"] {
        for sslmode in ["disable", "require"] {
            let rest = format!("user={role} sslmode={sslmode}");
            let good = server.info(&format!("{rest} password=secret"));
            assert_eq!(
                uses_tls(&good).await.unwrap(),
                sslmode == "require",
                "{rest}"
            );
            let client = control(&good, "login test").await.unwrap();
            let row = client
                .query_one("select current_user::text", &[])
                .await
                .unwrap();
            assert_eq!(row.get::<_, String>(0), role);

            let bad = server.info(&format!("{rest} password=wrong"));
            let errors = [
                Session::connect(&bad, "t", &[])
                    .await
                    .map(|_| ())
                    .unwrap_err(),
                control(&bad, "t").await.map(|_| ()).unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
                assert_eq!(error.retry_class(), RetryClass::Definite);
                assert!(!format!("{error} {error:?}").contains("wrong"));
            }
        }
    }
}

#[tokio::test]
async fn a_missing_password_is_explained() {
    let server = Server::shared();
    let dir = tempfile::tempdir().unwrap();
    let passfile = dir.path().join("pass");
    let info = server.info(&format!("user=scram_role passfile={}", passfile.display()));
    let error = Session::connect(&info, "t", &[])
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, WireError::Auth { .. }), "{error}");
    assert!(error.to_string().contains("password file"), "{error}");

    std::fs::write(&passfile, format!("127.0.0.1:{}:*:*:secret", server.port())).unwrap();
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o644)).unwrap();
    for error in [
        Session::connect(&info, "t", &[])
            .await
            .map(|_| ())
            .unwrap_err(),
        control(&info, "t").await.map(|_| ()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).unwrap();
    Session::connect(&info, "t", &[])
        .await
        .unwrap()
        .close()
        .await;
    control(&info, "t").await.unwrap();
}

/// Connects to the server by this name, which nobody looks up.
async fn tls_as(server: &Server, host: &str, rest: &str) -> Result<bool, WireError> {
    let base = format!("hostaddr=127.0.0.1 port={} dbname=postgres", server.port());
    uses_tls(&parse(&format!("{base} host={host} {rest}"))).await
}

fn trusting(root: &str, mode: &str) -> String {
    format!("user=postgres sslmode={mode} sslrootcert={root}")
}

#[tokio::test]
async fn each_sslmode_gets_the_protection_it_asks_for() {
    let server = Server::shared();
    let (ca, other) = (server.file("ca.crt"), server.file("other.crt"));
    for (host, rest, encrypted) in [
        ("localhost", "user=postgres sslmode=disable", false),
        ("localhost", "user=postgres sslmode=allow", false),
        ("localhost", "user=postgres sslmode=prefer", true),
        ("localhost", "user=postgres sslmode=require", true),
        ("any_name", "user=postgres sslmode=require", true),
        ("localhost", &trusting(&ca, "require"), true),
        ("any.name", &trusting(&ca, "require"), true),
        ("any.name", &trusting(&ca, "verify-ca"), true),
        ("localhost", &trusting(&ca, "verify-full"), true),
        // pg_hba.conf decides where the mode leaves a choice.
        ("localhost", "user=tls_role sslmode=allow", true),
        ("localhost", "user=plain_role sslmode=prefer", false),
        // A server that cannot be verified is as good as one without TLS.
        ("localhost", &trusting(&other, "prefer"), false),
    ] {
        assert_eq!(
            tls_as(&server, host, rest).await.unwrap(),
            encrypted,
            "{host} {rest}"
        );
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_verified_is_refused_with_the_reason() {
    let server = Server::shared();
    let (ca, other, none) = (
        server.file("ca.crt"),
        server.file("other.crt"),
        server.file("no.crt"),
    );
    for (host, rest, why) in [
        (
            "any.name",
            trusting(&ca, "verify-full"),
            "another host name",
        ),
        (
            "127.0.0.1",
            trusting(&ca, "verify-full"),
            "another host name",
        ),
        ("localhost", trusting(&other, "verify-full"), "no authority"),
        ("localhost", trusting(&other, "verify-ca"), "no authority"),
        ("localhost", trusting(&other, "require"), "no authority"),
        (
            "localhost",
            trusting("system", "verify-full"),
            "no authority",
        ),
        (
            "localhost",
            trusting(&none, "require"),
            "cannot read sslrootcert",
        ),
        (
            "localhost",
            "user=postgres sslmode=verify-ca".to_owned(),
            "set sslrootcert",
        ),
    ] {
        let error = tls_as(&server, host, &rest).await.unwrap_err();
        assert!(
            matches!(error, WireError::Tls { .. }),
            "{host} {rest}: {error}"
        );
        assert!(error.to_string().contains(why), "{host} {rest}: {error}");
        assert_eq!(error.retry_class(), RetryClass::Definite);
    }
    for rest in [
        "user=tls_role sslmode=disable",
        "user=plain_role sslmode=require",
    ] {
        let error = tls_as(&server, "localhost", rest).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("28000"), "{rest}: {error}");
    }
}

#[tokio::test]
async fn a_client_certificate_logs_in() {
    let server = Server::shared();
    let (crt, key) = (server.file("cert_role.crt"), server.file("cert_role.key"));
    let info = server.info(&format!(
        "user=cert_role sslmode=require sslcert={crt} sslkey={key}"
    ));
    assert!(uses_tls(&info).await.unwrap());
    control(&info, "t").await.unwrap();
    let without = server
        .session("user=cert_role sslmode=require")
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(without.sqlstate(), Some("28000"), "{without}");
    let mixed = format!(
        "user=cert_role sslmode=require sslcert={crt} sslkey={}",
        server.file("ca.key")
    );
    let mixed = server.session(&mixed).await.map(|_| ()).unwrap_err();
    assert!(matches!(mixed, WireError::Tls { .. }), "{mixed}");
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    let server = Server::shared();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("open.key");
    std::fs::copy(server.file("cert_role.key"), &key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let crt = server.file("cert_role.crt");
    let rest = format!(
        "user=cert_role sslmode=require sslcert={crt} sslkey={}",
        key.display()
    );
    let error = server.session(&rest).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("chmod 0600"), "{error}");
}

#[tokio::test]
async fn unix_sockets_work_for_both_kinds_of_connection() {
    let server = Server::shared();
    let dsn = format!(
        "host={} port={} user=scram_role dbname=postgres",
        server.file(""),
        server.port()
    );
    assert!(!uses_tls(&parse(&dsn)).await.unwrap());
    // As libpq has it, sslmode does not apply to sockets.
    assert!(
        !uses_tls(&parse(&format!("{dsn} sslmode=require")))
            .await
            .unwrap()
    );
    control(&parse(&dsn), "t").await.unwrap();
}

#[tokio::test]
async fn the_next_host_is_tried_when_one_is_down_or_of_the_wrong_kind() {
    let server = Server::shared();
    let port = server.port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let dsn = format!("postgresql://postgres@127.0.0.1:{closed},localhost:{port}/postgres");
    Session::connect(&parse(&dsn), "t", &[]).await.unwrap();
    let both = format!("{dsn}?target_session_attrs=read-write");
    Session::connect(&parse(&both), "t", &[]).await.unwrap();
    control(&parse(&both), "t").await.unwrap();

    let rest = "user=read_only_role target_session_attrs=read-write";
    let error = server.session(rest).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, WireError::WrongSession { .. }), "{error}");
    assert_eq!(error.retry_class(), RetryClass::Transient);
    let error = control(&server.info(rest), "t")
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, WireError::WrongSession { .. }), "{error}");
    server
        .session("user=postgres target_session_attrs=primary")
        .await
        .unwrap();

    let down = parse(&format!(
        "postgresql://postgres@127.0.0.1:{closed}/postgres"
    ));
    let error = Session::connect(&down, "t", &[])
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.retry_class(), RetryClass::Transient);
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{closed}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_database_is_named() {
    let server = Server::shared();
    let dsn = format!("postgresql://postgres@127.0.0.1:{}/nowhere", server.port());
    let error = Session::connect(&parse(&dsn), "t", &[])
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"));
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn the_text_of_values_does_not_depend_on_the_role() {
    let server = Server::shared();
    let sql = "select '2026-01-31 12:00+00'::timestamptz, '1 day 2:00'::interval, 0.1::float8, \
               '\\x00ff'::bytea, current_setting('search_path'), '{NULL}'::text[], \
               current_setting('client_encoding'), 'pg_catalog.pg_class'::regclass";
    let expected = "2026-01-31 12:00:00+00|1 day 02:00:00|0.1|\\x00ff||{NULL}|UTF8|pg_class";
    let values = |outcome: &mmrepl::wire::Outcome| {
        (0..8)
            .map(|i| outcome.text(0, i).unwrap().to_owned())
            .collect::<Vec<_>>()
            .join("|")
    };
    let info = server.info("user=odd_role");
    let mut session = Session::connect(&info, "t", &[]).await.unwrap();
    assert_eq!(values(&session.simple(sql).await.unwrap()[0]), expected);
    let mut replication = mmrepl::wire::ReplicationConnection::connect(&info, "t")
        .await
        .unwrap();
    assert_eq!(values(&replication.simple(sql).await.unwrap()[0]), expected);
    let client = control(&info, "t").await.unwrap();
    let rows = client.simple_query(sql).await.unwrap();
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.unwrap();
    let text: Vec<&str> = (0..8).map(|i| row.get(i).unwrap()).collect();
    assert_eq!(text.join("|"), expected);
}
