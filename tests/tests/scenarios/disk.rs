//! A data dir on a disk that is full, for real: a small tmpfs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocktail_tests::process::signal_pid;
use cocktail_tests::{Client, Home};
use rustix::process::Signal;

use crate::workers::FAULTY;

/// A tmpfs at a path, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status().unwrap();
        assert!(status.success());
        Self(at.to_owned())
    }

    /// Takes all room that is left, and goes on taking it while `wanted` says so.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("somebody-elses");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for size in [1 << 20, 4 << 10, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still has a file open there keeps it until it ends.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn generation(home: &Home, container: &str) -> u64 {
    let rows = home.ps();
    rows.iter().find(|row| row["id"] == container).and_then(|row| row["generation"].as_u64()).unwrap_or_default()
}

#[test]
fn on_a_full_disk_commands_are_refused_workers_go_on_and_all_recovers_when_there_is_room_again() {
    xtask::skip_if!(NoTmpfsMount);
    let home = Home::new();
    let disk = SmallDisk::mount(&home.data_dir(), "24m");
    let manager = home.serve();
    let port = home.port();
    let keys = format!("command = [\"{FAULTY}\", \"serve\"]\nreplicas = 2\nports.http = {{ service = {port} }}\n");
    let file = home.write(
        "web.toml",
        format!("service = \"shop\"\n[maps.prod.units.web]\n{keys}restart = {{ base = \"100ms\", max = \"200ms\" }}\n"),
    );
    home.ok(&["apply", "--wait", &file.to_string_lossy()]);
    let before = home.settled("web", 2);
    let client = Client::with_new_connections(port);

    let filled = disk.fill();
    // Large commands, since the store has some room of its own.
    let bulk = |number: u64| {
        let text = number.to_string().repeat(100_000);
        let unit =
            format!("[maps.bulk.units.bulk]\ncommand = [\"true\"]\nreplicas = 0\nenv = {{ TEXT = \"{text}\" }}\n");
        let file = home.write("bulk.toml", format!("service = \"shop\"\n{unit}"));
        home.run(&["apply", &file.to_string_lossy()])
    };
    let mut acknowledged = 0;
    let said = home.until("a command is refused", || {
        let output = bulk(acknowledged + 1);
        if output.code() == 0 {
            acknowledged += 1;
            // What was free again after a commit is not.
            disk.fill();
            return None;
        }
        Some(output.fails(4))
    });
    assert!(said.contains("full"), "{said}");
    let view = home.json(&["version"]);
    assert_eq!(view["manager"]["state"], "degraded", "{view}");

    assert_eq!(home.pids("web"), before, "workers go on");
    let (container, _) = before.first_key_value().unwrap();
    for round in 1..=3 {
        let killed = home.pids("web")[container];
        signal_pid(killed, Signal::KILL);
        home.eventually("a dead worker is started again", || {
            generation(&home, container) > round && home.pids("web").get(container).is_some_and(|pid| *pid != killed)
        });
        disk.fill();
    }
    let file = home.write("more.toml", "service = \"shop\"\n[maps.more.units.idle]\ncommand = [\"sleep\", \"1000\"]\n");
    assert!(home.run(&["apply", &file.to_string_lossy()]).fails(4).contains("full"));
    assert!(home.run(&["scale", "web", "3"]).fails(4).contains("full"));
    let as_acknowledged = |home: &Home| {
        let bulk = home.unit("bulk").and_then(|unit| unit["revision"].as_u64()).unwrap_or_default();
        assert_eq!(bulk, acknowledged);
        assert_eq!(home.unit("web").unwrap()["desired"], 2);
    };
    as_acknowledged(&home);

    fs::remove_file(filled).unwrap();
    home.eventually("a command is taken again", || home.run(&["apply", &file.to_string_lossy()]).code() == 0);
    assert_eq!(home.manager_pid(), Some(manager.pid()), "the same Manager");
    home.settled("idle", 1);
    home.settled("web", 2);
    as_acknowledged(&home);
    home.eventually("nothing is amiss", || home.json(&["version"])["manager"]["state"] == "running");
    client.stop();
    // All that was acknowledged is there for the next one, too.
    manager.kill();
    let _manager = home.serve();
    home.settled("web", 2);
    home.settled("idle", 1);
    as_acknowledged(&home);
    home.finish();
    drop(disk);
}
