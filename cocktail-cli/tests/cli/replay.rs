//! `replay` beside a Manager, and after its death.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::Folder;

/// Files of the data dir with their content; sockets and pipes by their names.
fn content(folder: &Folder) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder.state("")).unwrap().map(|entry| entry.unwrap().path());
    let mut content: Vec<_> = entries
        .map(|path| (path.clone(), if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() }))
        .collect();
    content.sort();
    content
}

#[test]
fn a_past_moment_is_shown_while_the_manager_runs_and_after_it_was_killed() {
    let folder = Folder::new();
    let (serve, _) = folder.stay("serve -o json");
    assert_eq!(folder.run("apply empty.toml").code, Some(0));
    let applied = folder.run("events -o json").data.lines().count();
    assert!(applied >= 2, "{applied}");
    let alive = folder.run("replay -o json");
    assert_eq!((alive.code, alive.json()["state"]["units"][0]["unit"].as_str()), (Some(0), Some("web")), "{alive:?}");
    let first = folder.run("replay .cocktail --until seq:1 -o json").json();
    assert_eq!((first["seq"].as_u64(), first["state"]["units"].as_array().map(Vec::len)), (Some(1), Some(0)));
    serve.end(Signal::KILL);
    let before = content(&folder);
    let dead = folder.run("replay -o json");
    assert_eq!(dead.json()["state"], alive.json()["state"], "{dead:?}");
    let page = folder.run("replay .cocktail --until seq:2 --object web");
    assert_eq!(page.code, Some(0), "{page:?}");
    assert!(page.data.starts_with("turn 2 of ") && page.data.contains("applied by uid"), "{page:?}");
    assert!(content(&folder) == before, "looking has changed the data dir");
}

#[test]
fn what_is_not_there_is_refused_with_what_there_is() {
    let folder = Folder::new();
    assert_eq!(folder.run("replay").code, Some(6));
    let nowhere = folder.run("replay nowhere");
    assert!(nowhere.code == Some(3) && nowhere.people.contains("nowhere"), "{nowhere:?}");
    assert!(!folder.path().join("nowhere").exists());
    let (serve, _) = folder.stay("serve -o json");
    let early = folder.run("replay --until 2001-01-01T00:00:00Z");
    assert!(early.code == Some(3) && early.people.contains("the oldest moment is turn 1, at 20"), "{early:?}");
    assert_eq!(folder.run("replay --until yesterday").code, Some(2));
    assert_eq!(serve.end(Signal::TERM), Some(0));
}
