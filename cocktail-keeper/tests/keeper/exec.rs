//! Commands beside a worker.

use cocktail_keeper::{
    ExecOutput, KeeperError,
    protocol::{ExecRequest, ExitStatus, Refusal, StartError},
};
use libtest_mimic::Trial;

use crate::support::{Keeper, lives, test, until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("exec::streams_and_exit_code_come_back", streams_and_exit_code),
        test("exec::input_reaches_the_command_until_it_is_closed", input),
        test("exec::a_terminal_is_one_and_has_the_size_asked_for", a_terminal),
        test("exec::a_terminal_can_be_resized", a_resize),
        test("exec::closing_the_connection_kills_the_command", closing_kills),
        test("exec::sessions_are_bounded", bounded),
        test("exec::a_missing_program_or_worker_is_said", refused),
    ]
}

fn request(argv: &[&str]) -> ExecRequest {
    let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
    ExecRequest { container: "a".to_owned(), argv, ..ExecRequest::default() }
}

async fn with_worker() -> Keeper {
    let keeper = Keeper::new().await;
    keeper.run("a", &["sleep", "600"]).await;
    keeper
}

/// Stdout, stderr and status of a session.
async fn finish(session: &mut cocktail_keeper::ExecSession) -> (String, String, ExitStatus) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match session.next().await.unwrap() {
            ExecOutput::Stdout(bytes) => out.extend_from_slice(&bytes),
            ExecOutput::Stderr(bytes) => err.extend_from_slice(&bytes),
            ExecOutput::Exit(status) => {
                return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), status);
            }
        }
    }
}

async fn streams_and_exit_code() {
    let keeper = with_worker().await;
    let mut exec = request(&["sh", "-c", "echo $COCKTAIL_CONTAINER $EXTRA; pwd; echo oops >&2; exit 6"]);
    exec.env.insert("EXTRA".to_owned(), "more".to_owned());
    let mut session = keeper.client.exec(exec).await.unwrap();
    let (out, err, status) = finish(&mut session).await;
    let dir = keeper.dir.path().canonicalize().unwrap();
    assert_eq!((out, err.as_str(), status), (format!("a more\n{}\n", dir.display()), "oops\n", ExitStatus::Code(6)));
}

async fn input() {
    let keeper = with_worker().await;
    let mut session = keeper.client.exec(request(&["wc", "-c"])).await.unwrap();
    let input = session.input();
    for _ in 0..20 {
        input.write(&[b'x'; 100_000]).await.unwrap();
    }
    input.close().await.unwrap();
    let (out, _, status) = finish(&mut session).await;
    assert_eq!((out.trim(), status), ("2000000", ExitStatus::Code(0)));
}

async fn a_terminal() {
    let keeper = with_worker().await;
    let exec = ExecRequest { tty: true, rows: 33, cols: 77, ..request(&["sh", "-c", "tty; stty size; exit 2"]) };
    let mut session = keeper.client.exec(exec).await.unwrap();
    let (out, _, status) = finish(&mut session).await;
    assert!(out.starts_with("/dev/pts/"), "{out}");
    assert!(out.ends_with("\r\n33 77\r\n"), "{out:?}");
    assert_eq!(status, ExitStatus::Code(2));
}

async fn a_resize() {
    let keeper = with_worker().await;
    let exec = ExecRequest {
        tty: true,
        rows: 10,
        cols: 20,
        ..request(&["sh", "-c", "stty -echo; echo ready; read line; stty size"])
    };
    let mut session = keeper.client.exec(exec).await.unwrap();
    let mut out = Vec::new();
    while !out.ends_with(b"ready\r\n") {
        let ExecOutput::Stdout(bytes) = session.next().await.unwrap() else { panic!("output") };
        out.extend_from_slice(&bytes);
    }
    session.input().resize(40, 120).await.unwrap();
    session.input().write(b"\n").await.unwrap();
    let (out, _, _) = finish(&mut session).await;
    assert!(out.contains("40 120"), "{out:?}");
}

async fn closing_kills() {
    let keeper = with_worker().await;
    let session = keeper.client.exec(request(&["sh", "-c", "echo $$ > pid; sleep 600 & sleep 600"])).await.unwrap();
    let pid: u32 = keeper.read_when_written("pid").await.trim().parse().unwrap();
    drop(session);
    until(|| (!lives(pid)).then_some(())).await;
    assert_eq!(keeper.client.list().await.unwrap().containers.len(), 1);
}

async fn bounded() {
    let keeper = Keeper::with(|options| options.exec_sessions = 2).await;
    keeper.run("a", &["sleep", "600"]).await;
    let first = keeper.client.exec(request(&["sleep", "600"])).await.unwrap();
    let _second = keeper.client.exec(request(&["sleep", "600"])).await.unwrap();
    let third = keeper.client.exec(request(&["sleep", "600"])).await;
    assert!(matches!(third, Err(KeeperError::Refused(Refusal::Limit { .. }))));
    drop(first);
    while keeper.client.exec(request(&["true"])).await.is_err() {
        tokio::task::yield_now().await;
    }
}

async fn refused() {
    let keeper = with_worker().await;
    let missing = keeper.client.exec(request(&["no-such-program"])).await.unwrap_err();
    assert!(matches!(missing.refusal(), Some(Refusal::Start(StartError::NotFound { .. }))), "{missing:?}");
    keeper.client.kill("a", 1).await.unwrap();
    let gone = keeper.client.exec(request(&["true"])).await.unwrap_err();
    assert!(matches!(gone.refusal(), Some(Refusal::NotRunning { .. })));
}
