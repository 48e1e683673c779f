//! What is bought, compared with everything that could be.

use proptest::prelude::*;

use super::{Bought, Offer, cheapest, holds};
use crate::quantity::{Bytes, CpuMillis};
use crate::spec::Resources;

fn room(cpu: u64, memory: u64) -> Resources {
    Resources { cpu: CpuMillis(cpu), memory: Bytes(memory) }
}

fn cost(bought: &[Bought], offers: &[Offer]) -> f64 {
    bought.iter().map(|server| offers[server.offer].price).sum()
}

/// The least that the items cost, found by trying every way: each item joins a server that is there or opens one.
fn brute_force(items: &[Resources], offers: &[Offer], open: &mut Vec<(usize, Resources)>) -> f64 {
    let Some((first, rest)) = items.split_first() else {
        return open.iter().map(|(offer, _)| offers[*offer].price).sum();
    };
    let mut best = f64::INFINITY;
    for index in 0..open.len() {
        if holds(open[index].1, *first) {
            open[index].1.cpu.0 -= first.cpu.0;
            open[index].1.memory.0 -= first.memory.0;
            best = best.min(brute_force(rest, offers, open));
            open[index].1.cpu.0 += first.cpu.0;
            open[index].1.memory.0 += first.memory.0;
        }
    }
    for (index, offer) in offers.iter().enumerate().filter(|(_, offer)| holds(offer.room, *first)) {
        open.push((index, room(offer.room.cpu.0 - first.cpu.0, offer.room.memory.0 - first.memory.0)));
        best = best.min(brute_force(rest, offers, open));
        open.pop();
    }
    best
}

fn check_room(items: &[Resources], offers: &[Offer], bought: &[Bought]) {
    let mut seen = std::collections::BTreeSet::new();
    for server in bought {
        let sum = server.items.iter().fold(room(0, 0), |sum, item| {
            assert!(seen.insert(*item), "item {item} is in two servers");
            room(sum.cpu.0 + items[*item].cpu.0, sum.memory.0 + items[*item].memory.0)
        });
        assert!(holds(offers[server.offer].room, sum), "a server is overfull");
    }
}

proptest! {
    #[test]
    fn a_few_items_cost_no_more_than_the_best_of_all_ways(
        items in prop::collection::vec((1_u64..40, 1_u64..40), 1..7),
        offers in prop::collection::vec((10_u64..60, 10_u64..60, 1_u32..50), 1..4),
    ) {
        let offers: Vec<Offer> = offers
            .into_iter()
            .map(|(cpu, memory, price)| Offer { room: room(cpu, memory), price: f64::from(price) })
            .collect();
        let items: Vec<Resources> = items.into_iter().map(|(cpu, memory)| room(cpu, memory)).collect();
        let bought = cheapest(&items, &offers, usize::MAX);
        check_room(&items, &offers, &bought);
        let fitting: Vec<Resources> =
            items.iter().copied().filter(|item| offers.iter().any(|offer| holds(offer.room, *item))).collect();
        let best = brute_force(&fitting, &offers, &mut Vec::new());
        prop_assert!(cost(&bought, &offers) <= best * 1.01 + 1e-9, "{} instead of {best}", cost(&bought, &offers));
        let placed: usize = bought.iter().map(|server| server.items.len()).sum();
        prop_assert_eq!(placed, fitting.len());
    }

    #[test]
    fn many_items_all_find_a_place(
        items in prop::collection::vec((1_u64..10, 1_u64..10), 11..80),
    ) {
        let offers = [
            Offer { room: room(16, 16), price: 1.0 },
            Offer { room: room(64, 64), price: 3.5 },
        ];
        let items: Vec<Resources> = items.into_iter().map(|(cpu, memory)| room(cpu, memory)).collect();
        let bought = cheapest(&items, &offers, usize::MAX);
        check_room(&items, &offers, &bought);
        let placed: usize = bought.iter().map(|server| server.items.len()).sum();
        prop_assert_eq!(placed, items.len());
        // No way is cheaper than the cheapest price of what is reserved.
        let cpu: u64 = items.iter().map(|item| item.cpu.0).sum();
        let memory: u64 = items.iter().map(|item| item.memory.0).sum();
        #[expect(clippy::cast_precision_loss, reason = "sums of a test are small")]
        let least = cpu.max(memory) as f64 * 3.5 / 64.0;
        prop_assert!(cost(&bought, &offers) <= least * 1.5 + 3.5, "{} for at least {least}", cost(&bought, &offers));
    }
}

#[test]
fn no_more_servers_are_bought_than_allowed_and_those_hold_most() {
    let items = [room(10, 10), room(3, 3), room(3, 3), room(3, 3)];
    let offers = [Offer { room: room(10, 10), price: 1.0 }];
    let bought = cheapest(&items, &offers, 1);
    assert_eq!(bought, [Bought { offer: 0, items: vec![1, 2, 3] }]);
}

#[test]
fn what_fits_nowhere_is_left_out() {
    let offers = [Offer { room: room(10, 10), price: 1.0 }];
    assert_eq!(cheapest(&[room(11, 1)], &offers, 9), []);
    assert_eq!(cheapest(&[room(1, 1)], &[], 9), []);
}

#[test]
fn a_few_items_are_put_together_where_that_is_cheaper_than_the_cheapest_server_for_each() {
    let items = [room(5, 5), room(5, 5)];
    let offers = [Offer { room: room(5, 5), price: 1.0 }, Offer { room: room(10, 10), price: 1.5 }];
    assert_eq!(cheapest(&items, &offers, 9), [Bought { offer: 1, items: vec![0, 1] }]);
}

#[test]
fn a_few_items_need_no_server_more_than_they_must_where_the_largest_first_would() {
    // 5 + 3 + 2 and 4 + 4 + 2; from the largest down it would be 5 + 4, 4 + 3 + 2 and 2.
    let items = [5, 4, 4, 3, 2, 2].map(|size| room(size, size));
    let offers = [Offer { room: room(10, 10), price: 1.0 }];
    assert_eq!(cheapest(&items, &offers, 9).len(), 2);
}

#[test]
fn many_items_go_to_the_server_that_holds_most_for_its_price() {
    let items = [room(1, 1); 12];
    let offers = [Offer { room: room(12, 12), price: 1.0 }, Offer { room: room(12, 12), price: 2.0 }];
    assert_eq!(cheapest(&items, &offers, 9), [Bought { offer: 0, items: (0..12).collect() }]);
}
