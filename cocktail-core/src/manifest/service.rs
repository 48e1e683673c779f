//! Decodes the Service: quota, application maps, and the list of Units.

use std::collections::BTreeMap;

use super::table::{Item, Table};
use super::{labels, unit};
use crate::name::Name;
use crate::spec::{MapSpec, Quota, ServiceSpec};

/// Most containers that a Unit or a quota may ask for.
pub(super) const MAX_REPLICAS: u32 = 10_000;

/// Takes the Service's keys from the document. `None` if the document names no Service.
pub(super) fn decode(root: &mut Table<'_>) -> Option<ServiceSpec> {
    let name = root.take("service");
    let labels = root.take("labels");
    let quota = root.take("quota");
    let maps = root.take("maps");
    let named = name.is_some();
    if let (false, Some(part)) = (named, maps.as_ref().or(quota.as_ref()).or(labels.as_ref())) {
        let help = "write service = \"…\" as the first line of the file";
        part.key_problem("missing key `service`: the name of the Service that this belongs to", Some(help.to_owned()));
    }
    let name = name.and_then(|item| {
        if let (None, true) = (&maps, item.value().is_str()) {
            let help = "add a Unit: [maps.prod.units.web]";
            item.key_problem("the Service has no maps", Some(help.to_owned()));
        }
        item.name_value("write service = \"shop\"")
    });
    let labels = labels::decode(labels);
    let quota = quota.map(decode_quota).unwrap_or_default();
    let maps = maps.map(decode_maps).unwrap_or_default();
    Some(ServiceSpec { name: name?, labels, quota, maps })
}

fn decode_quota(item: Item<'_>) -> Quota {
    let Some(mut table) = item.table("write quota = { cpu = 8, memory = \"8GiB\", containers = 100 }") else {
        return Quota::default();
    };
    let quota = Quota {
        cpu: table.take("cpu").and_then(|item| item.cpu()),
        memory: table.take("memory").and_then(|item| item.size()),
        containers: table.take("containers").and_then(|item| item.number(0..=i128::from(u32::MAX))),
    };
    table.finish();
    quota
}

fn decode_maps(item: Item<'_>) -> BTreeMap<Name, MapSpec> {
    let Some(table) = item.table("write [maps.prod.units.web]") else {
        return BTreeMap::new();
    };
    if table.is_empty() {
        table.problem("the Service has no maps", Some("add a Unit: [maps.prod.units.web]".to_owned()));
    }
    table.named(usize::MAX).into_iter().map(|(name, item)| (name, decode_map(item))).collect()
}

fn decode_map(item: Item<'_>) -> MapSpec {
    let Some(mut table) = item.table("write [maps.prod.units.web]") else {
        return MapSpec::default();
    };
    let labels = labels::decode(table.take("labels"));
    let help = || Some("add one, for instance [maps.prod.units.web]; `cocktail rm` removes a map".to_owned());
    let Some(units) = table.take("units") else {
        table.problem("the map has no units", help());
        table.finish();
        return MapSpec::default();
    };
    table.finish();
    let Some(units) = units.table("write [maps.prod.units.web]") else {
        return MapSpec::default();
    };
    if units.is_empty() {
        units.problem("the map has no units", help());
    }
    let units = units.named(usize::MAX).into_iter().filter_map(|(name, item)| Some((name, unit::decode(item)?)));
    MapSpec { labels, units: units.collect() }
}
