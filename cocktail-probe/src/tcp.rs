//! A connection that succeeds.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cocktail_core::time::human;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Seen;

/// Connects; a failure that is ours says nothing of the worker. `timeout` is named, `deadline` is when it is over.
pub async fn open(at: SocketAddr, (timeout, deadline): (Duration, Instant)) -> Result<TcpStream, Seen> {
    let connected = tokio::time::timeout_at(deadline, TcpStream::connect(at)).await;
    match connected {
        Err(_) => Err(Seen::Silent(at, format!("no connection to {at} within {}", human(timeout)))),
        // A free port in the kernel's own range can connect to itself.
        Ok(Ok(stream)) if stream.local_addr().ok() == Some(at) => Err(refused(at)),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(refused(at)),
        Ok(Err(error)) if is_ours(&error) => Err(Seen::Nothing),
        Ok(Err(error)) => Err(Seen::Silent(at, format!("cannot connect to {at}: {}", error.kind()))),
    }
}

fn refused(at: SocketAddr) -> Seen {
    Seen::Silent(at, format!("connection refused at {at}"))
}

/// Out of descriptors, ports or memory on this side.
fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}
