use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use std::time::Duration;

fn env(name: &str) -> Option<String> {
    (name == "USER").then(|| "me".to_owned())
}

fn parse(dsn: &str) -> ConnInfo {
    super::parse(dsn, &env).unwrap()
}

fn refuse(dsn: &str) -> String {
    super::parse(dsn, &env).unwrap_err().to_string()
}

#[test]
fn both_forms_mean_the_same() {
    let pairs = parse("host=10.0.0.1 port=5433 dbname=app user=mmrepl password=x sslmode=require");
    let uri = parse("postgresql://mmrepl:x@10.0.0.1:5433/app?sslmode=require");
    assert_eq!(format!("{pairs:?}"), format!("{uri:?}"));
    assert_eq!(pairs.describe(), "10.0.0.1:5433/app");
}

#[test]
fn defaults_are_libpqs() {
    let info = parse("");
    assert_eq!((info.user(), info.dbname()), ("me", "me"));
    assert!(matches!(&info.hosts()[0], Host::Unix { port: 5432, .. }));
    assert_eq!(info.tls().mode, SslMode::Prefer);
    assert_eq!(info.target_session(), TargetSession::Any);
    assert_eq!(
        info.keepalives().map(|k| k.idle),
        Some(Duration::from_secs(30))
    );
    assert_eq!(parse("keepalives=0").keepalives(), None);
    assert_eq!(
        parse("connect_timeout=3").connect_timeout(),
        Duration::from_secs(3)
    );
}

#[test]
fn the_environment_fills_what_the_string_leaves_out() {
    let env = |name: &str| {
        let value = match name {
            "PGHOST" => "db.example",
            "PGPORT" => "7000",
            "PGUSER" => "eve",
            "PGPASSWORD" => "hidden",
            "PGDATABASE" => "shop",
            "PGSSLMODE" => "verify-full",
            "PGSSLROOTCERT" => "/ca.pem",
            "PGSSLCERT" => "/me.crt",
            "PGSSLKEY" => "/me.key",
            "PGCONNECT_TIMEOUT" => "4",
            "PGOPTIONS" => "-c a=b",
            "PGAPPNAME" => "tool",
            "PGTARGETSESSIONATTRS" => "read-write",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let info = super::parse("port=7001", &env).unwrap();
    assert_eq!(info.describe(), "db.example:7001/shop");
    assert_eq!(info.user(), "eve");
    assert_eq!(info.tls().mode, SslMode::VerifyFull);
    let named = |path: &str| {
        Some(CertFile {
            path: path.into(),
            must_exist: true,
        })
    };
    assert_eq!(info.tls().root, named("/ca.pem").map(RootCert::File));
    assert_eq!(
        (&info.tls().cert, &info.tls().key),
        (&named("/me.crt"), &named("/me.key"))
    );
    assert_eq!(info.connect_timeout(), Duration::from_secs(4));
    assert_eq!(
        (info.options(), info.application_name()),
        (Some("-c a=b"), Some("tool"))
    );
    assert_eq!(info.target_session(), TargetSession::ReadWrite);
    let password = info.password_for(&info.hosts()[0]).password;
    assert_eq!(
        password.as_ref().map(ExposeSecret::expose_secret),
        Some("hidden")
    );
    // An empty value hides the environment's.
    assert_eq!(super::parse("dbname=''", &env).unwrap().dbname(), "eve");
}

#[test]
fn hosts_pair_up_with_ports_and_addresses() {
    let info = parse("host=a,/run/pg,::1 port=1,,3");
    assert_eq!(info.describe(), "a:1,/run/pg:5432,[::1]:3/me");
    assert_eq!(parse("host=a,b port=9").describe(), "a:9,b:9/me");
    let both = parse("host=db.example hostaddr=10.1.2.3");
    assert!(
        matches!(&both.hosts()[0], Host::Tcp { name, address: Some(_), .. } if name == "db.example")
    );
    assert_eq!(parse("hostaddr=10.1.2.3").describe(), "10.1.2.3:5432/me");
    assert!(refuse("host=a,b,c port=1,2").contains("3 hosts but 2 values for `port`"));
    assert!(refuse("host=a,b hostaddr=10.0.0.1").contains("`hostaddr`"));
    assert!(refuse("port=0").contains("`port`"));
    assert!(refuse("hostaddr=name").contains("`hostaddr`"));
}

#[test]
fn system_roots_ask_for_the_name_too() {
    assert_eq!(
        parse("host=a sslrootcert=system").tls().mode,
        SslMode::VerifyFull
    );
    assert!(refuse("host=a sslrootcert=system sslmode=require").contains("verify-full"));
}

#[test]
fn no_output_shows_the_password() {
    let info = parse("host=h password=S3cret");
    assert!(!format!("{info:?} {}", info.describe()).contains("S3cret"));
    for dsn in [
        "password=S3cret sslmode=x",
        "password=S3cret port=x",
        "password='S3cret",
    ] {
        assert!(!refuse(dsn).contains("S3cret"));
    }
}

#[test]
fn the_password_file_is_read_when_a_connection_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pass");
    let info = parse(&format!("host=h,/tmp user=u passfile={}", path.display()));
    let password = |host: usize| {
        let found = info.password_for(&info.hosts()[host]).password;
        found.map(|p| p.expose_secret().to_owned())
    };
    assert_eq!(password(0), None);
    std::fs::write(&path, "h:5432:u:u:one\nlocalhost:*:*:*:two\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        (password(0), password(1)),
        (Some("one".to_owned()), Some("two".to_owned()))
    );
}

proptest! {
    #[test]
    fn any_text_gives_settings_or_an_error(dsn in ".*") {
        let _ = super::parse(&dsn, &env);
    }

    #[test]
    fn any_value_of_any_keyword_gives_settings_or_an_error(
        keyword in "host|hostaddr|port|sslmode|connect_timeout|keepalives_idle|tcp_user_timeout",
        value in "[-0-9,a@/:.]*",
    ) {
        let _ = super::parse(&format!("{keyword}={}", quote_value(&value)), &env);
    }

    #[test]
    fn quoted_values_arrive_unchanged(dbname in "[^\0]+", user in "[^\0]+") {
        let dsn = format!("dbname={} user={}", quote_value(&dbname), quote_value(&user));
        let info = super::parse(&dsn, &env).unwrap();
        prop_assert_eq!((info.dbname(), info.user()), (dbname.as_str(), user.as_str()));
    }
}
