//! The last points of an object, in little memory.
//!
//! Start at [`Ring`]. Readings that fall into the same slot of time are averaged into one point. A point takes 14 bytes:
//! its numbers are small floats ([`Small`]), exact as long as they are small, so that an hour of 300 containers stays
//! below 2 MB. A ring grows with what it holds, up to what it is allowed at each reading. It knows slots and no clock.

use std::collections::VecDeque;

use super::latency::{Buckets, percentile};

/// Points for which room is taken at once.
const BLOCK: usize = 15;

/// What one look at an object found.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    pub(super) in_flight: u64,
    /// Answered requests since the last look.
    pub(super) requests: u64,
    /// Time since the last look.
    pub(super) seconds: f64,
    /// Where anything was answered.
    pub(super) latencies: Option<Box<Buckets>>,
    pub(super) ready: u32,
}

/// The readings of one slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown {
    pub(super) slot: u64,
    pub(super) cpu_millis: f64,
    pub(super) memory_bytes: f64,
    pub(super) rps: f64,
    pub(super) in_flight: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) ready: f64,
}

/// The last slots of one object, and the one that is still being filled.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// The slots before the open one, without a gap.
    points: VecDeque<Point>,
    open: Open,
}

impl Ring {
    /// Adds a reading, and forgets all but the last `slots` slots, the open one included: at least that one is kept. A slot
    /// before the last one counts as the last one: time does not go back.
    pub(super) fn add(&mut self, slot: u64, reading: &Reading, slots: usize) {
        let most = slots.saturating_sub(1);
        if slot > self.open.slot {
            let left = self.open.slot;
            if self.open.looks > 0 {
                self.push(self.open.close());
                // What was not looked at is unknown, not what it was an hour ago.
                for _ in (left + 1..slot).take(most) {
                    self.push(Point::NONE);
                }
            }
            self.open = Open { slot, ..Open::default() };
        }
        let over = self.points.len().saturating_sub(most);
        if over > 0 {
            self.points.drain(..over);
            if self.points.capacity() > most + 2 * BLOCK {
                self.points.shrink_to(most + BLOCK);
            }
        }
        self.open.add(reading);
    }

    /// The points of the slots that end with `now`, as long as they are not older than `slots` slots, oldest first.
    pub(super) fn points(&self, now: u64, slots: usize) -> impl Iterator<Item = Shown> + '_ {
        let first = (now + 1).saturating_sub(slots.max(1) as u64);
        let before = self.points.iter().rev().zip(1..);
        let closed = before.filter_map(|(point, back)| point.shown(self.open.slot.checked_sub(back)?));
        let open = self.open.close().shown(self.open.slot);
        let shown: Vec<_> = open.into_iter().chain(closed).take_while(|shown| shown.slot >= first).collect();
        shown.into_iter().rev()
    }

    fn push(&mut self, point: Point) {
        if self.points.len() == self.points.capacity() {
            self.points.reserve_exact(BLOCK);
        }
        self.points.push_back(point);
    }
}

/// The slot that is being filled.
#[derive(Debug, Default)]
struct Open {
    slot: u64,
    looks: u32,
    sum: Reading,
}

impl Open {
    fn add(&mut self, reading: &Reading) {
        let sum = &mut self.sum;
        self.looks += 1;
        sum.cpu_millis = sum.cpu_millis.saturating_add(reading.cpu_millis);
        sum.memory_bytes = sum.memory_bytes.saturating_add(reading.memory_bytes);
        sum.in_flight = sum.in_flight.saturating_add(reading.in_flight);
        sum.requests = sum.requests.saturating_add(reading.requests);
        sum.seconds += reading.seconds;
        if let Some(latencies) = &reading.latencies {
            for (sum, count) in sum.latencies.get_or_insert_default().iter_mut().zip(**latencies) {
                *sum = sum.saturating_add(count);
            }
        }
        sum.ready = sum.ready.saturating_add(reading.ready);
    }

    fn close(&self) -> Point {
        if self.looks == 0 {
            return Point::NONE;
        }
        let (sum, looks) = (&self.sum, f64::from(self.looks));
        let at = |share| sum.latencies.as_deref().map_or(0.0, |latencies| percentile(latencies, share));
        let rps = if sum.seconds > 0.0 { sum.requests as f64 / sum.seconds } else { 0.0 };
        Point {
            cpu: Small::new(sum.cpu_millis as f64 / looks),
            memory: Small::new(sum.memory_bytes as f64 / looks / PAGE),
            rps: Small::new(rps / RATE),
            in_flight: Small::new(sum.in_flight as f64 / looks),
            p50: Small::new(at(0.5) / MICROSECOND),
            p99: Small::new(at(0.99) / MICROSECOND),
            ready: Small::new(f64::from(sum.ready) / looks),
        }
    }
}

/// Memory is counted in pages of this many bytes.
const PAGE: f64 = 4096.0;
/// Rates are counted in this many requests a second.
const RATE: f64 = 0.01;
/// Latencies are counted in this many milliseconds.
const MICROSECOND: f64 = 0.001;

/// One slot that is over.
#[derive(Debug, Clone, Copy)]
struct Point {
    cpu: Small,
    memory: Small,
    rps: Small,
    in_flight: Small,
    p50: Small,
    p99: Small,
    ready: Small,
}

impl Point {
    const NONE: Self = Self {
        cpu: Small::NONE,
        memory: Small::NONE,
        rps: Small::NONE,
        in_flight: Small::NONE,
        p50: Small::NONE,
        p99: Small::NONE,
        ready: Small::NONE,
    };

    fn shown(&self, slot: u64) -> Option<Shown> {
        let cpu_millis = self.cpu.value()?;
        Some(Shown {
            slot,
            cpu_millis,
            memory_bytes: self.memory.value()? * PAGE,
            rps: self.rps.value()? * RATE,
            in_flight: self.in_flight.value()?,
            p50_ms: self.p50.value()? * MICROSECOND,
            p99_ms: self.p99.value()? * MICROSECOND,
            ready: self.ready.value()?,
        })
    }
}

/// A number in 16 bits: 11 bits of it, and how often they are doubled. Whole numbers below 4096 are exact, the others
/// are off by less than 0.05 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Small(u16);

impl Small {
    /// No number at all.
    const NONE: Self = Self(u16::MAX);
    /// The largest number.
    const MOST: Self = Self(u16::MAX - 1);

    fn new(value: f64) -> Self {
        // The cast saturates, and what is no number becomes 0.
        let whole = value.round() as u64;
        let bits = u64::BITS - whole.leading_zeros();
        let Some(mut doubled) = bits.checked_sub(12) else { return Self(whole as u16) };
        if doubled >= 30 {
            return Self::MOST;
        }
        let mut kept = (whole + ((1 << doubled) >> 1)) >> doubled;
        if kept == 4096 {
            (kept, doubled) = (2048, doubled + 1);
        }
        Self((doubled as u16 + 1) << 11 | (kept as u16 - 2048))
    }

    fn value(self) -> Option<f64> {
        let (doubled, rest) = (self.0 >> 11, u64::from(self.0 & 0x7ff));
        let whole = if doubled == 0 { rest } else { (rest + 2048) << (doubled - 1) };
        (self != Self::NONE).then_some(whole as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(cpu_millis: u64) -> Reading {
        Reading { cpu_millis, memory_bytes: 64 << 20, requests: 50, seconds: 1.0, ready: 2, ..Reading::default() }
    }

    fn cpu(ring: &Ring, now: u64) -> Vec<(u64, f64)> {
        ring.points(now, 4).map(|point| (point.slot, point.cpu_millis)).collect()
    }

    #[test]
    fn numbers_are_exact_while_small_and_nearly_so_when_large() {
        for value in [0.0, 1.0, 2047.0, 2048.0, 2049.0, 4095.0, 4096.0] {
            assert_eq!(Small::new(value).value(), Some(value));
        }
        for value in [4097.0, 8191.0, 65_535.0, 123_456.0, 987_654_321.0, 1e12] {
            let kept = Small::new(value).value().expect("a number");
            assert!((kept - value).abs() / value < 0.0005, "{value} became {kept}");
        }
        assert_eq!(Small::new(f64::NAN).value(), Some(0.0));
        assert_eq!(Small::new(-3.0).value(), Some(0.0));
        for value in [1e300, f64::INFINITY] {
            assert!(Small::new(value).value().expect("the largest") > 4e12);
        }
    }

    #[test]
    fn readings_of_one_slot_are_averaged() {
        let mut ring = Ring::default();
        ring.add(7, &reading(100), 4);
        ring.add(7, &Reading { requests: 150, ..reading(300) }, 4);
        let points: Vec<Shown> = ring.points(7, 4).collect();
        let [point] = points[..] else { panic!("one point: {points:?}") };
        assert_eq!((point.cpu_millis, point.memory_bytes, point.ready), (200.0, f64::from(64 << 20), 2.0));
        assert!((point.rps - 100.0).abs() < 0.05, "{point:?}");
    }

    #[test]
    fn the_oldest_slots_make_room_and_what_was_not_looked_at_is_left_out() {
        let mut ring = Ring::default();
        for slot in 1..=6 {
            ring.add(slot, &reading(slot * 10), 4);
        }
        assert_eq!(cpu(&ring, 6), [(3, 30.0), (4, 40.0), (5, 50.0), (6, 60.0)]);
        assert_eq!(cpu(&ring, 8), [(5, 50.0), (6, 60.0)], "time goes on without readings");
        ring.add(8, &reading(80), 4);
        assert_eq!(cpu(&ring, 8), [(5, 50.0), (6, 60.0), (8, 80.0)]);
        ring.add(1_000, &reading(1), 4);
        assert_eq!(cpu(&ring, 1_000), [(1_000, 1.0)], "nothing of an hour ago comes back");
        ring.add(999, &reading(3), 4);
        assert_eq!(cpu(&ring, 1_000), [(1_000, 2.0)], "time does not go back");
    }

    #[test]
    fn a_ring_that_is_allowed_less_gives_its_room_back() {
        let mut ring = Ring::default();
        for slot in 0..1_000 {
            ring.add(slot, &reading(slot), 360);
        }
        assert_eq!((ring.points.len(), ring.points(999, 360).count()), (359, 360));
        assert!(ring.points.capacity() < 360 + BLOCK, "{}", ring.points.capacity());
        ring.add(1_000, &reading(1_000), 60);
        assert_eq!((ring.points.len(), ring.points(1_000, 60).next().map(|point| point.slot)), (59, Some(941)));
        assert!(ring.points.capacity() <= 60 + 2 * BLOCK, "{}", ring.points.capacity());
        ring.add(1_001, &reading(1), 0);
        assert_eq!(ring.points(1_001, 0).count(), 1, "the last one is always there");
    }

    #[test]
    fn an_hour_of_three_hundred_containers_takes_less_than_two_megabytes() {
        let one = size_of::<Ring>() + (360 + BLOCK) * size_of::<Point>();
        assert!(300 * one < 1_800_000, "{one} bytes each");
    }
}
