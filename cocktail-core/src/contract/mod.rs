//! The contracts: what stores, providers and runtimes implement, and what a Manager offers.
//!
//! All are object safe, boxed by `async_trait`, and use the one [`crate::error::Error`]. What a back end can do is
//! declared as data; what it cannot do answers [`crate::error::ErrorKind::Unsupported`].

mod agents;
mod exit;
mod forwarder;
mod launch;
mod login;
mod manager;
mod policy;
mod provider;
mod runtime;
mod store;

pub use agents::{Admission, Aside, AsideOutput, Gate, Link, LinkSender};
pub use exit::Exit;
pub use forwarder::{Backend, BackendTraffic, Forwarder, Route, RouteOutcome, RouteTraffic, RoutingTable};
pub use launch::{
    Launch, LaunchAssignment, LaunchImage, LaunchPort, LaunchProbe, LaunchVolume, LaunchWorker, ProbeKind,
};
pub use login::{Login, LoginProof};
pub use manager::{
    Actor, Applied, ApplyOptions, BuildStream, EndpointStream, EventFilter, ExecInput, ExecOutput, ExecSession,
    ExecSpec, JoinTicket, LogLine, LogOptions, LogStream, Manager, ManifestSource, RearrangeOptions, RolloutAction,
    ShutdownMode,
};
pub use policy::{Candidate, InOrder, PlacementPolicy};
pub use provider::{
    Checkpoint, ClaimOutcome, Connection, Interruption, Offering, OfferingKind, Provider, ProviderCapabilities,
    ProvisionCtx, Requirements, ServerClaim, ServerListing, ServerObservation, ServerSpec, TerminateReason,
};
pub use runtime::{
    BuildOutput, Built, EndpointSource, Handle, Hold, Known, Listing, Observation, Resolved, Runtime,
    RuntimeCapabilities, RuntimeEvent, Sighting, StopOrder, UnloadOrder, UsageReading, VolumeFound, WorkerSaid,
};
pub use store::{Lease, LedgerRow, Loaded, REMEMBERED_LEASES, Store, TurnRow};
