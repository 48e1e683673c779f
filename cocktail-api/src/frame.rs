//! Frames of an exec session: what goes both ways after the connection was upgraded.
//!
//! A frame is one byte of type, four bytes of length (big endian), and that many bytes. Start at [`Frame`].
//! A length beyond [`LONGEST`] ends the session before anything is reserved for it. Bytes may be cut into frames
//! anywhere. Either side ends the session by closing the connection; the end of input is a frame of its own.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cocktail_core::contract::{ExecInput, ExecOutput, Exit};
use cocktail_core::error::Error;
use cocktail_core::view::ErrorView;
use tokio_util::codec::{Decoder, Encoder};

use crate::wire;

/// Most bytes in one frame; more are sent as several.
pub const LONGEST: usize = 64 << 10;

const HEAD: usize = 5;
const STDIN: u8 = 1;
const EOF: u8 = 2;
const RESIZE: u8 = 3;
const STDOUT: u8 = 4;
const STDERR: u8 = 5;
const EXIT: u8 = 6;
const ERROR: u8 = 7;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Type 1, to the Manager: bytes for standard input.
    Stdin(Bytes),
    /// Type 2, to the Manager: no more input. Empty.
    Eof,
    /// Type 3, to the Manager: rows and columns of the terminal, two bytes each, big endian.
    Resize(u16, u16),
    /// Type 4, from the Manager: bytes of standard output, or of the terminal.
    Stdout(Bytes),
    /// Type 5, from the Manager: bytes of standard error.
    Stderr(Bytes),
    /// Type 6, from the Manager, the last one: how the command ended, as JSON: `{"code": 0}`, `{"signal": 9}` or
    /// `"unknown"`.
    Exit(Exit),
    /// Type 7, from the Manager: what went wrong, as JSON.
    Error(ErrorView),
}

impl From<ExecInput> for Frame {
    fn from(input: ExecInput) -> Self {
        match input {
            ExecInput::Stdin(bytes) => Self::Stdin(bytes),
            ExecInput::Eof => Self::Eof,
            ExecInput::Resize(rows, columns) => Self::Resize(rows, columns),
        }
    }
}

impl From<Result<ExecOutput, Error>> for Frame {
    fn from(output: Result<ExecOutput, Error>) -> Self {
        match output {
            Ok(ExecOutput::Stdout(bytes)) => Self::Stdout(bytes),
            Ok(ExecOutput::Stderr(bytes)) => Self::Stderr(bytes),
            Ok(ExecOutput::Exit(exit)) => Self::Exit(exit),
            Err(error) => Self::Error(wire::error_view(&error)),
        }
    }
}

impl Frame {
    /// What goes into the command; `None` for frames that come out of it.
    pub fn into_input(self) -> Option<ExecInput> {
        match self {
            Self::Stdin(bytes) => Some(ExecInput::Stdin(bytes)),
            Self::Eof => Some(ExecInput::Eof),
            Self::Resize(rows, columns) => Some(ExecInput::Resize(rows, columns)),
            Self::Stdout(_) | Self::Stderr(_) | Self::Exit(_) | Self::Error(_) => None,
        }
    }

    /// What comes out of the command; `None` for frames that go into it.
    pub fn into_output(self) -> Option<Result<ExecOutput, Error>> {
        match self {
            Self::Stdout(bytes) => Some(Ok(ExecOutput::Stdout(bytes))),
            Self::Stderr(bytes) => Some(Ok(ExecOutput::Stderr(bytes))),
            Self::Exit(exit) => Some(Ok(ExecOutput::Exit(exit))),
            Self::Error(view) => Some(Err(wire::error_from(view))),
            Self::Stdin(_) | Self::Eof | Self::Resize(..) => None,
        }
    }
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed.
    #[error("the connection of the session failed")]
    Io(#[from] std::io::Error),
    /// The other side does not keep to the protocol.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Reads and writes [`Frame`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameCodec;

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, to: &mut BytesMut) -> Result<(), FrameError> {
        match frame {
            Frame::Stdin(bytes) => put_all(to, STDIN, &bytes),
            Frame::Stdout(bytes) => put_all(to, STDOUT, &bytes),
            Frame::Stderr(bytes) => put_all(to, STDERR, &bytes),
            Frame::Eof => put(to, EOF, &[]),
            Frame::Resize(rows, columns) => {
                let ([a, b], [c, d]) = (rows.to_be_bytes(), columns.to_be_bytes());
                put(to, RESIZE, &[a, b, c, d]);
            }
            Frame::Exit(exit) => put_json(to, EXIT, &exit)?,
            Frame::Error(view) => put_json(to, ERROR, &view)?,
        }
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((&[kind, a, b, c, d], _)) = from.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > LONGEST {
            return Err(FrameError::Malformed("a frame is longer than 64 KiB"));
        }
        if from.len() < HEAD + length {
            from.reserve(HEAD + length - from.len());
            return Ok(None);
        }
        from.advance(HEAD);
        let bytes = from.split_to(length).freeze();
        let frame = match kind {
            STDIN => Frame::Stdin(bytes),
            STDOUT => Frame::Stdout(bytes),
            STDERR => Frame::Stderr(bytes),
            EOF => Frame::Eof,
            RESIZE => {
                let &[a, b, c, d] = &bytes[..] else {
                    return Err(FrameError::Malformed("a frame of a terminal's size has not four bytes"));
                };
                Frame::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            EXIT => Frame::Exit(json(&bytes)?),
            ERROR => Frame::Error(json(&bytes)?),
            _ => return Err(FrameError::Malformed("a frame has a type that is not known")),
        };
        Ok(Some(frame))
    }
}

/// Bytes as one frame or several; none for no bytes, since an empty frame says nothing.
fn put_all(to: &mut BytesMut, kind: u8, bytes: &[u8]) {
    for part in bytes.chunks(LONGEST) {
        put(to, kind, part);
    }
}

fn put(to: &mut BytesMut, kind: u8, bytes: &[u8]) {
    to.reserve(HEAD + bytes.len());
    to.put_u8(kind);
    to.put_u32(u32::try_from(bytes.len()).expect("callers keep a frame below its limit"));
    to.put_slice(bytes);
}

fn put_json(to: &mut BytesMut, kind: u8, value: &impl serde::Serialize) -> Result<(), FrameError> {
    match serde_json::to_vec(value) {
        Ok(text) if text.len() <= LONGEST => put(to, kind, &text),
        _ => return Err(FrameError::Malformed("the end of a session does not fit into a frame")),
    }
    Ok(())
}

fn json<T: for<'de> serde::Deserialize<'de>>(bytes: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(bytes).map_err(|_| FrameError::Malformed("a frame with JSON cannot be read"))
}

#[cfg(test)]
mod tests {
    use cocktail_core::error::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 1..2_000).prop_map(Bytes::from);
        prop_oneof![
            bytes().prop_map(Frame::Stdin),
            bytes().prop_map(Frame::Stdout),
            bytes().prop_map(Frame::Stderr),
            Just(Frame::Eof),
            any::<(u16, u16)>().prop_map(|(rows, columns)| Frame::Resize(rows, columns)),
            any::<i32>().prop_map(|code| Frame::Exit(Exit::Code(code))),
            any::<i32>().prop_map(|signal| Frame::Exit(Exit::Signal(signal))),
            Just(Frame::Exit(Exit::Unknown)),
            any::<String>().prop_map(|message| Frame::Error(ErrorView {
                error: ErrorKind::Unavailable,
                message,
                diagnostics: Vec::new()
            })),
        ]
    }

    fn decode_all(bytes: &mut BytesMut) -> Vec<Frame> {
        std::iter::from_fn(|| FrameCodec.decode(bytes).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_were_sent_however_the_bytes_are_cut(
            sent in proptest::collection::vec(frames(), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = BytesMut::new();
            for frame in &sent {
                FrameCodec.encode(frame.clone(), &mut bytes).unwrap();
            }
            let rest = bytes.split_off(cut.index(bytes.len() + 1));
            let mut received = decode_all(&mut bytes);
            bytes.extend_from_slice(&rest);
            received.extend(decode_all(&mut bytes));
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn garbage_is_refused_or_read_but_never_a_panic(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = BytesMut::from(&garbage[..]);
            while let Ok(Some(_)) = FrameCodec.decode(&mut bytes) {}
            prop_assert!(bytes.capacity() <= 2 * LONGEST);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
        let mut bytes = BytesMut::from(&[STDIN, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(FrameCodec.decode(&mut bytes).is_err());
        assert!(bytes.capacity() < LONGEST);
    }

    #[test]
    fn more_bytes_than_fit_are_sent_as_several_frames() {
        let mut bytes = BytesMut::new();
        FrameCodec.encode(Frame::Stdout(vec![7; 2 * LONGEST + 1].into()), &mut bytes).unwrap();
        let lengths: Vec<usize> = decode_all(&mut bytes)
            .into_iter()
            .map(|frame| match frame {
                Frame::Stdout(part) => part.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 1]);
    }
}
