//! What happens to servers and providers, durably.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{FleetLimits, Orphan, Rearrangement, Refused, ServerFailure, ServerOperation};
use crate::contract::Offering;
use crate::id::{ContainerId, OperationId, ServerId};
use crate::name::Name;
use crate::server::{Server, ServerStep};
use crate::session::Record;
use crate::spec::Resources;
use crate::time::{ManagerTime, WallTime};

/// A durable change of servers or providers; part of [`crate::event::Event`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum FleetEvent {
    /// A provider was connected, or what it offers has changed.
    ProviderSeen {
        /// The provider.
        provider: Name,
        /// It can be asked for more servers.
        grows: bool,
        /// Limits and times.
        limits: FleetLimits,
        /// What can be bought.
        offerings: Vec<Offering>,
        /// Its servers run images, and nothing else.
        #[serde(default)]
        images: bool,
    },
    /// Nothing is bought from a provider any more, or again.
    BuyingStopped {
        /// The provider.
        provider: Name,
        /// Why and until when; `None` allows it again.
        refused: Option<Refused>,
    },
    /// A server is intended.
    Claimed {
        /// As it will be.
        server: Box<Server>,
    },
    /// An operation on servers is durable; its call may be sent now.
    Intended {
        /// The operation.
        operation: Box<ServerOperation>,
    },
    /// A call gave no answer that says what became of it, or was asked to wait: the same call is sent again.
    Delayed {
        /// The operation.
        operation: OperationId,
        /// Not before this time.
        until: ManagerTime,
        /// Why.
        because: String,
    },
    /// The provider makes a server.
    Accepted {
        /// The server.
        server: ServerId,
        /// The provider's id of it.
        provider_id: String,
    },
    /// The provider surely does not make a server.
    Refused {
        /// The server.
        server: ServerId,
        /// Why.
        failure: ServerFailure,
    },
    /// A server answers.
    Joined {
        /// The server.
        server: ServerId,
        /// Its boot.
        incarnation: String,
        /// What containers can use.
        capacity: Resources,
        /// Where its containers are reached.
        address: IpAddr,
    },
    /// A server takes a step of its life.
    Stepped {
        /// The server.
        server: ServerId,
        /// The step.
        step: ServerStep,
        /// Why.
        because: String,
    },
    /// A server shall be emptied, or need not be any more.
    Rearranging {
        /// The server.
        server: ServerId,
        /// How; `None` calls it off.
        rearrangement: Option<Rearrangement>,
    },
    /// The provider would let a server go.
    Cleared {
        /// The server.
        server: ServerId,
    },
    /// A container need not be replaced any more.
    ReplaceDropped {
        /// The container.
        container: ContainerId,
        /// Why.
        because: String,
    },
    /// The provider gives a server back.
    Released {
        /// The server.
        server: ServerId,
    },
    /// The provider would not let a server go.
    Kept {
        /// The server.
        server: ServerId,
        /// Why.
        failure: ServerFailure,
        /// It is not asked again before this time.
        until: ManagerTime,
    },
    /// A server that had joined before its provider answered: what the provider calls it.
    Identified {
        /// The server.
        server: ServerId,
        /// The provider's name for it.
        provider_id: String,
    },
    /// What the session with a server's agent has to remember.
    SessionRecorded {
        /// The server.
        server: ServerId,
        /// What is remembered.
        record: Box<Record>,
    },
    /// Nothing is heard of a server: it may be lost. Nobody is sent to what runs there.
    Quiet {
        /// The server.
        server: ServerId,
        /// For how long, in words.
        because: String,
    },
    /// The agent of a server that is there says anew what containers can use, and where they are reached.
    Described {
        /// The server.
        server: ServerId,
        /// What containers can use.
        capacity: Resources,
        /// Where its containers are reached.
        address: IpAddr,
    },
    /// A server is heard again in time.
    Heard {
        /// The server.
        server: ServerId,
    },
    /// A token was made with which the agent of a server may join; one from before is void.
    TokenMade {
        /// The server.
        server: ServerId,
        /// Its number: the secret is derived from that.
        number: u64,
        /// Until when it is good.
        until: ManagerTime,
        /// Who asked for it.
        actor: String,
    },
    /// The agent of a server has joined with a token, which is used up by that.
    Admitted {
        /// The server.
        server: ServerId,
        /// Number of the token.
        number: u64,
        /// The one instance that may use it again, as when the answer was lost.
        instance: String,
    },
    /// Something about the identity of a server is not as it should be.
    Alerted {
        /// The server.
        server: ServerId,
        /// What.
        because: String,
    },
    /// A container of a server that is lost is replaced: wherever it is found it ends.
    Fenced {
        /// The container.
        container: ContainerId,
        /// Why.
        because: String,
    },
    /// A complete listing does not name a server, or names it again.
    Listed {
        /// The server.
        server: ServerId,
        /// Whether it was named.
        present: bool,
    },
    /// A server is no more.
    Gone {
        /// The server.
        server: ServerId,
        /// How that is known.
        because: String,
    },
    /// A server that is no more is forgotten.
    Forgotten {
        /// The server.
        server: ServerId,
    },
    /// A server with our tag that no claim is about.
    OrphanSeen {
        /// The provider.
        provider: Name,
        /// The provider's id of it.
        provider_id: String,
        /// What is known of it.
        orphan: Orphan,
    },
    /// A second complete listing has shown an orphan: it goes.
    OrphanCondemned {
        /// The provider.
        provider: Name,
        /// The provider's id of it.
        provider_id: String,
        /// When that listing was made.
        as_of: WallTime,
    },
    /// An orphan is no more.
    OrphanGone {
        /// The provider.
        provider: Name,
        /// The provider's id of it.
        provider_id: String,
    },
}

impl FleetEvent {
    /// What the event is called, what it is about, and why it happened.
    pub fn describe(&self) -> (&'static str, String, String) {
        match self {
            Self::ProviderSeen { provider, offerings, .. } => {
                ("provider-seen", provider.to_string(), format!("{} offerings", offerings.len()))
            }
            Self::BuyingStopped { provider, refused: Some(refused) } => {
                ("buying-stopped", provider.to_string(), refused.because.clone())
            }
            Self::BuyingStopped { provider, refused: None } => {
                ("buying-resumed", provider.to_string(), "servers may be bought again".into())
            }
            Self::Claimed { server } => ("server-claimed", server.id.to_string(), server.reason.clone()),
            Self::Intended { operation } => {
                let kind = match operation.kind.as_str() {
                    "provision" => "provision-intended",
                    _ => "terminate-intended",
                };
                (kind, format!("operation {}", operation.id), operation.because.clone())
            }
            Self::Delayed { operation, because, .. } => {
                ("call-delayed", format!("operation {operation}"), because.clone())
            }
            Self::Accepted { server, provider_id } => {
                ("server-accepted", server.to_string(), format!("the provider makes it as {provider_id}"))
            }
            Self::Refused { server, failure } => ("server-refused", server.to_string(), failure.message.clone()),
            Self::Joined { server, incarnation, .. } => {
                ("server-joined", server.to_string(), format!("boot {incarnation}"))
            }
            Self::Stepped { server, step, because } => (step.as_str(), server.to_string(), because.clone()),
            Self::Rearranging { server, rearrangement: Some(rearrangement) } => {
                ("server-emptying", server.to_string(), rearrangement.because.clone())
            }
            Self::Rearranging { server, rearrangement: None } => {
                ("server-kept", server.to_string(), "it is not emptied any more".into())
            }
            Self::Cleared { server } => ("server-cleared", server.to_string(), "the provider would let it go".into()),
            Self::ReplaceDropped { container, because } => ("replace-dropped", container.to_string(), because.clone()),
            Self::Released { server } => ("server-released", server.to_string(), "the provider ends it".into()),
            Self::Kept { server, failure, .. } => ("server-kept", server.to_string(), failure.message.clone()),
            Self::Identified { server, provider_id } => {
                ("server-identified", server.to_string(), format!("the provider calls it {provider_id}"))
            }
            Self::SessionRecorded { server, record } => {
                let session = record.session.map_or_else(|| "none yet".to_owned(), |session| session.to_string());
                ("session-recorded", server.to_string(), format!("session {session}"))
            }
            Self::Quiet { server, because } => ("server-quiet", server.to_string(), because.clone()),
            Self::Described { server, address, .. } => {
                ("server-described", server.to_string(), format!("its containers are reached at {address}"))
            }
            Self::Heard { server } => ("server-heard", server.to_string(), "it is heard again".into()),
            Self::TokenMade { server, actor, .. } => {
                ("token-made", server.to_string(), format!("asked for by {actor}"))
            }
            Self::Admitted { server, number, .. } => {
                ("agent-admitted", server.to_string(), format!("with token {number}, which is used up"))
            }
            Self::Alerted { server, because } => ("server-alert", server.to_string(), because.clone()),
            Self::Fenced { container, because } => ("fenced", container.to_string(), because.clone()),
            Self::Listed { server, present: true } => {
                ("server-found", server.to_string(), "a listing names it again".into())
            }
            Self::Listed { server, present: false } => {
                ("server-missed", server.to_string(), "a complete listing does not name it".into())
            }
            Self::Gone { server, because } => ("server-gone", server.to_string(), because.clone()),
            Self::Forgotten { server } => ("server-forgotten", server.to_string(), "nothing is left of it".into()),
            Self::OrphanSeen { provider_id, orphan, .. } => {
                let reason = format!("made by operation {}, which claims it no longer", orphan.operation);
                ("orphan-seen", provider_id.clone(), reason)
            }
            Self::OrphanCondemned { provider_id, .. } => {
                ("orphan-condemned", provider_id.clone(), "two complete listings show it".into())
            }
            Self::OrphanGone { provider_id, .. } => ("orphan-gone", provider_id.clone(), "it is given back".into()),
        }
    }
}
