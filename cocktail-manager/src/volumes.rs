//! Volumes as people see them: what containers have, together with what lies on the servers' disks.
//!
//! Start at [`volumes`]. A folder that no container has is listed too: data outlives its containers, and nothing but a
//! user takes it away. What a server does not say (it is silent, or the volume is not ours) stays unknown.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{Runtime, VolumeFound};
use cocktail_core::error::Result;
use cocktail_core::id::ServerId;
use cocktail_core::spec::VolumeKind;
use cocktail_core::state::State;
use cocktail_core::view::VolumeView;
use futures_util::future::join_all;
use tracing::warn;

use crate::shared::Shared;

/// Longest wait for a server to count what its volumes hold.
const COUNT: Duration = Duration::from_secs(30);

/// Kind and size by service, map, unit and name.
type Named = BTreeMap<[String; 4], (VolumeKind, Option<u64>)>;

/// All volumes, in the order of their names.
pub(crate) async fn volumes(shared: &Shared) -> Result<Vec<VolumeView>> {
    let (views, named) = shared.look(|state, _| (state.volume_views(), named(state))).await?;
    let found = async |(server, runtime): (ServerId, Arc<dyn Runtime>)| {
        let found = match tokio::time::timeout(COUNT, runtime.volumes()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                warn!(%server, error = error.chain(), "a server does not say what its volumes hold");
                Vec::new()
            }
            Err(_) => {
                warn!(%server, "a server takes too long to count what its volumes hold");
                Vec::new()
            }
        };
        (server, found)
    };
    let found = join_all(shared.servers.all().into_iter().map(found)).await;
    let views = merge(views, &named, found);
    for view in views.iter().filter(|view| view.used_bytes > view.size_bytes && view.size_bytes.is_some()) {
        let VolumeView { path, used_bytes, size_bytes, .. } = view;
        warn!(path, used_bytes, size_bytes, "a volume holds more than its manifest expects");
    }
    Ok(views)
}

/// What the manifests of now name.
fn named(state: &State) -> Named {
    let mut named = Named::new();
    for (id, unit) in &state.units {
        for (name, volume) in &unit.spec.template.volumes {
            let key = [id.service.to_string(), id.map.to_string(), id.unit.to_string(), name.to_string()];
            named.insert(key, (volume.kind, volume.size.map(|size| size.0)));
        }
    }
    named
}

fn merge(mut views: Vec<VolumeView>, named: &Named, found: Vec<(ServerId, Vec<VolumeFound>)>) -> Vec<VolumeView> {
    for (server, found) in found {
        for VolumeFound { path, location, used_bytes } in found {
            let is_it = |view: &&mut VolumeView| view.server == server.as_str() && Path::new(&view.path) == path;
            let known = views.iter_mut().find(is_it);
            let unknown = known.is_none();
            let mut left = unknown.then(|| left_over(&path, &server, named));
            if let Some(view) = known.or(left.as_mut()) {
                view.used_bytes = used_bytes;
                view.path = location.display().to_string();
            }
            views.extend(left);
        }
    }
    views.sort_by(|a, b| key(a).cmp(&key(b)));
    views
}

fn key(view: &VolumeView) -> [&str; 6] {
    [&view.service, &view.map, &view.unit, &view.name, &view.server, &view.path]
}

/// A volume that no container has; its path says whose it was: `service/map/unit/name`, then perhaps a dot and which.
fn left_over(path: &Path, server: &ServerId, named: &Named) -> VolumeView {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let part = |at: usize| parts.get(at).cloned().unwrap_or_default();
    // Names have no dots.
    let name = part(3).split('.').next().unwrap_or_default().to_owned();
    let name = if parts.len() == 4 { name } else { path.display().to_string() };
    let (kind, size_bytes) = match named.get(&[part(0), part(1), part(2), name.clone()]) {
        Some((kind, size)) => (word(*kind), *size),
        None => ("", None),
    };
    VolumeView {
        service: part(0),
        map: part(1),
        unit: part(2),
        name,
        kind: kind.into(),
        path: String::new(),
        used_bytes: None,
        size_bytes,
        server: server.to_string(),
        containers: Vec::new(),
    }
}

fn word(kind: VolumeKind) -> &'static str {
    match kind {
        VolumeKind::Exclusive => "exclusive",
        VolumeKind::Shared => "shared",
        VolumeKind::Ephemeral => "ephemeral",
        VolumeKind::Bind => "bind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, path: &str) -> VolumeView {
        let mut view = left_over(Path::new("shop/prod/web/x"), &ServerId::new("here"), &Named::new());
        (view.name, view.path, view.kind) = (name.into(), path.into(), "shared".into());
        view.containers = vec!["web-1".into()];
        view
    }

    fn found(path: &str, used_bytes: u64) -> VolumeFound {
        VolumeFound { path: path.into(), location: Path::new("/data/volumes").join(path), used_bytes: Some(used_bytes) }
    }

    #[test]
    fn what_a_container_has_is_joined_with_what_the_disk_holds() {
        let found = vec![(ServerId::new("here"), vec![found("shop/prod/web/data", 7)])];
        let views = merge(vec![view("data", "shop/prod/web/data"), view("src", "/srv/src")], &Named::new(), found);
        let [data, bind] = &views[..] else { panic!("two volumes: {views:#?}") };
        assert_eq!((data.path.as_str(), data.used_bytes), ("/data/volumes/shop/prod/web/data", Some(7)));
        assert_eq!((data.kind.as_str(), data.containers.len()), ("shared", 1));
        assert_eq!((bind.path.as_str(), bind.used_bytes), ("/srv/src", None), "what is not ours is not counted");
    }

    #[test]
    fn the_same_path_on_another_server_is_another_volume() {
        let found = vec![(ServerId::new("there"), vec![found("shop/prod/web/data", 7)])];
        let views = merge(vec![view("data", "shop/prod/web/data")], &Named::new(), found);
        assert_eq!(views.iter().map(|view| view.used_bytes).collect::<Vec<_>>(), [None, Some(7)]);
    }

    #[test]
    fn what_nobody_has_any_more_is_listed_by_its_path() {
        let key = ["shop", "prod", "web", "data"].map(str::to_owned);
        let named = Named::from([(key, (VolumeKind::Exclusive, Some(9)))]);
        let paths = ["shop/prod/web/data.3", "shop/prod/web/tmp.web-abcde", "old/dev/db/files", "odd"];
        let found = paths.iter().map(|path| found(path, 1)).collect();
        let views = merge(Vec::new(), &named, vec![(ServerId::new("here"), found)]);
        let told: Vec<[&str; 5]> = views
            .iter()
            .map(|view| [&view.service, &view.map, &view.unit, &view.name, &view.kind].map(String::as_str))
            .collect();
        let expected = [
            ["odd", "", "", "odd", ""],
            ["old", "dev", "db", "files", ""],
            ["shop", "prod", "web", "data", "exclusive"],
            ["shop", "prod", "web", "tmp", ""],
        ];
        assert_eq!(told, expected);
        assert!(views.iter().all(|view| view.containers.is_empty() && view.used_bytes == Some(1)));
    }
}
