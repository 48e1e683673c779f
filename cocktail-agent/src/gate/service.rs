//! The calls of agents. Each says first who may make it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::id::ServerId;
use futures_util::{Stream, StreamExt as _};
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::Shared;
use super::link;
use super::listen::Peer;
use crate::identity::{Identity, Pin as KeyPin, Role, Standing, standing};
use crate::wire::gate_server::Gate;
use crate::wire::{AsideFrame, Certificate, Chunk, FetchRequest, Frame, JoinRequest, RenewRequest};

/// Bytes of an artifact in one message.
const CHUNK: usize = 256 << 10;

/// What goes back over a stream.
type Back<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Whether a certificate that has expired is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Valid,
    /// A machine that was off for long has to be able to come back.
    EvenExpired,
}

#[derive(Debug)]
pub(super) struct GateService {
    shared: Arc<Shared>,
}

impl GateService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The agent that makes a call.
    async fn agent<T>(&self, request: &Request<T>, needs: Needs) -> Result<(ServerId, Peer), Status> {
        let peer = peer(request)?;
        let shown = peer.certificate.as_ref().ok_or_else(|| Status::unauthenticated("a certificate is needed"))?;
        let refused = |because: String| async move {
            warn!(peer = %peer.address, because, "a call was refused");
            Status::permission_denied("this certificate may not do that")
        };
        let identity = match Identity::of(shown) {
            Ok(identity) if identity.cluster == self.shared.authority.cluster() => identity,
            Ok(identity) => return Err(refused(format!("{identity} is of another cluster")).await),
            Err(error) => return Err(refused(error.to_string()).await),
        };
        let Role::Agent(server) = identity.role else {
            return Err(refused(format!("{identity} is no agent")).await);
        };
        match standing(shown, SystemTime::now()) {
            Ok(Standing::Valid) => {}
            Ok(Standing::Expired { .. }) if needs == Needs::EvenExpired => {}
            _ => return Err(Status::unauthenticated("the certificate is not valid now: renew it")),
        }
        // Before it is asked who is refused: of a revocation and a call at once, one sees the other.
        if peer.is_new() && !self.shared.note(&server, shown, &peer.cut) {
            warn!(%server, peer = %peer.address, "a connection was closed: its server has too many");
            peer.cut.cancel();
            return Err(Status::resource_exhausted("this server has too many connections"));
        }
        if !self.shared.authority.trusts(shown) {
            return Err(refused(format!("{server} shows a certificate of an authority of before")).await);
        }
        match self.shared.revoked.refuses(shown) {
            Ok(None) => {}
            Ok(Some(because)) => {
                if self.shared.tells(&server) {
                    self.alert(Some(&server), format!("its agent was turned away: {because}")).await;
                }
                return Err(Status::permission_denied("this server is revoked"));
            }
            Err(error) => return Err(refused(error.to_string()).await),
        }
        Ok((server, peer))
    }

    async fn alert(&self, server: Option<&ServerId>, because: String) {
        warn!(server = server.map(ServerId::as_str), because, "alert");
        if let Some(admission) = self.shared.admission.get() {
            admission.alert(server, &because).await;
        }
    }

    fn certificate(&self, csr: &[u8], server: &ServerId) -> Result<Response<Certificate>, Status> {
        let issued = self.shared.authority.sign_agent(csr, server, SystemTime::now());
        let issued = issued.map_err(|error| status(&error))?;
        let bytes = |certificate: &rustls::pki_types::CertificateDer<'_>| certificate.to_vec();
        let chain = issued.chain.iter().map(bytes).collect();
        let bundle = self.shared.authority.bundle().iter().map(bytes).collect();
        Ok(Response::new(Certificate { chain, bundle }))
    }
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("no peer"))
}

fn status(error: &Error) -> Status {
    match error.kind() {
        ErrorKind::Denied => Status::permission_denied(error.message()),
        ErrorKind::InvalidConfig => Status::invalid_argument(error.message()),
        _ => Status::unavailable(error.message()),
    }
}

#[tonic::async_trait]
impl Gate for GateService {
    type SessionStream = Back<Frame>;
    type AsideStream = Back<AsideFrame>;
    type FetchStream = Back<Chunk>;

    /// Anybody, with a secret.
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Certificate>, Status> {
        let peer = peer(&request)?;
        let JoinRequest { server, number, secret, request } = request.into_inner();
        let denied = || Status::permission_denied("the token is wrong, was used, or has run out");
        let address = peer.address.ip();
        if self.shared.guesses.is_over(address) {
            return Err(Status::resource_exhausted("too many attempts: try again in a minute"));
        }
        let server = ServerId::new(server);
        if !self.shared.authority.check_join(&server, number, &secret) {
            let count = self.shared.guesses.count(address);
            // What it calls itself may be anything, and as long as a message.
            let named = server.as_str().chars().take(64).collect::<String>();
            let because = format!("{address} tried to join as {named:?} with a wrong secret, for the {count}. time");
            self.alert(Some(&server).filter(|server| server.as_str().len() <= 64), because).await;
            return Err(denied());
        }
        if self.shared.revoked.is_revoked(&server) {
            self.alert(Some(&server), format!("{address} tried to join as a server that is revoked")).await;
            return Err(denied());
        }
        let instance = KeyPin::of_request(&request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let admission = self.shared.admission.get().ok_or_else(|| Status::unavailable("the manager is starting"))?;
        if let Err(error) = admission.join(&server, number, &instance.to_string()).await {
            if *error.kind() != ErrorKind::Denied {
                return Err(status(&error));
            }
            self.shared.guesses.count(address);
            self.alert(Some(&server), format!("{address} was not let in: {}", error.message())).await;
            return Err(denied());
        }
        info!(%server, %address, number, "an agent joins");
        peer.admit();
        self.certificate(&request, &server)
    }

    /// Agents, also with a certificate that has expired.
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let (server, peer) = self.agent(&request, Needs::EvenExpired).await?;
        peer.admit();
        self.certificate(&request.into_inner().request, &server)
    }

    /// Agents.
    async fn session(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::SessionStream>, Status> {
        let (server, peer) = self.agent(&request, Needs::Valid).await?;
        if self.shared.admission.get().is_none() {
            return Err(Status::unavailable("the manager is starting"));
        }
        peer.admit();
        let (link, back) = link::open(&self.shared, server, &peer, request.into_inner());
        let taken = self.shared.links.send(link).await;
        taken.map_err(|_| Status::unavailable("the manager is ending"))?;
        Ok(Response::new(Box::pin(back)))
    }

    /// Agents, for what containers of their own server need.
    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let (server, peer) = self.agent(&request, Needs::Valid).await?;
        peer.admit();
        let admission = self.shared.admission.get().ok_or_else(|| Status::unavailable("the manager is starting"))?;
        let found = admission.artifact(&server, &request.into_inner().sha256).await;
        let path = found.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Status::not_found(error.message()),
            _ => status(&error),
        })?;
        let opened = tokio::fs::File::open(&path).await;
        let file = opened.map_err(|error| {
            warn!(path = %path.display(), %error, "an artifact cannot be read");
            Status::not_found("the manager cannot read the artifact")
        })?;
        let chunks = ReaderStream::with_capacity(file, CHUNK).map(|bytes| match bytes {
            Ok(bytes) => Ok(Chunk { bytes: bytes.to_vec() }),
            Err(error) => Err(Status::unavailable(error.to_string())),
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    /// Agents, for streams of their own server.
    async fn aside(&self, request: Request<Streaming<AsideFrame>>) -> Result<Response<Self::AsideStream>, Status> {
        let (server, peer) = self.agent(&request, Needs::Valid).await?;
        peer.admit();
        let back = self.shared.asides.open(&server, request.into_inner()).await?;
        Ok(Response::new(Box::pin(back)))
    }
}
