//! An HTTP/1.1 worker that costs next to nothing: one thread, one answer, keep-alive. It listens on `127.0.0.1:$PORT`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use cocktail_benches::load::RESPONSE;
use cocktail_benches::poll::Poll;

const LISTENER: u64 = u64::MAX;
const END_OF_REQUEST: &[u8] = b"\r\n\r\n";

struct Client {
    stream: TcpStream,
    /// How many bytes of [`END_OF_REQUEST`] have come in a row: requests have no body, so this is all there is to parse.
    matched: usize,
}

fn main() -> Result<()> {
    let port: u16 = std::env::var("PORT").context("PORT is not set")?.parse().context("PORT is not a port")?;
    let listener = TcpListener::bind(("127.0.0.1", port)).context("cannot listen")?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.watch(&listener, LISTENER)?;
    let mut clients: BTreeMap<u64, Client> = BTreeMap::new();
    let mut next = 0;
    let mut ready = Vec::new();
    loop {
        poll.wait(None, &mut ready)?;
        for &number in &ready {
            if number == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    poll.watch(&stream, next)?;
                    clients.insert(next, Client { stream, matched: 0 });
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&number)
                && !client.answer()
            {
                // Closing the socket also ends its being watched.
                clients.remove(&number);
            }
        }
    }
}

impl Client {
    /// Answers the requests that have come, and says whether the client is still there.
    fn answer(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        for &byte in &buffer[..length] {
            self.matched = match (byte == END_OF_REQUEST[self.matched], byte) {
                (true, _) => self.matched + 1,
                (false, b'\r') => 1,
                (false, _) => 0,
            };
            if self.matched == END_OF_REQUEST.len() {
                self.matched = 0;
                // A client that sends without reading is not one of ours, and is dropped.
                if self.stream.write_all(RESPONSE).is_err() {
                    return false;
                }
            }
        }
        true
    }
}
