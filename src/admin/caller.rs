//! Which callers are turned away by the head of their request alone. Pure.
//!
//! A page of any site can make the browser of this machine send requests to a loopback address.
//! What it cannot do is hide that it is a browser: it sends `Origin`, `Referer` or `Sec-Fetch-Site`
//! with a request that changes something, and where its own name was made to lead here (DNS
//! rebinding) it sends that name as `Host`.

use std::net::IpAddr;

use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const USER_AGENT: HeaderName = hyper::header::USER_AGENT;
/// What a form of a web page can send without asking first.
const FORM_TYPES: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
];

/// Whether the request comes from a web page.
pub(super) fn is_web_page(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let agent = text(&USER_AGENT).unwrap_or("");
    let kind = text(&CONTENT_TYPE).unwrap_or("").to_ascii_lowercase();
    let is_form = FORM_TYPES.iter().any(|form| kind.starts_with(form));
    headers.contains_key(ORIGIN)
        || headers.contains_key(REFERER)
        || text(&SEC_FETCH_SITE).is_some_and(|site| site != "none")
        || agent.starts_with("Mozilla/")
        // `curl -d ''` says so too.
        || (is_form && !agent.starts_with("curl/"))
}

/// Whether `Host` can only mean this machine: an address, a name without a dot, which nobody can
/// register, or a name of the loopback interface. Without `Host` there is no browser.
pub(super) fn host_is_ours(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => host.to_str().is_ok_and(is_own_name),
        (Some(_), Some(_)) => false,
    }
}

fn is_own_name(host: &str) -> bool {
    let name = without_port(host)
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok() || !name.contains('.') || name.ends_with(".localhost")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let is_whole = !name.contains(':') || name.ends_with(']');
            if is_whole { name } else { host }
        }
        _ => host,
    }
}

/// The token of `Authorization: Bearer TOKEN`; the scheme in any letter case (RFC 9110, 11.1).
pub(super) fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = lines.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn web_pages_are_told_from_tools() {
        for page in [
            ("origin", "null"),
            ("referer", "http://evil.example/"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("user-agent", "Mozilla/5.0 (X11)"),
            ("content-type", "text/plain;charset=UTF-8"),
            ("content-type", "Multipart/form-data; boundary=x"),
        ] {
            assert!(is_web_page(&headers(&[page])), "{page:?}");
        }
        for tool in [
            &[("user-agent", "curl/8.5"), ("accept", "*/*")][..],
            &[
                ("user-agent", "curl/8.5"),
                ("content-type", "application/x-www-form-urlencoded"),
            ],
            &[("content-type", "application/json")],
            &[],
        ] {
            assert!(!is_web_page(&headers(tool)), "{tool:?}");
        }
    }

    #[test]
    fn only_names_that_mean_this_machine_are_taken() {
        for ours in [
            "127.0.0.1:7441",
            "localhost",
            "LOCALHOST:7441",
            "localhost.",
            "[::1]:7441",
            "[::1]",
            "10.1.2.3",
            "east:7441",
            "a.localhost:1",
            "::1",
        ] {
            assert!(host_is_ours(&headers(&[("host", ours)])), "{ours}");
        }
        for other in [
            "evil.example",
            "evil.example:7441",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "1.2.3.4.nip.io:7441",
        ] {
            assert!(!host_is_ours(&headers(&[("host", other)])), "{other}");
        }
        assert!(host_is_ours(&headers(&[])));
        assert!(!host_is_ours(&headers(&[("host", "x"), ("host", "y")])));
    }

    #[test]
    fn the_scheme_is_taken_in_any_case() {
        for scheme in ["Bearer x1", "bearer x1", "BEARER  x1 "] {
            assert_eq!(
                bearer(&scheme.parse().unwrap()),
                Some(&b"x1"[..]),
                "{scheme}"
            );
        }
        for other in ["Basic x1", "Bearer", "x1", ""] {
            assert_eq!(bearer(&other.parse().unwrap()), None, "{other}");
        }
    }
}
