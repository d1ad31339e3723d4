//! Is a server ready? Only a connection that it accepts says so.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);

/// Connects, sends a startup packet and looks at the first byte of the answer.
///
/// While a server starts or recovers it answers with an error (57P03) before it asks who we are;
/// once it asks for a password or says that none is needed (`R`), it takes sessions
/// (manual 55.2.1).
pub(super) fn accepts_sessions(port: u16) -> bool {
    first_answer(port).is_ok_and(|tag| tag == b'R')
}

fn first_answer(port: u16) -> std::io::Result<u8> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TRY)?;
    stream.set_read_timeout(Some(TRY))?;
    let mut packet = BytesMut::new();
    frontend::startup_message(
        [("user", "postgres"), ("database", "postgres")],
        &mut packet,
    )?;
    stream.write_all(&packet)?;
    let mut tag = [0];
    stream.read_exact(&mut tag)?;
    Ok(tag[0])
}
