//! Output: complete, bounded, readable from anywhere.

use cocktail_keeper::{
    LogItem, LogRecord,
    protocol::{ExitStatus, LogsRequest},
};
use libtest_mimic::Trial;

use crate::support::{Keeper, test, without_times};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("logs::the_last_output_before_an_exit_is_there", last_output),
        test("logs::a_burst_larger_than_any_buffer_is_complete", a_burst),
        test("logs::a_flood_of_stderr_without_lines_neither_blocks_nor_grows", a_flood),
        test("logs::files_are_rotated_and_bounded", rotation),
        test("logs::tail_and_since_select_records", tail_and_since),
        test("logs::following_survives_rotation", following),
        test("logs::following_ends_with_the_container", following_to_the_end),
        test("logs::a_full_disk_drops_and_the_worker_goes_on", an_unwritable_log),
    ]
}

fn request(container: &str) -> LogsRequest {
    LogsRequest { container: container.to_owned(), ..LogsRequest::default() }
}

async fn last_output() {
    let mut keeper = Keeper::new().await;
    for number in 0..20 {
        let id = format!("w{number}");
        keeper.sh(&id, "echo one; echo two >&2; printf three").await;
        keeper.exit_of(&id).await;
        let mut lines: Vec<String> = keeper.log(&id).await.lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["E two", "O one", "o three"]);
    }
}

async fn a_burst() {
    let mut keeper = Keeper::new().await;
    keeper.sh("a", "seq 1 200000").await;
    keeper.exit_of("a").await;
    let listing = keeper.client.list().await.unwrap();
    assert_eq!(listing.containers[0].log_dropped, 0);
    let log = keeper.log("a").await;
    assert_eq!(log.lines().count(), 200_000);
    assert!(log.starts_with("O 1\n") && log.ends_with("O 200000\n"));
}

async fn a_flood() {
    let mut keeper = Keeper::with(|options| (options.log_bytes, options.log_files) = (1 << 20, 2)).await;
    keeper.sh("a", "head -c 200000000 /dev/zero | tr '\\0' x >&2; exit 9").await;
    assert_eq!(keeper.exit_of("a").await.status, ExitStatus::Code(9));
    let status = std::fs::read_to_string(format!("/proc/{}/status", keeper.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak_kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < 40 * 1024, "peak {peak_kib} KiB");
    let files = keeper.path("logs/a").read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    assert!(files.sum::<u64>() <= 4 << 20);
}

async fn rotation() {
    let mut keeper = Keeper::with(|options| (options.log_bytes, options.log_files) = (100_000, 3)).await;
    keeper.sh("a", "for n in $(seq 1 400); do echo $n $(seq 1 300); done").await;
    keeper.exit_of("a").await;
    let mut names: Vec<String> = keeper
        .path("logs/a")
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["current", "current.1", "current.2"]);
    let numbers: Vec<u32> =
        keeper.log("a").await.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    let first = numbers[0];
    assert!(first > 1);
    assert_eq!(numbers, (first..=400).collect::<Vec<_>>(), "no record is lost or repeated between files");
}

async fn tail_and_since() {
    let mut keeper = Keeper::with(|options| (options.log_bytes, options.log_files) = (50_000, 10)).await;
    keeper.sh("a", "seq 1 10000").await;
    keeper.exit_of("a").await;
    let tail = keeper.log_with(LogsRequest { tail: Some(3), ..request("a") }).await;
    assert_eq!(tail, "O 9998\nO 9999\nO 10000\n");
    keeper.client.signal("a", 1, 15).await.unwrap_err();
    let future = LogsRequest { since_us: Some(4_000_000_000_000_000), ..request("a") };
    assert_eq!(keeper.log_with(future).await, "");
    let mut stream = keeper.client.logs(LogsRequest { tail: Some(1), ..request("a") }).await.unwrap();
    let Some(LogItem::Records(record)) = stream.next().await.unwrap() else { panic!("a record") };
    let record = LogRecord::parse(&record).unwrap();
    assert_eq!((record.at.len(), record.text, record.stderr), (27, b"10000".as_slice(), false));
}

async fn following() {
    let keeper = Keeper::with(|options| (options.log_bytes, options.log_files) = (4096, 20)).await;
    keeper.sh("a", "while read line < go; do echo $line; done 2>/dev/null; while :; do test -e go && break; sleep 0.01; done; seq 1 1000; exec sleep 600").await;
    let mut stream = keeper.client.logs(LogsRequest { follow: true, ..request("a") }).await.unwrap();
    std::fs::write(keeper.path("go"), "").unwrap();
    let mut text = String::new();
    while !text.ends_with("O 1000\n") {
        text.push_str(&without_times(&stream.next().await.unwrap().unwrap()));
    }
    let expected: String = (1..=1000).map(|number| format!("O {number}\n")).collect();
    // Reading may have fallen behind twenty files, which is then said.
    if !text.contains("NOTICE") {
        assert_eq!(text, expected);
    }
}

async fn following_to_the_end() {
    let mut keeper = Keeper::new().await;
    keeper.sh("a", "echo last").await;
    keeper.exit_of("a").await;
    let mut stream = keeper.client.logs(LogsRequest { follow: true, ..request("a") }).await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Some(LogItem::Records(_))));
    keeper.client.remove("a", false).await.unwrap();
    assert!(stream.next().await.unwrap().is_none());
}

async fn an_unwritable_log() {
    let mut keeper = Keeper::new().await;
    // A file in the place of the log's directory: every write fails, as on a full disk.
    std::fs::write(keeper.path("logs/a"), "").unwrap();
    keeper.sh("a", "seq 1 100000; exit 4").await;
    assert_eq!(keeper.exit_of("a").await.status, ExitStatus::Code(4));
    assert!(keeper.client.list().await.unwrap().containers[0].log_dropped > 0);
    std::fs::remove_file(keeper.path("logs/a")).unwrap();
    keeper.prepare("a", 2).await;
    keeper.client.start(keeper.start("a", 2, &["echo", "again"])).await.unwrap();
    keeper.exit_of("a").await;
    assert_eq!(keeper.log("a").await, "O again\n", "recovery needs nobody's help");
}
