//! A worker that starts at once and does as it is told, for tests that need many of them.
//!
//! ```text
//! test-worker serve [WORD]     answers on 127.0.0.1:$PORT until a signal ends it
//! test-worker exit CODE        says goodbye on both streams and ends
//! ```
//!
//! It answers `/` with its container, its process id and the word; `/env` with its environment; `/exit/CODE` by ending.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a worker prints is its log")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, process, thread};

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve"] => serve(""),
        ["serve", word] => serve(word),
        ["exit", code] => {
            println!("goodbye, stdout");
            eprintln!("goodbye, stderr");
            process::exit(code.parse().unwrap_or(1))
        }
        _ => Err(io::Error::other("test-worker serve [WORD] | exit CODE")),
    }
}

fn serve(word: &str) -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on {port}");
    let hello = format!("{} {} {word}\n", env::var("COCKTAIL_CONTAINER").unwrap_or_default(), process::id());
    for stream in listener.incoming() {
        let hello = hello.clone();
        // A client that goes away in the middle is its own business.
        thread::spawn(move || stream.and_then(|stream| answer(stream, &hello)));
    }
    Ok(())
}

fn answer(stream: TcpStream, hello: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.by_ref().take(8 << 10).read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line);
        }
        let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/");
        if let Some(code) = path.strip_prefix("/exit/") {
            process::exit(code.parse().unwrap_or(1));
        }
        let body = match path {
            "/env" => env::vars().map(|(name, value)| format!("{name}={value}\n")).collect(),
            _ => hello.to_owned(),
        };
        let closes = head.iter().any(|line| line.to_ascii_lowercase().trim_end() == "connection: close");
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        reader.get_mut().write_all(text.as_bytes())?;
        if closes {
            return Ok(());
        }
    }
}
