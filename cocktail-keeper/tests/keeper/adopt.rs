//! Keepers that die and Managers that come back.

use cocktail_keeper::{
    Hello, KeeperClient, KeeperError,
    protocol::{
        Adopt, AdoptContainer, AdoptOutcome, ContainerState, Event, ExitStatus, Intent, Refusal, Shutdown, Started,
    },
};
use libtest_mimic::Trial;

use crate::support::{Keeper, TERM, keepers_of, kill, lives, marked, replace, test, until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("adopt::workers_outlive_a_killed_keeper_and_are_adopted", outlive_a_killed_keeper),
        test("adopt::an_unacknowledged_worker_is_found", an_unacknowledged_worker),
        test("adopt::a_pid_that_is_another_process_now_is_gone", another_process),
        test("adopt::a_reconnecting_client_finds_workers_and_missed_events", reconnecting),
        test("adopt::another_store_is_refused_and_changes_nothing", another_store),
        test("adopt::a_higher_epoch_takes_over_and_the_older_loses_command", epochs),
        test("adopt::an_older_copy_is_refused_and_changes_nothing", older_copy),
        test("adopt::a_copy_that_is_told_to_takes_over", told_to_take_over),
        test("adopt::a_release_ends_the_workers_of_another_store", release),
        test("adopt::a_second_keeper_for_a_directory_is_harmless", a_second_keeper),
        test("adopt::shutdown_leaves_or_ends_workers_as_asked", shutdown),
        test("adopt::a_keeper_that_holds_nothing_ends", idle_exit),
    ]
}

fn known(container: &str, started: &Started) -> AdoptContainer {
    AdoptContainer {
        container: container.to_owned(),
        generation: 1,
        pid: started.pid,
        start_time: started.start_time,
        boot_id: started.boot_id.clone(),
        ..AdoptContainer::default()
    }
}

const TALKER: &str = "trap 'exit 3' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done";

async fn outlive_a_killed_keeper() {
    let mut keeper = Keeper::new().await;
    let started = keeper.sh("a", TALKER).await;
    let gone = keeper.run("b", &["sleep", "600"]).await;
    replace(&mut keeper).await;
    assert!(lives(started.pid));
    kill(gone.pid, 9);
    until(|| (!lives(gone.pid)).then_some(())).await;
    let containers = vec![known("a", &started), known("b", &gone)];
    let adoption = keeper.client.adopt(Adopt { containers: containers.clone() }).await.unwrap();
    assert_eq!(adoption.outcomes["a"], AdoptOutcome::Adopted);
    assert_eq!(adoption.outcomes["b"], AdoptOutcome::Gone);
    assert_eq!(adoption.found, []);
    let again = keeper.client.adopt(Adopt { containers }).await.unwrap();
    assert_eq!(again.outcomes, adoption.outcomes);

    // Its output goes on where it was.
    let mut log = keeper
        .client
        .logs(cocktail_keeper::protocol::LogsRequest {
            container: "a".to_owned(),
            follow: true,
            tail: Some(0),
            ..Default::default()
        })
        .await
        .unwrap();
    log.next().await.unwrap().unwrap();
    // The exit status is known where the kernel keeps it.
    let exit = keeper.client.stop("a", 1, TERM).await.unwrap();
    assert!(matches!(exit.status, ExitStatus::Code(3) | ExitStatus::Unknown), "{exit:?}");
    assert_eq!(marked(&keeper.store), Vec::<u32>::new());
}

async fn an_unacknowledged_worker() {
    let mut keeper = Keeper::new().await;
    let started = keeper.sh("a", "sleep 600 & wait").await;
    replace(&mut keeper).await;
    let adoption = keeper.client.adopt(Adopt::default()).await.unwrap();
    assert_eq!(adoption.found.len(), 1, "{adoption:?}");
    assert_eq!((adoption.found[0].started.pid, adoption.found[0].generation), (started.pid, 1));
    keeper.client.kill("a", 1).await.unwrap();
    assert_eq!(marked(&keeper.store), Vec::<u32>::new());
}

async fn another_process() {
    let keeper = Keeper::new().await;
    let own = Started {
        pid: std::process::id(),
        start_time: 1,
        boot_id: keeper.client.welcome().boot_id.clone(),
        cgroup_note: None,
    };
    let adoption = keeper.client.adopt(Adopt { containers: vec![known("a", &own)] }).await.unwrap();
    assert_eq!(adoption.outcomes["a"], AdoptOutcome::Gone);
    let rebooted = Started { boot_id: "another".to_owned(), ..own };
    let adoption = keeper.client.adopt(Adopt { containers: vec![known("a", &rebooted)] }).await.unwrap();
    assert_eq!(adoption.outcomes["a"], AdoptOutcome::Gone);
}

async fn reconnecting() {
    let keeper = Keeper::new().await;
    keeper.sh("a", "while ! test -e go; do sleep 0.01; done; exit 8").await;
    let hello = keeper.hello(1);
    let seq = keeper.client.list().await.unwrap().seq;
    std::fs::write(keeper.path("go"), "").unwrap();
    until(|| marked(&keeper.store).is_empty().then_some(())).await;
    let (client, mut events) = KeeperClient::connect(keeper.options.socket(), hello).await.unwrap();
    client.subscribe(seq + 1).await.unwrap();
    let frame = events.next().await.unwrap();
    assert!(matches!(frame.event, Event::Exited { exit, .. } if exit.status == ExitStatus::Code(8)), "{frame:?}");
    let gap = client.subscribe(1_000_000).await.unwrap_err();
    assert!(matches!(gap.refusal(), Some(Refusal::Gap { .. })));
}

async fn another_store() {
    let keeper = Keeper::new().await;
    keeper.run("a", &["sleep", "600"]).await;
    let hello = Hello { store: "another".to_owned(), epoch: 99, ..Default::default() };
    let refused = KeeperClient::connect(keeper.options.socket(), hello).await.unwrap_err();
    assert!(matches!(refused.refusal(), Some(Refusal::WrongStore { owner }) if *owner == keeper.store));
    let listing = keeper.client.list().await.unwrap();
    assert!(matches!(listing.containers[0].state, ContainerState::Running(_)));
}

async fn epochs() {
    let keeper = Keeper::new().await;
    let socket = keeper.options.socket();
    let (newer, _events) = KeeperClient::connect(&socket, keeper.hello(5)).await.unwrap();
    newer.list().await.unwrap();
    let stale = keeper.client.list().await.unwrap_err();
    assert!(matches!(stale.refusal(), Some(Refusal::StaleEpoch { current: 5 })), "{stale:?}");
    let older = KeeperClient::connect(&socket, keeper.hello(4)).await.unwrap_err();
    assert!(matches!(older.refusal(), Some(Refusal::StaleEpoch { current: 5 })));
}

/// A hello with the last of these keys as its lease.
fn leased(keeper: &Keeper, epoch: u64, keys: &[&str]) -> Hello {
    let mut earlier: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    Hello { lease: earlier.pop(), earlier, ..keeper.hello(epoch) }
}

async fn older_copy() {
    let keeper = Keeper::new().await;
    let started = keeper.run("a", &["sleep", "600"]).await;
    let socket = keeper.options.socket();
    let (newer, _events) = KeeperClient::connect(&socket, leased(&keeper, 3, &["one", "two"])).await.unwrap();
    newer.release_ports(vec![1]).await.unwrap();
    // It has caught up with the epoch, and has not the lease that is in command.
    let refused = KeeperClient::connect(&socket, leased(&keeper, 4, &["one", "other"])).await.unwrap_err();
    assert!(matches!(refused.refusal(), Some(Refusal::OlderCopy { current: 3 })), "{refused:?}");
    assert!(lives(started.pid));
    newer.list().await.unwrap();
    KeeperClient::connect(&socket, leased(&keeper, 4, &["one", "two", "three"])).await.unwrap();
}

async fn told_to_take_over() {
    let keeper = Keeper::new().await;
    let started = keeper.run("a", &["sleep", "600"]).await;
    let socket = keeper.options.socket();
    let (newer, _events) = KeeperClient::connect(&socket, leased(&keeper, 9, &["one", "two"])).await.unwrap();
    newer.release_ports(vec![1]).await.unwrap();
    let copy = leased(&keeper, 2, &["one", "other"]);
    let told = Hello { intent: Intent::Adopt, ..copy };
    let (client, _events) = KeeperClient::connect(&socket, told).await.unwrap();
    assert_eq!(client.list().await.unwrap().containers.len(), 1);
    let overtaken = newer.list().await.unwrap_err();
    assert!(matches!(overtaken.refusal(), Some(Refusal::StaleEpoch { current: 2 })), "{overtaken:?}");
    KeeperClient::connect(&socket, leased(&keeper, 3, &["one", "other", "next"])).await.unwrap();
    assert!(lives(started.pid));
}

async fn release() {
    let keeper = Keeper::new().await;
    let started = keeper.run("a", &["sleep", "600"]).await;
    let hello = Hello { store: "another".to_owned(), intent: Intent::Release, ..Hello::default() };
    let (client, _events) = KeeperClient::connect(keeper.options.socket(), hello).await.unwrap();
    assert_eq!(client.welcome().store, keeper.store);
    client.shutdown(Shutdown { kill: true, policy: TERM }).await.unwrap();
    assert!(!lives(started.pid));
    until(|| keepers_of(&keeper.options.dir).is_empty().then_some(())).await;
}

async fn a_second_keeper() {
    let keeper = Keeper::new().await;
    cocktail_keeper::spawn(&keeper.options).unwrap();
    keeper.client.list().await.unwrap();
    assert_eq!(keepers_of(&keeper.options.dir), [keeper.pid()]);
    assert!(matches!(cocktail_keeper::serve_in_process(keeper.options.clone()), Err(KeeperError::NotStarted { .. })));
}

async fn shutdown() {
    let keeper = Keeper::new().await;
    let started = keeper.run("a", &["sleep", "600"]).await;
    keeper.client.shutdown(Shutdown { kill: false, policy: TERM }).await.unwrap();
    keeper.client.closed().await;
    until(|| keepers_of(&keeper.options.dir).is_empty().then_some(())).await;
    assert!(lives(started.pid));

    let keeper = Keeper::new().await;
    keeper.run("a", &["sleep", "600"]).await;
    keeper.client.shutdown(Shutdown { kill: true, policy: TERM }).await.unwrap();
    assert_eq!(marked(&keeper.store), Vec::<u32>::new());
    keeper.client.closed().await;
    until(|| keepers_of(&keeper.options.dir).is_empty().then_some(())).await;
    assert!(!crate::support::exists(&keeper.options.socket()));
}

async fn idle_exit() {
    let keeper = Keeper::with(|options| options.idle_exit = std::time::Duration::from_millis(20)).await;
    keeper.run("a", &["sleep", "600"]).await;
    let Keeper { .. } = &keeper;
    let (dir, socket, hello) = (keeper.options.dir.clone(), keeper.options.socket(), keeper.hello(2));
    let (client, _events) = KeeperClient::connect(&socket, hello).await.unwrap();
    assert_eq!(keepers_of(&dir).len(), 1);
    client.kill("a", 1).await.unwrap();
    client.remove("a", false).await.unwrap();
    drop(client);
    let mut keeper = keeper;
    // The test's own first connection keeps it alive; replacing it by one that cannot be made drops it.
    let (idle, events) = KeeperClient::connect(&socket, keeper.hello(2)).await.unwrap();
    keeper.client = idle;
    keeper.events = events;
    assert_eq!(keepers_of(&dir).len(), 1);
    keeper.let_go().await;
    until(|| keepers_of(&dir).is_empty().then_some(())).await;
}
