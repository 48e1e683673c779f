//! Decodes `warm`: containers that wait, workers with nothing loaded and paused ones of images.

use std::time::Duration;

use toml::de::DeValue;

use super::service::MAX_REPLICAS;
use super::table::{Item, shown};
use crate::spec::{Template, Untold, Warm};

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
        if let Some(uses) = uses.as_ref().filter(|_| template.image.is_some()) {
            uses.key_problem("a container of an image that waited is used once", Some("leave `uses` out".to_owned()));
        }
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

/// Why containers of this template cannot wait, and what to do.
fn against(template: &Template) -> Option<(String, &'static str)> {
    match template.untold() {
        Some(Untold::Program) => Some((
            "a plain command cannot wait with nothing loaded".into(),
            "leave it out, or write the program as a `worker` that loads `microservices`",
        )),
        Some(Untold::Job) => Some(("a job begins its work at its start, so it cannot wait".into(), "leave `warm` out")),
        Some(Untold::Fixed(port)) => Some((
            format!("port `{port}` is fixed: whoever waits would keep it from who serves"),
            "leave `fixed` out, or leave `warm` out",
        )),
        Some(Untold::Socket(port)) => Some((
            format!("port `{port}` is inherited at the start, when nobody knows it yet"),
            "leave `inherit` out: it listens where it is told",
        )),
        Some(Untold::Volume(volume)) => Some((
            format!("volume `{volume}` is exclusive: whoever waits would keep it from who serves"),
            "make it `shared`, or leave `warm` out",
        )),
        Some(Untold::Probe) => Some((
            "a worker that waits has nothing to be probed".into(),
            "leave `ready` and `live` out: a worker says itself how it is",
        )),
        // It is started as what it is going to be.
        None if template.image.is_some() => None,
        None => {
            let mut texts = template.command.iter().chain(template.env.values());
            let text = texts.find(|text| ["${PORT", "${UNIT"].iter().any(|name| text.contains(name)))?;
            let text = shown(text);
            let problem = format!("{text:?} depends on who takes the worker, which is not known at its start");
            Some((problem, "have the worker take it from what it is told"))
        }
    }
}
