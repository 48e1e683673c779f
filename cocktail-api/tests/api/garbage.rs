//! Bytes that nobody should send.

use std::sync::atomic::{AtomicUsize, Ordering};

use cocktail_core::contract::Manager;

use crate::support::{Running, raw};

/// A small generator: the same seed gives the same bytes, so a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

const SEEDS: [&[u8]; 6] = [
    b"GET /v1/events?follow=false&tail=3 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"GET /v1/logs/shop/prod/web?since=2026-01-31T12:00:00Z HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"POST /v1/apply HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 56\r\n\r\n{\"sources\":[{\"file\":\"a\",\"base\":\"/b\",\"text\":\"x = 1\"}]}\n\n\n",
    b"POST /v1/scale/web HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{\"count\":3}\r\n0\r\n\r\n",
    b"POST /v1/exec/web HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: cocktail-exec\r\ncontent-length: 19\r\n\r\n{\"command\":[\"cat\"]}\x01\0\0\0\x01x\x03\0\0\0\x04\0\x01\0\x01\x02\0\0\0\0",
    b"POST /v1/shutdown HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 16\r\n\r\n{\"mode\":\"leave\"}",
];

#[expect(clippy::disallowed_methods, reason = "the process is the test's, and only a hook sees panics of other tasks")]
#[tokio::test]
async fn garbage_neither_panics_nor_harms_others() {
    static OURS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // A fake that panics on purpose lies in another folder.
        if info.location().is_some_and(|at| !at.file().contains("tests/")) {
            OURS.fetch_add(1, Ordering::SeqCst);
        }
        before(info);
    }));
    let api = Running::start().await;
    let client = api.client().await;
    let mut dice = Dice(0x05ee_d0fc_0c7a_1100);
    for round in 0..3_000 {
        let mut bytes = match dice.roll(4) {
            0 => (0..dice.roll(400)).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect(),
            _ => SEEDS[dice.roll(SEEDS.len())].to_vec(),
        };
        for _ in 0..dice.roll(6) {
            if bytes.is_empty() {
                break;
            }
            let at = dice.roll(bytes.len());
            match dice.roll(4) {
                0 => bytes[at] = u8::try_from(dice.roll(256)).unwrap(),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, u8::try_from(dice.roll(256)).unwrap()),
                _ => drop(bytes.drain(at..(at + dice.roll(20)).min(bytes.len()))),
            }
        }
        shut_and_read(&api, &bytes).await;
        if round % 500 == 0 {
            client.about().await.unwrap();
        }
    }
    client.about().await.unwrap();
    assert_eq!(OURS.load(Ordering::SeqCst), 0, "a request panicked");
}

/// Sends bytes, says that no more come, and reads what is answered.
async fn shut_and_read(api: &Running, bytes: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(api.socket()).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let api = Running::start().await;
    let mut bytes = b"GET /v1/units HTTP/1.1\r\nhost: x\r\nx-pad: ".to_vec();
    bytes.resize(1 << 20, b'a');
    let answer = raw(&api.socket(), &bytes).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    api.client().await.about().await.unwrap();
}
