//! What this program does when it is a worker: serves HTTP with one status, until it is ended. Where its working
//! directory holds a file `report`, that is its answer, as JSON.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

const WORKER: &str = "__worker";

pub(crate) fn is_one() -> bool {
    env::args().nth(1).is_some_and(|word| word == WORKER)
}

/// The arguments that make this program a worker on `port` (`${PORT}` in real life) that answers `status`.
pub(crate) fn argv(port: u16, status: u16) -> Vec<String> {
    let program = env::current_exe().unwrap().to_str().unwrap().to_owned();
    vec![program, WORKER.into(), port.to_string(), status.to_string()]
}

pub(crate) fn run() {
    let arguments: Vec<String> = env::args().skip(2).collect();
    let (port, status) = (arguments[0].parse::<u16>().unwrap(), &arguments[1]);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let status = status.clone();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            // The head ends with an empty line.
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let (kind, body) = match std::fs::read_to_string("report") {
                Ok(report) => ("application/json; charset=utf-8", report),
                Err(_) => ("text/plain", "hello".to_owned()),
            };
            let head = format!("HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-type: {kind}\r\n");
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            // A probe that has seen enough is gone already.
            let _gone = stream.write_all(answer.as_bytes());
        });
    }
}
