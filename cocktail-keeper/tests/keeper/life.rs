//! Start, exit, and what a worker gets.

use cocktail_keeper::{
    KeeperError,
    protocol::{ContainerState, Exit, ExitStatus, Prepare, Refusal, Rlimit, RlimitKind, StartError, StartOutcome},
};
use libtest_mimic::Trial;

use crate::support::{Keeper, lives, marked, test, until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("life::an_exit_code_is_told", an_exit_code_is_told),
        test("life::a_fatal_signal_is_told", a_fatal_signal_is_told),
        test("life::starting_twice_starts_once", starting_twice_starts_once),
        test("life::a_start_without_prepare_is_refused", a_start_without_prepare_is_refused),
        test("life::a_restart_in_place_replaces_the_older_generation", a_restart_in_place_replaces),
        test("life::failures_to_start_name_their_cause", failures_to_start_name_their_cause),
        test("life::a_worker_gets_its_environment_and_no_other_descriptor", a_worker_gets_no_other_descriptor),
        test("life::a_worker_has_default_signals_and_the_callers_limits", a_worker_has_default_signals),
        test("life::a_worker_runs_as_its_user", a_worker_runs_as_its_user),
        test("life::limits_are_set", limits_are_set),
        test("life::usage_counts_the_workers_processes", usage_counts_processes),
        test("life::a_thousand_starts_at_once_all_run", a_thousand_starts),
        test("life::removing_forgets_and_missing_is_success", removing_forgets),
        test("life::in_process_keepers_serve_the_same_and_leave_nothing", in_process_keepers),
    ]
}

fn refusal(result: Result<impl std::fmt::Debug, KeeperError>) -> Refusal {
    match result.unwrap_err() {
        KeeperError::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

async fn an_exit_code_is_told() {
    let mut keeper = Keeper::new().await;
    keeper.sh("a", "exit 7").await;
    assert_eq!(keeper.exit_of("a").await.status, ExitStatus::Code(7));
    let exit = keeper.client.stop("a", 1, crate::support::TERM).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Code(7), "already gone is success with the recorded status");
}

async fn a_fatal_signal_is_told() {
    let mut keeper = Keeper::new().await;
    keeper.run("a", &["sleep", "600"]).await;
    keeper.client.signal("a", 1, 10).await.unwrap();
    assert_eq!(keeper.exit_of("a").await.status, ExitStatus::Signal(10));
    assert!(matches!(refusal(keeper.client.signal("a", 1, 10).await), Refusal::NotRunning { .. }));
}

async fn starting_twice_starts_once() {
    let mut keeper = Keeper::new().await;
    let first = keeper.run("a", &["sleep", "600"]).await;
    assert_eq!(keeper.run("a", &["sleep", "600"]).await, first);
    keeper.client.kill("a", 1).await.unwrap();
    let exit = keeper.exit_of("a").await;
    let again = keeper.client.start(keeper.start("a", 1, &["sleep", "600"])).await.unwrap();
    assert_eq!(again, StartOutcome::Exited(exit));
}

async fn a_start_without_prepare_is_refused() {
    let keeper = Keeper::new().await;
    let start = keeper.start("a", 1, &["true"]);
    assert!(matches!(refusal(keeper.client.start(start).await), Refusal::NotPrepared { .. }));
    let bad = Prepare { container: "../a".to_owned(), generation: 1, ports: Vec::new() };
    assert!(matches!(refusal(keeper.client.prepare(bad).await), Refusal::BadRequest { .. }));
}

async fn a_restart_in_place_replaces() {
    let keeper = Keeper::new().await;
    let old = keeper.run("a", &["sleep", "600"]).await;
    keeper.prepare("a", 2).await;
    assert!(!lives(old.pid));
    let new = keeper.client.start(keeper.start("a", 2, &["sleep", "600"])).await.unwrap();
    assert!(matches!(new, StartOutcome::Started(new) if new.pid != old.pid));
    let stale = keeper.client.kill("a", 1).await;
    assert!(matches!(refusal(stale), Refusal::Generation { current: 2, .. }));
}

async fn failures_to_start_name_their_cause() {
    let keeper = Keeper::new().await;
    keeper.prepare("a", 1).await;
    let start = |argv: &[&str]| keeper.client.start(keeper.start("a", 1, argv));
    assert_eq!(
        refusal(start(&["no-such-program"]).await),
        Refusal::Start(StartError::NotFound { program: "no-such-program".to_owned() })
    );
    assert!(matches!(refusal(start(&["/etc/passwd"]).await), Refusal::Start(StartError::PermissionDenied { .. })));
    let mut nowhere = keeper.start("a", 1, &["true"]);
    nowhere.cwd = "/no/such/dir".into();
    assert!(matches!(refusal(keeper.client.start(nowhere).await), Refusal::Start(StartError::Cwd { errno: 2, .. })));
    let mut nobody = keeper.start("a", 1, &["true"]);
    nobody.user = Some("no-such-user".to_owned());
    assert!(matches!(refusal(keeper.client.start(nobody).await), Refusal::Start(StartError::NoSuchUser { .. })));
    // And after all that it can be started.
    assert!(matches!(start(&["true"]).await.unwrap(), StartOutcome::Started(_)));
}

async fn a_worker_gets_no_other_descriptor() {
    let mut keeper = Keeper::new().await;
    // A host with a descriptor that is not closed on exec must not leak it through its keeper either.
    keeper.sh("a", "ls -l /proc/self/fd; env; ps -o sid= -p $$ | tr -d ' '; echo $$").await;
    keeper.exit_of("a").await;
    let log = keeper.log("a").await;
    assert!(log.contains(" 0 -> /dev/null\n"), "{log}");
    assert!(log.contains(" 1 -> pipe:["), "{log}");
    assert!(log.contains(" 2 -> pipe:["), "{log}");
    // 3 is the directory that ls itself reads.
    assert!(log.matches(" -> ").count() == 4, "{log}");
    assert!(log.contains("O COCKTAIL_CONTAINER=a\n") && log.contains("O COCKTAIL_GENERATION=1\n"), "{log}");
    assert!(!log.contains("CARGO"), "{log}");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[lines.len() - 1], lines[lines.len() - 2], "it leads its session: {log}");
}

async fn a_worker_has_default_signals() {
    let mut keeper = Keeper::new().await;
    keeper.sh("a", "grep -E 'SigBlk|SigIgn|SigCgt' /proc/self/status; ulimit -Sn").await;
    keeper.exit_of("a").await;
    let log = keeper.log("a").await;
    for field in ["SigBlk", "SigIgn"] {
        assert!(log.contains(&format!("O {field}:\t0000000000000000\n")), "{log}");
    }
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap();
    assert!(log.ends_with(&format!("O {own}\n")), "{log}");
}

async fn a_worker_runs_as_its_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut keeper = Keeper::new().await;
    keeper.prepare("a", 1).await;
    let mut start = keeper.start(
        "a",
        1,
        &["sh", "-c", "id -un; id -Gn; echo again > /dev/stdout; grep NoNewPrivs /proc/self/status"],
    );
    start.user = Some("nobody".to_owned());
    start.cwd = "/".into();
    keeper.client.start(start).await.unwrap();
    keeper.exit_of("a").await;
    assert_eq!(keeper.log("a").await, "O nobody\nO nogroup\nO again\nO NoNewPrivs:\t1\n");
}

async fn limits_are_set() {
    let mut keeper = Keeper::new().await;
    keeper.prepare("a", 1).await;
    let mut start = keeper.start("a", 1, &["sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c"]);
    start.rlimits = vec![
        Rlimit { resource: RlimitKind::Nofile, soft: Some(77), hard: Some(88) },
        Rlimit { resource: RlimitKind::Core, soft: Some(0), hard: Some(0) },
    ];
    keeper.client.start(start).await.unwrap();
    keeper.exit_of("a").await;
    assert_eq!(keeper.log("a").await, "O 77\nO 88\nO 0\n");
}

async fn usage_counts_processes() {
    let keeper = Keeper::new().await;
    keeper.sh("a", "sleep 600 & sleep 600 & setsid sleep 600 & echo > ready; wait").await;
    keeper.read_when_written("ready").await;
    loop {
        let usage = keeper.client.usage().await.unwrap();
        if usage["a"].processes == 4 {
            assert!(usage["a"].rss_bytes > 0);
            break;
        }
    }
}

async fn a_thousand_starts() {
    let keeper = Keeper::new().await;
    let starts = (0..1000).map(|number| {
        let (client, id) = (keeper.client.clone(), format!("w{number}"));
        let start = keeper.start(&id, 1, &["sleep", "600"]);
        tokio::spawn(async move {
            client.prepare(Prepare { container: id, generation: 1, ports: Vec::new() }).await.unwrap();
            client.start(start).await.unwrap()
        })
    });
    let mut pids = std::collections::BTreeSet::new();
    for start in starts.collect::<Vec<_>>() {
        if let StartOutcome::Started(started) = start.await.unwrap() {
            assert!(started.start_time > 0);
            pids.insert(started.pid);
        }
    }
    assert_eq!(pids.len(), 1000);
    let listing = keeper.client.list().await.unwrap();
    assert!(listing.complete);
    let running = listing.containers.iter().filter(|info| matches!(info.state, ContainerState::Running(_)));
    assert_eq!(running.count(), 1000);
    let kill = cocktail_keeper::protocol::Shutdown {
        kill: true,
        policy: cocktail_keeper::protocol::StopPolicy { signal: 9, grace_ms: 0 },
    };
    keeper.client.shutdown(kill).await.unwrap();
    assert_eq!(marked(&keeper.store), Vec::<u32>::new());
}

async fn removing_forgets() {
    let keeper = Keeper::new().await;
    keeper.run("a", &["sh", "-c", "echo hi; echo > ready; exec sleep 600"]).await;
    keeper.read_when_written("ready").await;
    assert!(matches!(refusal(keeper.client.remove("a", false).await), Refusal::Running { .. }));
    keeper.client.kill("a", 1).await.unwrap();
    assert!(keeper.path("logs/a/current").exists());
    keeper.client.remove("a", false).await.unwrap();
    assert!(!keeper.path("logs/a").exists());
    keeper.client.remove("a", false).await.unwrap();
    assert_eq!(keeper.client.list().await.unwrap().containers, []);
}

async fn in_process_keepers() {
    let mut keeper = Keeper::in_process().await;
    assert!(keeper.client.welcome().in_process);
    keeper.sh("a", "echo hi; exit 3").await;
    assert!(matches!(keeper.exit_of("a").await, Exit { status: ExitStatus::Code(3), .. }));
    assert_eq!(keeper.log("a").await, "O hi\n");
    let left = keeper.run("b", &["sleep", "600"]).await;
    drop(keeper);
    until(|| (!lives(left.pid)).then_some(())).await;
}
