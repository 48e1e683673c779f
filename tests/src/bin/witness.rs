//! A worker that testifies that it runs: every 10 ms it appends the time to a file of its own.
//!
//! ```text
//! witness FOLDER
//! ```
//!
//! The file is `FOLDER/<container>.<start of the process>.<process id>`. Its first line tells who writes; each line after
//! that is one time since boot, always as long, in one write. [`cocktail_tests::oracle`] reads them, and owns the format.
//! Hosts that a test has made share the clock and the disk of their machine, so that the times of all witnesses compare.
//!
//! ```text
//! PORT            answers every HTTP request there with 200, from the first record on
//! ADDRESS         where, instead of 127.0.0.1
//! LINGERS         milliseconds from SIGTERM to its end; without it SIGTERM ends it at once
//! ```
//!
//! It prints nothing that it needs to get rid of, and it does not live without testifying: a record that cannot be
//! written is its end.
#![expect(clippy::disallowed_methods, reason = "a program may handle its signals")]

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use cocktail_tests::oracle::{self, PERIOD, Who};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).ok_or_else(|| io::Error::other("witness FOLDER"))?;
    if let Some(lingers) = number("LINGERS")? {
        linger(Duration::from_millis(lingers))?;
    }
    let who = Who::this_process()?;
    let file = Path::new(&folder).join(who.file_name());
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(who.header().as_bytes())?;
    file.write_all(oracle::record(oracle::now()).as_bytes())?;
    if let Some(port) = number("PORT")? {
        let port = u16::try_from(port).map_err(io::Error::other)?;
        let address = env::var("ADDRESS").ok().map(|text| text.parse().map_err(io::Error::other)).transpose()?;
        let listener = TcpListener::bind((address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port))?;
        // Nobody may be left to hear it.
        writeln!(io::stdout(), "listening on {port}").ok();
        thread::spawn(move || serve(&listener));
    }
    let mut next = Instant::now();
    loop {
        // Times that were slept through, or stopped through, are not made up for.
        next = (next + PERIOD).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
        file.write_all(oracle::record(oracle::now()).as_bytes())?;
    }
}

fn number(name: &str) -> io::Result<Option<u64>> {
    env::var(name).ok().map(|text| text.parse().map_err(io::Error::other)).transpose()
}

/// Takes SIGTERM, and ends the process a while after it.
fn linger(lingers: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut term = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate())?
    };
    thread::spawn(move || {
        runtime.block_on(term.recv());
        thread::sleep(lingers);
        process::exit(0)
    });
    Ok(())
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        // A client that goes away in the middle is its own business.
        thread::spawn(move || stream.and_then(answer));
    }
}

/// Reads the head of one request and answers it.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut head = BufReader::new(stream.try_clone()?.take(64 << 10)).lines();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
