//! A Manager and agents on hosts of their own, and witnesses as workers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocktail_tests::Manager;
use cocktail_tests::oracle::Oracle;
use cocktail_tests::{Home, Net, Process};
use rustix::process::Signal;
use serde_json::Value;

/// A worker that testifies that it runs.
pub(super) const WITNESS: &str = env!("CARGO_BIN_EXE_witness");

/// Where agents connect.
pub(super) const PORT: u16 = 7443;

/// Spans that are short enough for a test, and long enough for a busy machine.
pub(super) const SPANS: &str = "heartbeat = \"500ms\"\nsilent_after = \"2s\"\nlease = \"6s\"\nlease_grace = \"500ms\"\n\
                                server_lost_after = \"9s\"\n";

/// Hosts 1 and up are servers `rack-1` and up.
pub(super) struct Rack {
    pub(super) home: Home,
    pub(super) net: Net,
    pub(super) manager: Option<Manager>,
    pub(super) agents: Vec<Option<Manager>>,
    /// Lines of `[manager]` for how long silence may last; none for the defaults.
    spans: &'static str,
    /// More lines of `[providers.rack]`, and tables after it.
    pub(super) more: String,
    /// Engines that agents run images on, by the number of their server.
    pub(super) engines: BTreeMap<usize, String>,
}

impl Rack {
    /// A Manager with so many servers, whose agents have all joined.
    pub(super) fn new(servers: usize) -> Self {
        Self::with_spans(servers, SPANS)
    }

    /// The same with other spans.
    pub(super) fn with_spans(servers: usize, spans: &'static str) -> Self {
        Self::with_agents(servers, servers, spans)
    }

    /// The same, with agents only on the first ones.
    pub(super) fn with_agents(servers: usize, agents: usize, spans: &'static str) -> Self {
        let mut rack = Self::without_agents(servers);
        rack.spans = spans;
        rack.serve();
        for number in 1..=agents {
            rack.join(number);
        }
        let all_are_ready = || rack.states()[..agents].iter().all(|state| state == "ready");
        rack.home.eventually("all servers with agents take containers", all_are_ready);
        rack
    }

    pub(super) fn without_agents(servers: usize) -> Self {
        let (home, net) = (Home::new(), Net::new(servers).unwrap());
        fs::create_dir(home.base().join("testimony")).unwrap();
        let agents = (0..=servers).map(|_| None).collect();
        Self { home, net, manager: None, agents, spans: SPANS, more: String::new(), engines: BTreeMap::new() }
    }

    /// What witnesses have written.
    pub(super) fn testimony(&self) -> PathBuf {
        self.home.base().join("testimony")
    }

    pub(super) fn oracle(&self) -> Oracle {
        Oracle::read(&self.testimony())
    }

    pub(super) fn settings(&self) -> String {
        let names: Vec<String> = (1..self.agents.len()).map(|number| format!("\"rack-{number}\"")).collect();
        let (ports, address) = (self.home.port_range(), self.net.host(Net::MANAGER).address());
        let (spans, more) = (self.spans, &self.more);
        format!(
            "[manager]\nport_range = \"{ports}\"\nport_hold_down = \"100ms\"\ndrain = \"1s\"\nrelist = \"1s\"\n\
             listen = \"{address}:{PORT}\"\n{spans}[providers.rack]\nkind = \"standalone\"\nservers = [{}]\n{more}",
            names.join(", ")
        )
    }

    /// Starts a Manager for the data dir on its host.
    pub(super) fn serve(&mut self) {
        let text = self.settings();
        let file = self.home.write("settings.toml", text);
        let args = ["--config", &file.to_string_lossy(), "serve"].map(str::to_owned);
        let mut command = self.net.host(Net::MANAGER).command(cocktail_tests::program::cocktail());
        command.args(args);
        self.home.settle(&mut command);
        let mut manager = self.home.spawn_command(command);
        let pid = manager.pid();
        self.home.eventually("the Manager answers", || {
            manager.must_run();
            self.home.manager_pid() == Some(pid)
        });
        self.manager = Some(manager);
    }

    /// Ends the Manager with a signal.
    pub(super) fn end_manager(&mut self, signal: Signal) {
        self.manager.take().unwrap().end(signal);
    }

    /// Makes a token for a server and starts its agent with it.
    pub(super) fn join(&mut self, number: usize) {
        let token = self.home.ok(&["token", &format!("rack-{number}")]).stdout.trim().to_owned();
        self.home.write(&format!("token-{number}"), token);
        self.start(number);
    }

    pub(super) fn agent_dir(&self, number: usize) -> PathBuf {
        self.home.base().join(format!("agent-{number}"))
    }

    /// Starts the agent of a server.
    pub(super) fn start(&mut self, number: usize) {
        let command = self.command(number, number, &self.agent_dir(number), None);
        self.agents[number] = Some(self.home.spawn_command(command));
    }

    /// An agent of server `number`, on a host, with a data dir, and as another boot if that is named.
    pub(super) fn command(&self, number: usize, host: usize, dir: &Path, boot: Option<&Path>) -> Command {
        let host = self.net.host(host);
        let mut command = match boot {
            None => host.command(cocktail_tests::program::cocktail()),
            Some(boot) => {
                // A namespace of its own, in which the kernel seems to have booted anew.
                let mut command = host.command("unshare");
                let script =
                    format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"", boot.display());
                command.args(["--mount", "sh", "-c", &script]).arg(cocktail_tests::program::cocktail());
                command
            }
        };
        let manager = self.net.host(Net::MANAGER).address();
        let token = self.home.root().join(format!("token-{number}"));
        command.args(["--data-dir", &dir.to_string_lossy(), "agent", "--join", &format!("{manager}:{PORT}")]);
        command.args(["--token-file", &token.to_string_lossy(), "--address", &host.address().to_string()]);
        if let Some(url) = self.engines.get(&number) {
            command.args(["--engine", url]);
        }
        self.home.settle(&mut command);
        command.env_remove("COCKTAIL_DATA_DIR");
        command
    }

    /// The same on a host that sees no processes of others, as a machine of its own does.
    pub(super) fn elsewhere(&self, number: usize, host: usize, dir: &Path, boot: &Path) -> Command {
        let inner = self.command(number, host, dir, Some(boot));
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(inner.get_program())
            .args(inner.get_args());
        self.home.settle(&mut command);
        command.env_remove("COCKTAIL_DATA_DIR");
        command
    }

    /// A Unit of witnesses, spread over the servers.
    pub(super) fn witnesses(&self, replicas: usize, more: &str) {
        let testimony = self.testimony();
        let text = format!(
            "service = \"shop\"\n[maps.prod.units.witness]\ncommand = [\"{WITNESS}\", \"{}\"]\nreplicas = {replicas}\n\
             env = {{ ADDRESS = \"0.0.0.0\" }}\nports.http = {{}}\nready = {{ http = \"/\", every = \"200ms\" }}\n\
             stop = {{ grace = \"2s\" }}\nrestart = {{ base = \"100ms\", max = \"1s\" }}\n{more}\n",
            testimony.display()
        );
        self.home.write("witness.toml", text);
        self.home.ok(&["apply", "--wait", "witness.toml"]);
    }

    /// States of the servers, in their order.
    pub(super) fn states(&self) -> Vec<String> {
        let servers = self.home.json(&["servers"]);
        let servers = servers.as_array().unwrap();
        (1..self.agents.len())
            .map(|number| {
                let server = servers.iter().find(|server| server["id"] == format!("rack-{number}"));
                server.map_or_else(String::new, |server| server["state"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    pub(super) fn state(&self, number: usize) -> String {
        self.states().swap_remove(number - 1)
    }

    /// Ready containers, by the number of their server.
    pub(super) fn ready(&self) -> Vec<usize> {
        let all = self.home.containers("witness");
        let on = |number: usize| {
            let server = format!("rack-{number}");
            all.iter().filter(|it| it["ready"] == true && it["server"] == server).count()
        };
        (1..self.agents.len()).map(on).collect()
    }

    /// Waits until exactly so many are there, all ready.
    pub(super) fn settled(&self, count: usize) {
        self.home.settled("witness", count);
    }

    /// Sends a signal to the agent of a server, and to nothing else.
    pub(super) fn signal_agent(&self, number: usize, signal: Signal) {
        self.agents[number].as_ref().unwrap().signal(signal);
    }

    /// Kills the agent of a server, and nothing else.
    pub(super) fn kill_agent(&mut self, number: usize) {
        self.agents[number].take().unwrap().kill();
    }

    /// The keeper of a server.
    pub(super) fn keeper(&self, number: usize) -> Option<Process> {
        let dir = format!("{}/", self.agent_dir(number).display());
        self.home.keepers().into_iter().find(|process| process.command.contains(&dir))
    }

    /// Workers of a server.
    pub(super) fn workers(&self, number: usize) -> Vec<Process> {
        let server = format!("rack-{number}");
        let all = self.home.workers().into_iter();
        all.filter(|process| process.variable("COCKTAIL_SERVER") == Some(&server)).collect()
    }

    pub(super) fn events(&self, kind: &str) -> Vec<Value> {
        let events = self.home.ok(&["-o", "json", "events", "--tail", "5000"]).json_lines();
        events.into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// How often something of the sessions of a server was written down: at each new one, and besides.
    pub(super) fn sessions(&self, number: usize) -> usize {
        let server = format!("rack-{number}");
        self.events("session-recorded").iter().filter(|event| event["object"] == server).count()
    }

    /// What every test with witnesses ends with: no two copies of a container, and never more than were wanted; then
    /// everything goes.
    pub(super) fn finish(self, most: usize) {
        let oracle = self.oracle();
        oracle.nobody_met_themselves();
        let (at_once, at) = oracle.most_at_once();
        assert!(at_once <= most, "{at_once} lived at once at {at:?}, and {most} were wanted\n{oracle}");
        assert!(oracle.lives().len() >= most, "few have testified:\n{oracle}");
        self.end();
    }

    /// Ends everything and makes sure that nothing is left.
    pub(super) fn end(mut self) {
        self.home.ok(&["rm", "shop", "--wait"]);
        self.home.eventually("no worker is left", || self.home.workers().is_empty());
        self.agents.clear();
        self.end_manager(Signal::TERM);
        // They would wait for the next agent for a while.
        self.home.keepers().iter().for_each(|keeper| keeper.signal(Signal::KILL));
        self.home.finish();
    }
}
