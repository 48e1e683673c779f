//! What only this machine can say about a template: whether its program, folders, users and files exist.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cocktail_core::spec::{SecretSource, Template, VolumeKind};

use crate::launch::knows_rlimit;
use crate::users;
use crate::volumes::Volumes;

/// Folders of a search path that a sentence names.
const NAMED: usize = 8;

/// What the kernel reads of a script's first line.
const LONGEST_FIRST_LINE: u64 = 256;

type Problems = Vec<(String, String)>;

/// Problems that need no look at the machine.
pub(crate) fn without_looking(template: &Template) -> Problems {
    let unknown = template.rlimits.keys().filter(|name| !knows_rlimit(name));
    let image = template.image.as_ref().map(|_| {
        let sentence =
            "this provider runs programs, not images: name a `provider` of the kind docker, or use `command`";
        ("image".to_owned(), sentence.to_owned())
    });
    let unknown =
        unknown.map(|name| (format!("rlimits.{name}"), "this limit cannot be set for processes here".to_owned()));
    image.into_iter().chain(unknown).collect()
}

/// The same where servers run images.
pub(crate) fn of_images(template: &Template) -> Problems {
    if template.image.is_some() {
        return Problems::new();
    }
    let key = if template.microservices.is_empty() { "command" } else { "worker" };
    let sentence = "the servers of this provider run images, not programs: write `image`, or name another `provider`";
    vec![(key.to_owned(), sentence.to_owned())]
}

/// The manifest key below the unit, and a sentence, for each problem.
pub(crate) fn template(template: &Template, volumes: &Volumes) -> Problems {
    let mut problems = without_looking(template);
    if template.image.is_some() {
        return problems;
    }
    let mut add = |key: String, sentence: String| problems.push((key, sentence));
    if !template.microservices.is_empty() && template.user.is_some() {
        add("user".into(), "a worker of another user cannot reach the manager: leave it out, or use `command`".into());
    }
    let cwd_exists = template.cwd.is_dir();
    if !cwd_exists {
        let what = if template.cwd.exists() { "is no folder" } else { "does not exist" };
        add("cwd".into(), format!("{} {what}", template.cwd.display()));
    }
    if let Some(program) = template.command.first()
        && let Some(sentence) = program_problem(program, template, cwd_exists)
    {
        let key = if template.microservices.is_empty() { "command" } else { "worker" };
        add(key.into(), sentence);
    }
    if let Some(user) = &template.user {
        if users::find(user).is_none() {
            add("user".into(), format!("there is no user `{user}` on this machine"));
        } else if !may_become(user) {
            add("user".into(), format!("this manager does not run as root, so it cannot start processes as `{user}`"));
        }
    }
    for name in &template.env_from {
        if env::var_os(name).is_none() {
            add("env_from".into(), format!("the variable {name} is not set in the manager's environment"));
        }
    }
    for (name, source) in &template.secrets {
        match source {
            SecretSource::File(path) => {
                if let Err(error) = fs::File::open(path).and_then(|file| file.metadata()) {
                    add(format!("secrets.{name}"), format!("{} cannot be read: {}", path.display(), reason(&error)));
                }
            }
            SecretSource::Env(from) if env::var_os(from).is_none() => {
                add(format!("secrets.{name}"), format!("the variable {from} is not set in the manager's environment"));
            }
            SecretSource::Env(_) => {}
        }
    }
    for (name, volume) in &template.volumes {
        let source = volume.source.as_deref().filter(|_| volume.kind == VolumeKind::Bind);
        if let Some(problem) = source.and_then(|source| volumes.bind_problem(source)) {
            add(format!("volumes.{name}.source"), problem);
        }
    }
    problems
}

/// What the system says, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn may_become(user: &str) -> bool {
    let own = rustix::process::geteuid();
    own.is_root() || users::find(user).is_some_and(|user| user.uid == own.as_raw())
}

/// Why a program cannot be run, if that can be said: what a substitution names is known only at the start.
fn program_problem(program: &str, template: &Template, cwd_exists: bool) -> Option<String> {
    if program.contains("${") {
        return None;
    }
    if program.contains('/') {
        let path = template.cwd.join(program);
        if !cwd_exists && Path::new(program).is_relative() {
            return None;
        }
        return match fs::metadata(&path) {
            Err(_) => Some(format!("there is no program {}", path.display())),
            Ok(meta) if meta.is_dir() => Some(format!("{} is a folder", path.display())),
            Ok(_) if !is_executable(&path) => {
                Some(format!("{} is not executable: make it so with `chmod +x`", path.display()))
            }
            Ok(_) => missing_interpreter(&path),
        };
    }
    let own = env::var_os("PATH").unwrap_or_default();
    let search = template.env.get("PATH").map_or(own.as_os_str(), OsStr::new);
    let folders: Vec<PathBuf> = env::split_paths(search).collect();
    if let Some(path) = folders.iter().map(|folder| folder.join(program)).find(|path| is_executable(path)) {
        return missing_interpreter(&path);
    }
    let listed: Vec<String> = folders.iter().take(NAMED).map(|folder| folder.display().to_string()).collect();
    let more = if folders.len() > NAMED { ", …" } else { "" };
    let meant = similar(program, &folders).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    Some(format!("no program `{program}` in PATH ({}{more}){meant}", listed.join(", ")))
}

/// Why a script cannot be run although it is there: what its first line names is not.
fn missing_interpreter(script: &Path) -> Option<String> {
    let mut head = Vec::new();
    fs::File::open(script).ok()?.take(LONGEST_FIRST_LINE).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = line.trim_ascii();
    let interpreter = line.split(|byte| byte.is_ascii_whitespace()).next().filter(|path| path.starts_with(b"/"))?;
    let interpreter = Path::new(OsStr::from_bytes(interpreter));
    (!interpreter.exists()).then(|| {
        format!("the first line of {} names {}, which does not exist", script.display(), interpreter.display())
    })
}

/// The executable in these folders whose name is nearest, if one is near.
fn similar(program: &str, folders: &[PathBuf]) -> Option<String> {
    let names = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let near = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let distance = strsim::damerau_levenshtein(program, &name);
        (distance <= 2 && distance < program.len().div_ceil(2)).then(|| (distance, name, entry.path()))
    });
    near.filter(|(_, _, path)| is_executable(path)).min().map(|(_, name, _)| name)
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
