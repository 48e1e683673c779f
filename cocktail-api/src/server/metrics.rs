//! What a Manager says to Prometheus: `GET /metrics`.
//!
//! Start at [`metrics`], which asks a Manager and writes the text; [`text_of`] is the pure part. Every scrape asks anew
//! and keeps nothing, so that what has gone is gone in the next one. `docs/reference/metrics.md` names the metrics; a
//! test holds it against what is written here. [`listen`] answers over TCP, where nothing else is answered.

mod listen;

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use cocktail_core::contract::Manager;
use cocktail_core::error::{Error, Result};
use cocktail_core::scaling::Sample;
use cocktail_core::view::{ContainerView, ManagerView, OperationView, UnitView, UsageReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub use listen::MetricsListener;

use super::failure::Failure;
use super::shared::Shared;

/// The type of the text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// States that a rollout can be in.
const ROLLOUT_STATES: [&str; 6] = ["running", "paused", "completed", "superseded", "rolling-back", "rolled-back"];

/// States that a Manager can be in.
const MANAGER_STATES: [&str; 3] = ["running", "degraded", "frozen"];

/// The metrics of a Manager as text (OpenMetrics 1.0, which Prometheus reads).
///
/// # Errors
/// Those of the Manager.
pub async fn metrics(manager: &dyn Manager) -> Result<String> {
    text_of(Scrape {
        about: manager.about().await?,
        units: manager.units().await?,
        containers: manager.containers().await?,
        operations: manager.operations().await?,
        usage: manager.usage().await?,
    })
}

/// `GET /metrics`.
pub(super) async fn route(State(shared): State<Shared>) -> Result<Response, Failure> {
    let text = metrics(&**shared.manager()).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// What one scrape tells.
#[derive(Debug)]
struct Scrape {
    about: ManagerView,
    units: Vec<UnitView>,
    containers: Vec<ContainerView>,
    operations: Vec<OperationView>,
    usage: UsageReport,
}

fn text_of(scrape: Scrape) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Error::unexpected("the metrics cannot be written").because(error))?;
    Ok(text)
}

/// Names and values of labels.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes one metric with all that it is measured of.
struct Writer<'e>(DescriptorEncoder<'e>);

impl Writer<'_> {
    fn gauge<'a, N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, N)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// The name is written with `_total` behind it.
    fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.manager(&mut writer)?;
        self.units(&mut writer)?;
        self.traffic(&mut writer)?;
        self.containers(&mut writer)
    }
}

impl Scrape {
    fn manager(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let about = &self.about;
        let labels: Labels<'_> = vec![("version", about.version.as_str()), ("store", &about.store)];
        let info = writer.0.encode_descriptor("cocktail_manager", "The Manager.", None, MetricType::Info)?;
        prometheus_client::metrics::info::Info::new(labels).encode(info)?;
        let state = MANAGER_STATES.map(|state| (vec![("state", state)], u32::from(state == about.state)));
        writer.gauge("cocktail_manager_state", "1 for the state that the Manager is in.", state)?;
        let seen = [(Vec::new(), about.anomalies)];
        writer.counter(
            "cocktail_anomalies",
            "Things that should be impossible and were seen since its start.",
            seen,
        )?;
        let mut open: BTreeMap<&str, u32> = ["start", "stop", "remove"].map(|kind| (kind, 0)).into();
        for operation in self.operations.iter().filter(|operation| is_open(operation)) {
            *open.entry(&operation.kind).or_default() += 1;
        }
        let open = open.into_iter().map(|(kind, count)| (vec![("kind", kind)], count));
        writer.gauge("cocktail_operations_open", "Calls whose outcome is not known yet.", open)
    }

    fn units(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let each = |value: fn(&UnitView) -> u64| self.units.iter().map(move |unit| (of_unit(unit), value(unit)));
        writer.gauge("cocktail_unit_desired", "Containers wanted.", each(|unit| unit.desired.into()))?;
        writer.gauge("cocktail_unit_ready", "Containers that take traffic.", each(|unit| unit.ready.into()))?;
        writer.gauge(
            "cocktail_unit_updated",
            "Containers of the current revision.",
            each(|unit| unit.updated.into()),
        )?;
        writer.gauge("cocktail_unit_revision", "Current revision.", each(|unit| unit.revision))?;
        writer.gauge("cocktail_unit_stopped", "1 while stopped by command.", each(|unit| unit.stopped.into()))?;
        writer.gauge("cocktail_unit_min", "Fewest containers now.", each(|unit| unit.limits.0.into()))?;
        writer.gauge("cocktail_unit_max", "Most containers now.", each(|unit| unit.limits.1.into()))?;
        let jobs = self.units.iter().filter(|unit| unit.job).flat_map(|unit| {
            [("succeeded", unit.succeeded), ("failed", unit.failed)].map(|(outcome, count)| {
                let mut labels = of_unit(unit);
                labels.push(("outcome", outcome));
                (labels, count)
            })
        });
        writer.gauge("cocktail_job_containers", "Containers of a job that have run.", jobs)?;
        let rollouts = self.units.iter().flat_map(|unit| {
            ROLLOUT_STATES.map(|state| {
                let mut labels = of_unit(unit);
                labels.push(("state", state));
                (labels, u32::from(unit.rollout.state == state))
            })
        });
        writer.gauge("cocktail_rollout_state", "1 for the state that the last rollout is in.", rollouts)
    }

    /// What passes service ports. Units without one have none of these.
    fn traffic(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let units = || {
            self.units.iter().filter_map(|unit| {
                let name = format!("{}/{}/{}", unit.service, unit.map, unit.unit);
                let usage = self.usage.units.get(&name)?;
                Some((unit, usage, usage.sample.traffic?))
            })
        };
        let counted = || units().map(|(unit, usage, _)| (of_unit(unit), usage));
        writer.counter(
            "cocktail_unit_requests",
            "Requests that were answered at the service port.",
            counted().map(|(labels, usage)| (labels, usage.requests_total)),
        )?;
        writer.counter(
            "cocktail_unit_connections",
            "Connections to the service port.",
            counted().map(|(labels, usage)| (labels, usage.connections_total)),
        )?;
        writer.counter(
            "cocktail_unit_refused",
            "Connections to the service port that found no container in time.",
            counted().map(|(labels, usage)| (labels, usage.refused_total)),
        )?;
        writer.gauge(
            "cocktail_unit_waiting",
            "Clients that wait for a ready container.",
            counted().map(|(labels, usage)| (labels, usage.waiting)),
        )?;
        writer.gauge(
            "cocktail_unit_in_flight",
            "Requests without an answer.",
            units().map(|(unit, _, traffic)| (of_unit(unit), traffic.in_flight)),
        )?;
        writer.gauge(
            "cocktail_unit_open_connections",
            "Open connections to the service port.",
            units().map(|(unit, _, traffic)| (of_unit(unit), traffic.connections)),
        )?;
        let latencies = units().flat_map(|(unit, _, traffic)| {
            [("0.5", traffic.p50_ms), ("0.99", traffic.p99_ms)].map(|(quantile, ms)| {
                let mut labels = of_unit(unit);
                labels.push(("quantile", quantile));
                (labels, ms / 1_000.0)
            })
        });
        let help = "Time to the first byte of an answer, over the last interval.";
        writer.gauge("cocktail_unit_latency_seconds", help, latencies)
    }

    fn containers(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut states: BTreeMap<(&str, &str, &str, &str), u32> = BTreeMap::new();
        for container in &self.containers {
            *states.entry((&container.service, &container.map, &container.unit, &container.state)).or_default() += 1;
        }
        let states = states.into_iter().map(|((service, map, unit, state), count)| {
            (vec![("service", service), ("map", map), ("unit", unit), ("state", state)], count)
        });
        writer.gauge("cocktail_containers", "Containers by state.", states)?;
        let cores = |millis: u64| millis as f64 / 1_000.0;
        writer.gauge(
            "cocktail_container_cpu_cores",
            "Cores in use.",
            self.containers.iter().map(|view| (of_container(view), cores(view.usage.cpu_millis))),
        )?;
        writer.gauge(
            "cocktail_container_memory_bytes",
            "Resident memory.",
            self.containers.iter().map(|view| (of_container(view), view.usage.memory_bytes)),
        )?;
        writer.counter(
            "cocktail_container_restarts",
            "Restarts in place.",
            self.containers.iter().map(|view| (of_container(view), view.restarts)),
        )?;
        let sampled = || self.containers.iter().filter_map(|view| Some((view, self.usage.containers.get(&view.id)?)));
        let in_flight = sampled().filter_map(|(view, sample)| Some((of_container(view), sample.traffic?.in_flight)));
        writer.gauge("cocktail_container_in_flight", "Requests without an answer.", in_flight)?;
        let own = sampled().flat_map(|(view, Sample { custom, .. })| {
            custom.iter().map(move |(name, value)| {
                let mut labels = of_container(view);
                labels.push(("name", name));
                (labels, *value)
            })
        });
        writer.gauge("cocktail_container_custom", "Metrics that containers report of themselves.", own)
    }
}

fn of_unit(unit: &UnitView) -> Labels<'_> {
    vec![("service", unit.service.as_str()), ("map", &unit.map), ("unit", &unit.unit)]
}

fn of_container(view: &ContainerView) -> Labels<'_> {
    vec![("service", view.service.as_str()), ("map", &view.map), ("unit", &view.unit), ("container", &view.id)]
}

fn is_open(operation: &OperationView) -> bool {
    matches!(operation.state.as_str(), "intended" | "issued" | "outcome-unknown")
}
