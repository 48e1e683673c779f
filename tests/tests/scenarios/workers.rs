//! Workers that do everything wrong that a worker can do: each ends in the documented state, with a reason, and harms
//! nobody.

mod conduct;
mod secrets;
mod start;

use cocktail_tests::{Home, Manager, Process};

/// A worker that falls ill on request; see its source for what it can be told.
pub(crate) const FAULTY: &str = env!("CARGO_BIN_EXE_faulty-worker");

/// A Home whose Manager has applied Units of the map `prod`: names with the keys that follow. Waits for nothing.
fn applied(units: &[(&str, &str)]) -> (Home, Manager) {
    let home = Home::new();
    let manager = home.serve();
    apply(&home, units);
    (home, manager)
}

fn apply(home: &Home, units: &[(&str, &str)]) {
    if units.is_empty() {
        return;
    }
    let mut text = "service = \"shop\"\n".to_owned();
    for (name, keys) in units {
        text.push_str(&format!("[maps.prod.units.{name}]\n{keys}\n"));
    }
    let file = home.write("workers.toml", text);
    home.ok(&["apply", &file.to_string_lossy()]);
}

/// A well-behaved Unit, to see whether others harm it.
fn well() -> String {
    format!("command = [\"{FAULTY}\", \"serve\"]\nports.http = {{}}")
}

/// Workers and whatever they have started.
fn of_workers(home: &Home) -> Vec<Process> {
    let ours = |process: &Process| !process.is_keeper() && !process.command.ends_with(" serve --background");
    let manager = home.manager_pid();
    home.processes().into_iter().filter(|process| ours(process) && Some(process.pid) != manager).collect()
}

/// The one container of a Unit.
fn only(home: &Home, unit: &str) -> serde_json::Value {
    let all = home.containers(unit);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

/// Waits until the one container of a Unit has been started `count` times and is ready.
fn ready_again(home: &Home, unit: &str, count: u64) -> serde_json::Value {
    home.until(&format!("{unit} is ready after start number {count}"), || {
        let row = only(home, unit);
        (row["ready"] == true && row["generation"] == count).then_some(row)
    })
}

/// First port of a container.
fn port_of(row: &serde_json::Value) -> u16 {
    u16::try_from(row["ports"][0]["port"].as_u64().unwrap()).unwrap()
}

/// Whether any reason about an object has all of the words in it.
fn says(home: &Home, object: &str, words: &[&str]) -> bool {
    home.why(object).iter().any(|because| words.iter().all(|word| because.contains(word)))
}
