//! What a person sees, and that the terminal is as it was afterwards.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::tcgetattr;

use crate::support::{Folder, seen, terminal};

#[test]
fn without_a_terminal_there_is_no_colour() {
    let folder = Folder::new();
    for command in ["manifest check empty.toml missing.toml", "--help", "doctor", "ps"] {
        let run = folder.run(command);
        assert!(!run.data.contains('\x1b') && !run.people.contains('\x1b'), "{command}: {run:?}");
    }
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
