//! Changes of the count, and replacements by their like.

use super::{UPDATE, rounds};

#[test]
fn scaling_from_two_to_ten_and_back_loses_no_request() {
    rounds(
        2,
        |site| _ = site.next("", UPDATE),
        |site, _| {
            site.home.ok(&["scale", "web", "10"]);
            site.middle();
            site.until("there are ten", |unit| unit["ready"] == 10);
            site.home.ok(&["scale", "web", "2"]);
            site.middle();
            site.ends("completed");
            assert_eq!(site.ids().len(), 2);
        },
    );
}

#[test]
fn a_restart_loses_no_request() {
    rounds(
        2,
        |site| _ = site.next("", UPDATE),
        |site, _| {
            let before = site.ids();
            site.home.ok(&["restart", "web"]);
            site.middle();
            site.until("all are replaced", |_| site.ids().is_disjoint(&before));
            site.ends("completed");
            site.answers("v1");
        },
    );
}
