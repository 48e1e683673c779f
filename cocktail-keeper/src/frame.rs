//! Frames: a length, then JSON (control) or a kind, a length, then bytes (streams).
//!
//! [`FrameBuf`] collects what a socket delivers and cuts it into frames. A length prefix is never trusted: memory grows
//! with the bytes that arrived, and a prefix above the limit is an error, after which the connection must be closed.

use std::io;

use serde::Serialize;

use crate::protocol::MAX_FRAME;

/// The longest payload of a stream frame.
pub(crate) const MAX_STREAM_FRAME: usize = 64 * 1024;
/// How much is read from a socket at once.
pub(crate) const READ_CHUNK: usize = 16 * 1024;

/// Appends `value` as a control frame. Returns its size, or the size that was too large, in which case nothing was
/// appended.
pub(crate) fn push_json<T: Serialize>(out: &mut Vec<u8>, value: &T) -> Result<usize, usize> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let written = serde_json::to_writer(&mut *out, value);
    let size = out.len() - start - 4;
    match (written, u32::try_from(size)) {
        (Ok(()), Ok(prefix)) if size <= MAX_FRAME => {
            out[start..start + 4].copy_from_slice(&prefix.to_be_bytes());
            Ok(size)
        }
        _ => {
            out.truncate(start);
            Err(size)
        }
    }
}

/// Appends a stream frame, split where the payload is longer than a frame may be.
pub(crate) fn push_stream(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let (part, tail) = rest.split_at(rest.len().min(MAX_STREAM_FRAME));
        out.push(kind);
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
        rest = tail;
        if rest.is_empty() {
            return;
        }
    }
}

/// Bytes that arrived and were not yet taken.
#[derive(Debug, Default)]
pub(crate) struct FrameBuf {
    bytes: Vec<u8>,
    taken: usize,
}

impl FrameBuf {
    /// Where the next read goes.
    pub(crate) fn spare(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > 8 * READ_CHUNK {
            self.bytes = Vec::new();
        }
        self.bytes.reserve(READ_CHUNK);
        &mut self.bytes
    }

    /// The next whole control frame.
    pub(crate) fn next_json(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = &self.bytes[self.taken..];
        let Some((prefix, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_be_bytes(*prefix) as usize;
        if size > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame longer than allowed"));
        }
        if body.len() < size {
            return Ok(None);
        }
        let start = self.taken + 4;
        self.taken = start + size;
        Ok(Some(&self.bytes[start..start + size]))
    }

    /// The next whole stream frame.
    pub(crate) fn next_stream(&mut self) -> io::Result<Option<(u8, &[u8])>> {
        let rest = &self.bytes[self.taken..];
        let Some((head, body)) = rest.split_first_chunk::<5>() else { return Ok(None) };
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if size > MAX_STREAM_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "stream frame longer than allowed"));
        }
        if body.len() < size {
            return Ok(None);
        }
        let kind = head[0];
        let start = self.taken + 5;
        self.taken = start + size;
        Ok(Some((kind, &self.bytes[start..start + size])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_whole_whatever_the_pieces() {
        let mut wire = Vec::new();
        push_json(&mut wire, &vec![1, 2, 3]).unwrap();
        push_json(&mut wire, &"x").unwrap();
        let mut buf = FrameBuf::default();
        let mut frames = Vec::new();
        for byte in wire {
            buf.spare().push(byte);
            while let Some(frame) = buf.next_json().unwrap() {
                frames.push(frame.to_vec());
            }
        }
        assert_eq!(frames, [b"[1,2,3]".to_vec(), b"\"x\"".to_vec()]);
    }

    #[test]
    fn a_length_of_four_gigabytes_is_an_error_and_allocates_nothing() {
        let mut buf = FrameBuf::default();
        buf.spare().extend_from_slice(&[0xff; 4]);
        assert!(buf.next_json().is_err());
        assert!(buf.bytes.capacity() <= 2 * READ_CHUNK);
        let mut buf = FrameBuf::default();
        buf.spare().extend_from_slice(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert!(buf.next_stream().is_err());
    }

    #[test]
    fn a_long_payload_is_split_into_frames_of_allowed_size() {
        let mut wire = Vec::new();
        push_stream(&mut wire, 7, &vec![9; MAX_STREAM_FRAME + 1]);
        let mut buf = FrameBuf::default();
        buf.spare().extend_from_slice(&wire);
        assert_eq!(buf.next_stream().unwrap().map(|(kind, body)| (kind, body.len())), Some((7, MAX_STREAM_FRAME)));
        assert_eq!(buf.next_stream().unwrap().map(|(kind, body)| (kind, body.len())), Some((7, 1)));
    }

    #[test]
    fn a_request_that_is_too_large_leaves_the_buffer_as_it_was() {
        let mut wire = vec![1, 2];
        assert!(push_json(&mut wire, &"x".repeat(MAX_FRAME)).is_err());
        assert_eq!(wire, [1, 2]);
    }
}
