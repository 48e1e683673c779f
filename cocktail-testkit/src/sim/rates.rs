//! How much goes wrong: each seed draws its own rates, so that seeds differ in kind and not only in detail.

use super::chance::Chance;

/// Rates in a thousand cases, and times in milliseconds. A rate of zero never happens; a pause of zero means never.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// Calls to the provider that are lost on their way, answers that are lost after it acted.
    pub(super) call_lost: u64,
    pub(super) answer_lost: u64,
    /// Reported failures after which the server comes nevertheless.
    pub(super) late_success: u64,
    /// Listings that fail, and that end after some pages.
    pub(super) list_failed: u64,
    pub(super) list_truncated: u64,
    /// Longest age of a listing, and longest time until a new server is named.
    pub(super) stale: u64,
    pub(super) lag: u64,
    /// Longest answer of a provisioning call, and mean time of a boot.
    pub(super) create: u64,
    pub(super) boot: u64,
    /// Servers that never join, that end by themselves (mean life), reboot (mean), pause (mean between pauses).
    pub(super) never_joins: u64,
    pub(super) server_life: u64,
    pub(super) reboot: u64,
    pub(super) pause: u64,
    /// Ends of servers that take long, and that are refused.
    pub(super) delete_stuck: u64,
    pub(super) delete_refused: u64,
    /// Mean time for which an offering is in stock and out of stock.
    pub(super) stock_on: u64,
    pub(super) stock_off: u64,
    /// Mean time between moves of the quota.
    pub(super) quota: u64,
    /// Calls per minute that the provider allows; 0 is no limit.
    pub(super) per_minute: u64,
    /// Mean time between objects of others that appear in the account.
    pub(super) foreign: u64,
    /// Messages to and from machines that are lost; mean time on the way.
    pub(super) message_lost: u64,
    pub(super) message: u64,
    /// Mean life of a worker, workers that are never ready, fail to start, ignore that they shall stop.
    pub(super) worker_life: u64,
    pub(super) never_ready: u64,
    pub(super) start_fails: u64,
    pub(super) ignores_stop: u64,
    /// Mean time for which a worker stays ready or unready, where it flaps.
    pub(super) flaps: u64,
    /// Mean time between deaths of the Manager, longest time until the next one starts.
    pub(super) crash: u64,
    pub(super) downtime: u64,
    /// Turns whose synced commit is slow.
    pub(super) sync_slow: u64,
    /// Mean time between actions of the user.
    pub(super) user: u64,
    /// Mean time between steps of the wall clock.
    pub(super) clock: u64,
    /// Mean time between cuts of the network.
    pub(super) cut: u64,
    /// Mean time between notices that a server will be interrupted.
    pub(super) notice: u64,
    /// Mean time between changes of what clients ask for.
    pub(super) load: u64,
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

impl Rates {
    /// The rates of one seed: about a third of the kinds of faults are absent, the others more or less frequent.
    pub(super) fn draw(chance: &mut Chance) -> Self {
        Self {
            call_lost: rate(chance, 100),
            answer_lost: rate(chance, 100),
            late_success: rate(chance, 30),
            list_failed: rate(chance, 150),
            list_truncated: rate(chance, 100),
            stale: rate(chance, 60 * SECOND),
            lag: rate(chance, 120 * SECOND),
            create: chance.between(SECOND, 30 * SECOND),
            boot: chance.between(5 * SECOND, 60 * SECOND),
            never_joins: rate(chance, 50),
            server_life: pause(chance, 20 * MINUTE, 200 * MINUTE),
            reboot: pause(chance, 30 * MINUTE, 200 * MINUTE),
            pause: pause(chance, 10 * MINUTE, 100 * MINUTE),
            delete_stuck: rate(chance, 50),
            delete_refused: rate(chance, 50),
            stock_on: pause(chance, 5 * MINUTE, 30 * MINUTE),
            stock_off: chance.between(MINUTE, 10 * MINUTE),
            quota: pause(chance, 5 * MINUTE, 30 * MINUTE),
            per_minute: if chance.happens(500) { chance.between(6, 60) } else { 0 },
            foreign: pause(chance, 10 * MINUTE, 60 * MINUTE),
            message_lost: rate(chance, 60),
            message: chance.between(1, 300),
            worker_life: chance.between(5 * MINUTE, 20 * MINUTE),
            never_ready: rate(chance, 30),
            start_fails: rate(chance, 30),
            ignores_stop: rate(chance, 100),
            flaps: pause(chance, 2 * MINUTE, 20 * MINUTE),
            crash: pause(chance, 2 * MINUTE, 30 * MINUTE),
            downtime: chance.between(SECOND, 3 * MINUTE),
            sync_slow: rate(chance, 50),
            user: chance.between(10 * SECOND, 90 * SECOND),
            clock: pause(chance, 10 * MINUTE, 60 * MINUTE),
            cut: pause(chance, 10 * MINUTE, 60 * MINUTE),
            load: chance.between(MINUTE, 10 * MINUTE),
            notice: pause(chance, 20 * MINUTE, 100 * MINUTE),
        }
    }

    /// Nothing goes wrong; what remains is the time that things take.
    pub(super) fn calm() -> Self {
        Self { create: 5 * SECOND, boot: 20 * SECOND, message: 10, downtime: SECOND, ..Self::default() }
    }
}

fn rate(chance: &mut Chance, most: u64) -> u64 {
    if chance.happens(330) { 0 } else { chance.between(1, most) }
}

fn pause(chance: &mut Chance, least: u64, most: u64) -> u64 {
    if chance.happens(330) { 0 } else { chance.between(least, most) }
}
