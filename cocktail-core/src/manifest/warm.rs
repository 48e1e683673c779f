//! Decodes `warm`: workers that wait with nothing loaded.

use std::time::Duration;

use toml::de::DeValue;

use super::service::MAX_REPLICAS;
use super::table::Item;
use crate::spec::{Check, Template, VolumeKind, Warm};

const HELP: &str = "write warm = 2, or warm = { count = 2, age = \"1h\", uses = 100 }";
/// Shortest time after which a worker that waits is exchanged.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// Decodes it for a Unit with this template.
pub(super) fn decode(item: Item<'_>, template: &Template) -> Warm {
    let most = 0..=i128::from(MAX_REPLICAS);
    let mut warm = Warm::default();
    if matches!(item.value(), DeValue::Table(_)) {
        let Some(mut table) = item.clone().table(HELP) else { return warm };
        let (count, age, uses) = (table.require("count", HELP), table.take("age"), table.take("uses"));
        table.finish();
        warm.count = count.and_then(|count| count.number(most)).unwrap_or_default();
        warm.age = age.and_then(|age| age.duration(LEAST_AGE)).unwrap_or(warm.age);
        warm.uses = uses.and_then(|uses| uses.number(0..=i128::from(u32::MAX))).unwrap_or_default();
    } else {
        warm.count = item.number(most).unwrap_or_default();
    }
    if warm.count > 0
        && let Some((problem, help)) = against(template)
    {
        item.key_problem(problem, Some(help.to_owned()));
        return Warm::default();
    }
    warm
}

/// Why workers of this template cannot wait with nothing loaded.
fn against(template: &Template) -> Option<(String, &'static str)> {
    if template.microservices.is_empty() {
        let help = "leave it out, or write the program as a `worker` that loads `microservices`";
        return Some(("a plain command cannot wait with nothing loaded".into(), help));
    }
    if let Some(port) = template.ports.iter().find(|port| port.inherit) {
        let help = "leave `inherit` out: it listens where it is told";
        return Some((format!("port `{}` is inherited at the start, when nobody knows it yet", port.name), help));
    }
    if let Some((name, _)) = template.volumes.iter().find(|(_, volume)| volume.kind == VolumeKind::Exclusive) {
        let help = "make it `shared`, or leave `warm` out";
        return Some((format!("volume `{name}` is exclusive: whoever waits would keep it from who serves"), help));
    }
    if template.ready.as_ref().is_some_and(|probe| probe.check != Check::Worker) || template.live.is_some() {
        let help = "leave `ready` and `live` out: a worker says itself how it is";
        return Some(("a worker that waits has nothing to be probed".into(), help));
    }
    let mut texts = template.command.iter().chain(template.env.values());
    let named = |text: &&String| ["${PORT", "${UNIT"].iter().any(|name| text.contains(name));
    if let Some(text) = texts.find(named) {
        let help = "have the worker take it from what it is told";
        let text = super::table::shown(text);
        return Some((format!("{text:?} depends on who takes the worker, which is not known at its start"), help));
    }
    None
}
