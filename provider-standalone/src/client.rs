//! The connection to the keeper: made when it is needed, made again when it is lost.
//!
//! Start at [`Shared::client`]. A lost connection may mean a dead keeper, so calls are refused on a new one until
//! [`Shared::adopted`] says that its containers were looked at: a keeper that was started anew knows nothing of workers
//! that run, and what it says before then must not be taken for their end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use cocktail_core::contract::RuntimeEvent;
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_keeper::protocol::{Intent, SetServices};
use cocktail_keeper::{EventStream, Hello, KeeperClient, KeeperError};

use crate::config::KeeperMode;
use crate::error::{Call, of_keeper};
use crate::mark;
use crate::shared::{Shared, lock};

/// First and longest pause before a keeper is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// Where the connection stands.
#[derive(Debug, Default)]
pub(crate) enum Link {
    /// Nobody has asked yet.
    #[default]
    New,
    /// There is one.
    Up {
        client: KeeperClient,
        /// Whether its containers were looked at.
        adopted: bool,
    },
    /// It was lost, and this is why there is no new one yet.
    Down(Error),
    /// The runtime has ended.
    Closed,
}

impl Shared {
    /// The connection, for calls on containers.
    ///
    /// # Errors
    /// `Unavailable` while there is none, or while nobody has attached to the containers behind it.
    pub(crate) async fn client(self: &Arc<Self>) -> Result<KeeperClient> {
        let client = self.any_client().await?;
        match &*lock(&self.link) {
            Link::Up { adopted: false, .. } => {
                Err(Error::unavailable("the workers behind a new connection to the keeper are not attached yet"))
            }
            _ => Ok(client),
        }
    }

    /// The connection, whether or not its containers were looked at. Makes the first one.
    pub(crate) async fn any_client(self: &Arc<Self>) -> Result<KeeperClient> {
        if let Some(known) = self.known_client() {
            return known;
        }
        let _alone = self.connecting.lock().await;
        if let Some(known) = self.known_client() {
            return known;
        }
        let (client, events) = self.connect().await?;
        *lock(&self.link) = Link::Up { client: client.clone(), adopted: false };
        tokio::spawn(follow(Arc::downgrade(self), events));
        Ok(client)
    }

    /// `None` where nobody has connected yet.
    fn known_client(&self) -> Option<Result<KeeperClient>> {
        match &*lock(&self.link) {
            Link::New => None,
            Link::Up { client, .. } => Some(Ok(client.clone())),
            Link::Down(error) => Some(Err(error.clone())),
            Link::Closed => Some(Err(Error::unavailable("the runtime has ended"))),
        }
    }

    /// The containers behind this connection were looked at: calls may go on.
    pub(crate) fn adopted(&self, through: &KeeperClient) {
        if let Link::Up { client, adopted } = &mut *lock(&self.link)
            && client.welcome() == through.welcome()
            && !client.is_closed()
        {
            *adopted = true;
        }
    }

    /// Ends the connection for good. The last one is returned.
    pub(crate) fn close(&self) -> Option<KeeperClient> {
        match std::mem::replace(&mut *lock(&self.link), Link::Closed) {
            Link::Up { client, .. } => Some(client),
            _ => None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*lock(&self.link), Link::Closed)
    }

    /// Connects to the keeper, and starts one where none runs.
    async fn connect(&self) -> Result<(KeeperClient, EventStream)> {
        let (mark, hello) = self.hello()?;
        let socket = self.fixed.keeper.socket();
        let connected = match KeeperClient::connect(&socket, hello.clone()).await {
            Err(KeeperError::Unreachable { .. } | KeeperError::Disconnected) => {
                self.start_keeper(mark).await?;
                KeeperClient::connect(&socket, hello).await
            }
            other => other,
        };
        let (client, events) = connected.map_err(|error| of_keeper(error, Call::Reads))?;
        client.subscribe(0).await.map_err(|error| of_keeper(error, Call::Reads))?;
        Ok((client, events))
    }

    /// The mark of the data dir, and what a keeper is told first.
    pub(crate) fn hello(&self) -> Result<(String, Hello)> {
        let lease = lock(&self.lease).clone();
        let lease = lease.ok_or_else(|| Error::unexpected("nobody leads this provider yet"))?;
        let mark = mark::of(&lease.store, &self.fixed.data_dir)
            .map_err(|error| Error::unavailable("the data dir cannot be read").because(error))?;
        let hello = Hello {
            store: mark.clone(),
            epoch: lease.epoch.0,
            lease: Some(lease.key),
            earlier: lease.earlier,
            intent: Intent::Lead,
        };
        Ok((mark, hello))
    }

    /// Starts a keeper. One that runs already stays.
    pub(crate) async fn start_keeper(&self, mark: String) -> Result<()> {
        let options = self.fixed.keeper.clone();
        let mode = self.fixed.config.keeper;
        let started = tokio::task::spawn_blocking(move || {
            mark::check_alone(&mark, &options.dir)?;
            let started = match mode {
                KeeperMode::Process => cocktail_keeper::spawn(&options).map(|()| None),
                KeeperMode::InProcess => cocktail_keeper::serve_in_process(options).map(Some),
            };
            started.map_err(|error| of_keeper(error, Call::Reads))
        });
        let handle =
            started.await.map_err(|error| Error::unexpected("starting the keeper panicked").because(error))??;
        if let Some(handle) = handle {
            *lock(&self.in_process) = Some(handle);
        }
        Ok(())
    }

    /// Gives the last routing table to a keeper that may be new.
    async fn restore_table(&self, client: &KeeperClient) {
        let table: Option<SetServices> = lock(&self.table).clone();
        if let Some(table) = table
            && let Err(error) = client.set_services(table).await
        {
            tracing::warn!(%error, "the routing table could not be given to the keeper again");
        }
    }
}

/// Passes events on; when the connection is lost, makes a new one and asks the Manager to attach again. Ends with the
/// runtime.
async fn follow(shared: Weak<Shared>, mut events: EventStream) {
    loop {
        while let Some(event) = events.next().await {
            let Some(shared) = shared.upgrade() else { return };
            shared.on_event(event);
        }
        let mut pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .without_max_times()
            .build();
        if !go_down(&shared, Error::unavailable("the connection to the keeper was lost")) {
            return;
        }
        events = loop {
            let Some(strong) = shared.upgrade() else { return };
            match strong.connect().await {
                Ok((client, events)) => {
                    if !go_up(&strong, &client).await {
                        return;
                    }
                    break events;
                }
                Err(error) => {
                    if !go_down(&shared, error) {
                        return;
                    }
                }
            }
            drop(strong);
            tokio::time::sleep(pauses.next().unwrap_or(PAUSES.1)).await;
        };
    }
}

/// Notes why there is no connection. False when the runtime has ended.
fn go_down(shared: &Weak<Shared>, error: Error) -> bool {
    let Some(shared) = shared.upgrade() else { return false };
    let mut link = lock(&shared.link);
    if matches!(*link, Link::Closed) {
        return false;
    }
    if *error.kind() == ErrorKind::Unavailable {
        tracing::debug!(error = error.chain(), "no connection to the keeper");
    } else {
        tracing::warn!(error = error.chain(), "no connection to the keeper");
    }
    *link = Link::Down(error);
    true
}

/// Takes a new connection. False when the runtime has ended.
async fn go_up(shared: &Arc<Shared>, client: &KeeperClient) -> bool {
    shared.restore_table(client).await;
    {
        let mut link = lock(&shared.link);
        if matches!(*link, Link::Closed) {
            return false;
        }
        *link = Link::Up { client: client.clone(), adopted: false };
    }
    shared.emit(RuntimeEvent::Resync { why: "the keeper was lost and is there again".into() });
    true
}
