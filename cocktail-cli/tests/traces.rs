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
fn a_span_of_an_operation_arrives_at_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    let (address, spans) = collector();
    let cocktail = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocktail"));
        for variable in
            ["COCKTAIL_DATA_DIR", "COCKTAIL_LOG", "COCKTAIL_TRACES", "OTEL_SERVICE_NAME", "HTTP_PROXY", "http_proxy"]
        {
            command.env_remove(variable);
        }
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")).env("OTEL_BSP_SCHEDULE_DELAY", "50");
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
    let (first, body) = spans.iter().find(|(_, body)| contains(body, "cocktail.operation")).unwrap();
    assert!(first.starts_with("POST /v1/traces "), "{first}");
    for part in ["service.name", "cocktail", "shop/prod/web", "start"] {
        assert!(contains(&body, part), "{part} is not in {:?}", String::from_utf8_lossy(&body));
    }
    kill_process(Pid::from_child(&up), Signal::TERM).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0));
    // The stop was its last operation: what is left is sent before the end.
    let stopped = spans.try_iter().any(|(_, body)| contains(&body, "cocktail.operation") && contains(&body, "stop"));
    assert!(stopped, "the last spans were lost");
}
