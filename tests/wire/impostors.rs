//! Servers that are not what they should be.

use std::time::{Duration, Instant};

use mmrepl::error::{RetryClass, Retryable};
use mmrepl::wire::{Session, WireError, open};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::certs::{Identity, Wanted, wanted};
use crate::server::parse;

/// Serves one connection after another: each waits for a packet before each of the answers.
async fn scripted(answers: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answers = answers.clone();
            tokio::spawn(async move {
                let mut packet = [0; 4096];
                for answer in answers {
                    let _ = socket.read(&mut packet).await;
                    let _ = socket.write_all(&answer).await;
                }
                let _ = socket.read(&mut packet).await;
            });
        }
    });
    port
}

async fn connect(port: u16, sslmode: &str) -> WireError {
    let dsn =
        format!("host=127.0.0.1 port={port} user=u password=p sslmode={sslmode} connect_timeout=5");
    Session::connect(&parse(&dsn), "t", &[])
        .await
        .map(|_| ())
        .unwrap_err()
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &len[..], body].concat()
}

#[tokio::test]
async fn a_silent_server_does_not_hold_us_for_ever() {
    let port = silent().await;
    for sslmode in ["disable", "require"] {
        let started = Instant::now();
        let dsn = format!("host=127.0.0.1 port={port} user=u sslmode={sslmode} connect_timeout=1");
        let error = Session::connect(&parse(&dsn), "t", &[])
            .await
            .map(|_| ())
            .unwrap_err();
        assert!(matches!(error, WireError::Timeout { .. }), "{error}");
        assert_eq!(error.retry_class(), RetryClass::Transient);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

/// Accepts connections and never says a word.
async fn silent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    port
}

#[tokio::test]
async fn bytes_before_the_tls_handshake_are_refused() {
    let port = scripted(vec![b"Sinjected".to_vec()]).await;
    let error = connect(port, "require").await;
    assert!(matches!(error, WireError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("tampering"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_only_where_tls_is_demanded() {
    let port = scripted(vec![b"N".to_vec()]).await;
    let error = connect(port, "require").await;
    assert!(error.to_string().contains("ssl=on"), "{error}");
    let port = scripted(vec![b"N".to_vec(), message(b'E', b"C57P03\0Mstarting\0\0")]).await;
    assert_eq!(connect(port, "prefer").await.sqlstate(), Some("57P03"));
}

#[tokio::test]
async fn what_is_not_postgresql_is_told_so() {
    let port = scripted(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).await;
    for sslmode in ["disable", "require"] {
        let error = connect(port, sslmode).await;
        assert!(
            matches!(
                error,
                WireError::Protocol(_) | WireError::MessageTooBig { .. }
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_stranger_cannot_make_us_reserve_memory() {
    let port = scripted(vec![b"E\x7f\xff\xff\xff".to_vec()]).await;
    let error = connect(port, "disable").await;
    assert!(
        matches!(error, WireError::MessageTooBig { limit: 65_536, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_skips_its_half_of_scram_is_not_believed() {
    let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let ok = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let port = scripted(vec![sasl.clone(), ok]).await;
    let error = connect(port, "disable").await;
    assert!(matches!(error, WireError::Protocol(_)), "{error}");

    let forged = message(b'R', b"\0\0\0\x0br=forged,s=AAAA,i=4096");
    let port = scripted(vec![sasl, forged]).await;
    let error = connect(port, "disable").await;
    assert!(matches!(error, WireError::Auth { .. }), "{error}");
}

#[tokio::test]
async fn kerberos_is_declined_with_advice() {
    let port = scripted(vec![message(b'R', &7_u32.to_be_bytes())]).await;
    let error = connect(port, "disable").await;
    assert!(error.to_string().contains("pg_hba.conf"), "{error}");
}

/// A TLS server with this certificate that agrees to `SSLRequest`.
async fn tls_server(identity: &Identity) -> u16 {
    let chain = vec![CertificateDer::from(identity.certificate.clone())];
    let key = PrivateKeyDer::Pkcs8(identity.pkcs8.clone().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve_tls(socket, acceptor.clone()));
        }
    });
    port
}

async fn serve_tls(mut socket: TcpStream, acceptor: tokio_rustls::TlsAcceptor) {
    let mut request = [0; 8];
    if socket.read_exact(&mut request).await.is_err() || socket.write_all(b"S").await.is_err() {
        return;
    }
    if let Ok(mut stream) = acceptor.accept(socket).await {
        let _ = stream.read(&mut request).await;
    }
}

#[tokio::test]
async fn self_signed_certificates_in_the_root_file_are_trusted_while_they_are_valid() {
    let dir = tempfile::tempdir().unwrap();
    let try_it = async |identity: &Identity, name: &str, sslmode: &str| {
        let port = tls_server(identity).await;
        let (root, _) = identity.save(dir.path(), "root");
        let root = root.display();
        let dsn = format!(
            "host={name} hostaddr=127.0.0.1 port={port} user=u sslmode={sslmode} sslrootcert={root}"
        );
        open(&parse(&dsn))
            .await
            .map(|stream| assert!(stream.is_encrypted()))
    };
    // As `openssl req -x509 -subj /CN=db.example` makes them: an authority, without other names.
    let plain = Identity::new(
        Wanted {
            authority: true,
            ..wanted("db.example")
        },
        None,
    );
    try_it(&plain, "db.example", "verify-full").await.unwrap();
    try_it(&plain, "other.example", "verify-ca").await.unwrap();
    let error = try_it(&plain, "other.example", "verify-full")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("another host name"), "{error}");

    let star = Identity::new(wanted("*.example"), None);
    try_it(&star, "db.example", "verify-full").await.unwrap();
    assert!(try_it(&star, "a.db.example", "verify-full").await.is_err());

    // Other names, where there are any, are the only ones.
    let named = Wanted {
        alt_name: Some("alt.example"),
        ..wanted("db.example")
    };
    let named = Identity::new(named, None);
    try_it(&named, "alt.example", "verify-full").await.unwrap();
    assert!(try_it(&named, "db.example", "verify-full").await.is_err());

    let old = Identity::new(
        Wanted {
            not_after: "20210101000000Z",
            ..wanted("db.example")
        },
        None,
    );
    for sslmode in ["require", "verify-ca", "verify-full"] {
        let error = try_it(&old, "db.example", sslmode).await.unwrap_err();
        assert!(error.to_string().contains("expired"), "{error}");
    }
}
