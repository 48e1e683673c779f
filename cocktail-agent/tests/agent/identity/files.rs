//! What lies in the folders, and what happens when it is not what was written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use cocktail_agent::identity::{AgentIdentity, Authority, Revoked, Subject};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::id::ServerId;

use super::{Manager, WEEK, agent_of, ders, meet, private_folder};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn folders_and_files_are_for_their_owner_alone() {
    let root = private_folder();
    let (ca, agent) = (root.path().join("deep/ca"), root.path().join("deep/agent"));
    assert!(AgentIdentity::load(&agent).unwrap().is_none());
    assert!(!agent.exists(), "a question makes no folder");
    let authority = Authority::open(&ca, "blue", WEEK).unwrap();
    Revoked::open(&ca).unwrap().revoke(&ServerId::new("web-1"), "stolen").unwrap();
    let request = AgentIdentity::request(&agent).unwrap();
    let names = |dir: &Path| {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&agent), ["key.next", "lock"]);
    assert_eq!(mode(&agent.join("key.next")), 0o600);
    let issued =
        authority.sign_agent(request.csr_der(), &ServerId::new("web-1"), std::time::SystemTime::now()).unwrap();
    AgentIdentity::install(&agent, request, ders(&issued.chain), ders(&authority.bundle())).unwrap();
    assert_eq!(names(&ca), ["authority.json", "lock", "revoked.json"]);
    assert_eq!(names(&agent), ["identity.json", "lock"]);
    for dir in [&ca, &agent] {
        assert_eq!(mode(dir), 0o700);
        assert!(fs::read_dir(dir).unwrap().all(|entry| mode(&entry.unwrap().path()) == 0o600));
    }
}

#[test]
fn a_folder_or_file_that_others_may_read_is_refused_with_what_mends_it() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    let (ca, dir) = (manager.folder.path(), agent.folder.path());
    let says = |error: Error, mode: &str, command: &str, path: &Path| {
        let text = error.to_string();
        assert_eq!(error.kind(), &ErrorKind::InvalidConfig, "{text}");
        assert!(text.contains(mode) && text.contains(&format!("{command} {}", path.display())), "{text}");
    };
    for open in [0o750, 0o705, 0o710, 0o777] {
        for folder in [ca, dir] {
            set_mode(folder, open);
        }
        let shown = format!("mode {open:o}");
        says(Authority::open(ca, "blue", WEEK).unwrap_err(), &shown, "chmod 700", ca);
        says(Revoked::open(ca).unwrap_err(), &shown, "chmod 700", ca);
        says(AgentIdentity::load(dir).unwrap_err(), &shown, "chmod 700", dir);
        says(AgentIdentity::request(dir).unwrap_err(), &shown, "chmod 700", dir);
        assert_eq!(mode(ca), open, "it is not mended behind anybody's back");
    }
    for folder in [ca, dir] {
        set_mode(folder, 0o700);
    }
    let (authority, identity) = (ca.join("authority.json"), dir.join("identity.json"));
    for file in [&authority, &identity] {
        set_mode(file, 0o644);
    }
    says(Authority::open(ca, "blue", WEEK).unwrap_err(), "mode 644", "chmod 600", &authority);
    says(AgentIdentity::load(dir).unwrap_err(), "mode 644", "chmod 600", &identity);
}

#[test]
fn a_damaged_file_is_told_and_left_as_it_is() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    AgentIdentity::request(agent.folder.path()).unwrap();
    let (ca, dir) = (manager.folder.path(), agent.folder.path());
    Revoked::open(ca).unwrap().revoke(&ServerId::new("web-9"), "stolen").unwrap();
    let cases = [(ca, "authority.json"), (ca, "revoked.json"), (dir, "identity.json"), (dir, "key.next")];
    for (folder, name) in cases {
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        let changed = String::from_utf8_lossy(&whole).replace("\"version\": 1", "\"version\": 2").into_bytes();
        for damaged in [Vec::new(), whole[..whole.len() / 2].to_vec(), b"{}".to_vec(), vec![0; 100], changed] {
            if damaged == whole {
                continue;
            }
            fs::write(&path, &damaged).unwrap();
            let error = match name {
                "authority.json" => Authority::open(ca, "blue", WEEK).err(),
                "revoked.json" => Revoked::open(ca).err(),
                "identity.json" => AgentIdentity::load(dir).err(),
                _ => AgentIdentity::request(dir).err(),
            };
            let error = error.unwrap_or_else(|| panic!("{name} with {} bytes was taken", damaged.len()));
            assert_eq!(error.kind(), &ErrorKind::InvalidConfig, "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged, "{name}");
        }
        fs::write(&path, whole).unwrap();
    }
    // What an open Manager has in memory does not overwrite it either.
    fs::write(ca.join("authority.json"), "{").unwrap();
    assert!(manager.authority.rotate().is_err());
    assert_eq!(fs::read(ca.join("authority.json")).unwrap(), b"{");
}

#[test]
fn an_authority_is_of_one_cluster() {
    let manager = Manager::of("blue");
    let before = fs::read(manager.folder.path().join("authority.json")).unwrap();
    let error = Authority::open(manager.folder.path(), "green", WEEK).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("blue") && error.to_string().contains("green"), "{error}");
    assert_eq!(fs::read(manager.folder.path().join("authority.json")).unwrap(), before);
    assert!(Authority::open(manager.folder.path(), "blue", Duration::from_secs(1)).is_err());
}

#[test]
fn a_key_never_lies_beside_the_certificate_of_another() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    let dir = agent.folder.path();
    let first = fs::read(dir.join("identity.json")).unwrap();
    let works = || {
        let identity = AgentIdentity::load(dir).unwrap().unwrap();
        meet(&identity.client_config().unwrap(), &manager.serves(), manager.now).unwrap();
    };
    // A crash after the request was made: the same key is asked for again, and the old identity works on.
    let request = AgentIdentity::request(dir).unwrap();
    let key = fs::read(dir.join("key.next")).unwrap();
    works();
    drop(request);
    let request = AgentIdentity::request(dir).unwrap();
    assert_eq!(fs::read(dir.join("key.next")).unwrap(), key);
    // A crash, or a full disk, while the new identity is written.
    let issued = manager.authority.sign_agent(request.csr_der(), &ServerId::new("web-1"), manager.now).unwrap();
    let install =
        |request| AgentIdentity::install(dir, request, ders(&issued.chain), ders(&manager.authority.bundle()));
    fs::create_dir(dir.join("identity.json.new")).unwrap();
    assert!(install(request).is_err());
    assert_eq!(fs::read(dir.join("identity.json")).unwrap(), first);
    works();
    fs::remove_dir(dir.join("identity.json.new")).unwrap();
    fs::write(dir.join("identity.json.new"), "{ \"version\": 1, \"key").unwrap();
    works();
    // The answer that is installed after all, and a crash before the waiting key is removed.
    install(AgentIdentity::request(dir).unwrap()).unwrap();
    works();
    assert!(!dir.join("key.next").exists());
    fs::write(dir.join("key.next"), &key).unwrap();
    set_mode(&dir.join("key.next"), 0o600);
    AgentIdentity::request(dir).unwrap();
    assert_ne!(fs::read(dir.join("key.next")).unwrap(), key, "a key that is in use is not asked for again");
    works();
}

#[test]
fn only_an_answer_to_the_request_is_installed() {
    let (manager, stranger) = (Manager::of("blue"), Manager::of("blue"));
    let agent = manager.agent("web-1");
    let dir = agent.folder.path();
    let first = fs::read(dir.join("identity.json")).unwrap();
    let request = || AgentIdentity::request(dir).unwrap();
    let sign = |manager: &Manager, server: &str| {
        ders(&manager.authority.sign_agent(request().csr_der(), &ServerId::new(server), manager.now).unwrap().chain)
    };
    let ours = ders(&manager.authority.bundle());
    let (user, _) = manager.authority.issue_user("ann", manager.now).unwrap();
    let junk = vec![vec![0x30, 3, 1, 2, 3]];
    let leaf = sign(&manager, "web-1")[..1].to_vec();
    let cases = [
        ("another key", ders(&manager.signed("web-1").0.chain), ours.clone()),
        ("a user", ders(&user.chain), ours.clone()),
        ("another authority", sign(&stranger, "web-1"), ours.clone()),
        ("another bundle", sign(&manager, "web-1"), ders(&stranger.authority.bundle())),
        ("another server", sign(&manager, "web-2"), ours.clone()),
        ("nothing", Vec::new(), ours.clone()),
        ("no authorities", sign(&manager, "web-1"), Vec::new()),
        ("junk", junk.clone(), ours.clone()),
        ("junk beside", sign(&manager, "web-1"), [ours.clone(), junk].concat()),
        ("no authority", leaf.clone(), leaf),
        ("many", sign(&manager, "web-1"), vec![ours[0].clone(); 9]),
    ];
    for (name, chain, bundle) in cases {
        assert!(AgentIdentity::install(dir, request(), chain, bundle).is_err(), "{name}");
        assert_eq!(fs::read(dir.join("identity.json")).unwrap(), first, "{name}");
    }
    AgentIdentity::install(dir, request(), sign(&manager, "web-1"), ours).unwrap();
}

#[test]
fn an_identity_is_the_same_after_a_restart_and_renews_in_time() {
    let manager = Manager::of("blue");
    let mut moments = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let agent = manager.agent("web-1");
        let loaded = AgentIdentity::load(agent.folder.path()).unwrap().unwrap();
        assert_eq!(loaded.identity(), &agent_of("blue", "web-1"));
        assert_eq!((loaded.not_after(), loaded.chain()), (agent.identity.not_after(), agent.identity.chain()));
        assert_eq!(loaded.renew_at(), agent.identity.renew_at());
        let after = loaded.renew_at().duration_since(manager.now - Duration::from_secs(1)).unwrap();
        assert!(after > WEEK * 56 / 100 && after <= WEEK * 67 / 100, "{after:?}");
        moments.insert(loaded.renew_at());
    }
    assert!(moments.len() > 10, "a fleet does not renew together: {moments:?}");
}

#[test]
fn keys_are_not_shown() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    let request = AgentIdentity::request(agent.folder.path()).unwrap();
    for shown in [format!("{:?}", agent.identity), format!("{request:?}"), format!("{:?}", manager.authority)] {
        assert!(shown.len() < 400 && !shown.contains("key"), "{shown}");
    }
}

#[test]
fn a_refusal_is_on_disk_before_it_counts() {
    let manager = Manager::of("blue");
    let dir = manager.folder.path();
    let revoked = Revoked::open(dir).unwrap();
    let (web, db) = (ServerId::new("web-1"), ServerId::new("db-1"));
    let (issued, _) = manager.signed("web-1");
    let certificate = &issued.chain[0];
    assert!(!revoked.is_revoked(&web) && revoked.refuses(certificate) == Ok(None));
    revoked.revoke(&web, "stolen").unwrap();
    revoked.revoke(&web, "stolen from the office").unwrap();
    let opened = Revoked::open(dir).unwrap();
    for list in [&revoked, &opened] {
        assert!(list.is_revoked(&web) && !list.is_revoked(&db));
        assert_eq!(list.refuses(certificate), Ok(Some("stolen from the office".into())));
        assert_eq!(list.list(), [(Subject::Server(web.clone()), "stolen from the office".into())]);
    }
    // What cannot be written does not count, in either direction.
    fs::create_dir(dir.join("revoked.json.new")).unwrap();
    assert!(revoked.revoke(&db, "gone").is_err() && revoked.allow(&web).is_err());
    assert!(revoked.is_revoked(&web) && !revoked.is_revoked(&db));
    fs::remove_dir(dir.join("revoked.json.new")).unwrap();
    // Whoever acts last acts on what is on disk.
    opened.revoke(&db, "gone").unwrap();
    revoked.allow(&web).unwrap();
    revoked.allow(&web).unwrap();
    assert!(revoked.is_revoked(&db) && revoked.refuses(certificate) == Ok(None));
    assert!(revoked.revoke(&web, &"x".repeat(2000)).is_err() && revoked.revoke(&ServerId::new("a/b"), "").is_err());
}

#[test]
fn one_certificate_can_be_refused_and_its_owner_not() {
    let manager = Manager::of("blue");
    let revoked = Revoked::open(manager.folder.path()).unwrap();
    let (lost, _) = manager.authority.issue_user("ann", manager.now).unwrap();
    let (kept, _) = manager.authority.issue_user("ann", manager.now).unwrap();
    revoked.revoke_certificate(&lost.chain[0], "the laptop is gone").unwrap();
    let opened = Revoked::open(manager.folder.path()).unwrap();
    assert_eq!(opened.refuses(&lost.chain[0]), Ok(Some("the laptop is gone".into())));
    assert_eq!(opened.refuses(&kept.chain[0]), Ok(None));
    assert!(matches!(&opened.list()[..], [(Subject::Serial(serial), _)] if serial.len() == 40));
}
