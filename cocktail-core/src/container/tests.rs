//! Every pair of a state and a step: what is in the table is legal, everything else is refused.

use super::{ContainerState as S, IllegalStep, Step};
use crate::time::ManagerTime;

const LATER: ManagerTime = ManagerTime(7);
const BACKOFF: S = S::Backoff { until: ManagerTime(3) };

const STATES: [S; 13] = [
    S::Claimed,
    S::Preparing,
    S::Prepared,
    S::Starting,
    S::Waiting,
    S::Loading,
    S::Ready,
    S::Draining,
    BACKOFF,
    S::Stopped,
    S::Failed,
    S::Lost,
    S::Fenced,
];

const STEPS: [Step; 19] = [
    Step::Begin,
    Step::Prepared,
    Step::Started { ready: true },
    Step::Started { ready: false },
    Step::Registered,
    Step::Assign,
    Step::Returned,
    Step::TurnedReady,
    Step::TurnedUnready,
    Step::Silent,
    Step::Regained { ready: true },
    Step::Regained { ready: false },
    Step::Fence,
    Step::Drain,
    Step::Ended,
    Step::Crashed { until: LATER },
    Step::Reclaim,
    Step::Completed,
    Step::GaveUp,
];

/// The states from which a step leads anywhere, and where it leads to.
fn legal(step: Step) -> (Vec<S>, S) {
    let starting = vec![S::Preparing, S::Prepared, S::Starting];
    let up = [S::Waiting, S::Loading, S::Ready];
    let ran = [S::Loading, S::Ready, S::Lost];
    let there = [&starting[..], &up, &[S::Claimed, S::Draining, BACKOFF, S::Lost, S::Fenced]].concat();
    match step {
        Step::Begin => (vec![S::Claimed, BACKOFF], S::Preparing),
        Step::Prepared => (vec![S::Preparing], S::Starting),
        Step::Started { ready: true } => (starting, S::Ready),
        Step::Started { ready: false } => (starting, S::Loading),
        Step::Registered => (vec![S::Loading], S::Waiting),
        Step::Assign => (vec![S::Waiting], S::Loading),
        Step::Returned => (vec![S::Draining], S::Waiting),
        Step::TurnedReady => (vec![S::Loading, S::Ready], S::Ready),
        Step::TurnedUnready => (vec![S::Loading, S::Ready], S::Loading),
        Step::Silent => ([&starting[..], &up, &[S::Claimed, BACKOFF]].concat(), S::Lost),
        Step::Regained { ready: true } => (vec![S::Lost], S::Ready),
        Step::Regained { ready: false } => (vec![S::Lost], S::Loading),
        Step::Fence => (vec![S::Lost], S::Fenced),
        Step::Drain => (there, S::Draining),
        Step::Ended => ([&there[..], &[S::Stopped]].concat(), S::Stopped),
        Step::Crashed { until } => ([&starting[..], &up, &[S::Lost]].concat(), S::Backoff { until }),
        Step::Reclaim => (starting, S::Claimed),
        Step::Completed => ([&starting[..], &ran].concat(), S::Stopped),
        Step::GaveUp => ([&starting[..], &ran].concat(), S::Failed),
    }
}

#[test]
fn each_step_leads_where_the_table_says_and_nowhere_else() {
    for step in STEPS {
        let (from, to) = legal(step);
        for state in STATES {
            let expected = if from.contains(&state) { Ok(to) } else { Err(IllegalStep { state, step }) };
            assert_eq!(state.on(step), expected, "{state} on {step:?}");
        }
    }
}

#[test]
fn a_step_that_makes_no_sense_says_so_in_one_line() {
    let illegal = S::Failed.on(Step::Begin).expect_err("what has failed is not started");
    assert_eq!(illegal.to_string(), "a container in state failed cannot take the step Begin");
}

#[test]
fn a_container_without_a_process_is_no_reason_to_wait_for_one() {
    let without = [S::Claimed, BACKOFF, S::Stopped, S::Failed];
    for state in STATES {
        assert_eq!(state.may_run(), !without.contains(&state), "{state}");
    }
}

#[test]
fn what_is_on_its_way_out_does_not_count_as_one_of_the_unit() {
    let gone = [S::Draining, S::Stopped, S::Failed, S::Fenced];
    for state in STATES {
        assert_eq!(state.is_live(), !gone.contains(&state), "{state}");
    }
}

#[test]
fn states_have_the_names_of_the_surface() {
    let names: Vec<&str> = STATES.into_iter().map(S::as_str).collect();
    let promised =
        "claimed preparing prepared starting waiting loading ready draining backoff stopped failed lost fenced";
    assert_eq!(names.join(" "), promised);
}
