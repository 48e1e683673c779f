//! supervisord, driven through its XML-RPC socket.
//!
//! `supervisorctl` would add the start of a Python interpreter to every figure, which would flatter us.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::Setup;
use crate::proc::{self, Owned};

/// A running supervisord without programs.
pub(crate) struct Supervisord {
    folder: TempDir,
    process: Owned,
    workers: (String, String),
}

impl Supervisord {
    /// Starts it with room for `programs` processes, and waits until it answers. Logs are on, as they are by default.
    pub(crate) fn start(setup: &Setup, programs: usize, workers: (&str, &str)) -> Result<Self> {
        let folder = setup.folder("supervisord")?;
        let path = folder.path().display();
        // Each program takes three pipes and two log files. More than needed would make its forks slower: a child closes
        // every number up to the limit.
        let descriptors = 5 * programs + 64;
        let config = folder.path().join("supervisord.conf");
        let text = format!(
            "[supervisord]\nnodaemon=true\nlogfile={path}/supervisord.log\npidfile={path}/supervisord.pid\n\
             childlogdir={path}\nminfds={descriptors}\nminprocs={programs}\n\
             [unix_http_server]\nfile={path}/control.sock\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
             [include]\nfiles={path}/*.ini\n"
        );
        fs::write(&config, text).context("cannot write supervisord's configuration")?;
        let log = folder.path().join("output.log");
        let mut command = Command::new(setup.supervisord()?);
        command.arg("-n").arg("-c").arg(&config).current_dir(folder.path());
        let process = super::start(&mut command, &log)?;
        let this = Self { folder, process, workers: (workers.0.to_owned(), workers.1.to_owned()) };
        let mut last = None;
        proc::wait_for("supervisord", Duration::from_secs(20), || match this.call("supervisor.getState", None) {
            Ok(_) => true,
            Err(error) => {
                last = Some(error);
                false
            }
        })
        .with_context(|| format!("{last:?} {}", fs::read_to_string(&log).unwrap_or_default()))?;
        Ok(this)
    }

    /// Adds a group of `count` processes and starts them, as `supervisorctl update` would. `settings` are further lines
    /// of its section.
    pub(crate) fn add(&self, command: &str, count: usize, settings: &str) -> Result<()> {
        let text = format!(
            "[program:w]\ncommand={command}\nnumprocs={count}\nprocess_name=w%(process_num)04d\nautorestart=true\n{settings}\n"
        );
        fs::write(self.folder.path().join("w.ini"), text).context("cannot write the program's section")?;
        self.call("supervisor.reloadConfig", None)?;
        self.call("supervisor.addProcessGroup", Some("w")).map(drop)
    }

    /// Name and version, for reports.
    pub(crate) fn version(setup: &Setup) -> Result<String> {
        let output = super::run(Command::new(setup.supervisord()?).arg("--version"))?;
        Ok(format!("supervisord {}", String::from_utf8_lossy(&output.stdout).trim()))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn call(&self, method: &str, argument: Option<&str>) -> Result<String> {
        let params = argument
            .map_or_else(String::new, |argument| format!("<param><value><string>{argument}</string></value></param>"));
        let body = format!(
            "<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
        );
        let mut stream = UnixStream::connect(self.socket()).context("supervisord does not listen")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            stream,
            "POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("supervisord does not answer")?;
        ensure!(answer.contains(" 200 ") && !answer.contains("<fault>"), "supervisord refused {method}: {answer}");
        Ok(answer)
    }
}

impl Drop for Supervisord {
    fn drop(&mut self) {
        self.process.end(Duration::from_secs(15));
        let (program, marker) = &self.workers;
        proc::kill_marked(program, marker);
    }
}
