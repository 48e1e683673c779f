//! The user: applies, scales, restarts, removes, cordons and rearranges, without waiting for what was asked before.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use cocktail_core::command::{Command, Count};
use cocktail_core::contract::{RolloutAction, TerminateReason};
use cocktail_core::event::Event;
use cocktail_core::fleet::{FleetEvent, Late, Rearrangement};
use cocktail_core::id::ServerId;
use cocktail_core::manifest;
use cocktail_core::name::Name;
use cocktail_core::rollout::RolloutState;
use cocktail_core::server::{ServerState, ServerStep};
use cocktail_core::spec::ServiceSpec;
use cocktail_core::unit::Unit;

use super::chance::Chance;
use super::manager::Input;
use super::world::{Happening, World};

/// A Unit as the user has it in mind.
#[derive(Debug)]
struct Wish {
    name: &'static str,
    /// Keys of its manifest.
    keys: &'static str,
    /// Fewest and most containers.
    counts: (u32, u32),
    count: u32,
    version: u32,
    bad: bool,
    there: bool,
    stopped: bool,
}

/// Pause between two looks of the user after the faults.
const TEND: u64 = 60_000;
/// By how many servers the limit is raised then.
const RAISE: u32 = 10;

const COMMON: &str = "restart = { base = \"1s\", max = \"30s\", reset = \"1m\" }\n\
    update = { surge = 3, monitor = \"5s\", progress = \"1m\" }\nstop = { grace = \"10s\" }\n";

/// What the Units are like: each asks for something else of placement.
const UNITS: &[(&str, (u32, u32), &str)] = &[
    ("web", (8, 40), "ports.http = { service = 8080 }\nresources = { cpu = 0.5, memory = \"512MiB\" }\n"),
    (
        "api",
        (4, 20),
        "ports.http = { service = 8081 }\nports.admin = {}\nresources = { cpu = 1, memory = \"1GiB\" }\n\
         place = { spread = \"zone\", priority = 10 }\n",
    ),
    (
        "work",
        (8, 40),
        "resources = { cpu = 0.25, memory = \"256MiB\" }\nplace = { pack = \"server\" }\n\
         volumes.data = { mount = \"data\", kind = \"shared\" }\n",
    ),
    (
        "cache",
        (2, 8),
        "ports.main = {}\nresources = { cpu = 1, memory = \"2GiB\" }\nplace.affinity.apart = [\"cache\"]\n",
    ),
    (
        "base",
        (1, 6),
        "ports.main = {}\nresources = { cpu = 1.5, memory = \"1GiB\" }\nplace.constraints.zone = [\"b\"]\n\
         volumes.tmp = { mount = \"tmp\", kind = \"ephemeral\" }\n",
    ),
    ("batch", (0, 6), "resources = { cpu = 0.5, memory = \"256MiB\" }\n"),
    (
        "db",
        (1, 3),
        "ports.main = {}\nresources = { cpu = 0.5, memory = \"512MiB\" }\n\
         volumes.data = { mount = \"data\", kind = \"exclusive\" }\n",
    ),
    (
        BUSY,
        (2, 12),
        "ports.http = { service = 8082 }\nresources = { cpu = 0.5, memory = \"256MiB\" }\n\
         scale = { min = 2, max = 12, in_flight = 4 }\n",
    ),
    (
        WORKERS[0],
        (1, 10),
        "ports.http = { service = 8083 }\nresources = { cpu = 0.25, memory = \"256MiB\" }\n\
         warm = { count = 3, age = \"20h\", uses = 4 }\n",
    ),
    (WORKERS[1], (0, 6), "ports.http = {}\nresources = { cpu = 0.25, memory = \"256MiB\" }\n"),
];

/// Units whose containers are told what to load; the first has some that wait, and both may take them.
const WORKERS: [&str; 2] = ["front", "side"];

/// The Unit that follows the load.
pub(super) const BUSY: &str = "burst";

/// How many containers the service may have: all that the user can ask for, but none beside them.
const QUOTA: u32 = 154;

/// The user.
#[derive(Debug)]
pub(super) struct User {
    chance: Chance,
    pub(super) provider: Name,
    wishes: Vec<Wish>,
    /// How much of the largest counts fits.
    share: u32,
    /// Requests that clients have under way at workers of [`BUSY`].
    pub(super) load: u64,
    /// The last wish was made.
    wished: bool,
}

impl User {
    pub(super) fn new(chance: Chance, servers: u32) -> Self {
        let provider = Name::new("cloud").expect("a plain word is a name");
        let wish = |(name, counts, keys): &(&'static str, (u32, u32), &'static str)| Wish {
            name,
            keys,
            counts: *counts,
            count: counts.1 / 2,
            version: 1,
            bad: false,
            there: true,
            stopped: false,
        };
        let share = (servers * 100 / 30).min(100);
        Self { chance, provider, wishes: UNITS.iter().map(wish).collect(), share, load: 8, wished: false }
    }

    /// The manifest of what is wished for.
    fn manifest(&self) -> String {
        let mut text = format!("service = \"shop\"\nquota = {{ containers = {QUOTA} }}\n");
        for wish in self.wishes.iter().filter(|wish| wish.there) {
            let Wish { name, keys, count, version, .. } = wish;
            let bad = u8::from(wish.bad);
            let job = name == &"batch";
            let common = match job {
                true => "restart = { when = \"failure\", retries = 2, base = \"1s\", max = \"30s\" }\n",
                false => COMMON,
            };
            // Where the load decides, the keys say so.
            let replicas = if name == &BUSY { String::new() } else { format!("replicas = {count}\n") };
            let kind = if job { "JOB = \"1\"" } else { "JOB_NOT = \"1\"" };
            let program = if WORKERS.contains(name) {
                // Most versions tell something else, and some start from something else.
                format!(
                    "worker = \"w\"\nmicroservices = [\"{name}\"]\nconfig.{name} = {{ v = {version}, bad = {bad} }}\n\
                     env = {{ V = \"{}\" }}\n",
                    version / 4
                )
            } else {
                format!("command = [\"{name}\"]\nenv = {{ V = \"{version}\", BAD = \"{bad}\", {kind} }}\n")
            };
            // Writing into a text cannot fail.
            let _ = write!(text, "[maps.prod.units.{name}]\n{program}{replicas}{common}{keys}");
        }
        text
    }

    fn spec(&self) -> Result<ServiceSpec, String> {
        let parsed = manifest::parse(&self.manifest(), Path::new("cocktail.toml"), Path::new("/srv/shop"));
        parsed.map_err(|problems| format!("{problems:?}"))?.service.ok_or_else(|| "no service".to_owned())
    }

    fn any(&mut self) -> usize {
        usize::try_from(self.chance.below(UNITS.len() as u64)).unwrap_or_default()
    }

    fn count_for(&mut self, index: usize) -> u32 {
        let Some(wish) = self.wishes.get(index) else { return 0 };
        let (low, high) = wish.counts;
        let high = low.max(high * self.share / 100);
        u32::try_from(self.chance.between(low.into(), high.into())).unwrap_or(low)
    }
}

impl World {
    /// One act, and after a while the next.
    pub(super) fn user_acts(&mut self) {
        if self.healed {
            return self.last_acts();
        }
        if self.replayed.units.is_empty() {
            self.apply();
        } else {
            let act = self.user.chance.below(100);
            self.act_of_user(act);
        }
        self.again(self.rates.user, Happening::User);
    }

    fn act_of_user(&mut self, act: u64) {
        let index = self.user.any();
        let count = self.user.count_for(index);
        let Some(wish) = self.user.wishes.get_mut(index) else { return };
        let unit = wish.name.to_owned();
        self.trace.note(self.now, format_args!("the user acts: {act} {unit} {count}"));
        match act {
            0..35 => {
                wish.count = count;
                self.give(Command::Scale { unit, count: Count::Exactly(count) });
            }
            35..52 => {
                wish.version += 1;
                wish.there = true;
                wish.bad = false;
                if act < 38 && unit != "batch" {
                    wish.bad = true;
                }
                self.apply();
            }
            52..60 => self.give(Command::Restart { object: unit }),
            60..64 => {
                wish.there = false;
                self.give(Command::Remove { object: unit });
            }
            64..70 => {
                wish.stopped = !wish.stopped;
                let stopped = wish.stopped;
                self.give(Command::Switch { object: unit, stopped });
            }
            70..80 => self.rearrange(),
            80..86 => self.cordon(),
            86..90 => {
                let actions = [RolloutAction::Pause, RolloutAction::Resume, RolloutAction::Abort];
                if let Some(action) = self.user.chance.pick(&actions).copied() {
                    self.give(Command::Rollout { unit, action });
                }
            }
            90..95 => {
                let ids: Vec<String> = self.replayed.containers.keys().map(ToString::to_string).collect();
                if let Some(object) = self.user.chance.pick(&ids).cloned() {
                    self.give(Command::Restart { object });
                }
            }
            _ => {
                // Everything at once: as much as there may be, or as little.
                for wish in &mut self.user.wishes {
                    wish.count = if act < 98 { wish.counts.1 * self.user.share / 100 } else { wish.counts.0 };
                    wish.there = true;
                }
                self.apply();
            }
        }
    }

    fn apply(&mut self) {
        match self.user.spec() {
            Ok(spec) => self.give(Command::Apply(vec![spec])),
            Err(problems) => self.breach("A1 possible", format!("the manifest is refused: {problems}")),
        }
    }

    /// A server that takes containers.
    fn any_ready(&mut self) -> Option<ServerId> {
        let ready = self.replayed.servers.values().filter(|it| {
            it.state == ServerState::Ready && it.tenure.rearrangement.is_none() && it.tenure.operation.is_none()
        });
        let ready: Vec<&ServerId> = ready.map(|it| &it.id).collect();
        self.user.chance.pick(&ready).map(|it| (*it).clone())
    }

    fn rearrange(&mut self) {
        let Some(server) = self.any_ready() else { return };
        let late = if self.user.chance.happens(300) { Late::Force } else { Late::Cancel };
        let deadline = Some(self.replayed.now + Duration::from_secs(300));
        let because = format!("the user rearranges {server}");
        let rearrangement = Some(Rearrangement {
            because,
            deadline,
            late,
            give_back: Some(TerminateReason::Requested),
            cleared: false,
        });
        self.input(Input::Event(FleetEvent::Rearranging { server, rearrangement }.into()));
    }

    fn cordon(&mut self) {
        let Some(server) = self.any_ready() else { return };
        let because = "the user cordons it".to_owned();
        let step = ServerStep::Cordon;
        self.input(Input::Event(FleetEvent::Stepped { server: server.clone(), step, because }.into()));
        let pause = self.user.chance.between(30_000, 600_000);
        self.after(pause, Happening::Uncordon { server });
    }

    pub(super) fn uncordon(&mut self, server: ServerId) {
        if self.replayed.servers.get(&server).is_some_and(|it| it.state == ServerState::Cordoned) {
            let because = "the user uncordons it".to_owned();
            let step = ServerStep::Uncordon;
            self.input(Input::Event(FleetEvent::Stepped { server, step, because }.into()));
        }
    }

    /// Whatever stopped buying has been looked at.
    pub(super) fn release(&mut self) {
        let lasting = |it: &cocktail_core::fleet::Refused| it.until.is_none();
        let refused = self.replayed.providers.get(&self.cloud).and_then(|it| it.refused.as_ref());
        if refused.is_some_and(lasting) {
            let event: Event = FleetEvent::BuyingStopped { provider: self.cloud.clone(), refused: None }.into();
            self.input(Input::Event(event));
        }
    }

    /// The last wish: everything of a good version, as much as fits well.
    fn last_acts(&mut self) {
        if self.user.wished {
            return;
        }
        if self.manager.is_none() {
            return self.after(1_000, Happening::User);
        }
        self.user.wished = true;
        self.trace.note(self.now, format_args!("the user's last wish"));
        for wish in &mut self.user.wishes {
            wish.version += 1;
            (wish.bad, wish.there) = (false, true);
            wish.count = wish.counts.0.max(wish.counts.1 * self.user.share / 200);
        }
        self.apply();
        let names: Vec<String> = self.user.wishes.iter().map(|it| it.name.to_owned()).collect();
        for object in names {
            self.give(Command::Switch { object, stopped: false });
        }
        let cordoned: Vec<ServerId> = self.replayed.servers.keys().cloned().collect();
        for server in cordoned {
            self.uncordon(server);
        }
        self.release();
        self.after(TEND, Happening::Tend);
    }

    /// What the Manager rightly leaves to the user after faults: a rollout that it paused is resumed, and where the limit
    /// of servers leaves no room the limit is raised.
    pub(super) fn tend(&mut self) {
        self.after(TEND, Happening::Tend);
        let paused = |unit: &Unit| unit.rollout.as_ref().is_some_and(|it| it.state == RolloutState::Paused);
        let resumed: Vec<String> =
            self.replayed.units.iter().filter(|(_, unit)| paused(unit)).map(|(id, _)| id.unit.to_string()).collect();
        for unit in resumed {
            self.trace.note(self.now, format_args!("the user resumes {unit}"));
            self.give(Command::Rollout { unit, action: RolloutAction::Resume });
        }
        if self.limit == self.options.servers && self.replayed.units.values().any(|it| it.held.contains("its limit")) {
            self.limit += RAISE;
            self.trace.note(self.now, format_args!("the user raises the limit to {}", self.limit));
            self.input(Input::Event(self.provider_seen().into()));
        }
    }
}
