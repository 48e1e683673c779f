//! From cpu time to cpu use: what was used between two readings.

use std::collections::BTreeMap;
use std::time::Instant;

use cocktail_core::contract::UsageReading;
use cocktail_core::id::ContainerId;
use cocktail_keeper::protocol::ContainerUsage;

/// The last reading of every container.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    last: BTreeMap<ContainerId, (Instant, u64)>,
}

impl Readings {
    /// Takes a reading; a container that is new in it has used nothing yet.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        usage: BTreeMap<String, ContainerUsage>,
    ) -> BTreeMap<ContainerId, UsageReading> {
        let mut next = BTreeMap::new();
        let mut readings = BTreeMap::new();
        for (container, usage) in usage {
            let container = ContainerId::new(container);
            let cpu_millis = self.last.get(&container).map_or(0, |&(then, before)| {
                let nanos = u64::try_from(now.duration_since(then).as_nanos()).unwrap_or(u64::MAX);
                // A restart in place begins again at zero.
                let used = usage.cpu_ns.saturating_sub(before);
                used.saturating_mul(1_000).checked_div(nanos).unwrap_or(0)
            });
            next.insert(container.clone(), (now, usage.cpu_ns));
            readings.insert(container, UsageReading { cpu_millis, memory_bytes: usage.rss_bytes });
        }
        self.last = next;
        readings
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cpu_use_is_the_difference_of_two_readings_per_time() {
        let usage = |cpu_ns| {
            BTreeMap::from([("web-1".to_owned(), ContainerUsage { cpu_ns, rss_bytes: 7, ..ContainerUsage::default() })])
        };
        let id = ContainerId::new("web-1");
        let (mut readings, start) = (Readings::default(), Instant::now());
        assert_eq!(readings.take(start, usage(5_000_000))[&id].cpu_millis, 0);
        let second = readings.take(start + Duration::from_secs(2), usage(505_000_000));
        assert_eq!(second[&id], UsageReading { cpu_millis: 250, memory_bytes: 7 });
        let restarted = readings.take(start + Duration::from_secs(4), usage(1_000));
        assert_eq!(restarted[&id].cpu_millis, 0);
        assert!(readings.take(start + Duration::from_secs(5), BTreeMap::new()).is_empty());
    }
}
