//! What breaks under containers: their engine, its disk, and the Manager that does not see who removes them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::process::Command;

use cocktail_tests::process::signal_pid;
use rustix::process::Signal;
use xtask::skip_if;

use super::Stage;

/// Enough for the engine, its image and some containers.
const DISK: &str = "64m";

#[test]
fn what_somebody_removes_while_the_manager_stands_still_is_there_again() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let manager = stage.serve();
    stage.apply("one");
    let home = &stage.home;
    home.settled("web", 3);
    let ids = |one: &serde_json::Value| one["docker_id"].as_str().unwrap().to_owned();
    let mut before: Vec<String> = home.containers("web").iter().map(ids).collect();

    manager.signal(Signal::STOP);
    let stays = before.pop().unwrap();
    for id in &before {
        stage.engine.docker(&["rm", "--force", id]).unwrap();
    }
    // What it was told meanwhile is more than the events of its engine.
    let foreign = stage.engine.docker(&["run", "--detach", super::IMAGE, "sleep", "600"]).unwrap();
    manager.signal(Signal::CONT);

    home.eventually("two others run beside the one that nobody has touched", || {
        let now: Vec<String> = match home.settled("web", 3).len() {
            3 => home.containers("web").iter().map(ids).collect(),
            _ => Vec::new(),
        };
        now.len() == 3 && now.contains(&stays) && before.iter().all(|gone| !now.contains(gone))
    });
    assert_eq!((stage.answer(), stage.left()), ("one".into(), [3, 1, 3]));
    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    assert_eq!(stage.engine.docker(&["ps", "-q", "--no-trunc"]).unwrap(), foreign, "it is nobody's of ours");
    stage.home.finish();
}

/// The engine takes all containers with it, old ones and new ones: none of them is to blame.
#[test]
fn an_update_goes_on_after_its_engine_died() {
    skip_if!(NoDockerEngine);
    let mut stage = Stage::new();
    let _manager = stage.serve();
    stage.apply("one");
    stage.home.settled("web", 3);
    stage.apply("two");
    let revisions = |stage: &Stage| {
        let all = stage.home.containers("web");
        let ready = all.iter().filter(|one| one["state"] == "ready");
        ready.filter_map(|one| one["revision"].as_u64()).collect::<Vec<_>>()
    };
    stage.home.eventually("one container is of the new version, and others are of the old one", || {
        let ready = revisions(&stage);
        ready.contains(&1) && ready.contains(&2)
    });
    stage.engine.crash().unwrap();
    stage.engine.start_again(&[]).unwrap();

    let home = &stage.home;
    home.eventually("all are of the new version", || {
        home.settled("web", 3).len() == 3 && revisions(&stage) == [2, 2, 2] && stage.left() == [3, 1, 3]
    });
    assert_eq!(stage.answer(), "two");
    let back: Vec<String> = home.why("web").into_iter().filter(|why| why.contains("going back")).collect();
    assert_eq!(back, Vec::<String>::new());
    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

#[test]
fn a_full_disk_of_an_engine_stops_nothing_that_runs_and_is_said_until_there_is_room() {
    skip_if!(NoDockerEngine);
    let stage = Stage::on_disk(DISK);
    let _manager = stage.serve();
    stage.apply("one");
    let home = &stage.home;
    let before = home.settled("web", 3);
    let filler = fill(&stage.folder.path().join("d"));

    home.ok(&["scale", "web", "5"]);
    home.eventually("whoever looks is told what is wrong", || {
        let says = |one: &serde_json::Value| one["reason"].as_str().is_some_and(|it| it.contains("no space left"));
        home.containers("web").iter().any(says)
    });
    // One that dies meanwhile cannot be replaced; the others serve.
    let (victim, pid) = before.iter().next().unwrap();
    signal_pid(*pid, Signal::KILL);
    home.eventually("the one that died is known to be gone", || !home.pids("web").contains_key(victim));
    for (id, pid) in before.iter().skip(1) {
        assert_eq!(home.pids("web").get(id), Some(pid), "{id} went on");
    }
    assert_eq!(stage.answer(), "one");

    fs::remove_file(filler).unwrap();
    home.eventually("everything runs", || home.settled("web", 5).len() == 5 && stage.left() == [5, 1, 5]);
    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

/// What has the name of a full disk: not a byte more can be written below a folder until the file is gone.
fn fill(folder: &std::path::Path) -> std::path::PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![0; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
    }
    path
}

/// Has a folder on a disk of this size.
pub(super) fn mount(folder: &std::path::Path, size: &str) {
    fs::create_dir_all(folder).unwrap();
    let options = format!("size={size}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).status().unwrap();
    assert!(mounted.success(), "no file system for the engine");
}
