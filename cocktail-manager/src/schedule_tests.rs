use jiff::ToSpan;

use super::*;

fn of(crons: &[&str]) -> Schedule {
    let entry = |cron: &&str| Scheduled { cron: (*cron).to_owned(), min: 1, max: 2 };
    let (schedule, problems) = Schedule::of(&crons.iter().map(entry).collect::<Vec<_>>());
    assert_eq!(problems, []);
    schedule
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn in_force(crons: &[&str], now: &str) -> Option<(usize, String)> {
    of(crons).in_force(at(now)).map(|(index, began)| (index, began.to_string()))
}

fn next(crons: &[&str], now: &str) -> Option<String> {
    of(crons).next(at(now)).map(|at| at.to_string())
}

#[test]
fn the_entry_that_began_last_is_in_force() {
    let day_and_night = ["0 8 * * MON-FRI", "0 20 * * *"];
    // The first of June 2026 is a Monday.
    for (now, index, began) in [
        ("2026-06-01T07:59:59Z", 1, "2026-05-31T20:00:00Z"),
        ("2026-06-01T08:00:00Z", 0, "2026-06-01T08:00:00Z"),
        ("2026-06-01T19:59:59.999Z", 0, "2026-06-01T08:00:00Z"),
        ("2026-06-01T20:00:00Z", 1, "2026-06-01T20:00:00Z"),
        ("2026-06-07T12:00:00Z", 1, "2026-06-06T20:00:00Z"),
    ] {
        assert_eq!(in_force(&day_and_night, now), Some((index, began.to_owned())), "at {now}");
    }
    assert_eq!(next(&day_and_night, "2026-06-01T08:00:00Z").unwrap(), "2026-06-01T20:00:00Z");
    assert_eq!(in_force(&[], "2026-06-01T08:00:00Z"), None);
    assert_eq!(next(&[], "2026-06-01T08:00:00Z"), None);
}

#[test]
fn of_two_that_begin_at_once_the_later_in_the_manifest_is_in_force() {
    assert_eq!(in_force(&["0 8 * * *", "0 8 1 * *"], "2026-06-01T09:00:00Z").unwrap().0, 1);
    assert_eq!(in_force(&["0 8 1 * *", "0 8 * * *"], "2026-06-01T09:00:00Z").unwrap().0, 1);
}

#[test]
fn what_happens_once_a_year_is_found_again_and_what_happened_long_ago_is_not() {
    assert_eq!(in_force(&["0 0 1 1 *"], "2026-12-31T23:59:00Z").unwrap().1, "2026-01-01T00:00:00Z");
    assert_eq!(in_force(&["0 0 29 2 *"], "2027-06-01T00:00:00Z"), None);
    assert_eq!(next(&["0 0 29 2 *"], "2027-06-01T00:00:00Z").unwrap(), "2028-02-29T00:00:00Z");
}

#[test]
fn looking_back_finds_what_looking_forward_passed() {
    for cron in ["* * * * *", "*/7 3,4 * * *", "59 23 L * *", "0 0 13 * 5", "30 2 * * * Europe/Zurich", "5 0 * 8 *"] {
        let schedule = of(&[cron]);
        let mut time = at("2026-03-25T11:17:00Z");
        for _ in 0..40 {
            let began = schedule.next(time).unwrap();
            let next = schedule.next(began).unwrap();
            for now in [began, began + 1.second(), next - 1.second()] {
                assert_eq!(schedule.in_force(now), Some((0, began)), "{cron} at {now}");
            }
            time = began;
        }
    }
}

#[test]
fn months_end_on_their_last_day_also_in_december_and_february() {
    let mut time = "2027-10-01T00:00:00Z".to_owned();
    let mut ends = Vec::new();
    for _ in 0..6 {
        time = next(&["0 12 L * *"], &time).unwrap();
        ends.push(time[..10].to_owned());
    }
    assert_eq!(ends, ["2027-10-31", "2027-11-30", "2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31"]);
    assert_eq!(in_force(&["0 0 31 * *"], "2026-05-01T00:00:00Z").unwrap().1, "2026-03-31T00:00:00Z");
    assert_eq!(next(&["0 12 1,L 12 *"], "2026-12-02T00:00:00Z").unwrap(), "2026-12-31T12:00:00Z");
}

#[test]
fn a_time_zone_moves_with_its_summer_time() {
    let eight = ["0 8 * * * Europe/Zurich"];
    assert_eq!(next(&eight, "2026-03-28T12:00:00Z").unwrap(), "2026-03-29T06:00:00Z");
    assert_eq!(next(&eight, "2026-03-27T12:00:00Z").unwrap(), "2026-03-28T07:00:00Z");
    assert_eq!(in_force(&eight, "2026-10-25T06:59:00Z").unwrap().1, "2026-10-24T06:00:00Z");
    assert_eq!(in_force(&eight, "2026-10-25T07:00:00Z").unwrap().1, "2026-10-25T07:00:00Z");
}

#[test]
fn an_hour_that_is_left_out_or_comes_twice_stops_nothing() {
    // At 02:00 on 29 March 2026 it is 03:00 in Zurich; at 03:00 on 25 October it is 02:00 again.
    let half_past_two = ["30 2 * * * Europe/Zurich"];
    assert_eq!(next(&half_past_two, "2026-03-28T12:00:00Z").unwrap(), "2026-03-30T00:30:00Z");
    assert_eq!(in_force(&half_past_two, "2026-03-29T12:00:00Z").unwrap().1, "2026-03-28T01:30:00Z");
    assert_eq!(in_force(&half_past_two, "2026-10-25T00:45:00Z").unwrap().1, "2026-10-25T00:30:00Z");
    assert_eq!(in_force(&half_past_two, "2026-10-25T12:00:00Z").unwrap().1, "2026-10-25T01:30:00Z");
}

#[test]
fn an_entry_with_an_unknown_zone_is_named_and_the_others_count() {
    let entry = |cron: &str| Scheduled { cron: cron.to_owned(), min: 1, max: 2 };
    let (schedule, problems) = Schedule::of(&[entry("0 8 * * * Mars/Base"), entry("0 9 * * *")]);
    let [(0, problem)] = &problems[..] else { panic!("one problem: {problems:?}") };
    assert!(problem.contains("Mars/Base"), "{problem}");
    assert_eq!(schedule.in_force(at("2026-06-01T12:00:00Z")).unwrap().0, 1);
}

#[test]
fn bounds_are_news_only_while_the_schedule_says_them() {
    let text = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"x\"]\n\
                scale = { max = 9, schedule = [{ cron = \"0 8 * * *\", min = 2, max = 4 }] }\n";
    let file = cocktail_core::manifest::parse(text, "shop.toml".as_ref(), "/".as_ref()).unwrap();
    let spec = file.service.unwrap().maps.into_values().next().unwrap().units.into_values().next().unwrap();
    let mut unit = Unit::new(spec, cocktail_core::time::WallTime(0), "test");
    let (said, other) = (Bounds { min: 2, max: 4 }, Bounds { min: 2, max: 5 });
    assert!(is_news(Some(&unit), Some(said)));
    assert!(!is_news(Some(&unit), Some(other)), "another manifest was applied meanwhile");
    assert!(!is_news(None, Some(said)), "the Unit is gone");
    unit.bounds = Some(said);
    assert!(!is_news(Some(&unit), Some(said)));
}
