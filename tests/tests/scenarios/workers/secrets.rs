//! Secrets reach the worker, and nothing else.

use std::fs;
use std::path::Path;

use cocktail_tests::process::signal_pid;
use cocktail_tests::{Home, http};
use rustix::process::Signal;

use super::{apply, only, port_of, ready_again, well};

/// Values that must be found nowhere.
const CANARIES: [&str; 3] = ["canary-of-a-file", "canary-of-a-variable", "canary-of-env-from"];

#[track_caller]
fn clean(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary} in {what}");
    }
}

/// Every file below a folder.
fn files_are_clean(folder: &Path) -> usize {
    let mut looked = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            looked += files_are_clean(&entry.path());
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            clean(&entry.path().to_string_lossy(), &String::from_utf8_lossy(&bytes));
            looked += 1;
        }
    }
    looked
}

#[test]
fn a_secret_is_in_the_workers_environment_and_in_nothing_that_is_shown_logged_or_stored() {
    let home = Home::new();
    let file = home.base().join("out/key");
    fs::write(&file, format!("{}\n", CANARIES[0])).unwrap();
    let settings = home.write("settings.toml", home.settings());
    let mut command = home.command(&["--config", &settings.to_string_lossy(), "serve"]);
    command.env("API_KEY", CANARIES[1]).env("FROM", CANARIES[2]).env("COCKTAIL_LOG", "trace");
    home.expect_keepers();
    let manager = home.spawn_command(command);
    home.eventually("the Manager answers", || home.manager_pid().is_some());
    let more = format!(
        "secrets.FILE_KEY = {{ file = \"{}\" }}\nsecrets.ENV_KEY = {{ env = \"API_KEY\" }}\nenv_from = [\"FROM\"]\n\
         restart = {{ base = \"100ms\", max = \"200ms\" }}",
        file.display()
    );
    apply(&home, &[("web", &format!("{}\n{more}", well()))]);
    let pid = *home.settled("web", 1).values().next().unwrap();
    let row = only(&home, "web");
    let seen = http::get(port_of(&row), "/environment").unwrap().body;
    for (name, canary) in [("FILE_KEY", CANARIES[0]), ("ENV_KEY", CANARIES[1]), ("FROM", CANARIES[2])] {
        assert!(seen.lines().any(|line| line == format!("{name}={canary}")), "{name}");
    }

    // A start that fails for want of the secret says which, and a later one takes the new value.
    let aside = file.with_extension("aside");
    fs::rename(&file, &aside).unwrap();
    signal_pid(pid, Signal::KILL);
    home.eventually("the reason names the file", || {
        let row = only(&home, "web");
        row["state"] == "backoff" && row["reason"].as_str().unwrap().contains("FILE_KEY")
    });
    fs::rename(&aside, &file).unwrap();
    home.settled("web", 1);
    let id = only(&home, "web")["id"].as_str().unwrap().to_owned();
    let generation = only(&home, "web")["generation"].as_u64().unwrap();
    ready_again(&home, "web", generation);
    home.ok(&["exec", &id, "--", "true"]);

    for args in [
        &["inspect", &id][..],
        &["inspect", "web"],
        &["why", &id],
        &["why", "web"],
        &["events"],
        &["ops"],
        &["ps"],
        &["units"],
        &["servers"],
        &["logs", &id],
    ] {
        clean(&args.join(" "), &home.ok(args).stdout);
        if args[0] != "logs" {
            clean(&args.join(" "), &home.run(&[&["-o", "json"], args].concat()).ok().stdout);
        }
    }
    clean("the log of the Manager", &manager.said());
    assert!(manager.said().contains("a manager takes over"), "there is a log");
    let keeper = home.keepers().remove(0);
    clean("the keeper's command line and environment", &format!("{} {:?}", keeper.command, keeper.environment));
    // Also what is written at the end: a snapshot.
    manager.end(Signal::TERM).ok();
    assert!(files_are_clean(&home.data_dir()) > 3);
    let _manager = home.serve();
    home.finish();
}
