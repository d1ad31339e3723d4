//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use super::LocalError;

/// First port given out.
pub(crate) const FIRST: u16 = 15_000;
/// Last port given out.
pub(crate) const LAST: u16 = 32_000;

/// The next port to try; 0 = not chosen yet.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on at this moment.
///
/// Below the range that the kernel takes for outgoing connections (Linux: 32768 and up): a client
/// that keeps trying a port of that range while its server is down can connect to itself.
/// Another process may be faster, so whoever binds must be ready to try again.
pub fn free_port() -> Result<u16, LocalError> {
    let tries = LAST - FIRST;
    (0..tries)
        .map(|_| next())
        .find(|port| is_free(*port))
        .ok_or(LocalError::NoPort {
            first: FIRST,
            last: LAST,
        })
}

/// Whether the port can be bound now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Counts up from a place that differs between processes, so that they rarely meet.
fn next() -> u16 {
    let span = LAST - FIRST;
    let spread = u16::try_from(std::process::id() * 61 % u32::from(span)).unwrap_or(0);
    FIRST + (spread.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_is_not_given_twice() {
        let (first, second) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(first, second);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(first));
        drop(taken);
    }
}
