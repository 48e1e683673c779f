//! Volumes: named ones of the engine, and binds of folders of its machine.
//!
//! What a launch calls exclusive or shared outlives its containers, as it does elsewhere. What is ephemeral carries the
//! container that it goes with, and is removed with it.

use std::collections::HashMap;
use std::fs;

use bollard::models::{Mount, MountBindOptions, MountType, MountVolumeOptions, Volume};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};
use cocktail_core::contract::{Launch, LaunchVolume, VolumeFound};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, StoreId};
use cocktail_core::spec::VolumeKind;

use crate::client::{Engine, bounded};
use crate::error::Call;
use crate::shared::Fixed;
use crate::{label, times};

/// The mounts of a start.
///
/// # Errors
/// `InvalidConfig` for a bind that leads elsewhere, or a path that is no text.
pub(crate) fn mounts(launch: &Launch, fixed: &Fixed) -> Result<Vec<Mount>> {
    launch.volumes.iter().map(|volume| mount(launch, volume, fixed)).collect()
}

fn mount(launch: &Launch, volume: &LaunchVolume, fixed: &Fixed) -> Result<Mount> {
    let name = &volume.name;
    let text = |path: &std::path::Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::invalid(format!("volumes.{name}: its path is no text")))
    };
    let target = volume.link.as_deref().ok_or_else(|| Error::invalid(format!("volumes.{name} has no mount")))?;
    let target = Some(text(target)?);
    if volume.kind == VolumeKind::Bind {
        if let Some(problem) = bind_problem(&volume.path, fixed) {
            return Err(Error::invalid(format!("volumes.{name}: {problem}")));
        }
        let bind_options = Some(MountBindOptions { create_mountpoint: Some(false), ..MountBindOptions::default() });
        let (source, typ) = (Some(text(&volume.path)?), Some(MountType::BIND));
        return Ok(Mount { target, source, typ, bind_options, ..Mount::default() });
    }
    let path = text(&volume.path)?;
    let mut labels =
        HashMap::from([(label::STORE.to_owned(), launch.store.to_string()), (label::VOLUME.to_owned(), path.clone())]);
    if volume.kind == VolumeKind::Ephemeral {
        labels.insert(label::GOES_WITH.to_owned(), launch.container.to_string());
    }
    let volume_options = Some(MountVolumeOptions { labels: Some(labels), ..MountVolumeOptions::default() });
    let (source, typ) = (Some(label::volume(&launch.store, &path)), Some(MountType::VOLUME));
    Ok(Mount { target, source, typ, volume_options, ..Mount::default() })
}

/// Why a folder may not be bound, if it may not: on our own machine it must be what its path says, without a link on the
/// way, or lie where the settings allow binds. Of another machine only the engine knows.
pub(crate) fn bind_problem(source: &std::path::Path, fixed: &Fixed) -> Option<String> {
    let shown = source.display();
    if !fixed.local {
        return None;
    }
    if !source.is_absolute() || !source.is_dir() {
        return Some(format!("{shown} is no folder on the engine's machine"));
    }
    let real = match fs::canonicalize(source) {
        Ok(real) => real,
        Err(error) => return Some(format!("{shown} cannot be followed: {}", error.kind())),
    };
    let below = |folder: &std::path::PathBuf| fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
    if real == source || fixed.binds.iter().any(below) {
        return None;
    }
    Some(format!("{shown} leads to {}, which is below no folder of manager.binds", real.display()))
}

/// Refuses a start whose named volumes are somebody else's, whatever their name.
///
/// # Errors
/// `Conflict` that names the volume.
pub(crate) async fn check_owner(engine: &Engine, launch: &Launch) -> Result<()> {
    for volume in launch.volumes.iter().filter(|volume| volume.kind != VolumeKind::Bind) {
        let path = volume.path.to_str().unwrap_or_default();
        let name = label::volume(&launch.store, path);
        let docker = engine.api().await?;
        let what = format!("look at the volume {name}");
        let found = match bounded(times::CONTROL, Call::Reads, &what, docker.inspect_volume(&name)).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => continue,
            found => found?,
        };
        if found.labels.get(label::STORE).map(String::as_str) != Some(launch.store.as_str()) {
            let message =
                format!("volumes.{}: the engine's volume {name} is not ours: rename or remove it", volume.name);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
    }
    Ok(())
}

/// The volumes of a store. What they hold an engine counts only together with all that it has, which nobody asked for.
pub(crate) async fn found(engine: &Engine, store: &StoreId) -> Result<Vec<VolumeFound>> {
    let docker = engine.api().await?;
    let options = ListVolumesOptions { filters: Some(label::filter(&[(label::STORE, store.as_str())])) };
    let listed = bounded(times::CONTROL, Call::Reads, "list volumes", docker.list_volumes(Some(options))).await?;
    let one = |volume: Volume| {
        let path = volume.labels.get(label::VOLUME)?.into();
        Some(VolumeFound { path, location: volume.mountpoint.into(), used_bytes: None })
    };
    Ok(listed.volumes.unwrap_or_default().into_iter().filter_map(one).collect())
}

/// Removes the volumes that go with a container.
pub(crate) async fn remove_ephemeral(engine: &Engine, store: &StoreId, container: &ContainerId) -> Result<()> {
    let docker = engine.api().await?;
    let labels = [(label::STORE, store.as_str()), (label::GOES_WITH, container.as_str())];
    let options = ListVolumesOptions { filters: Some(label::filter(&labels)) };
    let found = bounded(times::CONTROL, Call::Reads, "list volumes", docker.list_volumes(Some(options))).await?;
    for volume in found.volumes.unwrap_or_default() {
        let what = format!("remove the volume {}", volume.name);
        let removed = docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>);
        match bounded(times::REMOVE, Call::Acts, &what, removed).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}
