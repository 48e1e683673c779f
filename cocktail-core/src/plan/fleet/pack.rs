//! Which servers to buy for what is missing, for the least money.
//!
//! Few items are solved exactly, by the cheapest partition of all subsets; many are filled greedily, offering by
//! offering, by what each server would hold for its price, and the rest is solved exactly.

use std::cmp::Ordering;

use crate::spec::Resources;

/// Items up to which all partitions are compared.
const EXACT: usize = 10;

/// Something that can be bought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Offer {
    /// What containers can use of one.
    pub(super) room: Resources,
    /// What one costs, in any unit; positive.
    pub(super) price: f64,
}

/// One server to buy: the offer by index, and the items by index that it is bought for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bought {
    pub(super) offer: usize,
    pub(super) items: Vec<usize>,
}

/// The servers to buy, at most `most`. Items that fit into no offer, or for which there are not enough servers, are in
/// none of them.
pub(super) fn cheapest(items: &[Resources], offers: &[Offer], most: usize) -> Vec<Bought> {
    let mut bought = Vec::new();
    let fits = |item: &Resources| offers.iter().any(|offer| holds(offer.room, *item));
    let mut left: Vec<usize> = (0..items.len()).filter(|index| items.get(*index).is_some_and(fits)).collect();
    left.sort_by(|a, b| size(items[*b], offers).total_cmp(&size(items[*a], offers)).then(a.cmp(b)));
    while left.len() > EXACT && bought.len() < most {
        let Some(best) = best_fill(items, offers, &left) else { break };
        left.retain(|index| !best.items.contains(index));
        bought.push(best);
    }
    if left.len() <= EXACT {
        bought.extend(exact(items, offers, &left));
    }
    // Where not all can be bought, those that hold most are.
    if bought.len() > most {
        bought.sort_by_key(|server| std::cmp::Reverse(server.items.len()));
        bought.truncate(most);
    }
    bought
}

/// The server that holds most for its price, filled from the largest item down.
fn best_fill(items: &[Resources], offers: &[Offer], left: &[usize]) -> Option<Bought> {
    let mut best: Option<(f64, Bought)> = None;
    for (index, offer) in offers.iter().enumerate() {
        let mut room = offer.room;
        let mut taken = Vec::new();
        let mut worth = 0.0;
        let mut last_misfit: Option<Resources> = None;
        for &item in left {
            let wanted = items[item];
            // Items come in runs of equal ones: what did not fit a moment ago does not fit now.
            if last_misfit == Some(wanted) {
                continue;
            }
            if holds(room, wanted) {
                room.cpu.0 -= wanted.cpu.0;
                room.memory.0 -= wanted.memory.0;
                worth += size(wanted, offers);
                taken.push(item);
            } else {
                last_misfit = Some(wanted);
            }
        }
        if taken.is_empty() {
            continue;
        }
        let rate = worth / offer.price;
        if best.as_ref().is_none_or(|(other, _)| rate.total_cmp(other) == Ordering::Greater) {
            best = Some((rate, Bought { offer: index, items: taken }));
        }
    }
    best.map(|(_, bought)| bought)
}

/// The cheapest way to cover a few items: each subset by its cheapest server, then the cheapest partition.
fn exact(items: &[Resources], offers: &[Offer], left: &[usize]) -> Vec<Bought> {
    let count = left.len();
    let full = (1_usize << count) - 1;
    let mut single: Vec<Option<(f64, usize)>> = vec![None; full + 1];
    for (set, cheapest) in single.iter_mut().enumerate().skip(1) {
        let mut sum = Resources::default();
        for (bit, &item) in left.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0) {
            debug_assert!(bit < count);
            sum.cpu.0 = sum.cpu.0.saturating_add(items[item].cpu.0);
            sum.memory.0 = sum.memory.0.saturating_add(items[item].memory.0);
        }
        for (index, offer) in offers.iter().enumerate().filter(|(_, offer)| holds(offer.room, sum)) {
            if cheapest.is_none_or(|(price, _)| offer.price < price) {
                *cheapest = Some((offer.price, index));
            }
        }
    }
    // The cheapest cover of each set: its first item is in one server with some of the others.
    let mut cover: Vec<(f64, usize)> = vec![(0.0, 0); full + 1];
    for set in 1..=full {
        let first = set & set.wrapping_neg();
        let rest = set ^ first;
        let mut best = (f64::INFINITY, 0);
        let mut part = rest;
        loop {
            let together = part | first;
            if let Some((price, _)) = single[together] {
                let price = price + cover[set ^ together].0;
                if price < best.0 {
                    best = (price, together);
                }
            }
            if part == 0 {
                break;
            }
            part = (part - 1) & rest;
        }
        cover[set] = best;
    }
    let mut bought = Vec::new();
    let mut set = full;
    while set != 0 {
        let together = cover[set].1;
        let Some((_, offer)) = single.get(together).copied().flatten() else { break };
        let members = left.iter().enumerate().filter(|(bit, _)| together & (1 << bit) != 0);
        bought.push(Bought { offer, items: members.map(|(_, item)| *item).collect() });
        set ^= together;
    }
    bought
}

pub(super) fn holds(room: Resources, item: Resources) -> bool {
    item.cpu <= room.cpu && item.memory <= room.memory
}

/// How large an item is: its largest share of the largest offer.
fn size(item: Resources, offers: &[Offer]) -> f64 {
    let most = |value: fn(Resources) -> u64| offers.iter().map(|offer| value(offer.room)).max().unwrap_or(1).max(1);
    #[expect(clippy::cast_precision_loss, reason = "an order of sizes needs no exactness")]
    let share = |value: u64, most: u64| value as f64 / most as f64;
    let cpu = share(item.cpu.0, most(|room| room.cpu.0));
    let memory = share(item.memory.0, most(|room| room.memory.0));
    // What reserves nothing still is worth a place.
    cpu.max(memory).max(1e-6)
}

#[cfg(test)]
mod tests;
