//! Bad manifests of every kind: exit code 2, where it is, what to write instead, and nothing changed.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use cocktail_tests::Home;

use crate::{WORKER, web};

/// A Manager with one Unit that works, which no bad manifest may touch.
struct Bench {
    home: Home,
    taken: u16,
    before: (u64, String),
}

impl Bench {
    fn new() -> Self {
        let home = Home::new();
        let taken = home.port();
        home.manifest("good.toml", &web(taken, 1, "good"));
        home.ok(&["up", "-d", "good.toml"]);
        home.settled("web", 1);
        let before = Self::look(&home);
        Self { home, taken, before }
    }

    fn look(home: &Home) -> (u64, String) {
        let containers =
            home.ps().iter().map(|one| format!("{} {} {}\n", one["id"], one["pid"], one["state"])).collect();
        (home.seq(), containers)
    }

    /// `apply`, `plan` and `up` of the file are refused with all `parts` in what they say, and nothing has changed.
    #[track_caller]
    fn refused(&self, what: &str, parts: &[&str]) {
        for command in ["plan", "apply", "up"] {
            let said = self.home.run(&[command, "bad.toml"]).fails(2);
            for part in parts {
                assert!(said.contains(part), "{command} of {what} does not say {part:?}:\n{said}");
            }
        }
        assert_eq!(Self::look(&self.home), self.before, "something has changed after {what}");
    }

    /// As `unit`, and the line itself is not shown: where secrets are declared, somebody may have written one.
    #[track_caller]
    fn undrawn(&self, body: &str, line: usize, column: usize, says: &[&str]) {
        let text = format!("service = \"bad\"\n[maps.prod.units.api]\n{body}\n");
        self.home.write("bad.toml", &text);
        let place = format!("bad.toml:{line}:{column}");
        let mut parts = vec![place.as_str()];
        parts.extend(says);
        self.refused(&text, &parts);
        let said = self.home.run(&["apply", "bad.toml"]).fails(2);
        assert!(!said.contains(text.lines().nth(line - 1).unwrap()), "{said}");
    }

    /// The problem is drawn: file, line and column, the line itself with a caret, and `says`.
    #[track_caller]
    fn drawn(&self, text: &str, line: usize, column: usize, says: &[&str]) {
        self.home.write("bad.toml", text);
        let place = format!("bad.toml:{line}:{column}");
        let source = text.lines().nth(line - 1).unwrap();
        let mut parts = vec![place.as_str(), source, "^"];
        parts.extend(says);
        self.refused(text, &parts);
    }

    /// A map of its own beside the good one; the Unit's first key is in line 3.
    #[track_caller]
    fn unit(&self, body: &str, line: usize, column: usize, says: &[&str]) {
        self.drawn(&format!("service = \"bad\"\n[maps.prod.units.api]\n{body}\n"), line, column, says);
    }
}

#[test]
fn mistakes_in_the_text_are_drawn_where_they_are() {
    let bench = Bench::new();
    let command = format!("command = [\"{WORKER}\", \"serve\"]");
    bench.unit(&command.replace("command", "comand"), 3, 1, &["unknown key `comand`", "did you mean `command`?"]);
    bench.unit(&format!("{command}\nreplicas = \"three\""), 4, 12, &["whole number"]);
    bench.unit(&format!("{command}\nports.http = 8080"), 4, 14, &["ports.http = { service = 8080 }"]);
    bench.unit(&format!("{command}\nscale = {{ min = 5, max = 2 }}"), 4, 17, &["min (5) is above max (2)"]);
    bench.unit(&format!("{command}\nstop = {{ grace = \"10\" }}"), 4, 18, &["10s"]);
    bench.unit(&format!("{command}\nstop = {{ signal = \"TREM\" }}"), 4, 19, &["did you mean \"TERM\"?"]);
    bench.drawn(
        &format!("service = \"../etc\"\n[maps.prod.units.api]\n{command}\n"),
        1,
        11,
        &["cannot stand in a name: use lower-case letters, digits and hyphens"],
    );
    bench.drawn(
        &format!("service = \"bad\"\n[maps.prod.units.\"..\"]\n{command}\n"),
        2,
        18,
        &["cannot stand in a name: use lower-case letters, digits and hyphens"],
    );
    bench.drawn(
        &format!("service = \"bad\"\n[maps.\"a/../b\".units.api]\n{command}\n"),
        2,
        7,
        &["cannot stand in a name: use lower-case letters, digits and hyphens"],
    );
    // Not TOML at all, and a value that never ends.
    bench.drawn("service = \"bad\"\n[maps.prod.units.api\n", 2, 21, &[]);
    bench.drawn("service = \"bad\n", 1, 15, &[]);
    bench.home.finish();
}

#[test]
fn ports_that_cannot_be_had_are_refused() {
    let bench = Bench::new();
    let command = format!("command = [\"{WORKER}\", \"serve\"]");
    let free = bench.home.port();
    // Two Units of one file, a Unit that runs already, and a program that is none of ours.
    bench.unit(
        &format!(
            "{command}\nports.http = {{ service = {free} }}\n\
             [maps.prod.units.web]\n{command}\nports.http = {{ service = {free} }}"
        ),
        7,
        16,
        &[&format!("port {free} is already the service port of bad/prod/api")],
    );
    bench.unit(&format!("{command}\nports.http = {{ service = {} }}", bench.taken), 4, 16, &["shop/prod/web"]);
    let other = bench.home.port();
    let listener = TcpListener::bind(("127.0.0.1", other)).unwrap();
    bench.unit(&format!("{command}\nports.http = {{ service = {other} }}"), 4, 16, &["choose another port"]);
    bench.unit(&format!("{command}\nports.http = {{ fixed = {other} }}"), 4, 16, &["choose another port"]);
    drop(listener);
    bench.home.finish();
}

#[test]
fn what_is_not_on_this_machine_is_refused_before_anything_starts() {
    let bench = Bench::new();
    let command = format!("command = [\"{WORKER}\", \"serve\"]");
    bench.unit("command = [\"no-such-program-anywhere\"]", 3, 1, &["no program `no-such-program-anywhere` in PATH"]);
    bench.unit("command = [\"./missing.sh\"]", 3, 1, &["there is no program", "missing.sh"]);
    bench.home.write("plain.txt", "no program");
    bench.unit("command = [\"./plain.txt\"]", 3, 1, &["is not executable", "chmod +x"]);
    bench.home.write("script", "#!/no/such/interpreter\n");
    fs::set_permissions(bench.home.root().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    bench.unit("command = [\"./script\"]", 3, 1, &["names /no/such/interpreter, which does not exist"]);
    bench.unit(&format!("{command}\ncwd = \"nowhere\""), 4, 1, &["nowhere does not exist"]);
    bench.unit(&format!("{command}\nuser = \"no-such-user\""), 4, 1, &["there is no user `no-such-user`"]);
    bench.unit(&format!("{command}\nenv_from = [\"NO_SUCH_VARIABLE\"]"), 4, 1, &["NO_SUCH_VARIABLE is not set"]);
    bench.undrawn(
        &format!("{command}\nsecrets.KEY = {{ file = \"/no/such/file\" }}"),
        4,
        9,
        &["/no/such/file cannot be read: no such file or directory"],
    );
    bench.undrawn(
        &format!("{command}\nsecrets.KEY = {{ env = \"NO_SUCH_SECRET\" }}"),
        4,
        9,
        &["NO_SUCH_SECRET is not set"],
    );
    bench.home.finish();
}

#[test]
fn hostile_files_are_refused_quickly_and_without_an_echo() {
    let bench = Bench::new();
    // Ten megabytes that are no text, and ten that are.
    let noise: Vec<u8> = (0..10_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    bench.home.write("bad.toml", noise);
    bench.refused("noise", &["bad.toml", "is it the right file?"]);
    bench.home.write("bad.toml", "a = 1\n".repeat(2 << 20));
    bench.refused("a long text", &["bad.toml", "longer than 1MiB"]);
    for text in [
        format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}", "{ b = ".repeat(50_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]\n", vec!["a"; 100_000].join(".")),
    ] {
        bench.home.write("bad.toml", text);
        bench.refused("deep nesting", &["bad.toml:1:"]);
        let said = bench.home.run(&["apply", "bad.toml"]).fails(2);
        assert!(said.len() < 10_000, "{} bytes are said about it", said.len());
    }
    bench.home.write("bad.toml", "");
    bench.refused("an empty file", &["bad.toml"]);
    fs::remove_file(bench.home.root().join("bad.toml")).unwrap();
    bench.refused("no file", &["cannot read bad.toml"]);
    bench.home.finish();
}

#[test]
fn one_bad_file_of_several_is_enough_to_change_nothing() {
    let bench = Bench::new();
    let free = bench.home.port();
    bench.home.write("one.toml", format!("service = \"other\"\n{}", web(free, 1, "one")));
    bench.home.write("bad.toml", "service = \"bad\"\n[maps.prod.units.api]\nreplicas = 1\n");
    let said = bench.home.run(&["apply", "one.toml", "bad.toml"]).fails(2);
    assert!(said.contains("bad.toml:2:") && said.contains("command"), "{said}");
    assert_eq!(Bench::look(&bench.home), bench.before);
    // What it was about is well, so that the next try needs that file only.
    bench.home.ok(&["apply", "one.toml", "--wait"]);
    bench.home.finish();
}

#[test]
fn a_manifest_that_is_refused_leaves_no_manager_behind() {
    let home = Home::new();
    home.write("bad.toml", "service = \"bad\"\n[maps.prod.units.api]\ncommand = [\"no-such-program-anywhere\"]\n");
    for args in [&["up", "bad.toml"][..], &["up", "-d", "bad.toml"]] {
        let said = home.run(args).fails(2);
        assert!(said.contains("bad.toml:3:1"), "{said}");
        home.nothing_is_left();
    }
    // What can be seen without a Manager starts none.
    home.write("bad.toml", "service = 1\n");
    home.run(&["up", "bad.toml"]).fails(2);
    assert!(home.run(&["manifest", "check", "bad.toml"]).fails(2).contains("bad.toml:1:11"));
    home.finish();
}
