//! Traces of a Manager of this process, for OpenTelemetry: sent by OTLP over HTTP where the environment says so.
//!
//! The library makes the spans and knows nobody who takes them; this is the one place that does. It is the feature
//! `otel`, since the crates that it needs are many. Without it, whoever asks for traces is told how to get them.
//!
//! The variables are those of OpenTelemetry: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`
//! and so on. `COCKTAIL_TRACES` chooses spans, as `COCKTAIL_LOG` chooses what is logged.

/// Where traces go; one of them is enough.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether the environment asks for traces.
fn wanted() -> bool {
    is_wanted(|name| std::env::var(name).ok())
}

fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    ENDPOINTS.iter().any(is_set) && !disabled
}

/// What to tell a user who asks this program for traces that it cannot send.
pub(crate) fn missing() -> Option<&'static str> {
    let text = "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this program was built without traces; build it with \
                `cargo build --release -p cocktail-cli --features otel`";
    (!cfg!(feature = "otel") && wanted()).then_some(text)
}

#[cfg(feature = "otel")]
pub(crate) use export::{end, layer};

#[cfg(feature = "otel")]
mod export {
    use std::sync::OnceLock;

    use opentelemetry::KeyValue;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::registry::LookupSpan;

    use crate::failure::{Failure, Outcome};
    use crate::log;

    /// What sends; kept for its end.
    static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

    /// Spans that are sent unless `COCKTAIL_TRACES` says otherwise: those of the library, one for each operation.
    const DEFAULT: &str =
        "cocktail=info,cocktail_manager=info,cocktail_provider_docker=info,cocktail_provider_standalone=info";

    /// Sends spans, if the environment asks for it.
    ///
    /// # Errors
    /// The endpoint is none; `COCKTAIL_TRACES` is no filter. A collector that is not there is no error: its spans are
    /// lost, and the log says so.
    pub(crate) fn layer<S>() -> Outcome<Option<impl Layer<S>>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        if !super::wanted() {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| Failure::Usage(format!("cannot send traces: {error}")))?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("cocktail");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        let tracer = provider.tracer("cocktail");
        // One that was there already would go on: this is called once.
        let _ = PROVIDER.set(provider);
        let filter = log::filter("COCKTAIL_TRACES", DEFAULT)?;
        Ok(Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter)))
    }

    /// Sends what is left. To be called once, when nothing else runs: it waits for the collector, a few seconds at most.
    pub(crate) fn end() {
        if let Some(provider) = PROVIDER.get() {
            // What could not be sent is lost, and there is nobody left to tell.
            let _ = provider.shutdown();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_wanted_where_an_endpoint_is_set_and_they_are_not_disabled() {
        let with = |set: &[(&str, &str)]| {
            is_wanted(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")]));
        assert!(with(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")]));
        assert!(!with(&[]));
        assert!(!with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
        assert!(!with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"), ("OTEL_SDK_DISABLED", "TRUE")]));
    }
}
