//! Replays of a journal that is made here, turn by turn.

use std::path::Path;
use std::time::Duration;

use cocktail_core::contract::{Store, TurnRow};
use cocktail_core::event::{Event, Turn};
use cocktail_core::id::{Epoch, Seq, UnitId};
use cocktail_core::manifest;
use cocktail_core::plan;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::server::{Server, ServerState};
use cocktail_core::settings::Settings;
use cocktail_core::spec::Resources;
use cocktail_core::state::State;
use cocktail_core::time::{ManagerTime, WallTime};
use cocktail_store::RedbStore;
use tempfile::TempDir;

use super::replay;
use crate::args::{Format, Moment, ReplayArgs};
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::output::testing::ui;

const MANIFEST: &str = "service = \"shop\"\n[maps.prod.units]\nweb = { command = [\"web\"], replicas = 2 }\nworker = { command = [\"worker\"] }\n";

/// Half an hour before the time of a test's `Ui`.
const BEGIN: i64 = 1_767_268_800_000_000 - 30 * MINUTE;
const MINUTE: i64 = 60_000_000;

/// A data dir with four turns, one a minute: started, applied, web scaled to 3, worker scaled to 2.
struct Journal {
    folder: TempDir,
    store: RedbStore,
    epoch: Epoch,
    state: State,
    seq: Seq,
}

impl Journal {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::open(folder.path()).unwrap();
        let epoch = store.acquire().await.unwrap().epoch;
        let state = State::new(store.id());
        let mut journal = Self { folder, store, epoch, state, seq: Seq(0) };
        let started = Event::ManagerStarted { epoch, settings: Box::new(Settings::default()) };
        journal.turn(vec![started, Event::ServerSeen { server: Box::new(server()) }]).await;
        let service = manifest::parse(MANIFEST, Path::new("shop.toml"), Path::new("/")).unwrap().service.unwrap();
        journal.turn(vec![Event::Applied { service: Box::new(service), actor: "uid 1".into() }]).await;
        journal.turn(vec![scaled("web", 3)]).await;
        journal.turn(vec![scaled("worker", 2)]).await;
        journal
    }

    async fn turn(&mut self, mut events: Vec<Event>) {
        let at = WallTime(BEGIN + i64::try_from(self.seq.0).unwrap() * MINUTE);
        self.state.advance(ManagerTime(self.seq.0 * 60_000), at);
        events.iter().for_each(|event| self.state.apply(event));
        events.extend(plan::decide(&mut self.state));
        self.seq = self.seq.next();
        let turn = Turn { now: self.state.now, at, epoch: self.epoch, events };
        let row = TurnRow { seq: self.seq, at, bytes: serde_json::to_vec(&turn).unwrap() };
        self.store.append(self.epoch, row, &[]).await.unwrap();
    }

    async fn snapshot(&self, keep: u64) {
        self.store.snapshot(self.epoch, self.seq, self.state.to_snapshot().unwrap(), keep).await.unwrap();
    }

    fn run(&self, format: Format, args: ReplayArgs) -> (Result<(), Failure>, String, String) {
        let (mut ui, data, people) = ui(format);
        let outcome = replay(&DataDir::at(self.folder.path()), &args, &mut ui);
        (outcome, data.text(), people.text())
    }

    fn json(&self, args: ReplayArgs) -> serde_json::Value {
        let (outcome, data, _) = self.run(Format::Json, args);
        outcome.unwrap();
        serde_json::from_str(&data).unwrap()
    }
}

fn server() -> Server {
    Server {
        id: cocktail_core::id::ServerId::new("local"),
        provider: cocktail_core::name::Name::new("standalone").unwrap(),
        provider_id: "m-1".into(),
        state: ServerState::Ready,
        reason: "joined".into(),
        since: WallTime(BEGIN),
        zone: None,
        offering: "host".into(),
        incarnation: "b-1".into(),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        capacity: Resources { cpu: CpuMillis(8_000), memory: Bytes(8 << 30) },
        allocated: Resources::default(),
        containers: 0,
        images: false,
        tenure: cocktail_core::fleet::Tenure::default(),
    }
}

fn scaled(unit: &str, desired: u32) -> Event {
    let unit = UnitId::try_from(format!("shop/prod/{unit}")).unwrap();
    Event::Scaled { unit, desired, actor: "uid 1".into() }
}

fn args(until: Option<Moment>, from: Option<Moment>, object: Option<&str>) -> ReplayArgs {
    ReplayArgs { dir: None, until, from, object: object.map(str::to_owned) }
}

fn at(turn: i64, seconds: i64) -> Option<Moment> {
    Some(Moment::At(WallTime(BEGIN + (turn - 1) * MINUTE + seconds * 1_000_000)))
}

fn of_web(value: &serde_json::Value) -> (u64, u64) {
    let units = value["state"]["units"].as_array().unwrap();
    let web = units.iter().find(|unit| unit["unit"] == "web").unwrap();
    let containers = value["state"]["containers"].as_array().unwrap();
    (web["desired"].as_u64().unwrap(), containers.iter().filter(|container| container["unit"] == "web").count() as u64)
}

#[tokio::test]
async fn a_moment_shows_what_was_known_then_and_nothing_later() {
    let journal = Journal::new().await;
    for (until, seq, web) in [
        (Some(Moment::Turn(2)), 2, (2, 2)),
        (at(2, 0), 2, (2, 2)),
        (at(2, 59), 2, (2, 2)),
        (Some(Moment::Ago(Duration::from_secs(28 * 60 + 30))), 2, (2, 2)),
        (at(3, 1), 3, (3, 3)),
        (None, 4, (3, 3)),
    ] {
        let value = journal.json(args(until, None, None));
        assert_eq!((value["seq"].as_u64(), of_web(&value)), (Some(seq), web), "{until:?}");
        assert_eq!(value["newest"]["seq"], 4);
        let events = value["events"].as_array().unwrap();
        assert!(events.iter().all(|event| event["seq"].as_u64() <= Some(seq)), "{until:?}");
        assert!(value["state"]["operations"].as_array().unwrap().iter().all(|view| view["state"] == "intended"));
    }
    let first = journal.json(args(Some(Moment::Turn(1)), None, None));
    assert_eq!(first["state"]["units"].as_array().map(Vec::len), Some(0));
    assert_eq!(first["state"]["servers"][0]["id"], "local");
}

#[tokio::test]
async fn the_last_moment_is_what_the_manager_knows() {
    let journal = Journal::new().await;
    journal.snapshot(u64::MAX).await;
    let value = journal.json(args(None, None, None));
    let live = serde_json::to_value(journal.state.container_views()).unwrap();
    assert_eq!(value["state"]["containers"], live);
    assert_eq!(value["store"], journal.store.id().as_str());
}

#[tokio::test]
async fn from_limits_decisions_and_events_and_an_object_limits_everything() {
    let journal = Journal::new().await;
    let value = journal.json(args(None, Some(Moment::Turn(4)), None));
    assert!(value["events"].as_array().unwrap().iter().all(|event| event["seq"] == 4));
    let why = value["why"].as_array().unwrap();
    let begin = WallTime(BEGIN + 3 * MINUTE).to_string();
    assert!(!why.is_empty() && why.iter().all(|why| why["at"].as_str() >= Some(begin.as_str())), "{why:?}");
    let of_worker = journal.json(args(None, at(3, 1), Some("worker")));
    let kinds: Vec<&str> =
        of_worker["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["scaled", "claimed", "start-intended"]);
    let units = of_worker["state"]["units"].as_array().unwrap();
    assert!(units.len() == 1 && units[0]["unit"] == "worker", "{units:?}");
    assert_eq!(of_worker["state"]["containers"].as_array().map(Vec::len), Some(2));
    assert!(of_worker["why"].as_array().unwrap().iter().all(|why| !why["object"].as_str().unwrap().contains("web")));
}

#[tokio::test]
async fn before_the_oldest_turn_and_after_the_last_are_errors_that_name_them() {
    let journal = Journal::new().await;
    let early = journal.run(Format::Table, args(at(0, 0), None, None)).0.unwrap_err();
    let text = early.to_string();
    assert!(early.code() == 3 && text.contains("turn 1, at 2026-01-01T11:30:00.000Z"), "{text}");
    let late = journal.run(Format::Table, args(Some(Moment::Turn(5)), None, None)).0.unwrap_err();
    assert!(late.code() == 3 && late.to_string().contains("ends with turn 4, at 2026-01-01T11:33"), "{late}");
    let backwards = args(Some(Moment::Turn(2)), Some(Moment::Turn(3)), None);
    assert_eq!(journal.run(Format::Table, backwards).0.unwrap_err().code(), 2);
    let nobody = journal.run(Format::Table, args(None, None, Some("nobody"))).0.unwrap_err();
    assert!(nobody.code() == 3 && nobody.to_string().contains("shop/prod/web"), "{nobody}");
}

#[tokio::test]
async fn a_state_that_cannot_be_rebuilt_is_said_and_the_events_are_shown() {
    let mut journal = Journal::new().await;
    // Room for about the last two turns: the snapshot is newer than what is left before it.
    let bytes = journal.store.read(Seq(3), 2).await.unwrap().iter().map(|row| row.bytes.len() as u64).sum();
    journal.snapshot(bytes).await;
    let (outcome, data, people) = journal.run(Format::Json, args(Some(Moment::Turn(3)), None, None));
    outcome.unwrap();
    let value: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert!(value["state"].is_null() && value["state_missing"].as_str().unwrap().contains("the snapshot is of turn 4"));
    assert_eq!((value["oldest"]["seq"].as_u64(), value["events"][0]["kind"].as_str()), (Some(3), Some("scaled")));
    assert!(people.contains("cannot be rebuilt"), "{people}");
    let early = journal.run(Format::Json, args(Some(Moment::Turn(2)), None, None)).0.unwrap_err();
    assert!(early.to_string().contains("the oldest moment is turn 3"), "{early}");
    // From the snapshot on, everything can be rebuilt.
    journal.turn(vec![scaled("web", 1)]).await;
    assert_eq!(of_web(&journal.json(args(Some(Moment::Turn(4)), None, None))).0, 3);
    assert_eq!(of_web(&journal.json(args(None, None, None))).0, 1);
}

#[tokio::test]
async fn people_get_what_was_known_then_why_then_what_happened() {
    let journal = Journal::new().await;
    let (outcome, data, people) = journal.run(Format::Table, args(Some(Moment::Turn(2)), None, None));
    outcome.unwrap();
    assert_eq!(people, "");
    let titles: Vec<&str> = data.split("\n\n").filter_map(|section| section.lines().next()).collect();
    let head = "turn 2 of 4, at 2026-01-01T11:31:00.000Z";
    assert_eq!(titles, [head, "Units", "Containers", "Servers", "Open operations", "Why", "Events"], "{data}");
    assert!(data.contains("2026-01-01T11:31:00.000Z  create  shop/prod/web\n    because "), "{data}");
    let decided = data.split("\nWhy\n").nth(1).unwrap().lines().nth(1).unwrap();
    assert_eq!(
        decided, "    because applied by uid 1",
        "decisions are not in the order in which they were made: {data}"
    );
    assert!(data.contains("     2  2026-01-01T11:31:00.000Z  applied              shop"), "{data}");
    let mut journal = journal;
    for count in 0..80 {
        journal.turn(vec![scaled("web", 1 + count % 2)]).await;
    }
    let (_, data, people) = journal.run(Format::Table, args(None, None, None));
    let events = data.split("\nEvents\n").nth(1).unwrap();
    assert_eq!(events.lines().count(), super::SHOWN);
    assert!(people.contains("--from shows them"), "{people}");
}
