//! What workers start with, and what keeps them from it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use cocktail_tests::process::signal_pid;
use cocktail_tests::{Home, http};
use rustix::process::Signal;

use super::{FAULTY, applied, apply, only, port_of, ready_again, says, well};

#[test]
fn a_worker_sees_the_documented_environment_and_nothing_else() {
    let home = Home::new();
    let settings = home.write("settings.toml", home.settings());
    let mut command = home.command(&["--config", &settings.to_string_lossy(), "serve"]);
    command.env("WANTED", "yes").env("STRAY", "no").env("TZ", "UTC").env("LD_LIBRARY_PATH", "/nowhere");
    home.expect_keepers();
    let _manager = home.spawn_command(command);
    home.eventually("the Manager answers", || home.manager_pid().is_some());
    let more = "env = { GREETING = \"hi ${CONTAINER}\" }\nenv_from = [\"WANTED\"]\nports.second = {}\n\
                volumes.my-data = { mount = \"data\", kind = \"exclusive\" }";
    apply(&home, &[("web", &format!("{}\n{more}", well()))]);
    home.settled("web", 1);
    let row = only(&home, "web");
    let text = http::get(port_of(&row), "/environment").unwrap().body;
    let seen: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let id = row["id"].as_str().unwrap();
    let port = |at: usize| row["ports"][at]["port"].to_string();
    let (greeting, first, second) = (format!("hi {id}"), port(0), port(1));
    let path = std::env::var("PATH").unwrap();
    let base = home.base().to_string_lossy().into_owned();
    let server = row["server"].as_str().unwrap();
    let volume = seen["COCKTAIL_VOLUME_MY_DATA"];
    assert!(fs::metadata(volume).unwrap().is_dir());
    let expected = BTreeMap::from([
        ("PATH", path.as_str()),
        ("HOME", &base),
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("GREETING", &greeting),
        ("WANTED", "yes"),
        ("PORT", &first),
        ("COCKTAIL_PORT_HTTP", &first),
        ("COCKTAIL_PORT_SECOND", &second),
        ("COCKTAIL_CONTAINER", id),
        ("COCKTAIL_UNIT", "shop/prod/web"),
        ("COCKTAIL_SERVER", server),
        ("COCKTAIL_REVISION", "1"),
        ("COCKTAIL_VOLUME_MY_DATA", volume),
        // By these two a keeper knows a worker again.
        ("COCKTAIL_GENERATION", "1"),
        ("COCKTAIL_MARKER", seen["COCKTAIL_MARKER"]),
    ]);
    assert_eq!(seen, expected);
    home.finish();
}

#[test]
fn a_worker_inherits_its_three_streams_and_no_other_descriptor() {
    let nobody = format!("{}\nresources = {{ memory = \"64MiB\" }}\nrlimits = {{ nofile = 64 }}", well());
    let (home, _manager) = applied(&[("plain", &well()), ("limited", &nobody)]);
    for unit in ["plain", "limited"] {
        home.settled(unit, 1);
        let text = http::get(port_of(&only(&home, unit)), "/descriptors").unwrap().body;
        let mut numbers: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, ["0", "1", "2"], "{unit}: {text}");
    }
    home.finish();
}

#[test]
fn a_worker_whose_folder_vanishes_fails_to_start_with_its_name_and_comes_back_with_it() {
    let (home, _manager) = applied(&[]);
    let folder = home.root().join("place");
    fs::create_dir(&folder).unwrap();
    apply(
        &home,
        &[("web", &format!("{}\ncwd = \"place\"\nrestart = {{ base = \"100ms\", max = \"200ms\" }}", well()))],
    );
    let pid = *home.settled("web", 1).values().next().unwrap();
    fs::remove_dir(&folder).unwrap();
    signal_pid(pid, Signal::KILL);
    let shown = folder.to_string_lossy().into_owned();
    let row = home.until("the reason names the folder", || {
        Some(only(&home, "web"))
            .filter(|row| row["state"] == "backoff" && row["reason"].as_str().unwrap().contains(&shown))
    });
    assert!(says(&home, row["id"].as_str().unwrap(), &[&shown]));
    fs::create_dir(&folder).unwrap();
    assert_eq!(home.settled("web", 1).len(), 1);
    home.finish();
}

#[test]
fn a_worker_of_another_user_runs_as_that_user_and_says_what_that_user_may_not() {
    xtask::skip_if!(NotRoot);
    let (home, _manager) = applied(&[]);
    let open = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(home.base(), 0o755);
    let folder = home.root().join("place");
    fs::create_dir(&folder).unwrap();
    // A copy that everybody may run, wherever the original is.
    let program = home.root().join("program");
    fs::copy(FAULTY, &program).unwrap();
    let program = program.to_string_lossy().into_owned();
    let keys = format!(
        "command = [\"{program}\", \"serve\"]\nuser = \"nobody\"\ncwd = \"place\"\nports.http = {{}}\n\
         restart = {{ base = \"100ms\", max = \"200ms\" }}"
    );
    apply(&home, &[("web", &keys)]);
    let pid = *home.settled("web", 1).values().next().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert!(field("Uid:").split_whitespace().all(|id| id != "0"), "{status}");
    assert!(field("Gid:").split_whitespace().all(|id| id != "0"), "{status}");
    assert!(field("Groups:").split_whitespace().all(|id| id != "0"), "{status}");
    assert_eq!(field("NoNewPrivs:"), "1");
    open(&folder, 0o700);
    signal_pid(pid, Signal::KILL);
    let shown = folder.to_string_lossy().into_owned();
    home.eventually("the reason names the folder", || {
        let row = only(&home, "web");
        row["state"] == "backoff" && row["reason"].as_str().unwrap().contains(&shown)
    });
    open(&folder, 0o755);
    home.settled("web", 1);
    home.finish();
}

#[test]
fn a_program_that_vanishes_is_named_and_is_started_when_it_is_there_again() {
    let (home, _manager) = applied(&[]);
    let program = home.root().join("program");
    fs::copy(FAULTY, &program).unwrap();
    let shown = program.to_string_lossy().into_owned();
    let keys = format!(
        "command = [\"{shown}\", \"serve\"]\nports.http = {{}}\nrestart = {{ base = \"100ms\", max = \"200ms\" }}"
    );
    apply(&home, &[("web", &keys), ("well", &well())]);
    let neighbour = home.settled("well", 1);
    let pid = *home.settled("web", 1).values().next().unwrap();
    let aside = home.root().join("aside");
    fs::rename(&program, &aside).unwrap();
    signal_pid(pid, Signal::KILL);
    home.eventually("the reason names the program", || {
        let row = only(&home, "web");
        row["state"] == "backoff" && row["reason"].as_str().unwrap().contains(&shown)
    });
    fs::rename(&aside, &program).unwrap();
    home.settled("web", 1);
    assert_eq!(home.pids("well"), neighbour);
    assert_eq!(ready_again(&home, "well", 1)["restarts"], 0);
    home.finish();
}
