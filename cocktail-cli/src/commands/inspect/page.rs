//! What `inspect` shows people: the Manager's answer as a page of short sections.
//!
//! Start at [`page`]. The answer is read part by part, and a part that is missing or of another shape is left out: a
//! Manager may be older or newer than this program. An answer without any known part has no page; it is shown as JSON.

use cocktail_core::time::WallTime;
use cocktail_core::view::{ContainerView, EndpointView, ServerView, UnitView, VolumeView};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::commands::list::{container_table, endpoint_table, server_table, unit_name, unit_reason, unit_table};
use crate::commands::volumes;
use crate::output::{Cell, Table, age, cores, memory, plain};
use crate::progress::counted;

/// Longest value that is shown of a setting or a change.
const LONGEST: usize = 160;

/// One revision of a Unit.
#[derive(Debug, Deserialize)]
struct Revision {
    revision: u64,
    at: Value,
    actor: String,
    outcome: String,
}

/// What differs between two revisions.
#[derive(Debug, Deserialize)]
struct Diff {
    from: u64,
    to: u64,
    changes: Vec<Change>,
}

/// One difference.
#[derive(Debug, Deserialize)]
struct Change {
    key: String,
    from: Value,
    to: Value,
}

/// One event.
#[derive(Debug, Deserialize)]
struct Event {
    at: String,
    kind: String,
    object: String,
    reason: String,
}

/// Text in sections.
struct Page {
    text: String,
    now: WallTime,
    colour: bool,
}

/// The page of an answer; `None` where nothing in it is known.
pub(super) fn page(value: &Value, now: WallTime, colour: bool) -> Option<String> {
    let mut page = Page { text: String::new(), now, colour };
    if let Some(unit) = read::<UnitView>(value, "unit") {
        page.unit(&unit, value);
    } else if let Some(units) = value.get("units").and_then(Value::as_array) {
        page.group(value, units);
    } else if let Some(container) = read::<ContainerView>(value, "container") {
        page.container(&container, value);
    } else if let Some(server) = read::<ServerView>(value, "server") {
        page.table("Server", &server_table(&[server], now));
        page.containers(&list(value, "containers"));
        page.unknown(value);
    } else {
        return None;
    }
    page.events(value);
    Some(page.text)
}

fn read<T: DeserializeOwned>(value: &Value, key: &str) -> Option<T> {
    T::deserialize(value.get(key)?).ok()
}

/// The items of a list that are known.
fn list<T: DeserializeOwned>(value: &Value, key: &str) -> Vec<T> {
    let items = value.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| T::deserialize(item).ok()).collect()
}

impl Page {
    fn unit(&mut self, unit: &UnitView, value: &Value) {
        self.line(&unit_name(unit));
        let stopped = if unit.stopped { "stopped, " } else { "" };
        self.fact("status", &format!("{stopped}{}, revision {}", counted(unit), unit.revision));
        self.fact(
            "usage",
            &format!("cpu {}, memory {}", cores(unit.usage.cpu_millis), memory(unit.usage.memory_bytes)),
        );
        if unit.autoscaled {
            let (min, max) = unit.limits;
            self.fact("limits", &format!("{min} to {max}, the count follows the load or the clock"));
        }
        let rollout = &unit.rollout;
        let since =
            if rollout.since.is_empty() { String::new() } else { format!(" since {}", age(&rollout.since, self.now)) };
        let parts = [rollout.step.as_str(), rollout.reason.as_str()].into_iter().filter(|part| !part.is_empty());
        let told = parts.collect::<Vec<_>>().join("; ");
        self.fact("rollout", format!("{}{since}: {told}", rollout.state).trim_end_matches(": "));
        if !unit.reason.is_empty() {
            self.fact("reason", &unit_reason(unit));
        }
        self.labels(value.get("unit").and_then(|unit| unit.get("labels")));
        self.settings("Deployment, as it was applied", value.get("spec"));
        self.revisions(value);
        self.containers(&list(value, "containers"));
        self.ports(&list(value, "ports"));
        self.volumes(&list(value, "volumes"));
    }

    /// A map or a Service: its Units together.
    fn group(&mut self, value: &Value, units: &[Value]) {
        self.line(value.get("object").and_then(Value::as_str).unwrap_or_default());
        self.labels(value.get("labels"));
        for key in ["quota", "used"] {
            let mut settings = Vec::new();
            flatten("", value.get(key).unwrap_or(&Value::Null), &mut settings);
            let told: Vec<String> = settings.into_iter().map(|(key, value)| format!("{key} {value}")).collect();
            if !told.is_empty() {
                self.fact(key, &told.join(", "));
            }
        }
        let views: Vec<UnitView> = units.iter().filter_map(|unit| read(unit, "unit")).collect();
        self.table("Units", &unit_table(&views));
        self.containers(&all(units, "containers"));
        self.ports(&all(units, "ports"));
        self.volumes(&all(units, "volumes"));
    }

    fn container(&mut self, container: &ContainerView, value: &Value) {
        self.line(&container.id);
        let unit = format!("{}/{}/{}", container.service, container.map, container.unit);
        self.fact("unit", &format!("{unit}, revision {}", container.revision));
        let since = age(&container.since, self.now);
        self.fact("status", &format!("{} since {since}: {}", container.state, container.reason));
        self.fact("starts", &format!("{}, {} of them restarts in place", container.generation, container.restarts));
        self.fact("server", &format!("{} of {}", container.server, container.provider));
        if let Some(process) = container.pid.map(|pid| pid.to_string()).or_else(|| container.docker_id.clone()) {
            self.fact("process", &process);
        }
        for port in &container.ports {
            self.fact("port", &format!("{} on {}:{}", port.name, port.host, port.port));
        }
        let usage = &container.usage;
        self.fact("usage", &format!("cpu {}, memory {}", cores(usage.cpu_millis), memory(usage.memory_bytes)));
        self.settings("Made from", value.get("template"));
    }

    fn labels(&mut self, labels: Option<&Value>) {
        let Some(labels) = labels.and_then(Value::as_object).filter(|labels| !labels.is_empty()) else { return };
        let told: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={}", short(value))).collect();
        self.fact("labels", &told.join(" "));
    }

    fn settings(&mut self, title: &str, value: Option<&Value>) {
        let mut settings = Vec::new();
        flatten("", value.unwrap_or(&Value::Null), &mut settings);
        if settings.is_empty() {
            return;
        }
        self.title(title);
        for (key, value) in settings {
            self.line(&format!("{key} = {value}"));
        }
    }

    fn revisions(&mut self, value: &Value) {
        let revisions: Vec<Revision> = list(value, "revisions");
        let mut table = Table::new(&["REVISION", "AGE", "BY", "OUTCOME"]);
        for revision in &revisions {
            table.row(vec![
                Cell::number(revision.revision),
                Cell::text(age(&time(&revision.at), self.now)),
                Cell::text(&revision.actor),
                Cell::tail(&revision.outcome),
            ]);
        }
        self.table("Revisions", &table);
        let Some(diff) = read::<Diff>(value, "diff") else { return };
        self.title(&format!("Changes from revision {} to {}", diff.from, diff.to));
        for change in &diff.changes {
            self.line(&format!("{}: {} → {}", change.key, short(&change.from), short(&change.to)));
        }
    }

    fn containers(&mut self, views: &[ContainerView]) {
        self.table("Containers", &container_table(views, self.now));
    }

    fn ports(&mut self, views: &[EndpointView]) {
        self.table("Ports", &endpoint_table(views));
    }

    fn volumes(&mut self, views: &[VolumeView]) {
        self.table("Volumes", &volumes::table(views));
    }

    /// What runs on a server and is not known to the Manager.
    fn unknown(&mut self, value: &Value) {
        let Some(unknown) = value.get("unknown").and_then(Value::as_array).filter(|list| !list.is_empty()) else {
            return;
        };
        self.title("Runs here and is not known");
        for container in unknown {
            self.line(&short(container));
        }
    }

    fn events(&mut self, value: &Value) {
        let events: Vec<Event> = list(value, "events");
        let mut table = Table::new(&["AGE", "EVENT", "OBJECT", "REASON"]);
        for event in &events {
            table.row(vec![
                Cell::text(age(&event.at, self.now)),
                Cell::text(&event.kind),
                Cell::text(&event.object),
                Cell::tail(&event.reason),
            ]);
        }
        self.table("Last events", &table);
    }

    fn table(&mut self, title: &str, table: &Table) {
        if !table.is_empty() {
            self.title(title);
            self.text.push_str(&table.render(self.colour));
        }
    }

    fn title(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(title);
    }

    fn fact(&mut self, name: &str, text: &str) {
        self.line(&format!("  {name:<9} {text}"));
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(plain(line).trim_end());
        self.text.push('\n');
    }
}

fn all<T: DeserializeOwned>(units: &[Value], key: &str) -> Vec<T> {
    units.iter().flat_map(|unit| list(unit, key)).collect()
}

/// A time, as text or in microseconds.
fn time(value: &Value) -> String {
    match (value.as_str(), value.as_i64()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(micros)) => WallTime(micros).to_string(),
        (None, None) => String::new(),
    }
}

/// The leaves of a value by their keys; nothing that is empty, since that is what nobody has set.
fn flatten(key: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Bool(false) => {}
        Value::Array(items) if items.is_empty() => {}
        Value::Object(members) => match duration(members) {
            Some(duration) => into.push((key.to_owned(), duration)),
            None => {
                for (name, value) in members {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    flatten(&key, value, into);
                }
            }
        },
        leaf => into.push((key.to_owned(), short(leaf))),
    }
}

/// A duration, which is written as seconds and the rest.
fn duration(members: &Map<String, Value>) -> Option<String> {
    let (seconds, nanos) = (members.get("secs")?.as_u64()?, members.get("nanos")?.as_u64()?);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    (members.len() == 2).then(|| cocktail_core::time::human(std::time::Duration::new(seconds, nanos)))
}

/// A value in a line.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{SINCE, container, endpoint, server, unit, volume};

    fn shown(value: &Value) -> String {
        page(value, WallTime::parse("2026-01-01T12:00:00Z").unwrap(), false).unwrap()
    }

    fn web() -> Value {
        let mut view = unit("web", 3, 3);
        view.labels.insert("team".into(), "blue".into());
        view.autoscaled = true;
        view.rollout.since = SINCE.into();
        view.rollout.reason = "all 3 containers are of revision 2".into();
        json!({
            "unit": view,
            "spec": {
                "template": { "argv": ["python3", "app.py"], "env": {}, "user": null },
                "update": { "monitor": { "secs": 2, "nanos": 0 }, "surge": 1 },
            },
            "revisions": [
                { "revision": 1, "digest": "a", "at": SINCE, "actor": "uid 0", "outcome": "served before" },
                { "revision": 2, "digest": "b", "at": 1_767_268_500_000_000_u64, "actor": "uid 0", "outcome": "completed" },
            ],
            "diff": { "from": 1, "to": 2, "changes": [{ "key": "argv.1", "from": "old.py", "to": "app.py" }] },
            "containers": [container("web-1", "web", "ready")],
            "ports": [endpoint("web", Some(8080), 1)],
            "volumes": [volume("web", "data")],
            "events": [{ "seq": 1, "at": SINCE, "kind": "started", "object": "web-1", "reason": "desired 3" }],
        })
    }

    #[test]
    fn a_unit_shows_status_deployment_revisions_containers_ports_volumes_and_events() {
        let expected = "\
shop/prod/web
  status    3/3 ready, revision 1
  usage     cpu 0.03, memory 37.5MiB
  limits    0 to 100, the count follows the load or the clock
  rollout   completed since 5m: all 3 containers are of revision 2
  labels    team=\"blue\"

Deployment, as it was applied
template.argv = [\"python3\",\"app.py\"]
update.monitor = 2s
update.surge = 1

Revisions
REVISION  AGE  BY     OUTCOME
       1  5m   uid 0  served before
       2  5m   uid 0  completed

Changes from revision 1 to 2
argv.1: \"old.py\" → \"app.py\"

Containers
ID     UNIT           STATE  AGE  RESTARTS  PID   PORTS        CPU   MEMORY  SERVER  REASON
web-1  shop/prod/web  ready  5m          0  4711  http=20001  0.01  12.5MiB  local

Ports
UNIT           PORT  ADDRESS         READY  BACKENDS
shop/prod/web  http  127.0.0.1:8080      1  127.0.0.1:20001

Volumes
VOLUME  UNIT           KIND         USED    SIZE  CONTAINERS  PATH
data    shop/prod/web  exclusive  3.0MiB  1.0GiB  web-1       /d/volumes/web/data

Last events
AGE  EVENT    OBJECT  REASON
5m   started  web-1   desired 3
";
        assert_eq!(shown(&web()), expected);
    }

    #[test]
    fn a_map_and_a_service_show_their_units_together() {
        let value = json!({
            "object": "shop",
            "quota": { "containers": 100, "cpu": null },
            "used": { "containers": 3 },
            "units": [web(), { "unit": unit("db", 1, 1), "containers": [container("db-1", "db", "ready")] }],
        });
        let text = shown(&value);
        assert!(text.starts_with("shop\n  quota     containers 100\n  used      containers 3\n\nUnits\n"), "{text}");
        for part in ["shop/prod/db ", "web-1 ", "db-1 ", "127.0.0.1:8080", "exclusive"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn containers_and_servers_have_their_pages() {
        let text = shown(&json!({ "container": container("web-1", "web", "ready"), "template": { "argv": ["x"] } }));
        assert!(text.starts_with("web-1\n  unit      shop/prod/web, revision 1\n"), "{text}");
        assert!(text.contains("  port      http on 127.0.0.1:20001\n") && text.contains("argv = [\"x\"]"), "{text}");
        let text = shown(&json!({ "server": server(), "containers": [], "unknown": [{ "id": "old-1" }] }));
        assert!(text.contains("standalone") && text.contains("old-1"), "{text}");
    }

    #[test]
    fn what_a_newer_manager_says_is_shown_as_far_as_it_is_known() {
        let text = shown(&json!({ "unit": unit("web", 1, 1), "revisions": "many", "ports": 7, "new": {} }));
        assert!(text.starts_with("shop/prod/web\n"), "{text}");
        assert_eq!(page(&json!({ "new": 1 }), WallTime(0), false), None);
    }

    #[test]
    fn a_value_cannot_move_the_cursor_or_fill_the_screen() {
        let value = json!({ "unit": unit("web", 1, 1), "spec": { "a": "\u{1b}[2J", "b": "é".repeat(1_000) } });
        let text = shown(&value);
        assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() < 200), "{text}");
    }
}
