//! Archives, made byte by byte where a program would refuse to, and sources that bring them.

use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_agent::artifact::Source;
use cocktail_core::error::Result;
use cocktail_core::spec::{Artifact, ArtifactSource};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tar::Header;
use tokio::io::{AsyncRead, ReadBuf};

pub(super) fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// An artifact of these bytes, and a source that brings them.
pub(super) fn of(bytes: Vec<u8>) -> (Artifact, Bytes) {
    let artifact = Artifact { source: ArtifactSource::File("/a.tar".into()), sha256: hash(&bytes) };
    (artifact, Bytes::new(bytes))
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A tar archive in the making.
pub(super) struct Tar(Vec<u8>);

impl Tar {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    fn entry(mut self, mut header: Header, name: &[u8], content: &[u8]) -> Self {
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// An entry as it is said, be it right or wrong.
    pub(super) fn raw(self, name: &[u8], kind: u8, target: &[u8], content: &[u8]) -> Self {
        self.claiming(name, kind, target, content, content.len() as u64)
    }

    /// The same, with a size that need not be that of the content.
    pub(super) fn claiming(self, name: &[u8], kind: u8, target: &[u8], content: &[u8], size: u64) -> Self {
        let mut header = header(kind, 0o644, size);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        self.entry(header, name, content)
    }

    pub(super) fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(header(b'0', mode, content.len() as u64), name.as_bytes(), content)
    }

    pub(super) fn folder(self, name: &str, mode: u32) -> Self {
        self.entry(header(b'5', mode, 0), name.as_bytes(), b"")
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', target.as_bytes(), b"")
    }

    pub(super) fn second_name(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'1', target.as_bytes(), b"")
    }

    pub(super) fn comment(self, attributes: &str) -> Self {
        self.raw(b"pax_global_header", b'g', b"", attributes.as_bytes())
    }

    pub(super) fn gnu_long(self, name: &str, content: &[u8]) -> Self {
        self.raw(b"././@LongLink", b'L', b"", format!("{name}\0").as_bytes()).file("cut", 0o644, content)
    }

    pub(super) fn pax(self, key: &str, value: &str) -> Self {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
        self.raw(b"pax", b'x', b"", format!("{length} {key}={value}\n").as_bytes())
    }

    pub(super) fn pax_long(self, name: &str, content: &[u8]) -> Self {
        self.pax("path", name).file("cut", 0o644, content)
    }

    /// A file with data at some places, in the form of GNU. All but the last are filled up to a block.
    pub(super) fn holes(self, name: &str, data: &[(u64, Vec<u8>)]) -> Self {
        let content: Vec<u8> = data.iter().flat_map(|(_, data)| padded(data)).collect();
        let mut header = header(b'S', 0o644, content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        let mut end = 0;
        for (map, (offset, data)) in gnu.sparse.iter_mut().zip(data) {
            map.set_offset(*offset);
            map.set_length(padded(data).len() as u64);
            end = offset + padded(data).len() as u64;
        }
        gnu.set_real_size(end);
        self.entry(header, name.as_bytes(), &content)
    }

    /// What was written so far, without an end.
    pub(super) fn cut(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1_024, 0);
        self.0
    }
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn header(kind: u8, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().linkflag = [kind];
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

/// A source that brings the same bytes each time.
#[derive(Debug)]
pub(super) struct Bytes {
    data: Vec<u8>,
    opened: AtomicUsize,
    pause: Duration,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Whole,
    Fails,
    Stalls,
}

impl Bytes {
    pub(super) fn new(data: Vec<u8>) -> Self {
        Self { data, opened: AtomicUsize::new(0), pause: Duration::ZERO, end: End::Whole }
    }

    /// Waits once, before the first byte.
    pub(super) fn slow(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Fails after its last byte.
    pub(super) fn failing(mut self) -> Self {
        self.end = End::Fails;
        self
    }

    /// Brings nothing more after its last byte, and does not end.
    pub(super) fn stalling(mut self) -> Self {
        self.end = End::Stalls;
        self
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Source for Bytes {
    async fn open(&self, _: &Artifact) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let pause = Box::pin(tokio::time::sleep(self.pause));
        Ok(Box::new(Reader { data: self.data.clone(), at: 0, pause, end: self.end }))
    }
}

struct Reader {
    data: Vec<u8>,
    at: usize,
    pause: Pin<Box<tokio::time::Sleep>>,
    end: End,
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.pause.is_elapsed() && self.pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let more = into.remaining().min(self.data.len() - self.at);
        match (more, self.end) {
            (0, End::Stalls) => return Poll::Pending,
            (0, End::Fails) => return Poll::Ready(Err(std::io::Error::other("the cable is out"))),
            _ => into.put_slice(&self.data[self.at..self.at + more]),
        }
        self.at += more;
        Poll::Ready(Ok(()))
    }
}
