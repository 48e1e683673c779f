//! Reading a log back, from anywhere in it, across rotated files.
//!
//! Start at [`Cursor`]. It keeps the file open that it reads, so a rotation neither loses nor repeats a record; only
//! when files were removed faster than they were read something is missing, and [`Chunk::Gap`] says so. Blocking:
//! callers run it where blocking is allowed.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::writer::CURRENT;

/// Read at once; larger than any record.
const CHUNK: usize = 48 * 1024;
/// Rotated files looked for.
const MOST_FILES: u32 = 1000;

/// A place in a log.
#[derive(Debug)]
pub(crate) struct Cursor {
    dir: PathBuf,
    since: Option<String>,
    until: Option<String>,
    file: Option<File>,
    offset: u64,
    /// Nothing before `until` is left.
    ended: bool,
}

/// What a cursor found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Whole records.
    Records(Vec<u8>),
    /// Files were removed before they were read.
    Gap,
    /// Nothing more for now.
    End,
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(if number == 0 { CURRENT.to_owned() } else { format!("{CURRENT}.{number}") })
}

fn open(dir: &Path, number: u32) -> io::Result<Option<File>> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path(dir, number));
    match file {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Cursor {
    /// A cursor at the log's begin or at its `tail`th record from the end. `since` is a record's time.
    pub(crate) fn new(dir: PathBuf, since: Option<String>, tail: Option<u64>) -> io::Result<Self> {
        let mut cursor = Self { dir, since, until: None, file: None, offset: 0, ended: false };
        let Some(mut wanted) = tail else {
            cursor.file = cursor.oldest()?;
            return Ok(cursor);
        };
        for number in 0..MOST_FILES {
            let Some(file) = open(&cursor.dir, number)? else { break };
            let (start, found) = tail_start(&file, wanted)?;
            cursor.file = Some(file);
            cursor.offset = start;
            wanted -= found;
            if wanted == 0 {
                break;
            }
        }
        Ok(cursor)
    }

    /// Ends before the first record that is later than this time, however fast more of them are written.
    pub(crate) fn until(mut self, time: String) -> Self {
        self.until = Some(time);
        self
    }

    fn oldest(&self) -> io::Result<Option<File>> {
        let mut oldest = None;
        for number in 0..MOST_FILES {
            match open(&self.dir, number)? {
                Some(file) => oldest = Some(file),
                // Between two renames of a rotation the newest name is missing for a moment.
                None if number == 0 => {}
                None => break,
            }
        }
        Ok(oldest)
    }

    /// The next records.
    pub(crate) fn next(&mut self) -> io::Result<Chunk> {
        loop {
            if self.ended {
                return Ok(Chunk::End);
            }
            if self.file.is_none() {
                self.file = self.oldest()?;
                self.offset = 0;
            }
            let Some(file) = &self.file else { return Ok(Chunk::End) };
            let mut buf = vec![0; CHUNK];
            let length = file.read_at(&mut buf, self.offset)?;
            buf.truncate(length);
            if let Some(end) = buf.iter().rposition(|byte| *byte == b'\n') {
                buf.truncate(end + 1);
                self.offset += buf.len() as u64;
                self.keep_since(&mut buf);
                self.cut_until(&mut buf);
                if !buf.is_empty() {
                    return Ok(Chunk::Records(buf));
                }
                continue;
            }
            match self.following()? {
                Following::Same => return Ok(Chunk::End),
                Following::Next(file) => (self.file, self.offset) = (Some(file), 0),
                Following::Lost => {
                    self.file = None;
                    return Ok(Chunk::Gap);
                }
            }
        }
    }

    /// Takes records before `since` out; from the first one that is late enough on all are.
    fn keep_since(&mut self, buf: &mut Vec<u8>) {
        let Some(since) = &self.since else { return };
        let mut start = 0;
        while start < buf.len() {
            if &buf[start..buf.len().min(start + since.len())] >= since.as_bytes() {
                buf.drain(..start);
                self.since = None;
                return;
            }
            let line = buf[start..].iter().position(|byte| *byte == b'\n');
            start = line.map_or(buf.len(), |end| start + end + 1);
        }
        buf.clear();
    }

    /// Takes records after `until` out; with the first of them the log has ended.
    fn cut_until(&mut self, buf: &mut Vec<u8>) {
        let Some(until) = &self.until else { return };
        let mut start = 0;
        while start < buf.len() {
            if &buf[start..buf.len().min(start + until.len())] > until.as_bytes() {
                buf.truncate(start);
                self.ended = true;
                return;
            }
            let line = buf[start..].iter().position(|byte| *byte == b'\n');
            start = line.map_or(buf.len(), |end| start + end + 1);
        }
    }

    /// The file after the one that is read.
    fn following(&self) -> io::Result<Following> {
        let Some(own) = &self.file else { return Ok(Following::Lost) };
        let own = own.metadata()?;
        let mut newer = None;
        for number in 0..MOST_FILES {
            let Some(file) = open(&self.dir, number)? else {
                if number == 0 {
                    continue;
                }
                break;
            };
            let meta = file.metadata()?;
            if (meta.dev(), meta.ino()) == (own.dev(), own.ino()) {
                return Ok(newer.map_or(Following::Same, Following::Next));
            }
            newer = Some(file);
        }
        Ok(if newer.is_some() { Following::Lost } else { Following::Same })
    }
}

enum Following {
    Same,
    Next(File),
    Lost,
}

/// Where the last `wanted` records of a file start, and how many of them it has.
fn tail_start(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut end = file.metadata()?.len();
    let (mut start, mut found) = (end, 0);
    let mut buf = vec![0; CHUNK];
    let mut after_last = None;
    if wanted == 0 {
        return Ok((end, 0));
    }
    while end > 0 {
        let length = end.min(CHUNK as u64);
        end -= length;
        let buf = &mut buf[..usize::try_from(length).unwrap_or(CHUNK)];
        file.read_exact_at(buf, end)?;
        for (index, _) in buf.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let place = end + index as u64 + 1;
            if after_last.replace(place).is_some() {
                found += 1;
                start = place;
                if found == wanted {
                    return Ok((start, found));
                }
            }
        }
    }
    Ok(if after_last.is_some() { (0, found + 1) } else { (start, found) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(n: u32) -> String {
        format!("2026-11-21T20:00:{n:02}.000000Z O line {n}\n")
    }

    fn all(cursor: &mut Cursor) -> String {
        let mut text = String::new();
        loop {
            match cursor.next().unwrap() {
                Chunk::Records(records) => text.push_str(&String::from_utf8(records).unwrap()),
                Chunk::Gap => text.push_str("GAP\n"),
                Chunk::End => return text,
            }
        }
    }

    fn log() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("current.2"), line(1) + &line(2)).unwrap();
        fs::write(dir.path().join("current.1"), line(3) + &line(4)).unwrap();
        fs::write(dir.path().join("current"), line(5) + &line(6)).unwrap();
        dir
    }

    fn lines(numbers: impl IntoIterator<Item = u32>) -> String {
        numbers.into_iter().map(line).collect()
    }

    #[test]
    fn a_log_is_read_from_its_oldest_file_to_its_newest() {
        let dir = log();
        assert_eq!(all(&mut Cursor::new(dir.path().into(), None, None).unwrap()), lines(1..=6));
    }

    #[test]
    fn a_tail_reaches_back_across_files() {
        let dir = log();
        for wanted in 0..=6_u32 {
            let mut cursor = Cursor::new(dir.path().into(), None, Some(u64::from(wanted))).unwrap();
            assert_eq!(all(&mut cursor), lines(7 - wanted..=6), "tail {wanted}");
        }
        assert_eq!(all(&mut Cursor::new(dir.path().into(), None, Some(99)).unwrap()), lines(1..=6));
    }

    #[test]
    fn since_leaves_out_what_is_older() {
        let dir = log();
        let since = Some("2026-11-21T20:00:04.000000Z".to_owned());
        assert_eq!(all(&mut Cursor::new(dir.path().into(), since, None).unwrap()), lines(4..=6));
        let since = Some("2027-01-01T00:00:00.000000Z".to_owned());
        assert_eq!(all(&mut Cursor::new(dir.path().into(), since, None).unwrap()), "");
    }

    #[test]
    fn a_log_that_grows_while_it_is_read_ends_where_it_ended_when_it_was_asked_for() {
        let dir = log();
        let until = "2026-11-21T20:00:04.000000Z".to_owned();
        let mut cursor = Cursor::new(dir.path().into(), None, None).unwrap().until(until);
        assert_eq!(all(&mut cursor), lines(1..=4));
        assert_eq!(cursor.next().unwrap(), Chunk::End);
        let until = "2027-01-01T00:00:00.000000Z".to_owned();
        assert_eq!(all(&mut Cursor::new(dir.path().into(), None, Some(2)).unwrap().until(until)), lines(5..=6));
    }

    #[test]
    fn a_cursor_follows_through_rotations_without_losing_or_repeating_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("current"), line(1)).unwrap();
        let mut cursor = Cursor::new(dir.path().into(), None, None).unwrap();
        assert_eq!(all(&mut cursor), line(1));
        fs::write(path("current"), line(1) + &line(2)).unwrap();
        fs::rename(path("current"), path("current.1")).unwrap();
        fs::write(path("current"), line(3)).unwrap();
        fs::rename(path("current.1"), path("current.2")).unwrap();
        fs::rename(path("current"), path("current.1")).unwrap();
        fs::write(path("current"), line(4)).unwrap();
        assert_eq!(all(&mut cursor), lines(2..=4));
        fs::rename(path("current"), path("gone")).unwrap();
        fs::write(path("current"), line(6)).unwrap();
        fs::remove_file(path("gone")).unwrap();
        fs::remove_file(path("current.1")).unwrap();
        fs::remove_file(path("current.2")).unwrap();
        assert_eq!(all(&mut cursor), "GAP\n".to_owned() + &line(6));
    }

    #[test]
    fn a_log_without_files_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(&mut Cursor::new(dir.path().join("none"), None, Some(3)).unwrap()), "");
    }
}
