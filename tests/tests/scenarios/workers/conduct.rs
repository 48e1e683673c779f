//! How workers run and end.

use std::fs;
use std::path::Path;

use cocktail_tests::{Client, Home, http};
use rustix::process::Signal;

use super::{FAULTY, applied, apply, of_workers, only, port_of, ready_again, says, well};

#[test]
fn a_worker_that_ignores_its_stop_signal_is_killed_after_its_grace() {
    let deaf = "command = [\"sh\", \"-c\", \"trap '' TERM; echo deaf; while :; do sleep 0.1; done\"]\n\
                stop = { grace = \"500ms\" }";
    let (home, _manager) = applied(&[("deaf", deaf), ("well", &well())]);
    let neighbour = home.settled("well", 1);
    home.settled("deaf", 1);
    let id = only(&home, "deaf")["id"].as_str().unwrap().to_owned();
    home.eventually("it has begun to ignore", || home.ok(&["logs", &id]).stdout.contains("deaf"));
    home.ok(&["stop", "--wait=30s", "deaf"]);
    let events = home.run(&["-o", "json", "events"]).json_lines();
    let exit = events.iter().find(|event| event["object"] == *id && event["kind"] == "exited").unwrap();
    assert_eq!(exit["reason"], "killed by signal 9");
    home.eventually("the neighbour is alone", || of_workers(&home).len() == 1);
    assert_eq!(home.pids("well"), neighbour);
    home.finish();
}

/// Starts children in every way to get away: in the background, in a session of its own, as a daemon whose parents are
/// gone, with an environment that has no mark of ours, and deaf.
const ESCAPE: &str = "\
sleep 1000 &
setsid sleep 1000 &
(setsid sh -c 'sleep 1000 & sleep 1000 &' >/dev/null 2>&1 </dev/null &)
(setsid env -i HOME=\"$HOME\" PATH=\"$PATH\" sh -c 'sleep 1000 & exec sleep 1000' &)
(setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.5; done' &)
";

/// Processes that `ESCAPE` leaves for good; those that the last line starts come and go.
const ESCAPED: usize = 7;

#[test]
fn nothing_is_left_of_workers_that_fork_and_hide_when_they_are_stopped_or_have_ended() {
    let keys = |then: &str| {
        format!(
            "command = [\"sh\", \"-c\", '''{ESCAPE}{then}''']\nstop = {{ grace = \"300ms\" }}\nrestart = {{ base = \"1h\", max = \"1h\" }}"
        )
    };
    // It is stopped.
    let (home, _manager) = applied(&[("fork", &keys("exec sleep 1000")), ("well", &well())]);
    let neighbour = home.settled("well", 1);
    home.eventually("it has forked", || of_workers(&home).len() >= ESCAPED + 2);
    home.ok(&["stop", "--wait", "fork"]);
    home.eventually("only the neighbour is left", || of_workers(&home).len() == 1);
    // It ends by itself, once all have got away.
    apply(&home, &[("end", &keys("sleep 1; exit 5")), ("well", &well())]);
    let row = home.until("it has ended", || home.containers("end").into_iter().find(|row| row["state"] == "backoff"));
    assert!(row["reason"].as_str().unwrap().contains("code 5"), "{row}");
    home.eventually("only the neighbour is left", || of_workers(&home).len() == 1);
    assert_eq!(home.pids("well"), neighbour);
    home.finish();
}

/// What a process has written since it started, in bytes.
fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or_default()
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_worker_that_floods_its_stderr_without_line_breaks_fills_neither_memory_nor_disk_and_delays_nobody() {
    let home = Home::new();
    let manager = home.serve_with(&format!("{}log_bytes = \"256KiB\"\nlog_files = 3\n", home.settings()));
    let port = home.port();
    let web = format!("command = [\"{FAULTY}\", \"serve\"]\nports.http = {{ service = {port} }}");
    apply(&home, &[("flood", &format!("command = [\"{FAULTY}\", \"flood\"]")), ("web", &web)]);
    let neighbour = home.settled("web", 1);
    let flood = *home.settled("flood", 1).values().next().unwrap();
    let client = Client::with_new_connections(port);
    home.eventually("a lot was written", || written(flood) > 256 << 20);
    client.stop_after(20);
    let keeper = home.keepers().remove(0);
    for (what, bytes, most) in [
        ("the keeper's memory", keeper.memory(), 32 << 20),
        ("the Manager's memory", cocktail_tests::Process::find(manager.pid()).unwrap().memory(), 64 << 20),
        ("the logs", bytes_below(&home.data_dir().join("logs")), 2 << 20),
    ] {
        assert!(bytes < most, "{what}: {bytes} bytes");
    }
    let id = only(&home, "flood")["id"].as_str().unwrap().to_owned();
    assert!(home.ok(&["logs", "--tail", "1", &id]).stdout.len() < 1 << 20);
    let before = written(flood);
    home.eventually("it is not held up", || written(flood) > before + (1 << 20));
    assert_eq!(home.pids("web"), neighbour);
    home.ok(&["stop", "--wait", "flood"]);
    home.finish();
}

#[test]
fn a_worker_that_exits_at_once_is_started_ever_more_rarely_and_called_a_crash_loop() {
    let keys = "command = [\"sh\", \"-c\", \"exit 3\"]\nrestart = { base = \"100ms\", max = \"800ms\" }";
    let (home, _manager) = applied(&[("crash", keys), ("well", &well())]);
    let neighbour = home.settled("well", 1);
    home.eventually("it has crashed some times", || only(&home, "crash")["restarts"].as_u64() >= Some(6));
    let row = home.until("it waits", || Some(only(&home, "crash")).filter(|row| row["state"] == "backoff"));
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.contains("crash loop") && reason.contains("code 3"), "{row}");
    assert!(says(&home, row["id"].as_str().unwrap(), &["code 3"]));
    // Never sooner than three quarters of the doubled pause: what the journal says, not how fast this machine is.
    let events = home.run(&["-o", "json", "events", row["id"].as_str().unwrap()]).json_lines();
    let at = |event: &serde_json::Value| event["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let exits: Vec<_> = events.iter().filter(|event| event["kind"] == "exited").map(at).collect();
    let starts: Vec<_> = events.iter().filter(|event| event["kind"] == "start-intended").map(at).collect();
    for (number, (exit, start)) in exits.iter().zip(&starts[1..]).enumerate() {
        let least = 75 * (1 << number.min(3));
        let pause = start.as_millisecond() - exit.as_millisecond();
        assert!(pause >= least, "restart {} came after {pause} ms, not {least} ms", number + 1);
    }
    assert!(starts.len() >= 6, "{starts:?}");
    assert_eq!(home.pids("well"), neighbour);
    home.finish();
}

#[test]
fn a_worker_that_never_becomes_ready_is_started_again_after_its_time_with_what_the_probe_saw() {
    let keys = "command = [\"sleep\", \"1000\"]\nports.http = {}\nupdate = { progress = \"1s\" }\n\
                stop = { grace = \"1s\" }\nrestart = { base = \"100ms\", max = \"100ms\" }";
    let (home, _manager) = applied(&[("slow", keys), ("well", &well())]);
    home.settled("well", 1);
    home.eventually("it has had its time", || only(&home, "slow")["restarts"].as_u64() >= Some(2));
    let row = only(&home, "slow");
    assert_eq!(row["ready"], false);
    assert_eq!(home.unit("slow").unwrap()["ready"], 0);
    // On a machine that is busy the time can be over before a probe has seen anything; then the next start tells.
    let id = row["id"].as_str().unwrap();
    home.eventually("it says what the probe saw", || says(&home, id, &["not ready within 1s", "listens on no port"]));
    let waiting = home.until("it is loading", || Some(only(&home, "slow")).filter(|row| row["state"] == "loading"));
    assert!(!waiting["reason"].as_str().unwrap().is_empty(), "{waiting}");
    assert_eq!(home.containers("well").len(), 1);
    home.finish();
}

#[test]
fn a_worker_that_listens_on_another_port_than_it_was_told_is_told_which() {
    let home = Home::new();
    let _manager = home.serve();
    let wrong = home.port();
    apply(&home, &[("astray", &format!("command = [\"{FAULTY}\", \"serve\", \"{wrong}\"]\nports.http = {{}}"))]);
    home.eventually("the reason names the port", || {
        let row = only(&home, "astray");
        row["state"] == "loading" && row["reason"].as_str().unwrap().contains(&format!("listens on {wrong} instead"))
    });
    home.finish();
}

#[test]
fn a_worker_that_exits_between_two_probes_is_started_again_in_place_at_once() {
    let probe = "ready = { tcp = true, every = \"100ms\" }\nlive = { http = \"/healthy\", every = \"1h\" }\n";
    let (home, _manager) = applied(&[("web", &format!("{}\n{probe}restart = {{ base = \"0ms\" }}", well()))]);
    home.settled("web", 1);
    let before = only(&home, "web");
    http::get(port_of(&before), "/exit?7").ok();
    let after = ready_again(&home, "web", 2);
    assert_eq!((&before["id"], &before["ports"]), (&after["id"], &after["ports"]), "in place");
    assert!(says(&home, after["id"].as_str().unwrap(), &["code 7"]));
    home.finish();
}

#[test]
fn a_worker_whose_liveness_probe_fails_is_started_again_in_place() {
    let live = "live = { http = \"/healthy\", every = \"100ms\", failures = 2 }\nrestart = { base = \"100ms\" }";
    let (home, _manager) = applied(&[("ill", &format!("{}\n{live}", well())), ("well", &well())]);
    let neighbour = home.settled("well", 1);
    home.settled("ill", 1);
    let before = only(&home, "ill");
    http::get(port_of(&before), "/sicken").unwrap();
    let after = ready_again(&home, "ill", 2);
    assert_eq!((&before["id"], &before["ports"]), (&after["id"], &after["ports"]), "in place");
    assert!(says(&home, after["id"].as_str().unwrap(), &["liveness probe failed", "503"]));
    assert_eq!(home.pids("well"), neighbour);
    home.finish();
}

#[test]
fn a_worker_that_stands_still_fails_its_liveness_probe_and_is_killed() {
    let live = "live = { http = \"/healthy\", every = \"100ms\", timeout = \"200ms\", failures = 2 }\n\
                stop = { grace = \"300ms\" }\nrestart = { base = \"100ms\" }";
    let (home, _manager) = applied(&[("still", &format!("{}\n{live}", well()))]);
    let pid = *home.settled("still", 1).values().next().unwrap();
    cocktail_tests::process::signal_pid(pid, Signal::STOP);
    ready_again(&home, "still", 2);
    assert_eq!(of_workers(&home).len(), 1, "the stopped one is gone");
    home.finish();
}
