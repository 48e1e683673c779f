//! Units of images, on an engine of their own.

mod breaks;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cocktail_tests::process::signal_pid;
use cocktail_tests::{Home, Manager, program};
use rustix::process::Signal;
use tempfile::TempDir;
use xtask::engine::{Network, PrivateEngine};
use xtask::registry::{PASSWORD, PrivateRegistry, USER};
use xtask::skip_if;

const IMAGE: &str = "cocktail-test:1";

/// An engine, and a Manager in its network: published ports are on the loopback there.
struct Stage {
    home: Home,
    engine: PrivateEngine,
    port: u16,
    // After the engine, which has its files there.
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::in_folder(folder())
    }

    /// One whose engine has a disk of this size, which is unmounted with the engine.
    fn on_disk(size: &str) -> Self {
        let folder = folder();
        breaks::mount(&folder.path().join("d"), size);
        Self::in_folder(folder)
    }

    fn in_folder(folder: TempDir) -> Self {
        let engine = PrivateEngine::start(folder.path(), Network::Own).unwrap();
        engine.import_busybox(IMAGE).unwrap();
        let home = Home::new();
        let port = home.port();
        Self { home, engine, port, folder }
    }

    /// What brings a program into the engine's network.
    fn network(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.engine.pid())
    }

    fn serve(&self) -> Manager {
        self.serve_with("")
    }

    fn serve_with(&self, more: &str) -> Manager {
        let (settings, url) = (self.home.settings(), self.engine.url());
        let boxes = format!("{settings}[providers.boxes]\nkind = \"docker\"\nendpoint = \"{url}\"\n{more}");
        self.home.serve_through(&["nsenter", &self.network()], &boxes)
    }

    /// A Manager that may have the images of a registry.
    fn serve_hub(&self, registry: &PrivateRegistry) -> Manager {
        let (settings, url, host) = (self.home.settings(), self.engine.url(), registry.host());
        let file = self.home.write("password", format!("{PASSWORD}\n"));
        let settings = format!(
            "{settings}[providers.boxes]\nkind = \"docker\"\nengines = [\"{url}\"]\n\
             [registries.hub]\nhost = \"{host}\"\nusername = \"{USER}\"\npassword = {{ file = {file:?} }}\n\
             services = [\"shop\"]\n"
        );
        self.home.serve_through(&["nsenter", &self.network()], &settings)
    }

    /// Makes an image whose containers answer a word.
    fn image(&self, word: &str) -> String {
        let image = format!("cocktail-{word}:1");
        let script = format!("mkdir -p /www && echo {word} > /www/index.html");
        self.engine.docker(&["run", "--name", "made", IMAGE, "sh", "-c", &script]).unwrap();
        self.engine.docker(&["commit", "made", &image]).unwrap();
        self.engine.docker(&["rm", "made"]).unwrap();
        image
    }

    /// The manifest of a Unit that runs an image as [`Stage::image`] makes them.
    fn write(&self, image: &str, replicas: u32) {
        let port = self.port;
        let text = format!(
            "service = \"shop\"\n[maps.prod.units.web]\nimage = \"{image}\"\n\
             command = [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\nreplicas = {replicas}\n\
             ports.http = {{ service = {port}, container = 80 }}\n\
             ready = {{ http = \"/index.html\", every = \"100ms\", timeout = \"5s\" }}\n\
             update = {{ monitor = \"200ms\", progress = \"60s\" }}\nstop = {{ grace = \"1s\" }}\n"
        );
        self.home.write("web.toml", text);
    }

    /// References that the containers were made from.
    fn made_from(&self) -> BTreeSet<String> {
        let ours = ["ps", "-a", "--filter", "label=cocktail.store", "--format", "{{.ID}}"];
        let ids = self.engine.docker(&ours).unwrap();
        // One that has gone meanwhile counts no more.
        let image = |id: &str| self.engine.docker(&["inspect", "--format", "{{.Config.Image}}", id]).ok();
        ids.split_whitespace().filter_map(image).collect()
    }

    fn apply(&self, word: &str) {
        self.apply_image(IMAGE, word, "60s", "");
    }

    fn apply_image(&self, image: &str, word: &str, progress: &str, more: &str) {
        let port = self.port;
        let script = format!("cd /tmp; echo {word} > index.html; exec httpd -f -p 80");
        let text = format!(
            "service = \"shop\"\n[maps.prod.units.web]\nimage = \"{image}\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n\
             replicas = 3\nports.http = {{ service = {port}, container = 80 }}\n\
             ready = {{ http = \"/index.html\", every = \"100ms\", timeout = \"5s\" }}\n\
             update = {{ monitor = \"200ms\", progress = \"{progress}\" }}\nstop = {{ grace = \"2s\" }}\n\
             volumes.tmp = {{ mount = \"/scratch\", kind = \"ephemeral\" }}\n{more}\n"
        );
        self.home.write("web.toml", text);
        self.home.ok(&["apply", "web.toml"]);
    }

    /// What the service port answers.
    fn answer(&self) -> String {
        let url = format!("http://127.0.0.1:{}/index.html", self.port);
        let output =
            Command::new("nsenter").args([&self.network(), "busybox", "wget", "-q", "-O-", &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Process ids of the containers that wait paused, by container.
    fn waiting(&self, unit: &str) -> BTreeMap<String, u32> {
        let waits = self.home.containers(unit).into_iter().filter(|one| one["state"] == "waiting");
        let pid = |one: &serde_json::Value| u32::try_from(one["pid"].as_u64()?).ok();
        waits.filter_map(|one| Some((one["id"].as_str()?.to_owned(), pid(&one)?))).collect()
    }

    /// Waits until so many containers are ready and one waits; the process ids of both.
    fn warm(&self, unit: &str, ready: usize) -> (BTreeMap<String, u32>, BTreeMap<String, u32>) {
        self.home.until(&format!("{ready} containers of {unit} serve and one waits"), || {
            let (serve, wait) = (self.home.pids(unit), self.waiting(unit));
            let paused = self.engine.docker(&["ps", "-q", "--filter", "status=paused"]).unwrap().lines().count();
            (serve.len() == ready && wait.len() == 1 && paused == 1).then_some((serve, wait))
        })
    }

    /// How many of ours the engine has: containers, networks, volumes.
    fn left(&self) -> [usize; 3] {
        let count = |arguments: &[&str]| {
            let ours = [arguments, &["--filter", "label=cocktail.store"]].concat();
            self.engine.docker(&ours).unwrap().lines().count()
        };
        [count(&["ps", "-aq"]), count(&["network", "ls", "-q"]), count(&["volume", "ls", "-q"])]
    }
}

/// The path of a socket must be short.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("ckt").tempdir_in("/tmp").unwrap()
}

#[test]
fn a_unit_of_an_image_is_scaled_updated_healed_and_deleted_without_a_trace() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let manager = stage.serve();
    stage.apply("one");
    let home = &stage.home;
    home.settled("web", 3);
    assert_eq!((stage.answer(), stage.left()), ("one".into(), [3, 1, 3]));
    for one in home.containers("web") {
        assert!(one["docker_id"].is_string() && one["provider"] == "boxes", "{one}");
    }

    home.ok(&["scale", "web", "5"]);
    home.settled("web", 5);
    assert_eq!(stage.left(), [5, 1, 5]);

    let before: BTreeSet<_> = home.settled("web", 5).into_keys().collect();
    stage.apply("two");
    home.eventually("all containers are of the new revision", || {
        let now: BTreeSet<_> = home.settled("web", 5).into_keys().collect();
        now.is_disjoint(&before)
    });
    assert_eq!(stage.answer(), "two");

    let (id, pid) = home.pids("web").into_iter().next().unwrap();
    signal_pid(pid, Signal::KILL);
    home.eventually("the container runs again with another process", || {
        home.pids("web").get(&id).is_some_and(|now| *now != pid) && home.settled("web", 5).len() == 5
    });

    // The next Manager finds everything as it was.
    let pids = home.pids("web");
    manager.kill();
    let _manager = stage.serve();
    assert_eq!(home.settled("web", 5), pids);

    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

#[test]
fn a_container_that_crashes_is_replaced_by_one_that_waits() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let manager = stage.serve();
    stage.apply_image(IMAGE, "one", "60s", "warm = 1");
    let home = &stage.home;
    let (serve, wait) = stage.warm("web", 3);
    assert_eq!(stage.answer(), "one");

    let (crashed, pid) = serve.into_iter().next().unwrap();
    signal_pid(pid, Signal::KILL);
    let (serve, next) = {
        home.eventually("who waited serves", || wait.keys().all(|id| home.pids("web").contains_key(id)));
        stage.warm("web", 3)
    };
    assert!(wait.iter().all(|(id, pid)| serve.get(id) == Some(pid)), "its process went on: {wait:?} {serve:?}");
    assert_eq!(next.keys().collect::<Vec<_>>(), [&crashed], "it waits in its turn");
    assert!(home.why("web").iter().any(|why| why.contains(&format!("{crashed} crashed"))), "{:?}", home.why("web"));

    // The next Manager finds it waiting, and has it go on where one more is wanted.
    manager.kill();
    let _manager = stage.serve();
    assert_eq!(stage.warm("web", 3), (serve, next.clone()));
    home.ok(&["scale", "web", "4"]);
    let (serve, _) = stage.warm("web", 4);
    assert!(next.iter().all(|(id, pid)| serve.get(id) == Some(pid)), "{next:?} {serve:?}");

    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

#[test]
fn an_image_and_a_program_go_where_they_can_run() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let _manager = stage.serve();
    let home = &stage.home;
    home.write(
        "both.toml",
        format!(
            "service = \"shop\"\n[maps.prod.units.boxed]\nimage = \"{IMAGE}\"\ncommand = [\"sleep\", \"600\"]\n\
             stop = {{ grace = \"1s\" }}\n[maps.prod.units.plain]\ncommand = [\"sleep\", \"600\"]\n"
        ),
    );
    home.ok(&["apply", "both.toml"]);
    home.settled("boxed", 1);
    home.settled("plain", 1);
    let provider = |unit: &str| home.containers(unit)[0]["provider"].clone();
    assert_eq!((provider("boxed"), provider("plain")), ("boxes".into(), "standalone".into()));

    for (provider, keys, says) in [
        ("standalone", format!("image = \"{IMAGE}\""), "runs programs, not images"),
        ("boxes", "command = [\"sleep\", \"600\"]".to_owned(), "runs images, not programs"),
    ] {
        let text = format!("service = \"shop\"\n[maps.other.units.web]\n{keys}\nprovider = \"{provider}\"\n");
        home.write("wrong.toml", text);
        let refused = home.run(&["apply", "wrong.toml"]);
        assert!(refused.code() != 0 && refused.stderr.contains(says), "{refused:?}");
    }
    home.ok(&["rm", "boxed"]);
    home.ok(&["rm", "plain"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

#[test]
fn an_engine_that_is_down_when_it_is_first_seen_takes_containers_when_it_is_back() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let later = tempfile::Builder::new().prefix("ckt").tempdir_in("/tmp").unwrap();
    let url = format!("unix://{}", later.path().join("s").display());
    let _manager = stage.serve_with(&format!("[providers.later]\nkind = \"docker\"\nendpoint = \"{url}\"\n"));
    let home = &stage.home;
    home.write(
        "late.toml",
        format!(
            "service = \"shop\"\n[maps.prod.units.late]\nimage = \"{IMAGE}\"\ncommand = [\"sleep\", \"600\"]\n\
             provider = \"later\"\nresources = {{ cpu = 0.1, memory = \"16MiB\" }}\nstop = {{ grace = \"1s\" }}\n"
        ),
    );
    home.ok(&["apply", "late.toml"]);
    home.eventually("it says what it waits for", || home.why("late").iter().any(|why| why.contains("no room")));
    let engine = PrivateEngine::start(later.path(), Network::Own).unwrap();
    engine.import_busybox(IMAGE).unwrap();
    home.settled("late", 1);
    home.ok(&["rm", "late"]);
    home.eventually("nothing of it is left", || {
        engine.docker(&["ps", "-aq", "--filter", "label=cocktail.store"]).unwrap().is_empty()
    });
    stage.home.finish();
    drop(engine);
}

/// The registry does not answer: that may pass, so it is waited for; what serves goes on serving.
#[test]
fn an_image_that_cannot_be_had_in_the_middle_of_an_update_stops_nothing_and_goes_back() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let _manager = stage.serve();
    stage.apply("one");
    let home = &stage.home;
    let before = home.settled("web", 3);
    // What says itself which bytes it means is asked for when it is started, and not before.
    let image = format!("127.0.0.1:1/shop/web@sha256:{}", "a1".repeat(32));
    stage.apply_image(&image, "two", "3s", "");
    let mut said = false;
    home.eventually("the update has gone back", || {
        assert_eq!(stage.answer(), "one");
        said |= home
            .containers("web")
            .iter()
            .any(|it| it["reason"].as_str().is_some_and(|reason| reason.contains("127.0.0.1:1/shop/web@")));
        home.why("web").iter().any(|why| why.contains("no progress within 3s") && why.contains("shop/web@"))
    });
    assert!(said, "whoever looks is told what is waited for");
    assert_eq!(home.settled("web", 3), before);
    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

#[test]
fn an_image_stays_what_its_tag_stood_for_until_somebody_asks_again() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let registry = PrivateRegistry::start(folder.path(), &stage.engine).unwrap();
    let (one, two) = (stage.image("one"), stage.image("two"));
    let tag = registry.push(&stage.engine, &one, "shop/web:1").unwrap();
    let manager = stage.serve_hub(&registry);
    let home = &stage.home;
    stage.write(&tag, 1);
    home.ok(&["apply", "web.toml"]);
    home.settled("web", 1);
    assert_eq!(stage.answer(), "one");
    let first = stage.made_from();
    assert!(first.len() == 1 && first.iter().all(|made| made.contains("/shop/web@sha256:")), "{first:?}");

    // The tag moves; nobody has asked for that, neither more containers nor an apply about something else.
    registry.push(&stage.engine, &two, "shop/web:1").unwrap();
    home.ok(&["extend", "web", "1"]);
    home.settled("web", 2);
    stage.write(&tag, 3);
    home.ok(&["apply", "web.toml"]);
    home.settled("web", 3);
    assert_eq!((stage.answer(), stage.made_from()), ("one".into(), first.clone()));
    assert!(home.ok(&["plan", "web.toml"]).stderr.contains("nothing would change"));
    assert!(home.ok(&["plan", "--pull", "web.toml"]).stdout.contains("is another image now"));

    home.ok(&["apply", "--pull", "web.toml", "--wait"]);
    assert_eq!(stage.answer(), "two");
    let second = stage.made_from();
    assert!(second.is_disjoint(&first), "{second:?}");

    // The way back gets the first bytes, also by another Manager and although the engine has forgotten them.
    manager.kill();
    let _manager = stage.serve_hub(&registry);
    home.settled("web", 3);
    let held = first.iter().next().unwrap();
    stage.engine.docker(&["rmi", "--force", held, &one]).unwrap();
    home.ok(&["rollback", "web"]);
    home.eventually("the first bytes serve again", || stage.answer() == "one" && stage.made_from() == first);
    home.settled("web", 3);

    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

#[test]
fn a_unit_is_built_from_the_files_beside_its_manifest() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let _manager = stage.serve();
    let home = &stage.home;
    let port = stage.port;
    let site = |dockerfile: &str, word: &str| {
        home.write("site/Dockerfile", dockerfile);
        home.write("site/index.html", format!("{word}\n"));
    };
    let dockerfile = format!("FROM {IMAGE}\nRUN mkdir /www\nCOPY index.html /www/\n");
    site(&dockerfile, "one");
    home.write(
        "web.toml",
        format!(
            "service = \"shop\"\n[maps.prod.units.web]\nbuild = {{ context = \"site\" }}\n\
             command = [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\nreplicas = 2\n\
             ports.http = {{ service = {port}, container = 80 }}\n\
             ready = {{ http = \"/index.html\", every = \"100ms\", timeout = \"5s\" }}\n\
             update = {{ monitor = \"200ms\", progress = \"60s\" }}\nstop = {{ grace = \"1s\" }}\n"
        ),
    );
    let applied = home.ok(&["apply", "web.toml", "--wait"]);
    assert!(applied.stderr.contains("shop/prod/web on boxes: Step 1/"), "{applied:?}");
    assert_eq!(stage.answer(), "one");
    let first = stage.made_from();
    assert!(first.iter().all(|made| made.starts_with("localhost/cocktail/shop/prod/web:")), "{first:?}");
    let again = home.ok(&["apply", "web.toml"]);
    assert!(again.stderr.contains("nothing changed") && !again.stderr.contains("Step 1"), "{again:?}");

    // What cannot be built changes nothing, and says why.
    site(&format!("FROM {IMAGE}\nRUN echo this cannot be; exit 7\n"), "two");
    let refused = home.run(&["apply", "web.toml"]).fails(2);
    assert!(refused.contains("non-zero code: 7") && refused.contains("this cannot be"), "{refused}");
    assert_eq!((stage.answer(), stage.made_from()), ("one".into(), first.clone()));

    site(&dockerfile, "two");
    home.ok(&["apply", "web.toml", "--wait"]);
    assert_eq!(stage.answer(), "two");
    home.ok(&["rollback", "web", "--wait"]);
    assert_eq!((stage.answer(), stage.made_from()), ("one".into(), first));
    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0]);
    stage.home.finish();
}

/// Of a Unit that is built anew again and again, only as many images stay as are wanted.
#[test]
fn images_of_old_revisions_go_from_the_engine_and_a_kept_one_can_be_gone_back_to() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let home = &stage.home;
    let (settings, url) = (home.settings(), stage.engine.url());
    let images = "image_revisions = 2\nimage_prune = \"300ms\"\n";
    let boxes = format!("{settings}{images}[providers.boxes]\nkind = \"docker\"\nendpoint = \"{url}\"\n");
    let _manager = home.serve_through(&["nsenter", &stage.network()], &boxes);
    let all = || stage.engine.docker(&["images", "--all", "--quiet"]).unwrap();
    let names = || -> BTreeSet<String> {
        let pattern = "localhost/cocktail/shop/prod/web";
        let listed = stage.engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", pattern]).unwrap();
        listed.lines().map(str::to_owned).collect()
    };
    let before = all();
    home.write("site/Dockerfile", format!("FROM {IMAGE}\nRUN mkdir /www\nCOPY index.html /www/\n"));
    let port = stage.port;
    home.write(
        "web.toml",
        format!(
            "service = \"shop\"\n[maps.prod.units.web]\nbuild = {{ context = \"site\" }}\n\
             command = [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n\
             ports.http = {{ service = {port}, container = 80 }}\n\
             ready = {{ http = \"/index.html\", every = \"100ms\", timeout = \"5s\" }}\n\
             update = {{ monitor = \"200ms\", progress = \"60s\" }}\nstop = {{ grace = \"1s\" }}\n"
        ),
    );
    let mut made = Vec::new();
    for word in ["one", "two", "three"] {
        home.write("site/index.html", format!("{word}\n"));
        home.ok(&["apply", "web.toml", "--wait"]);
        assert_eq!(stage.answer(), word);
        made.extend(stage.made_from());
    }
    home.eventually("the oldest one is gone", || names() == made[1..].iter().cloned().collect());
    home.ok(&["rollback", "web", "--wait"]);
    assert_eq!(stage.answer(), "two");
    home.ok(&["rm", "web"]);
    home.eventually("nothing of it is left in the engine", || stage.left() == [0, 0, 0] && all() == before);
    stage.home.finish();
}

/// The example program: it says what it does, and leaves nothing.
#[test]
fn the_docker_example_runs_and_leaves_nothing() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let mut command = Command::new(program::example("cocktail-example-docker", "docker"));
    command.arg(IMAGE).env("DOCKER_HOST", stage.engine.url()).env("TMPDIR", stage.home.root());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in
        ["apply: two containers", "scale: three", "started greeter-", "hello from greeter-", "end: nothing is left"]
    {
        assert!(said.contains(line), "{line} is missing: {said}");
    }
    assert_eq!(stage.left(), [0, 0, 0]);
    stage.home.finish();
}

/// The example manifest, with images of the same names that do as much as it takes.
#[test]
fn the_docker_shop_serves_and_keeps_its_data() {
    skip_if!(NoDockerEngine);
    let stage = Stage::new();
    let engine = &stage.engine;
    let archive = stage.folder.path().join("busybox.tar").display().to_string();
    let web = r#"CMD ["sh", "-c", "cd /tmp && echo welcome > index.html && exec httpd -f -p 80"]"#;
    engine.docker(&["import", "--change", web, &archive, "nginx:1.27"]).unwrap();
    engine.docker(&["tag", IMAGE, "busybox:stable"]).unwrap();
    let server = "printf '#!/bin/sh\\necho kept >> /data/dump; exec httpd -f -p 6379 -h /tmp\\n' > /bin/redis-server; \
                  chmod +x /bin/redis-server";
    engine.docker(&["run", "--name", "making", IMAGE, "sh", "-c", server]).unwrap();
    engine.docker(&["commit", "making", "redis:7"]).unwrap();
    engine.docker(&["rm", "making"]).unwrap();

    let folder = program::workspace().join("examples/docker-shop");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let home = &stage.home;
    let endpoint = format!("kind = \"docker\"\nendpoint = \"{}\"", engine.url());
    let settings = format!("{}{}", home.settings(), read("settings.toml").replace("kind = \"docker\"", &endpoint));
    let _manager = home.serve_through(&["nsenter", &stage.network()], &settings);
    home.write("cocktail.toml", read("cocktail.toml"));
    home.ok(&["apply", "cocktail.toml"]);
    for (unit, count) in [("web", 3), ("cache", 1), ("worker", 2)] {
        home.settled(unit, count);
    }
    let page = Command::new("nsenter")
        .args([&stage.network(), "busybox", "wget", "-q", "-O-", "http://127.0.0.1:8080/"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&page.stdout), "welcome\n");
    home.eventually("the workers reach the web servers by name", || {
        home.ok(&["logs", "worker"]).stdout.contains("the page has 8 bytes")
    });
    home.ok(&["restart", "cache"]);
    home.eventually("the cache has what it had", || {
        let cache = home.containers("cache");
        cache.len() == 1
            && cache[0]["docker_id"].as_str().is_some_and(|id| {
                engine.docker(&["exec", id, "cat", "/data/dump"]).is_ok_and(|text| text.lines().count() == 2)
            })
    });
    home.ok(&["down"]);
    assert_eq!(stage.left(), [0, 0, 1], "the volume of the cache stays");
    stage.home.finish();
}
