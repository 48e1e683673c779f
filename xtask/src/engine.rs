//! A Docker engine of a test's own: private data, socket and network, so that nothing of the machine's is touched and
//! everything may be broken.
//!
//! Start at [`PrivateEngine::start`]. It needs root, `dockerd` and a static busybox, which
//! [`Condition::NoDockerEngine`](crate::Condition::NoDockerEngine) tells; the image is made from the latter. The engine is
//! ended by its process id when the value is dropped, also while a panic unwinds.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What an engine may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where Debian keeps what a plain user does not run.
const SYSTEM: &str = "/usr/sbin";

/// Which network an engine makes its bridges in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// One of its own, which only what joins it reaches: `nsenter --net=/proc/PID/ns/net`.
    Own,
    /// That of the calling process, which must not be the machine's.
    Ours,
}

/// A running engine.
#[derive(Debug)]
pub struct PrivateEngine {
    folder: PathBuf,
    network: Network,
    /// The network that it began in, which it comes back to.
    began: Option<File>,
    child: Child,
}

impl PrivateEngine {
    /// Starts an engine that keeps everything below a folder with a short path, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up; what it wrote is named then.
    pub fn start(folder: &Path, network: Network) -> Result<Self> {
        let child = spawn(folder, network, &[])?;
        let mut engine = Self { folder: folder.to_owned(), network, began: None, child };
        engine.wait_until_up()?;
        engine.began = Some(File::open(format!("/proc/{}/ns/net", engine.pid()))?);
        Ok(engine)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// Where it listens, as clients want to know it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The network that it makes its bridges in.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The engine's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the engine at once, as a crash does. Its containers go on.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn crash(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after it ended, with further arguments: `--live-restore` keeps containers that still run.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self, arguments: &[&str]) -> Result<()> {
        // The one that crashed left them, with numbers that others may have by now.
        for left in ["p", "x/containerd/containerd.pid"] {
            let _missing = fs::remove_file(self.folder.join(left));
        }
        let began = self.began.as_ref().context("it never came up")?;
        let began = format!("--net=/proc/{}/fd/{}", std::process::id(), began.as_raw_fd());
        let enter = ["nsenter".to_owned(), began, "--".to_owned()];
        self.child = spawn_through(&self.folder, &enter, arguments)?;
        self.wait_until_up()
    }

    /// Makes an image from the static busybox of this machine, with links to everything that it can be.
    ///
    /// # Errors
    /// When the busybox is missing or the engine does not take it.
    pub fn import_busybox(&self, name: &str) -> Result<()> {
        let busybox = find("busybox").context("there is no busybox: apt-get install busybox-static")?;
        let root = self.folder.join("busybox");
        for folder in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::copy(&busybox, root.join("bin/busybox"))?;
        let applets = run(Command::new(&busybox).arg("--list"))?;
        for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
            let link = root.join("bin").join(applet);
            if !link.exists() {
                std::os::unix::fs::symlink("busybox", link)?;
            }
        }
        let archive = self.folder.join("busybox.tar");
        run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."))?;
        self.docker(&["import", &archive.display().to_string(), name]).map(drop)
    }

    /// Runs the command line client against it.
    ///
    /// # Errors
    /// When the command fails; with what it wrote.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let output = run(Command::new("docker").args(["-H", &self.url()]).args(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.docker(&["version"]).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                bail!("the engine did not come up ({ended:?}): {}", self.last_words());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Ends everything that it runs, and the engine.
    fn end(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        if let Ok(left) = self.docker(&["ps", "-aq"])
            && !left.is_empty()
        {
            let mut arguments = vec!["rm", "--force"];
            arguments.extend(left.split_whitespace());
            let _gone = self.docker(&arguments);
        }
        let _ended = Command::new("kill").arg(self.pid().to_string()).status();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _unkillable = self.crash();
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.end();
        unmount(&self.folder);
    }
}

/// Takes away what an engine that crashed had mounted below a folder, the innermost first, so that it can be removed.
fn unmount(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<&str> = points.filter(|point| Path::new(point).starts_with(folder)).collect();
    below.sort_unstable();
    for point in below.into_iter().rev() {
        let _gone = Command::new("umount").args(["--lazy", point]).status();
    }
}

fn spawn(folder: &Path, network: Network, arguments: &[&str]) -> Result<Child> {
    let enter: &[&str] = match network {
        Network::Own => &["unshare", "--net", "--"],
        Network::Ours => &[],
    };
    spawn_through(folder, &enter.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(), arguments)
}

/// `enter` brings it into its network.
fn spawn_through(folder: &Path, enter: &[String], arguments: &[&str]) -> Result<Child> {
    let dockerd = find("dockerd").context("there is no dockerd: apt-get install docker.io")?;
    fs::create_dir_all(folder)?;
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    let path = std::env::var("PATH").unwrap_or_default();
    // One process throughout: each step becomes the next one, so that its number is the engine's.
    let script = "ip link set lo up; exec \"$@\"";
    let mut words = enter.iter().map(String::as_str).chain(["sh", "-c", script, "sh"]);
    let mut command = Command::new(words.next().unwrap_or("sh"));
    command.args(words).arg(dockerd).args(arguments);
    for (option, name) in [("--data-root", "d"), ("--exec-root", "x"), ("--pidfile", "p")] {
        command.arg(option).arg(folder.join(name));
    }
    command.arg("--host").arg(format!("unix://{}", folder.join("s").display()));
    command.env("PATH", format!("{path}:{SYSTEM}:/sbin"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.spawn()?)
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

/// A program on the `PATH`, or where Debian keeps those of root.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let system = Path::new(SYSTEM).join(name);
    crate::condition::find_program(name).or_else(|| system.is_file().then_some(system))
}
