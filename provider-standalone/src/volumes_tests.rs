use std::fs;

use cocktail_core::contract::LaunchVolume;
use cocktail_core::id::{Epoch, Generation, StoreId};
use cocktail_core::name::Name;
use cocktail_core::spec::Resources;
use tempfile::TempDir;

use super::*;

struct Place {
    data: TempDir,
    cwd: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), cwd: tempfile::tempdir().unwrap() }
    }

    fn volumes(&self) -> Volumes {
        Volumes::new(self.data.path(), Vec::new())
    }

    fn launch(&self, container: &str, kind: VolumeKind, path: &str, link: Option<&str>) -> Launch {
        Launch {
            container: ContainerId::new(container),
            generation: Generation(1),
            store: StoreId::new("store"),
            epoch: Epoch(1),
            argv: vec!["sleep".into(), "60".into()],
            env: BTreeMap::new(),
            env_from: Vec::new(),
            secrets: BTreeMap::new(),
            cwd: self.cwd.path().to_owned(),
            user: None,
            ports: Vec::new(),
            resources: Resources::default(),
            rlimits: BTreeMap::new(),
            volumes: vec![LaunchVolume {
                name: Name::new("data").unwrap(),
                path: path.into(),
                link: link.map(PathBuf::from),
                kind,
            }],
            probes: Vec::new(),
            worker: None,
            paused: false,
            outlives_lease: false,
            image: None,
            artifact: None,
        }
    }
}

#[test]
fn a_volume_is_a_private_folder_with_a_link_that_stays_over_repetition() {
    let place = Place::new();
    let launch = place.launch("web-1", VolumeKind::Shared, "shop/prod/web/data", Some("data"));
    for _ in 0..2 {
        place.volumes().prepare(&launch).unwrap();
    }
    let folder = place.data.path().join("volumes/shop/prod/web/data");
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read_link(place.cwd.path().join("data")).unwrap(), folder);
}

#[test]
fn removing_takes_links_and_ephemeral_folders_and_keeps_the_data_of_others() {
    let place = Place::new();
    let shared = place.launch("web-1", VolumeKind::Shared, "shop/prod/web/data", Some("data"));
    let ephemeral = place.launch("job-1", VolumeKind::Ephemeral, "shop/prod/job/tmp.job-1", Some("tmp"));
    place.volumes().prepare(&shared).unwrap();
    place.volumes().prepare(&ephemeral).unwrap();
    fs::write(place.cwd.path().join("data/kept"), "x").unwrap();
    fs::write(place.cwd.path().join("tmp/lost"), "x").unwrap();
    // Another process removes them: what they have is found on the disk.
    for container in ["web-1", "job-1", "job-1"] {
        place.volumes().remove(&ContainerId::new(container)).unwrap();
    }
    assert!(fs::symlink_metadata(place.cwd.path().join("data")).is_err());
    assert!(fs::symlink_metadata(place.cwd.path().join("tmp")).is_err());
    assert!(place.data.path().join("volumes/shop/prod/web/data/kept").exists());
    assert!(!place.data.path().join("volumes/shop/prod/job/tmp.job-1").exists());
}

#[test]
fn a_link_that_another_container_uses_stays() {
    let place = Place::new();
    for container in ["web-1", "web-2"] {
        let launch = place.launch(container, VolumeKind::Shared, "shop/prod/web/data", Some("data"));
        place.volumes().prepare(&launch).unwrap();
    }
    place.volumes().remove(&ContainerId::new("web-1")).unwrap();
    assert!(place.cwd.path().join("data").exists());
    place.volumes().remove(&ContainerId::new("web-2")).unwrap();
    assert!(!place.cwd.path().join("data").exists());
}

#[test]
fn what_is_not_ours_is_never_replaced() {
    let place = Place::new();
    let launch = place.launch("web-1", VolumeKind::Shared, "shop/prod/web/data", Some("data"));
    let path = place.cwd.path().join("data");
    fs::create_dir(&path).unwrap();
    let error = place.volumes().prepare(&launch).unwrap_err();
    assert!(*error.kind() == ErrorKind::InvalidConfig && error.message().contains("has that place"), "{error}");
    fs::remove_dir(&path).unwrap();
    symlink("/etc", &path).unwrap();
    assert!(place.volumes().prepare(&launch).unwrap_err().message().contains("a link to /etc"));
    // An older link of ours is.
    fs::remove_file(&path).unwrap();
    symlink(place.data.path().join("volumes/older"), &path).unwrap();
    place.volumes().prepare(&launch).unwrap();
    assert!(path.is_dir());
}

#[test]
fn no_name_leads_out_of_the_data_dir_or_the_working_directory() {
    let place = Place::new();
    let out = place.launch("web-1", VolumeKind::Shared, "../../etc", None);
    assert!(place.volumes().prepare(&out).is_err());
    for link in ["../data", "/tmp/data", ""] {
        let launch = place.launch("web-1", VolumeKind::Shared, "a/b", Some(link));
        assert!(place.volumes().prepare(&launch).is_err(), "{link:?}");
    }
    symlink("/tmp", place.cwd.path().join("away")).unwrap();
    let launch = place.launch("web-1", VolumeKind::Shared, "a/b", Some("away/data"));
    assert!(place.volumes().prepare(&launch).unwrap_err().message().contains("leads out"));
}

#[test]
fn a_missing_source_of_a_bind_is_named() {
    let place = Place::new();
    let launch = place.launch("web-1", VolumeKind::Bind, "/nowhere/at/all", Some("data"));
    assert!(place.volumes().prepare(&launch).unwrap_err().message().contains("/nowhere/at/all"));
}

#[test]
fn a_bind_that_leads_elsewhere_is_refused_also_when_its_link_was_made_later() {
    let place = Place::new();
    let (cwd, away) = (fs::canonicalize(place.cwd.path()).unwrap(), tempfile::tempdir().unwrap());
    let source = cwd.join("source");
    fs::create_dir(&source).unwrap();
    let launch = place.launch("web-1", VolumeKind::Bind, source.to_str().unwrap(), Some("data"));
    place.volumes().prepare(&launch).unwrap();
    fs::remove_dir(&source).unwrap();
    symlink(away.path(), &source).unwrap();
    let error = place.volumes().prepare(&launch).unwrap_err();
    assert!(*error.kind() == ErrorKind::InvalidConfig && error.message().contains("manager.binds"), "{error}");
    let allowed = Volumes::new(place.data.path(), vec![away.path().to_owned()]);
    allowed.prepare(&launch).unwrap();
}

#[test]
fn another_user_gets_through_to_its_volume_and_can_look_at_nothing_else() {
    xtask::skip_if!(NotRoot);
    let place = Place::new();
    fs::set_permissions(place.data.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut launch = place.launch("web-1", VolumeKind::Exclusive, "shop/prod/web/data.0", None);
    launch.user = Some("nobody".into());
    place.volumes().prepare(&launch).unwrap();
    let folder = place.data.path().join("volumes/shop/prod/web/data.0");
    let nobody = users::find("nobody").unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().uid(), nobody.uid);
    for above in [place.data.path().to_owned(), place.data.path().join("volumes"), folder.parent().unwrap().to_owned()]
    {
        assert_eq!(fs::metadata(&above).unwrap().mode() & 0o777, 0o711, "{}", above.display());
    }
}
