//! `deploy`, and the older keys that say the same: `scale`, `mem_limit`, `cpus`.

use crate::field::{Field, Keys};
use crate::policy;
use crate::unit::{Unit, When};
use crate::yaml::{Outcome, shown};

/// Most containers of a Unit.
const MOST: u64 = 10_000;

/// Takes how many run, what they may use, and how they are replaced.
pub(crate) fn decode(keys: &mut Keys<'_>, unit: &mut Unit) -> Outcome<()> {
    let mut wanted = Resources::default();
    if let Some(field) = keys.take("deploy") {
        let mut deploy = field.keys()?;
        mode(&mut deploy)?;
        if let Some(field) = deploy.take("replicas") {
            replicas(&field, unit)?;
        }
        if let Some(field) = deploy.take("resources") {
            let mut resources = field.keys()?;
            if let Some(limits) = resources.take("limits") {
                wanted.limits = amounts(&limits)?;
            }
            if let Some(reservations) = resources.take("reservations") {
                wanted.reserved = amounts(&reservations)?;
            }
            resources.finish("it is left out");
        }
        if let Some(field) = deploy.take("labels") {
            labels(&field, unit)?;
        }
        if let Some(field) = deploy.take("update_config") {
            update(&field, unit)?;
        }
        if let Some(field) = deploy.take("restart_policy") {
            policy::restart_policy(&field, unit)?;
        }
        if let Some(field) = deploy.take("rollback_config") {
            field.note("the way back is the way of the update", "it is left out: see `update.on_failure`");
        }
        if let Some(field) = deploy.take("placement") {
            let instead = "write place.constraints for zones and offerings, or place.affinity.apart with the Unit's own \
                name for one container for each server";
            field.note("constraints of Swarm have no counterpart", instead);
        }
        if let Some(field) = deploy.take("endpoint_mode") {
            field.note("has no counterpart", "Units of the map are reached by name, from outside by the service port");
        }
        deploy.finish("it is left out");
    }
    if let Some(field) = keys.take("scale") {
        replicas(&field, unit)?;
    }
    for (key, slot) in [("mem_limit", &mut wanted.limits.1), ("mem_reservation", &mut wanted.reserved.1)] {
        if let Some(field) = keys.take(key) {
            *slot = Some(field.size()?).filter(|size| size.0 > 0).or(*slot);
        }
    }
    if let Some(field) = keys.take("cpus") {
        wanted.limits.0 = field.cpu()?.or(wanted.limits.0);
    }
    unit.cpu = wanted.limits.0.or(wanted.reserved.0);
    unit.memory = wanted.limits.1.or(wanted.reserved.1);
    let differs = wanted.limits.0.zip(wanted.reserved.0).is_some_and(|(limit, reserved)| limit != reserved)
        || wanted.limits.1.zip(wanted.reserved.1).is_some_and(|(limit, reserved)| limit != reserved);
    if differs {
        let what = "what is reserved and what is the limit are one number here";
        let of = keys.of();
        of.cx.note(of.service, "deploy.resources", Some(of.place.line), what, "the limit is taken, and reserved");
    }
    Ok(())
}

/// Cores and memory: of the limits, and what is reserved.
#[derive(Default)]
struct Resources {
    limits: Amounts,
    reserved: Amounts,
}

type Amounts = (Option<cocktail_core::quantity::CpuMillis>, Option<cocktail_core::quantity::Bytes>);

fn amounts(field: &Field<'_>) -> Outcome<Amounts> {
    let mut keys = field.keys()?;
    let cpu = keys.take("cpus").map(|field| field.cpu()).transpose()?.flatten();
    let memory = keys.take("memory").map(|field| field.size()).transpose()?.filter(|size| size.0 > 0);
    keys.finish("it is left out: cocktail knows cpu and memory");
    Ok((cpu, memory))
}

fn replicas(field: &Field<'_>, unit: &mut Unit) -> Outcome<()> {
    let count = field.number()?;
    if count > MOST {
        field.note(format!("a Unit has at most {MOST} containers"), "that many are written");
    }
    unit.replicas = Some(count.min(MOST));
    Ok(())
}

fn mode(deploy: &mut Keys<'_>) -> Outcome<()> {
    let Some(field) = deploy.take("mode") else { return Ok(()) };
    match field.text()?.as_str() {
        "replicated" => {}
        "global" => {
            let instead =
                "write as many `replicas` as there are servers, and place.affinity.apart with the Unit's own name";
            field.note("one container for each server is not counted by itself", instead);
        }
        other => {
            field.note(format!("`{}` has no counterpart", shown(other)), "write restart.when = \"never\" for a job")
        }
    }
    Ok(())
}

/// Adds labels of the Unit.
pub(crate) fn labels(field: &Field<'_>, unit: &mut Unit) -> Outcome<()> {
    let mut left_out = 0_usize;
    let pairs = field.pairs()?;
    if pairs.is_empty() {
        return Ok(());
    }
    for (name, value, _) in pairs {
        let value = value.unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        let well = (1..=63).contains(&name.len()) && name.bytes().all(allowed) && value.chars().count() <= 256;
        let known = unit.labels.iter().position(|(other, _)| *other == name);
        match known {
            _ if !well || value.contains('\0') => left_out += 1,
            Some(at) => unit.labels[at].1 = value,
            None if unit.labels.len() == 64 => left_out += 1,
            None => unit.labels.push((name, value)),
        }
    }
    field.note(
        "labels are shown and decide nothing; the engine's containers do not have them",
        "tell a proxy in its own settings",
    );
    if left_out > 0 {
        let what =
            format!("{left_out} labels are left out: more than 64, a name with other characters or a long value");
        field.note(what, "names have letters, digits, `.`, `_`, `/`, `-`, up to 63; values up to 256 characters");
    }
    Ok(())
}

fn update(field: &Field<'_>, unit: &mut Unit) -> Outcome<()> {
    let mut keys = field.keys()?;
    if let Some(field) = keys.take("parallelism") {
        match field.number()? {
            0 => field.note("all at once is not possible", "containers are replaced one by one: see `update.surge`"),
            count => unit.update.surge = Some(count.min(1_000)).filter(|count| *count != 1),
        }
    }
    if let Some(field) = keys.take("monitor") {
        unit.update.monitor = Some(field.duration()?.min(std::time::Duration::from_secs(24 * 3_600)));
    }
    if let Some(field) = keys.take("failure_action") {
        match field.text()?.as_str() {
            "rollback" => {}
            "pause" => unit.update.pause = true,
            "continue" => field.note("an update that fails does not go on", "it goes back; `pause` lets it stay"),
            other => return Err(field.problem(format!("`{}` is not continue, pause or rollback", shown(other)), "")),
        }
    }
    if let Some(field) = keys.take("order") {
        match field.text()?.as_str() {
            "start-first" => {}
            "stop-first" => {
                let instead = "write update.no_room = \"replace\" if there is no room for both; an exclusive volume ends \
                    the old one first";
                field.note("a replacement starts before the old container ends", instead);
            }
            other => return Err(field.problem(format!("`{}` is not start-first or stop-first", shown(other)), "")),
        }
    }
    if let Some(field) = keys.take("delay")
        && !field.duration()?.is_zero()
    {
        field.note("there is no pause between two containers", "write update.monitor: how long one must stay ready");
    }
    if let Some(field) = keys.take("max_failure_ratio") {
        field.note("the first replacement that fails ends the update", "it is left out");
    }
    keys.finish("it is left out");
    Ok(())
}

/// A job has no service port, so it cannot be one that is published.
pub(crate) fn settle_job(unit: &mut Unit, of: &Field<'_>, line: u32) {
    if unit.restart.when == When::Always || unit.ports.iter().all(|port| port.service.is_none()) {
        return;
    }
    unit.restart.when = When::Always;
    unit.restart.retries = None;
    let what = "what has a published port is always started again";
    of.cx.note(of.service, "restart", Some(line), what, "remove the port if it is a job that ends");
}
