//! Installing what checks, tests and benchmarks need beside Rust.
//!
//! [`Tool::ALL`] is the list, with the exact versions where we choose them. [`install`] is idempotent: what is there
//! stays. Debian packages need root; everything else goes to cargo's own folder or under the user's cache folder. What
//! only the benchmarks need may fail to install: the tests do not depend on it, and the failure is printed.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use xtask::condition::find_program;

use crate::context::{Context, output};

/// Something to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Python,
    Grpc,
    IpRoute,
    Docker,
    Sshd,
    Registry,
    Busybox,
    Nextest,
    Deny,
    Audit,
    Fuzz,
    Mutants,
    HaProxy,
    Supervisor,
    Pm2,
}

/// Where a tool comes from.
enum Source {
    /// A Debian package, and the program that shows that it is there.
    Debian { package: &'static str, program: &'static str },
    /// A crate whose program is a cargo subcommand.
    Cargo { package: &'static str, version: &'static str },
    /// A Python package in a virtual environment of its own.
    Python { package: &'static str, version: &'static str, program: &'static str },
    /// An npm package in a folder of its own.
    Npm { package: &'static str, version: &'static str, program: &'static str },
}

impl Tool {
    /// What tests and checks need, and their peers, in an order in which each finds what it needs to be installed.
    pub(crate) const ALL: [Self; 13] = [
        Self::Python,
        Self::Grpc,
        Self::IpRoute,
        Self::Docker,
        Self::Sshd,
        Self::Registry,
        Self::Busybox,
        Self::Nextest,
        Self::Deny,
        Self::Audit,
        Self::HaProxy,
        Self::Supervisor,
        Self::Pm2,
    ];
    /// What `cargo xtask check` runs.
    pub(crate) const CHECK: [Self; 2] = [Self::Deny, Self::Audit];
    /// What the benchmarks compare with.
    pub(crate) const PEERS: [Self; 3] = [Self::HaProxy, Self::Supervisor, Self::Pm2];

    const fn source(self) -> Source {
        match self {
            Self::Python => Source::Debian { package: "python3", program: "python3" },
            Self::Grpc => {
                Source::Python { package: "grpcio-tools", version: "1.85.1", program: "python-grpc-tools-protoc" }
            }
            Self::IpRoute => Source::Debian { package: "iproute2", program: "ip" },
            Self::Docker => Source::Debian { package: "docker.io", program: "dockerd" },
            Self::Sshd => Source::Debian { package: "openssh-server", program: "sshd" },
            Self::Registry => Source::Debian { package: "docker-registry", program: "docker-registry" },
            Self::Busybox => Source::Debian { package: "busybox-static", program: "busybox" },
            Self::Nextest => Source::Cargo { package: "cargo-nextest", version: "0.9.143" },
            Self::Deny => Source::Cargo { package: "cargo-deny", version: "0.20.2" },
            Self::Audit => Source::Cargo { package: "cargo-audit", version: "0.22.2" },
            Self::Fuzz => Source::Cargo { package: "cargo-fuzz", version: "0.13.2" },
            Self::Mutants => Source::Cargo { package: "cargo-mutants", version: "27.1.0" },
            Self::HaProxy => Source::Debian { package: "haproxy", program: "haproxy" },
            Self::Supervisor => Source::Python { package: "supervisor", version: "4.3.0", program: "supervisord" },
            Self::Pm2 => Source::Npm { package: "pm2", version: "7.0.4", program: "pm2" },
        }
    }

    /// The name that people know it by.
    pub(crate) const fn name(self) -> &'static str {
        match self.source() {
            Source::Debian { package, .. }
            | Source::Cargo { package, .. }
            | Source::Python { package, .. }
            | Source::Npm { package, .. } => package,
        }
    }

    /// How a person would install it.
    pub(crate) fn hint(self) -> String {
        match self.source() {
            Source::Debian { package, .. } => format!("apt-get install {package}"),
            Source::Cargo { package, .. } => format!("cargo install --locked {package}"),
            Source::Python { .. } | Source::Npm { .. } => "cargo xtask test --setup".to_owned(),
        }
    }

    /// The program, if it is installed. For a cargo subcommand that is the program cargo would run.
    pub(crate) fn find(self, context: &Context) -> Option<PathBuf> {
        match self.source() {
            // Debian keeps daemons where the PATH of a plain user does not look.
            Source::Debian { program, .. } => find_program(program)
                .or_else(|| Some(Path::new("/usr/sbin").join(program)).filter(|file| file.is_file())),
            Source::Cargo { package, .. } => {
                find_program(package).or_else(|| Some(cargo_bin()?.join(package)).filter(|file| file.is_file()))
            }
            Source::Python { package, program, .. } => {
                Some(context.tools.join(package).join("bin").join(program)).filter(|file| file.is_file())
            }
            Source::Npm { package, program, .. } => {
                Some(context.tools.join(package).join("node_modules/.bin").join(program)).filter(|file| file.exists())
            }
        }
    }

    fn install(self, context: &Context) -> Result<()> {
        match self.source() {
            Source::Debian { package, .. } => install_debian(context, &[package]),
            Source::Cargo { package, version, .. } => install_crate(context, package, version),
            Source::Python { package, version, .. } => install_python(context, package, version),
            Source::Npm { package, version, .. } => install_npm(context, package, version),
        }
    }
}

/// Installs those of the tools that are missing.
///
/// # Errors
/// When one that checks or tests need cannot be installed. A peer that cannot be installed is only printed, unless
/// `peers_needed` says that a benchmark is about to run.
pub(crate) fn install(context: &Context, tools: &[Tool], peers_needed: bool) -> Result<()> {
    for &tool in tools {
        if tool.find(context).is_some() {
            continue;
        }
        println!("setup: installing {}", tool.name());
        match tool.install(context) {
            Ok(()) if tool.find(context).is_some() => {}
            Ok(()) => bail!("{} was installed but its program is not to be found", tool.name()),
            Err(error) if !peers_needed && Tool::PEERS.contains(&tool) => {
                println!("setup: {} is left out, benchmarks against it will not run: {error:#}", tool.name());
            }
            Err(error) => return Err(error.context(format!("cannot install {}", tool.name()))),
        }
    }
    Ok(())
}

fn cargo_bin() -> Option<PathBuf> {
    let home = match env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME")?).join(".cargo"),
    };
    Some(home.join("bin"))
}

/// Builds for a quick installation rather than for speed: these tools wait for compilers and disks.
fn install_crate(context: &Context, package: &str, version: &str) -> Result<()> {
    let build = context.tools.join("build");
    let installed = output(
        context
            .cargo(&["install", "--locked", "--quiet", package, "--version", version])
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    );
    // The tools share few crates, and what is left over would only fill the cache folder.
    fs::remove_dir_all(&build).ok();
    installed.map(drop)
}

fn install_python(context: &Context, package: &str, version: &str) -> Result<()> {
    let folder = context.tools.join(package);
    let make = || output(context.command("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    if make().is_err() {
        // Debian's python3 comes without what a virtual environment is made of.
        install_debian(context, &["python3-venv"])?;
        make()?;
    }
    let wanted = format!("{package}=={version}");
    let mut pip = context.command(folder.join("bin/pip"));
    output(pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-input", &wanted])).map(drop)
}

fn install_npm(context: &Context, package: &str, version: &str) -> Result<()> {
    if find_program("npm").is_none() {
        install_debian(context, &["nodejs", "npm"])?;
    }
    let folder = context.tools.join(package);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let wanted = format!("{package}@{version}");
    let mut npm = context.command("npm");
    npm.args(["install", "--silent", "--no-fund", "--no-audit", "--no-progress", "--prefix"]).arg(&folder).arg(&wanted);
    output(&mut npm).map(drop)
}

/// Installs Debian packages without questions, and without starting the services that they bring.
fn install_debian(context: &Context, packages: &[&str]) -> Result<()> {
    let become_root = if !xtask::Condition::NotRoot.holds() {
        None
    } else if find_program("sudo").is_some() {
        Some("sudo")
    } else {
        bail!("Debian packages need root: apt-get install {}", packages.join(" "));
    };
    let command = |program: &str, args: &[&str]| {
        let mut words = match become_root {
            Some(sudo) => vec![sudo, "-n", "env", "DEBIAN_FRONTEND=noninteractive", program],
            None => vec![program],
        };
        words.extend(args);
        let mut command = context.command(words[0]);
        command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let policy = NoServiceStart::new(become_root.is_none());
    let mut install = vec!["install", "--yes", "--quiet=2", "--no-install-recommends"];
    install.extend(packages);
    if output(&mut command("apt-get", &install)).is_err() {
        // The lists of a fresh machine are empty or old.
        output(&mut command("apt-get", &["update", "--quiet=2"]))?;
        output(&mut command("apt-get", &install))?;
    }
    drop(policy);
    Ok(())
}

/// While it lives, Debian's packages start no service of theirs: this is what their scripts ask `policy-rc.d` for.
struct NoServiceStart(Option<PathBuf>);

impl NoServiceStart {
    fn new(root: bool) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let file = PathBuf::from("/usr/sbin/policy-rc.d");
        // One that is there already is the administrator's, and its answer is theirs.
        let ours = root
            && !file.exists()
            && fs::write(&file, "#!/bin/sh\nexit 101\n").is_ok()
            && fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).is_ok();
        Self(ours.then_some(file))
    }
}

impl Drop for NoServiceStart {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            fs::remove_file(file).ok();
        }
    }
}
