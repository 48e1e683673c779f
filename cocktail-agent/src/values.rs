//! What comes from the host of whoever starts a container: variables of `env_from`, and secrets.
//!
//! They are looked up at each start, and kept nowhere.

use std::collections::BTreeMap;
use std::env::{self, VarError};
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cocktail_core::contract::Launch;
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::SecretSource;

/// Bytes of the longest secret.
const SECRET: u64 = 64 << 10;

/// The variables of a start, with their values. May wait for a disk.
///
/// # Errors
/// `InvalidConfig` with the name, never the value, of what is missing or unreadable.
pub fn of(launch: &Launch) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for name in &launch.env_from {
        all.insert(name.clone(), variable(name, name, "env_from")?);
    }
    for (name, source) in &launch.secrets {
        let value = match source {
            SecretSource::File(path) => secret_file(&format!("secrets.{name}"), path)?,
            SecretSource::Env(from) => variable(name, from, "secrets")?,
        };
        all.insert(name.clone(), value);
    }
    Ok(all)
}

/// A secret that no start has. `key` says where it is asked for: `registries.hub.password`. May wait for a disk.
///
/// # Errors
/// `InvalidConfig` with the key, never the value, of what is missing or unreadable.
pub fn secret(key: &str, source: &SecretSource) -> Result<String> {
    match source {
        SecretSource::File(path) => secret_file(key, path),
        SecretSource::Env(from) => variable(from, from, key),
    }
}

/// A variable of the Manager's environment, for `name` of the worker's.
fn variable(name: &str, from: &str, table: &str) -> Result<String> {
    env::var(from).map_err(|error| {
        let what = match error {
            VarError::NotPresent => "is not set",
            VarError::NotUnicode(_) => "is no text",
        };
        let message = format!("{table}: the variable {from} {what} in the manager's environment");
        let error = Error::invalid(message);
        if name == from { error } else { error.with("for", name) }
    })
}

/// The content of a secret's file without its last line break.
fn secret_file(key: &str, path: &Path) -> Result<String> {
    let shown = path.display();
    let problem = |what: &str| Error::invalid(format!("{key}: the file {shown} {what}"));
    // Without the flag, opening a pipe would wait for its other end.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| problem("cannot be read").because(error))?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(problem("is no ordinary file"));
    }
    let mut text = String::new();
    let read = file.take(SECRET + 1).read_to_string(&mut text);
    // The source of this error says nothing of the content.
    read.map_err(|error| problem("holds no text").because(error))?;
    if text.len() as u64 > SECRET {
        return Err(problem("is larger than 64KiB"));
    }
    if text.contains('\0') {
        return Err(problem("holds a zero byte, which no variable can"));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
