//! Bytes of a stranger into a file: counted, hashed, and believed only when the hash is right.

use std::fs::File;
use std::io::{Seek, Write};

use cocktail_core::error::{Error, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::error::local;
use super::{Limits, blocking};

/// What is written and hashed at a time.
pub(super) const PIECE: usize = 1 << 18;

/// Digits of a hash that a person compares.
const COMPARED: usize = 12;

/// Writes everything that comes into `to`, and returns it for reading from its beginning.
pub(super) async fn download(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    to: File,
    expected: &str,
    limits: &Limits,
) -> Result<File> {
    let (mut to, mut hasher, mut piece) = (to, Sha256::new(), vec![0; PIECE]);
    let mut total = 0_u64;
    loop {
        let filled = fill(&mut from, &mut piece, limits).await?;
        total = total.saturating_add(filled as u64);
        if total > limits.download {
            return Err(Error::invalid(format!("the artifact is larger than {} bytes", limits.download)));
        }
        let last = filled < piece.len();
        (to, hasher, piece) = blocking(move || {
            hasher.update(&piece[..filled]);
            to.write_all(&piece[..filled]).map_err(|error| local("write an artifact", error))?;
            Ok((to, hasher, piece))
        })
        .await?;
        if last {
            break;
        }
    }
    let found = HEXLOWER.encode(&hasher.finalize());
    if found != expected {
        return Err(Error::invalid(format!(
            "the artifact's SHA-256 begins with {}, and should begin with {}; it has {total} bytes",
            &found[..COMPARED],
            &expected[..COMPARED]
        )));
    }
    blocking(move || {
        to.rewind().map_err(|error| local("read an artifact", error))?;
        Ok(to)
    })
    .await
}

/// Reads until `piece` is full or nothing more comes.
async fn fill(from: &mut (dyn AsyncRead + Send + Unpin), piece: &mut [u8], limits: &Limits) -> Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        let read = timeout(limits.stall, from.read(&mut piece[filled..])).await;
        match read {
            Ok(Ok(0)) => break,
            Ok(Ok(more)) => filled += more,
            Ok(Err(error)) => return Err(Error::unavailable("the source of the artifact failed").because(error)),
            Err(_) => {
                let seconds = limits.stall.as_secs_f64();
                return Err(Error::unavailable(format!("the source of the artifact brought nothing for {seconds} s")));
            }
        }
    }
    Ok(filled)
}
