//! From keywords and values to a [`ConnInfo`], with libpq's defaults.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::error::ConnInfoError;
use super::info::{
    CertFile, ConnInfo, Host, Keepalives, RootCert, SslMode, TargetSession, TlsOptions,
};
use super::keywords::{Settings, Value};

use super::info::SOCKET_DIRS;
const DEFAULT_PORT: u16 = 5432;
/// libpq waits for ever; a daemon that does so would never try the next host.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Linux starts after two hours; 30 s + 3 probes of 10 s find a dead peer within a minute.
const DEFAULT_KEEPALIVES: Keepalives = Keepalives {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    count: 3,
};

/// Builds the [`ConnInfo`] that the settings describe.
pub(super) fn resolve(settings: &Settings<'_>) -> Result<ConnInfo, ConnInfoError> {
    let text = |name: &str| settings.get(name).map(|value| value.text);
    let user = text("user")
        .or_else(|| settings.env("USER"))
        .or_else(|| settings.env("LOGNAME"))
        .ok_or(ConnInfoError::NoUser)?;
    let home = settings.env("HOME").map(PathBuf::from);
    let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
    Ok(ConnInfo {
        hosts: hosts(settings)?,
        password: text("password").map(SecretString::from),
        passfile: text("passfile")
            .map(PathBuf::from)
            .or_else(|| in_home(".pgpass")),
        dbname: text("dbname").unwrap_or_else(|| user.clone()),
        user,
        options: text("options"),
        application_name: text("application_name").or_else(|| text("fallback_application_name")),
        tls: tls(settings, &in_home)?,
        connect_timeout: connect_timeout(settings)?,
        keepalives: keepalives(settings)?,
        tcp_user_timeout: integer(settings, "tcp_user_timeout")?
            .filter(|millis| *millis > 0)
            .map(|millis| Duration::from_millis(u64::from(millis.unsigned_abs()))),
        target_session: target_session(settings)?,
    })
}

fn hosts(settings: &Settings<'_>) -> Result<Vec<Host>, ConnInfoError> {
    let list = |name: &str| -> Vec<String> {
        let value = settings.get(name);
        value
            .map(|v| v.text.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let (names, addresses) = (list("host"), list("hostaddr"));
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        let (hosts, others) = (names.len(), addresses.len());
        return Err(ConnInfoError::CountMismatch {
            hosts,
            others,
            keyword: "hostaddr",
        });
    }
    let ports = ports(settings, count)?;
    let at = |list: &[String], i: usize| list.get(i).cloned().unwrap_or_default();
    ports
        .into_iter()
        .enumerate()
        .map(|(i, port)| host(settings, at(&names, i), &at(&addresses, i), port))
        .collect()
}

fn host(
    settings: &Settings<'_>,
    name: String,
    address: &str,
    port: u16,
) -> Result<Host, ConnInfoError> {
    let bad = |keyword, expected| match settings.get(keyword) {
        Some(value) => value.bad(expected),
        None => ConnInfoError::BadValue {
            keyword: "host",
            from_env: None,
            expected,
        },
    };
    if !address.is_empty() {
        let parsed: IpAddr = address
            .parse()
            .map_err(|_| bad("hostaddr", "a numeric IP address"))?;
        let name = if name.is_empty() {
            address.to_owned()
        } else {
            name
        };
        return Ok(Host::Tcp {
            name,
            address: Some(parsed),
            port,
        });
    }
    if name.starts_with('@') {
        return Err(bad(
            "host",
            "a host name, an address or the folder of a socket",
        ));
    }
    if name.is_empty() {
        return Ok(Host::Unix {
            dir: default_socket_dir(),
            port,
        });
    }
    if name.starts_with('/') {
        return Ok(Host::Unix {
            dir: PathBuf::from(name),
            port,
        });
    }
    Ok(Host::Tcp {
        address: name.parse().ok(),
        name,
        port,
    })
}

fn default_socket_dir() -> PathBuf {
    let found = SOCKET_DIRS.iter().map(Path::new).find(|dir| dir.is_dir());
    found.unwrap_or(Path::new("/tmp")).to_owned()
}

/// One port for each host; a single port counts for all of them.
fn ports(settings: &Settings<'_>, hosts: usize) -> Result<Vec<u16>, ConnInfoError> {
    let Some(value) = settings.get("port") else {
        return Ok(vec![DEFAULT_PORT; hosts]);
    };
    let parse = |text: &str| match text.trim() {
        "" => Ok(DEFAULT_PORT),
        text => match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(value.bad("a port number from 1 to 65535")),
        },
    };
    let ports: Vec<u16> = value.text.split(',').map(parse).collect::<Result<_, _>>()?;
    match ports.as_slice() {
        [port] => Ok(vec![*port; hosts]),
        ports if ports.len() == hosts => Ok(ports.to_vec()),
        ports => Err(ConnInfoError::CountMismatch {
            hosts,
            others: ports.len(),
            keyword: "port",
        }),
    }
}

fn tls(
    settings: &Settings<'_>,
    in_home: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<TlsOptions, ConnInfoError> {
    let file = |keyword: &str, default: &str| {
        let named = settings.get(keyword).map(|v| (PathBuf::from(v.text), true));
        let (path, must_exist) = named.or_else(|| in_home(default).map(|path| (path, false)))?;
        Some(CertFile { path, must_exist })
    };
    let system = settings
        .get("sslrootcert")
        .is_some_and(|value| value.text == "system");
    let mode = match settings.get("sslmode") {
        Some(value) => ssl_mode(&value)?,
        None if system => SslMode::VerifyFull,
        None => SslMode::Prefer,
    };
    if system && mode != SslMode::VerifyFull {
        return Err(ConnInfoError::WeakModeForSystemRoots);
    }
    let root = if system {
        Some(RootCert::System)
    } else {
        file("sslrootcert", ".postgresql/root.crt").map(RootCert::File)
    };
    Ok(TlsOptions {
        mode,
        root,
        cert: file("sslcert", ".postgresql/postgresql.crt"),
        key: file("sslkey", ".postgresql/postgresql.key"),
        sni: switch(settings, "sslsni")?,
    })
}

fn ssl_mode(value: &Value) -> Result<SslMode, ConnInfoError> {
    Ok(match value.text.as_str() {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(value.bad("one of disable, allow, prefer, require, verify-ca, verify-full"));
        }
    })
}

fn target_session(settings: &Settings<'_>) -> Result<TargetSession, ConnInfoError> {
    let Some(value) = settings.get("target_session_attrs") else {
        return Ok(TargetSession::Any);
    };
    Ok(match value.text.as_str() {
        "any" => TargetSession::Any,
        "read-write" => TargetSession::ReadWrite,
        "read-only" => TargetSession::ReadOnly,
        "primary" => TargetSession::Primary,
        "standby" => TargetSession::Standby,
        _ => return Err(value.bad("one of any, read-write, read-only, primary, standby")),
    })
}

/// Zero and negative mean "for ever" to libpq; here they mean the default.
fn connect_timeout(settings: &Settings<'_>) -> Result<Duration, ConnInfoError> {
    let seconds = integer(settings, "connect_timeout")?.filter(|seconds| *seconds > 0);
    Ok(seconds.map_or(DEFAULT_CONNECT_TIMEOUT, |s| {
        Duration::from_secs(s.unsigned_abs().into())
    }))
}

fn keepalives(settings: &Settings<'_>) -> Result<Option<Keepalives>, ConnInfoError> {
    let positive = |name| {
        Ok(integer(settings, name)?
            .filter(|n| *n > 0)
            .map(i32::unsigned_abs))
    };
    let seconds = |n: u32| Duration::from_secs(n.into());
    let (idle, interval) = (
        positive("keepalives_idle")?,
        positive("keepalives_interval")?,
    );
    let keepalives = Keepalives {
        idle: idle.map_or(DEFAULT_KEEPALIVES.idle, seconds),
        interval: interval.map_or(DEFAULT_KEEPALIVES.interval, seconds),
        count: positive("keepalives_count")?.unwrap_or(DEFAULT_KEEPALIVES.count),
    };
    Ok(switch(settings, "keepalives")?.then_some(keepalives))
}

fn switch(settings: &Settings<'_>, name: &str) -> Result<bool, ConnInfoError> {
    Ok(integer(settings, name)?.is_none_or(|n| n != 0))
}

fn integer(settings: &Settings<'_>, name: &str) -> Result<Option<i32>, ConnInfoError> {
    let Some(value) = settings.get(name) else {
        return Ok(None);
    };
    value
        .text
        .trim()
        .parse()
        .map(Some)
        .map_err(|_| value.bad("a whole number"))
}
