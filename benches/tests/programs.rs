//! The programs that the benchmarks run do what the benchmarks take for granted.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not recognise outside of #[test]")]

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cocktail_benches::load::{self, Plan};
use cocktail_benches::wave::{self, Phase};

/// A child that ends with the test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn worker() -> (Owned, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child =
        Command::new(env!("CARGO_BIN_EXE_bench-worker")).env("PORT", address.port().to_string()).spawn().unwrap();
    let worker = Owned(child);
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the worker does not listen");
        std::thread::yield_now();
    }
    (worker, address)
}

fn plan(address: SocketAddr) -> Plan {
    Plan { address, connections: 8, warm_up: Duration::from_millis(20), duration: Duration::from_millis(200) }
}

#[test]
fn a_closed_loop_counts_what_the_worker_answers() {
    let (_worker, address) = worker();
    let summary = load::closed(&plan(address)).unwrap();
    assert!(summary.requests > 0 && summary.all_requests >= summary.requests, "{summary:?}");
    assert!(summary.p50_us <= summary.p99_us, "{summary:?}");
}

#[test]
fn an_open_loop_sends_at_its_rate_whatever_comes_back() {
    let (_worker, address) = worker();
    // Every request that falls into the time is sent and answered, however late: 0.22 s at 1,000 a second, the two ends
    // being what rounding makes of them.
    let summary = load::open(&plan(address), 1000.0).unwrap();
    assert!((219..=221).contains(&summary.all_requests), "{summary:?}");
    assert!(load::open(&plan(address), 0.0).is_err());
}

#[test]
fn a_load_on_a_port_without_a_worker_is_an_error() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(load::closed(&plan(address)).is_err());
}

#[test]
fn the_bare_loop_prints_its_time_and_leaves_no_process() {
    // An argument that no other sleep has.
    let marker = format!("35{:08}", std::process::id());
    for threads in ["1", "2"] {
        let output = Command::new(env!("CARGO_BIN_EXE_bench-spawn"))
            .args(["5", threads, "/bin/sleep", &marker])
            .output()
            .unwrap();
        let seconds: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert!(seconds > 0.0);
    }
    assert!(!runs_with(&marker), "a sleep was left behind");
}

/// Whether a process has an argument that contains the marker.
fn runs_with(marker: &str) -> bool {
    let lines = std::fs::read_dir("/proc").unwrap().map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")));
    lines.flatten().any(|line| line.windows(marker.len()).any(|part| part == marker.as_bytes()))
}

#[test]
fn workers_are_replaced_by_hand_and_none_is_left() {
    let marker = format!("replaced-{}", std::process::id());
    let output = Command::new(env!("CARGO_BIN_EXE_bench-replace"))
        .args(["3", "2", "50", env!("CARGO_BIN_EXE_bench-worker"), &marker])
        .output()
        .unwrap();
    let seconds: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(seconds > 0.0);
    assert!(!runs_with(&marker), "a worker was left behind");
}

#[test]
fn a_wave_sends_what_its_rates_add_up_to() {
    let (_worker, address) = worker();
    let phases = [
        Phase::steady(100.0, Duration::from_millis(200)),
        Phase { from: 100.0, to: 300.0, lasts: Duration::from_millis(200) },
    ];
    let outcome = wave::run(address, &phases, Instant::now()).unwrap();
    assert_eq!((outcome.sent, outcome.failures), (60, Vec::new()));
}

#[test]
fn a_wave_counts_each_request_that_is_not_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Whoever connects is sent away; the thread ends with the test's process.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let outcome = wave::run(address, &[Phase::steady(100.0, Duration::from_millis(100))], Instant::now()).unwrap();
    assert_eq!((outcome.sent, outcome.failures.len()), (10, 10), "{:?}", outcome.failures);
}

#[test]
fn a_beacon_reports_its_own_pid() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let beacon = Owned(Command::new(env!("CARGO_BIN_EXE_bench-beacon")).arg(&address).spawn().unwrap());
    let mut buffer = [0; 32];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), beacon.0.id().to_string());
}
