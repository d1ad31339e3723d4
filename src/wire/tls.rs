//! TLS with the meanings that libpq gives to `sslmode` (manual 34.19).
//!
//! One sentence each: without a root certificate nothing is verified; with one the chain is
//! (`verify-ca`, and `require` too); `verify-full` also compares the host name. A certificate
//! that is in the root file itself is trusted as it stands, while it is valid.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificate;
use super::error::WireError;
use super::stream::Stream;
use crate::config::conninfo::{CertFile, Host, RootCert, SslMode, TlsOptions};

/// Shakes hands over a connection whose server has agreed to TLS.
///
/// The files are read anew each time, so that renewed certificates need no restart.
pub(super) async fn handshake(
    tcp: TcpStream,
    options: &TlsOptions,
    host: &Host,
) -> Result<Stream, WireError> {
    let failed = |why: String| WireError::Tls {
        peer: host.to_string(),
        why,
    };
    let name = server_name(options, host).map_err(failed)?;
    let config = client_config(options).map_err(failed)?;
    match TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
    {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => match explain(&error) {
            Some(why) => Err(failed(why)),
            None => Err(WireError::io(format!("TLS handshake with {host}"), error)),
        },
    }
}

/// What to change, where an I/O error is really a TLS error.
fn explain(error: &std::io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(invalid) = inner else {
        return Some(inner.to_string());
    };
    Some(match invalid {
        CertificateError::UnknownIssuer => {
            "no authority in sslrootcert signed the server's certificate".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another host name: connect by that name, or use \
             sslmode=verify-ca"
                .to_owned()
        }
        CertificateError::BadEncoding => {
            "the server's certificate cannot be read: make it as X.509 version 3, with a \
             subjectAltName"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it, or set this machine's clock".to_owned()
        }
        other => format!("the server's certificate is not valid: {other}"),
    })
}

/// The name to verify and to announce. Modes that do not verify it take anything.
fn server_name(options: &TlsOptions, host: &Host) -> Result<ServerName<'static>, String> {
    let Host::Tcp { name, .. } = host else {
        return Err("a Unix socket has no TLS".to_owned());
    };
    match ServerName::try_from(name.clone()) {
        Ok(name) => Ok(name),
        Err(_) if options.mode < SslMode::VerifyFull => {
            Ok(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([
                0, 0, 0, 0,
            ]))))
        }
        Err(_) => Err(format!(
            "`{name}` is not a host name that a certificate can have"
        )),
    }
}

fn client_config(options: &TlsOptions) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(options, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client_certificate(options)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| format!("sslcert and sslkey do not fit together: {e}"))?,
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = options.sni;
    Ok(config)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificate and key to show, where there are any.
fn client_certificate(options: &TlsOptions) -> Result<Option<Identity>, String> {
    let Some(cert) = options
        .cert
        .as_ref()
        .filter(|cert| cert.must_exist || cert.path.exists())
    else {
        return Ok(None);
    };
    let chain = read_certificates(&cert.path, "sslcert")?;
    let named_key = options
        .key
        .as_ref()
        .filter(|key| key.must_exist || key.path.exists());
    // Without a key of its own, the certificate's file may hold both.
    let CertFile { path, .. } = named_key.unwrap_or(cert);
    check_key_mode(path)?;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|e| {
        format!(
            "sslkey {} holds no key that can be read ({e}); it must have no passphrase",
            path.display()
        )
    })?;
    Ok(Some((chain, key)))
}

/// libpq's rule: only the owner may read a key, or root's group where root owns it.
fn check_key_mode(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let metadata =
        std::fs::metadata(path).map_err(|e| format!("cannot read sslkey {shown}: {e}"))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if (metadata.permissions().mode() & forbidden) == 0 {
        Ok(())
    } else {
        Err(format!(
            "others can read sslkey {shown}: chmod 0600 {shown}"
        ))
    }
}

fn read_certificates(path: &Path, keyword: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(format!("{keyword} {shown} holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("cannot read {keyword} {shown}: {error}")),
    }
}

/// Whom to trust, loaded.
#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    exact: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn load(options: &TlsOptions) -> Result<Option<Self>, String> {
        let must_verify = options.mode >= SslMode::VerifyCa;
        let certificates = match &options.root {
            Some(RootCert::System) => rustls_native_certs::load_native_certs().certs,
            Some(RootCert::File(file)) if file.must_exist || file.path.exists() => {
                read_certificates(&file.path, "sslrootcert")?
            }
            Some(RootCert::File(file)) if must_verify => {
                let shown = file.path.display();
                return Err(format!(
                    "set sslrootcert, or put the authority's certificate into {shown}"
                ));
            }
            None if must_verify => return Err("set sslrootcert to verify the server".to_owned()),
            _ => return Ok(None),
        };
        let mut store = RootCertStore::empty();
        let (usable, _) = store.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err("sslrootcert holds no certificate that can be used".to_owned());
        }
        // Public authorities are only ever issuers.
        let exact = if options.root == Some(RootCert::System) {
            Vec::new()
        } else {
            certificates
        };
        Ok(Some(Self { store, exact }))
    }
}

/// Decides about the server's certificate as libpq does.
#[derive(Debug)]
struct Verifier {
    roots: Option<Roots>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(options: &TlsOptions, provider: &CryptoProvider) -> Result<Self, String> {
        Ok(Self {
            roots: Roots::load(options)?,
            check_name: options.mode == SslMode::VerifyFull,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn verify_chain(
        &self,
        roots: &Roots,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (server, intermediates) = chain;
        if roots.exact.iter().any(|root| root == server) {
            return verify_validity(server, now);
        }
        let parsed = ParsedCertificate::try_from(server)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots.store,
            intermediates,
            now,
            algorithms,
        )
    }
}

/// The chain builder checks this too, but a certificate trusted as it stands has no chain.
fn verify_validity(server: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let summary = certificate::summarize(server).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < summary.not_before {
        Err(CertificateError::NotValidYet.into())
    } else if now > summary.not_after {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}

/// Alternative names decide; without any, the common name does, as in libpq.
fn verify_name(server: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
    let error = match verify_server_name(&ParsedCertificate::try_from(server)?, name) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let unnamed = matches!(
        &error,
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented, ..
        }) if presented.is_empty()
    );
    let common_name = certificate::summarize(server).and_then(|summary| summary.common_name);
    match common_name.filter(|_| unnamed) {
        Some(pattern) if certificate::name_matches(&pattern, &name.to_str()) => Ok(()),
        _ => Err(error),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            self.verify_chain(roots, (end_entity, intermediates), now)?;
            if self.check_name {
                verify_name(end_entity, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Proof of the key of a certificate that anybody may have made proves nothing, and
        // the certificate may be too old for rustls to read.
        if self.roots.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.roots.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
