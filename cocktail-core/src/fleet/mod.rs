//! Servers that come and go: what is known of each provider, and operations on servers.
//!
//! Start at [`ProviderRecord`]: what can be bought there, what is out of stock, and whether anything may be bought at
//! all. A [`ServerOperation`] is one call to a provider: durable before it is sent, and found again by its token.
//! Values only; [`crate::state::State`] changes them by events and the planner decides from them.

mod event;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::{Offering, OfferingKind, ServerSpec, TerminateReason};
use crate::error::ErrorKind;
use crate::id::{OperationId, ServerId, StoreId};
use crate::name::Name;
use crate::operation::OperationState;
use crate::session::Record;
use crate::time::{ManagerTime, WallTime};
use crate::why::WhyLog;

pub use self::event::FleetEvent;

/// Limits and times of one provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetLimits {
    /// Most servers at a time; those that are on their way, that are leaving and whose fate is unknown count.
    pub max_servers: u32,
    /// Servers that stay although nothing runs on them.
    pub min_servers: u32,
    /// How long a server stays empty before it is given back.
    pub idle: Duration,
    /// How long a server may take from its acceptance until it joins.
    pub registration: Duration,
    /// How long a listing may lag behind what was asked for.
    pub visibility: Duration,
    /// How long an offering is left alone after it was out of stock, unless the provider names a time.
    pub stock_out: Duration,
    /// Servers that do not join within `rest` before no more are bought.
    pub failures: u32,
    /// How long nothing is bought then, and after a limit of the account was met.
    pub rest: Duration,
    /// Whether servers are given back although something runs on them that has room elsewhere; never when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rearrange: Option<RearrangeLimits>,
}

/// When a server is worth being emptied for the sake of money, and how many are at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RearrangeLimits {
    /// Least gain: the part of the provider's money that a server takes, over the part of its containers that would have
    /// to move. A server that costs as much as others and runs half as many containers has a gain of 2.
    pub gain: f64,
    /// Servers that are emptied at a time.
    pub budget: u32,
    /// How often servers are compared.
    pub every: Duration,
}

impl Default for FleetLimits {
    fn default() -> Self {
        Self {
            max_servers: 20,
            min_servers: 0,
            idle: Duration::from_secs(300),
            registration: Duration::from_secs(600),
            visibility: Duration::from_secs(180),
            stock_out: Duration::from_secs(180),
            failures: 3,
            rest: Duration::from_secs(600),
            rearrange: None,
        }
    }
}

/// What is known of one provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderRecord {
    /// It can be asked for more servers.
    pub grows: bool,
    /// Limits and times.
    pub limits: FleetLimits,
    /// What can be bought.
    pub offerings: Vec<Offering>,
    /// Its servers run images, and nothing else; programs and nothing else where they do not.
    #[serde(default)]
    pub images: bool,
    /// Offerings that were out of stock, until when they are left alone.
    #[serde(default)]
    pub marked: BTreeMap<String, ManagerTime>,
    /// Why nothing is bought, if so.
    #[serde(default)]
    pub refused: Option<Refused>,
    /// When servers did not join, oldest first.
    #[serde(default)]
    pub failures: VecDeque<ManagerTime>,
    /// Servers with our tag that no claim of ours is about, by the provider's id.
    #[serde(default)]
    pub orphans: BTreeMap<String, Orphan>,
    /// Decisions about it.
    #[serde(default)]
    pub why: WhyLog,
}

/// Why nothing is bought from a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Until when; until somebody looks at it where there is no time.
    pub until: Option<ManagerTime>,
    /// Why.
    pub because: String,
}

/// A server with our tag that no claim of ours is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// The id that it was given.
    pub server: ServerId,
    /// The operation that made it.
    pub operation: OperationId,
    /// When it was first seen.
    pub since: ManagerTime,
    /// When the listing that first showed it was made.
    pub as_of: WallTime,
    /// A second complete listing has shown it.
    pub condemned: bool,
    /// When it was last asked to be given back: until listings can show that, it is not asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<ManagerTime>,
}

/// Who made a server, as its tags say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The store.
    pub store: StoreId,
    /// The operation.
    pub operation: OperationId,
}

/// What is known of a server beyond its place in life: how it came and why it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tenure {
    /// The open operation on it; there is never more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// When it was bought: asked for, and then when the provider was known to make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bought: Option<ManagerTime>,
    /// How it is paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<OfferingKind>,
    /// Price per hour, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
    /// When it must have joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<ManagerTime>,
    /// Since when nothing runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty: Option<ManagerTime>,
    /// Since when complete listings do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<ManagerTime>,
    /// It shall be emptied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rearrangement: Option<Rearrangement>,
    /// A user wants nothing new on it, also when a rearrangement is called off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// Until when it is not given back, since the provider would not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<ManagerTime>,
    /// An agent drives it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_agent: bool,
    /// What the session with its agent has to remember, where an agent drives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Box<Record>>,
    /// The token that was made last for its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenRecord>,
    /// It is lost, and a user does not wait for it: what ran there is replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// Since when nothing is heard of its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<ManagerTime>,
    /// Decisions about it.
    #[serde(default)]
    pub why: WhyLog,
}

/// A token with which an agent may join. The secret itself is derived, and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Counts the tokens of the server, from 1.
    pub number: u64,
    /// Until when it is good.
    pub until: ManagerTime,
    /// Who has used it.
    pub used_by: Option<String>,
}

/// How a server is emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rearrangement {
    /// Why.
    pub because: String,
    /// When it has to be empty.
    pub deadline: Option<ManagerTime>,
    /// What happens then with what is still there.
    pub late: Late,
    /// Why it is given back once it is empty, if it is.
    pub give_back: Option<TerminateReason>,
    /// The provider has said that it would let it go. It is asked before anything is drained.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cleared: bool,
}

/// What happens to a rearrangement that is not done in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// It is called off: what is still there stays.
    #[default]
    Cancel,
    /// What is still there is drained although its replacement is not ready.
    Force,
}

/// One attempt to fulfil claims by one call to a provider. Durable before the call is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerOperation {
    /// Its id, from the same count as those of containers.
    pub id: OperationId,
    /// The provider.
    pub provider: Name,
    /// What is done.
    pub kind: ServerOperationKind,
    /// The servers that it is about, in the order of the call.
    pub servers: Vec<ServerId>,
    /// Where it stands.
    pub state: OperationState,
    /// Why it failed, or is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it was decided.
    pub because: String,
    /// Since when.
    pub since: WallTime,
    /// When it was intended.
    pub intended: ManagerTime,
    /// How often the same call was sent without an answer that says what became of it.
    #[serde(default)]
    pub tries: u32,
    /// It is not sent before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<ManagerTime>,
}

/// What an operation on servers does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerOperationKind {
    /// Buys them.
    Provision {
        /// What each is made from.
        spec: ServerSpec,
    },
    /// Asks whether they would be let go, before anything on them is drained.
    Clear,
    /// Gives them back.
    Terminate {
        /// Why.
        reason: TerminateReason,
    },
}

impl ServerOperationKind {
    /// The name in JSON and tables.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Provision { .. } => "provision",
            Self::Clear => "clear",
            Self::Terminate { .. } => "terminate",
        }
    }
}

/// Why a server could not be had or given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFailure {
    /// The kind, which names the reaction.
    pub kind: ErrorKind,
    /// One line.
    pub message: String,
}

/// The name of an offering in the stock-out memory: type, zone and how it is paid for.
pub fn offering_key(name: &str, zone: Option<&str>, kind: OfferingKind) -> String {
    let kind = match kind {
        OfferingKind::OnDemand => "on-demand",
        OfferingKind::Spot => "spot",
        OfferingKind::Warm => "warm",
    };
    format!("{name}@{}/{kind}", zone.unwrap_or("any"))
}

impl ProviderRecord {
    /// Whether it may be asked for more at `now`; if not, why.
    pub fn may_buy(&self, now: ManagerTime) -> Result<(), String> {
        if !self.grows {
            return Err("it has the servers that it has".into());
        }
        match &self.refused {
            Some(refused) if refused.until.is_none_or(|until| until > now) => Err(refused.because.clone()),
            _ => Ok(()),
        }
    }

    /// Whether an offering is left alone at `now` because it was out of stock.
    pub fn is_marked(&self, key: &str, now: ManagerTime) -> bool {
        self.marked.get(key).is_some_and(|until| *until > now)
    }
}

impl ServerOperation {
    /// The idempotency token: the same for each repetition of the same call, another for every other call.
    ///
    /// It is derived from the store, the operation and everything that the call says.
    pub fn token(&self, store: &StoreId) -> String {
        let what = match &self.kind {
            ServerOperationKind::Provision { spec } => {
                format!("provision {} {}", spec.offering, spec.zone.as_deref().unwrap_or_default())
            }
            ServerOperationKind::Clear => "clear".to_owned(),
            ServerOperationKind::Terminate { .. } => "terminate".to_owned(),
        };
        let servers: Vec<&str> = self.servers.iter().map(ServerId::as_str).collect();
        let text = format!("{} {} {what} {}", self.provider, self.id, servers.join(" "));
        let seed = crate::backoff::mix(0, store.as_str(), self.id.0);
        let (high, low) = (crate::backoff::mix(seed, &text, 1), crate::backoff::mix(seed, &text, 2));
        format!("{}-{high:016x}{low:016x}", self.id)
    }
}
