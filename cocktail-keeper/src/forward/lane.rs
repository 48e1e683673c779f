//! Where connections are carried: on the table's own thread, or on one more beside it.
//!
//! Start at [`Lanes::carry`]. After a burst of requests, or a moment without the processor, the last one waits for all
//! before it; two threads are through sooner. A connection goes to the lane that carries fewer, and the second lane begins
//! with the first connection that is not alone: connections one after the other never change threads. The table knows
//! nothing of this. It waits for the end of a connection wherever that is carried, and counts on its own thread.

use std::{
    cell::{Cell, OnceCell},
    io, net,
    num::NonZero,
    sync::Arc,
    thread,
};

use tokio::{
    net::TcpStream,
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task::spawn_local,
};

use super::{
    exchange::Traffic,
    relay::{Carried, Onward, Relay},
    run_beside,
};

/// Both lanes, seen from the table's thread. The second one ends with this.
#[derive(Default)]
pub(super) struct Lanes {
    here: Cell<usize>,
    beside: Cell<usize>,
    /// `None` inside where a second thread would not help or could not be had.
    second: OnceCell<Option<UnboundedSender<Pair>>>,
}

/// A connection on its way to the other lane.
struct Pair {
    client: net::TcpStream,
    backend: net::TcpStream,
    request: Vec<u8>,
    traffic: Arc<Traffic>,
    /// Told, or dropped when both sockets are closed.
    end: oneshot::Sender<Onward<net::TcpStream>>,
}

impl Lanes {
    /// Carries a connection until both sockets are closed, or the client goes on with another backend.
    pub(super) async fn carry(
        &self,
        client: TcpStream,
        backend: TcpStream,
        request: Vec<u8>,
        traffic: &Arc<Traffic>,
    ) -> io::Result<Carried> {
        let traffic = Arc::clone(traffic);
        match self.second() {
            Some(second) => {
                let _counted = Counted::new(&self.beside);
                let (end, ended) = oneshot::channel();
                let (client, backend) = (client.into_std()?, backend.into_std()?);
                let pair = Pair { client, backend, request, traffic, end };
                second.send(pair).map_err(|_| io::ErrorKind::BrokenPipe)?;
                match ended.await {
                    Ok(onward) => Ok(Carried::Again(onward.try_map(TcpStream::from_std)?)),
                    Err(_) => Ok(Carried::Ended),
                }
            }
            None => {
                let _counted = Counted::new(&self.here);
                Relay::new(client, backend, request, traffic).await
            }
        }
    }

    /// The second lane, if the next connection belongs there.
    fn second(&self) -> Option<&UnboundedSender<Pair>> {
        if self.here.get() <= self.beside.get() {
            return None;
        }
        self.second.get_or_init(begin).as_ref()
    }
}

/// Counts one connection of a lane for as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(cell: &'a Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn begin() -> Option<UnboundedSender<Pair>> {
    if thread::available_parallelism().map_or(1, NonZero::get) < 2 {
        return None;
    }
    let (sender, pairs) = mpsc::unbounded_channel();
    run_beside("forwarder-2", || take(pairs)).ok().map(|()| sender)
}

async fn take(mut pairs: UnboundedReceiver<Pair>) {
    while let Some(pair) = pairs.recv().await {
        spawn_local(pair.carry());
    }
}

impl Pair {
    async fn carry(self) -> io::Result<()> {
        let Self { client, backend, request, traffic, end } = self;
        let (client, backend) = (TcpStream::from_std(client)?, TcpStream::from_std(backend)?);
        if let Carried::Again(onward) = Relay::new(client, backend, request, traffic).await? {
            // The service may have ended meanwhile; its clients end with it.
            let _ = end.send(onward.try_map(TcpStream::into_std)?);
        }
        Ok(())
    }
}
