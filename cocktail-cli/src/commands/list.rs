//! Lists: `units`, `ps`, `servers`, `endpoints`, `ops`.
//!
//! JSON is the views as they come; the tables leave out what few look for.

use cocktail_core::contract::Manager;
use cocktail_core::fleet::Late;
use cocktail_core::time::WallTime;
use cocktail_core::view::{ContainerView, EndpointView, OperationView, ServerView, UnitView};
use futures_util::StreamExt;

use crate::args::{EndpointsArgs, Format};
use crate::failure::Outcome;
use crate::output::{Cell, Table, Tone, Ui, age, cores, memory};
use crate::progress::{counted, there};

/// `units`.
pub(crate) async fn units(manager: &dyn Manager, ui: &mut Ui) -> Outcome {
    let views = manager.units().await?;
    match ui.format {
        Format::Json => ui.json(&views),
        Format::Table => ui.table(&unit_table(&views), "no Units; apply a manifest: cocktail apply FILE"),
    }
}

/// `ps`.
pub(crate) async fn containers(manager: &dyn Manager, ui: &mut Ui) -> Outcome {
    let views = manager.containers().await?;
    match ui.format {
        Format::Json => ui.json(&views),
        Format::Table => ui.table(&container_table(&views, ui.now()), "no containers"),
    }
}

/// `servers`.
pub(crate) async fn servers(manager: &dyn Manager, ui: &mut Ui) -> Outcome {
    let views = manager.servers().await?;
    match ui.format {
        Format::Json => ui.json(&views),
        Format::Table => ui.table(&server_table(&views, ui.now()), "no servers"),
    }
}

/// `endpoints`; with `-f` until the Manager or the reader goes.
pub(crate) async fn endpoints(manager: &dyn Manager, args: &EndpointsArgs, ui: &mut Ui) -> Outcome {
    let show = |views: &[EndpointView], ui: &mut Ui| match (ui.format, args.follow) {
        (Format::Json, true) => ui.json_line(&views),
        (Format::Json, false) => ui.json(&views),
        (Format::Table, _) => ui.table(&endpoint_table(views), "no endpoints: no Unit has a port"),
    };
    let unit = args.unit.as_deref();
    if !args.follow {
        let mut views = manager.endpoints().await?;
        views.retain(|view| unit.is_none_or(|unit| view.is_of(unit)));
        return show(&views, ui);
    }
    let mut tables = manager.watch_endpoints(unit).await?;
    while let Some(views) = tables.next().await {
        show(&views?, ui)?;
    }
    Ok(())
}

/// `ops`.
pub(crate) async fn operations(manager: &dyn Manager, ui: &mut Ui) -> Outcome {
    let views = manager.operations().await?;
    match ui.format {
        Format::Json => ui.json(&views),
        Format::Table => ui.table(&operation_table(&views, ui.now()), "no operations"),
    }
}

/// Full name of a Unit.
pub(crate) fn unit_name(view: &UnitView) -> String {
    format!("{}/{}/{}", view.service, view.map, view.unit)
}

/// Units as a table.
pub(crate) fn unit_table(views: &[UnitView]) -> Table {
    // Most Units have a count of their own: the bounds are a column only where a policy moves within them.
    let bounds = views.iter().any(|view| view.autoscaled);
    let mut table = Table::new(if bounds {
        &["UNIT", "DESIRED", "LIMITS", "READY", "UPDATED", "REV", "ROLLOUT", "CPU", "MEMORY", "REASON"]
    } else {
        &["UNIT", "DESIRED", "READY", "UPDATED", "REV", "ROLLOUT", "CPU", "MEMORY", "REASON"]
    });
    for view in views {
        let ready = match there(view) >= view.desired {
            true if view.job && view.failed > 0 => Tone::Bad,
            true => Tone::Good,
            false => Tone::Busy,
        };
        let rollout = if view.stopped { Cell::state("stopped") } else { Cell::state(&view.rollout.state) };
        let mut cells = vec![Cell::text(unit_name(view)), Cell::number(view.desired)];
        if bounds {
            let (min, max) = view.limits;
            cells.push(Cell::text(if view.autoscaled { format!("{min}-{max}") } else { String::new() }));
        }
        cells.extend([
            Cell::number(view.ready).toned(ready),
            Cell::number(view.updated),
            Cell::number(view.revision),
            rollout,
            Cell::number(cores(view.usage.cpu_millis)),
            Cell::number(memory(view.usage.memory_bytes)),
            Cell::tail(unit_reason(view)),
        ]);
        table.row(cells);
    }
    table
}

/// What is to be said about a Unit; nothing where all is well.
pub(crate) fn unit_reason(view: &UnitView) -> String {
    let rollout = &view.rollout;
    match rollout.state.as_str() {
        _ if !view.reason.is_empty() => view.reason.clone(),
        _ if view.job => counted(view),
        "completed" | "superseded" => String::new(),
        "running" if !rollout.asks_promotion && !rollout.step.is_empty() => rollout.step.clone(),
        _ => rollout.reason.clone(),
    }
}

/// Containers as a table.
pub(crate) fn container_table(views: &[ContainerView], now: WallTime) -> Table {
    let head = &["ID", "UNIT", "STATE", "AGE", "RESTARTS", "PID", "PORTS", "CPU", "MEMORY", "SERVER", "REASON"];
    let mut table = Table::new(head);
    for view in views {
        let ports: Vec<String> = view.ports.iter().map(|port| format!("{}={}", port.name, port.port)).collect();
        let process = view.pid.map(|pid| pid.to_string()).or_else(|| view.docker_id.clone()).unwrap_or_default();
        // The reason of a ready container is of no interest in a list; `inspect` has it.
        let reason = if view.ready { "" } else { view.reason.as_str() };
        table.row(vec![
            Cell::text(&view.id),
            Cell::text(format!("{}/{}/{}", view.service, view.map, view.unit)),
            Cell::state(&view.state),
            Cell::text(age(&view.since, now)),
            Cell::number(view.restarts),
            Cell::text(process),
            Cell::text(ports.join(",")),
            Cell::number(cores(view.usage.cpu_millis)),
            Cell::number(memory(view.usage.memory_bytes)),
            Cell::text(&view.server),
            Cell::tail(reason),
        ]);
    }
    table
}

/// Servers as a table.
pub(crate) fn server_table(views: &[ServerView], now: WallTime) -> Table {
    let head = &[
        "ID",
        "PROVIDER",
        "STATE",
        "AGE",
        "ZONE",
        "OFFERING",
        "CONTAINERS",
        "CPU RESERVED",
        "MEMORY RESERVED",
        "REASON",
    ];
    let mut table = Table::new(head);
    for view in views {
        let (of, all) = (&view.allocated, &view.capacity);
        table.row(vec![
            Cell::text(&view.id),
            Cell::text(&view.provider),
            Cell::state(&view.state),
            Cell::text(age(&view.since, now)),
            Cell::text(view.zone.as_deref().unwrap_or_default()),
            Cell::text(&view.offering),
            Cell::number(view.containers),
            Cell::number(format!("{}/{}", cores(of.cpu_millis), cores(all.cpu_millis))),
            Cell::number(format!("{}/{}", memory(of.memory_bytes), memory(all.memory_bytes))),
            Cell::tail(server_reason(view)),
        ]);
    }
    table
}

/// Why a server is in its state, and what becomes of it.
pub(crate) fn server_reason(view: &ServerView) -> String {
    let Some(rearrangement) = &view.rearrangement else { return view.reason.clone() };
    let mut reason = rearrangement.because.clone();
    if let Some(deadline) = &rearrangement.deadline {
        let late = match rearrangement.late {
            Late::Cancel => "called off at",
            Late::Force => "by force from",
        };
        reason.push_str(&format!("; {late} {deadline}"));
    }
    if rearrangement.give_back {
        reason.push_str("; then given back");
    }
    reason
}

/// Endpoints as a table.
pub(crate) fn endpoint_table(views: &[EndpointView]) -> Table {
    let mut table = Table::new(&["UNIT", "PORT", "ADDRESS", "READY", "BACKENDS"]);
    for view in views {
        let backends: Vec<String> =
            view.backends.iter().map(|backend| host_port(&backend.host, backend.port)).collect();
        let tail = match &view.error {
            Some(error) => Cell::tail(format!("does not listen: {error}")).toned(Tone::Bad),
            None => Cell::tail(backends.join(" ")),
        };
        table.row(vec![
            Cell::text(format!("{}/{}/{}", view.service, view.map, view.unit)),
            Cell::text(&view.port_name),
            Cell::text(address(view).unwrap_or_default()),
            Cell::number(view.backends.len()),
            tail,
        ]);
    }
    table
}

/// The stable address of an endpoint, if it has one.
pub(crate) fn address(view: &EndpointView) -> Option<String> {
    let host = if view.address.is_empty() { "127.0.0.1" } else { &view.address };
    view.service_port.map(|port| host_port(host, port))
}

/// `host:port`, with brackets around IPv6.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Operations as a table.
pub(crate) fn operation_table(views: &[OperationView], now: WallTime) -> Table {
    let mut table = Table::new(&["ID", "KIND", "STATE", "ATTEMPT", "AGE", "CLAIMS", "ERROR"]);
    for view in views {
        table.row(vec![
            Cell::number(view.id),
            Cell::text(&view.kind),
            Cell::state(&view.state),
            Cell::number(view.attempt),
            Cell::text(age(&view.since, now)),
            Cell::text(view.claims.join(",")),
            Cell::tail(view.error.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{closed, ui};
    use crate::testing::{FakeManager, container, endpoint, operation, server, unit};

    #[tokio::test]
    async fn ps_shows_what_stands_in_the_way_and_hides_it_for_ready_ones() {
        let mut broken = container("worker-m2", "worker", "backoff");
        broken.reason = "exit code 1, next start in 4s".into();
        broken.restarts = 12;
        broken.pid = None;
        broken.ports.clear();
        let manager =
            FakeManager { containers: vec![container("web-k3v9qx", "web", "ready"), broken], ..FakeManager::default() };
        let (mut ui, data, people) = ui(Format::Table);
        containers(&manager, &mut ui).await.unwrap();
        let expected = "\
ID          UNIT              STATE    AGE  RESTARTS  PID  PORTS        CPU   MEMORY  SERVER  REASON
web-k3v9qx  shop/prod/web     ready    5m          0  4711  http=20001  0.01  12.5MiB  local
worker-m2   shop/prod/worker  backoff  5m         12  -    -            0.01  12.5MiB  local   exit code 1, next start in 4s
";
        let squeeze = |text: &str| {
            text.split_inclusive('\n')
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&data.text()), squeeze(expected));
        assert_eq!(people.text(), "");
    }

    #[tokio::test]
    async fn json_has_exactly_the_promised_keys() {
        let manager = FakeManager {
            containers: vec![container("web-k3v9qx", "web", "ready")],
            units: vec![unit("web", 3, 2)],
            servers: vec![server()],
            endpoints: vec![endpoint("web", Some(8080), 3)],
            operations: vec![operation()],
            ..FakeManager::default()
        };
        let keys = |text: String| -> String {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let keys: Vec<_> = value[0].as_object().unwrap().keys().cloned().collect();
            keys.join(" ")
        };
        let (mut out, data, _) = ui(Format::Json);
        containers(&manager, &mut out).await.unwrap();
        let expected =
            "generation id map pid ports provider ready reason restarts revision server service since state unit usage";
        assert_eq!(keys(data.text()), expected);
        let (mut out, data, _) = ui(Format::Json);
        units(&manager, &mut out).await.unwrap();
        assert_eq!(
            keys(data.text()),
            "autoscaled desired failed job labels limits map ready reason revision rollout service stopped succeeded unit updated usage"
        );
        let (mut out, data, _) = ui(Format::Json);
        servers(&manager, &mut out).await.unwrap();
        let expected =
            "allocated capacity containers id incarnation offering provider provider_id reason since state zone";
        assert_eq!(keys(data.text()), expected);
        let (mut out, data, _) = ui(Format::Json);
        endpoints(&manager, &EndpointsArgs::default(), &mut out).await.unwrap();
        assert_eq!(keys(data.text()), "address backends map port_name service service_port unit");
        let (mut out, data, _) = ui(Format::Json);
        operations(&manager, &mut out).await.unwrap();
        assert_eq!(keys(data.text()), "attempt claims deadline error id kind provider_ids since state");
    }

    #[tokio::test]
    async fn tables_of_units_servers_endpoints_and_operations() {
        let mut down = endpoint("api", Some(443), 0);
        down.address = "::".into();
        down.error = Some("permission denied".into());
        let mut stuck = unit("worker", 2, 0);
        stuck.reason = "crash loop: exit code 1".into();
        let manager = FakeManager {
            units: vec![unit("web", 3, 3), stuck],
            servers: vec![server()],
            endpoints: vec![endpoint("web", Some(8080), 2), down, endpoint("admin", None, 0)],
            operations: vec![operation()],
            ..FakeManager::default()
        };
        let (mut out, data, _) = ui(Format::Table);
        units(&manager, &mut out).await.unwrap();
        servers(&manager, &mut out).await.unwrap();
        endpoints(&manager, &EndpointsArgs::default(), &mut out).await.unwrap();
        operations(&manager, &mut out).await.unwrap();
        let expected = "\
UNIT              DESIRED  READY  UPDATED  REV  ROLLOUT     CPU   MEMORY  REASON
shop/prod/web           3      3        3    1  completed  0.03  37.5MiB
shop/prod/worker        2      0        0    1  running    0.00       0B  crash loop: exit code 1
ID     PROVIDER    STATE  AGE  ZONE  OFFERING  CONTAINERS  CPU RESERVED  MEMORY RESERVED  REASON
local  standalone  ready  5m   -     host               2     0.50/2.00    128MiB/4.0GiB
UNIT             PORT  ADDRESS         READY  BACKENDS
shop/prod/web    http  127.0.0.1:8080      2  127.0.0.1:20001 127.0.0.1:20002
shop/prod/api    http  [::]:443            0  does not listen: permission denied
shop/prod/admin  http  -                   0
ID  KIND   STATE   ATTEMPT  AGE  CLAIMS      ERROR
17  start  failed        2  5m   web-k3v9qx  the program python9 was not found
";
        assert_eq!(data.text(), expected);
    }

    #[tokio::test]
    async fn an_empty_list_is_an_empty_array_or_a_word_to_people() {
        let manager = FakeManager::default();
        let (mut out, data, people) = ui(Format::Json);
        containers(&manager, &mut out).await.unwrap();
        assert_eq!((data.text().as_str(), people.text().as_str()), ("[]\n", ""));
        let (mut out, data, people) = ui(Format::Table);
        containers(&manager, &mut out).await.unwrap();
        assert_eq!((data.text().as_str(), people.text().as_str()), ("", "no containers\n"));
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_ends_the_command_quietly() {
        let manager = FakeManager { containers: vec![container("web-1", "web", "ready")], ..FakeManager::default() };
        let failure = containers(&manager, &mut closed()).await.unwrap_err();
        assert_eq!((failure.code(), failure.report()), (0, None));
    }

    #[tokio::test]
    async fn endpoints_are_followed_and_those_of_others_left_out() {
        let served = endpoint("web", Some(8080), 1);
        let manager = FakeManager { endpoints: vec![served.clone()], ..FakeManager::default() };
        let args = |unit: &str, follow| EndpointsArgs { unit: Some(unit.into()), follow };
        let (mut out, data, _) = ui(Format::Json);
        endpoints(&manager, &args("web", true), &mut out).await.unwrap();
        assert_eq!(data.text(), format!("{}\n[]\n", serde_json::to_string(&[served]).unwrap()));
        let (mut out, data, _) = ui(Format::Json);
        endpoints(&manager, &args("test/web", false), &mut out).await.unwrap();
        assert_eq!(data.text(), "[]\n");
    }
}
