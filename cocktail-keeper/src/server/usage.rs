//! CPU time and memory of all containers, in one pass over the process table.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use tokio::task::spawn_blocking;

use super::{Server, containers::Phase};
use crate::{
    procfs::{self, Stat},
    protocol::{ContainerUsage, Refusal, Reply},
};

/// A chain of parents longer than this is cut.
const DEPTH: usize = 64;

pub(super) async fn usage(server: Rc<Server>) -> Result<Reply, Refusal> {
    let mains: HashMap<u32, String> = server
        .all_containers()
        .into_iter()
        .filter_map(|container| match container.phase() {
            Phase::Running(started) => Some((started.pid, container.id.clone())),
            _ => None,
        })
        .collect();
    let usage = spawn_blocking(move || sum(&mains, &procfs::scan().unwrap_or_default())).await;
    usage.map(Reply::Usage).map_err(|_| Refusal::Ending)
}

/// Adds processes up by session, and by descent where a process left its session.
fn sum(mains: &HashMap<u32, String>, stats: &[Stat]) -> BTreeMap<String, ContainerUsage> {
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let page = rustix::param::page_size() as u64;
    let parents: HashMap<u32, &Stat> = stats.iter().map(|stat| (stat.pid, stat)).collect();
    let mut usage: BTreeMap<String, ContainerUsage> =
        mains.values().map(|id| (id.clone(), ContainerUsage::default())).collect();
    for stat in stats {
        let mut next = Some(stat);
        let mut owner = None;
        for _ in 0..DEPTH {
            let Some(stat) = next else { break };
            owner = mains.get(&stat.session).or_else(|| mains.get(&stat.pid));
            if owner.is_some() {
                break;
            }
            next = parents.get(&stat.ppid).copied();
        }
        if let Some(usage) = owner.and_then(|id| usage.get_mut(id)) {
            usage.cpu_ns += stat.cpu_ticks * tick;
            usage.rss_bytes += stat.rss_pages * page;
            usage.processes += u32::from(stat.lives());
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, ppid: u32, session: u32) -> Stat {
        Stat { pid, state: b'S', ppid, session, cpu_ticks: 1, start_time: 1, rss_pages: 1 }
    }

    #[test]
    fn processes_count_for_their_session_and_for_the_session_they_left() {
        let mains = HashMap::from([(10, "a".to_owned()), (20, "b".to_owned())]);
        let stats = [stat(10, 1, 10), stat(11, 10, 10), stat(12, 11, 12), stat(20, 1, 20), stat(30, 1, 30)];
        let usage = sum(&mains, &stats);
        assert_eq!((usage["a"].processes, usage["b"].processes), (3, 1));
    }
}
