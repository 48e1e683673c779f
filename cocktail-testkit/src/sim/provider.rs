//! The simulated provider: an account with stock, a quota, a limit of calls, and listings that lag.
//!
//! A token is honoured: the same call makes the same servers. What it says about stock and quota is what a cloud says,
//! including failures after which the server comes nevertheless.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cocktail_core::contract::{ClaimOutcome, Offering, OfferingKind, ServerListing, ServerObservation, ServerSpec};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::fleet::Owner;
use cocktail_core::id::{OperationId, ServerId, StoreId};
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::Resources;

use super::chance::Chance;
use super::rates::Rates;
use super::wall;

/// Objects on one page of a listing.
const PAGE: usize = 10;
/// Zones in which everything is offered.
const ZONES: [&str; 3] = ["a", "b", "c"];

/// Something in the account.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) server: ServerId,
    pub(super) owner: Option<Owner>,
    pub(super) offering: usize,
    /// It came after a failure was reported.
    pub(super) late: bool,
    visible: u64,
    /// Notice was given that it ends then.
    notice: Option<u64>,
    /// It is being ended since.
    pub(super) ending: Option<u64>,
    /// It is no more since.
    pub(super) ended: Option<u64>,
}

impl Object {
    /// Whether it runs: it exists and is not being ended.
    pub(super) fn runs(&self) -> bool {
        self.ending.is_none() && self.ended.is_none()
    }
}

/// One call as the executor sends it.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Provision { spec: ServerSpec, servers: Vec<ServerId> },
    Clear,
    Terminate { servers: Vec<ServerId> },
}

/// What follows from a call beside its answer.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// New objects by their id.
    pub(super) made: Vec<String>,
    /// Servers that come later although a failure was reported: when, and what.
    pub(super) late: Vec<(u64, ServerId, usize)>,
    /// Objects that end, and when they are gone.
    pub(super) ending: Vec<(String, u64)>,
}

/// An answer to the executor.
pub(super) enum Answer {
    Provisioned(Result<Vec<ClaimOutcome>>),
    Cleared(Result<()>),
    Terminated(Result<()>),
}

/// The account.
#[derive(Debug)]
pub(super) struct Provider {
    store: StoreId,
    pub(super) offerings: Vec<Offering>,
    pub(super) in_stock: Vec<bool>,
    pub(super) quota: usize,
    pub(super) objects: BTreeMap<String, Object>,
    tokens: BTreeMap<String, Vec<ClaimOutcome>>,
    /// Calls that are left, in thousandths, and since when that is so.
    bucket: (u64, u64),
    numbers: u64,
}

impl Provider {
    pub(super) fn new(store: StoreId, quota: usize) -> Self {
        let mut offerings = Vec::new();
        for (name, cores, price) in [("small", 2, 0.05), ("medium", 4, 0.11), ("large", 8, 0.24)] {
            for (zone, dearer) in ZONES.iter().zip([1.0, 1.01, 1.02]) {
                offerings.push(Offering {
                    name: name.into(),
                    zone: Some((*zone).into()),
                    kind: OfferingKind::OnDemand,
                    price: Some(price * dearer),
                    allocatable: Resources { cpu: CpuMillis(cores * 1000), memory: Bytes(cores << 31) },
                    available: true,
                });
            }
        }
        let in_stock = vec![true; offerings.len()];
        let (objects, tokens) = (BTreeMap::new(), BTreeMap::new());
        Self { store, offerings, in_stock, quota, objects, tokens, bucket: (5_000, 0), numbers: 0 }
    }

    /// Whether the limit of calls allows one more; if not, how long to wait.
    pub(super) fn take_call(&mut self, now: u64, rates: &Rates) -> Option<Duration> {
        if rates.per_minute == 0 {
            return None;
        }
        let (left, since) = self.bucket;
        let left = (left + (now - since) * rates.per_minute / 60).min(5_000);
        if left < 1_000 {
            self.bucket = (left, now);
            return Some(Duration::from_millis((1_000 - left) * 60 / rates.per_minute + 1_000));
        }
        self.bucket = (left - 1_000, now);
        None
    }

    /// Carries out a call that has arrived.
    pub(super) fn act(
        &mut self,
        now: u64,
        (operation, token, call): (OperationId, &str, &Call),
        rates: &Rates,
        chance: &mut Chance,
    ) -> (Answer, Effects) {
        let mut effects = Effects::default();
        match call {
            Call::Provision { spec, servers } => {
                let answer = self.provision(now, (operation, token), (spec, servers), rates, chance, &mut effects);
                (Answer::Provisioned(answer), effects)
            }
            // What it says now it may not say any more when it is asked to do it.
            Call::Clear => {
                let refused = chance.happens(rates.delete_refused);
                let answer = if refused { Err(Error::refused("protected against deletion")) } else { Ok(()) };
                (Answer::Cleared(answer), effects)
            }
            Call::Terminate { servers } => {
                let answer = self.terminate(now, servers, rates, chance, &mut effects);
                (Answer::Terminated(answer), effects)
            }
        }
    }

    fn provision(
        &mut self,
        now: u64,
        (operation, token): (OperationId, &str),
        (spec, servers): (&ServerSpec, &[ServerId]),
        rates: &Rates,
        chance: &mut Chance,
        effects: &mut Effects,
    ) -> Result<Vec<ClaimOutcome>> {
        if let Some(known) = self.tokens.get(token) {
            return Ok(known.clone());
        }
        let same = |it: &Offering| it.name == spec.offering && it.zone == spec.zone;
        let Some(offering) = self.offerings.iter().position(same) else {
            return Err(Error::invalid(format!("there is no {}", spec.offering)));
        };
        let mut outcomes = Vec::new();
        for server in servers {
            let existing = self.objects.values().filter(|it| it.ended.is_none()).count();
            if existing >= self.quota {
                let kind = ErrorKind::Quota { scope: "servers".into() };
                outcomes
                    .push(ClaimOutcome { server: server.clone(), result: Err(Error::new(kind, "the quota is used")) });
                continue;
            }
            // What came although a failure was reported is found by its token, by whoever repeats the call.
            let came = |it: &Object| {
                let made_it = it.owner.as_ref().is_some_and(|owner| owner.operation == operation);
                it.late && it.server == *server && it.ended.is_none() && made_it
            };
            if let Some((id, _)) = self.objects.iter().find(|(_, it)| came(it)) {
                outcomes.push(ClaimOutcome { server: server.clone(), result: Ok(id.clone()) });
                continue;
            }
            if !self.in_stock.get(offering).copied().unwrap_or_default() || chance.happens(rates.late_success) {
                if chance.happens(rates.late_success) {
                    effects.late.push((now + chance.between(1_000, 60_000), server.clone(), offering));
                }
                let retry_after = chance.happens(300).then(|| Duration::from_secs(chance.between(10, 120)));
                let kind = ErrorKind::InsufficientCapacity { offering: spec.offering.clone(), retry_after };
                outcomes.push(ClaimOutcome { server: server.clone(), result: Err(Error::new(kind, "out of stock")) });
                continue;
            }
            let owner = Owner { store: self.store.clone(), operation };
            let id = self.make(now, server.clone(), Some(owner), offering, false, rates, chance);
            effects.made.push(id.clone());
            outcomes.push(ClaimOutcome { server: server.clone(), result: Ok(id) });
        }
        // A call that made something has one answer for good; one that made nothing may fare better another time.
        if !effects.made.is_empty() {
            self.tokens.insert(token.to_owned(), outcomes.clone());
        }
        Ok(outcomes)
    }

    /// A new object; returns its id.
    #[expect(clippy::too_many_arguments, reason = "what an object is made of, and what chance decides about it")]
    pub(super) fn make(
        &mut self,
        now: u64,
        server: ServerId,
        owner: Option<Owner>,
        offering: usize,
        late: bool,
        rates: &Rates,
        chance: &mut Chance,
    ) -> String {
        self.numbers += 1;
        let id = format!("i-{:05}", self.numbers);
        let visible = now + chance.below(rates.lag + 1);
        self.objects.insert(
            id.clone(),
            Object { server, owner, offering, late, visible, notice: None, ending: None, ended: None },
        );
        id
    }

    fn terminate(
        &mut self,
        now: u64,
        servers: &[ServerId],
        rates: &Rates,
        chance: &mut Chance,
        effects: &mut Effects,
    ) -> Result<()> {
        if chance.happens(rates.delete_refused) {
            return Err(Error::refused("protected against deletion"));
        }
        let wanted: BTreeSet<&ServerId> = servers.iter().collect();
        let ours = |owner: &Option<Owner>| owner.as_ref().is_some_and(|it| it.store == self.store);
        for (id, object) in &mut self.objects {
            if wanted.contains(&object.server) && ours(&object.owner) && object.runs() {
                object.ending = Some(now);
                let long = if chance.happens(rates.delete_stuck) { 600_000 } else { 20_000 };
                effects.ending.push((id.clone(), now + chance.between(2_000, long)));
            }
        }
        Ok(())
    }

    /// A listing as it was at `as_of`; with `pages`, only so many of them.
    pub(super) fn list(&self, as_of: u64, pages: Option<usize>) -> ServerListing {
        let named = |object: &&Object| object.visible <= as_of && object.ended.is_none_or(|at| at > as_of);
        let all = self.objects.iter().filter(|(_, object)| named(object));
        let limit = pages.map_or(usize::MAX, |pages| pages * PAGE);
        let total = all.clone().count();
        let servers = all.take(limit).map(|(id, object)| self.observation(id, object)).collect();
        ServerListing { servers, complete: total <= limit, as_of: wall(as_of) }
    }

    fn observation(&self, id: &str, object: &Object) -> ServerObservation {
        let offering = self.offerings.get(object.offering);
        ServerObservation {
            server: object.server.clone(),
            provider_id: id.to_owned(),
            incarnation: String::new(),
            capacity: offering.map(|it| it.allocatable).unwrap_or_default(),
            zone: offering.and_then(|it| it.zone.clone()),
            offering: offering.map(|it| it.name.clone()).unwrap_or_default(),
            address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            owner: object.owner.clone(),
            labels: BTreeMap::new(),
        }
    }

    /// Gives notice that a server ends; returns its id, unless it ends already.
    pub(super) fn give_notice(&mut self, server: &ServerId, ends: u64) -> Option<String> {
        let id = self.ours().find(|(_, it)| it.server == *server && it.runs() && it.notice.is_none())?.0.clone();
        self.objects.get_mut(&id)?.notice = Some(ends);
        Some(id)
    }

    /// Servers that were given notice of, and when they end.
    pub(super) fn notices(&self) -> impl Iterator<Item = (&ServerId, u64)> {
        self.ours().filter(|(_, it)| it.runs()).filter_map(|(_, it)| Some((&it.server, it.notice?)))
    }

    /// Forgets what ended so long ago that no listing names it.
    pub(super) fn forget(&mut self, before: u64) {
        self.objects.retain(|_, object| object.ended.is_none_or(|at| at >= before));
    }

    /// Objects of this store that exist, without those that came late.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&String, &Object)> {
        let ours = |it: &Object| it.owner.as_ref().is_some_and(|owner| owner.store == self.store);
        self.objects.iter().filter(move |(_, it)| it.ended.is_none() && ours(it))
    }

    /// Whether a server runs there.
    pub(super) fn runs(&self, server: &ServerId) -> bool {
        self.ours().any(|(_, it)| it.server == *server && it.runs())
    }
}
