//! A connection that succeeds.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cocktail_core::time::human;
use tokio::net::TcpStream;

use super::Seen;

pub(super) async fn check(at: SocketAddr, timeout: Duration) -> Seen {
    match tokio::time::timeout(timeout, connect(at)).await {
        Ok(Ok(_)) => Seen::Good(format!("connected to {at}")),
        Ok(Err(seen)) => seen,
        Err(_) => Seen::Silent(at, format!("no connection to {at} within {}", human(timeout))),
    }
}

/// Connects; a failure that is ours says nothing of the worker.
pub(super) async fn connect(at: SocketAddr) -> Result<TcpStream, Seen> {
    match TcpStream::connect(at).await {
        // A free port in the kernel's own range can connect to itself.
        Ok(stream) if stream.local_addr().ok() == Some(at) => Err(refused(at)),
        Ok(stream) => Ok(stream),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(refused(at)),
        Err(error) if is_ours(&error) => Err(Seen::Nothing),
        Err(error) => Err(Seen::Silent(at, format!("cannot connect to {at}: {}", error.kind()))),
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
