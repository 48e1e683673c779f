//! A registry of a test's own, which wants a password: images are pushed to it and pulled from it on the loopback of the
//! network that a [`PrivateEngine`] is in.
//!
//! It needs `docker-registry`, which [`Condition::NoDockerEngine`](crate::Condition::NoDockerEngine) tells. It takes a free
//! port when it is first started, keeps it, and is ended by its process id when the value is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::engine::{Network, PrivateEngine, find};

/// What a registry may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who may push and pull.
pub const USER: &str = "shop";
/// The password, with characters that are written differently in different alphabets of base64.
pub const PASSWORD: &str = "right~?>horse~?>~?>";
/// The same as the registry keeps it: bcrypt with few rounds.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuRaUnBh.BYfNWAKNWT7nX90nKWlVfmIO";
/// Name and password as the command line client keeps them.
const BASIC: &str = "c2hvcDpyaWdodH4/PmhvcnNlfj8+fj8+";

/// A running registry.
#[derive(Debug)]
pub struct PrivateRegistry {
    folder: PathBuf,
    /// What brings a program into the network of the engine, if it is not that of this process.
    inside: Option<String>,
    port: u16,
    child: Child,
}

impl PrivateRegistry {
    /// Starts a registry that keeps everything in a folder, where an engine reaches it, and waits until it listens.
    ///
    /// # Errors
    /// When it does not come up; what it wrote is named then.
    pub fn start(folder: &Path, engine: &PrivateEngine) -> Result<Self> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("htpasswd"), format!("{USER}:{HASH}\n"))?;
        let inside = match engine.network() {
            Network::Own => Some(format!("--net=/proc/{}/ns/net", engine.pid())),
            Network::Ours => None,
        };
        let child = spawn(folder, inside.as_deref(), 0)?;
        let mut registry = Self { folder: folder.to_owned(), inside, port: 0, child };
        registry.port = registry.wait_until_up()?;
        let auths = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{BASIC}\"}}}}}}", registry.host());
        fs::create_dir_all(folder.join("client"))?;
        fs::write(folder.join("client/config.json"), auths)?;
        Ok(registry)
    }

    /// Its host, as references of images begin.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The registry's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Pushes an image of the engine under a name of this registry, which the engine forgets afterwards; the reference.
    ///
    /// # Errors
    /// When the engine or the registry does not take it.
    pub fn push(&self, engine: &PrivateEngine, image: &str, name: &str) -> Result<String> {
        let reference = format!("{}/{name}", self.host());
        let config = self.folder.join("client").display().to_string();
        engine.docker(&["tag", image, &reference])?;
        engine.docker(&["--config", &config, "push", "--quiet", &reference])?;
        engine.docker(&["rmi", &reference])?;
        Ok(reference)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again at the same port, with what it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.folder, self.inside.as_deref(), self.port)?;
        self.wait_until_up().map(drop)
    }

    /// Waits for its word that it listens; at which port.
    fn wait_until_up(&mut self) -> Result<u16> {
        let began = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let after = log.split("listening on 127.0.0.1:").nth(1).unwrap_or_default();
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            // What follows the number shows that all of it is written.
            if digits.len() < after.len()
                && let Ok(port) = digits.parse()
            {
                return Ok(port);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                bail!("the registry did not come up ({ended:?}): {log}");
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        let _gone = self.stop();
    }
}

fn spawn(folder: &Path, inside: Option<&str>, port: u16) -> Result<Child> {
    let program = find("docker-registry").context("there is no docker-registry: apt-get install docker-registry")?;
    let (data, passwords) = (folder.join("data"), folder.join("htpasswd"));
    let config = format!(
        "version: 0.1\nlog: {{ level: info, accesslog: {{ disabled: true }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n\
         http: {{ addr: \"127.0.0.1:{port}\" }}\nauth: {{ htpasswd: {{ realm: test, path: {} }} }}\n",
        data.display(),
        passwords.display(),
    );
    let file = folder.join("registry.yml");
    fs::write(&file, config)?;
    let log = fs::File::create(folder.join("log"))?;
    let mut command = match inside {
        Some(network) => {
            let mut command = Command::new("nsenter");
            command.args([network, "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.spawn()?)
}
