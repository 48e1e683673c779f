//! Port leases: which container may use which port of a server, and until when.
//!
//! Start at [`PortPool`]. It is a value: it opens no socket and reads no clock, callers pass the time in. Two live
//! leases never share a port. Whether a port is truly free on the machine is found out by the runtime, which binds it;
//! what turns out taken is *poisoned* for a while. Leases end after the holder's exit was observed and the hold-down
//! has passed, never by time alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::time::ManagerTime;

/// An inclusive range of ports, written `20000-29999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port of the range.
    pub first: u16,
    /// Last port of the range.
    pub last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 20_000, last: 29_999 }
    }
}

impl PortRange {
    /// How many ports the range has.
    pub fn len(self) -> u32 {
        u32::from(self.last).saturating_sub(u32::from(self.first)) + 1
    }

    /// Whether the range holds no port; false for every range that was checked at decoding.
    pub fn is_empty(self) -> bool {
        self.last < self.first
    }

    /// Whether `port` lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// State of one port that is not free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortLease {
    /// Reserved for or used by a container.
    Held(ContainerId),
    /// The holder's exit was observed; free from the given time on.
    HoldDown(ManagerTime),
    /// Somebody else has it; tried again from the given time on.
    Poisoned(ManagerTime),
}

/// The ports of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPool {
    range: PortRange,
    leases: BTreeMap<u16, PortLease>,
    /// Where the next search starts, so that a port rests as long as possible before it is used again.
    next: u16,
}

/// Why no port could be leased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Every port of the range is held, resting or poisoned.
    #[error("no free port in {range}: {held} held, {resting} resting, {poisoned} taken by other programs")]
    Exhausted {
        /// The range that was searched.
        range: PortRange,
        /// Ports that containers hold.
        held: usize,
        /// Ports in hold-down.
        resting: usize,
        /// Ports that other programs have.
        poisoned: usize,
    },
    /// A fixed port belongs to another container.
    #[error("port {port} is held by container {holder}")]
    Held {
        /// The port that was asked for.
        port: u16,
        /// Who holds it.
        holder: ContainerId,
    },
    /// A fixed port is resting or was found taken.
    #[error("port {port} is not free yet: {why}")]
    NotYet {
        /// The port that was asked for.
        port: u16,
        /// When it may be tried again.
        until: ManagerTime,
        /// Resting, or taken by another program.
        why: &'static str,
    },
}

impl PortError {
    /// What stands in the way, without the numbers that change by themselves.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Exhausted { range, .. } => format!("no free port in {range}"),
            Self::Held { .. } | Self::NotYet { .. } => self.to_string(),
        }
    }
}

impl PortPool {
    /// An empty pool over `range`.
    pub fn new(range: PortRange) -> Self {
        Self { range, leases: BTreeMap::new(), next: range.first }
    }

    /// Changes the range; ports that are held outside it stay held until their holder ends.
    pub fn set_range(&mut self, range: PortRange) {
        if self.range != range {
            self.range = range;
            self.next = range.first;
        }
    }

    /// The lease of `port`, if it is not free.
    pub fn lease(&self, port: u16) -> Option<&PortLease> {
        self.leases.get(&port)
    }

    /// Every port that is not free, in order.
    pub fn leases(&self) -> impl Iterator<Item = (u16, &PortLease)> {
        self.leases.iter().map(|(&port, lease)| (port, lease))
    }

    /// Finds `count` different ports that nobody holds at `now` and that are not in `except`, without reserving them.
    ///
    /// # Errors
    /// [`PortError::Exhausted`] with the numbers.
    pub fn find(&self, count: usize, now: ManagerTime, except: &BTreeSet<u16>) -> Result<Vec<u16>, PortError> {
        let mut found = Vec::with_capacity(count);
        let start = if self.range.contains(self.next) { self.next } else { self.range.first };
        let candidates = (start..=self.range.last).chain(self.range.first..start);
        for port in candidates {
            if found.len() == count {
                break;
            }
            if !except.contains(&port) && self.check(port, now).is_ok() {
                found.push(port);
            }
        }
        if found.len() == count { Ok(found) } else { Err(self.exhausted(now, except)) }
    }

    /// Whether `port` may be reserved at `now`.
    ///
    /// # Errors
    /// Says who holds it, or until when it rests.
    pub fn check(&self, port: u16, now: ManagerTime) -> Result<(), PortError> {
        match self.leases.get(&port) {
            Some(PortLease::Held(holder)) => Err(PortError::Held { port, holder: holder.clone() }),
            Some(PortLease::HoldDown(until)) if *until > now => {
                Err(PortError::NotYet { port, until: *until, why: "its last holder ended a moment ago" })
            }
            Some(PortLease::Poisoned(until)) if *until > now => {
                Err(PortError::NotYet { port, until: *until, why: "another program listens on it" })
            }
            _ => Ok(()),
        }
    }

    /// Reserves `port` for `holder`. Repeating it for the same holder changes nothing.
    pub fn reserve(&mut self, port: u16, holder: ContainerId) {
        self.leases.insert(port, PortLease::Held(holder));
        if self.range.contains(port) {
            self.next = if port >= self.range.last { self.range.first } else { port + 1 };
        }
    }

    /// The exit of `holder` was observed: its ports rest until `until`. Ports of others are not touched.
    pub fn release(&mut self, holder: &ContainerId, ports: impl IntoIterator<Item = u16>, until: ManagerTime) {
        for port in ports {
            if matches!(self.leases.get(&port), Some(PortLease::Held(by)) if by == holder) {
                self.leases.insert(port, PortLease::HoldDown(until));
            }
        }
    }

    /// `port` was found taken by another program: nobody gets it before `until`.
    ///
    /// Such ports come in rows, as when another data directory on this machine uses the same range. So the next search
    /// begins as many ports further on as were poisoned before: the end of the row is found in a few steps, and what was
    /// passed over is searched when the search comes round again.
    pub fn poison(&mut self, port: u16, until: ManagerTime) {
        self.leases.insert(port, PortLease::Poisoned(until));
        if !self.range.contains(port) || self.range.is_empty() {
            return;
        }
        let poisoned = self.leases.values().filter(|lease| matches!(lease, PortLease::Poisoned(_))).count();
        let (length, first) = (self.range.len(), u32::from(self.range.first));
        let leap = u32::try_from(poisoned.saturating_sub(1)).unwrap_or_default() % length;
        let here = u32::from(port) - first;
        let ahead = u32::from(self.next).saturating_sub(first) + length - here;
        if ahead % length <= leap {
            let next = first + (here + 1 + leap) % length;
            self.next = u16::try_from(next).unwrap_or(self.range.first);
        }
    }

    /// Forgets what has ended by `now`; returns the ports that became free.
    pub fn expire(&mut self, now: ManagerTime) -> Vec<u16> {
        let ended: Vec<u16> = self
            .leases
            .iter()
            .filter(|(_, lease)| match lease {
                PortLease::Held(_) => false,
                PortLease::HoldDown(until) | PortLease::Poisoned(until) => *until <= now,
            })
            .map(|(&port, _)| port)
            .collect();
        for port in &ended {
            self.leases.remove(port);
        }
        ended
    }

    fn exhausted(&self, now: ManagerTime, except: &BTreeSet<u16>) -> PortError {
        let (mut resting, mut poisoned) = (0, 0);
        let mut held = except.iter().filter(|port| self.range.contains(**port)).count();
        for (port, lease) in self.leases.iter().filter(|(port, _)| self.range.contains(**port)) {
            match lease {
                PortLease::Held(_) => held += usize::from(!except.contains(port)),
                PortLease::HoldDown(until) => resting += usize::from(*until > now),
                PortLease::Poisoned(until) => poisoned += usize::from(*until > now),
            }
        }
        PortError::Exhausted { range: self.range, held, resting, poisoned }
    }
}

#[cfg(test)]
mod tests;
