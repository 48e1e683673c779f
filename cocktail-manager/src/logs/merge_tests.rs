use futures_util::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;

fn line(at: i64, text: &str) -> Result<LogLine> {
    Ok(LogLine { container: "web-1".into(), at: WallTime(at), stderr: false, partial: false, text: text.into() })
}

fn ended(lines: Vec<Result<LogLine>>) -> LogStream {
    stream::iter(lines).boxed()
}

/// A log that is followed, and what writes it.
fn live() -> (mpsc::UnboundedSender<Result<LogLine>>, LogStream) {
    let (write, log) = mpsc::unbounded_channel();
    (write, UnboundedReceiverStream::new(log).boxed())
}

fn merge(filter: Filter, logs: Vec<LogStream>) -> Merge {
    let mut merge = Merge::new(filter);
    logs.into_iter().for_each(|log| merge.add(log));
    merge
}

async fn text(merge: &mut Merge) -> String {
    loop {
        match merge.next().await {
            Some(Next::Line(line)) => return line.map_or_else(|error| error.to_string(), |line| line.text),
            Some(Next::Settled) => {}
            None => return "the end".into(),
        }
    }
}

async fn all(mut merge: Merge) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match text(&mut merge).await {
            end if end == "the end" => return lines,
            line => lines.push(line),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lines_of_several_logs_come_by_their_time() {
    let logs = vec![
        ended(vec![line(1, "a1"), line(4, "a4"), line(5, "a5")]),
        ended(vec![]),
        ended(vec![line(2, "b2"), line(3, "b3"), line(9, "b9")]),
    ];
    assert_eq!(all(merge(Filter::default(), logs)).await, ["a1", "b2", "b3", "a4", "a5", "b9"]);
}

#[tokio::test(start_paused = true)]
async fn lines_of_one_log_keep_their_order_whatever_their_times_say() {
    let part = |text: &str| line(8, text).map(|line| LogLine { partial: true, ..line });
    let logs = vec![
        ended(vec![line(5, "a5"), line(1, "a1 after a clock was set"), line(0, "notice"), line(7, "a7")]),
        ended(vec![line(6, "b6"), part("b8, "), line(20, "its end"), line(21, "b21")]),
        ended(vec![line(9, "c9")]),
    ];
    let lines = all(merge(Filter::default(), logs)).await;
    let order = ["a5", "a1 after a clock was set", "notice", "b6", "a7", "b8, ", "its end", "c9", "b21"];
    assert_eq!(lines, order);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_silent_holds_the_others_up_for_a_window_and_then_no_more() {
    let (write, log) = live();
    let mut merge = merge(Filter::default(), vec![ended((1..=1000).map(|at| line(at, "old")).collect()), log]);
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(text(&mut merge).await, "old");
    }
    assert!(began.elapsed() < WINDOW * 2, "{:?} for all of them", began.elapsed());
    drop(write);
    assert_eq!(text(&mut merge).await, "the end");
}

#[tokio::test(start_paused = true)]
async fn what_is_written_waits_for_earlier_lines_of_others_but_not_for_long() {
    let ((first, one), (second, other)) = (live(), live());
    let mut merge = merge(Filter::default(), vec![one, other]);
    assert!(matches!(merge.next().await, Some(Next::Settled)));
    let now = Clock::wall().0;
    first.send(line(now + 2, "later")).unwrap();
    let arrived = Instant::now();
    let late = async {
        tokio::time::sleep(WINDOW / 2).await;
        second.send(line(now + 1, "earlier")).unwrap();
    };
    let ((), line) = tokio::join!(late, text(&mut merge));
    assert_eq!(line, "earlier");
    assert_eq!(text(&mut merge).await, "later");
    assert!(arrived.elapsed() <= WINDOW * 2, "{:?}", arrived.elapsed());
    second.send(self::line(now + 3_600_000_000, "from a clock that is ahead")).unwrap();
    let arrived = Instant::now();
    assert_eq!(text(&mut merge).await, "from a clock that is ahead");
    assert!(arrived.elapsed() <= WINDOW * 2, "{:?}", arrived.elapsed());
}

#[tokio::test(start_paused = true)]
async fn it_is_told_once_when_nothing_old_is_left() {
    let ((first, one), (second, other)) = (live(), live());
    first.send(line(3, "old")).unwrap();
    let mut merge = merge(Filter::default(), vec![one, other]);
    assert!(matches!(merge.next().await, Some(Next::Line(Ok(_)))));
    assert!(matches!(merge.next().await, Some(Next::Settled)));
    let write = async {
        tokio::time::sleep(WINDOW * 3).await;
        second.send(line(4, "more")).unwrap();
    };
    let ((), next) = tokio::join!(write, merge.next());
    assert!(matches!(next, Some(Next::Line(Ok(_)))), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn unwanted_lines_are_dropped_where_they_are_read() {
    let filter = Filter { grep: Some("keep".into()), since: Some(WallTime(5)) };
    let mut long: Vec<_> = (5..5 + 3 * SKIPPED as i64).map(|at| line(at, "dropped")).collect();
    long.push(line(10_000, "keep me"));
    let logs = vec![ended(vec![line(4, "keep, but too old"), line(6, "keep 6")]), ended(long)];
    assert_eq!(all(merge(filter, logs)).await, ["keep 6", "keep me"]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_breaks_is_told_and_the_others_go_on() {
    let broken = ended(vec![line(1, "a1"), Err(cocktail_core::error::Error::unavailable("gone"))]);
    let lines = all(merge(Filter::default(), vec![broken, ended(vec![line(5, "b5")])])).await;
    assert_eq!(lines, ["a1", "gone", "b5"]);
}
