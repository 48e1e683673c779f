//! Servers, operations, and the decisions about servers, as users see them.

use super::State;
use crate::fleet::ServerOperation;
use crate::id::ServerId;
use crate::operation::Operation;
use crate::server::Server;
use crate::time::{ManagerTime, WallTime};
use crate::view::{OperationView, RearrangementView, ResourcesView, ServerView, WhyView};

impl State {
    /// All servers.
    pub fn server_views(&self) -> Vec<ServerView> {
        self.servers.values().map(|server| self.view_of_server(server)).collect()
    }

    /// One server, if it exists.
    pub fn server_view(&self, id: &ServerId) -> Option<ServerView> {
        self.servers.get(id).map(|server| self.view_of_server(server))
    }

    fn view_of_server(&self, server: &Server) -> ServerView {
        let rearrangement = server.tenure.rearrangement.as_ref().map(|it| RearrangementView {
            because: it.because.clone(),
            deadline: it.deadline.map(|deadline| self.as_wall(deadline).to_string()),
            late: it.late,
            give_back: it.give_back.is_some(),
        });
        ServerView {
            id: server.id.to_string(),
            provider: server.provider.to_string(),
            provider_id: server.provider_id.clone(),
            state: server.state.as_str().into(),
            reason: server.reason.clone(),
            since: server.since.to_string(),
            zone: server.zone.clone(),
            offering: server.offering.clone(),
            capacity: resources(&server.capacity),
            allocated: resources(&server.allocated),
            containers: server.containers,
            incarnation: server.incarnation.clone(),
            rearrangement,
        }
    }

    /// Operations on containers and servers: those that ended last, then the open ones, each in the order of their ids.
    pub fn operation_views(&self) -> Vec<OperationView> {
        let ended = self.ended.iter().map(|operation| self.operation_view(operation));
        let ended_of_servers = self.ended_server_operations.iter().map(|it| self.server_operation_view(it));
        let mut views: Vec<OperationView> = ended.chain(ended_of_servers).collect();
        views.sort_by_key(|view| view.id);
        let open = self.operations.values().map(|operation| self.operation_view(operation));
        let open_of_servers = self.server_operations.values().map(|it| self.server_operation_view(it));
        let mut open: Vec<OperationView> = open.chain(open_of_servers).collect();
        open.sort_by_key(|view| view.id);
        views.append(&mut open);
        views
    }

    fn operation_view(&self, operation: &Operation) -> OperationView {
        let deadline = operation.deadline.map(|deadline| {
            let left = i64::try_from((deadline - operation.intended).as_micros()).unwrap_or(i64::MAX);
            WallTime(operation.since.0.saturating_add(left)).to_string()
        });
        let handle = self.containers.get(&operation.container).and_then(|container| container.handle.as_ref());
        OperationView {
            id: operation.id.0,
            kind: operation.kind.as_str().into(),
            claims: vec![operation.container.to_string()],
            attempt: u32::try_from(operation.generation.0).unwrap_or(u32::MAX),
            provider_ids: handle
                .and_then(|handle| handle.pid.map(|pid| pid.to_string()).or_else(|| handle.docker_id.clone()))
                .into_iter()
                .collect(),
            state: operation.state.as_str().into(),
            error: operation.error.clone(),
            since: operation.since.to_string(),
            deadline: deadline.unwrap_or_default(),
        }
    }

    fn server_operation_view(&self, operation: &ServerOperation) -> OperationView {
        let servers = operation.servers.iter().filter_map(|id| self.servers.get(id));
        OperationView {
            id: operation.id.0,
            kind: operation.kind.as_str().into(),
            claims: operation.servers.iter().map(ToString::to_string).collect(),
            attempt: operation.tries.saturating_add(1),
            provider_ids: servers.map(|it| it.provider_id.clone()).filter(|id| !id.is_empty()).collect(),
            state: operation.state.as_str().into(),
            error: operation.error.clone(),
            since: operation.since.to_string(),
            // The same call is sent until its outcome is known.
            deadline: String::new(),
        }
    }

    /// The decisions about a server and its provider, where it stands, and what keeps its containers there.
    pub(super) fn why_of_server(&self, server: &Server) -> Vec<WhyView> {
        let mut views = server.tenure.why.views(server.id.as_str());
        if let Some(provider) = self.providers.get(&server.provider) {
            views.extend(provider.why.views(server.provider.as_str()));
        }
        let now = |at: WallTime, decision: &str, object: String, because: String| WhyView {
            at: at.to_string(),
            decision: decision.into(),
            object,
            because,
            considered: Vec::new(),
        };
        let standing = format!("{}: {}", server.state, server.reason);
        views.push(now(server.since, "state", server.id.to_string(), standing));
        if server.tenure.rearrangement.is_some() {
            let here = self.on(&server.id).filter(|it| it.state.is_live());
            views.extend(here.map(|record| {
                let held = self.units.get(&record.unit).map(|unit| unit.held.as_str()).unwrap_or_default();
                let mut because = "it stays until its replacement is ready".to_owned();
                if !held.is_empty() {
                    because = format!("{because}: {held}");
                }
                now(self.at, "wait", record.id.to_string(), because)
            }));
        }
        views
    }

    /// The wall clock at a time of the Manager, as far as that can be known.
    fn as_wall(&self, time: ManagerTime) -> WallTime {
        let micros = |span: std::time::Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        WallTime(if time >= self.now {
            self.at.0.saturating_add(micros(time - self.now))
        } else {
            self.at.0.saturating_sub(micros(self.now - time))
        })
    }
}

fn resources(resources: &crate::spec::Resources) -> ResourcesView {
    ResourcesView { cpu_millis: resources.cpu.0, memory_bytes: resources.memory.0 }
}
