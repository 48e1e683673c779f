//! The program as scripts see it: streams, exit codes, signals and what stays behind.
//!
//! Units here have no containers, or ones that never become ready: what workers do is tested with the whole system.

#![expect(clippy::unwrap_used, reason = "what helpers of tests do must work, or the test fails")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use tempfile::TempDir;

/// A Unit that is ready with no container.
const EMPTY: &str = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"60\"]\nreplicas = 0\n";

/// A Unit that never becomes ready: nothing listens on its port.
const NEVER: &str = "service = \"shop\"\n[maps.slow.units.deaf]\ncommand = [\"sleep\", \"60\"]\nports.http = {}\n";

/// A folder to work in. A Manager that is left in it is ended when it goes.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("empty.toml", EMPTY);
        folder.write("never.toml", NEVER);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn state(&self, name: &str) -> PathBuf {
        self.path().join(".cocktail").join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocktail"));
        command.args(arguments.split_whitespace()).current_dir(self.path());
        for variable in ["COCKTAIL_DATA_DIR", "COCKTAIL_LOG", "NO_COLOR", "INVOCATION_ID"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &str) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Starts a command that stays, and returns it with its first line of data.
    fn stay(&self, arguments: &str) -> (Staying, String) {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (Staying { child, _stdout: stdout }, line)
    }

    /// The process id in `manager.pid`.
    fn manager(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.state("manager.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    fn no_manager_runs(&self) -> bool {
        !self.state("manager.pid").exists() && !self.state("cocktail.sock").exists()
    }

    fn nothing_runs(&self) -> bool {
        self.no_manager_runs() && UnixStream::connect(self.state("run/keeper.sock")).is_err()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.nothing_runs() {
            return;
        }
        // A keeper that a `serve` left for the next Manager goes with one that is asked to end everything.
        self.run("up -d empty.toml");
        if let Some(manager) = self.manager() {
            self.run("down");
            if self.manager() == Some(manager) {
                let _ = kill_process(manager, Signal::KILL);
            }
        }
    }
}

/// A command that stays until it gets a signal.
struct Staying {
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Staying {
    fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process runs; one that only waits for its parent to notice that it ended does not.
fn runs(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// How a command ended.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    data: String,
    people: String,
}

impl Run {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), data: text(output.stdout), people: text(output.stderr) }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

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
fn without_a_terminal_there_is_no_colour() {
    let folder = Folder::new();
    for command in ["manifest check empty.toml missing.toml", "--help", "doctor", "ps"] {
        let run = folder.run(command);
        assert!(!run.data.contains('\x1b') && !run.people.contains('\x1b'), "{command}: {run:?}");
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

/// A terminal: the end that a person looks at, and the end that a program gets.
fn terminal() -> (fs::File, fs::File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let program = fs::File::options().read(true).write(true).open(name).unwrap();
    let size = Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&program, size).unwrap();
    (person.into(), program)
}

/// What a person has seen when the program has closed its end.
fn seen(mut person: fs::File) -> String {
    let mut bytes = Vec::new();
    // The end of the other side is an error here, after everything was read.
    let _ = person.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn on_a_terminal_up_shows_live_lines_unless_colour_is_unwanted() {
    for (no_color, live) in [("", true), ("1", false)] {
        let folder = Folder::new();
        let (person, program) = terminal();
        let mut command = folder.command("up -d empty.toml");
        command.env("NO_COLOR", no_color).env("TERM", "xterm").stderr(program).stdout(Stdio::null());
        assert_eq!(command.status().unwrap().code(), Some(0));
        drop(command);
        let seen = seen(person);
        assert!(seen.contains("0/0 ready"), "{seen:?}");
        assert_eq!(seen.contains('\x1b'), live, "{seen:?}");
        let (up, _) = folder.stay("up empty.toml");
        assert_eq!(up.end(Signal::INT), Some(0));
    }
}

#[test]
fn up_in_the_foreground_works_on_a_terminal() {
    let folder = Folder::new();
    let (person, program) = terminal();
    let mut command = folder.command("up empty.toml");
    let mut child = command.env("TERM", "xterm").stderr(program).stdout(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "web  0 ready\n");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", seen(person));
}

#[test]
fn exec_gives_the_command_our_terminal_and_leaves_ours_as_it_was() {
    let folder = Folder::new();
    folder.write("one.toml", "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"600\"]\n");
    assert_eq!(folder.run("up -d one.toml").code, Some(0));
    let container = folder.run("ps -o json").json()[0]["id"].as_str().unwrap().to_owned();
    let (person, program) = terminal();
    let before = tcgetattr(&program).unwrap();
    let mut command = folder.command(&format!("exec -it {container} -- sh"));
    command.args(["-c", "stty size; read line; echo \"got $line\"; exit 5"]);
    command.stdin(program.try_clone().unwrap()).stdout(program.try_clone().unwrap()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut typing = person.try_clone().unwrap();
    typing.write_all(b"hello\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let after = tcgetattr(&program).unwrap();
    assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes));
    drop(program);
    let seen = seen(person);
    assert!(seen.contains("31 97") && seen.contains("got hello"), "{seen:?}");
    let run = folder.run(&format!("exec {container} -- sh -c false"));
    assert_eq!((run.code, run.data.as_str()), (Some(1), ""), "{run:?}");
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

/// A Unit of one sleeping container whose updates are watched for a moment.
fn sleeping(seconds: u32) -> String {
    let update = "update = { monitor = \"100ms\", progress = \"20s\" }";
    format!("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"{seconds}\"]\n{update}\n")
}

#[test]
fn an_update_that_goes_back_ends_up_and_apply_with_1_and_the_reason() {
    let folder = Folder::new();
    folder.write("good.toml", sleeping(600));
    folder.write("bad.toml", sleeping(600).replace("\"sleep\", \"600\"", "\"sh\", \"-c\", \"exit 3\""));
    assert_eq!(folder.run("up -d good.toml").code, Some(0));
    for command in ["up -d bad.toml", "apply bad.toml --wait"] {
        let run = folder.run(command);
        assert_eq!((run.code, run.data.as_str()), (Some(1), ""), "{command}: {run:?}");
        assert!(run.people.contains("the update went back") && run.people.contains("code 3"), "{command}: {run:?}");
        let unit = &folder.run("units -o json").json()[0];
        assert_eq!((&unit["ready"], &unit["rollout"]["state"]), (&1.into(), &"rolled-back".into()), "{unit}");
    }
    let status = folder.run("rollout status web -o json").json();
    assert_eq!((&status["state"], &status["failed"]), (&"rolled-back".into(), &true.into()), "{status}");
    // How it ended does not stain what comes later.
    for command in ["apply good.toml --wait", "up -d good.toml", "scale web 2 --wait", "restart web --wait"] {
        let run = folder.run(command);
        assert_eq!(run.code, Some(0), "{command}: {run:?}");
    }
}

#[test]
fn a_rollback_by_hand_goes_to_what_served_before() {
    let folder = Folder::new();
    folder.write("one.toml", sleeping(600));
    folder.write("two.toml", sleeping(601));
    assert_eq!(folder.run("up -d one.toml").code, Some(0));
    let run = folder.run("apply two.toml --wait");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(folder.run("units -o json").json()[0]["revision"], 2);
    let run = folder.run("rollback web --wait");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.people.contains("back at revision 1"), "{run:?}");
    assert_eq!(folder.run("units -o json").json()[0]["revision"], 1);
    assert_eq!(folder.run("rollback web --to 2 --wait").code, Some(0));
    assert_eq!(folder.run("rollback web --to 99").code, Some(3));
    assert_eq!(folder.run("rollout pause web").code, Some(4), "there is nothing to pause");
    assert_eq!(folder.run("rollout status nobody").code, Some(3));
    let page = folder.run("inspect web");
    for part in ["Revisions", "Changes from revision", "Containers", "Last events"] {
        assert!(page.data.contains(part), "{part} is not in {}", page.data);
    }
    let all = folder.run("inspect prod").data;
    assert!(all.starts_with("shop/prod\n") && all.contains("shop/prod/web"), "{all}");
}

#[test]
fn a_job_is_done_when_its_containers_are() {
    let folder = Folder::new();
    let script = "echo '{\\\"level\\\":\\\"info\\\",\\\"msg\\\":\\\"working\\\",\\\"n\\\":1}'; echo plain; exit 0";
    let text = format!(
        "service = \"shop\"\n[maps.batch.units.import]\ncommand = [\"sh\", \"-c\", \"{script}\"]\nreplicas = 2\n\
         restart = {{ when = \"failure\" }}\n"
    );
    folder.write("job.toml", text);
    let run = folder.run("up -d job.toml");
    assert_eq!(run.code, Some(0), "{run:?}");
    let done = || folder.run("units -o json").json()[0]["succeeded"] == 2;
    while !done() {
        std::thread::yield_now();
    }
    let containers = folder.run("ps -o json").json();
    let states: Vec<_> = containers.as_array().unwrap().iter().map(|container| container["state"].clone()).collect();
    assert_eq!(states, ["stopped", "stopped"]);
    let run = folder.run("logs import --grep working -o json");
    let lines: Vec<serde_json::Value> = run.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{run:?}");
    assert!(lines.iter().all(|line| line["fields"]["n"] == 1), "{run:?}");
}

#[test]
fn a_whole_map_is_stopped_started_restarted_and_removed_unit_by_unit() {
    let folder = Folder::new();
    let two = format!(
        "{EMPTY}[maps.prod.units.api]\ncommand = [\"sleep\", \"60\"]\n[maps.dev.units.web]\ncommand = [\"sleep\", \"60\"]\n"
    );
    folder.write("two.toml", two);
    assert_eq!(folder.run("up -d two.toml").code, Some(0));
    for (verb, doing, done) in [
        ("stop", "stopping", "stopped"),
        ("start", "starting", "started"),
        ("restart", "restarting", "restarted"),
        ("rm", "removing", "removed"),
    ] {
        let run = folder.run(&format!("{verb} prod"));
        assert_eq!(run.code, Some(0), "{verb}: {run:?}");
        assert_eq!(run.people, format!("{doing} shop/prod/api\n{doing} shop/prod/web\n"), "{verb}");
        let run = folder.run(&format!("{verb} prod --wait"));
        // What is removed may be gone before the second command comes.
        assert!(run.code == Some(0) || (verb, run.code) == ("rm", Some(3)), "{verb}: {run:?}");
        assert!(run.code != Some(0) || run.people.contains(&format!("{done} shop/prod/api")), "{verb}: {run:?}");
        let desired = folder.run("units -o json").json();
        let dev = desired.as_array().unwrap().iter().find(|unit| unit["map"] == "dev").unwrap();
        assert_eq!((&dev["ready"], &dev["stopped"]), (&1.into(), &false.into()), "{verb} touched another map");
    }
    let run = folder.run("stop dev nobody");
    assert_eq!(run.code, Some(3));
    assert!(run.people.starts_with("stopping shop/dev/web\n"), "{run:?}");
}

/// What a Manager answers to a scrape.
fn scrape(address: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// An address that was free a moment ago.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn metrics_are_printed_and_scraped_where_the_settings_say() {
    let folder = Folder::new();
    let address = free_address();
    folder.write("cocktail.toml", format!("[manager]\nmetrics = \"{address}\"\n"));
    let (serve, line) = folder.stay("serve -o json");
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["metrics"], address.as_str());
    assert_eq!(folder.run("apply empty.toml").code, Some(0));
    let desired = "cocktail_unit_desired{service=\"shop\",map=\"prod\",unit=\"web\"} 0";
    let run = folder.run("metrics");
    assert!(run.code == Some(0) && run.data.contains(desired), "{run:?}");
    let answer = scrape(&address);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(desired), "{answer}");
    // A second Manager cannot have the address, and says so before it starts anything.
    let other = Folder::new();
    other.write("cocktail.toml", format!("[manager]\nmetrics = \"{address}\"\n"));
    let run = other.run("serve");
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(run.people.contains(&address) && other.nothing_runs(), "{run:?}");
    assert_eq!(serve.end(Signal::TERM), Some(0));
    assert!(std::net::TcpStream::connect(&address).is_err(), "somebody answers still");
}

#[test]
fn volumes_and_usage_are_listed() {
    let folder = Folder::new();
    let volume = "volumes.data = { mount = \"data\", kind = \"exclusive\" }\n";
    folder.write("kept.toml", format!("{}{volume}", sleeping(600)));
    let run = folder.run("up -d kept.toml");
    assert_eq!(run.code, Some(0), "{run:?}");
    let volumes = folder.run("volumes -o json").json();
    assert_eq!((&volumes[0]["unit"], &volumes[0]["name"]), (&"web".into(), &"data".into()), "{volumes}");
    let run = folder.run("top");
    assert!(run.code == Some(0) && run.data.starts_with("UNIT ") && run.data.contains("shop/prod/web"), "{run:?}");
    assert!(folder.run("top -o json").json()["units"].is_object());
}

#[test]
fn top_gives_the_terminal_back_after_a_key_and_after_a_signal() {
    let folder = Folder::new();
    assert_eq!(folder.run("up -d empty.toml").code, Some(0));
    for key in [Some(b"jwq"), None] {
        let (person, program) = terminal();
        let before = tcgetattr(&program).unwrap();
        let mut command = folder.command("top");
        command.env("TERM", "xterm").stdin(program.try_clone().unwrap()).stdout(program.try_clone().unwrap());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let mut screen = person.try_clone().unwrap();
        let mut shown = Vec::new();
        // The list is there when its footer is.
        while !String::from_utf8_lossy(&shown).contains("quit") {
            let mut bytes = [0; 4096];
            let read = screen.read(&mut bytes).unwrap();
            shown.extend_from_slice(&bytes[..read]);
        }
        match key {
            Some(keys) => screen.write_all(keys).unwrap(),
            None => kill_process(Pid::from_child(&child), Signal::TERM).unwrap(),
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{key:?}");
        let after = tcgetattr(&program).unwrap();
        assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes), "{key:?}");
        drop(program);
        let rest = seen(person);
        assert!(rest.contains("\x1b[?1049l"), "the other screen was left: {rest:?}");
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
