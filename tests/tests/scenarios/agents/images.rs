//! Servers whose agents run images: a host with an engine for each, and containers that testify.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cocktail_tests::home::PATIENCE;
use cocktail_tests::oracle::Oracle;
use cocktail_tests::process::signal_pid;
use cocktail_tests::{Net, Terminal, program};
use rustix::process::Signal;
use tempfile::TempDir;
use xtask::engine::{Network, PrivateEngine};
use xtask::registry::{PASSWORD, PrivateRegistry, USER};
use xtask::skip_if;

use super::rack::Rack;

const IMAGE: &str = "cocktail-test:1";

/// Testifies as the witness among programs does, and serves a page. A manifest takes `$${` for `${`.
const SCRIPT: &str = r#"cd /tmp; echo here > index.html; httpd -p 80 -h /tmp
read up _ < /proc/uptime
file=/testimony/$COCKTAIL_CONTAINER.$up
echo "witness $COCKTAIL_CONTAINER $COCKTAIL_SERVER $COCKTAIL_UNIT $COCKTAIL_REVISION 0 $${up%.*}$${up#*.}" > $file
echo testifying
while :; do read up _ < /proc/uptime; printf '%020d\n' $(($${up%.*}$${up#*.}0000000)) >> $file; sleep 0.05; done"#;

/// A rack whose agents have engines.
struct Yard {
    rack: Rack,
    engines: Vec<PrivateEngine>,
    // After the engines, which have their files there.
    folders: Vec<TempDir>,
    port: u16,
}

impl Yard {
    /// A Manager, and so many servers that take images.
    fn new(servers: usize) -> Self {
        let mut yard = Self::without_manager(servers);
        yard.open(servers);
        yard
    }

    fn without_manager(servers: usize) -> Self {
        let mut rack = Rack::without_agents(servers);
        rack.more = "runs = \"images\"\n".into();
        let port = rack.home.port();
        fs::create_dir(rack.home.root().join("testimony")).unwrap();
        let mut yard = Self { rack, engines: Vec::new(), folders: Vec::new(), port };
        for number in 1..=servers {
            // The path of a socket must be short.
            let folder = tempfile::Builder::new().prefix("ckt").tempdir_in("/tmp").unwrap();
            let host = yard.rack.net.host(number);
            let engine = host.within(|| PrivateEngine::start(folder.path(), Network::Ours)).unwrap();
            engine.import_busybox(IMAGE).unwrap();
            yard.rack.engines.insert(number, engine.url());
            yard.engines.push(engine);
            yard.folders.push(folder);
        }
        yard
    }

    /// Starts the Manager, and lets the agents of so many servers join.
    fn open(&mut self, servers: usize) {
        self.rack.serve();
        (1..=servers).for_each(|number| self.rack.join(number));
        let rack = &self.rack;
        rack.home.eventually("all servers take containers", || rack.states()[..servers].iter().all(|it| it == "ready"));
    }

    /// Has so many containers of an image that testify.
    fn witnesses(&self, image: &str, replicas: usize) {
        let (port, testimony) = (self.port, self.testimony());
        let text = format!(
            "service = \"shop\"\n[maps.prod.units.witness]\nimage = \"{image}\"\n\
             command = [\"sh\", \"-c\", '''{SCRIPT}''']\n\
             replicas = {replicas}\nprovider = \"rack\"\nports.http = {{ service = {port}, container = 80 }}\n\
             ready = {{ http = \"/index.html\", every = \"200ms\", timeout = \"5s\" }}\n\
             stop = {{ grace = \"1s\" }}\nrestart = {{ base = \"100ms\", max = \"1s\" }}\n\
             volumes.testimony = {{ mount = \"/testimony\", kind = \"bind\", source = \"{}\" }}\n",
            testimony.display()
        );
        self.rack.home.write("witness.toml", text);
        self.rack.home.ok(&["apply", "--wait", "witness.toml"]);
    }

    /// What containers have written: below the folder of the manifest, so that it may be bound.
    fn testimony(&self) -> PathBuf {
        self.rack.home.root().join("testimony")
    }

    fn engine(&self, number: usize) -> &PrivateEngine {
        &self.engines[number - 1]
    }

    /// What runs of ours on the engine of a server.
    fn running(&self, number: usize) -> BTreeSet<String> {
        let ours = ["ps", "-q", "--no-trunc", "--filter", "label=cocktail.store"];
        self.engine(number).docker(&ours).unwrap().lines().map(str::to_owned).collect()
    }

    /// What the service port answers on the Manager's host.
    fn answer(&self) -> String {
        let mut command = self.rack.net.host(Net::MANAGER).command("busybox");
        let output = command.args(["wget", "-q", "-O-", &format!("http://127.0.0.1:{}/index.html", self.port)]);
        String::from_utf8_lossy(&output.output().unwrap().stdout).trim().to_owned()
    }

    /// The engines' ids of the containers, as the Manager knows them.
    fn ids(&self) -> BTreeMap<String, String> {
        let all = self.rack.home.containers("witness");
        let id = |one: &serde_json::Value| Some((one["id"].as_str()?.into(), one["docker_id"].as_str()?.into()));
        all.iter().filter_map(id).collect()
    }

    /// No two copies of a container, never more than were wanted, and in the end nothing is left.
    fn finish(mut self, most: usize) {
        let oracle = Oracle::read(&self.testimony());
        oracle.nobody_met_themselves();
        let (at_once, at) = oracle.most_at_once();
        assert!(at_once <= most, "{at_once} lived at once at {at:?}, and {most} were wanted\n{oracle}");
        assert!(oracle.lives().len() >= most, "few have testified:\n{oracle}");
        self.rack.home.ok(&["rm", "shop", "--wait"]);
        for engine in &self.engines {
            let left = || engine.docker(&["ps", "-aq", "--filter", "label=cocktail.store"]).unwrap();
            self.rack.home.eventually("nothing of it is left in the engine", || left().is_empty());
        }
        self.rack.agents.clear();
        self.rack.end_manager(Signal::TERM);
        // They would wait for the next agent for a while.
        self.rack.home.keepers().iter().for_each(|keeper| keeper.signal(Signal::KILL));
        self.engines.clear();
        self.rack.home.finish();
    }
}

#[test]
fn an_image_serves_from_a_server_with_an_agent_and_can_be_looked_into() {
    skip_if!(NoNetworkNamespaces);
    skip_if!(NoDockerEngine);
    let yard = Yard::new(2);
    yard.witnesses(IMAGE, 4);
    let home = &yard.rack.home;
    assert_eq!((yard.rack.ready(), yard.answer()), (vec![2, 2], "here".to_owned()));
    let ids: BTreeSet<_> = yard.ids().into_values().collect();
    assert_eq!(ids, yard.running(1).union(&yard.running(2)).cloned().collect());
    let id = home.pids("witness").into_keys().next().unwrap();
    assert!(home.ok(&["logs", &id]).stdout.contains("testifying"));
    let said = home.run(&["exec", &id, "--", "sh", "-c", "echo $COCKTAIL_CONTAINER; exit 7"]);
    assert_eq!((said.code(), said.stdout.trim()), (7, id.as_str()));
    // With a terminal, whose size it has.
    let mut terminal = Terminal::open(33, 99);
    let mut child = terminal.spawn(home.command(&["exec", "-it", &id, "--", "sh"]));
    terminal.enter("stty size; exit 3\r");
    let said = terminal.shows("33 99");
    let code = program::end_of(&mut child, PATIENCE).and_then(|status| status.code());
    child.wait().unwrap();
    assert_eq!(code, Some(3), "{said}");
    home.eventually("what they use is known", || {
        let used = |one: &serde_json::Value| one["usage"]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        home.containers("witness").iter().all(used)
    });
    // A program has no place here, and a build no builder: who applies is told.
    for (keys, says) in [
        ("command = [\"sleep\", \"600\"]\nprovider = \"rack\"", "run images, not programs"),
        ("build = { context = \".\" }", "builds nothing"),
    ] {
        home.write("wrong.toml", format!("service = \"shop\"\n[maps.other.units.web]\n{keys}\n"));
        let refused = home.run(&["apply", "wrong.toml"]);
        assert!(refused.code() != 0 && refused.stderr.contains(says), "{refused:?}");
    }
    // A container whose main process is killed runs again, as another process.
    let (id, pid) = home.pids("witness").into_iter().next().unwrap();
    signal_pid(pid, Signal::KILL);
    home.eventually("the container runs again with another process", || {
        home.pids("witness").get(&id).is_some_and(|now| *now != pid) && yard.rack.ready() == [2, 2]
    });
    assert_eq!(yard.answer(), "here");
    // One that waits paused on a server takes the place of one that crashes.
    home.write(
        "spare.toml",
        format!(
            "service = \"spare\"\n[maps.prod.units.spare]\nimage = \"{IMAGE}\"\ncommand = [\"sleep\", \"600\"]\nwarm = 1\n\
             provider = \"rack\"\nstop = {{ grace = \"1s\" }}\nrestart = {{ base = \"100ms\", max = \"1s\" }}\n"
        ),
    );
    home.ok(&["apply", "--wait", "spare.toml"]);
    let waiting = || home.containers("spare").into_iter().find(|one| one["state"] == "waiting");
    let waits = home.until("one waits", waiting);
    let (crashes, pid) = home.pids("spare").into_iter().next().unwrap();
    signal_pid(pid, Signal::KILL);
    let serves = || home.pids("spare").get(waits["id"].as_str().unwrap()).copied();
    let now = home.until("who waited serves", serves);
    assert_eq!(Some(u64::from(now)), waits["pid"].as_u64(), "its process went on");
    home.eventually("the other one waits", || waiting().is_some_and(|one| one["id"] == crashes.as_str()));
    home.ok(&["rm", "spare", "--wait"]);
    yard.finish(4);
}

#[test]
fn a_killed_agent_is_followed_by_one_that_finds_its_containers_as_they_were() {
    skip_if!(NoNetworkNamespaces);
    skip_if!(NoDockerEngine);
    let mut yard = Yard::new(2);
    yard.witnesses(IMAGE, 4);
    let before = (yard.ids(), yard.running(1), yard.running(2));
    let sessions = yard.rack.sessions(1);
    yard.rack.kill_agent(1);
    yard.rack.start(1);
    yard.rack.home.eventually("the next one has joined", || yard.rack.sessions(1) > sessions);
    yard.rack.settled(4);
    // A keeper is followed as well, and the new one knows the lease.
    let keeper = yard.rack.keeper(2).unwrap();
    keeper.signal(Signal::KILL);
    let other = || yard.rack.keeper(2).is_some_and(|other| other.pid != keeper.pid);
    yard.rack.home.eventually("there is another keeper", other);
    std::thread::sleep(std::time::Duration::from_secs(8));
    yard.rack.settled(4);
    assert_eq!((yard.ids(), yard.running(1), yard.running(2)), before, "nothing was touched");
    // What ends is told by the new agent.
    let (id, pid) = yard.rack.home.pids("witness").into_iter().next().unwrap();
    signal_pid(pid, Signal::KILL);
    let again = || yard.rack.home.pids("witness").get(&id).is_some_and(|now| *now != pid);
    yard.rack.home.eventually("it runs again", again);
    yard.rack.settled(4);
    // The new keeper guards as the first one did.
    yard.rack.signal_agent(2, Signal::STOP);
    yard.rack.home.eventually("it has ended everything", || yard.running(2).is_empty());
    yard.rack.signal_agent(2, Signal::CONT);
    yard.rack.home.eventually("it is back", || yard.rack.state(2) == "ready");
    yard.rack.settled(4);
    yard.finish(4);
}

#[test]
fn what_an_agent_has_in_its_engine_ends_with_the_lease_when_the_agent_is_stopped_or_dead() {
    skip_if!(NoNetworkNamespaces);
    skip_if!(NoDockerEngine);
    let mut yard = Yard::new(2);
    yard.witnesses(IMAGE, 4);
    let lost = |yard: &Yard, number: usize| {
        let rack = &yard.rack;
        let replaced = || rack.state(number) == "lost" && rack.ready()[2 - number] == 4;
        rack.home.eventually("what ran there is replaced", replaced);
        // Before anything was made elsewhere, everything there had ended.
        assert_eq!(yard.running(number), BTreeSet::new());
    };
    yard.rack.signal_agent(1, Signal::STOP);
    lost(&yard, 1);
    yard.rack.signal_agent(1, Signal::CONT);
    yard.rack.home.eventually("it is back", || yard.rack.state(1) == "ready");
    yard.rack.settled(4);
    // This time nobody follows, until everything has ended.
    yard.rack.kill_agent(2);
    lost(&yard, 2);
    yard.rack.start(2);
    yard.rack.home.eventually("it is back", || yard.rack.state(2) == "ready");
    yard.rack.settled(4);
    // Nor does anything run on where the engine does not answer either: the witnesses tell.
    yard.rack.home.ok(&["scale", "witness", "6"]);
    yard.rack.settled(6);
    let engine = yard.engine(2).pid();
    yard.rack.signal_agent(2, Signal::STOP);
    signal_pid(engine, Signal::STOP);
    let replaced = || yard.rack.state(2) == "lost" && yard.rack.ready()[0] == 6;
    yard.rack.home.eventually("what ran there is replaced", replaced);
    signal_pid(engine, Signal::CONT);
    yard.rack.signal_agent(2, Signal::CONT);
    yard.rack.home.eventually("it is back", || yard.rack.state(2) == "ready");
    yard.rack.settled(6);
    yard.finish(6);
}

#[test]
fn an_agent_that_runs_something_else_than_its_server_is_to_gets_no_session() {
    skip_if!(NoNetworkNamespaces);
    skip_if!(NoDockerEngine);
    let mut yard = Yard::without_manager(2);
    // The first one is started without its engine.
    let url = yard.rack.engines.remove(&1).unwrap();
    yard.rack.serve();
    yard.rack.join(1);
    yard.rack.join(2);
    let home = &yard.rack.home;
    home.eventually("the other one is there", || yard.rack.state(2) == "ready");
    let told = |because: &String| because.contains("this agent runs programs") && because.contains("runs images");
    home.eventually("somebody is told", || home.why("rack-1").iter().any(told));
    yard.witnesses(IMAGE, 2);
    assert_eq!((yard.rack.state(1).as_str(), yard.rack.ready()), ("booting", vec![0, 2]));
    // Its folder is of an agent that runs programs, and stays so.
    yard.rack.kill_agent(1);
    yard.rack.engines.insert(1, url);
    let command = yard.rack.command(1, 1, &yard.rack.agent_dir(1), None);
    let said = yard.rack.home.spawn_command(command).wait().fails(2);
    assert!(said.contains("take another data dir"), "{said}");
    yard.finish(2);
}

#[test]
fn an_image_of_a_registry_is_fetched_with_the_managers_password_which_is_written_nowhere() {
    skip_if!(NoNetworkNamespaces);
    skip_if!(NoDockerEngine);
    let mut yard = Yard::without_manager(1);
    let folder = tempfile::tempdir().unwrap();
    let host = yard.rack.net.host(1);
    let registry = host.within(|| PrivateRegistry::start(folder.path(), yard.engine(1))).unwrap();
    let image = registry.push(yard.engine(1), IMAGE, "shop/web:1").unwrap();
    let file = yard.rack.home.write("password", format!("{PASSWORD}\n"));
    yard.rack.more += &format!(
        "[registries.hub]\nhost = \"{}\"\nusername = \"{USER}\"\npassword = {{ file = {file:?} }}\nservices = [\"shop\"]\n",
        registry.host()
    );
    yard.open(1);
    yard.witnesses(&image, 1);
    let id = yard.running(1).into_iter().next().unwrap();
    let made = yard.engine(1).docker(&["inspect", "--format", "{{.Config.Image}}", &id]).unwrap();
    assert!(made.contains("/shop/web@sha256:"), "its bytes are those that the registry said: {made}");
    for dir in [yard.rack.agent_dir(1), yard.rack.home.data_dir(), yard.rack.home.base().join("out")] {
        let found = Command::new("grep").args(["-rlF", PASSWORD]).arg(&dir).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "below {}", dir.display());
    }
    drop(registry);
    yard.finish(1);
}
