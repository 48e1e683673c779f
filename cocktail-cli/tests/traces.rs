//! Spans as a collector gets them.

#![cfg(feature = "otel")]
#![expect(clippy::unwrap_used, reason = "what helpers of tests do must work, or the test fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// Takes requests and tells their first lines and bodies.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let to = to.clone();
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut first, mut length) = (String::new(), 0);
                    if reader.read_line(&mut first).unwrap_or(0) == 0 {
                        return;
                    }
                    loop {
                        let mut line = String::new();
                        reader.read_line(&mut line).unwrap();
                        if line.trim().is_empty() {
                            break;
                        }
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let _ = to.send((first, body));
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (address, from)
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn spans_of_operations_arrive_at_the_collector_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (address, spans) = collector();
    let cocktail = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocktail"));
        for variable in
            ["COCKTAIL_DATA_DIR", "COCKTAIL_LOG", "COCKTAIL_TRACES", "OTEL_SERVICE_NAME", "HTTP_PROXY", "http_proxy"]
        {
            command.env_remove(variable);
        }
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
            .env("OTEL_BSP_SCHEDULE_DELAY", "600000");
        command.current_dir(folder.path()).stdin(Stdio::null());
        command
    };
    std::fs::write(
        folder.path().join("one.toml"),
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"60\"]\n",
    )
    .unwrap();
    let mut up = cocktail().args(["up", "one.toml"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "web  1 ready\n");
    kill_process(Pid::from_child(&up), Signal::TERM).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0));
    // None was due yet: what is left is sent before the end.
    let sent: Vec<(String, Vec<u8>)> = spans.try_iter().collect();
    assert!(!sent.is_empty(), "the spans were lost");
    assert!(sent.iter().all(|(first, _)| first.starts_with("POST /v1/traces ")), "{sent:?}");
    for part in ["service.name", "cocktail.operation", "shop/prod/web", "start", "stop"] {
        assert!(sent.iter().any(|(_, body)| contains(body, part)), "{part} is not in {sent:?}");
    }
}
