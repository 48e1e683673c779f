//! A worker that falls ill on request, for tests of what happens then.
//!
//! ```text
//! faulty-worker serve [PORT]     answers on 127.0.0.1, on $PORT unless told otherwise; the paths are in `answer`
//! faulty-worker flood            writes to stderr without a line break, as fast as it is taken
//! ```
//!
//! What else a worker can do wrong a shell does in the tests.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, process, thread};

/// Whether `/healthy` says no.
static SICK: AtomicBool = AtomicBool::new(false);

/// Descriptors that were open when this process began.
static BORN_WITH: OnceLock<String> = OnceLock::new();

fn main() -> io::Result<()> {
    BORN_WITH.get_or_init(|| descriptors().unwrap_or_default());
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some("serve") => serve(args.next()),
        Some("flood") => flood(),
        other => Err(io::Error::other(format!("no such behaviour: {other:?}"))),
    }
}

fn flood() -> io::Result<()> {
    let block = [b'x'; 64 << 10];
    loop {
        io::stderr().write_all(&block)?;
    }
}

fn serve(port: Option<String>) -> io::Result<()> {
    let port = port.or_else(|| env::var("PORT").ok()).ok_or_else(|| io::Error::other("no port was given"))?;
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            // A client that goes away is no matter.
            let _ = converse(stream);
        })?;
    }
}

/// Requests of one connection, until the other end closes it.
fn converse(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        let (status, body) = answer(path)?;
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        writer.write_all(text.as_bytes())?;
    }
}

/// What a path is answered with.
fn answer(path: &str) -> io::Result<(&'static str, String)> {
    let (path, argument) = path.split_once('?').unwrap_or((path, ""));
    let body = match path {
        "/" => process::id().to_string(),
        "/environment" => env::vars().fold(String::new(), |mut text, (name, value)| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}={value}");
            text
        }),
        "/descriptors" => BORN_WITH.get().cloned().unwrap_or_default(),
        "/say" => {
            println_now(argument)?;
            String::new()
        }
        "/sicken" => {
            SICK.store(true, Ordering::Relaxed);
            String::new()
        }
        "/healthy" if SICK.load(Ordering::Relaxed) => return Ok(("503 Service Unavailable", String::new())),
        "/healthy" => String::new(),
        "/wait" => {
            thread::sleep(Duration::from_millis(argument.parse().unwrap_or(0)));
            String::new()
        }
        "/exit" => process::exit(argument.parse().unwrap_or(0)),
        _ => return Ok(("404 Not Found", String::new())),
    };
    Ok(("200 OK", body))
}

fn println_now(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Open descriptors with what they lead to, but for the folder that is being read.
fn descriptors() -> io::Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let Ok(target) = fs::read_link(&path) else { continue };
        let target = target.to_string_lossy();
        if !target.ends_with("/fd") {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {target}", path.file_name().unwrap_or_default().to_string_lossy());
        }
    }
    Ok(text)
}
