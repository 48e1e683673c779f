//! Peers that misbehave.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use cocktail_keeper::protocol::StartOutcome;
use libtest_mimic::Trial;

use crate::support::{Keeper, TERM, descriptors, test, until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("safety::garbage_and_huge_lengths_close_the_connection_alone", garbage),
        test("safety::a_client_that_goes_away_in_a_request_is_harmless", goes_away),
        test("safety::directories_and_socket_are_private", private),
        test("safety::a_name_planted_as_a_link_is_not_followed", planted_link),
    ]
}

async fn garbage() {
    let keeper = Keeper::new().await;
    let before = descriptors(keeper.pid());
    for bytes in [&[0xff; 64][..], &[0, 0, 0, 4, b'n', b'o', b'p', b'e'], &[0, 128, 0, 1], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = UnixStream::connect(keeper.options.socket()).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Closed by the keeper: at once, or with an error if it did not read everything.
        let _ = stream.read(&mut [0; 16]);
    }
    keeper.client.list().await.unwrap();
    until(|| (descriptors(keeper.pid()) <= before).then_some(())).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", keeper.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak_kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < 64 * 1024, "peak {peak_kib} KiB");
}

async fn goes_away() {
    let keeper = Keeper::new().await;
    keeper.prepare("a", 1).await;
    let (other, _events) =
        cocktail_keeper::KeeperClient::connect(keeper.options.socket(), keeper.hello(1)).await.unwrap();
    let start = keeper.start("a", 1, &["sleep", "600"]);
    let asked = tokio::spawn({
        let start = start.clone();
        async move { other.start(start).await }
    });
    tokio::task::yield_now().await;
    asked.abort();
    // Whether it was carried out is unknown; asking again tells.
    let outcome = keeper.client.start(start).await.unwrap();
    assert!(matches!(outcome, StartOutcome::Started(_)));
    keeper.client.stop("a", 1, TERM).await.unwrap();
}

async fn private() {
    let keeper = Keeper::new().await;
    let mode = |path: &str| keeper.path(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run"), mode("logs")), (0o700, 0o700));
    assert_eq!((mode("run/keeper.sock"), mode("run/keeper.log")), (0o600, 0o600));
}

async fn planted_link() {
    let mut keeper = Keeper::new().await;
    std::fs::create_dir(keeper.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(keeper.path("elsewhere"), keeper.path("logs/a")).unwrap();
    keeper.sh("a", "echo secret").await;
    keeper.exit_of("a").await;
    assert_eq!(keeper.path("elsewhere").read_dir().unwrap().count(), 0);
}
