//! A data dir that is not what it was: in use, emptied, exchanged, copied, put back from an old copy, or from the future.
//!
//! In each case the workers and ports of whoever runs are not touched, and the answer says what to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use cocktail_tests::{Home, Manager, Process, http};
use redb::{Database, TableDefinition};
use rustix::process::Signal;

use crate::web;

/// A Home with three containers of `web`, its Manager, its service port and its processes.
fn with_web() -> (Home, Manager, u16, BTreeMap<String, u32>) {
    let home = Home::new();
    let manager = home.serve();
    let port = home.port();
    apply(&home, port, 3);
    let pids = home.settled("web", 3);
    (home, manager, port, pids)
}

fn apply(home: &Home, port: u16, replicas: u32) {
    let file = home.write("web.toml", format!("service = \"shop\"\n{}", web(port, replicas, "first")));
    home.ok(&["apply", "--wait", &file.to_string_lossy()]);
}

/// Everything that runs in containers, whoever knows of it: process ids and when each was started.
fn running(home: &Home) -> Vec<(u32, u64)> {
    let mut all: Vec<_> = home.workers().iter().map(|process| (process.pid, process.started)).collect();
    all.sort_unstable();
    all
}

/// What must be as before: the processes themselves, and who answers at the service port.
#[track_caller]
fn untouched(home: &Home, before: &[(u32, u64)], port: u16) {
    assert_eq!(running(home), before, "workers were touched");
    for _ in 0..10 {
        assert!(http::get(port, "/").unwrap().body.contains(" first"), "the service port leads elsewhere");
    }
}

/// `serve` is refused, and says something with all of `words` in it.
#[track_caller]
fn refused(home: &Home, words: &[&str]) {
    let said = home.spawn(&["serve"]).wait().fails(4);
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

/// Copies a folder as it is, sockets and pipes included.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("-T").args([from, to]).status().unwrap();
    assert!(status.success());
}

/// Ends workers and keepers that no Manager can end any more.
fn end_by_hand(home: &Home) {
    let (keepers, others): (Vec<_>, Vec<_>) = home.processes().into_iter().partition(Process::is_keeper);
    keepers.iter().chain(&others).for_each(|process| process.signal(Signal::KILL));
    home.eventually("all have ended", || home.processes().is_empty());
}

#[test]
fn a_second_manager_of_a_data_dir_is_refused_with_the_process_of_the_first() {
    let (home, manager, port, _) = with_web();
    let before = running(&home);
    refused(&home, &["already", &manager.pid().to_string()]);
    // Also one that does not ask first: its socket is gone, the lock is not.
    let socket = home.data_dir().join("cocktail.sock");
    fs::rename(&socket, socket.with_extension("aside")).unwrap();
    refused(&home, &["in use", &manager.pid().to_string()]);
    fs::rename(socket.with_extension("aside"), &socket).unwrap();
    untouched(&home, &before, port);
    home.finish();
}

#[test]
fn a_data_dir_of_a_newer_version_is_refused_and_says_which_version_to_run() {
    let (home, manager, port, _) = with_web();
    let before = running(&home);
    manager.end(Signal::TERM).ok();
    let store = home.data_dir().join("store.redb");
    let kept = home.base().join("store.kept");
    fs::copy(&store, &kept).unwrap();
    let facts = TableDefinition::<&str, &[u8]>::new("meta");
    let database = Database::open(&store).unwrap();
    let change = database.begin_write().unwrap();
    {
        let mut table = change.open_table(facts).unwrap();
        table.insert("schema", 99_u64.to_le_bytes().as_slice()).unwrap();
        table.insert("read-by", b"7.5.3".as_slice()).unwrap();
    }
    change.commit().unwrap();
    drop(database);
    refused(&home, &["schema 99", "run cocktail 7.5.3 or newer"]);
    untouched(&home, &before, port);
    fs::copy(&kept, &store).unwrap();
    let _manager = home.serve();
    home.settled("web", 3);
    untouched(&home, &before, port);
    home.finish();
}

#[test]
fn a_store_that_was_exchanged_is_refused_and_the_right_one_goes_on_where_it_was() {
    let (home, manager, port, _) = with_web();
    let before = running(&home);
    let other = Home::new();
    other.serve().end(Signal::TERM).ok();
    manager.end(Signal::TERM).ok();
    let store = home.data_dir().join("store.redb");
    let kept = home.base().join("store.kept");
    fs::rename(&store, &kept).unwrap();
    fs::copy(other.data_dir().join("store.redb"), &store).unwrap();
    refused(&home, &["belong to another store", "put the store of", "back"]);
    untouched(&home, &before, port);
    fs::rename(&kept, &store).unwrap();
    let _manager = home.serve();
    home.settled("web", 3);
    untouched(&home, &before, port);
    home.finish();
    other.finish();
}

#[test]
fn a_lost_store_is_not_replaced_by_an_empty_one_while_its_workers_run() {
    let (home, manager, port, _) = with_web();
    let before = running(&home);
    manager.end(Signal::TERM).ok();
    let store = home.data_dir().join("store.redb");
    let kept = home.base().join("store.kept");
    fs::rename(&store, &kept).unwrap();
    refused(&home, &["belong to another store", "put the store of", "back"]);
    untouched(&home, &before, port);
    fs::rename(&kept, &store).unwrap();
    let _manager = home.serve();
    home.settled("web", 3);
    home.finish();
}

#[test]
fn a_data_dir_that_was_emptied_leaves_the_workers_alone_and_the_answer_names_them() {
    for whole in [false, true] {
        let (home, manager, port, _) = with_web();
        let before = running(&home);
        let keeper = home.keepers()[0].pid;
        manager.end(Signal::TERM).ok();
        let kept = home.base().join("kept");
        copy(&home.data_dir(), &kept);
        if whole {
            fs::remove_dir_all(home.data_dir()).unwrap();
        } else {
            for entry in fs::read_dir(home.data_dir()).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
            }
        }
        refused(&home, &["emptied", "another data dir", &format!("kill {keeper} "), &before[0].0.to_string()]);
        untouched(&home, &before, port);
        end_by_hand(&home);
        let _manager = home.serve();
        assert!(home.ps().is_empty());
        apply(&home, port, 2);
        home.settled("web", 2);
        home.finish();
    }
}

#[test]
fn a_manager_whose_data_dir_is_emptied_under_it_harms_nobody_and_another_one_is_refused() {
    let (home, mut manager, port, _) = with_web();
    let before = running(&home);
    fs::remove_dir_all(home.data_dir()).unwrap();
    assert!(home.run(&["ps"]).fails(6).contains("no Manager"));
    refused(&home, &["emptied", "another data dir"]);
    untouched(&home, &before, port);
    manager.must_run();
    manager.signal(Signal::TERM);
    manager.wait();
    untouched(&home, &before, port);
    end_by_hand(&home);
    home.finish();
}

#[test]
fn an_older_copy_that_was_put_back_is_refused_while_newer_workers_run() {
    // Both ways to put it back: its files into the folder, and the folder as a whole.
    for whole in [false, true] {
        let (home, manager, port, _) = with_web();
        let old = home.base().join("old");
        let new = home.base().join("new");
        manager.kill();
        copy(&home.data_dir(), &old);
        let manager = home.serve();
        apply(&home, port, 5);
        home.settled("web", 5);
        let before = running(&home);
        manager.kill();
        copy(&home.data_dir(), &new);

        put_back(&old, &home.data_dir(), whole);
        let said = home.spawn(&["serve"]).wait().fails(4);
        assert!(said.contains("older copy") || said.contains("is a copy, or was put back"), "{said}");
        assert!(said.contains("not touched"), "{said}");
        untouched(&home, &before, port);

        if !whole {
            put_back(&new, &home.data_dir(), whole);
            let _manager = home.serve();
            home.settled("web", 5);
            untouched(&home, &before, port);
            home.finish();
        } else {
            end_by_hand(&home);
            home.finish();
        }
    }
}

/// Five containers of `web` with three known to the store that was put back, and no Manager.
fn with_older_copy() -> (Home, u16, Vec<(u32, u64)>) {
    let (home, manager, port, _) = with_web();
    manager.kill();
    let old = home.base().join("old");
    copy(&home.data_dir(), &old);
    let manager = home.serve();
    apply(&home, port, 5);
    home.settled("web", 5);
    let before = running(&home);
    manager.kill();
    put_back(&old, &home.data_dir(), false);
    (home, port, before)
}

#[test]
fn an_older_copy_is_refused_however_often_it_is_started_until_a_user_adopts_it() {
    let (home, port, before) = with_older_copy();
    let file = home.write("again.toml", format!("service = \"shop\"\n{}", web(port, 3, "first")));
    // More starts than the newer Managers had: the copy's epoch passes theirs.
    for _ in 0..4 {
        refused(&home, &["older copy", "not touched", "put the newer copy back", "cocktail adopt", "cocktail release"]);
        let said = home.run(&["up", "-d", &file.to_string_lossy()]).fails(4);
        assert!(said.contains("older copy"), "{said}");
        untouched(&home, &before, port);
    }
    let adopted = home.json(&["adopt"]);
    assert_eq!(adopted.as_array().map(Vec::len), Some(5), "{adopted}");
    untouched(&home, &before, port);
    let manager = home.serve();
    home.settled("web", 3);
    let server = home.json(&["servers"])[0]["id"].as_str().unwrap().to_owned();
    let inspected = home.json(&["inspect", &server]);
    let unknown = inspected["unknown"].as_array().unwrap();
    assert_eq!(unknown.len(), 2, "{unknown:?}");
    assert!(unknown.iter().all(|worker| worker["state"] == "running" && worker["pid"].is_u64()), "{unknown:?}");
    untouched(&home, &before, port);
    // They outlive what the Manager ends, and its restarts.
    manager.kill();
    let manager = home.serve();
    home.ok(&["stop", "--wait", "web"]);
    assert_eq!(running(&home).len(), 2);
    manager.kill();
    let released = home.json(&["release"]);
    let ended = released.as_array().unwrap().iter().filter(|worker| worker["pid"].is_u64());
    assert_eq!(ended.count(), 2, "{released}");
    assert_eq!(running(&home), []);
    home.finish();
}

#[test]
fn a_release_names_what_runs_ends_it_and_frees_the_data_dir() {
    let (home, port, before) = with_older_copy();
    let released = home.run(&["release"]).ok();
    assert_eq!(running(&home), []);
    for (pid, _) in before {
        assert!(released.stderr.contains(&format!("(process {pid})")), "{}", released.stderr);
    }
    assert!(home.run(&["release"]).ok().stderr.contains("nothing runs"));
    let _manager = home.serve();
    home.settled("web", 3);
    assert!(http::get(port, "/").unwrap().body.contains(" first"));
    // With a Manager there are better ways.
    assert!(home.run(&["release"]).fails(4).contains("cocktail down"));
    assert!(home.run(&["adopt"]).fails(4).contains("a Manager runs"));
    home.finish();
}

#[test]
fn a_release_ends_the_workers_of_a_store_that_is_lost() {
    let (home, manager, _, _) = with_web();
    manager.end(Signal::TERM).ok();
    fs::remove_file(home.data_dir().join("store.redb")).unwrap();
    refused(&home, &["belong to another store", "cocktail release"]);
    assert!(home.run(&["adopt"]).fails(4).contains("another store"));
    home.ok(&["release"]);
    assert_eq!(running(&home), []);
    let _manager = home.serve();
    assert!(home.ps().is_empty());
    home.finish();
}

/// Puts a copy in the place of a data dir. Not `whole`: only the files, as a backup without sockets would.
fn put_back(from: &Path, data_dir: &Path, whole: bool) {
    if whole {
        fs::remove_dir_all(data_dir).unwrap();
        copy(from, data_dir);
    } else {
        fs::copy(from.join("store.redb"), data_dir.join("store.redb")).unwrap();
    }
}

#[test]
fn a_copy_beside_the_original_is_refused_while_the_workers_of_the_original_run() {
    let (home, manager, port, pids) = with_web();
    let before = running(&home);
    let aside = home.base().join("aside");
    copy(&home.data_dir(), &aside);
    let aside = aside.to_string_lossy();
    let said = home.spawn(&["--data-dir", &aside, "serve"]).wait().fails(4);
    assert!(said.contains("is a copy") && said.contains("use the data dir that they belong to"), "{said}");
    untouched(&home, &before, port);
    // Also without the Manager of the original, and without any keeper: the workers are what counts.
    manager.kill();
    home.spawn(&["--data-dir", &aside, "serve"]).wait().fails(4);
    home.keepers().iter().for_each(|keeper| keeper.signal(Signal::KILL));
    home.eventually("the keeper is gone", || home.keepers().is_empty());
    home.spawn(&["--data-dir", &aside, "serve"]).wait().fails(4);
    assert_eq!(running(&home), before);
    let _manager = home.serve();
    assert_eq!(home.settled("web", 3), pids);
    home.finish();
}

#[test]
fn a_copy_of_a_data_dir_whose_workers_have_ended_is_its_own_master() {
    let (home, manager, _, _) = with_web();
    home.ok(&["stop", "--wait", "web"]);
    manager.kill();
    home.keepers().iter().for_each(|keeper| keeper.signal(Signal::KILL));
    home.eventually("the keeper is gone", || home.keepers().is_empty());
    let aside = home.base().join("aside");
    copy(&home.data_dir(), &aside);
    let aside = aside.to_string_lossy();
    let manager = home.spawn(&["--data-dir", &aside, "serve"]);
    home.eventually("the copy answers", || home.run(&["--data-dir", &aside, "ps"]).code() == 0);
    home.ok(&["--data-dir", &aside, "down"]);
    manager.kill();
    let _manager = home.serve();
    assert!(home.unit("web").is_some(), "the original is as it was");
    home.finish();
}
