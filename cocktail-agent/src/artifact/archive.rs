//! Which kind an archive is, and how it is read. Its first bytes tell; its name plays no part.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use cocktail_core::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::error::damaged;

/// Size of a block of tar.
const BLOCK: usize = 512;
/// Where `ustar` stands in the first block of every tar since 1988.
const MARK: std::ops::Range<usize> = 257..262;
/// Largest window of zstd: what `zstd -22` makes, and what its own program takes without being asked.
const WINDOW: u64 = 128 << 20;

/// Files that people mean to be artifacts, and what their first bytes are.
const OTHERS: [(&[u8], &str); 6] = [
    (b"\x7fELF", "is a program: put it into a tar archive"),
    (b"#!", "is a script: put it into a tar archive"),
    (b"PK\x03\x04", "is a zip archive: make a tar of it"),
    (b"\xfd7zXZ\0", "is compressed by xz: use zstd or gzip"),
    (b"BZh", "is compressed by bzip2: use zstd or gzip"),
    (b"\x04\x22\x4d\x18", "is compressed by lz4: use zstd or gzip"),
];

/// The tar archive in `file`, whatever it is compressed by.
pub(super) fn open(file: File) -> Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    let begin = file.fill_buf().map_err(|error| damaged(None, error))?;
    let mut inner: Box<dyn Read> = match begin {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        // The second is a frame to skip, with which some programs begin.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Frames::new(file)),
        begin => {
            if let Some((_, why)) = OTHERS.iter().find(|(mark, _)| begin.starts_with(mark)) {
                return Err(Error::invalid(format!("the artifact {why}")));
            }
            Box::new(file)
        }
    };
    let mut first = Vec::with_capacity(BLOCK);
    inner.by_ref().take(BLOCK as u64).read_to_end(&mut first).map_err(|error| damaged(None, error))?;
    if first.get(MARK) != Some(b"ustar") {
        return Err(Error::invalid("the artifact is no tar archive, neither plain nor compressed by gzip or zstd"));
    }
    Ok(Box::new(io::Cursor::new(first).chain(inner)))
}

/// A reader that fails when more is read than it was allowed, so that what one step of the tar reader takes in is bounded.
pub(super) struct Metered<R> {
    inner: R,
    left: Allowance,
}

/// What a [`Metered`] may still read.
#[derive(Clone, Default)]
pub(super) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    pub(super) fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

impl<R> Metered<R> {
    pub(super) fn new(inner: R, left: Allowance) -> Self {
        Self { inner, left }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.0.get()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("what describes an entry is too long"));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.0.set(self.left.0.get() - read as u64);
        Ok(read)
    }
}

/// All frames of a zstd stream, one after the other.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self { source, decoder, within: false }
    }

    /// Goes to the next frame that holds anything; false where there is none.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            self.within = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let step = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                step.map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 => self.within = false,
                read => return Ok(read),
            }
        }
    }
}
