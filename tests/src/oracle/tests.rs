use super::*;

const fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn who(container: &str, pid: u32) -> Who {
    let word = str::to_owned;
    Who {
        container: word(container),
        server: word("srv-1"),
        unit: word("shop/prod/web"),
        revision: word("1"),
        pid,
        // No process of this machine.
        started: u64::MAX,
    }
}

/// A folder with a file for each: container, process id, and the milliseconds of its records.
fn folder(files: &[(&str, u32, &[u64])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (container, pid, times) in files {
        let who = who(container, *pid);
        let records: String = times.iter().map(|time| record(ms(*time))).collect();
        fs::write(folder.path().join(who.file_name()), who.header() + &records).expect("a file can be written");
    }
    folder
}

fn read(files: &[(&str, u32, &[u64])]) -> Oracle {
    Oracle::read(folder(files).path())
}

#[test]
fn a_life_is_from_the_first_record_to_the_last_whatever_lies_between() {
    let oracle = read(&[("web-1", 10, &[1000, 1010, 3010, 3020])]);
    let life = Life { who: who("web-1", 10), first: ms(1000), last: ms(3020), records: 4, longest_pause: ms(2000) };
    assert_eq!(oracle.lives(), [life]);
    assert_eq!(oracle.alive_at(ms(2000)).len(), 1);
    assert!(oracle.alive_at(ms(3021)).is_empty());
}

#[test]
fn two_lives_of_one_container_at_once_are_found() {
    let apart = read(&[("web-1", 10, &[1000, 2000]), ("web-1", 11, &[2001, 3000]), ("web-2", 12, &[1500, 2500])]);
    assert!(apart.overlaps().is_empty());
    apart.nobody_met_themselves();

    let together = read(&[("web-1", 10, &[1000, 2000]), ("web-1", 11, &[1700, 3000]), ("web-2", 12, &[1500, 2500])]);
    let found: Vec<_> =
        together.overlaps().iter().map(|(one, other, time)| (one.who.pid, other.who.pid, *time)).collect();
    assert_eq!(found, [(10, 11, ms(300))]);
}

#[test]
fn a_single_record_within_another_life_is_a_meeting() {
    let oracle = read(&[("web-1", 10, &[1000, 2000]), ("web-1", 11, &[1500])]);
    assert_eq!(oracle.overlaps().len(), 1);
    assert_eq!(oracle.most_at_once(), (2, ms(1500)));
}

#[test]
#[should_panic(expected = "for 300ms at once")]
fn a_meeting_fails_a_test() {
    read(&[("web-1", 10, &[1000, 2000]), ("web-1", 11, &[1700, 3000])]).nobody_met_themselves();
}

#[test]
fn the_most_at_once_are_counted_over_all_time() {
    let oracle = read(&[
        ("web-1", 10, &[1000, 2000]),
        ("web-2", 11, &[1500, 3000]),
        // Begins as another ends: both are there.
        ("web-3", 12, &[2000, 4000]),
        ("web-4", 13, &[2500, 2600]),
    ]);
    assert_eq!(oracle.most_at_once(), (3, ms(2000)));
    assert_eq!(oracle.only(|life| life.who.container != "web-2").most_at_once(), (2, ms(2000)));
    assert_eq!(oracle.of_unit("shop/prod/web").most_at_once().0, 3);
    assert_eq!(oracle.of_unit("shop/prod/api").most_at_once(), (0, Duration::ZERO));
}

#[test]
fn times_with_too_few_are_found() {
    let oracle = read(&[("web-1", 10, &[1000, 2000]), ("web-2", 11, &[1200, 5000]), ("web-3", 12, &[2300, 5000])]);
    assert_eq!(oracle.gaps_below(2, ms(1200), ms(5000)), [(ms(2000), ms(2300))]);
    assert_eq!(oracle.gaps_below(1, ms(1000), ms(5000)), []);
    // Before the first and after the last nobody lives.
    assert_eq!(oracle.gaps_below(1, ms(900), ms(6000)), [(ms(900), ms(1000)), (ms(5000), ms(6000))]);
    assert_eq!(oracle.gaps_below(2, ms(2100), ms(2200)), [(ms(2100), ms(2200))]);
    assert_eq!(oracle.gaps_below(0, ms(0), ms(9000)), []);
    assert_eq!(Oracle::default().gaps_below(1, ms(0), ms(9)), [(ms(0), ms(9))]);
}

#[test]
fn what_is_not_a_whole_record_is_left_out() {
    let folder = folder(&[("web-1", 10, &[1000, 1010]), ("web-2", 11, &[])]);
    let file = folder.path().join(who("web-1", 10).file_name());
    let text = fs::read_to_string(&file).expect("it was written") + &record(ms(1020))[..9];
    fs::write(&file, text).expect("a file can be written");
    fs::write(folder.path().join("web-3"), "witness web-").expect("a file can be written");
    let lives = Oracle::read(folder.path());
    assert_eq!(lives.lives().iter().map(|life| (life.who.pid, life.last)).collect::<Vec<_>>(), [(10, ms(1010))]);
}

#[test]
#[should_panic(expected = "is before the one before")]
fn times_do_not_go_backwards() {
    read(&[("web-1", 10, &[1010, 1000])]);
}

#[test]
#[should_panic(expected = "not the first line of a witness")]
fn a_file_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    fs::write(folder.path().join("other"), "hello\n").expect("a file can be written");
    Oracle::read(folder.path());
}
