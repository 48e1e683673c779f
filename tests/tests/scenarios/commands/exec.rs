//! `exec` and `logs`.

use cocktail_tests::home::PATIENCE;
use cocktail_tests::{Home, Manager, Terminal, program};

/// A Home with one container that counts aloud; its id.
fn ticking() -> (Home, String) {
    let home = Home::new();
    let script = "i=0; while :; do i=$((i+1)); echo tick $i; echo tock $i >&2; sleep 0.05; done";
    home.manifest("m.toml", &format!("[maps.prod.units.clock]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n"));
    home.ok(&["up", "-d", "m.toml"]);
    let id = home.settled("clock", 1).into_keys().next().unwrap();
    (home, id)
}

#[test]
fn exec_hands_through_streams_and_the_exit_code() {
    let (home, id) = ticking();
    let exec = |args: &[&str], input: &[u8]| program::run(&mut home.command(&[&["exec"], args].concat()), input);
    let both = exec(&[&id, "--", "sh", "-c", "echo out; echo err >&2; exit 7"], b"");
    assert_eq!((both.code(), both.stdout.as_str(), both.stderr.as_str()), (7, "out\n", "err\n"), "{both}");
    assert_eq!(exec(&[&id, "--", "sh", "-c", "kill -9 $$"], b"").code(), 128 + 9);
    // Beside the container: its environment and folder; a unique prefix is enough to name it.
    let name = exec(&[&id[..id.len() - 2], "--", "sh", "-c", "echo $COCKTAIL_CONTAINER; pwd"], b"").ok();
    assert_eq!(name.stdout, format!("{id}\n{}\n", home.root().display()));
    // Standard input goes through whole, and only when it is asked for.
    let text: Vec<u8> = (0..300_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    assert_eq!(exec(&["-i", &id, "--", "cat"], &text).ok().stdout.as_bytes(), text);
    assert_eq!(exec(&[&id, "--", "cat"], &text).ok().stdout, "");

    let missing = exec(&[&id, "--", "no-such-program"], b"");
    assert!(missing.code() != 0 && missing.stderr.contains("no-such-program"), "{missing}");
    exec(&["nobody-1", "--", "true"], b"").fails(3);
    let late = exec(&["--timeout", "200ms", &id, "--", "sleep", "1000"], b"");
    assert_ne!(late.code(), 0, "{late}");
    home.eventually("nothing of a command that took too long is left", || {
        home.workers().iter().all(|process| process.command != "sleep 1000")
    });
    home.finish();
}

#[test]
fn exec_with_a_terminal_is_interactive_and_gives_it_back() {
    let (home, id) = ticking();
    let mut terminal = Terminal::open(33, 99);
    let before = terminal.modes();
    let mut child = terminal.spawn(home.command(&["exec", "-it", &id, "--", "sh"]));
    // Blanks keep the echo of what is typed apart from what is answered.
    terminal.enter("test -t 0 && echo 'is''atty'; echo answer $((6*7)); stty size; exit 3\r");
    let said = terminal.shows("33 99");
    let code = program::end_of(&mut child, PATIENCE).and_then(|status| status.code());
    child.wait().unwrap();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("isatty") && said.contains("answer 42"), "{said}");
    assert_eq!(before, terminal.modes(), "the terminal was not given back as it was");
    home.finish();
}

#[test]
fn logs_can_be_cut_followed_and_told_apart() {
    let (home, id) = ticking();
    home.eventually("there are some lines", || home.ok(&["logs", &id]).stdout.lines().count() > 20);
    let tail = home.ok(&["logs", "--tail", "4", &id]);
    assert_eq!(tail.stdout.lines().count(), 4, "{tail}");
    let all = home.run(&["-o", "json", "logs", "clock"]).json_lines();
    assert_eq!((&all[0]["container"], &all[0]["text"]), (&id.as_str().into(), &"tick 1".into()));
    let of = |stream: &str| all.iter().filter(|line| line["stream"] == stream).count();
    assert!(of("stdout") > 5 && of("stderr") > 5, "{} and {}", of("stdout"), of("stderr"));

    // From a line's own time on: that line is there and the one before it is not.
    let mark = all.iter().filter(|line| line["stream"] == "stdout").nth(5).unwrap();
    let since = home.run(&["-o", "json", "logs", "--since", mark["at"].as_str().unwrap(), &id]).json_lines();
    assert!(since.iter().any(|line| line["text"] == mark["text"]), "{mark}");
    assert!(!since.iter().any(|line| line["text"] == "tick 1"));
    assert!(home.ok(&["logs", "--since", "1h", &id]).stdout.contains("tick 1\n"));
    home.run(&["logs", "--since", "yesterday", &id]).fails(2);
    home.run(&["logs", "nobody"]).fails(3);

    let mut follow = home.spawn(&["logs", "-f", "--tail", "0", "clock"]);
    let followed = |follow: &Manager| -> std::collections::BTreeSet<String> {
        follow.data().lines().filter_map(|line| Some(line.split_once(" | ")?.0.to_owned())).collect()
    };
    home.eventually("the container is followed", || {
        follow.must_run();
        followed(&follow).contains(&id)
    });
    // One that comes later is followed, too, from its first line on.
    home.ok(&["scale", "clock", "2", "--wait"]);
    let later = home.settled("clock", 2).into_keys().find(|one| *one != id).unwrap();
    home.eventually("the later container is followed", || {
        follow.must_run();
        followed(&follow).contains(&later)
    });
    assert!(follow.data().contains(&format!("{later} | tick 1\n")), "{}", follow.data());
    // No line is lost or doubled while following.
    let ticks: Vec<u64> =
        follow.data().lines().filter_map(|line| line.strip_prefix(&format!("{id} | tick "))?.parse().ok()).collect();
    assert!(!ticks.is_empty() && ticks.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ticks:?}");
    assert!(ticks[0] > 5, "{ticks:?}");
    // It ends with the Unit.
    home.ok(&["rm", "clock", "--wait"]);
    follow.succeed();
    home.finish();
}
