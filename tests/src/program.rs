//! The programs under test, and how they are run.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::output::Output;

/// Longest that a command may take. None waits that long by itself.
const LONGEST: Duration = Duration::from_secs(150);

/// Longest that its output may stay open after its end.
const CLOSING: Duration = Duration::from_secs(10);

/// Pause between two looks at a process.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// The `cocktail` program: `COCKTAIL_BIN`, or else the one that cargo builds now.
pub fn cocktail() -> PathBuf {
    match env::var_os("COCKTAIL_BIN") {
        Some(path) => PathBuf::from(path),
        None => built("cocktail-cli", "cocktail"),
    }
}

/// The program of an example: from `COCKTAIL_BIN_DIR`, or else the one that cargo builds now.
pub fn example(package: &str, name: &str) -> PathBuf {
    match env::var_os("COCKTAIL_BIN_DIR") {
        Some(folder) => PathBuf::from(folder).join(name),
        None => built(package, name),
    }
}

/// Builds a program of the workspace, once a process.
fn built(package: &str, name: &str) -> PathBuf {
    static BUILT: OnceLock<std::sync::Mutex<Vec<(String, PathBuf)>>> = OnceLock::new();
    let mut all = BUILT.get_or_init(Default::default).lock().expect("no holder of this lock panics");
    if let Some((_, path)) = all.iter().find(|(known, _)| known == name) {
        return path.clone();
    }
    // This program is in the folder `deps` beside the programs.
    let own = env::current_exe().expect("this process has a program");
    let folder = own.ancestors().find(|folder| folder.join("deps").is_dir()).expect("a test program is in `deps`");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--package", package, "--bin", name]);
    let status = command.current_dir(workspace()).stdin(Stdio::null()).status().expect("cargo runs");
    assert!(status.success(), "{name} does not build");
    let path = folder.join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    all.push((name.to_owned(), path.clone()));
    path
}

/// The checkout.
pub fn workspace() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    fs::canonicalize(package.join("..")).expect("the package is in the checkout")
}

/// Runs a command to its end and returns what it said. `input` is its standard input.
///
/// # Panics
/// When it cannot be started, does not end, or leaves somebody behind who holds its output open.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let (out, err) = (child.stdout.take().expect("it is a pipe"), child.stderr.take().expect("it is a pipe"));
    let input = input.to_owned();
    // A command need not read all of its input.
    let feed = thread::spawn(move || std::io::Write::write_all(&mut stdin, &input).ok());
    let (stdout, stderr) = (collect(out), collect(err));
    let status = end_of(&mut child, LONGEST);
    let late = status.is_none();
    let status = status.unwrap_or_else(|| {
        child.kill().ok();
        child.wait().expect("a child can be waited for")
    });
    let text = |from: mpsc::Receiver<Vec<u8>>| match from.recv_timeout(CLOSING) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => panic!("{shown} has ended ({status}), and somebody still holds its output open"),
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    feed.join().ok();
    let output = Output { shown, status, stdout, stderr };
    assert!(!late, "it did not end within {LONGEST:?}: {output}");
    output
}

/// How a child ended, within `longest`.
pub fn end_of(child: &mut Child, longest: Duration) -> Option<std::process::ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if begin.elapsed() > longest {
            return None;
        }
        thread::sleep(LOOK);
    }
}

/// Reads to the end of a stream, which is when the last process that holds it has closed it.
fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (done, whole) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).ok();
        done.send(bytes).ok();
    });
    whole
}
