//! Start, end, usage and refusals.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{EMPTY, Folder, Run, runs};

#[test]
fn without_a_manager_commands_end_with_6_and_say_what_to_do() {
    let folder = Folder::new();
    for command in ["ps", "units -o json", "why web", "down", "logs web", "apply empty.toml", "plan empty.toml"] {
        let run = folder.run(command);
        assert_eq!((run.code, run.data.as_str()), (Some(6), ""), "{command}");
        assert!(run.people.contains("cocktail up"), "{command}: {run:?}");
    }
    assert!(!folder.path().join(".cocktail").exists(), "a command that cannot begin anything made a folder");
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let folder = Folder::new();
    assert_eq!(folder.run("fly").code, Some(2));
    assert_eq!(folder.run("ps -o yaml").code, Some(2));
    let run = folder.run("--help");
    assert_eq!((run.code, run.people.as_str()), (Some(0), ""));
    assert!(run.data.contains("Exit codes: 0 done"), "{}", run.data);
}

#[test]
fn a_bad_manifest_is_shown_with_its_place_and_nothing_is_changed() {
    let folder = Folder::new();
    folder.write("bad.toml", EMPTY.replace("replicas", "replica"));
    let expected = "\
error: unknown key `replica`
 --> bad.toml:4:1
  |
4 | replica = 0
  | ^^^^^^^
  |
  = help: did you mean `replicas`?
";
    for command in ["manifest check bad.toml", "up bad.toml", "up -d empty.toml bad.toml"] {
        let run = folder.run(command);
        assert_eq!((run.code, run.data.as_str(), run.people.as_str()), (Some(2), "", expected), "{command}");
    }
    assert!(!folder.path().join(".cocktail").exists());
}

#[test]
fn files_that_are_no_manifests_end_with_2() {
    let folder = Folder::new();
    folder.write("garbage", "x".repeat(10 << 20));
    folder.write("deep", format!("a = {}", "[".repeat(100_000)));
    folder.write("binary", [0xff; 100]);
    folder.write("nothing", "");
    for file in ["garbage", "deep", "binary", "nothing", "missing", "."] {
        for command in ["manifest check", "up"] {
            let run = folder.run(&format!("{command} {file}"));
            assert_eq!(run.code, Some(2), "{command} {file}: {run:?}");
            assert!(run.people.contains(file) && run.people.len() < 2_000, "{command} {file}: {run:?}");
        }
    }
    assert!(!folder.path().join(".cocktail").exists());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    for command in ["completions bash", "manifest schema", "version"] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = folder.command(command).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{command}");
    }
}

#[test]
fn doctor_answers_as_json() {
    let folder = Folder::new();
    let run = folder.run("doctor -o json");
    assert_eq!(run.json()[0]["check"], "kernel", "{run:?}");
}

#[test]
fn serve_tells_its_socket_and_leaves_nothing_of_itself_behind() {
    let folder = Folder::new();
    let (serve, line) = folder.stay("serve -o json");
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let socket = folder.state("cocktail.sock");
    assert_eq!(told["socket"], socket.to_str().unwrap());
    let about = folder.run("version -o json").json();
    assert_eq!(about["manager"]["pid"], told["pid"]);
    assert_eq!(folder.manager().map(|pid| pid.as_raw_pid()), told["pid"].as_i64().map(|pid| pid as i32));
    assert_eq!(folder.run("ps -o json").data, "[]\n");
    let second = folder.run("serve");
    assert_eq!(second.code, Some(4), "{second:?}");
    assert_eq!(folder.run("inspect nobody").code, Some(3));
    assert_eq!(serve.end(Signal::TERM), Some(0));
    assert!(folder.no_manager_runs());
    assert_eq!(folder.run("ps").code, Some(6));
}

#[test]
fn commands_below_the_folder_find_the_manager() {
    let folder = Folder::new();
    let (serve, _) = folder.stay("serve -o json");
    fs::create_dir(folder.path().join("deep")).unwrap();
    let run = Run::of(folder.command("units -o json").current_dir(folder.path().join("deep")).output().unwrap());
    assert_eq!((run.code, run.data.as_str()), (Some(0), "[]\n"));
    let elsewhere = folder.command("units").env("COCKTAIL_DATA_DIR", "elsewhere").output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(6));
    assert_eq!(serve.end(Signal::INT), Some(0));
}

#[test]
fn up_in_the_background_keeps_nothing_open_and_down_ends_it() {
    let folder = Folder::new();
    // The pipe of the output is open three times over; reading it ends only when the last one is closed.
    let program = env!("CARGO_BIN_EXE_cocktail");
    let script = "exec 7>&1 9>&2; \"$0\" up -d empty.toml";
    let output = Command::new("sh")
        .args(["-c", script, program])
        .current_dir(folder.path())
        .env_remove("COCKTAIL_DATA_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let run = Run::of(output);
    assert_eq!((run.code, run.data.as_str()), (Some(0), "web  0 ready\n"), "{run:?}");
    let manager = folder.manager().unwrap();
    let again = folder.run("up -d empty.toml -o json");
    assert_eq!(again.json()["units"][0]["unit"], "web");
    assert!(again.people.contains("nothing changed"), "{again:?}");
    assert_eq!(folder.manager(), Some(manager), "the second up started another Manager");
    assert_eq!(folder.run("down").code, Some(0));
    assert!(folder.nothing_runs());
    assert!(!runs(manager), "its process is still there");
}

#[test]
fn down_leaves_a_manager_that_somebody_else_started() {
    let folder = Folder::new();
    let (serve, _) = folder.stay("serve -o json");
    assert_eq!(folder.run("apply empty.toml").code, Some(0));
    let down = folder.run("down -o json");
    assert_eq!((down.code, down.json()[0].as_str()), (Some(0), Some("shop/prod/web")));
    assert_eq!(folder.run("units -o json").data, "[]\n");
    assert_eq!(serve.end(Signal::TERM), Some(0));
}

#[test]
fn a_signal_ends_up_and_all_that_it_started() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let folder = Folder::new();
        let (up, line) = folder.stay("up empty.toml");
        assert_eq!(line, "web  0 ready\n");
        assert_eq!(folder.run("units -o json").json()[0]["unit"], "web");
        assert_eq!(up.end(signal), Some(0), "{signal:?}");
        assert!(folder.nothing_runs(), "{signal:?}");
    }
}

#[test]
fn up_joins_a_manager_that_runs_and_stops_only_what_it_started() {
    let folder = Folder::new();
    folder.write("other.toml", EMPTY.replace("prod", "dev"));
    let (serve, _) = folder.stay("serve -o json");
    assert_eq!(folder.run("apply empty.toml --wait").code, Some(0));
    let (up, _) = folder.stay("up empty.toml other.toml");
    assert_eq!(up.end(Signal::INT), Some(0));
    let units = folder.run("units -o json").json();
    let stopped = |map: &str| {
        units.as_array().unwrap().iter().find(|unit| unit["map"] == map).map(|unit| unit["stopped"].clone())
    };
    assert_eq!((stopped("prod"), stopped("dev")), (Some(false.into()), Some(true.into())));
    // What was stopped in this way runs again with the next up.
    let (up, line) = folder.stay("up other.toml");
    assert_eq!(line, "web  0 ready\n");
    assert_eq!(up.end(Signal::INT), Some(0));
    assert_eq!(serve.end(Signal::TERM), Some(0));
}

#[test]
fn a_unit_that_does_not_become_ready_ends_up_with_5_and_its_reason() {
    let folder = Folder::new();
    let run = folder.run("up never.toml --wait 1s");
    assert_eq!((run.code, run.data.as_str()), (Some(5), ""), "{run:?}");
    assert!(run.people.contains("1 of 1 Units not ready after 1s\n  shop/slow/deaf: "), "{run:?}");
    assert!(folder.nothing_runs(), "{run:?}");
}

#[test]
fn a_manifest_that_the_manager_refuses_leaves_no_manager_behind() {
    let folder = Folder::new();
    folder.write("absent.toml", EMPTY.replace("sleep", "no-such-program-9"));
    for command in ["up absent.toml", "up -d absent.toml"] {
        let run = folder.run(command);
        assert_eq!((run.code, run.data.as_str()), (Some(2), ""), "{command}: {run:?}");
        assert!(
            run.people.contains("no-such-program-9") && run.people.contains("absent.toml:3:"),
            "{command}: {run:?}"
        );
        assert!(folder.nothing_runs(), "{command}");
    }
}

#[test]
fn settings_of_the_manifest_reach_a_manager_in_the_background() {
    let folder = Folder::new();
    folder.write("both.toml", format!("{EMPTY}[manager]\nport_range = \"banana\"\n"));
    let run = folder.run("up -d both.toml");
    assert_eq!(run.code, Some(2), "{run:?}");
    folder.write("both.toml", format!("{EMPTY}[manager]\nport_range = \"21000-21099\"\n"));
    assert_eq!(folder.run("up -d both.toml").code, Some(0));
    let mut arguments = String::new();
    let manager = folder.manager().unwrap();
    fs::File::open(format!("/proc/{}/cmdline", manager.as_raw_pid())).unwrap().read_to_string(&mut arguments).unwrap();
    assert!(arguments.contains("--config\0") && arguments.contains("both.toml\0"), "{arguments:?}");
}

#[test]
fn a_manager_that_cannot_start_says_why() {
    let folder = Folder::new();
    fs::DirBuilder::new().mode(0o700).create(folder.path().join(".cocktail")).unwrap();
    folder.write(".cocktail/store.redb", "this is no store");
    for command in ["up empty.toml", "up -d empty.toml"] {
        let run = folder.run(command);
        assert!(run.code.is_some_and(|code| code != 0), "{command}: {run:?}");
        assert!(run.people.contains("store"), "{command}: {run:?}");
        assert!(folder.nothing_runs());
    }
}

#[cfg(not(feature = "otel"))]
#[test]
fn who_asks_for_traces_is_told_how_to_get_them() {
    let folder = Folder::new();
    for wanted in [true, false] {
        let mut command = folder.command("up -d empty.toml");
        command.env_remove("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        if wanted {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        }
        let run = Run::of(command.output().unwrap());
        assert_eq!(
            (run.code, run.people.matches("--features otel").count()),
            (Some(0), usize::from(wanted)),
            "{run:?}"
        );
        assert_eq!(folder.run("down").code, Some(0));
    }
}
