//! Decodes the settings of a Manager: `[manager]`, `[providers.<name>]`; `[registries.<name>]` is in `registry`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::registry;
use super::table::{Item, Table};
use super::unit::FUTURE_KINDS;
use super::volume::lexical;
use crate::name::Name;
use crate::ports::PortRange;
use crate::quantity::Bytes;
use crate::session::{Spans, Timing};
use crate::settings::{ProviderSettings, Settings};
use crate::unit::REVISIONS_KEPT;

/// Most providers of a Manager.
const MAX_PROVIDERS: usize = 64;

/// Most addresses at which agents find the Manager.
pub(super) const MAX_ADVERTISED: usize = 16;

/// Most folders below which binds may lie.
pub(super) const MAX_BINDS: usize = 64;

const LEAST: Duration = Duration::from_millis(100);

/// Takes the settings from the document. `None` if it has none.
pub(super) fn decode(root: &mut Table<'_>) -> Option<Settings> {
    let manager = root.take("manager");
    let providers = root.take("providers");
    let registries = root.take("registries");
    if manager.is_none() && providers.is_none() && registries.is_none() {
        return None;
    }
    let mut settings = Settings::default();
    if let Some(table) = manager.and_then(|item| item.table("write [manager] and the keys below it")) {
        decode_manager(table, &mut settings);
    }
    let help = "write [providers.local] and kind = \"standalone\" below it";
    if let Some(table) = providers.and_then(|item| item.table(help)) {
        let entries = table.named(MAX_PROVIDERS).into_iter();
        settings.providers = entries.filter_map(|(name, item)| Some((name, decode_provider(item)?))).collect();
    }
    settings.registries = registries.map(registry::decode).unwrap_or_default();
    Some(settings)
}

fn decode_manager(mut table: Table<'_>, settings: &mut Settings) {
    table.not_yet(&[
        ("startup_grace", "leave it out: after a start each server has the whole of `server_lost_after`"),
        ("registration_deadline", "write it below the provider: [providers.NAME]"),
    ]);
    settings.session = decode_session(&mut table);
    settings.listen = table.take("listen").and_then(|item| decode_listen(&item));
    settings.advertise = table.take("advertise").map(|item| decode_advertise(&item)).unwrap_or_default();
    set(&mut settings.port_range, table.take("port_range"), decode_range);
    let durations = [
        ("port_hold_down", &mut settings.port_hold_down),
        ("port_poison", &mut settings.port_poison),
        ("drain", &mut settings.drain),
        ("start_deadline", &mut settings.start_deadline),
        ("relist", &mut settings.relist),
        ("usage", &mut settings.usage),
        ("budget_window", &mut settings.budget_window),
        ("image_prune", &mut settings.image_prune),
    ];
    for (name, value) in durations {
        set(value, table.take(name), |item| item.duration(LEAST));
    }
    set(&mut settings.budget_deletions, table.take("budget_deletions"), |item| item.number(0..=1_000_000));
    set(&mut settings.journal_bytes, table.take("journal_bytes"), |item| Some(item.size_from(Bytes(1 << 20))?.0));
    set(&mut settings.snapshot_every, table.take("snapshot_every"), |item| item.number(1..=1_000_000_000));
    set(&mut settings.why_per_object, table.take("why_per_object"), |item| item.number(1..=10_000));
    set(&mut settings.log_bytes, table.take("log_bytes"), |item| Some(item.size_from(Bytes(64 << 10))?.0));
    set(&mut settings.log_files, table.take("log_files"), |item| item.number(1..=1_000));
    let most = i128::from(REVISIONS_KEPT);
    set(&mut settings.image_revisions, table.take("image_revisions"), |item| item.number(1..=most));
    let help = "write watch = [\"shop.toml\"]";
    let paths = table.take("watch").and_then(|item| item.items(help)).unwrap_or_default();
    settings.watch = paths.iter().filter_map(|item| item.path(help)).collect();
    settings.binds = table.take("binds").map(decode_binds).unwrap_or_default();
    settings.metrics = table.take("metrics").and_then(|item| decode_metrics(&item));
    table.finish();
}

/// The spans of the sessions with agents, which have to be safe together.
fn decode_session(table: &mut Table<'_>) -> Timing {
    let mut spans = Spans::default();
    let keys = [
        ("heartbeat", &mut spans.beat),
        ("silent_after", &mut spans.silent_after),
        ("lease", &mut spans.lease),
        ("lease_grace", &mut spans.fence),
        ("server_lost_after", &mut spans.replace_after),
    ];
    let mut last = None;
    for (name, value) in keys {
        let Some(item) = table.take(name) else { continue };
        if let Some(read) = item.duration(LEAST) {
            *value = read;
        }
        last = Some(item);
    }
    match (Timing::new(spans), last) {
        (Ok(timing), _) => timing,
        (Err(error), Some(item)) => {
            let help = "each of heartbeat, silent_after, lease and server_lost_after is longer than the one before: \
                        \"3s\", \"10s\", \"30s\", \"40s\"";
            item.problem(error.to_string(), Some(help.to_owned()));
            Timing::default()
        }
        (Err(_), None) => Timing::default(),
    }
}

fn decode_listen(item: &Item<'_>) -> Option<SocketAddr> {
    let help = "write listen = \"0.0.0.0:7443\"";
    let address: Option<SocketAddr> = item.text(help)?.parse().ok();
    if address.is_none() {
        item.problem("is no IP address with a port", Some(help.to_owned()));
    }
    address
}

fn decode_advertise(item: &Item<'_>) -> Vec<String> {
    let help = "write advertise = [\"manager.example.com:7443\"]";
    let mut all = Vec::new();
    for (at, item) in item.items(help).unwrap_or_default().into_iter().enumerate() {
        if at == MAX_ADVERTISED {
            item.problem(format!("at most {MAX_ADVERTISED} addresses can stand here"), None);
            break;
        }
        let Some(text) = item.filled_text(help) else { continue };
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        match parts {
            Some((host, port)) if !host.is_empty() && port > 0 && !text.contains(char::is_whitespace) => {
                all.push(text.to_owned());
            }
            _ => item.problem("is no host with a port", Some(help.to_owned())),
        }
    }
    all
}

/// Changes a setting if its key is there and well.
fn set<'a, T>(value: &mut T, item: Option<Item<'a>>, read: impl FnOnce(&Item<'a>) -> Option<T>) {
    if let Some(read) = item.and_then(|item| read(&item)) {
        *value = read;
    }
}

fn decode_range(item: &Item<'_>) -> Option<PortRange> {
    let help = "write port_range = \"20000-29999\"";
    let text = item.text(help)?;
    let bounds = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let Some((first, last)) = bounds else {
        item.problem("a range of ports is two numbers with a hyphen between", Some(help.to_owned()));
        return None;
    };
    if first > last {
        item.problem(format!("the range ends ({last}) before it starts ({first})"), Some(help.to_owned()));
        return None;
    }
    if first < 1_024 {
        item.problem("a range of ports starts at 1024 or above", Some(help.to_owned()));
        return None;
    }
    Some(PortRange { first, last })
}

fn decode_binds(item: Item<'_>) -> Vec<PathBuf> {
    let help = "write binds = [\"/srv/data\"]";
    let mut binds = Vec::new();
    for (at, item) in item.items(help).unwrap_or_default().into_iter().enumerate() {
        if at == MAX_BINDS {
            item.problem(format!("at most {MAX_BINDS} entries can stand here"), None);
            break;
        }
        let Some(folder) = item.filled_text(help).map(Path::new) else { continue };
        if folder.is_absolute() {
            binds.push(lexical(folder));
        } else {
            item.problem("must be an absolute path: it holds for manifests in any folder", Some(help.to_owned()));
        }
    }
    binds
}

fn decode_metrics(item: &Item<'_>) -> Option<SocketAddr> {
    let help = "write metrics = \"127.0.0.1:9464\"";
    let address: Option<SocketAddr> = item.text(help)?.parse().ok();
    match address {
        None => item.problem("is no IP address with a port", Some(help.to_owned())),
        Some(address) if !address.ip().is_loopback() => {
            let help = "use 127.0.0.1, or let nobody but your Prometheus reach it";
            item.warning("other machines can read the metrics, without a password", Some(help.to_owned()));
        }
        Some(_) => {}
    }
    address
}

fn decode_provider(item: Item<'_>) -> Option<ProviderSettings> {
    let mut table = item.table("write kind = \"standalone\" below [providers.local]")?;
    let kind = table.require("kind", "write kind = \"standalone\"").and_then(|item| {
        let kind = item.name_value("write kind = \"standalone\"")?;
        if FUTURE_KINDS.contains(&kind.as_str()) {
            let help = "this version has kind = \"standalone\" and \"docker\"";
            item.problem(format!("providers of kind `{kind}` are not supported yet"), Some(help.to_owned()));
        }
        Some(kind)
    });
    let mut options = BTreeMap::new();
    // What the options mean is the provider's business, it reads them when it is built.
    for item in table.drain() {
        match json(item.value()) {
            Some(value) => {
                options.insert(item.name.to_owned(), value);
            }
            None => item.problem("must be a finite number that fits in 64 bits", None),
        }
    }
    table.finish();
    Some(ProviderSettings { kind: kind?, options })
}

/// The value as JSON. `None` for numbers that JSON does not have.
fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
        DeValue::Float(number) => serde_json::Number::from_f64(number.as_str().parse().ok()?)?.into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Option<Vec<_>>>()?.into(),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), json(value.get_ref())?))
            };
            serde_json::Value::Object(table.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

/// A provider's name that stands for a kind which this version does not have.
pub(super) fn is_future(name: &Name, settings: Option<&Settings>) -> bool {
    FUTURE_KINDS.contains(&name.as_str()) && !settings.is_some_and(|settings| settings.providers.contains_key(name))
}
