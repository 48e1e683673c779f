//! Counts wrong secrets by address, so that guessing is slow.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered; beyond that all strangers share one count.
const ADDRESSES: usize = 4_096;

/// Wrong secrets of late.
#[derive(Debug)]
pub(super) struct Guesses {
    most: u32,
    by: Mutex<BTreeMap<Option<IpAddr>, (Instant, u32)>>,
}

impl Guesses {
    pub(super) fn new(most: u32) -> Self {
        Self { most, by: Mutex::default() }
    }

    /// Whether an address has guessed too often.
    pub(super) fn is_over(&self, address: IpAddr) -> bool {
        let by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let known = by.get(&Some(address)).or_else(|| by.get(&None).filter(|_| by.len() > ADDRESSES));
        known.is_some_and(|(since, count)| since.elapsed() < WINDOW && *count >= self.most)
    }

    /// Counts one; returns how many there were of that address within the window.
    pub(super) fn count(&self, address: IpAddr) -> u32 {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        if by.len() > ADDRESSES {
            by.retain(|_, (since, _)| since.elapsed() < WINDOW);
        }
        let key = if by.len() > ADDRESSES && !by.contains_key(&Some(address)) { None } else { Some(address) };
        let (since, count) = by.entry(key).or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= WINDOW {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count
    }
}
